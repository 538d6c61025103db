"""The scheduler: which layers run together, how, and where their maps live.

1. `Costing` prices candidates for every run of consecutive layers: strip heights, loop orders, weights resident or
   streamed.
2. Dynamic programming over the cuts between groups picks the cheapest sequence for the objective.
3. Maps between groups stay on chip where they fit; placement decides, and spills the largest map where it must.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ..ir.arch import Arch
from ..ir.errors import ScheduleError
from ..ir.graph import Graph, Pool, PRelu, Resize, Table
from ..ir.isa import Engine
from ..ir.tile import Group, Ring, Statement, TileProgram
from .candidates import Candidate
from .layers import Layer, make_layers
from .place import Floor, Users, Wanted, place_group
from .search import Objective, Options, Search
from .strips import strip_driver

__all__ = ["plan_tiling"]

_RESIDENT_SHARE = 0.3
"""Share of the map memory up to which dynamic programming takes a map between groups to stay on chip; placement decides."""


def plan_tiling(
    graph: Graph,
    arch: Arch,
    *,
    objective: Objective = "latency",
    dram_bytes_per_cycle: float = float("inf"),
    options: Options | None = None,
) -> tuple[TileProgram, tuple[Layer, ...]]:
    """Schedule a graph.

    Returns
    -------
    (TileProgram, layers)

    Raises
    ------
    ScheduleError
        A layer does not fit the machine in any tile.
    """
    if objective not in get_args(Objective):
        raise ScheduleError(f"objective {objective!r} is not one of {', '.join(get_args(Objective))}")
    options = options or Options()
    layers = make_layers(graph, arch, fold_tables=options.fold_tables and not options.save_all)
    return _Planner(Search(graph, arch, layers, objective, dram_bytes_per_cycle, options)).run(), layers


class _Planner:
    """Carries out the three steps."""

    def __init__(self, search: Search) -> None:
        self.search, self.costing = search, search.costing
        self.graph, self.arch, self.layers, self.options = (
            search.graph,
            search.arch,
            search.layers,
            search.options,
        )
        self.readers = search.readers
        self.maker = {layer.output: i for i, layer in enumerate(self.layers)}
        self.spilled = {t for t in self.graph.tensors if not self._may_stay(t)}

    def _may_stay(self, tensor: str) -> bool:
        """A map can stay on chip between groups: it is made here, fits a map group, and no view needs it in DRAM."""
        if not self.options.keep_maps or tensor not in self.maker or not self.readers[tensor]:
            return False
        viewed = self.layers[self.maker[tensor]].engine is None or any(
            self.layers[i].engine is None for i in self.readers[tensor]
        )
        return not viewed and self.costing.map_words(tensor) <= self.arch.group_words

    # -- dynamic programming over cuts -------------------------------------------------------------------------------
    def run(self) -> TileProgram:
        share = _RESIDENT_SHARE * self.arch.group_words * self.arch.maps.groups
        hopeful = {
            t for t in self.graph.tensors if t not in self.spilled and self.costing.map_words(t) <= share
        }
        groups = self._cuts(hopeful)
        while True:
            placed = self._place(groups)
            if not isinstance(placed, _Misfit):
                return TileProgram(self.graph.name, self.arch.design_hash, tuple(placed))
            if placed.spill is not None:
                self.spilled.add(placed.spill)
                hopeful.discard(placed.spill)
            elif placed.group is not None and len(groups[placed.group]) > 1:
                g = placed.group
                groups = [*groups[:g], *([i] for i in groups[g]), *groups[g + 1 :]]
            else:
                raise self.search.does_not_fit(self.layers[groups[placed.group or 0][0]])

    def _cuts(self, hopeful: set[str]) -> list[list[int]]:
        n = len(self.layers)
        best = [0.0] + [float("inf")] * n
        back = [0] * (n + 1)
        for j in range(1, n + 1):
            for i in range(j - 1, max(-1, j - 1 - self.options.fuse), -1):
                if j - i > 1 and (
                    self.layers[i].engine is None
                    or self.layers[j - 1].engine is None
                    or self.layers[i].reduces
                ):
                    break
                if j - i > 1 and not self.costing.weights_fit(self.layers[i:j]):
                    break  # a longer group has more weights still
                found = self.search.best(i, j, hopeful)
                if found is None and j - i > 1:
                    continue
                cost = self.search.value(found) if found is not None else 1e15
                if best[i] + cost < best[j]:
                    best[j], back[j] = best[i] + cost, i
        cuts, j = [], n
        while j:
            cuts.append(list(range(back[j], j)))
            j = back[j]
        return cuts[::-1]

    # -- placement ---------------------------------------------------------------------------------------------------
    def _place(self, groups: list[list[int]]) -> list[Group] | _Misfit:
        group_of = {i: g for g, members in enumerate(groups) for i in members}
        floor = Floor(self.arch)
        crossing: dict[str, int] = {}  # resident maps between groups, with their last group
        for t, i in self.maker.items():
            last = max((group_of[r] for r in self.readers[t]), default=-1)
            if last > group_of[i] and t not in self.spilled:
                crossing[t] = last
        out: list[Group] = []
        for g, members in enumerate(groups):
            floor.retire(g)
            i, j = members[0], members[-1] + 1
            if self.layers[i].engine is None:
                out.append(self._view(self.layers[i]))
                continue
            here = {t for layer in self.layers[i:j] for t in (*layer.inputs, layer.output)}
            stay = {t for t in crossing if t in here}
            taken = sum(a.stop - a.base for group in floor.live for a in group)
            room = self.arch.group_words * self.arch.maps.groups - taken
            rings = None
            while rings is None:
                c = self.search.best(i, j, stay, room)
                if c is None:
                    break
                tiled = c.cols < self.graph.tensors[c.layers[-1].output].shape[1]
                if tiled and c.layers[-1].output in crossing:
                    return _Misfit(spill=c.layers[-1].output)
                rings = place_group(floor, self._wanted(c, stay, g, crossing))
                room = min(room, c.least_words) - 1
            if rings is None or c is None:
                alive = [
                    (a.stop - a.base, a.tensor) for group in floor.live for a in group if a.tensor in crossing
                ]
                mine = [(self.costing.map_words(t), t) for t in stay if self.maker[t] in members]
                if alive or mine:
                    return _Misfit(spill=max([*alive, *mine])[1])
                return _Misfit(group=g)
            out.append(self._group(c, rings))
        return out

    def _wanted(self, c: Candidate, stay: set[str], g: int, crossing: dict[str, int]) -> list[Wanted]:
        writer = {layer.output: (layer.engine or Engine.LOAD).name for layer in c.layers}
        wanted = []
        for t, need in c.rings.items():
            readers = {(layer.engine or Engine.SAVE).name for layer in c.layers if t in layer.inputs}
            readers |= {"SAVE"} if t in c.saves else set()
            users = Users(writer.get(t, "LOAD"), frozenset(readers))
            resident = t in stay and t in writer
            wanted.append(Wanted(t, need, users, crossing[t] if resident else g, resident))
        return wanted

    def _group(self, c: Candidate, rings: dict[str, Ring]) -> Group:
        graph = self.graph
        height, width = (
            graph.tensors[strip_driver(c.layers)].shape[0],
            graph.tensors[c.layers[-1].output].shape[1],
        )
        body: list[Statement] = []
        loaded: set[str] = set()
        for layer in c.layers:
            for t in dict.fromkeys(layer.inputs):
                if t in c.loads and t not in loaded:
                    loaded.add(t)
                    body.append(
                        Statement("load", t, graph.tensors[t].shape, ring=rings[t], stage=c.strips.stage[t])
                    )
            assert layer.engine is not None
            constants = bool(layer.parts) or isinstance(layer.op, (Table, PRelu, Resize, Pool))
            weights = (
                ("resident" if c.resident and c.strips.count > 1 else "stream")
                if layer.parts
                else ("resident" if constants else "")
            )
            if isinstance(layer.op, Pool) and layer.op.kind == "max":
                weights = ""
            body.append(
                Statement(
                    layer.engine.name.lower(), layer.output, graph.tensors[layer.output].shape, layer.name, layer.inputs,
                    rings[layer.output], c.strips.stage[layer.output], c.chunk.get(layer.name, 0), weights,
                )
            )  # fmt: skip
            if layer.output in c.saves:
                body.append(Statement("save", layer.output, (0, 0, 0), stage=c.strips.stage[layer.output]))
        name = c.layers[0].name if len(c.layers) == 1 else f"{c.layers[0].name} .. {c.layers[-1].name}"
        return Group(name, height, c.rows, width, c.cols, c.order, tuple(body))

    def _view(self, layer: Layer) -> Group:
        shape = self.graph.tensors[layer.output].shape
        statement = Statement("view", layer.output, shape, layer.name, layer.inputs)
        return Group(layer.name, shape[0], shape[0], shape[1], shape[1], "strips", (statement,))


@dataclass(frozen=True, slots=True)
class _Misfit:
    """Placement failed: spill this map, or split this group."""

    spill: str | None = None
    group: int | None = None
