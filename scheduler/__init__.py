"""From an int8 graph to a program: fusion groups, tiles, placement, instructions."""

from __future__ import annotations

from ..ir.arch import Arch
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
    "find_misfits",
    "lower",
    "refine",
    "saving_all",
    "schedule",
]


def schedule(
    graph: Graph,
    arch: Arch,
    *,
    objective: Objective = "latency",
    dram_bytes_per_cycle: float = float("inf"),
    options: Options | None = None,
) -> Plan:
    """Schedule and compile a graph for a machine.

    Parameters
    ----------
    dram_bytes_per_cycle : float
        Peak of the DRAM behind the ports, in bytes a core cycle.

    Raises
    ------
    ScheduleError
        A layer does not fit: resource, demand, bound and lever.
    """
    tiling, layers = plan_tiling(
        graph, arch, objective=objective, dram_bytes_per_cycle=dram_bytes_per_cycle, options=options
    )
    return lower(tiling, graph, arch, layers)
