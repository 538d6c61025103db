"""Neighbouring map words to the banks that they lie in."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import FORMATS, Opcode
from .delay import delay
from .ports import map_write, row_bits
from .rotation import ROTATION, rotated
from .stream_shape import StreamShape

__all__ = ["BankWrite"]

_BITS = {f.name: f.bits for f in FORMATS[Opcode.LOAD, None]}


class BankWrite(Component):
    """Writes `words` words from map word `first` on, `ROTATION` cycles later.

    A bank gets word ``(bank - first) % words at most`` of those that are given, and takes it if there are so many.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        shape = StreamShape(arch)
        super().__init__(
            {
                "valid": In(1),
                "group": In(_BITS["d_group"]),
                "first": In(_BITS["d_base"]),
                "words": In(range(shape.words + 1)),
                "data": In(8 * shape.map_group),
                "target": Out(map_write(arch)),
            }
        )

    @property
    def module_name(self) -> str:
        return "load_bank_write"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, shape = self.arch, StreamShape(self.arch)
        banks, bank_bits, bits = arch.banks, (arch.banks - 1).bit_length(), 8 * arch.lanes
        items = [self.data.word_select(i, bits) for i in range(shape.words)]
        items += [Const(0, bits)] * (shape.word_lanes - shape.words)
        words = rotated(m, items, (-self.first)[:bank_bits], "words")
        valid = delay(m, self.valid, ROTATION - 1, "valid", reset=True)
        first, count = (
            delay(m, self.first, ROTATION - 1, "first"),
            delay(m, self.words, ROTATION - 1, "count"),
        )
        bank, row = first[:bank_bits], first[bank_bits:]
        rows = [Signal(row_bits(arch), name=f"row{b}", reset_less=True) for b in range(banks)]
        enable = Signal(banks)
        group = Signal(_BITS["d_group"], reset_less=True)
        m.d.sync += [
            enable.eq(Cat(valid & ((b - bank)[:bank_bits] < count) for b in range(banks))),
            group.eq(delay(m, self.group, ROTATION - 1, "group")),
            *(rows[b].eq(row + Mux(b < bank, 1, 0)) for b in range(banks)),
        ]
        m.d.comb += [self.target.enable.eq(enable), self.target.group.eq(group)]
        for b in range(banks):
            m.d.comb += [
                getattr(self.target, f"row{b}").eq(rows[b]),
                getattr(self.target, f"mask{b}").eq((1 << arch.lanes) - 1),
                getattr(self.target, f"data{b}").eq(words[b % shape.word_lanes]),
            ]
        return m
