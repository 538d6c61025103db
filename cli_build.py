"""The verb that writes a board package, and runs Vivado on it where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .cli_console import emit, staged
from .cli_options import COMMON, Common, Cores, Settings, parse_settings
from .cli_rtl import Mac
from .ir.errors import RtlError

if TYPE_CHECKING:
    from .ir.arch import Arch
    from .ir.board import Board

__all__ = ["build"]


def build(
    *,
    board: Annotated[str, Parameter(help="Board (`tilewright board list`) or TOML file.")] = "kv260",
    arch: Annotated[
        str | None, Parameter(help="Preset or TOML file.  [default: the core of the board]")
    ] = None,
    set: Settings = (),
    cores: Cores = None,
    mac: Mac = None,
    output: Annotated[
        Path | None,
        Parameter(name=("--output", "-o"), help="Folder.  [default: tilewright-out/BOARD-ARCH]"),
    ] = None,
    anyway: Annotated[
        bool,
        Parameter(help="Also where the machine does not fit the board.", negative="", show_default=False),
    ] = False,
    run: Annotated[
        bool, Parameter(help="Run Vivado on the package.", negative="", show_default=False)
    ] = False,
    jobs: Annotated[int, Parameter(help="Vivado's parallel jobs.")] = 4,
    common: Common = COMMON,
) -> None:
    """Write everything that makes and uses a bitstream: Verilog, Vivado scripts, IP-XACT, registers, drivers."""
    from .api import machine_of
    from .folder import written_whole
    from .ir.board import Board
    from .rtl.board_package import MANIFEST, board_package

    place = Board.load(board)
    machine = machine_of(arch or place.default_arch, parse_settings(set, cores))
    doubts = _doubts(machine, place, anyway)
    vivado = shutil.which("vivado") if run else None
    if run and vivado is None:
        raise RtlError(
            "--run: vivado is not on PATH; source its settings64.sh, or leave --run out and run vivado/build.tcl where it is"
        )
    folder = output or Path("tilewright-out") / f"{place.name}-{machine.name}"
    with staged(common) as stage:
        stage(f"Verilog of {machine.name}")
        files = board_package(machine, place, mac=mac)
        if not _stands(folder, files):
            with written_whole(folder) as draft:
                for name, data in files.items():
                    (draft / name).parent.mkdir(parents=True, exist_ok=True)
                    (draft / name).write_bytes(data)
        if vivado is not None:
            stage(f"Vivado for {place.title or place.name}")
            _run_vivado(vivado, folder, jobs)
    manifest = json.loads(files[MANIFEST])
    made = [
        str(folder / "out" / n) for n in ("dpu.bit", "dpu.hwh", "dpu.xsa") if (folder / "out" / n).exists()
    ]
    size = sum(map(len, files.values()))
    lines = [
        f"{machine}",
        f"  for {place.title or place.name} ({place.part}), design {machine.design_hash}, MAC style {manifest['mac']}",
        *(f"  note: {d}" for d in doubts),
        f"written: {folder} ({len(files)} files, {size / 1e3:,.0f} KB)",
        f"made: {', '.join(made)}"
        if made
        else f"next: vivado -mode batch -source {folder / 'vivado' / 'build.tcl'}",
    ]
    value = {
        "schema": "tilewright.build/1",
        "folder": str(folder),
        "files": sorted(files),
        "manifest": manifest,
        "doubts": list(doubts),
        "made": made,
    }
    emit(common, value, "\n".join(lines))


def _doubts(arch: Arch, board: Board, anyway: bool) -> tuple[str, ...]:
    """Why the machine may not fit the board; RtlError where it surely does not, unless it is wanted anyway."""
    from .hwsim.resources import fits

    found = fits(arch, board)
    sure = [text for text in found if "(estimated)" not in text]
    if sure and not anyway:
        raise RtlError(f"{'; '.join(sure)}; --anyway writes the package all the same", board=board.name)
    return found


def _stands(folder: Path, files: dict[str, bytes]) -> bool:
    """The package is there already, byte for byte; RtlError where a bitstream of another one would be lost."""
    if all((folder / n).is_file() and (folder / n).read_bytes() == data for n, data in files.items()):
        return True
    bitstream = folder / "out" / "dpu.bit"
    if bitstream.exists():
        raise RtlError(
            f"{bitstream}: belongs to another package, which would be replaced; move it, or give another folder with -o"
        )
    return False


def _run_vivado(vivado: str, folder: Path, jobs: int) -> None:
    """One batch run; its log stays in the package."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    log = out / "vivado.log"
    with log.open("wb") as file:
        done = subprocess.run(
            [
                vivado,
                "-mode",
                "batch",
                "-nojournal",
                "-log",
                "vivado_run.log",
                "-source",
                "../vivado/build.tcl",
                "-tclargs",
                str(jobs),
            ],
            cwd=out,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        errors = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("ERROR")]
        first = errors[0] if errors else "no line of the log starts with ERROR"
        raise RtlError(
            f"vivado ended with code {done.returncode}: {first}; {log} tells all", code=done.returncode
        )
