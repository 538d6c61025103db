"""One screen: what a user wants to know first, and where the rest is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .palette import plain, short, shorten, si
from .result import Result
from .verdict import verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..hwsim.results import Simulation
    from ..hwsim.shared import Shared

__all__ = ["rows", "screen", "summary"]


def rows(result: Result) -> list[tuple[str, str]]:
    """Name and value of each line; `screen` and tests share it."""
    s = result.total
    least = s.dram_bytes["compulsory"]
    beyond = f", {s.dram_bytes['total'] / least:.2f}× the minimum" if least else ""
    estimated = "estimated" if s.energy.estimated else s.claim
    spread = f" ±{s.energy.relative_uncertainty:.0%}" if s.energy.relative_uncertainty else ""
    return [
        (
            "latency",
            f"{s.latency_ms:.4g} ms  ({s.cycles:,} cycles at {s.clock_mhz:g} MHz, {s.claim}){_each(s)}",
        ),
        (
            "frames a second",
            short(s.fps) + ("" if result.shared is None else "  (one core that has the memory to itself)"),
        ),
        *([] if result.shared is None else [(_together(result.shared), _fares(result.shared))]),
        ("throughput", f"{short(s.gops)} GOP/s  (a MAC = 2)"),
        ("of peak", f"{s.utilization:.1%}  of {s.macs_per_cycle:,} MACs a cycle"),
        (
            "DRAM",
            f"{s.dram_bytes['total'] / 1e6:.4g} MB a {s.unit}, {s.dram_bytes['total'] / s.latency_ms / 1e6:.3g} GB/s{beyond}",
        ),
        ("energy", f"{s.energy.total_mj:.4g} mJ a {s.unit}  ({estimated}{spread})"),
        (
            "bound",
            f"{s.bounds.bound_cycles:,} ≤ estimate {s.estimate_cycles:,} ≤ {s.claim} {s.cycles:,} cycles",
        ),
    ]


def _each(s: Simulation) -> str:
    """What one frame of a batch takes, on average."""
    if s.frames == 1:
        return ""
    return f"; a frame: {s.latency_ms / s.frames:.4g} ms, {s.dram_bytes['total'] / s.frames / 1e6:.4g} MB, {s.energy.total_mj / s.frames:.4g} mJ"


def screen(result: Result, directory: str | Path | None = None) -> RenderableType:
    """The summary, for ``rich.console.Console.print``.

    Parameters
    ----------
    directory : path, optional
        Where the files are.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    judged, twin = verdict(result), result.without_dwc
    where = f" on {plain(result.arch.name)}" + (f", {plain(result.board)}" if result.board else "")
    head = Text.assemble(
        (shorten(result.model.name, 48), "bold"),
        where,
        (f"   {si(result.model.macs, 'MAC')}, {si(result.model.parameters, 'parameters')}", "dim"),
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=twin is not None)
    table.add_column("", style="dim", no_wrap=True)
    table.add_column(Text(result.arch.name))
    other: dict[str, str] = {}
    if twin is not None:
        table.add_column(Text(twin.arch.name), style="dim", no_wrap=True)
        other = _beside(result, twin)
    for name, value in rows(result):
        beside = [Text(other.get(name, ""))] if twin is not None else []
        table.add_row(name, Text(value), *beside)
    lines: list[RenderableType] = [head, Text(), table, Text(), Text(judged.sentence, style="bold")]
    for lever in judged.levers[:3]:
        share = lever.cycles / result.total.cycles
        lines.append(
            Text.assemble(
                (f"  ≤ {share:>4.0%}  ", "bold"), f"{plain(lever.problem)}: try ", (lever.help, "italic")
            )
        )
    lines.append(Text())
    lines += [Text.from_markup(line) for line in _notes(result)]
    if directory is not None:
        lines.append(
            Text.assemble(
                ("files    ", "dim"), str(Path(directory) / "report.html"), ("  and beside it", "dim")
            )
        )
    return Group(*lines)


def summary(
    result: Result, directory: str | Path | None = None, *, width: int = 100, colour: bool = False
) -> str:
    """`screen` as text, with terminal colours or without."""
    import io

    from rich.console import Console

    out = io.StringIO()
    system: Literal["standard"] | None = "standard" if colour else None
    Console(
        file=out,
        width=width,
        force_terminal=colour,
        color_system=system,
        highlight=False,
        legacy_windows=False,
    ).print(screen(result, directory))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _together(shared: Shared) -> str:
    return f"{shared.cores} cores, 1 DRAM"


def _fares(shared: Shared) -> str:
    return (
        f"{short(shared.fps)} frames/s  ({shared.frame_cycles:,.0f} cycles a {shared.unit}, {shared.slowdown:.2f}× as long, "
        f"{shared.claim})"
    )


def _beside(result: Result, twin: Result) -> dict[str, str]:
    a, b = result.total, twin.total
    return {
        **({} if twin.shared is None else {_together(twin.shared): f"{short(twin.shared.fps)} frames/s"}),
        "latency": f"{b.latency_ms:.4g} ms  ({b.cycles / a.cycles:.2f}× as long)",
        "frames a second": short(b.fps),
        "throughput": f"{short(b.gops)} GOP/s",
        "of peak": f"{b.utilization:.1%}",
        "DRAM": f"{b.dram_bytes['total'] / 1e6:.4g} MB",
        "energy": f"{b.energy.total_mj:.4g} mJ",
        "bound": f"{b.bounds.bound_cycles:,} cycles",
    }


def _notes(result: Result) -> list[str]:
    out = []
    if result.exact is not None:
        e = result.exact
        colour = "red" if e.bytes_differing else "green"
        out.append(
            f"[dim]values[/]   [{colour}]{e.bytes_differing:,} of {e.bytes_compared:,} bytes differ[/] "
            "(emulated words against the integer reference)"
        )
    if result.shared is not None:
        s = result.shared
        start = "spread over a frame" if any(s.starts) else "in one cycle"
        out.append(
            f"[dim]cores[/]    {s.cores} on frames of their own share the DRAM: {s.dram_utilization:.1%} of its peak; {s.frames} frames "
            f"each, back to back, started {start}; everything else is of one core alone"
        )
    if result.calibration == "synthetic":
        out.append(
            "[dim]quantised[/] on [yellow]synthetic[/] data: cycles, bytes and energy are valid, accuracy is not"
        )
    if result.host_segments:
        nodes = sum(len(h.nodes) for h in result.host_segments)
        segments = len(result.host_segments)
        out.append(
            f"[dim]host[/]     {nodes} operator{'s' * (nodes > 1)} in {segments} segment{'s' * (segments > 1)}, in none of these numbers"
        )
    if result.shortfalls:
        out.append(f"[dim]board[/]    [red]does not fit[/]: {_escape('; '.join(result.shortfalls))}")
    return out


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(plain(text))
