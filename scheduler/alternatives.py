"""What else a group of layers could have been: other strips, orders, cuts and homes of maps, each planned and placed.

A plan is made again with everything as it is but one thing. The search gives the planner only the groups of the tiling,
each as it is cut and ordered there; for one group it gives others. So an alternative has places for all its maps, and
can be lowered and simulated like the plan itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, replace

from ..ir.errors import ScheduleError
from ..ir.tile import Group, TileProgram
from .candidates import Candidate
from .layers import Layer, make_layers
from .lower import Plan
from .occupancy import passing_words, staying, touched_words
from .plan import plan_search
from .search import Objective, Options, Search
from .ways import Way

__all__ = ["Alternative", "Alternatives", "Price"]

_NEVER = 1e12
"""Cycles of a group that only stands in where a plan cannot be, so that the planner takes it last."""


@dataclass(frozen=True, slots=True)
class Price:
    """What the search reckons with: cycles of the busiest engine or the DRAM port and of the ramp, bytes over the port.

    Parameters
    ----------
    map_words : int
        Words in which the maps lie that the group touches, as placed; the most of several groups.
    """

    cycles: int
    dram_bytes: int
    map_words: int
    claim: str = "estimate"


@dataclass(frozen=True, slots=True)
class Alternative:
    """A plan that differs in one thing.

    Parameters
    ----------
    about : str
        rows, order, fusion or map.
    name : str
        What is different, for the reader.
    tiling : TileProgram or None
        None where there is no such plan.
    refusal : str
        Why there is none.
    layers : (first, stop)
        Layers that `price` is about: of the group, of all groups that change.
    before, price : Price or None
        Estimates for those layers, in the plan and in this one; None where the search has no such candidate.
    """

    about: str
    name: str
    tiling: TileProgram | None = None
    refusal: str = ""
    layers: tuple[int, int] = (0, 0)
    before: Price | None = None
    price: Price | None = None


class _Pinned(Search):
    """A search that gives only some groups, and of each only some ways to run it.

    Parameters
    ----------
    ways : dict of (first, stop) to predicate
    homes : dict of (first, stop) to set of tensor
        Of the maps that these groups touch, those that are on chip before them or behind them.
    kept : set of tensor
        Maps that stay on chip when they are made.
    """

    def __init__(
        self,
        base: Search,
        ways: Mapping[tuple[int, int], Callable[[Way], bool]],
        homes: Mapping[tuple[int, int], Set[str]],
        kept: Set[str],
    ) -> None:
        vars(self).update(vars(base))  # and what was priced once
        self._ways, self._homes, self._kept = ways, homes, kept

    def fitting(
        self, i: int, j: int, stay: Set[str], room: int, in_place: Mapping[str, str] | None = None
    ) -> Iterator[Candidate]:
        allowed, lost = self._ways.get((i, j)), []
        layers = self.layers[i:j]
        here = {layer.output for layer in layers} & self._kept <= stay
        if (i, j) in self._homes:
            here = {t for layer in layers for t in (*layer.inputs, layer.output) if t in stay} == self._homes[
                i, j
            ]
        for c in super().fitting(i, j, stay, room, in_place):
            if allowed is not None and here and allowed(Way.of_candidate(c, self.graph, self.arch.lanes)):
                yield c
            elif j - i == 1:
                lost.append(replace(c, cost=c.cost._replace(fill=_NEVER)))
        yield from lost


class Alternatives:
    """The alternatives to a plan.

    Parameters
    ----------
    plan : Plan
    objective : str
        What the plan was made for.
    dram_bytes_per_cycle : float
        Peak of the DRAM behind the ports, in bytes a core cycle.
    options : Options, optional
        What the plan was made with.
    known : Alternatives, optional
        To another plan of the same graph, machine and objective: what it priced is not priced again.

    Raises
    ------
    ScheduleError
        An edited tiling whose groups are no runs of the scheduler's layers.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        objective: Objective = "latency",
        dram_bytes_per_cycle: float = float("inf"),
        options: Options | None = None,
        known: Alternatives | None = None,
    ) -> None:
        self.plan, self.tiling = plan, plan.tiling
        self.layers: tuple[Layer, ...] = known.layers if known is not None else _layers(plan)
        self.search: Search = (
            known.search
            if known is not None
            else Search(
                plan.graph, plan.arch, self.layers, objective, dram_bytes_per_cycle, options or Options()
            )
        )
        self._at = {layer.name: n for n, layer in enumerate(self.layers)}
        self.runs = [self._run(group) for group in self.tiling.groups]

    def _run(self, group: Group) -> tuple[int, int]:
        numbers = [self._at[s.layer] for s in group.statements if s.layer]
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise ScheduleError(
                f"group {group.name!r}: its layers are in another order than the scheduler's, so there is nothing to compare it with"
            )
        return numbers[0], numbers[0] + len(numbers)

    def _way(self, x: Candidate | Group) -> Way:
        lanes = self.plan.arch.lanes
        return Way.of_group(x, lanes) if isinstance(x, Group) else Way.of_candidate(x, self.plan.graph, lanes)

    # -- prices ------------------------------------------------------------------------------------------------------
    def price(self, tiling: TileProgram, first: int, stop: int) -> Price | None:
        """What the search reckons with for the groups of layers first..stop-1; None where one is not among its candidates."""
        cycles, moved, words = 0.0, 0, 0
        for n, group in enumerate(tiling.groups):
            i, j = self._run(group)
            if not first <= i < stop or self.layers[i].engine is None:
                continue
            c = next(self._candidates(tiling, n), None)
            if c is None or j > stop:
                return None
            cycles += max(c.cost.busiest, c.cost.dram_bytes / self.search.costing.bandwidth) + c.cost.fill
            moved += c.cost.dram_bytes
            words = max(words, touched_words(tiling, n, self.plan.arch.group_words))
        return Price(round(cycles), moved, words)

    def _known(self, number: int) -> bool:
        return next(self._candidates(self.tiling, number), None) is not None

    def _candidates(self, tiling: TileProgram, number: int) -> Iterator[Candidate]:
        """Candidates that run a group as the tiling does, with the same maps on chip."""
        group = tiling.groups[number]
        i, j = self._run(group)
        way = self._way(group)
        stay = staying(tiling, number)
        for c in self.search.fitting(i, j, stay, self.plan.arch.map_words):
            if self.layers[i].engine is None or self._way(c) == way:
                yield c

    def cramped(self, number: int) -> tuple[str, ...]:
        """Maps of a group whose rings have no room for their producer to run a strip ahead of the readers."""
        c = next(self._candidates(self.tiling, number), None)
        if c is None or c.strips.count == 1:
            return ()
        rings = {s.tensor: s.ring for s in self.tiling.groups[number].statements if s.ring is not None}
        return tuple(t for t, need in c.rings.items() if t in rings and rings[t].rows < need.slack)

    # -- alternatives ------------------------------------------------------------------------------------------------
    def of(self, number: int) -> tuple[Alternative, ...]:
        """What group `number` could have been."""
        first, stop = self.runs[number]
        if self.layers[first].engine is None:
            return ()
        found = [*self._strips(number), *self._orders(number)]
        if stop - first > 1:
            found += [self._alone(number), self._cut(number)]
        found += [a for n in (number - 1, number) if (a := self._joined(n, number)) is not None]
        found += self._homes(number)
        once: list[Alternative] = []
        for a in found:  # two ways to the same plan are one alternative
            if a.tiling is None or all(a.tiling != b.tiling for b in once):
                once.append(a)
        return tuple(once)

    def _strips(self, number: int) -> Iterator[Alternative]:
        run, way = self.runs[number], self._way(self.tiling.groups[number])
        if self.tiling.groups[number].height == 1:
            return
        for name, allowed in (
            ("higher strips", lambda w: w.rows > way.rows and _alike(w, way)),
            ("lower strips", lambda w: w.rows < way.rows and _alike(w, way)),
        ):
            found = self._planned("rows", name, number, {run: allowed})
            if found.tiling is not None:
                rows = next(g.rows for g in found.tiling.groups if self._run(g) == run)
                found = replace(found, name=f"{name}, {rows} row{'s' * (rows > 1)} each")
            yield found

    def _orders(self, number: int) -> Iterator[Alternative]:
        """Loop orders and homes of weights that the group could have at whatever strip height."""
        run, way = self.runs[number], self._way(self.tiling.groups[number])
        stay = staying(self.tiling, number)
        others = {
            (w.order, w.resident)
            for c in self.search.fitting(*run, stay, self.plan.arch.map_words)
            if _alike(w := self._way(c), way) is False
        }
        for order, resident in sorted(others):
            yield self._planned(
                "order",
                _ORDERS[order, resident],
                number,
                {run: lambda w, want=(order, resident): (w.order, w.resident) == want},  # type: ignore[misc]
            )

    def _alone(self, number: int) -> Alternative:
        first, stop = self.runs[number]
        return self._planned(
            "fusion", "each layer by itself", number, {(n, n + 1): _any for n in range(first, stop)}
        )

    def _cut(self, number: int) -> Alternative:
        first, stop = self.runs[number]
        inner = {(i, j): _any for i in range(first, stop) for j in range(i + 1, stop + 1)}
        del inner[first, stop]
        return self._planned("fusion", "cut in two or more", number, inner)

    def _joined(self, left: int, number: int) -> Alternative | None:
        """Groups `left` and the one after it as one."""
        if not 0 <= left < len(self.runs) - 1:
            return None
        first, stop = self.runs[left][0], self.runs[left + 1][1]
        name = f"one group with the {'next' if left == number else 'one before'}"
        why = self._apart(left)
        if why:
            return Alternative("fusion", name, refusal=why)
        return self._planned("fusion", name, number, {(first, stop): _any}, {left, left + 1})

    def _apart(self, left: int) -> str:
        """Why groups `left` and the one after it cannot be one."""
        (first, cut), (_, stop) = self.runs[left], self.runs[left + 1]
        layers, arch, most = self.layers[first:stop], self.plan.arch, self.search.options.fuse
        if any(layer.engine is None for layer in layers):
            return "one of them only renames a map in DRAM"
        if self.layers[cut - 1].reduces:
            return f"{self.layers[cut - 1].name} has its result after the last strip"
        if stop - first > most:
            return f"{stop - first} layers, groups have at most {most}"
        if not self.search.costing.weights_fit(layers):
            words = [self.search.costing.weight_words(layer) for layer in layers]
            array, deep = sum(w[0] for w in words), sum(w[1] for w in words)
            return (
                f"their constants do not fit at once: {array:,} of {arch.weight_words:,} weight words, "
                f"{deep:,} of {arch.depthwise_words:,} depthwise, and room to come around"
            )
        return ""

    def _homes(self, number: int) -> Iterator[Alternative]:
        """Each map that stays on chip in DRAM, and each that goes to DRAM on chip."""
        group = self.tiling.groups[number]
        for t in sorted(staying(self.tiling, number)):
            yield self._planned("map", f"%{t} by way of DRAM", number, spilled={t})
        made = {layer.output for layer in self.layers}
        for s in group.statements:
            if s.kind not in {"load", "save"} or s.tensor not in made or s.tensor in self.plan.graph.outputs:
                continue
            if not self.search.readers[s.tensor]:
                continue
            name = f"%{s.tensor} kept on chip"
            words = self.search.costing.map_words(s.tensor)
            viewed = any(self.layers[n].engine is None for n in self.search.readers[s.tensor])
            if viewed or self.layers[self._maker(s.tensor)].engine is None:
                yield Alternative("map", name, refusal="it is read under another shape, in DRAM")
            elif words > self.plan.arch.span * self.plan.arch.group_words:
                most = self.plan.arch.span * self.plan.arch.group_words
                yield Alternative(
                    "map", name, refusal=f"it takes {words:,} map words, an operand lies in at most {most:,}"
                )
            else:
                yield self._planned("map", name, number, kept={s.tensor})

    def _maker(self, tensor: str) -> int:
        return next(n for n, layer in enumerate(self.layers) if layer.output == tensor)

    # -- planning ----------------------------------------------------------------------------------------------------
    def again(self) -> TileProgram:
        """The tiling as the planner makes it from its own groups: the plan itself, unless it was edited."""
        return self._plan(self._pins(set()), frozenset(range(len(self.runs))))

    def _plan(
        self,
        ways: Mapping[tuple[int, int], Callable[[Way], bool]],
        same: Set[int],
        spilled: Set[str] = frozenset(),
        kept: Set[str] = frozenset(),
    ) -> TileProgram:
        """Plan with these ways; maps are where they were, but for `spilled` and `kept`, and around groups not in `same`."""
        stay = [staying(self.tiling, n) for n in range(len(self.runs))]
        homes = {}
        for n in same:
            touched = {
                t for layer in self.layers[slice(*self.runs[n])] for t in (*layer.inputs, layer.output)
            }
            homes[self.runs[n]] = stay[n] - spilled | kept & touched
        met = {s.tensor for g in self.tiling.groups for s in g.statements if s.kind in {"load", "save"}}
        away = met - {t for maps in stay for t in maps}
        return plan_search(_Pinned(self.search, ways, homes, kept), (away | spilled) - kept)

    def _pins(
        self, free: Set[int], changed: Set[str] = frozenset()
    ) -> dict[tuple[int, int], Callable[[Way], bool]]:
        """Every group as it is; those in `free` are left out, those around a `changed` map may take other strips."""
        ways: dict[tuple[int, int], Callable[[Way], bool]] = {}
        for n, run in enumerate(self.runs):
            if n in free:
                continue
            known = self._known(n) and not self._touches(n, changed)
            ways[run] = _same(self._way(self.tiling.groups[n])) if known else _any
        return ways

    def _planned(
        self,
        about: str,
        name: str,
        number: int,
        ways: Mapping[tuple[int, int], Callable[[Way], bool]] | None = None,
        free: Set[int] | None = None,
        *,
        spilled: Set[str] = frozenset(),
        kept: Set[str] = frozenset(),
    ) -> Alternative:
        free = free or ({number} if ways else set())
        pins = {**self._pins(free, spilled | kept), **(ways or {})}
        try:
            tiling = self._plan(pins, set(range(len(self.runs))) - free, spilled, kept)
        except ScheduleError as error:
            return Alternative(about, name, refusal=str(error))
        for n, group in enumerate(tiling.groups):
            run = self._run(group)
            view = self.layers[run[0]].engine is None
            if not view and not (run in pins and pins[run](self._way(group))):
                return Alternative(about, name, refusal=self._misfit(number))
            if kept & {s.tensor for s in group.statements if s.layer} - staying(tiling, n):
                return Alternative(about, name, refusal=self._misfit(number))
        changed = sorted(
            {number} | free | {n for n in range(len(self.runs)) if self._touches(n, spilled | kept)}
        )
        span = self.runs[changed[0]][0], self.runs[changed[-1]][1]
        before, price = self.price(self.tiling, *span), self.price(tiling, *span)
        return Alternative(about, name, tiling, layers=span, before=before, price=price)

    def _touches(self, number: int, maps: Set[str]) -> bool:
        layers = self.layers[slice(*self.runs[number])]
        return any(t in maps for layer in layers for t in (*layer.inputs, layer.output))

    def _misfit(self, number: int) -> str:
        held = passing_words(self.tiling, number, self.plan.arch.group_words)
        total = self.plan.arch.map_words
        return (
            f"none fits the {total:,} map words, {held:,} of them with maps for later groups, with every other map where it is; or "
            "the search left it out as much worse"
        )


_ORDERS = {
    ("strips", False): "weights loaded for each strip, or the map in one strip",
    ("strips", True): "strips outside, weights that stay",
    ("chunks", False): "output channels outside, the map in one strip",
    ("chunks", True): "output channels outside, strips inside",
}


def _any(way: Way) -> bool:
    return True


def _same(way: Way) -> Callable[[Way], bool]:
    return way.__eq__


def _alike(a: Way, b: Way) -> bool:
    return (a.order, a.resident) == (b.order, b.resident)


def _layers(plan: Plan) -> tuple[Layer, ...]:
    """The layers that a plan's tiling computes: with tables folded into convolutions, or each by itself."""
    computed = {s.layer for g in plan.tiling.groups for s in g.statements if s.layer}
    layers = make_layers(plan.graph, plan.arch, fold_tables=True)
    if {layer.name for layer in layers} == computed:
        return layers
    return make_layers(plan.graph, plan.arch, fold_tables=False)
