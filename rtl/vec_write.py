"""From pixels to banks: the words of a run of output pixels, written in one cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from .choose import choose
from .ports import map_write
from .vec_address import bank_bits
from .vec_sequence import WORD_NUMBER_BITS

__all__ = ["RunWrite"]


class RunWrite(Component):
    """Pixel p goes to word ``word + p``. Latency 3: two levels of rotation, request.

    With W, the power of two at or above the pixels, bank b can only get pixel ``(b - word) % W``: words are rotated among W
    places, and each place serves all banks that are equal to it modulo W.

    Members
    -------
    mask : in
        Pixels that are written.
    word : in
        Of pixel 0.
    pixel0, pixel1, ... : in
    group : in, stage 2
    target : `map_write`, out
    """

    def __init__(self, arch: Arch, pixels: int) -> None:
        assert pixels <= arch.banks, "a run of pixels lies in different banks"
        self.arch, self.pixels = arch, pixels
        self.places = 1 << (pixels - 1).bit_length()
        super().__init__(
            {
                "mask": In(pixels),
                "word": In(WORD_NUMBER_BITS),
                **{f"pixel{p}": In(8 * arch.lanes) for p in range(pixels)},
                "group": In(3),
                "target": Out(map_write(arch)),
            }
        )

    @property
    def module_name(self) -> str:
        return f"vec_run_write_{self.pixels}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        low, banks, places, bits = bank_bits(self.arch), self.arch.banks, self.places, 8 * self.arch.lanes
        turns = places.bit_length() - 1
        split = min(2, turns)
        words: list[Value] = [getattr(self, f"pixel{p}") for p in range(self.pixels)]
        words += words[:1] * (places - self.pixels)  # places beyond the pixels may hold anything

        # Place k gets pixel (k - word) % places: by the low two bits of `word`, then by the others.
        once = [Signal(bits, name=f"once{k}", reset_less=True) for k in range(places)]
        twice = [Signal(bits, name=f"twice{k}", reset_less=True) for k in range(places)]
        data = [Signal(bits, name=f"place{k}", reset_less=True) for k in range(places)]
        by_far = Signal(max(1, turns - split), reset_less=True)
        m.d.sync += by_far.eq(self.word[split:turns])
        for k in range(places):
            near = range(1 << split)
            m.d.sync += once[k].eq(
                choose(near, {n: words[(k - n) % places] for n in near}, self.word[:split])
            )
            far = range(1 << (turns - split))
            sources = {n: once[(k - (n << split)) % places] for n in far}
            m.d.sync += [twice[k].eq(choose(far, sources, by_far)), data[k].eq(twice[k])]

        # The same for the banks' enables; banks below the first one are a row further.
        place = [Signal(low, name=f"bank_of{p}", reset_less=True) for p in range(self.pixels)]
        mask1, mask2, first = Signal(self.pixels), Signal(banks), Signal(low, reset_less=True)
        row1, row2, next_row = (
            Signal(WORD_NUMBER_BITS - low, name=n, reset_less=True) for n in ("row_1", "row_2", "next_row")
        )
        beyond = Signal(banks, reset_less=True)
        m.d.sync += [
            *(place[p].eq(self.word[:low] + p) for p in range(self.pixels)),
            *(mask1.eq(self.mask), first.eq(self.word[:low]), row1.eq(self.word[low:])),
            *(row2.eq(row1), next_row.eq(row1 + 1), beyond.eq(Cat(first > b for b in range(banks)))),
            *(
                mask2[b].eq(Cat(mask1[p] & (place[p] == b) for p in range(self.pixels)).any())
                for b in range(banks)
            ),
        ]
        group, enable = Signal(3, name="group_now", reset_less=True), Signal(banks, name="enable_now")
        m.d.sync += [group.eq(self.group), enable.eq(mask2)]
        m.d.comb += [self.target.group.eq(group), self.target.enable.eq(enable)]
        for b in range(banks):
            to = getattr(self.target, f"row{b}")
            row = Signal(len(to), name=f"row_now{b}", reset_less=True)
            m.d.sync += row.eq(Mux(beyond[b], next_row, row2))
            m.d.comb += [
                to.eq(row),
                getattr(self.target, f"mask{b}").eq(Const((1 << self.arch.lanes) - 1, self.arch.lanes)),
                getattr(self.target, f"data{b}").eq(data[b % places]),
            ]
        return m
