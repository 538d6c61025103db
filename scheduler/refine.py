"""Refine a plan by simulation: what a group could have been is lowered and simulated, and kept where it is better.

The planner reckons with estimates, so of plans that are a few percent apart it may take the worse one. Here the
alternatives of each group (`alternatives`) are tried in the simulator, group by group, those first that lose most cycles
beside their busiest engine, until none helps or the tries are used up. The order is fixed: the same tries give the same plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..hwsim.dram import DramSpec
from ..hwsim.results import Simulation
from ..hwsim.simulation import simulate
from ..ir.errors import ScheduleError, TilewrightError
from .alternatives import Alternative, Alternatives
from .lower import Plan, lower
from .search import Objective, Options, weigh

__all__ = ["refine"]

_HOPELESS = 1.3
"""An alternative is not simulated where its groups are estimated to take this much more than those that they replace."""


def refine(
    plan: Plan,
    memory: DramSpec,
    *,
    objective: Objective = "latency",
    options: Options | None = None,
    tries: int = 50,
    on_try: Callable[[int, float], None] | None = None,
) -> Plan:
    """The best plan found in so many simulations; never worse than the given one.

    Parameters
    ----------
    memory : DramSpec
        What the programs are simulated with.
    tries : int
        Programs to simulate.
    on_try : callable, optional
        Told after each try how many there were, and the best value so far as a share of the first.
    """
    judge = _Judge(memory, objective, options or Options())
    best = judge.run(plan)
    first, used = best.value, 0
    seen, done = {str(plan.tiling)}, set[str]()
    try:
        around = judge.around(best.plan)
    except ScheduleError:
        return plan  # an edited tiling, whose groups are not the scheduler's
    while used < tries:
        number = next((n for n in best.groups if _place(best.plan, n) not in done), None)
        if number is None:
            break
        done.add(_place(best.plan, number))
        for other in around.of(number):
            if used >= tries or other.tiling is None or _hopeless(other) or str(other.tiling) in seen:
                continue
            seen.add(str(other.tiling))
            try:
                found = judge.run(lower(other.tiling, plan.graph, plan.arch, around.layers))
            except TilewrightError:
                continue
            used += 1
            if found.value < best.value:
                best = found
            if on_try is not None:
                on_try(used, best.value / first)
        if best.plan is not around.plan:
            around = judge.around(best.plan, around)
    return best.plan


@dataclass(frozen=True, slots=True)
class _Run:
    """A plan, what it is worth (the less, the better), and its groups, those that lose most cycles first."""

    plan: Plan
    value: float
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Judge:
    memory: DramSpec
    objective: Objective
    options: Options

    def around(self, plan: Plan, known: Alternatives | None = None) -> Alternatives:
        peak = self.memory.peak_bytes_per_cycle
        return Alternatives(
            plan, objective=self.objective, dram_bytes_per_cycle=peak, options=self.options, known=known
        )

    def run(self, plan: Plan) -> _Run:
        """Simulate, and weigh cycles and DRAM traffic as the planner does."""
        found = simulate(plan.program, plan.arch, self.memory, graph=plan.graph)
        dram = found.dram_bytes["total"] / self.memory.peak_bytes_per_cycle
        slower = self.options.slower(self.memory.peak_bytes_per_cycle, plan.arch.clock_mhz)
        value = weigh(self.objective, found.cycles, dram, slower)
        return _Run(plan, value, _by_loss(plan, found))


def _by_loss(plan: Plan, found: Simulation) -> tuple[int, ...]:
    """Groups by the cycles from the end of the one before that their busiest engine does not work."""
    layers = {layer.name: layer for layer in found.layers}
    lost, end = [], 0
    for n, group in enumerate(plan.tiling.groups):
        mine = [layers[s.layer] for s in group.statements if s.layer in layers]
        if not mine:
            continue
        busy: dict[str, int] = {}
        for layer in mine:
            for engine, cycles in layer.busy.items():
                busy[engine] = busy.get(engine, 0) + cycles
        stop = max(layer.last_cycle for layer in mine)
        lost.append((stop - end - max(busy.values()), -n))
        end = max(end, stop)
    return tuple(-n for _, n in sorted(lost, reverse=True))


def _place(plan: Plan, number: int) -> str:
    """A group with its neighbours: where they are as they were, its alternatives are too."""
    return "\n".join(str(group) for group in plan.tiling.groups[max(0, number - 1) : number + 2])


def _hopeless(a: Alternative) -> bool:
    if a.before is None or a.price is None:
        return False
    return (
        min(a.price.cycles / max(1, a.before.cycles), a.price.dram_bytes / max(1, a.before.dram_bytes))
        > _HOPELESS
    )
