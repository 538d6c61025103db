"""A first-in first-out queue in LUT RAM, for a producer that never overfills it."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

__all__ = ["ShortQueue"]


class ShortQueue(Component):
    """Queue whose oldest entry is visible all the time, so that one can be taken every cycle.

    Members: `push` with `entry`, `pop` in; `valid` and `head` (the oldest entry) out. An entry is at `head` in
    the cycle after its push at the earliest. Whoever pushes counts its entries: there is no full flag.

    Parameters
    ----------
    depth : int
        Entries, rounded up to a power of two.
    bits : int
        Bits of an entry.
    """

    push: Signal
    entry: Signal
    pop: Signal
    valid: Signal
    head: Signal

    def __init__(self, depth: int, bits: int) -> None:
        self.depth, self.bits = max(2, 1 << (depth - 1).bit_length()), bits
        super().__init__(
            {
                "push": In(1),
                "entry": In(bits),
                "pop": In(1),
                "valid": Out(1),
                "head": Out(bits),
            }
        )

    @property
    def module_name(self) -> str:
        return f"short_queue_{self.depth}x{self.bits}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = ram = Memory(
            shape=self.bits, depth=self.depth, init=[], attrs={"ram_style": "distributed"}
        )
        write, read = ram.write_port(), ram.read_port(domain="comb")
        first, last = (Signal(range(self.depth), name=n) for n in ("first", "last"))
        level = Signal(range(self.depth + 1))
        m.d.comb += [
            *(write.en.eq(self.push), write.addr.eq(last), write.data.eq(self.entry)),
            *(read.addr.eq(first), self.head.eq(read.data), self.valid.eq(level != 0)),
        ]
        m.d.sync += [
            last.eq(last + self.push),
            first.eq(first + self.pop),
            level.eq(level + self.push - self.pop),
        ]
        return m
