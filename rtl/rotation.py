"""Items moved round by any number of places, in two registered levels."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Signal, Value

from .shift import shift_down

__all__ = ["ROTATION", "rotated"]

ROTATION = 2
"""Levels of `rotated`: the multiplexers of 64 items have 8 inputs each."""


def rotated(m: Module, items: Sequence[Value], amount: Value, name: str) -> list[Value]:
    """Item i of the result is item ``(i + amount) % len(items)``, `ROTATION` cycles later.

    Parameters
    ----------
    items : sequence of Value
        A power of two of them.
    amount : Value
        Bits beyond those that the items need are left out.
    """
    bits = (len(items) - 1).bit_length()
    assert len(items) == 1 << bits <= 1 << len(amount)
    low = bits // 2
    later = Signal(low, name=f"{name}_by", reset_less=True)
    m.d.sync += later.eq(amount[:low])
    return shift_down(m, items, [amount[low:bits], later], len(items), name, wrap=True)
