"""Words moved round: from banks to columns, and from pixels to banks."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Signal, Value

from ..ir.latency import rotation_levels
from .delay import delay
from .shift import shift_down

__all__ = ["rotate"]


def rotate(m: Module, items: Sequence[Value], amount: Value, name: str) -> list[Signal]:
    """Item i of the result is item ``(i + amount) % n`` of the n items, `rotation_levels(n)` cycles later.

    `amount` comes with the items; it has as many bits as n, a power of two, needs.
    """
    bits, levels = (len(items) - 1).bit_length(), rotation_levels(len(items))
    assert len(items) == 1 << bits == 1 << len(amount)
    taken: list[Value] = []
    for level in range(levels):
        size = -(-bits // (levels - level))
        taken.append(delay(m, amount[bits - size : bits], level, f"{name}_amount{level}"))
        bits -= size
    return shift_down(m, items, taken, len(items), name, wrap=True)
