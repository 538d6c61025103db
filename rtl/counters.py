"""Counters of 64 bits with carry chains of 32."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Tally"]


class Tally(Component):
    """Adds up `amount`, cycle by cycle. The upper half follows the lower one cycle later.

    Members: `amount` in, `total` out.

    Parameters
    ----------
    most : int
        Largest amount of a cycle.
    """

    amount: Signal
    total: Signal

    def __init__(self, most: int = 1) -> None:
        self.most = most
        super().__init__({"amount": In(range(most + 1)), "total": Out(64)})

    @property
    def module_name(self) -> str:
        return f"tally_{self.most}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        low, high, carry = Signal(32), Signal(32), Signal()
        m.d.sync += [Cat(low, carry).eq(low + self.amount), high.eq(high + carry)]
        m.d.comb += self.total.eq(Cat(low, high))
        return m
