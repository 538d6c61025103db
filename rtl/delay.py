"""Delay lines: what a later stage of a pipeline needs, carried along with the data."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value, ValueLike

__all__ = ["delay"]


def delay(m: Module, value: ValueLike, cycles: int, name: str, *, reset: bool = False) -> Value:
    """`value` as it was `cycles` cycles ago.

    Parameters
    ----------
    reset : bool
        Whether a reset empties the line: for bits that say that something is there. Lines without reset become shift
        registers in LUTs.
    """
    now = Value.cast(value)
    for i in range(cycles):
        later = Signal(now.shape(), name=f"{name}_{i + 1}", reset_less=not reset)
        m.d.sync += later.eq(now)
        now = later
    return now
