"""Constraints: pins and clock of a board, and the clock of the core where it is synthesised on its own."""

from __future__ import annotations

from ..ir.arch import Arch
from ..ir.board import Board

__all__ = ["board_constraints", "core_constraints"]


def core_constraints(arch: Arch) -> str:
    """``dpu_ooc.xdc``: the core alone, out of context.

    >>> "create_clock -name clk -period 3.333 [get_ports clk]" in core_constraints(Arch())
    True
    """
    return (
        f"# The core on its own at {arch.clock_mhz:g} MHz: for synthesis out of context.\n"
        f"create_clock -name clk -period {1e3 / arch.clock_mhz:.3f} [get_ports clk]\n"
    )


def board_constraints(board: Board) -> str:
    """``board.xdc``: pins of the design's ports. With a processor every pin belongs to it."""
    system = board.system
    assert system is not None, "wire() refused the board before"
    lines = [f"# Pins of {board.title or board.name}. {system.source}"]
    if not system.pins:
        lines.append("# Memory, clock and reset are pins of the processing system; the design has no others.")
    for port, (pin, standard) in system.pins.items():
        lines.append(f"set_property -dict {{PACKAGE_PIN {pin} IOSTANDARD {standard}}} [get_ports {port}]")
    if "clock" in system.pins:
        # The clock itself is created by the clocking wizard's own constraints.
        lines += ["set_false_path -from [get_ports reset_n]"]
        lines += [f"set_false_path -to [get_ports {p}]" for p in system.pins if p.startswith("led_")]
        lines += [
            "set_property CFGBVS VCCO [current_design]  ;# bank 0 at 3.3 V",
            "set_property CONFIG_VOLTAGE 3.3 [current_design]",
        ]
    return "\n".join(lines) + "\n"
