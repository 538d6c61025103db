"""From an int8 graph to a program: fusion groups, tiles, placement, instructions."""

from __future__ import annotations

from typing import Literal, get_args

from ..ir.arch import Arch
from ..ir.errors import ScheduleError
from ..ir.graph import Graph
from .lower import Place, Plan, lower
from .plan import plan_tiling
from .refine import refine
from .search import Objective, Options, find_misfits
from .witness import saving_all

__all__ = [
    "Objective",
    "Options",
    "Place",
    "Plan",
    "Planner",
    "find_misfits",
    "lower",
    "refine",
    "saving_all",
    "schedule",
]

Planner = Literal["python", "compiled"]


def schedule(
    graph: Graph,
    arch: Arch,
    *,
    objective: Objective = "latency",
    dram_bytes_per_cycle: float = float("inf"),
    options: Options | None = None,
    planner: Planner = "python",
) -> Plan:
    """Schedule and compile a graph for a machine.

    Parameters
    ----------
    dram_bytes_per_cycle : float
        Peak of the DRAM behind the ports, in bytes a core cycle.
    planner : str
        "python", or "compiled": the same plan many times faster, but its kernels take a minute or more to compile in the
        first process of a machine. Options other than the default are always for "python".

    Raises
    ------
    ScheduleError
        A layer does not fit: resource, demand, bound and lever.
    """
    if planner not in get_args(Planner):
        raise ScheduleError(f"planner {planner!r} is not one of {', '.join(get_args(Planner))}")
    if planner == "compiled" and (options or Options()) == Options():
        from .decided import plan_decided  # numba's kernels, which a plain compilation does without

        decided = plan_decided(graph, arch, objective=objective, dram_bytes_per_cycle=dram_bytes_per_cycle)
        if decided is not None:
            return lower(decided[0], graph, arch, decided[1])
    tiling, layers = plan_tiling(
        graph, arch, objective=objective, dram_bytes_per_cycle=dram_bytes_per_cycle, options=options
    )
    return lower(tiling, graph, arch, layers)
