"""Where windows of the byte stream come together to a group."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Collect"]


class Collect(Component):
    """Neighbouring bytes of a group, one for each of some lanes of the window, kept until the next group.

    Members
    -------
    read : In(1)
        A window is here.
    fresh : In(1)
        It is its group's first: bytes that are not in the window become ``za`` where `outside`, else zero.
    above, at_low, under, at_high : In(1)
        Where the window's ends lie, as a group has several parts of all lanes: it begins before this part, in it; it
        ends after this part, in it.
    after, before : In(lanes)
        Lanes at or after the window's first byte, before its end.
    window, bytes : In, Out
    outside, za : In
        Only with `filled`.

    Parameters
    ----------
    lanes : int
    filled : int
        Bytes that may become ``za``.
    """

    def __init__(self, lanes: int, filled: int) -> None:
        self.lanes, self.filled = lanes, filled
        flags = ("read", "fresh", "above", "at_low", "under", "at_high")
        super().__init__(
            {name: In(1) for name in flags}
            | {"after": In(lanes), "before": In(lanes), "window": In(8 * lanes), "bytes": Out(8 * lanes)}
            | ({"outside": In(filled), "za": In(8)} if filled else {})
        )

    @property
    def module_name(self) -> str:
        return f"collect_{self.lanes}_{self.filled}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        out = []
        for i in range(self.lanes):
            byte, window = Signal(8, name=f"byte{i}", reset_less=True), self.window.word_select(i, 8)
            inside = Signal(name=f"inside{i}")
            from_low, to_high = (
                self.above | (self.at_low & self.after[i]),
                self.under | (self.at_high & self.before[i]),
            )
            m.d.comb += inside.eq(from_low & to_high)
            if i < self.filled:
                with m.If(self.read & (inside | self.fresh)):
                    m.d.sync += byte.eq(Mux(inside, window, Mux(self.outside[i], self.za, 0)))
            else:  # in this order a flip-flop's own reset and enable do it
                with m.If(self.read & self.fresh & ~inside):
                    m.d.sync += byte.eq(0)
                with m.Elif(self.read & inside):
                    m.d.sync += byte.eq(window)
            out.append(byte)
        m.d.comb += self.bytes.eq(Cat(out))
        return m
