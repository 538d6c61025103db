"""The scheduler: which layers run together, how, and where their maps live.

1. `Costing` prices candidates for every run of consecutive layers: strip heights, loop orders, weights resident or
   streamed.
2. Dynamic programming over the cuts between groups, and over which maps are on chip at each cut, picks the cheapest
   sequence for the objective.
3. Placement gives every map its words; where a map finds no gap, it is spilled, and step 2 comes again.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from ..ir.arch import Arch
from ..ir.errors import ScheduleError
from ..ir.graph import Graph
from ..ir.isa import Engine
from ..ir.tile import Group, Ring, TileProgram
from .candidates import Candidate
from .groups import group_of, view_group
from .layers import Layer, make_layers
from .place import Floor, Users, Wanted
from .search import Objective, Options, Search, check_objective

__all__ = ["plan_search", "plan_tiling"]

_SMALL = 1 / 16
"""Maps that a group leaves for later ones are not considered for DRAM where they take less of the map memory together."""
_AHEAD = 0.1
"""What a cycle by which LOAD is earlier is worth, in cycles of the end."""
_CRAMPED = 0.5
"""Share of the other engines' time that is not hidden where rings have no room for producers to run ahead."""
_PACKED = 0.85
"""Share of free map words that rings fill, kept apart by their ports."""
_WAIT = 0.5
"""Share of the cycles for which two engines want one port, or a ring, that they do wait."""
_PLACED = 16
"""Candidates of a group that are placed to see which waits least."""
_BEAM = 24
"""States kept at a cut: which maps are on chip there."""


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
    check_objective(objective)
    options = options or Options()
    if not options.dram_gbps > 0:
        raise ScheduleError(
            f"a DRAM limit of {options.dram_gbps:g} GB/s moves nothing; give a positive number"
        )
    layers = make_layers(graph, arch, fold_tables=options.fold_tables and not options.save_all)
    return plan_search(Search(graph, arch, layers, objective, dram_bytes_per_cycle, options)), layers


def plan_search(search: Search, spilled: Set[str] = frozenset()) -> TileProgram:
    """The cheapest sequence of groups among the candidates that a search gives, placed; `spilled` maps go to DRAM."""
    planner = _Planner(search)
    planner.spilled |= spilled
    return planner.run()


@dataclass(frozen=True, slots=True)
class _Cut:
    """A way to a cut between layers: the group before it, and the cut before that.

    Parameters
    ----------
    computed, loaded : float
        Cycle in which the engines have done the layers before the cut, and LOAD has brought all that they need.
    dram : float
        Cycles that the DRAM port was in use.
    held : int
        Bytes of constants that are on chip until `computed`.
    resident : frozenset of tensor
        Maps on chip.
    first : int
        First layer of the group.
    """

    computed: float
    loaded: float
    dram: float
    held: int
    resident: frozenset[str]
    first: int
    before: _Cut | None
    candidate: Candidate | None


