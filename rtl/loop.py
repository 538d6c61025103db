"""A loop counter whose last turn is known from a register."""

from __future__ import annotations

from amaranth.hdl import Signal, Value

__all__ = ["Loop"]


class Loop:
    """Turns of a loop that are left, this one included, and whether this one is the last: both in registers.

    Parameters
    ----------
    bits : int
        Of the number of turns, which is at least 1.
    """

    def __init__(self, name: str, bits: int) -> None:
        self.left = Signal(bits, name=f"{name}_left", reset_less=True)
        self.last = Signal(name=f"{name}_last", reset_less=True)

    def begin(self, turns: Value, one: Value) -> list[object]:
        """The first turn follows; `one` says that it is the only one."""
        return [self.left.eq(turns), self.last.eq(one)]

    def turn(self) -> list[object]:
        """The next turn follows."""
        return [self.left.eq(self.left - 1), self.last.eq(self.left == 2)]
