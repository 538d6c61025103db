"""A sweep at work: points become rows. Known designs are not evaluated again, and neither is equal work.

Two designs that differ only in what timing does not see share one evaluation; the number of cores is seen by simulation alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .explore_design import Design, design_of, objective_values
from .explore_evaluate import Cost, Level, Outcome, Task
from .explore_front import front, normalised_hypervolume
from .explore_networks import Networks, Prepared
from .explore_objectives import DESIGN, Combine, Objective
from .explore_points import Point
from .explore_run import Crew
from .explore_space import Space
from .explore_store import Costs, Row, Store

__all__ = ["Campaign", "Progress", "quiet"]

_PUT_TOGETHER = 500
"""Infeasible designs stored in one transaction."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is.

    Parameters
    ----------
    level : str
        estimate or simulated: what is going on.
    done, total : int
        Evaluations of this level, equal work counted once a design.
    hypervolume : float
        Of the front of this level so far, as `Study.hypervolume`.
    best : dict of objective to value
    """

    level: str
    done: int
    total: int
    seconds: float
    infeasible: int = 0
    failed: int = 0
    hypervolume: float = 0.0
    best: dict[str, float] = field(default_factory=dict)

    @property
    def points_per_second(self) -> float:
        return self.done / self.seconds if self.seconds > 0 else 0.0


def quiet(progress: Progress) -> None:
    """The observer that says nothing."""


class Campaign:
    """State of a sweep.

    Parameters
    ----------
    store : Store
        Rows in it count as finished.
    crew : Crew
        Who evaluates.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        networks: Networks,
        store: Store,
        crew: Crew,
        *,
        weights: dict[str, float],
        combine: Combine,
        versions: dict[str, str],
        seed: int,
        on_progress: Callable[[Progress], None] = quiet,
    ) -> None:
        self.space, self.objectives, self.networks = space, tuple(objectives), networks
        self.store, self.crew = store, crew
        self.weights, self.combine = weights, combine
        self.versions, self.seed, self.on_progress = versions, seed, on_progress
        self.rows: dict[str, Row] = store.rows()
        self.points: dict[str, Point] = {}
        self._designs: dict[str, tuple[Row, Design]] = {}
        self._work: dict[tuple[Level, str], Costs] = {}

    def design(self, key: str) -> Design:
        """A design with its quantities, as far as they are known."""
        row = self.rows[key]
        known = self._designs.get(key)
        if known is None or known[0] is not row:
            known = self._designs[key] = (
                row,
                design_of(row, self.space, self.weights, self.combine),
            )
        return known[1]

    def evaluate(self, points: Iterable[Point], level: Level) -> None:
        """Bring every point to a level: stored when this returns, and batch by batch before."""
        self._keep_infeasible(points := self._judged(list(points)))
        wanted = [p for p in points if not p.reasons and self._lacks(p.key, level)]
        groups: dict[str, list[Point]] = {}
        tasks: list[Task] = []
        for point in wanted:
            task = self._task(point, level)
            if task.key not in groups:
                groups[task.key] = []
                tasks.append(task)
            groups[task.key].append(point)
        known = [t for t in tasks if (level, t.key) in self._work]
        for task in known:
            self._keep(groups[task.key], level, self._work[level, task.key], "", False, 0.0)
        meter = _Meter(self, level, len(wanted), time.perf_counter(), points)

        def done(outcomes: tuple[Outcome, ...]) -> None:
            rows: list[Row] = []
            for o in outcomes:
                costs = {n: _numbers(c) for n, c in o.costs.items()}
                if costs:
                    self._work[level, o.key] = costs
                rows += self._rows(groups[o.key], level, costs, o.problem, o.crashed, o.seconds)
            self.store.put(rows)
            self.rows |= {r.design: r for r in rows}
            meter.tell([r.design for r in rows])

        fresh = [t for t in tasks if (level, t.key) not in self._work]
        meter.tell([p.key for t in known for p in groups[t.key]])
        self.crew.run(fresh, done, total=len(fresh))

    # -- rows ----------------------------------------------------------------------------------------------------------
    def _lacks(self, key: str, level: Level) -> bool:
        row = self.rows.get(key)
        if row is None:
            return True
        return row.status == "evaluated" and (row.estimate if level == "estimate" else row.simulated) is None

    def _judged(self, points: list[Point]) -> list[Point]:
        """The points, with a reason where a network cannot follow."""
        lacking = self.networks.lacking(p.network for p in points if not p.reasons)
        if not lacking:
            return points
        return [
            replace(p, reasons=(lacking[p.network],)) if p.network in lacking and not p.reasons else p
            for p in points
        ]

    def _keep_infeasible(self, points: Sequence[Point]) -> None:
        for point in points:
            self.points.setdefault(point.key, point)
        rows = [
            replace(self._blank(p), status="infeasible", reasons=p.reasons)
            for p in points
            if p.reasons and p.key not in self.rows
        ]
        for at in range(0, len(rows), _PUT_TOGETHER):
            self.store.put(rows[at : at + _PUT_TOGETHER])
        self.rows |= {r.design: r for r in rows}

    def _keep(
        self,
        points: Sequence[Point],
        level: Level,
        costs: Costs,
        problem: str,
        crashed: bool,
        seconds: float,
    ) -> None:
        rows = self._rows(points, level, costs, problem, crashed, seconds)
        self.store.put(rows)
        self.rows |= {r.design: r for r in rows}

    def _rows(
        self,
        points: Sequence[Point],
        level: Level,
        costs: Costs,
        problem: str,
        crashed: bool,
        seconds: float,
    ) -> list[Row]:
        out = []
        for point in points:
            row = self.rows.get(point.key) or self._blank(point)
            if problem:
                row = replace(row, status="failed" if crashed else "infeasible", reasons=(problem,))
            elif level == "estimate":
                row = replace(row, estimate=costs)
            else:
                row = replace(row, simulated=costs)
            out.append(replace(row, seconds=row.seconds + seconds))
            seconds = 0.0  # equal work was done once
        return out

    def _blank(self, point: Point) -> Row:
        """A row with everything but results."""
        arch, board = point.arch, point.board
        machine: dict[str, Any] = {
            "board": board.name,
            "dram": point.dram,
            "objective": point.objective,
            "mode": point.network.mode,
            "dram_gb_s": board.dram_gb_s,
        }
        networks: dict[str, Prepared] = {}
        if arch is not None:
            machine |= {
                "arch": arch.model_dump(mode="json"),
                "design_hash": arch.design_hash,
                "clock_mhz": arch.clock_mhz,
                "cores": arch.cores,
                "macs_per_cycle": arch.macs_per_cycle,
                "quantities": _needed(self.space, point.quantities),
            }
            if not point.reasons:
                networks = self.networks.of(point.network)
        return Row(
            design=point.key,
            number=point.number,
            status="evaluated",
            choices=point.choices,
            notes=point.notes,
            machine=machine,
            resources={c: point.quantities[c] for c in DESIGN} if arch is not None else {},
            sqnr={n: p.sqnr_db for n, p in networks.items() if p.sqnr_db is not None},
            networks={n: p.digest for n, p in networks.items()},
            versions=self.versions,
            seed=self.seed,
        )

    def _task(self, point: Point, level: Level) -> Task:
        assert point.arch is not None  # it would have a reason
        arch = point.arch.model_copy(update={"cores": 1, "name": "design"})
        networks = tuple((n, p.digest) for n, p in self.networks.of(point.network).items())
        cores = point.arch.cores if level == "simulated" else 1
        key = repr((arch.design_hash, point.board.name, point.dram, point.objective, networks, cores))
        return Task(key, arch, point.board, point.dram, point.objective, networks, level, cores)


