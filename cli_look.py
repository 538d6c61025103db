"""Verbs that look around: what is installed, which machines and boards there are."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

from cyclopts import App, Parameter

from .cli_console import emit, table
from .cli_options import COMMON, Common, Settings, parse_settings

__all__ = ["arch", "board", "doctor"]

arch = App(
    name="arch",
    help="Machines.",
    help_epilogue="Examples:\n\n  tilewright arch list\n  tilewright arch show b1024 > mine.toml",
)
board = App(
    name="board",
    help="Boards.",
    help_epilogue="Examples:\n\n  tilewright board list\n  tilewright board show kv260",
)


@arch.command(name="list")
def arch_list(*, common: Common = COMMON) -> None:
    """The presets, by operations a cycle (2 a MAC)."""
    from .ir.arch import PRESETS

    rows = [
        {
            "name": name,
            "macs_per_cycle": a.macs_per_cycle,
            "depthwise_macs_per_cycle": a.depthwise_macs_per_cycle,
            "maps_kib": a.maps.kib,
            "weights_kib": a.weights.kib,
            "clock_mhz": a.clock_mhz,
        }
        for name, a in PRESETS.items()
    ]
    head = ("name", "MACs a cycle", "depthwise", "maps KiB", "weights KiB", "MHz")
    text = table(
        [tuple(f"{v:g}" if isinstance(v, float) else str(v) for v in r.values()) for r in rows], head=head
    )
    emit(common, {"schema": "tilewright.archs/1", "archs": rows}, text)


@arch.command(name="show")
def arch_show(
    name: Annotated[str, Parameter(help="Preset or TOML file.")],
    *,
    set: Settings = (),
    common: Common = COMMON,
) -> None:
    """One machine as TOML: a starting point for an own file."""
    from .ir.arch import Arch

    a = Arch.load(name).override(parse_settings(set))
    emit(
        common,
        {"schema": "tilewright.arch/1", **a.model_dump(mode="json"), "design_hash": a.design_hash},
        a.toml().rstrip(),
    )


@arch.command(name="schema")
def arch_schema(*, common: Common = COMMON) -> None:
    """Every field and what it means; with --json the JSON Schema that editors read."""
    from .ir.arch import Arch

    rows = [(name, text) for name, text in Arch.fields().items()]
    emit(common, Arch.model_json_schema(), table(rows))


@board.command(name="list")
def board_list(*, common: Common = COMMON) -> None:
    """The boards."""
    from .ir.board import Board, board_names

    boards = [Board.named(name) for name in board_names()]
    rows = [
        (b.name, b.part, str(b.dsp), str(b.bram36), str(b.uram), f"{b.dram_gb_s:g}", b.title) for b in boards
    ]
    head = ("name", "part", "DSP", "BRAM36", "URAM", "GB/s", "")
    emit(
        common,
        {"schema": "tilewright.boards/1", "boards": [b.model_dump(mode="json") for b in boards]},
        table(rows, head=head),
    )


@board.command(name="show")
def board_show(
    name: Annotated[str, Parameter(help="Board or TOML file.")], *, common: Common = COMMON
) -> None:
    """One board: its resources, memory and ports, and where the numbers are printed."""
    from .ir.board import Board

    data = Board.load(name).model_dump(mode="json")
    emit(common, {"schema": "tilewright.board/1", **data}, table([(k, str(v)) for k, v in data.items()]))


_PACKAGES = (
    ("numpy", "everything"),
    ("numba", "emulator, simulator, tile search"),
    ("networkx", "splitting a network between DPU and host"),
    ("onnx", "reading models"),
    ("onnxruntime", "calibration, host segments, --compare"),
    ("pydantic", "machine and board files"),
    ("tomlkit", "writing machine files"),
    ("cyclopts", "this command line"),
    ("rich", "progress and tables"),
    ("matplotlib", "figures"),
    ("jinja2", "report.html"),
    ("pillow", "calibration images"),
    ("amaranth", "hardware generation"),
)
_TOOLS = (
    ("verilator", "co-simulation of the hardware"),
    ("g++", "co-simulation of the hardware"),
    ("make", "co-simulation of the hardware"),
)


def doctor(*, common: Common = COMMON) -> None:
    """What is installed and usable: packages, tools, the cache of compiled kernels.

    Exit code 2 where something that the main job needs is missing.
    """
    from .ir.errors import SimulationError

    rows: list[dict[str, Any]] = []
    for name, purpose in _PACKAGES:
        try:
            rows.append({"name": name, "ok": True, "needed": True, "for": purpose, "detail": version(name)})
        except PackageNotFoundError:
            rows.append(
                {"name": name, "ok": False, "needed": True, "for": purpose, "detail": "not installed"}
            )
    for name, purpose in _TOOLS:
        found = shutil.which(name)
        rows.append(
            {"name": name, "ok": bool(found), "needed": False, "for": purpose, "detail": found or "not found"}
        )
    cache, writable = _kernel_cache()
    rows.append(
        {
            "name": "kernel cache",
            "ok": writable,
            "needed": False,
            "for": "starting in a second, not twenty",
            "detail": cache,
        }
    )
    python = ".".join(map(str, sys.version_info[:3]))
    rows.insert(
        0,
        {
            "name": "python",
            "ok": sys.version_info >= (3, 11),
            "needed": True,
            "for": "everything",
            "detail": python,
        },
    )
    ok = all(r["ok"] for r in rows if r["needed"])
    text = table(
        [
            ("ok" if r["ok"] else "MISSING" if r["needed"] else "absent", r["name"], r["detail"], r["for"])
            for r in rows
        ],
        head=("", "what", "found", "for"),
    )
    emit(common, {"schema": "tilewright.doctor/1", "ok": ok, "checks": rows}, text)
    if not ok:
        missing = ", ".join(r["name"] for r in rows if r["needed"] and not r["ok"])
        raise SimulationError(f"missing: {missing}; install tilewright again with `pip install tilewright`")


def _kernel_cache() -> tuple[str, bool]:
    """Where numba keeps compiled kernels, and whether it may write there."""
    from pathlib import Path

    told = os.environ.get("NUMBA_CACHE_DIR")
    place = Path(told) if told else Path(__file__).parent / "hwsim" / "__pycache__"
    nearest = next(p for p in (place, *place.absolute().parents) if p.exists())
    if os.access(nearest, os.W_OK):
        return str(place), True
    fallback = Path.home() / ".cache"
    return f"{fallback}/numba", os.access(fallback if fallback.exists() else Path.home(), os.W_OK)
