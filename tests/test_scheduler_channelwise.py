"""Layers that follow a convolution chunk by chunk over its output channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import GraphBuilder
from running import compare
from tilewright.hwsim.simulation import simulate
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ProgramError, ScheduleError
from tilewright.ir.graph import Graph, Window
from tilewright.ir.layout import blocks
from tilewright.ir.tile import Group, TileProgram
from tilewright.scheduler import Options, lower, schedule
from tilewright.scheduler.candidates import Candidate
from tilewright.scheduler.layers import Layer, make_layers
from tilewright.scheduler.plan import plan_search
from tilewright.scheduler.quick import quick
from tilewright.scheduler.search import Search

SMALL = Arch.preset("b512").override({"maps.kib": 28, "maps.groups": 7, "weights.kib": 8})
CHANNELS = 64
HALVES = Window((2, 2), (2, 2))
OVERLAPPING = Window((3, 3), (2, 2), pad=(1, 1, 1, 1))


def _block(*kinds: str, size: int = 16, seed: int = 1, channels: int = CHANNELS, kernel: int = 1) -> Graph:
    """A convolution, or two, and what follows: `add` takes another map, `sum` the two convolutions; `deep` is depthwise."""
    b = GraphBuilder(seed, "f32")
    x, shortcut = b.input((size, size, channels)), b.input((size, size, channels))
    edge = kernel // 2
    t = before = b.conv(x, channels, (kernel, kernel), (1, 1), (edge,) * 4)
    for kind in kinds:
        last = t
        if kind == "conv":
            t = b.conv(shortcut, channels, (1, 1), (1, 1), (0,) * 4)
        elif kind == "sum":
            t = b.add(before, t)
        elif kind == "add":
            t = b.add(t, shortcut)
        elif kind == "deep":
            t = b.conv(t, channels, (3, 3), (1, 1), (1, 1, 1, 1), groups=channels)
        elif kind == "gate":
            t = b.mul(t, b.input((1, 1, channels)))
        elif kind == "halves":
            t = b.pool(t, "max", HALVES, counted=False)
        elif kind == "overlapping":
            t = b.pool(t, "max", OVERLAPPING, counted=False)
        elif kind == "average":
            t = b.pool(t, "avg", OVERLAPPING, counted=True)
        elif kind == "table":
            t = b.table(t)
        else:
            t = b.prelu(t)
        before = last
    return b.graph()


BLOCKS = (
    ("add",), ("add", "prelu"), ("halves",), ("overlapping",), ("average",), ("prelu", "halves"), ("table", "add"),
    ("conv", "sum"), ("conv", "sum", "overlapping"), ("gate", "add"), ("deep",), ("deep", "add"), ("prelu", "deep", "table"),
)  # fmt: skip
SPARED = (("add",), ("halves",), ("overlapping",), ("average",), ("prelu", "halves"), ("deep",))
"""Those that the search fuses on `SMALL`, whose memories hold one map of theirs and a ninth of the weights."""


class _Chunks(Search):
    """All layers go chunk by chunk, in one loop order; which strips and chunks are best is drawn."""

    def __init__(self, seed: int, graph: Graph, arch: Arch, layers: tuple[Layer, ...]) -> None:
        super().__init__(graph, arch, layers, "energy", 32.0, Options(fold_tables=False))
        self.rng, self.drawn = np.random.default_rng(seed), dict[int, float]()
        self.first = bool(seed // 2 % 2)
        self.kept: list[Candidate] = []

    def _settings(self, layers: tuple[Layer, ...], rows: int, height: int) -> list[dict[str, Any]]:
        if len(layers) == 1:
            return []
        found = self._by_chunks(layers, -(-height // rows))
        return [s for s in found if (s.get("order", "strips") == "chunks") == self.first]

    def value(self, c: Candidate) -> float:
        self.kept.append(c)
        return self.drawn.setdefault(id(c), float(self.rng.random()))


def _by_chunks(group: Group, lanes: int) -> bool:
    """Several layers of a group, and a map between them with some of its channels."""
    several = sum(bool(s.layer) for s in group.statements) > 1
    parts = any(s.ring is not None and s.ring.blocks < blocks(s.shape[2], lanes) for s in group.statements)
    return several and (parts or group.order == "chunks")


@pytest.mark.parametrize("kinds", BLOCKS, ids="-".join)
def test_every_way_to_go_chunk_by_chunk_gives_the_reference_s_bytes(kinds: tuple[str, ...]) -> None:
    """Strip heights, chunks, both loop orders, whole and dense last blocks, batches; in stream order and in a random legal one."""
    seen: dict[str, int] = {}
    for seed in range(8):
        channels, kernel = (CHANNELS, 44, 60)[seed % 3], 1 + 2 * (seed % 2)
        graph = _block(*kinds, seed=seed, size=(8, 12, 16, 7)[seed % 4], channels=channels, kernel=kernel)
        graph = graph.stacked(1 + (seed in (5, 6)))
        arch = SMALL if seed % 2 else SMALL.override({"maps.kib": 40, "maps.groups": 5, "weights.kib": 32})
        layers = make_layers(graph, arch, fold_tables=False)
        try:
            plan = lower(plan_search(_Chunks(seed, graph, arch, layers)), graph, arch, layers)
        except ScheduleError:
            continue  # one strip of whole rows does not fit
        (group,) = plan.tiling.groups
        seen[group.order] = seen.get(group.order, 0) + _by_chunks(group, arch.lanes)
        found = compare(plan, graph, seed)
        assert found.compared > 0
        assert not found.differing
        assert not compare(plan, graph, seed, order="random").differing
        again = lower(TileProgram.parse(str(plan.tiling)), graph, arch, layers)
        assert again.program.save() == plan.program.save()
    assert min(seen["chunks"], seen["strips"]) > 1


@pytest.mark.parametrize("kinds", [k for k in BLOCKS if k in SPARED], ids="-".join)
def test_the_map_between_does_not_go_to_dram(kinds: tuple[str, ...]) -> None:
    """Neither maps nor weights fit on chip: the follower joins, its values are right, and the estimate has the same bytes."""
    graph = _block(*kinds, kernel=3)
    memory = "fixed:8,40"
    plan = schedule(graph, SMALL, objective="energy", dram_bytes_per_cycle=8.0)
    assert any(_by_chunks(g, SMALL.lanes) for g in plan.tiling.groups)
    assert not compare(plan, graph).differing
    run = simulate(plan.program, SMALL, memory, graph=graph)
    alone = schedule(graph, SMALL, objective="energy", dram_bytes_per_cycle=8.0, options=Options(fuse=1))
    between = graph.tensors[graph.ops[0].output].bytes
    apart = simulate(alone.program, SMALL, memory, graph=graph).dram_bytes["total"]
    assert run.dram_bytes["total"] < apart - between
    estimate = quick(graph, SMALL, memory, "energy")
    assert estimate.dram_bytes == run.dram_bytes["total"]
    assert estimate.cycles == pytest.approx(run.cycles, rel=0.1)


def test_windows_that_overlap_go_chunk_by_chunk_in_one_strip_alone() -> None:
    """Rows of the strip before are gone when the next comes: the search does not try it, and an edited text is refused."""
    graph = _block("overlapping", kernel=3)
    plan = schedule(graph, SMALL, objective="energy", dram_bytes_per_cycle=8.0)
    (group,) = (g for g in plan.tiling.groups if _by_chunks(g, SMALL.lanes))
    assert group.strips == 1
    text = str(plan.tiling).replace("for c in chunks {\n", "").replace("\n  }\n}", "\n}")
    text = text.replace(
        f"for y in 0:{group.height} step {group.rows} {{", f"for y in 0:{group.height} step 2 {{"
    )
    with pytest.raises(
        ProgramError, match=r"go chunk by chunk, and a layer reads rows of the strip before.*take one strip"
    ):
        lower(TileProgram.parse(text), graph, SMALL)


def test_a_layer_that_needs_all_channels_is_refused_in_chunks() -> None:
    """A convolution behind a convolution cannot take a chunk of its input."""
    b = GraphBuilder(3, "f32")
    x = b.input((8, 8, 32))
    first = b.conv(x, 32, (1, 1), (1, 1), (0,) * 4)
    b.conv(first, 32, (1, 1), (1, 1), (0,) * 4)
    graph = b.graph()
    arch = Arch.preset("b512")
    text = str(schedule(graph, arch, options=Options(strip_rows=4)).tiling)
    assert text.count("group ") == 1
    chunked = text.replace(", weights", ", chunk 1, weights", 1)
    body = chunked.splitlines()
    start = next(i for i, line in enumerate(body) if line.startswith("group "))
    body[start + 1 : start + 1] = ["for c in chunks {"]
    body.append("}")
    with pytest.raises(ProgramError, match="cannot go chunk by chunk with"):
        lower(TileProgram.parse("\n".join(body)), graph, arch)
