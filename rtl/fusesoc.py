"""The core for FuseSoC (CAPI2): lint, a simulation library, and synthesis out of context."""

from __future__ import annotations

from importlib.metadata import version

from ..ir.arch import Arch
from ..ir.board import Board

__all__ = ["core_file"]


def core_file(arch: Arch, board: Board) -> str:
    """``tilewright_dpu.core``. It is YAML of plain keys and quoted strings, so it is written as text.

    >>> core_file(Arch(), Board.named("kv260")).splitlines()[0]
    'CAPI=2:'
    """
    release = ".".join(version("tilewright").split(".")[:3])
    return f"""\
CAPI=2:
name: "tilewright:dpu:dpu_top:{release}"
description: "Tilewright DPU {arch.name}, design {arch.design_hash}"

filesets:
  rtl:
    files:
      - "ip/dpu_top.v"
    file_type: "verilogSource"
  constraints:
    files:
      - "constraints/dpu_ooc.xdc"
    file_type: "xdc"

targets:
  default: &default
    filesets: ["rtl"]
    toplevel: "dpu_top"

  lint:
    <<: *default
    description: "Verilator, without the warnings that generated code is about"
    default_tool: "verilator"
    tools:
      verilator:
        mode: "lint-only"
        verilator_options: ["-Wno-fatal", "-Wno-WIDTH", "-Wno-UNUSEDSIGNAL", "-Wno-CASEINCOMPLETE"]

  synth:
    <<: *default
    description: "The core alone on {board.part}, out of context, at {arch.clock_mhz:g} MHz"
    filesets: ["rtl", "constraints"]
    default_tool: "vivado"
    tools:
      vivado:
        part: "{board.part}"
        pnr: "none"
        synth: "vivado"
"""