@dataclass(frozen=True, slots=True)
class _Step:
    """A group of layers: first and stop layer, the maps that are on chip before and after it, how it was priced."""

    first: int
    stop: int
    before: frozenset[str]
    after: frozenset[str]
    candidate: Candidate | None

    @property
    def in_place(self) -> Mapping[str, str]:
        return self.candidate.in_place if self.candidate is not None else {}


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
        self.alone: set[int] = set()  # layers that share no group

    def _may_stay(self, tensor: str) -> bool:
        """A map can stay on chip between groups: it is made here, an operand can hold it, and no view needs it in DRAM."""
        if not self.options.keep_maps or tensor not in self.maker or not self.readers[tensor]:
            return False
        viewed = self.layers[self.maker[tensor]].engine is None or any(
            self.layers[i].engine is None for i in self.readers[tensor]
        )
        return not viewed and self.costing.map_words(tensor) <= self.arch.span * self.arch.group_words

    def run(self) -> TileProgram:
        while True:
            steps = self._cuts()
            if any(s.candidate is None and self.layers[s.first].engine is not None for s in steps):
                misfits = self.search.misfits()
                if misfits:
                    raise misfits[0]
                self.spilled |= set(
                    self.graph.tensors
                )  # each layer fits, but not with what others leave on chip
                continue
            placed = self._place(steps)
            if not isinstance(placed, _Misfit):
                return TileProgram(self.graph.name, self.arch.design_hash, tuple(placed))
            if placed.spill is not None:
                self.spilled.add(placed.spill)
            elif placed.group is not None and steps[placed.group].stop - steps[placed.group].first > 1:
                self.alone |= set(range(steps[placed.group].first, steps[placed.group].stop))
            else:
                raise self.search.does_not_fit(self.layers[steps[placed.group or 0].first])

    # -- dynamic programming over cuts and what is on chip there -----------------------------------------------------
    def _cuts(self) -> list[_Step]:
        n = len(self.layers)
        at: list[dict[frozenset[str], _Cut]] = [{} for _ in range(n + 1)]
        at[0][frozenset()] = _Cut(0.0, 0.0, 0.0, 0, frozenset(), 0, None, None)
        for i in range(n):
            cuts = sorted(at[i].values(), key=self._value)[:_BEAM]
            for j in range(i + 1, min(n, i + self.options.fuse) + 1):
                if j - i > 1 and not self._may_join(i, j):
                    break
                made = [layer.output for layer in self.layers[i:j]]
                later = [t for t in made if t not in self.spilled and self.search.last_reader(t) >= j]
                for cut in cuts:
                    for kept in self._keeps(
                        later, j - i == 1 and self.costing.is_summed_in_pieces(self.layers[i])
                    ):
                        self._extend(at, cut, i, j, kept)
        best: _Cut | None = min(at[n].values(), key=self._value)
        steps: list[_Step] = []
        j = n
        while best is not None and best.before is not None:
            steps.append(_Step(best.first, j, best.before.resident, best.resident, best.candidate))
            j, best = best.first, best.before
        return steps[::-1]

    def _may_join(self, i: int, j: int) -> bool:
        """Layers i..j-1 can be one group, if layers i..j-2 can."""
        layers = self.layers
        if layers[i].engine is None or layers[j - 1].engine is None or layers[j - 2].reduces:
            return False  # what a global pooling gives exists after the last strip
        fits = self.costing.weights_fit(layers[i:j]) or self.costing.joins_chunks(layers[i:j])
        return fits and not self.alone & {i, j - 1}

    def _keeps(self, later: list[str], small_too: bool) -> list[frozenset[str]]:
        """Which maps to leave on chip for later groups: all; each number of the smaller ones; none.

        Of small maps all, except where a layer may need column tiles, which go to DRAM.
        """
        if not small_too and sum(map(self.costing.map_words, later)) <= _SMALL * self.arch.map_words:
            return [frozenset(later)]
        order = sorted(later, key=lambda t: (self.costing.map_words(t), t))
        return [frozenset(order[:k]) for k in range(len(order), -1, -1)]

    def _extend(
        self, at: list[dict[frozenset[str], _Cut]], cut: _Cut, i: int, j: int, kept: frozenset[str]
    ) -> None:
        room = self.arch.map_words - sum(map(self.costing.map_words, cut.resident))
        after = kept | {t for t in cut.resident if self.search.last_reader(t) >= j}
        tried: set[tuple[bool, str]] = set()
        for c in self.search.fitting(i, j, cut.resident | kept, room):
            way = (c.resident, c.order)
            if way in tried:
                continue
            tried.add(way)
            new = self._after(cut, c, room, after, i)
            old = at[j].get(after)
            if old is None or self._value(new) < self._value(old):
                at[j][after] = new
        if not tried and j - i == 1 and after not in at[j]:  # the error comes when it is placed
            at[j][after] = replace(cut, computed=1e15, resident=after, first=i, before=cut, candidate=None)

    def _value(self, cut: _Cut) -> float:
        return self.search.weigh(max(cut.computed, cut.loaded), cut.dram) + self.search.weigh(
            _AHEAD * cut.loaded, 0.0
        )

    def _after(self, cut: _Cut, c: Candidate, room: int, after: frozenset[str], first: int) -> _Cut:
        """The cut behind a group: LOAD runs ahead of the engines as far as the constants' memories let it."""
        cost, rate = c.cost, self.costing.bandwidth
        memory = self.arch.weights.kib * 1024
        early = min(cost.weight_bytes, max(0, memory - cut.held))
        loaded = cut.loaded + early / rate
        if cost.weight_bytes > early:
            loaded = max(loaded, cut.computed) + (cost.weight_bytes - early) / rate
        loaded = max(
            loaded, cut.computed - max(0, memory - cost.weight_bytes) / rate
        )  # no more than fits, ahead
        rest = cost.weight_bytes - cost.first_bytes
        start = max(cut.computed, loaded - rest / rate)
        loaded += (cost.dram_bytes - cost.weight_bytes) / rate
        spare = c.most_words - c.least_words
        cramped = 1.0 - min(1.0, max(0.0, (_PACKED * room - c.least_words) / spare)) if spare else 0.0
        free, waits = room / self.arch.group_words, 0.0
        for words, cycles in c.sharing if len(c.layers) > 1 else ():
            need = max(1, -(-words // self.arch.group_words))
            if need <= free:
                free -= need
            else:
                waits += cycles
        hidden = cost.engines - cost.busiest
        busy = cost.busiest + cost.fill + max(_CRAMPED * cramped * hidden, min(_WAIT * waits, hidden))
        computed = max(start + busy, loaded)
        return _Cut(
            computed, loaded, cut.dram + cost.dram_bytes / rate, cost.held_bytes, after, first, cut, c
        )

    # -- placement ---------------------------------------------------------------------------------------------------
    def _place(self, steps: list[_Step]) -> list[Group] | _Misfit:
        floor = Floor(self.arch)
        residents = self._residents(steps)
        lost = floor.settle(residents.values())
        if lost is not None:
            return _Misfit(spill=lost)
        out: list[Group] = []
        for g, step in enumerate(steps):
            if self.layers[step.first].engine is None:
                out.append(view_group(self.graph, self.layers[step.first]))
                continue
            stay = step.before | step.after
            room = floor.free(g) + sum(
                residents[t].need.words(residents[t].need.rows)
                for t in step.after - step.before
                if t in residents
            )
            found = self._best_placed(floor, g, step, room)
            if found is None:
                alive = [(self.costing.map_words(t), t) for t in stay]
                return _Misfit(spill=max(alive)[1]) if alive else _Misfit(group=g)
            c, rings = found
            for t in step.after - step.before:
                rings[t] = floor.ring(self._holder(t, steps), c.rings[t])
            out.append(group_of(self.graph, c, rings))
        return out

    def _best_placed(
        self, floor: Floor, g: int, step: _Step, room: int
    ) -> tuple[Candidate, dict[str, Ring]] | None:
        """The candidate of a group that is best with the waits that its places cost."""
        stay = step.before | step.after
        best: tuple[float, Candidate, dict[str, Ring]] | None = None
        for tried, c in enumerate(self.search.fitting(step.first, step.stop, stay, room, step.in_place)):
            value = self.search.value(c)
            if best is not None and (tried >= _PLACED or value > best[0]):
                break
            local = [w for w in self._wanted(c, g) if not (w.tensor in stay and w.tensor in self.maker)]
            placed = floor.rings(g, local)
            if placed is None:
                continue
            value += self.search.weigh(_WAIT * min(placed[1], c.cost.engines - c.cost.busiest), 0.0)
            if best is None or value < best[0]:
                best = value, c, placed[0]
        return best[1:] if best is not None else None

    def _residents(self, steps: list[_Step]) -> dict[str, Wanted]:
        """Maps that stay on chip between groups, with those that take over their words as one."""
        found: dict[str, Wanted] = {}
        last = {t: g for g, step in enumerate(steps) for t in step.before}
        for g, step in enumerate(steps):
            if step.candidate is None or self.layers[step.first].engine is None:
                continue
            for w in self._wanted(step.candidate, g):
                if w.tensor not in step.after:
                    continue
                holder = self._holder(w.tensor, steps)
                if holder == w.tensor:
                    found[holder] = replace(w, last=last[w.tensor])
                else:
                    found[holder] = replace(found[holder], last=last[w.tensor])
        return found

    def _holder(self, tensor: str, steps: list[_Step]) -> str:
        """The first of the maps that take over each other's words."""
        over = {new: old for step in steps for new, old in step.in_place.items()}
        while tensor in over:
            tensor = over[tensor]
        return tensor

    def _wanted(self, c: Candidate, g: int) -> list[Wanted]:
        wanted = []
        for t, need in c.rings.items():
            moved = c.move(t)
            writes, reads = (
                {Engine.LOAD: moved} if t in c.loads else {},
                {Engine.SAVE: moved} if t in c.saves else {},
            )
            for layer in c.layers:
                assert layer.engine is not None
                if layer.output == t:
                    writes[layer.engine] = c.work.busy[t]
                if t in layer.inputs:
                    reads[layer.engine] = reads.get(layer.engine, 0.0) + c.work.busy[layer.output]
            users = Users(tuple(writes.items()), tuple(reads.items()))
            wanted.append(Wanted(t, need, users, g, g, c.gain(t)))
        return wanted


@dataclass(frozen=True, slots=True)
class _Misfit:
    """Placement failed: spill this map, or split this group."""

    spill: str | None = None
    group: int | None = None