def _numbers(cost: Cost) -> tuple[float, ...]:
    """As a row keeps them; frames a cycle of all cores only where they were simulated."""
    told = (cost.cycles, cost.dram_bytes, cost.energy_pj, cost.macs)
    return (*told, cost.frames_per_cycle) if cost.frames_per_cycle else told


def _needed(space: Space, quantities: dict[str, Any]) -> dict[str, Any]:
    """What the constraints on results read of the design itself."""
    names = dict.fromkeys(n for e in space.requirements for n in e.names)
    return {n: quantities[n] for n in names if n in quantities}


class _Meter:
    """Front so far, told at most some times a second."""

    def __init__(
        self, campaign: Campaign, level: Level, total: int, begun: float, points: Sequence[Point]
    ) -> None:
        self.campaign, self.level, self.total, self.begun = campaign, level, total, begun
        self.done, self.failed, self.last = 0, 0, 0.0
        self.infeasible = sum(bool(p.reasons) for p in points)
        self.values: NDArray[np.float64] = np.empty((0, len(campaign.objectives)))
        self.low: NDArray[np.float64] | None = None
        self.high: NDArray[np.float64] | None = None

    def tell(self, keys: Sequence[str]) -> None:
        """Count these designs, and say how far it is."""
        campaign = self.campaign
        if campaign.on_progress is quiet or not keys:
            return
        self.done += len(keys)
        designs = [campaign.design(k) for k in keys]
        self.failed += sum(d.status == "failed" for d in designs)
        self.infeasible += sum(d.status == "infeasible" for d in designs)
        good = [d for d in designs if d.status == "evaluated"]
        if good:
            fresh = objective_values(good, campaign.objectives, self.level)
            ends = np.vstack([fresh, *(x[None] for x in (self.low, self.high) if x is not None)])
            self.low, self.high = ends.min(axis=0), ends.max(axis=0)
            every = np.vstack([self.values, fresh])
            self.values = every[front(every)]
        now = time.perf_counter()
        if now - self.last < 0.25 and self.done < self.total:
            return
        self.last = now
        volume, best = 0.0, {}
        if self.low is not None and self.high is not None:
            # The corners keep the scale of all designs met, of which only the front is kept here.
            worst = np.vstack([self.values, self.high[None]])
            volume = normalised_hypervolume(worst)
            best = {o.name: float(o.sign * v) for o, v in zip(campaign.objectives, self.low, strict=True)}
        campaign.on_progress(
            Progress(
                self.level,
                self.done,
                self.total,
                now - self.begun,
                self.infeasible,
                self.failed,
                volume,
                best,
            )
        )
