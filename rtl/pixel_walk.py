"""Where the pixels of a block lie in a tile: registers that go from block to block.

The pixels of a tile are counted in reading order. A block is n of them that stand beside each other: within a row, or
(*packed*) across row ends. So going on by n pixels is, for each of them on its own,

    column += n % width,  and where that is beyond the row's end:  column -= width, row += 1
    row    += n // width

A walk keeps columns and rows times their strides; what is added is a number of the instruction. Division is a small table
(`position`), since only widths up to n differ in it. A block that ends with its row is followed by the first pixels of the
next one.
"""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

__all__ = ["PixelWalk", "position", "times", "width_in_walk"]


def times(value: Value, factor: Value | int) -> Value:
    """``value * factor`` of unsigned numbers by adding: a factor of few bits needs no DSP block."""
    if isinstance(factor, int):
        parts = [value << i for i in range(factor.bit_length()) if factor >> i & 1]
    else:
        parts = [Mux(bit, value << i, 0) for i, bit in enumerate(factor)]
    return sum(parts[1:], parts[0]) if parts else Const(0)


def width_in_walk(width: Value, packed: Value, most: int, name: str, m: Module) -> Signal:
    """`width` for `position`: held at `most`, more than any pixel number asked for; where rows are not left, `most`."""
    out = Signal(range(most + 1), name=name)
    m.d.comb += out.eq(Mux(packed & (width < most), width[: len(out)], most))
    return out


def position(m: Module, width: Signal, pixel: int, name: str) -> tuple[Signal, Signal]:
    """Column and row of a pixel by its number, in rows of `width`: ``(pixel % width, pixel // width)``."""
    column, row = (Signal(range(pixel + 1), name=f"{name}_{n}") for n in ("column", "row"))
    with m.Switch(width):
        for w in range(1, pixel + 1):
            with m.Case(w):
                m.d.comb += [column.eq(pixel % w), row.eq(pixel // w)]
        with m.Default():
            m.d.comb += [column.eq(pixel), row.eq(0)]
    return column, row


class PixelWalk(Component):
    """Columns and rows of a block's pixels, times their strides.

    Parameters
    ----------
    pixels : int
    bits : int
        Of columns and rows times strides.

    Members
    -------
    first_x<p>, first_y<p> : in
        Pixel p of the tile's first block.
    forward, back : signed, in
        What a column gains from block to block; the same less a row.
    down, down_more : in
        What a row gains, without and with passing a row's end.
    packed : in
    restart, advance, line : in
        In the next cycle: the tile's first block; the next block; the next block, in a new row (not for packed ones).
    x<p>, y<p> : out

    Timing: one adder and a choice between registers; a block a cycle.
    """

    packed: Signal
    forward: Signal
    back: Signal
    down: Signal
    down_more: Signal
    restart: Signal
    advance: Signal
    line: Signal

    def __init__(self, pixels: int, bits: int) -> None:
        self.pixels, self.bits = pixels, bits
        super().__init__(
            {
                **{f"first_{axis}{p}": In(bits) for p in range(pixels) for axis in "xy"},
                **{"forward": In(signed(bits + 1)), "back": In(signed(bits + 1)), "packed": In(1)},
                **{"down": In(bits), "down_more": In(bits)},
                **{name: In(1) for name in ("restart", "advance", "line")},
                **{f"{axis}{p}": Out(bits) for p in range(pixels) for axis in "xy"},
            }
        )

    @property
    def module_name(self) -> str:
        return f"pixel_walk_{self.pixels}x{self.bits}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for p in range(self.pixels):
            x, y = (Signal(self.bits, name=f"{axis}_{p}", reset_less=True) for axis in "xy")
            first_x, first_y = (getattr(self, f"first_{axis}{p}") for axis in "xy")
            behind = Signal(signed(self.bits + 2), name=f"behind{p}")  # column after the row's end
            wraps = Signal(name=f"wraps{p}")
            m.d.comb += [behind.eq(x + self.back), wraps.eq(self.packed & (behind >= 0))]
            with m.If(self.restart):
                m.d.sync += [x.eq(first_x), y.eq(first_y)]
            with m.Elif(self.advance):
                m.d.sync += x.eq(Mux(self.line, first_x, Mux(wraps, behind, x + self.forward)))
                m.d.sync += y.eq(Mux(self.line | wraps, y + self.down_more, y + self.down))
            m.d.comb += [getattr(self, f"x{p}").eq(x), getattr(self, f"y{p}").eq(y)]
        return m
