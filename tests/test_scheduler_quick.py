"""The quick estimate against its slow twins: the scheduler's plan, its instructions, the simulator's cycles."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tilewright as tw
from tilewright.hwsim import simulate
from tilewright.hwsim.bounds import bounds
from tilewright.hwsim.dram import parse
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ScheduleError
from tilewright.ir.graph import Graph
from tilewright.scheduler import (
    costing,
    find_misfits,
    memories,
    place,
    plan,
    quick_network,
    quick_place,
    quick_plan,
    quick_stream,
    quick_unroll,
    quick_waits,
    residency,
    schedule,
    search,
)
from tilewright.scheduler import quick as module
from tilewright.scheduler.quick import Quick, quick

MEMORY = "banked:DDR4-2400x64"
MACHINES = ("b512", "b1024", "b4096", "b4096-nodw")


@pytest.fixture(scope="module")
def tiny() -> Graph:
    model = tw.compile("zoo:tiny", "b512", synthetic_calibration=True).model
    return model.graphs[0]


def _small(name: str, kib: int) -> Arch:
    return Arch.preset(name).override({"maps.kib": kib})


@pytest.mark.parametrize(
    "arch", [*map(Arch.preset, MACHINES), _small("b512", 32), _small("b1024", 16)], ids=str
)
def test_the_quick_plan_is_the_scheduler_s(tiny: Graph, arch: Arch) -> None:
    """Groups of layers, strip heights, and the words of every ring; then instruction by instruction, busy cycles and bytes."""
    peak = parse(MEMORY, arch.clock_mhz).peak_bytes_per_cycle
    want = schedule(tiny, arch, dram_bytes_per_cycle=peak)
    net = quick_network.network(tiny, arch)
    got = module.decide(net, tiny, arch, peak, "latency")

    number = {layer.name: n for n, layer in enumerate(net.layers)}
    names = list(dict.fromkeys(t for layer in net.layers for t in (*layer.inputs, layer.output)))
    groups = [g for g in want.tiling.groups if g.statements[0].kind != "view"]
    assert len(groups) == len(got.groups)
    for group, row in zip(groups, got.groups.tolist(), strict=True):
        layers = [number[s.layer] for s in group.statements if s.layer]
        assert (min(layers), max(layers) + 1, group.rows, group.cols) == tuple(row[:4])
        run = net.runs.run_at[row[1], row[1] - row[0]]
        maps = [names[m] for m in net.runs.maps[net.runs.run_maps[run] : net.runs.run_maps[run + 1]]]
        rings = dict(zip(maps, got.rings[row[7] :].tolist(), strict=False))
        for s in group.statements:
            if s.ring is not None:
                first = s.ring.group * arch.group_words + s.ring.base
                assert rings[s.tensor] == [first, s.ring.rows, s.ring.blocks, s.ring.width]

    stream = module._stream(net, arch, got)
    entries, _ = module._waits(net, arch, stream)
    cost = module._costs(stream, arch)
    real = module.costs(want.program.fields, arch)[:-1]
    assert np.array_equal(entries[:, 0], want.program.engine[:-1])
    assert np.array_equal(cost["dram_bytes"][entries[:, 1]], real["dram_bytes"])
    assert np.mean(cost["busy"][entries[:, 1]] == real["busy"]) > 0.98


def test_the_estimate_is_near_and_ranks_machines_as_the_simulator_does(tiny: Graph) -> None:
    """Above the bound, within a few per cent; DRAM bytes to the byte where maps are not cut into columns."""
    found: list[tuple[int, int]] = []
    for name in MACHINES:
        for memory in (MEMORY, "fixed:4,60"):
            arch = Arch.preset(name)
            spec = parse(memory, arch.clock_mhz)
            estimate = quick(tiny, arch, memory)
            plan_ = schedule(tiny, arch, dram_bytes_per_cycle=spec.peak_bytes_per_cycle)
            run = simulate(plan_.program, arch, memory, graph=tiny)
            assert estimate.cycles >= bounds(tiny, arch, spec).bound_cycles
            assert estimate.cycles == pytest.approx(run.cycles, rel=0.05)
            assert estimate.dram_bytes == run.dram_bytes["total"]
            assert estimate.energy_pj == pytest.approx(run.energy.total_mj * 1e9, rel=0.05)
            assert estimate.macs == tiny.macs
            found.append((estimate.cycles, run.cycles))
    mine, simulated = np.argsort(np.argsort(np.array(found), axis=0), axis=0).T
    assert np.corrcoef(mine, simulated)[0, 1] >= 0.95


@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
def test_what_is_remembered_changes_nothing(tiny: Graph, objective: Any) -> None:
    """The same estimate twice, and from tables made anew."""
    arch = Arch.preset("b1024")
    first = quick(tiny, arch, MEMORY, objective)
    quick(tiny, Arch.preset("b4096"), MEMORY, objective)
    again = quick(tiny, arch, MEMORY, objective)
    quick_network._KNOWN.clear()
    module._memory.cache_clear()
    fresh = quick(tiny, arch, MEMORY, objective)
    assert isinstance(first, Quick)
    assert first == again == fresh


def test_a_layer_that_does_not_fit_is_told_as_by_the_scheduler(tiny: Graph) -> None:
    arch = Arch.preset("b4096").override({"weights.kib": 4, "conv.ic": 64, "conv.oc": 64, "maps.kib": 1024})
    with pytest.raises(ScheduleError) as fast:
        quick(tiny, arch, MEMORY)
    assert str(fast.value) in {str(error) for error in find_misfits(tiny, arch)}


def test_an_objective_that_is_none_is_refused(tiny: Graph) -> None:
    with pytest.raises(ScheduleError, match="objective 'speed' is not one of latency, energy, edp"):
        quick(tiny, Arch.preset("b512"), MEMORY, "speed")  # type: ignore[arg-type]


def test_kernels_have_the_scheduler_s_constants() -> None:
    """Numba's cache notices edits of a kernel's own file only, so numbers stand there once more."""
    assert quick_plan._HOPELESS == search._HOPELESS
    assert quick_plan._LEAST_BUSY == search._LEAST_BUSY
    assert quick_plan._QUARTERS == search._CHUNKS
    assert quick_plan._CHUNKS_HELD == quick_place._CHUNKS_HELD == costing._CHUNKS_HELD
    assert quick_plan._EIGHTH == residency._PIECES
    assert quick_plan._PER_STEP == costing._STEP
    assert quick_plan._BEAM == plan._BEAM
    assert 1 / quick_plan._SMALL == plan._SMALL
    assert quick_plan._AHEAD == plan._AHEAD
    assert quick_plan._CRAMPED == plan._CRAMPED
    assert quick_plan._PACKED == plan._PACKED
    assert quick_plan._WAIT == quick_place._WAIT == plan._WAIT
    assert quick_place._PLACED == plan._PLACED
    assert quick_place._SWEEPS == place._SWEEPS
    assert quick_waits.AHEAD == memories.AHEAD


@pytest.mark.parametrize(
    ("kernels", "prefix", "names"),
    [
        (quick_unroll, "_", quick_stream.FIELDS),
        (quick_unroll, "_", quick_stream.SHAPE),
        (quick_unroll, "_L_", quick_network.LAYER[:10]),
        (quick_unroll, "_P_", tuple(n for n in quick_network.PART if n not in {"record_bytes", "blocks"})),
        (quick_unroll, "_G_", quick_place.GROUP),
        (quick_unroll, "_R_", quick_place.RING),
        (quick_plan, "_", quick_plan.MACHINE),
        (quick_plan, "_", quick_network.MAP[:6]),
        (quick_waits, "_", tuple(n for n in quick_stream.ACTION if n not in {"read_ports", "write_ports"})),
    ],
)
def test_kernels_know_columns_by_their_place(kernels: Any, prefix: str, names: tuple[str, ...]) -> None:
    tables = (
        *(
            quick_stream.FIELDS,
            quick_stream.SHAPE,
            quick_network.LAYER,
            quick_network.PART,
            quick_network.MAP,
        ),
        *(quick_place.GROUP, quick_place.RING, quick_plan.MACHINE, quick_stream.ACTION),
    )
    table = next(t for t in tables if set(names) <= set(t))
    for name in names:
        assert getattr(kernels, prefix + name.upper()) == table.index(name), name


def test_the_benchmark_of_the_estimate_measures(capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(Path(__file__).parent / "benchmarks" / "quick.py"))
    assert script["main"](["tiny", "--machines", "2"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert "rank" in head
    assert row.split()[0] == "tiny"
    assert script["rank_correlation"](np.array([1.0, 2.0, 3.0]), np.array([2.0, 5.0, 9.0])) == pytest.approx(
        1.0
    )
