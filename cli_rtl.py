"""Verbs of the hardware: its Verilog, and the proof that it does what emulator and simulator say."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from .cli_compile import compiled_from
from .cli_console import emit, staged, table
from .cli_options import COMMON, DATA, MACHINE, Common, Cores, Data, Machine, Settings, parse_settings
from .cli_run import read_feeds
from .ir.errors import ReportError, RtlError, TilewrightError

if TYPE_CHECKING:
    from .rtl.agreement import Agreement
    from .rtl.paths import LogicPath
    from .verified import Verified

__all__ = ["Mac", "rtl", "verify"]

Mac = Annotated[
    Literal["plain", "dsp48e1", "dsp48e2"] | None,
    Parameter(help="How products are built: plain, or two in a DSP slice.  [default: for `rtl` the board's]"),
]


def rtl(
    *,
    arch: Annotated[
        str | None, Parameter(help="Preset or TOML file.  [default: the core of the board]")
    ] = None,
    set: Settings = (),
    cores: Cores = None,
    board: Annotated[str, Parameter(help="Board (`tilewright board list`) or TOML file.")] = "kv260",
    mac: Mac = None,
    output: Annotated[
        Path | None,
        Parameter(
            name=("--output", "-o"),
            help="Folder for dpu_top.v and dpu_top.toml.  [default: tilewright-out/rtl-ARCH]",
        ),
    ] = None,
    paths: Annotated[
        bool,
        Parameter(
            help="Also list the longest logic path of each module: multipliers, carry bits, LUT levels."
        ),
    ] = False,
    common: Common = COMMON,
) -> None:
    """Write the core's Verilog."""
    from .api import machine_of
    from .folder import write_whole
    from .ir.board import Board

    with staged(common) as stage:
        place = Board.load(board)
        machine = machine_of(arch or place.default_arch, parse_settings(set, cores))
        stage(f"Verilog of {machine.name}")
        from .rtl.board_package import mac_style
        from .rtl.verilog import verilog

        style = mac or mac_style(place)
        text = verilog(machine, mac=style, uram=place.uram // machine.cores)
        found: tuple[LogicPath, ...] = ()
        if paths:
            from .rtl.paths import logic_paths

            stage("logic paths")
            found = logic_paths(machine, style, place.uram // machine.cores)
    folder = output or Path("tilewright-out") / f"rtl-{machine.name}"
    files = {"dpu_top.v": text, "dpu_top.toml": machine.toml()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(
            f"{folder}: cannot be made ({error.strerror}); give another folder with -o"
        ) from None
    for name, content in files.items():
        write_whole(folder / name, content.encode())
    modules = sum(line.startswith("module ") for line in text.splitlines())
    value = {
        "schema": "tilewright.rtl/1",
        "arch": machine.name,
        "design": machine.design_hash,
        "board": place.name,
        "mac": style,
        "modules": modules,
        "lines": text.count("\n"),
        "bytes": len(text.encode()),
        "files": [str(folder / name) for name in files],
        **({"paths": [asdict(path) for path in found]} if paths else {}),
    }
    emit(
        common,
        value,
        f"{_paths(found)}{machine}\n  {modules} modules, {value['lines']:,} lines, {len(text) / 1e3:.0f} KB, MAC style {style}\n"
        f"written: {', '.join(str(folder / name) for name in files)}",
    )


def _paths(found: tuple[LogicPath, ...]) -> str:
    """The longest path of each module as a table; "" without any."""
    if not found:
        return ""
    longest = {path.module: path for path in reversed(found)}  # the heaviest of a module is last
    rows = [
        (p.module, str(p.multipliers), str(p.carry), f"{p.levels:.1f}", f"{p.start} → {p.end}")
        for p in sorted(longest.values(), key=lambda p: (-p.weight, -p.levels, p.module))
    ]
    head = ("module", "multipliers", "carry bits", "LUT levels", "from → to")
    return table(rows, head=head) + "\n\n"


def verify(
    source: Annotated[str, Parameter(help="Compiled folder, or a model as `compile` takes it.")],
    *,
    layers: Annotated[
        tuple[str, ...],
        Parameter(
            help="Only these layers, as a program of their own: a name, a pattern with *, or FIRST..LAST; repeatable.",
            negative="",
            show_default=False,
            consume_multiple=True,
        ),
    ] = (),
    input: Annotated[
        tuple[str, ...],
        Parameter(
            help="As for `run`.  [default: seeded noise]",
            negative="",
            show_default=False,
            consume_multiple=False,
        ),
    ] = (),
    every: Annotated[bool, Parameter(help="Also run the twin program that saves every layer's map.")] = True,
    mac: Mac = None,
    wave: Annotated[
        Path | None,
        Parameter(
            help="Write waves to FILE.vcd or FILE.fst, and FILE.gtkw for GTKWave beside it; slow and large."
        ),
    ] = None,
    wave_cycles: Annotated[
        str, Parameter(help="Cycles of each run that the wave file holds, FROM:TO.")
    ] = "0:20000",
    machine: Machine = MACHINE,
    data: Data = DATA,
    common: Common = COMMON,
) -> None:
    """Run a compiled network on the Verilog, and compare bytes and cycles with emulator and simulator.

    Exit code 1 where anything differs.
    """
    from .rtl.verilate import find_tools

    find_tools()  # before any work
    with staged(common) as stage:
        compiled = compiled_from(source, machine, data, common, stage)
        from .verified import verify_rtl

        found = verify_rtl(
            compiled,
            read_feeds(input, compiled, common.seed),
            layers=layers,
            mac=mac or "plain",
            every=every,
            wave=wave,
            wave_cycles=_window(wave_cycles),
            on_stage=stage,
        )
    files = [str(wave)] if wave else []
    if wave:
        from .rtl.waves import save_file

        files.append(str(save_file(wave, compiled.arch)))
    emit(common, {**found.to_dict(), "files": files}, lambda: _told(found, files))
    if not found.exact:
        raise DisagreementError(_difference(next(run for run in found.runs if not run.exact)))


class DisagreementError(TilewrightError):
    """The hardware does something else than emulator or simulator say."""

    exit_code = 1


def _window(text: str) -> tuple[int, int]:
    """``FROM:TO`` as numbers."""
    first, _, last = text.partition(":")
    try:
        return int(first or 0), int(last) if last else 1 << 62
    except ValueError:
        raise RtlError(f"--wave-cycles {text}: want FROM:TO, as 0:20000") from None


def _told(found: Verified, files: list[str]) -> str:
    """The agreement table."""
    rows = [
        (
            layer.name,
            layer.op,
            f"{layer.bytes_compared:,}" if layer.bytes_compared else "–",
            f"{layer.bytes_differing:,}",
            f"{layer.instructions:,}",
            f"{layer.cycles_rtl:,}",
            f"{layer.cycles_rtl - layer.cycles_simulated:+,}"
            if layer.cycles_rtl != layer.cycles_simulated
            else "0",
            f"{layer.instructions_differing:,}",
        )
        for layer in found.layers
    ]
    head = (
        "layer",
        "op",
        "bytes",
        "differing",
        "instructions",
        "cycles",
        "differing",
        "instructions differing",
    )
    lines = [
        f"{found.model} on the Verilog of {found.arch}, {found.mac} MACs, memory {found.dram}",
        table(rows, head=head),
    ]
    for run in found.runs:
        speed = run.cycles_rtl / max(run.seconds, 1e-9) / 1e3
        lines.append(
            f"  {run.name}: {run.bytes_differing:,} of {run.bytes_compared:,} bytes differ; {run.cycles_rtl:,} cycles, "
            f"simulated {run.cycles_simulated:,}; {run.instructions_differing:,} of {run.instructions:,} instructions "
            f"start or end at another cycle ({speed:,.0f} kcycles/s)"
        )
    lines.append("equal in every byte and cycle" if found.exact else "NOT EQUAL")
    if files:
        lines.append(f"written: {', '.join(files)}")
    return "\n".join(lines)


def _difference(run: Agreement) -> str:
    """The first thing that differs, in a sentence."""
    parts = [f"{run.name} on {run.arch}"]
    if run.trouble:
        parts.append(run.trouble)
    if run.first_cycle is not None:
        c = run.first_cycle
        came = "never comes" if c.rtl is None else f"comes at cycle {c.rtl:,}"
        want = "should not come" if c.simulated is None else f"simulated {c.simulated:,}"
        parts.append(f"instruction {c.instruction} ({c.text}): its {c.event} {came}, {want}")
    if run.first_byte is not None:
        b = run.first_byte
        parts.append(f"layer {b.layer}: byte {b.byte} is {b.rtl}, emulated {b.emulated}")
    if run.cycles_rtl != run.cycles_simulated:
        parts.append(f"{run.cycles_rtl:,} cycles, simulated {run.cycles_simulated:,}")
    return "; ".join(parts)
