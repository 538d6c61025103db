"""The loop over the pixel blocks of a tile."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import Opcode
from .loop import Loop
from .pixel_walk import position, width_in_walk
from .words import WORD_BITS, layout

__all__ = ["TileLoop"]


class TileLoop(Component):
    """Whether a pixel block of a CONV is the last of its row, and of its tile.

    The registers say it of the current block; so they are computed from the position of the first pixel two blocks further,
    which is walked here in whole pixels. Packed tiles count as one row, which ends where that pixel is below the tile.

    Members: `start`, `word` in, as in `engine_port`; `restart`, `advance` in: in the next cycle the first, the next block;
    `line`, `last` out: the current block is the last of its row, of the tile. `restart` from the cycle after `start` on.
    """

    start: Signal
    word: Signal
    restart: Signal
    advance: Signal
    line: Signal
    last: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                **{"start": In(1), "word": In(WORD_BITS), "restart": In(1), "advance": In(1)},
                **{"line": Out(1), "last": Out(1)},
            }
        )

    @property
    def module_name(self) -> str:
        return "tile_loop"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        n, w = self.arch.conv.pixels, View(layout(Opcode.CONV), self.word)
        width = width_in_walk(w.out_w, w.packed, 2 * n + 1, "width", m)
        one, two = position(m, width, n, "one"), position(m, width, 2 * n, "two")

        # The instruction.
        packed, narrow, one_row = (
            Signal(name=name, reset_less=True) for name in ("packed", "narrow", "one_row")
        )
        out_h, out_w = (Signal(14, name=name, reset_less=True) for name in ("out_h", "out_w"))
        forward, first_x = (
            Signal(range(2 * n + 1), name=name, reset_less=True) for name in ("forward", "first_x")
        )
        down, first_y = (Signal(range(2 * n + 1), name=name, reset_less=True) for name in ("down", "first_y"))
        with m.If(self.start):
            m.d.sync += [
                *(packed.eq(w.packed), narrow.eq(w.out_w <= n), one_row.eq(w.packed | (w.out_h == 1))),
                *(out_h.eq(w.out_h), out_w.eq(w.out_w)),
                *(forward.eq(one[0]), down.eq(one[1]), first_x.eq(two[0]), first_y.eq(two[1])),
            ]
        back = Signal(signed(16), reset_less=True)
        m.d.sync += back.eq(forward - out_w)

        # Two blocks further.
        x, y = Signal(15, reset_less=True), Signal(15, reset_less=True)
        behind, wraps, single = Signal(signed(17)), Signal(), Signal()
        m.d.comb += [
            behind.eq(x + back),
            wraps.eq(packed & (behind >= 0)),
            single.eq(Mux(packed, out_h <= down, narrow)),  # floor(n / width) rows fit into a block
        ]
        rows = Loop("rows", 14)
        with m.If(self.restart):
            m.d.sync += rows.begin(out_h, one_row)
        with m.Elif(self.advance & self.line):
            m.d.sync += rows.turn()
        with m.If(self.restart | (self.advance & self.line)):
            m.d.sync += [x.eq(first_x), y.eq(first_y), self.line.eq(single)]
        with m.Elif(self.advance):
            m.d.sync += [
                x.eq(Mux(wraps, behind, x + forward)),
                y.eq(y + down + wraps),
                self.line.eq(Mux(packed, y >= out_h, x >= out_w)),
            ]
        m.d.comb += self.last.eq(self.line & rows.last)
        return m
