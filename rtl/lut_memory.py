"""Small memories in LUT RAM that hold what a later part of a pipeline needs, by number."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

__all__ = ["LutMemory"]


class LutMemory(Component):
    """A memory of LUT RAM, written at the clock, read at once.

    Parameters
    ----------
    depth, bits : int
    parts : int
        Equal parts of a word with a write enable each.

    Members: `write` (an enable a part), `to`, `data` in; `at` in, `word` out in the same cycle. What is written can be read from
    the next cycle on.
    """

    write: Signal
    to: Signal
    data: Signal
    at: Signal
    word: Signal

    def __init__(self, depth: int, bits: int, parts: int = 1) -> None:
        assert bits % parts == 0
        self.depth, self.bits, self.parts = depth, bits, parts
        super().__init__(
            {
                **{"write": In(parts), "to": In(range(depth)), "data": In(bits)},
                **{"at": In(range(depth)), "word": Out(bits)},
            }
        )

    @property
    def module_name(self) -> str:
        return f"lut_memory_{self.depth}x{self.bits}" + (f"_{self.parts}" if self.parts > 1 else "")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        each = self.bits // self.parts
        words = []
        for i in range(self.parts):
            m.submodules[f"ram{i}"] = ram = Memory(
                shape=each, depth=self.depth, init=[], attrs={"ram_style": "distributed"}
            )
            write, read = ram.write_port(), ram.read_port(domain="comb")
            m.d.comb += [
                *(
                    write.en.eq(self.write[i]),
                    write.addr.eq(self.to),
                    write.data.eq(self.data.word_select(i, each)),
                ),
                read.addr.eq(self.at),
            ]
            words.append(read.data)
        m.d.comb += self.word.eq(Cat(words))
        return m
