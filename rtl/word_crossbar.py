"""Words of banks to words of pixels."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from ..ir.latency import MAP_READ
from .choose import choose
from .delay import delay

__all__ = ["WordCrossbar"]


class WordCrossbar(Component):
    """For each pixel, the word of any bank, or a padding word.

    Banks are taken in groups of four (from 32 banks on, of eight). The first level chooses within each group, and leaves
    zero in the groups that have not been asked; the second level is an OR.

    Parameters
    ----------
    banks : int
        A power of two.
    lanes : int
        Bytes of a word.

    Members
    -------
    bank<p>, padded<p> : in
        At the time of the request.
    data<b> : in
        `MAP_READ` cycles later.
    za : in
        Byte of padding words, at that time.
    word<p> : out
        Two cycles later.
    """

    za: Signal

    def __init__(self, banks: int, pixels: int, lanes: int) -> None:
        self.banks, self.pixels, self.lanes = banks, pixels, lanes
        super().__init__(
            {
                **{f"bank{p}": In((banks - 1).bit_length()) for p in range(pixels)},
                **{f"padded{p}": In(1) for p in range(pixels)},
                **{f"data{b}": In(8 * lanes) for b in range(banks)},
                "za": In(8),
                **{f"word{p}": Out(8 * lanes) for p in range(pixels)},
            }
        )

    @property
    def module_name(self) -> str:
        return f"word_crossbar_{self.banks}x{self.pixels}x{self.lanes}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        data = [getattr(self, f"data{b}") for b in range(self.banks)]
        size = min(self.banks, 4 if self.banks <= 16 else 8)
        bits = (size - 1).bit_length()
        for p in range(self.pixels):
            bank = delay(m, getattr(self, f"bank{p}"), MAP_READ - 1, f"bank{p}")
            padded = delay(m, getattr(self, f"padded{p}"), MAP_READ - 1, f"padded{p}")
            within = delay(m, bank[:bits], 1, f"within{p}")
            padding = Signal(8, name=f"padding{p}", reset_less=True)
            m.d.sync += padding.eq(Mux(delay(m, padded, 1, f"padded_word{p}"), self.za, 0))
            word: Value = padding.replicate(self.lanes)
            for g in range(self.banks // size):
                hit = Signal(name=f"hit{p}_{g}", reset_less=True)
                part = Signal(8 * self.lanes, name=f"part{p}_{g}", reset_less=True)
                m.d.sync += hit.eq(~padded & (bank[bits:] == g))
                here = data[g * size : (g + 1) * size]
                chosen = choose(range(size), dict(enumerate(here)), within)
                m.d.sync += part.eq(Mux(hit, chosen, 0))
                word = word | part
            m.d.sync += getattr(self, f"word{p}").eq(word)
        return m
