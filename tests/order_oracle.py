"""What no order of a program's instructions beats, and whether maps can be placed at all, by CP-SAT.

Order: every instruction takes its engine and its map ports for as long as simulated, and starts after the tokens of those whose words it
needs or overwrites. Order within an engine is free; the fetch of instructions and their queues cost nothing. So the bound
holds for every order of these instructions with these places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from graphs import GraphBuilder
from ortools.sat.python import cp_model
from tilewright.hwsim.events import kernel_table
from tilewright.hwsim.kernel import TABLE
from tilewright.hwsim.simulation import trace
from tilewright.ir.arch import Arch
from tilewright.ir.graph import Graph
from tilewright.ir.hazards import find_races
from tilewright.ir.isa import COLUMNS, Engine
from tilewright.ir.latency import TOKEN
from tilewright.scheduler import Plan, schedule
from tilewright.scheduler.nests import RingNeed
from tilewright.scheduler.place import Floor, Users, Wanted

__all__ = ["GROUPS", "MEMORY", "Bounded", "best_order", "can_place", "group_graph", "measured", "placements"]

GROUPS: dict[str, tuple[int, int, tuple[tuple[int, int, int], ...]]] = {
    "inverted residual 14": (14, 64, ((384, 1, 1), (0, 3, 1), (64, 1, 1))),
    "inverted residual 28, stride 2": (28, 32, ((192, 1, 1), (0, 3, 2), (64, 1, 1))),
    "separable 28": (28, 256, ((0, 3, 1), (256, 1, 1))),
    "separable 14": (14, 512, ((0, 3, 1), (512, 1, 1))),
    "bottleneck 14": (14, 1024, ((256, 1, 1), (256, 3, 1), (1024, 1, 1))),
    "basic 28": (28, 128, ((128, 3, 1), (128, 3, 1))),
    "inverted residual 7, 5x5": (7, 192, ((1152, 1, 1), (0, 5, 1), (192, 1, 1))),
}
"""Side and channels of the input; then output channels (0: depthwise), kernel and stride of each layer."""
MACHINES = ("b512", "b1024", "b4096")
MEMORY = "fixed:32,10"
MOST = 45
"""Instructions; more take the solver long."""
SECONDS = 20.0
_WAITS = [COLUMNS[f"wait_{e.name.lower()}"] for e in Engine]


@dataclass(frozen=True, slots=True)
class Bounded:
    """Cycles of a program as simulated, of the best order found, and below that of any."""

    instructions: int
    cycles: int
    best: int
    bound: int

    @property
    def finished(self) -> bool:
        return self.best == self.bound

    @property
    def gap(self) -> float:
        return self.cycles / self.bound


def best_order(plan: Plan, memory: str, seconds: float = SECONDS) -> Bounded:
    """Hold the simulated time of a program against the best start times of its instructions."""
    program, arch = plan.program, plan.arch
    found = trace(program, arch, memory)
    table = kernel_table(program, arch)
    n = int((program.engine >= 0).sum())
    start, until, done = (found.times[:n, k] for k in (1, 2, 3))
    offset = int(start.min())
    model = cp_model.CpModel()
    horizon = int(found.cycles) + 1
    at = [model.new_int_var(0, horizon, f"s{i}") for i in range(n)]

    def exclusive(owners: list[int]) -> None:
        """One at a time, each for as long as simulated: at most until the next one started."""
        order = sorted(owners, key=lambda i: start[i])
        sizes = [min(until[i], start[j]) - start[i] for i, j in pairwise(order)]
        sizes += [until[i] - start[i] for i in order[-1:]]
        model.add_no_overlap(
            [
                model.new_fixed_size_interval_var(at[i], int(size), "")
                for i, size in zip(order, sizes, strict=True)
            ]
        )

    for engine in Engine:
        exclusive([i for i in range(n) if program.engine[i] == engine])
    for side in ("reads", "writes"):
        owned = table[:, TABLE.index(side)]
        for group in range(arch.maps.groups):
            exclusive([i for i in range(n) if owned[i] >> group & 1])
    free = program.fields.copy()
    free[:, _WAITS] = 0
    for i, j, _, _ in find_races(free, arch, program.weights, limit=10 * n * n):
        if i != j:
            model.add(at[j] >= at[i] + int(done[i] - start[i]) + TOKEN)
    end = model.new_int_var(0, horizon, "end")
    for i in range(n):
        model.add(end >= at[i] + int(done[i] - start[i]))
        model.add_hint(at[i], int(start[i]) - offset)
    model.minimize(end)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    status = solver.solve(model)
    assert status in {cp_model.OPTIMAL, cp_model.FEASIBLE}, solver.status_name(status)
    last = int(done.max())
    return Bounded(
        n, last, int(solver.objective_value) + offset, int(np.ceil(solver.best_objective_bound)) + offset
    )


def can_place(arch: Arch, wanted: Sequence[tuple[int, int, int]], seconds: float = SECONDS) -> bool | None:
    """Whether maps of so many words, each there from a first to a last group of layers, fit the map memory at once; None
    where time was too short to tell."""
    model = cp_model.CpModel()
    times, places = [], []
    for k, (words, first, last) in enumerate(wanted):
        if words > arch.map_words:
            return False
        base = model.new_int_var(0, arch.map_words - words, f"b{k}")
        places.append(model.new_fixed_size_interval_var(base, words, f"p{k}"))
        times.append(model.new_fixed_size_interval_var(first, last - first + 1, f"t{k}"))
    model.add_no_overlap_2d(times, places)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    status = solver.solve(model)
    return {cp_model.OPTIMAL: True, cp_model.FEASIBLE: True, cp_model.INFEASIBLE: False}.get(status)


def group_graph(side: int, channels: int, steps: tuple[tuple[int, int, int], ...]) -> Graph:
    """A chain of convolutions."""
    g = GraphBuilder(3, "f32")
    x = g.input((side, side, channels))
    for out, kernel, stride in steps:
        c, edge = g.tensors[x].shape[2], (kernel - 1) // 2
        x = g.conv(x, out or c, (kernel,) * 2, (stride,) * 2, (edge,) * 4, groups=1 if out else c)
    return g.graph()


@cache
def measured() -> dict[tuple[str, str], Bounded]:
    """Every group on every machine, where its program is small enough."""
    found = {}
    for name, (side, channels, steps) in GROUPS.items():
        for preset in MACHINES:
            plan = schedule(
                group_graph(side, channels, steps), Arch.preset(preset), dram_bytes_per_cycle=32.0
            )
            if len(plan.program) - 1 <= MOST:
                found[name, preset] = best_order(plan, MEMORY)
    return found


def placements(count: int = 60, seed: int = 5) -> tuple[int, int]:
    """Random sets of maps with random lives: how many can be placed, and how many `Floor.settle` places."""
    arch, rng = Arch.preset("b1024"), np.random.default_rng(seed)
    users = Users((), ())
    possible = ours = 0
    for _ in range(count):
        wanted = []
        for _ in range(int(rng.integers(4, 12))):
            first = int(rng.integers(0, 8))
            words = int(rng.integers(1, 33)) * arch.map_words // 64
            wanted.append((words, first, first + int(rng.integers(0, 5))))
        if can_place(arch, wanted, 2.0):
            possible += 1
            maps = [Wanted(f"t{k}", RingNeed(w, 1, 1, 1), users, a, b) for k, (w, a, b) in enumerate(wanted)]
            ours += Floor(arch).settle(maps) is None
    return possible, ours
