"""Channels to the lanes of a map word."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from .choose import choose

__all__ = ["LaneRotate"]


class LaneRotate(Component):
    """Bytes moved round a word of any number of lanes: lane l is byte ``(l - amount) % lanes``.

    Two registered levels: the low half of the amount's bits, then the high half.

    Parameters
    ----------
    lanes : int
    given : int
        Bytes that there are; the others are zero.

    Members: `bytes`, `amount` in; `word` out, two cycles later.
    """

    bytes: Signal
    amount: Signal
    word: Signal

    def __init__(self, lanes: int, given: int) -> None:
        assert 1 <= given <= lanes
        self.lanes, self.given = lanes, given
        super().__init__({"bytes": In(8 * given), "amount": In(range(max(2, lanes))), "word": Out(8 * lanes)})

    @property
    def module_name(self) -> str:
        return f"lane_rotate_{self.lanes}x{self.given}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, bits = self.lanes, len(self.amount)
        low = -(-bits // 2)
        source: list[Value] = [self.bytes.word_select(i, 8) for i in range(self.given)]
        source += [Const(0, 8)] * (lanes - self.given)
        later = Signal(max(1, bits - low), reset_less=True)
        m.d.sync += later.eq(self.amount[low:])
        for level, (by, unit) in enumerate(((self.amount[:low], 1), (later[: bits - low], 1 << low))):
            out: list[Value] = []
            for lane in range(lanes):
                moved = Signal(8, name=f"level{level}_{lane}", reset_less=True)
                keys = [(lane - unit * k) % lanes for k in range(1 << len(by))]
                m.d.sync += moved.eq(choose(keys, dict(enumerate(source)), by))
                out.append(moved)
            source = out
        m.d.comb += self.word.eq(Cat(source))
        return m
