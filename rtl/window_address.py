"""Source addresses of the array: where each pixel of a step lies in its map, and which bank is asked for it."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import Opcode
from ..ir.latency import ADDRESS
from .delay import delay
from .hierarchy import place
from .pixel_walk import PixelWalk, position, times, width_in_walk
from .ports import row_bits
from .words import WORD_BITS, layout

__all__ = ["WindowAddress", "bank_bits"]

_WALK = 19
"""Bits of an output column or row times its stride: (2^14 + 64) * 31 is the largest."""
_INPUT = 21
"""Bits of an input column or row, signed: that, and 1023 * 255 of the kernel, less 1023 of padding."""


def bank_bits(arch: Arch) -> int:
    """Bits of a bank's number: the low bits of a word's address."""
    return (arch.banks - 1).bit_length()


class WindowAddress(Component):
    """Addresses of the words that a step reads, one a pixel, and the requests to the banks.

    Input row and column of a pixel are sums of what its output position says (`PixelWalk`) and of what the kernel position
    says. A pixel outside the source is *padded*, and asks no bank. Of the others,

        row     = row0 + input row,  less the ring's rows if that many or more
        word    = base + block * plane + row * pitch + input column             modulo 2^18

    with one multiplier a pixel.

    Members
    -------
    start, word : in
        As in `engine_port`.
    step, share, parameter, turn_input, turn_column, turn_row, turn_block, turn_record, line, carry : in
        Of `ConvSequence`: one cycle ahead of the issue slot.
    diagonal : out
        The instruction's, from the cycle after `start`.
    group, enable, row<b> : out
        `ADDRESS` cycles after the slot.
    bank<p>, padded<p> : out
        At the same time: the bank that has been asked for pixel p, whether it is padding.
    za : out
        What padding is; when the word is there.

    Timing: registers for positions (the slot), ring row, product, address, request.
    """

    start: Signal
    word: Signal
    step: Signal
    share: Signal
    parameter: Signal
    turn_input: Signal
    turn_column: Signal
    turn_row: Signal
    turn_block: Signal
    turn_record: Signal
    line: Signal
    carry: Signal
    diagonal: Signal
    group: Signal
    enable: Signal
    za: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        flags = "step parameter turn_input turn_column turn_row turn_block turn_record line carry"
        super().__init__(
            {
                **{"start": In(1), "word": In(WORD_BITS), "share": In(arch.conv.pixels)},
                **{name: In(1) for name in flags.split()},
                **{"diagonal": Out(1), "group": Out(3), "enable": Out(arch.banks), "za": Out(8)},
                **{f"row{b}": Out(row_bits(arch)) for b in range(arch.banks)},
                **{f"bank{p}": Out(bank_bits(arch)) for p in range(arch.conv.pixels)},
                **{f"padded{p}": Out(1) for p in range(arch.conv.pixels)},
            }
        )

    @property
    def module_name(self) -> str:
        return "window_address"

    def elaborate(self, platform: object) -> Module:
        assert ADDRESS == 4
        m = Module()
        pixels = range(self.arch.conv.pixels)
        names = (
            *("a_group", "a_pitch", "a_plane", "a_rows", "a_row0", "in_h", "in_w", "sy", "sx", "dy", "dx"),
            *("pad_top", "pad_left", "za", "packed", "diagonal"),
        )
        shapes = layout(Opcode.CONV)
        w = View(shapes, self.word)
        f = {n: Signal(shapes[n].shape, name=n, reset_less=True) for n in names}
        with m.If(self.start):
            m.d.sync += [f[n].eq(w[n]) for n in names]
        m.d.comb += self.diagonal.eq(f["diagonal"])

        walk, limit_x, limit_y = self._walk(m, w, f)
        offset = self._plane(m, w, f)
        down, right = Signal(signed(_INPUT), reset_less=True), Signal(signed(_INPUT), reset_less=True)
        with m.If(self.parameter | self.turn_block):
            m.d.sync += [down.eq(-f["pad_top"]), right.eq(-f["pad_left"])]
        with m.Elif(self.turn_row):
            m.d.sync += [down.eq(down + f["dy"]), right.eq(-f["pad_left"])]
        with m.Elif(self.turn_column):
            m.d.sync += right.eq(right + f["dx"])

        # A slot's cycles are numbered from its own: the sequence is in cycle -1.
        offset0 = delay(m, offset, 1, "offset")
        step0 = delay(m, Mux(self.step, self.share, 0), 1, "asked", reset=True)
        wrapped = Signal(signed(16), reset_less=True)  # row0 less the ring's rows
        pitch = Signal.like(f["a_pitch"], name="pitch", reset_less=True)
        m.d.sync += [wrapped.eq(f["a_row0"] - f["a_rows"]), pitch.eq(f["a_pitch"])]
        address4, hit4, padded4 = [], [], []
        for p in pixels:
            x, y = getattr(walk, f"x{p}"), getattr(walk, f"y{p}")
            row0, column0 = (
                Signal(signed(_INPUT), name=f"{n}0_{p}", reset_less=True) for n in ("row", "column")
            )
            real0 = Signal(name=f"real0_{p}", reset_less=True)
            m.d.sync += [row0.eq(y + down), column0.eq(x + right), real0.eq((x < limit_x) & (y < limit_y))]

            straight, around = (Signal(signed(_INPUT + 1), name=f"{n}{p}") for n in ("straight", "around"))
            inside = Signal(name=f"inside{p}")
            ring1 = Signal(14, name=f"ring1_{p}", reset_less=True)
            column1 = Signal(18, name=f"column1_{p}", reset_less=True)
            hit1, padded1 = Signal(name=f"hit1_{p}"), Signal(name=f"padded1_{p}", reset_less=True)
            m.d.comb += [
                straight.eq(row0 + f["a_row0"]),
                around.eq(row0 + wrapped),
                inside.eq((row0 >= 0) & (row0 < f["in_h"]) & (column0 >= 0) & (column0 < f["in_w"])),
            ]
            m.d.sync += [
                ring1.eq(Mux(around >= 0, around, straight)),
                column1.eq(column0 + offset0),
                *(hit1.eq(inside & real0 & step0[p]), padded1.eq(~inside)),
            ]

            product2, word3 = (
                Signal(18, name=f"product2_{p}", reset_less=True),
                Signal(18, name=f"word3_{p}", reset_less=True),
            )
            m.d.sync += product2.eq(ring1 * pitch)
            m.d.sync += word3.eq(product2 + delay(m, column1, 1, f"column1_{p}"))
            address4.append(word3)
            hit4.append(delay(m, hit1, 2, f"hit1_{p}", reset=True))
            padded4.append(delay(m, padded1, 2, f"padded1_{p}"))
        self._request(m, address4, hit4, padded4)
        m.d.comb += [
            self.group.eq(delay(m, f["a_group"], 3, "group")),
            self.za.eq(delay(m, f["za"], 8, "za")),
        ]
        return m

    def _walk(self, m: Module, w: View, f: dict[str, Signal]) -> tuple[PixelWalk, Signal, Signal]:
        """Pixels of the block, times the strides, and what bounds them."""
        n = self.arch.conv.pixels
        walk = place(m, "walk", PixelWalk(n, _WALK))
        width = width_in_walk(w.out_w, w.packed, n + 1, "width", m)
        first = []
        for p in range(n + 1):
            x, y = position(m, width, p, f"pixel{p}")
            at_x, at_y = (Signal(range(p + 1), name=f"first_{axis}{p}", reset_less=True) for axis in "xy")
            with m.If(self.start):
                m.d.sync += [at_x.eq(x), at_y.eq(y)]
            first.append((at_x, at_y))
        # Rows and columns times strides, in two steps.
        (low_x, high_x), (low_y, high_y) = (
            [Signal(17, name=f"{part}_{axis}", reset_less=True) for part in ("low", "high")] for axis in "xy"
        )
        with m.If(self.start):
            m.d.sync += [low_x.eq(times(w.out_w, w.sx[:3])), high_x.eq(times(w.out_w, w.sx[3:]))]
            m.d.sync += [low_y.eq(times(w.out_h, w.sy[:3])), high_y.eq(times(w.out_h, w.sy[3:]))]
        limit_x, limit_y = (Signal(_WALK, name=f"limit_{axis}", reset_less=True) for axis in "xy")
        forward, back = (Signal(signed(_WALK + 1), name=n, reset_less=True) for n in ("forward", "back"))
        down, down_more = (Signal(_WALK, name=n, reset_less=True) for n in ("down", "down_more"))
        step_x, step_y = first[n]
        m.d.sync += [
            *(limit_x.eq(low_x + (high_x << 3)), limit_y.eq(low_y + (high_y << 3))),
            *(forward.eq(times(f["sx"], step_x)), back.eq(times(f["sx"], step_x) - low_x - (high_x << 3))),
            *(down.eq(times(f["sy"], step_y)), down_more.eq(times(f["sy"], step_y) + f["sy"])),
        ]
        m.d.comb += [
            *(getattr(walk, f"first_x{p}").eq(times(f["sx"], first[p][0])) for p in range(n)),
            *(getattr(walk, f"first_y{p}").eq(times(f["sy"], first[p][1])) for p in range(n)),
            *(walk.forward.eq(forward), walk.back.eq(back), walk.down.eq(down), walk.down_more.eq(down_more)),
            *(walk.packed.eq(f["packed"]), walk.restart.eq(self.parameter)),
            *(walk.advance.eq(self.turn_block), walk.line.eq(self.line)),
        ]
        return walk, limit_x, limit_y

    def _plane(self, m: Module, w: View, f: dict[str, Signal]) -> Signal:
        """First word of the step's input block, without rows and columns."""
        whole = self.arch.conv.oc // self.arch.lanes
        first, offset = Signal(18, reset_less=True), Signal(18, reset_less=True)
        many, more = Signal(18, reset_less=True), Signal(18, reset_less=True)
        m.d.sync += [many.eq(times(f["a_plane"], whole)), more.eq(times(f["a_plane"], whole + 1))]
        with m.If(self.start):
            m.d.sync += first.eq(w.a_base)
        with m.Elif(self.turn_record & f["diagonal"]):
            m.d.sync += first.eq(first + Mux(self.carry, more, many))
        with m.If(self.parameter | self.turn_block | self.turn_row | self.turn_column):
            m.d.sync += offset.eq(first)
        with m.Elif(self.turn_input):
            m.d.sync += offset.eq(offset + f["a_plane"])
        return offset

    def _request(self, m: Module, address: list[Signal], hit: list[Value], padded: list[Value]) -> None:
        """Each bank gets the row of the pixel that asks it: there is one at most, as `ir.verify` has checked."""
        bits = bank_bits(self.arch)
        for b in range(self.arch.banks):
            asked = Signal(self.arch.conv.pixels, name=f"asked{b}")
            m.d.comb += asked.eq(Cat(h & (a[:bits] == b) for a, h in zip(address, hit, strict=True)))
            row: Value = Mux(asked[0], address[0][bits:], 0)
            for p, a in enumerate(address[1:], 1):
                row = row | Mux(asked[p], a[bits:], 0)
            m.d.sync += [getattr(self, f"row{b}").eq(row), self.enable[b].eq(asked.any())]
        for p, (a, out) in enumerate(zip(address, padded, strict=True)):
            m.d.sync += [getattr(self, f"bank{p}").eq(a[:bits]), getattr(self, f"padded{p}").eq(out)]
