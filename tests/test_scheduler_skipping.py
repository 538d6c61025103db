"""Strided 1 x 1 convolutions load the pixels that they read, alone."""

from __future__ import annotations

import pytest
from graphs import GraphBuilder
from running import compare
from tilewright.hwsim.simulation import simulate
from tilewright.ir.arch import Arch
from tilewright.ir.graph import Graph
from tilewright.ir.tile import Ring, TileProgram
from tilewright.scheduler import Options, Plan, lower, schedule
from tilewright.scheduler.layers import make_layers
from tilewright.scheduler.quick import quick
from tilewright.scheduler.skipping import loaded_skipping, skips

ARCH = Arch.preset("b512")


def _strided(
    stride: tuple[int, int], channels: int, *, seed: int = 0, size: tuple[int, int] = (13, 18)
) -> Graph:
    """A residual block's shortcut, added to another map."""
    b = GraphBuilder(seed, "f32")
    x = b.input((*size, channels))
    t = b.conv(x, 24, (1, 1), stride, (0,) * 4)
    b.add(t, b.input(b.tensors[t].shape))
    return b.graph()


def _loaded(plan: Plan, tensor: str) -> Ring:
    statements = [s for g in plan.tiling.groups for s in g.statements]
    ring = next(s.ring for s in statements if s.kind == "load" and s.tensor == tensor)
    assert ring is not None
    return ring


@pytest.mark.parametrize("stride", [(2, 2), (2, 1), (1, 2), (3, 2)], ids=str)
@pytest.mark.parametrize("channels", [32, 20, 5])
def test_values_are_the_reference_s_and_the_ring_holds_what_is_read(
    stride: tuple[int, int], channels: int
) -> None:
    """Whole blocks, a dense last one, fewer channels than lanes; in stream order and in a random legal order."""
    for seed, options in enumerate((Options(), Options(strip_rows=1), Options(fuse=1, keep_maps=False))):
        graph = _strided(stride, channels, seed=seed)
        plan = schedule(graph, ARCH, options=options)
        ring, out = _loaded(plan, "in0"), graph.tensors[graph.ops[0].output].shape
        assert ring.fold
        assert ring.width == out[1]
        assert ring.rows <= out[0]
        assert not compare(plan, graph, seed).differing
        assert not compare(plan, graph, seed, order="random").differing
        again = lower(TileProgram.parse(str(plan.tiling)), graph, ARCH)
        assert again.program.save() == plan.program.save()


def test_rows_that_are_not_read_stay_in_dram() -> None:
    """Half the rows, up to the last column that is read; the quick estimate has the same bytes and instructions' cycles."""
    graph = _strided((2, 2), 32, size=(16, 16))
    plan = schedule(graph, ARCH, objective="energy")
    run = simulate(plan.program, ARCH, "fixed:16,40", graph=graph)
    other, fetched = graph.tensors["in1"].bytes, 8 * 15 * 32
    assert run.dram_bytes["ifmap"] == fetched + other
    estimate = quick(graph, ARCH, "fixed:16,40", "energy")
    assert estimate.dram_bytes == run.dram_bytes["total"]
    assert estimate.cycles == pytest.approx(run.cycles, rel=0.05)


def test_a_map_that_others_read_too_comes_whole() -> None:
    """Two readers in a group want it as it is; alone, each has its own way."""
    b = GraphBuilder(2, "f32")
    x = b.input((12, 12, 16))
    b.conv(x, 16, (1, 1), (2, 2), (0,) * 4)
    b.conv(x, 16, (3, 3), (2, 2), (1, 1, 1, 1))
    graph = b.graph()
    strided, windowed = make_layers(graph, ARCH)
    assert skips(strided, graph) == (2, 2)
    assert skips(windowed, graph) == (1, 1)
    assert loaded_skipping((strided,), x, graph) == (2, 2)
    assert loaded_skipping((strided, windowed), x, graph) == (1, 1)
    assert not compare(schedule(graph, ARCH), graph).differing


def test_padding_is_read_and_so_nothing_is_skipped() -> None:
    b = GraphBuilder(2, "f32")
    b.conv(b.input((12, 12, 16)), 16, (1, 1), (2, 2), (1, 1, 0, 0))
    graph = b.graph()
    assert skips(make_layers(graph, ARCH)[0], graph) == (1, 1)
    plan = schedule(graph, ARCH)
    assert not _loaded(plan, "in0").fold
    assert not compare(plan, graph).differing


def test_maps_on_chip_are_read_where_they_are() -> None:
    """The map was made on chip and stays: the convolution strides over it."""
    b = GraphBuilder(4, "f32")
    t = b.conv(b.input((12, 12, 16)), 16, (3, 3), (1, 1), (1, 1, 1, 1))
    b.conv(t, 16, (1, 1), (2, 2), (0,) * 4)
    graph = b.graph()
    plan = schedule(graph, ARCH)
    loads = [s.tensor for g in plan.tiling.groups for s in g.statements if s.kind == "load"]
    assert loads == ["in0"]
    assert not compare(plan, graph).differing
