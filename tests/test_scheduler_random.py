"""Random graphs on random machines: the emulator equals the integer reference on every byte."""

from __future__ import annotations

import os

from graphs import archs, graphs
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from running import Comparison, compare
from tilewright.hwsim.simulation import simulate
from tilewright.ir.arch import PRESETS, Arch
from tilewright.ir.errors import ScheduleError
from tilewright.ir.graph import Graph
from tilewright.ir.tile import TileProgram
from tilewright.scheduler import Options, Plan, lower, saving_all, schedule

_EXAMPLES = int(os.environ.get("TILEWRIGHT_EXAMPLES", "500"))
_SETTINGS = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)

machines = st.one_of(
    archs(), st.sampled_from([PRESETS[n] for n in ("b512", "b800", "b1024-nodw", "b1152", "b4096")])
)
ways = st.sampled_from(
    [
        Options(),
        Options(save_all=True),
        Options(fuse=1, keep_maps=False),
        Options(fuse=3, strip_rows=2),
        Options(fuse=8, fold_tables=False),
    ]
)


def _compiled(graph: Graph, arch: Arch, options: Options) -> Plan:
    try:
        return schedule(graph, arch, options=options)
    except ScheduleError as error:
        event(f"does not fit: {type(error).__name__}")
        assume(False)
        raise


def _every_byte(plan: Plan, graph: Graph, seed: int) -> Comparison:
    """No map differs, in stream order, in a random legal one, and with every layer's map saved."""
    found = compare(plan, graph, seed)
    assert found.compared > 0
    assert not found.differing
    assert compare(plan, graph, seed, order="random").differing == {}
    witness = compare(saving_all(plan), graph, seed)
    assert not witness.differing
    assert set(witness.values) == {op.output for op in graph.ops}
    return found


@_SETTINGS
@given(graphs(), machines, ways, st.integers(0, 2**16))
def test_every_byte_of_a_random_graph_equals_the_reference(
    graph: Graph, arch: Arch, options: Options, seed: int
) -> None:
    """All maps that reach DRAM are compared, in stream order and in a random legal order; the tiling's text is the value."""
    plan = _compiled(graph, arch, options)
    _every_byte(plan, graph, seed)
    assert TileProgram.parse(str(plan.tiling)) == plan.tiling


@settings(_SETTINGS, max_examples=max(10, _EXAMPLES // 5))
@given(graphs(most=4), machines, ways)
def test_the_tiling_text_compiles_to_the_same_program(graph: Graph, arch: Arch, options: Options) -> None:
    """Printing, parsing and lowering a tiling gives the program's very bytes."""
    plan = _compiled(graph, arch, options)
    again = lower(TileProgram.parse(str(plan.tiling)), graph, arch)
    assert again.program.save() == plan.program.save()


@settings(_SETTINGS, max_examples=max(10, _EXAMPLES // 5))
@given(graphs(most=4), machines, ways, st.sampled_from(["fixed:8", "fixed:32,60", "banked:DDR4-2400x64"]))
def test_claims_are_ordered_and_bytes_agree(graph: Graph, arch: Arch, options: Options, dram: str) -> None:
    """bound <= estimate <= simulated; the simulator's DRAM bytes are those the emulator moved."""
    plan = _compiled(graph, arch, options)
    result = simulate(plan.program, arch, dram, graph=graph)
    assert result.bounds.bound_cycles <= result.estimate_cycles <= result.cycles
    moved = compare(plan, graph).emulation
    assert result.dram_bytes["total"] == moved.dram_bytes
    assert result.dram_bytes["ofmap"] == moved.dram_written_bytes


@settings(_SETTINGS, max_examples=max(20, _EXAMPLES // 4))
@given(graphs(), machines, ways, st.integers(2, 4), st.integers(0, 2**16))
def test_every_byte_of_a_batch_equals_the_reference(
    graph: Graph, arch: Arch, options: Options, frames: int, seed: int
) -> None:
    """The reference knows nothing of batches: it computes frame by frame."""
    batch = graph.stacked(frames)
    plan = _compiled(batch, arch, options)
    found = _every_byte(plan, batch, seed)
    again = lower(TileProgram.parse(str(plan.tiling)), batch, arch)
    assert again.program.save() == plan.program.save()
    result = simulate(plan.program, arch, "banked:DDR4-2400x64", graph=batch)
    assert result.bounds.bound_cycles <= result.estimate_cycles <= result.cycles
    assert result.frames == frames
    assert result.dram_bytes["total"] == found.emulation.dram_bytes
