"""From a compiled network to its result: every program through the simulator, and what a reader needs beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .compiled import Compiled
from .frontend import HostSegment
from .hwsim import simulate
from .hwsim.resources import fits, resources
from .hwsim.shared import simulate_shared
from .reports import result as told
from .segments import counted, silent

if TYPE_CHECKING:
    from .ir.arch import Arch
    from .reports.result import Exact, Result
    from .scheduler import Plan

__all__ = ["of_design", "result_of"]


def of_design(plan: Plan, arch: Arch) -> Plan:
    """The same plan for a design that differs in what a program does not see, as in its number of cores."""
    design = arch.design_hash
    return replace(
        plan,
        arch=arch,
        tiling=replace(plan.tiling, design=design),
        program=replace(plan.program, design=design),
    )


def result_of(
    compiled: Compiled,
    *,
    exact: Exact | None = None,
    beside: Compiled | None = None,
    frames: int = 3,
    stagger: bool = False,
    on_stage: Callable[[str], None] = silent,
) -> Result:
    """Simulate each program of a network and gather the result.

    Parameters
    ----------
    exact : Exact, optional
        What was found about its values.
    beside : Compiled, optional
        The same network without the depthwise engine; simulated with the same memory.
    frames, stagger
        Of several cores, as `hwsim.shared.simulate_shared` takes them.
    """
    model, arch = compiled.model, compiled.arch
    segments = []
    for i, plan in enumerate(compiled.plans):
        on_stage(f"simulate on {arch.name}{counted(i, len(compiled.plans))}")
        run = simulate(plan.program, arch, compiled.dram, board=compiled.board, graph=plan.graph)
        segments.append(told.Segment(run, plan.program))
    shared = None
    if arch.cores > 1:
        on_stage(f"simulate {arch.cores} cores on one memory")
        shared = simulate_shared(
            [p.program for p in compiled.plans],
            arch,
            compiled.dram,
            cores=arch.cores,
            alone_cycles=sum(s.simulation.cycles for s in segments),
            frames=frames,
            stagger=stagger,
            batch=compiled.batch,
        )
    twin = None
    if beside is not None and beside is not compiled:
        twin = result_of(beside.with_cores(arch.cores), frames=frames, stagger=stagger, on_stage=on_stage)
    return told.Result(
        model=told.ModelFacts(
            model.name,
            model.macs,
            model.parameters,
            inputs=tuple(f"{p.name} {'x'.join(map(str, p.shape))}" for p in model.inputs),
            sha256=compiled.source.sha256,
        ),
        arch=arch,
        segments=tuple(segments),
        board=compiled.board.name,
        host_segments=tuple(
            told.HostSegment(f"host{i}", tuple((n, o) for n, o in s.nodes), s.reason)
            for i, s in enumerate(model.segments)
            if isinstance(s, HostSegment)
        ),
        exact=exact,
        calibration=model.calibration,
        resources=resources(arch, compiled.board),
        misfits=tuple(fits(arch, compiled.board)),
        provenance=_provenance(compiled),
        sqnr_db=dict(model.sqnr_db),
        without_dwc=twin,
        shared=shared,
    )


def _provenance(compiled: Compiled) -> dict[str, str]:
    """What makes the numbers repeatable."""
    from importlib.metadata import version

    from . import __version__

    out: dict[str, Any] = {
        "tilewright": __version__,
        **{name: version(name) for name in ("numpy", "numba", "onnx", "onnxruntime")},
        "seed": compiled.seed,
        "objective": compiled.objective,
        "design": compiled.arch.design_hash,
        "network": compiled.source.where or compiled.model.name,
        "network sha256": compiled.source.sha256,
    }
    return {name: str(value) for name, value in out.items() if str(value)}
