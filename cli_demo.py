"""The first thing to try: one network through the whole tool, on one screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .cli_compile import Out, compiled_from, deliver, result_of
from .cli_console import say, staged
from .cli_options import COMMON, DATA, MACHINE, Common, Data, Machine

if TYPE_CHECKING:
    from .reports.result import Result

__all__ = ["demo"]


def demo(
    *, machine: Machine = MACHINE, data: Data = DATA, output: Out = None, common: Common = COMMON
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
        files = deliver(compiled, result, folder, stage)
    if common.json:
        print((folder / "summary.json").read_text(encoding="utf-8"), end="")
        return
    say(common, lambda: _screen(result, folder, files))


def _screen(result: Result, folder: Path, files: tuple[str, ...]) -> str:
    """The numbers side by side, what bounds them, whether the values are right, where to look next."""
    from .reports.verdict import verdict

    both = [r for r in (result, result.without_dwc) if r is not None]
    head = ("", *(f"{r.arch.name}{'' if r.arch.has_dwc else ' (no depthwise engine)'}" for r in both))
    rows = [
        ("latency", *(f"{r.total.latency_ms:.3f} ms" for r in both)),
        ("throughput", *(f"{r.total.fps:.0f} frames/s" for r in both)),
        ("arithmetic", *(f"{r.total.gops:.0f} GOP/s" for r in both)),
        ("of the array's peak", *(f"{r.total.utilization:.1%}" for r in both)),
        ("cycles, simulated", *(f"{r.total.cycles:,}" for r in both)),
        ("cycles, no schedule below", *(f"{r.total.bounds.bound_cycles:,}" for r in both)),
        ("DRAM a frame", *(f"{r.total.dram_bytes['total'] / 1e6:.2f} MB" for r in both)),
        (
            "DRAM on average",
            *(f"{r.total.dram_bytes['total'] / r.total.latency_ms / 1e6:.2f} GB/s" for r in both),
        ),
        (
            "energy a frame",
            *(
                f"{r.total.energy.total_mj:.2f} mJ{' (estimated)' if r.total.energy.estimated else ''}"
                for r in both
            ),
        ),
        ("bound by", *(verdict(r).limited_by for r in both)),
    ]
    from .cli_console import table

    lines = [
        f"{result.model.name}, {result.model.macs / 1e6:.0f} M MACs, int8, batch 1, on a {result.board} at "
        f"{result.total.clock_mhz:g} MHz, {result.total.dram}",
        "",
        table(rows, head=head),
        "",
        f"  {verdict(result).sentence}",
    ]
    if result.exact is not None:
        lines.append(
            f"  values: {result.exact.bytes_compared:,} bytes of the emulated program compared with the integer "
            f"reference, {result.exact.bytes_differing:,} differing"
        )
    if result.calibration == "synthetic":
        lines.append("  weights and calibration data are synthetic: speed is real, accuracy says nothing")
    lines += ["", f"  {len(files)} files in {folder}; begin with {folder / 'report.html'}"]
    return "\n".join(lines)
