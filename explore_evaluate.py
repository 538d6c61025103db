"""What a worker does: designs in, cycles, traffic and energy of each network out, estimated or simulated.

A batch names its networks by content. A worker that has one keeps it; one that lacks it answers `Absent`, and gets
the batch again with the network beside it, so that networks travel once a worker and not once a task.
"""

from __future__ import annotations

import pickle
import time
import traceback
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .ir.arch import Arch
from .ir.board import Board
from .ir.errors import TilewrightError
from .ir.graph import Graph
from .ir.isa import Program
from .scheduler import Objective

__all__ = ["Absent", "Cost", "Level", "Outcome", "Task", "evaluate_batch", "install"]

Level = Literal["estimate", "simulated"]

_NETWORKS: OrderedDict[str, tuple[Graph, ...]] = OrderedDict()
_KEPT = 64
"""Networks a worker remembers; the one longest unused goes first."""


@dataclass(frozen=True, slots=True)
class Task:
    """One design and the networks to run on it.

    Parameters
    ----------
    arch : Arch
        With one core.
    networks : tuple of (name, digest)
    cores : int
        That share the memory, where that is simulated.
    """

    key: str
    arch: Arch
    board: Board
    dram: str
    objective: Objective
    networks: tuple[tuple[str, str], ...]
    level: Level
    cores: int = 1


@dataclass(frozen=True, slots=True)
class Cost:
    """What a frame of one network costs.

    Parameters
    ----------
    cycles : int
        On one core that has the memory to itself.
    frames_per_cycle : float
        Of all cores on one memory; 0 where that was not simulated.
    """

    cycles: int
    dram_bytes: int
    energy_pj: float
    macs: int
    frames_per_cycle: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task.

    Parameters
    ----------
    costs : dict of network to Cost
        Empty where it failed.
    problem : str
        Why it failed.
    crashed : bool
        The model failed, not the design.
    """

    key: str
    level: Level
    costs: dict[str, Cost]
    problem: str = ""
    crashed: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Absent:
    """The worker lacks these networks."""

    digests: tuple[str, ...]


def install(blobs: Mapping[str, bytes]) -> None:
    """Make networks known to this process."""
    for digest, blob in blobs.items():
        if digest not in _NETWORKS:
            _NETWORKS[digest] = pickle.loads(blob)
        _NETWORKS.move_to_end(digest)
    while len(_NETWORKS) > max(_KEPT, len(blobs)):
        _NETWORKS.popitem(last=False)


def evaluate_batch(
    tasks: Sequence[Task], blobs: Mapping[str, bytes] | None = None
) -> tuple[Outcome, ...] | Absent:
    """Evaluate designs one after the other; a design that fails is an outcome, not an exception."""
    install(blobs or {})
    wanted = dict.fromkeys(digest for task in tasks for _, digest in task.networks)
    absent = tuple(d for d in wanted if d not in _NETWORKS)
    if absent:
        return Absent(absent)
    for digest in wanted:
        _NETWORKS.move_to_end(digest)
    return tuple(_outcome(task) for task in tasks)


def _outcome(task: Task) -> Outcome:
    start = time.perf_counter()
    costs: dict[str, Cost] = {}
    problem, crashed = "", False
    evaluate = _estimated if task.level == "estimate" else _simulated
    for name, digest in task.networks:
        try:
            costs[name] = evaluate(_NETWORKS[digest], task)
        except TilewrightError as error:
            problem = f"{name}: {error}"
            break
        except Exception as error:  # a bug of ours at one design must not end the study
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
            problem, crashed = f"{name}: {type(error).__name__}: {error} ({place})", True
            break
    seconds = time.perf_counter() - start
    return Outcome(task.key, task.level, {} if problem else costs, problem, crashed, seconds)


def _estimated(graphs: Sequence[Graph], task: Task) -> Cost:
    """The fast estimate, segment by segment."""
    from .scheduler.quick import quick

    found = [quick(g, task.arch, task.dram, task.objective, board=task.board) for g in graphs]
    return _sum([Cost(q.cycles, q.dram_bytes, q.energy_pj, q.macs) for q in found])


def _simulated(graphs: Sequence[Graph], task: Task) -> Cost:
    """Schedule and simulate: the very plans of `compile`, and what `simulate` finds for them."""
    from .hwsim.shared import simulate_shared

    programs, cost = _alone(graphs, task)
    if task.cores == 1:
        return cost
    shared = simulate_shared(
        programs, task.arch, task.dram, cores=task.cores, alone_cycles=cost.cycles, frames=_FRAMES
    )
    return replace(cost, frames_per_cycle=shared.frames_per_cycle)


_FRAMES = 2
"""Of each of several cores: one to warm up, one to count."""
_ALONE: OrderedDict[tuple[object, ...], tuple[Sequence[Graph], tuple[Program, ...], Cost]] = OrderedDict()
"""The last designs with one core: those with more of the same cores have the same programs. The networks are kept beside,
so that no other one gets their identity."""
_KEPT_ALONE = 8


def _alone(graphs: Sequence[Graph], task: Task) -> tuple[tuple[Program, ...], Cost]:
    key = (id(graphs), task.arch.design_hash, task.board.name, task.dram, task.objective)
    if key not in _ALONE:
        _ALONE[key] = (graphs, *_one_core(graphs, task))
        while len(_ALONE) > _KEPT_ALONE:
            _ALONE.popitem(last=False)
    return _ALONE[key][1:]


def _one_core(graphs: Sequence[Graph], task: Task) -> tuple[tuple[Program, ...], Cost]:
    """Programs of a network, and what they cost on one core."""
    from .hwsim import simulate
    from .hwsim.dram import parse
    from .scheduler import schedule

    peak = parse(task.dram, task.arch.clock_mhz).peak_bytes_per_cycle
    out, programs = [], []
    for graph in graphs:
        plan = schedule(
            graph, task.arch, objective=task.objective, dram_bytes_per_cycle=peak, planner="compiled"
        )
        run = simulate(plan.program, task.arch, task.dram, board=task.board, graph=graph)
        out.append(Cost(run.cycles, run.dram_bytes["total"], run.energy.total_mj * 1e9, graph.macs))
        programs.append(plan.program)
    return tuple(programs), _sum(out)


def _sum(parts: Sequence[Cost]) -> Cost:
    return Cost(
        sum(int(p.cycles) for p in parts),
        sum(int(p.dram_bytes) for p in parts),
        sum(float(p.energy_pj) for p in parts),
        sum(int(p.macs) for p in parts),
    )
