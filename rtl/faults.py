"""What can stop a run: causes, as the register `ERROR_CAUSE` shows them."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Cause"]


class Cause(IntEnum):
    """Why a run was stopped or refused."""

    NONE = 0
    DESIGN = 1
    """The program is for a machine with another design hash."""
    OPCODE = 2
    """No instruction has this opcode."""
    FUNCTION = 3
    """The opcode has no such function."""
    NO_DEPTHWISE = 4
    """A DWC instruction, on a machine without the engine."""
    WAIT = 5
    """An instruction waits for more tokens than the program gives before it."""
    NO_END = 6
    """The program ran out of words before END."""
    FETCH_BUS = 7
    """The bus answered an instruction fetch with an error."""
    LOAD_BUS = 8
    """The bus answered a read with an error."""
    SAVE_BUS = 9
    """The bus answered a write with an error."""
    WATCHDOG = 10
    """No instruction finished for as many cycles as the watchdog allows."""
    ABORT = 11
    """The host asked for it."""
