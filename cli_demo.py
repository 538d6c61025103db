"""The first thing to try: one network through the whole tool, on one screen."""

from __future__ import annotations

from pathlib import Path

from .cli_compile import Figures, Out, answer, compiled_from, deliver, result_of
from .cli_console import staged
from .cli_options import COMMON, DATA, MACHINE, Common, Data, Machine

__all__ = ["demo"]


def demo(
    *,
    machine: Machine = MACHINE,
    data: Data = DATA,
    figures: Figures = False,
    output: Out = None,
    common: Common = COMMON,
) -> None:
    """MobileNetV2 through the whole tool: one screen, no file and no network needed.

    Builds the network in code with seeded weights, quantises it, schedules it with and without the depthwise engine,
    simulates both, and compares the emulated program with the integer reference.
    """
    from dataclasses import replace

    if data.calibration is None:
        data = replace(data, synthetic_calibration=True)
    folder = output or Path("tilewright-out") / "demo"
    with staged(common) as stage:
        compiled = compiled_from("zoo:mobilenet_v2", machine, data, common, stage)
        result = result_of(compiled, twin=True, verify=True, on_stage=stage)
        deliver(compiled, result, folder, stage, figures=figures)
    answer(common, result, folder)
