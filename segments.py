"""The DPU segments of a network, a program for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .ir.arch import Arch
from .ir.errors import ModelError

if TYPE_CHECKING:
    from .frontend import Model
    from .scheduler import Objective, Options, Plan

__all__ = ["counted", "plan_segments", "silent"]


def silent(stage: str) -> None:
    """The observer of stages that says nothing."""


def plan_segments(
    model: Model,
    arch: Arch,
    *,
    dram: str,
    objective: Objective = "latency",
    options: Options | None = None,
    batch: int = 1,
    tries: int = 0,
    on_stage: Callable[[str], None] = silent,
) -> tuple[Plan, ...]:
    """A program for each DPU segment of a network.

    Parameters
    ----------
    objective : str
        latency, energy or edp.
    options : scheduler.Options, optional
    batch : int
        Frames that a run takes.
    tries : int
        Programs to simulate in search of a better one, for each segment.

    Raises
    ------
    ModelError
        No operator of the network runs on the DPU, or the batch is too large for the maps' extents.
    ScheduleError
        A layer does not fit the machine.
    """
    from .hwsim.dram import parse
    from .scheduler import refine, schedule

    if tries < 0:
        raise ModelError(f"{tries} tries: give none (0) or more", tries=tries)
    if not model.graphs:
        raise ModelError(
            f"{model.name}: no operator runs on the DPU, so there is no program; `tilewright check` names each one's reason"
        )
    memory = parse(dram, arch.clock_mhz)
    peak = memory.peak_bytes_per_cycle
    plans = []
    for i, graph in enumerate(model.graphs):
        on_stage(f"schedule for {arch.name}{counted(i, len(model.graphs))}")
        stack = graph.stacked(batch)
        plan = schedule(stack, arch, objective=objective, dram_bytes_per_cycle=peak, options=options)
        if tries:

            def told(count: int, share: float, which: str = counted(i, len(model.graphs))) -> None:
                on_stage(f"simulate others{which}: {count} of {tries}, {1 - share:.1%} better")

            plan = refine(plan, memory, objective=objective, options=options, tries=tries, on_try=told)
        plans.append(plan)
    return tuple(plans)


def counted(i: int, n: int) -> str:
    """Which of several segments a stage is about; "" for the only one.

    >>> counted(0, 3)
    ', segment 1 of 3'
    """
    return f", segment {i + 1} of {n}" if n > 1 else ""
