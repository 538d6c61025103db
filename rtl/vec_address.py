"""Addresses of VEC: from rows and columns to words, and from words to requests at the banks."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.latency import ADDRESS
from .ports import row_bits
from .vec_sequence import WORD_NUMBER_BITS

__all__ = ["BankRequest", "RingWords", "bank_bits"]


def bank_bits(arch: Arch) -> int:
    """Bits of a bank's number."""
    return arch.banks.bit_length() - 1


class RingWords(Component):
    """Words of some pixels of one row of a map operand: ``at + ring row * pitch + column``, modulo 2^18.

    Latency 3: row of the ring; product; sums. One multiplication for all pixels.

    Parameters
    ----------
    pixels : int

    Members
    -------
    row0, rows, pitch : in
        Fields of the operand, valid from one cycle before the first row to the cycle after the last.
    above : in
        Rows of the map that lie above the operand's row 0.
    row : in, stage 0
        Of the map; ``row - above`` is 0 .. rows - 1, or the words are not used.
    at : in, stage 0
        Base and plane.
    column0, column1, ... : in, stage 1
    word0, word1, ... : out, stage 3
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        super().__init__(
            {
                "row0": In(14),
                "rows": In(14),
                "pitch": In(14),
                "above": In(14),
                "row": In(15),
                "at": In(WORD_NUMBER_BITS),
                **{f"column{p}": In(WORD_NUMBER_BITS) for p in range(pixels)},
                **{f"word{p}": Out(WORD_NUMBER_BITS) for p in range(pixels)},
            }
        )

    @property
    def module_name(self) -> str:
        return f"vec_ring_words_{self.pixels}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        below, over = (Signal(signed(16), name=n, reset_less=True) for n in ("before_wrap", "after_wrap"))
        pitch = Signal(14, name="factor_pitch", reset_less=True)
        ring_row = Signal(14, reset_less=True)
        product = Signal(28, reset_less=True)
        at = Signal(WORD_NUMBER_BITS, name="at_1", reset_less=True)
        straight, wrapped = Signal(signed(18)), Signal(signed(18))
        m.d.comb += [straight.eq(self.row + below), wrapped.eq(self.row + over)]
        m.d.sync += [
            below.eq(self.row0 - self.above),
            over.eq(self.row0 - self.above - self.rows),
            pitch.eq(self.pitch),
            ring_row.eq(Mux(wrapped >= 0, wrapped, straight)),
            product.eq(ring_row * pitch),
            at.eq(self.at),
        ]
        for p in range(self.pixels):
            rest = Signal(WORD_NUMBER_BITS, name=f"rest{p}", reset_less=True)
            word = Signal(WORD_NUMBER_BITS, name=f"sum{p}", reset_less=True)
            m.d.sync += [rest.eq(at + getattr(self, f"column{p}")), word.eq(product + rest)]
            m.d.comb += getattr(self, f"word{p}").eq(word)
        return m


class BankRequest(Component):
    """Words that lie in different banks, as a request to all banks. Latency 1: the request is in registers.

    Members
    -------
    wanted : in
        A bit a pixel: its word is read.
    word0, word1, ... : in
    enable, row0, row1, ... : out
        As in `ports.map_read`.
    """

    def __init__(self, arch: Arch, pixels: int) -> None:
        assert ADDRESS == 4  # three of RingWords, and this
        self.arch, self.pixels = arch, pixels
        super().__init__(
            {
                "wanted": In(pixels),
                **{f"word{p}": In(WORD_NUMBER_BITS) for p in range(pixels)},
                "enable": Out(arch.banks),
                **{f"row{b}": Out(row_bits(arch)) for b in range(arch.banks)},
            }
        )

    @property
    def module_name(self) -> str:
        return f"vec_bank_request_{self.pixels}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        low = bank_bits(self.arch)
        words: list[Value] = [getattr(self, f"word{p}") for p in range(self.pixels)]
        enable = Signal(self.arch.banks, name="enable_now")
        m.d.comb += self.enable.eq(enable)
        for b in range(self.arch.banks):
            hits = [Signal(name=f"hit{b}_{p}") for p in range(self.pixels)]
            row = Signal(row_bits(self.arch), name=f"row_now{b}", reset_less=True)
            m.d.comb += [hit.eq(self.wanted[p] & (words[p][:low] == b)) for p, hit in enumerate(hits)]
            m.d.sync += enable[b].eq(Cat(hits).any())
            rows = [w[low : low + len(row)] for w in words]
            if self.pixels > 1:  # one pixel's row suits all banks: only its own is enabled
                rows = [Mux(hit, r, 0) for hit, r in zip(hits, rows, strict=True)]
            total = rows[0]
            for r in rows[1:]:
                total = total | r
            m.d.sync += row.eq(total)
            m.d.comb += getattr(self, f"row{b}").eq(row)
        return m
