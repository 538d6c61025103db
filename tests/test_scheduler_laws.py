"""Laws that hold whatever the schedule: values do not depend on it, and more of a resource is never worse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graphs import GraphBuilder
from running import compare
from tilewright.hwsim.simulation import simulate
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ProgramError, ScheduleError
from tilewright.ir.graph import Graph
from tilewright.ir.tile import TileProgram
from tilewright.scheduler import Options, find_misfits, lower, schedule


@pytest.fixture(scope="module")
def network() -> Graph:
    """Three inverted residual blocks behind a strided stem, then pooling and a classifier."""
    g = GraphBuilder(7, "f32")
    x = g.conv(g.input((48, 40, 3)), 16, (3, 3), (2, 2), (1, 1, 1, 1))
    x = g.inverted_residuals(x)
    return g.classified(x)


def test_values_do_not_depend_on_tile_fusion_or_buffer_size(network: Graph) -> None:
    """Other strip heights, no fusion, small and large memories, other arrays: identical output bytes."""
    outputs = set()
    for name, changes, options in (
        ("b1024", {}, Options()),
        ("b1024", {}, Options(fuse=1)),
        ("b1024", {}, Options(fuse=1, keep_maps=False)),
        ("b1024", {}, Options(strip_rows=1)),
        ("b1024", {}, Options(strip_rows=5)),
        ("b1024", {"maps.kib": 64}, Options()),
        ("b1024", {"maps.kib": 1024}, Options()),
        ("b1024", {"weights.kib": 32}, Options()),
        ("b1024-nodw", {}, Options()),
        ("b4096", {"dwc.taps": 1}, Options()),
        ("b800", {}, Options()),
    ):
        arch = Arch.preset(name).override(changes)
        found = compare(schedule(network, arch, options=options), network, 3)
        assert not found.differing
        outputs.add(found.values[network.outputs[0]].tobytes())
    assert len(outputs) == 1


def test_more_bandwidth_is_never_slower(network: Graph) -> None:
    """One program on ever faster memory of fixed latency."""
    arch = Arch.preset("b1024")
    plan = schedule(network, arch)
    cycles = [
        simulate(plan.program, arch, f"fixed:{b}", graph=network).cycles for b in (1, 2, 4, 8, 16, 32, 64)
    ]
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[0] > 2 * cycles[-1]


def test_less_latency_is_never_slower(network: Graph) -> None:
    """One program on memories that answer ever later."""
    arch = Arch.preset("b512")
    plan = schedule(network, arch)
    cycles = [
        simulate(plan.program, arch, f"fixed:16,{latency}", graph=network).cycles
        for latency in (5, 20, 60, 200, 500)
    ]
    assert cycles == sorted(cycles)


def test_fusion_spares_dram_traffic_where_maps_are_larger_than_the_memory(network: Graph) -> None:
    """Depth-first strips keep the expanded maps on chip."""
    arch = Arch.preset("b1024").override({"maps.kib": 48})
    fused = simulate(schedule(network, arch).program, arch, "fixed:16", graph=network)
    layered = simulate(
        schedule(network, arch, options=Options(fuse=1, keep_maps=False)).program,
        arch,
        "fixed:16",
        graph=network,
    )
    assert fused.dram_bytes["total"] < layered.dram_bytes["total"] / 2


def test_the_same_input_gives_the_same_bytes(network: Graph) -> None:
    """Two compilations, one program file."""
    arch = Arch.preset("b512")
    assert schedule(network, arch).program.save() == schedule(network, arch).program.save()


def test_an_edited_strip_height_compiles_and_keeps_the_values(network: Graph) -> None:
    """A user halves the strips of a fused group in the text; the ring stays large enough and the bytes are the same."""
    arch = Arch.preset("b1024")
    plan = schedule(network, arch, options=Options(strip_rows=4))
    text = str(plan.tiling)
    assert " step 4 {" in text
    edited = lower(TileProgram.parse(text.replace(" step 4 {", " step 2 {")), network, arch)
    assert len(edited.program) > len(plan.program)
    assert not compare(edited, network).differing


def test_a_ring_that_is_too_small_is_refused(network: Graph) -> None:
    """The message names the ring, the rows it holds and the rows it needs."""
    arch = Arch.preset("b1024")
    text = str(schedule(network, arch, options=Options(strip_rows=2)).tiling)
    with pytest.raises(ProgramError, match=r"the ring of %\w+ holds \d+ rows, strips of 24 rows\s+need \d+"):
        lower(TileProgram.parse(text.replace(" step 2 {", " step 24 {")), network, arch)


def test_two_live_maps_on_the_same_words_are_refused(network: Graph) -> None:
    """A map moved onto another that is still to be read."""
    arch = Arch.preset("b1024")
    text = str(schedule(network, arch).tiling)
    lines = text.splitlines()
    rings = [i for i, line in enumerate(lines) if "-> maps." in line]
    place = lines[rings[0]].split("-> ")[1].split("]")[0]
    old = lines[rings[1]].split("-> ")[1].split("]")[0]
    lines[rings[1]] = lines[rings[1]].replace(old, place)
    with pytest.raises(ProgramError, match="are alive together; move one"):
        lower(TileProgram.parse("\n".join(lines)), network, arch)


def test_a_tiling_for_another_machine_is_refused(network: Graph) -> None:
    plan = schedule(network, Arch.preset("b1024"))
    with pytest.raises(ProgramError, match=r"is for design [0-9a-f]+, b512 is [0-9a-f]+; compile it"):
        lower(plan.tiling, network, Arch.preset("b512"))


def test_a_layer_that_fits_nowhere_names_resource_demand_and_lever() -> None:
    """A kernel whose taps alone exceed the weight memory."""
    g = GraphBuilder(1, "f32")
    g.conv(g.input((40, 40, 16)), 8, (31, 31), (1, 1), (1, 1, 1, 1))
    arch = Arch.preset("b512").override({"weights.kib": 8, "maps.kib": 512})
    with pytest.raises(
        ScheduleError,
        match=r"op0: its 961 taps need 1924 weight words .* b512\+ has 128; raise weights.kib to 121",
    ):
        schedule(g.graph(), arch)


def test_a_rounding_mode_the_machine_lacks_is_named() -> None:
    g = GraphBuilder(1, "f32")
    g.conv(g.input((4, 4, 8)), 8, (1, 1), (1, 1), (0, 0, 0, 0))
    arch = Arch.preset("b512").override({"rounding": ("shift",)})
    with pytest.raises(ScheduleError, match="op0: rounds in mode f32, b512\\+ has shift"):
        schedule(g.graph(), arch)


def test_a_reduction_larger_than_the_weight_memory_is_split() -> None:
    """A fully connected layer of 6,400 inputs on 16 KiB of weights: accumulators carry over between instructions."""
    g = GraphBuilder(2, "f32")
    g.conv(g.input((5, 5, 256)), 20, (5, 5), (1, 1), (0, 0, 0, 0))
    graph = g.graph()
    arch = Arch.preset("b512").override({"weights.kib": 16})
    plan = schedule(graph, arch)
    assert not compare(plan, graph).differing
    assert any("last=1" in line and "first=1" not in line for line in plan.program if line.startswith("conv"))


def test_many_pixels_of_a_split_reduction_go_block_by_block() -> None:
    """A 3x3 layer of 512 channels on 8 KiB of weights: tiles of as many pixels as accumulators wait, and right to the byte."""
    g = GraphBuilder(1, "f32")
    g.conv(g.input((6, 7, 512)), 8, (3, 3), (1, 1), (1, 1, 1, 1))
    graph = g.graph()
    plan = schedule(graph, Arch.preset("b512").override({"weights.kib": 8, "maps.kib": 512}))
    assert not compare(plan, graph).differing


def test_every_layer_that_fits_nowhere_is_found_before_scheduling() -> None:
    """All of them at once, each with its lever; a network that fits has none."""
    g = GraphBuilder(1, "f32")
    x = g.conv(g.input((40, 40, 16)), 8, (31, 31), (1, 1), (15, 15, 15, 15))
    g.conv(g.conv(x, 8, (3, 3), (1, 1), (1, 1, 1, 1)), 8, (33, 33), (1, 1), (16, 16, 16, 16))
    arch = Arch.preset("b512").override({"weights.kib": 8})
    assert [error.facts["node"] for error in find_misfits(g.graph(), arch)] == ["op0", "op2"]
    assert find_misfits(g.graph(), Arch.preset("b512")) == ()


def test_wide_maps_are_cut_into_columns() -> None:
    """Three rows of a 400-pixel map do not fit a map group of 64 words a bank."""
    g = GraphBuilder(3, "f32")
    g.conv(g.input((12, 400, 40)), 24, (3, 3), (1, 1), (1, 1, 1, 1))
    graph = g.graph()
    arch = Arch.preset("b512").override({"maps.kib": 32})
    plan = schedule(graph, arch)
    assert "for x in 0:400" in str(plan.tiling)
    found = compare(plan, graph)
    assert found.compared == 12 * 400 * 24
    assert not found.differing


def test_dram_layout_is_blocked_with_a_dense_tail() -> None:
    """Packing and unpacking are inverse, and a map takes exactly its bytes."""
    from tilewright.ir.layout import pack_map, unpack_map

    rng = np.random.default_rng(0)
    for c in (1, 7, 8, 9, 24):
        value = rng.integers(-128, 128, (3, 5, c)).astype(np.int8)
        data = pack_map(value, 8)
        assert data.shape == (15 * c,)
        assert np.array_equal(unpack_map(data, value.shape, 8), value)


@pytest.mark.parametrize("drain", range(1, 9))
def test_any_drain_width_writes_a_strided_grid_without_conflicts(drain: int) -> None:
    """A transposed convolution writes every third pixel; drains that do not divide the array's pixels included."""
    g = GraphBuilder(4, "shift")
    g.transposed(g.input((4, 7, 38)), 14, (3, 3), (3, 3), (1, 1, 1, 1), (1, 1))
    graph = g.graph()
    plan = schedule(graph, Arch.preset("b1024").override({"conv.drain": drain}))
    assert not compare(plan, graph).differing


def test_a_limit_on_dram_traffic_is_planned_for(network: Graph) -> None:
    """With less to have on average, no schedule takes more traffic; somewhere it takes less. A limit of nothing is refused."""
    moved = []
    for kib in (8, 16, 24, 32):
        arch = Arch.preset("b512").override({"maps.kib": kib, "maps.groups": 2, "weights.kib": 8})
        plans = [schedule(network, arch, options=Options(dram_gbps=gbps)) for gbps in (math.inf, 0.2)]
        moved.append([simulate(plan.program, arch, "fixed:16").dram_bytes["total"] for plan in plans])
    assert all(limited <= free for free, limited in moved), moved
    assert any(limited < free for free, limited in moved), moved
    with pytest.raises(ScheduleError, match="limit of 0 GB/s"):
        schedule(network, arch, options=Options(dram_gbps=0.0))
