"""From banks to pixels: the word that each pixel asked for."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from .choose import choose
from .vec_address import bank_bits

__all__ = ["WordSelect"]


class WordSelect(Component):
    """A multiplexer over all banks for each pixel, in two registered levels: 4 banks, then the rest. Latency 2.

    Members
    -------
    data0, data1, ... : in
        Words of the banks.
    bank0, bank1, ... : in
        Which one the pixel wants.
    take : in, stage 1
        The words are new; otherwise those before stay.
    word0, word1, ... : out
    """

    def __init__(self, arch: Arch, pixels: int) -> None:
        self.arch, self.pixels = arch, pixels
        self.bits = 8 * arch.lanes
        super().__init__(
            {
                **{f"data{b}": In(self.bits) for b in range(arch.banks)},
                **{f"bank{p}": In(bank_bits(arch)) for p in range(pixels)},
                "take": In(1),
                **{f"word{p}": Out(self.bits) for p in range(pixels)},
            }
        )

    @property
    def module_name(self) -> str:
        return f"vec_word_select_{self.pixels}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        banks = self.arch.banks
        near = min(4, banks)
        for p in range(self.pixels):
            bank = getattr(self, f"bank{p}")
            few = []
            for g in range(0, banks, near):
                some = Signal(self.bits, name=f"some{p}_{g}", reset_less=True)
                sources = {b: getattr(self, f"data{g + b}") for b in range(near)}
                m.d.sync += some.eq(choose(range(near), sources, bank))
                few.append(some)
            rest = bank[near.bit_length() - 1 :]
            word = Signal(self.bits, name=f"word_now{p}", reset_less=True)
            if len(few) > 1:
                far = Signal(len(rest), name=f"far{p}", reset_less=True)
                m.d.sync += far.eq(rest)
                chosen = choose(range(len(few)), dict(enumerate(few)), far)
            else:
                chosen = few[0]
            m.d.sync += word.eq(Mux(self.take, chosen, word))
            m.d.comb += getattr(self, f"word{p}").eq(word)
        return m
