"""The depthwise engine's way back to the maps: groups of result pixels to banks."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, PureInterface

from ..ir.arch import Arch
from .delay import delay
from .ports import map_write, row_bits
from .rotation import ROTATION
from .shift import shift_down

__all__ = ["DwcWrite"]


class DwcWrite(Component):
    """Writes the groups of a drain, one a cycle, a word a pixel, to the banks of consecutive columns.

    Members
    -------
    begin : in
        The first group's results come in the next cycle.
    word, count, group, part : in
        With `begin`: first word, pixels that exist, map group, pass.
    results : in
        Byte (pixel, channel).
    target : out
        `ROTATION` cycles after the results.
    """

    begin: Signal
    word: Signal
    count: Signal
    group: Signal
    part: Signal
    results: Signal
    target: PureInterface

    def __init__(self, arch: Arch, channels: int) -> None:
        self.arch, self.channels = arch, channels
        self.pixels = min(arch.dwc.drain, arch.dwc.pixels)
        self.passes = -(-arch.lanes // channels)
        super().__init__(
            {
                **{"begin": In(1), "word": In(18), "count": In(range(arch.dwc.pixels + 1)), "group": In(3)},
                **{"part": In(range(max(2, self.passes))), "results": In(8 * self.pixels * channels)},
                "target": Out(map_write(arch)),
            }
        )

    @property
    def module_name(self) -> str:
        return "dwc_write"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, banks, target = self.arch, self.arch.banks, self.target
        bits, width = (banks - 1).bit_length(), row_bits(arch)
        ways = 1 << (self.pixels - 1).bit_length()

        word, group = Signal(18, reset_less=True), Signal(3, reset_less=True)
        part = Signal.like(self.part, reset_less=True)
        left = Signal.like(self.count)
        with m.If(self.begin):
            m.d.sync += [word.eq(self.word), left.eq(self.count), group.eq(self.group), part.eq(self.part)]
        with m.Else():
            m.d.sync += word.eq(word + self.pixels)
            if arch.dwc.pixels > self.pixels:
                m.d.sync += left.eq(Mux(left > self.pixels, left - self.pixels, 0))
            else:
                m.d.sync += left.eq(0)

        # A bank's word is that of its number modulo `ways`: whether it is written is another matter.
        items = [self.results.word_select(p % self.pixels, 8 * self.channels) for p in range(ways)]
        amount = Signal(range(ways))
        m.d.comb += amount.eq(-word)
        amounts = [
            amount[2:],
            delay(m, amount[:2], 1, "amount"),
        ]  # up to four words move in the second level alone
        assert len(amounts) == ROTATION
        moved = shift_down(m, items, amounts, ways, "moved", wrap=True)
        repeated = [Cat(w.word_select(lane % self.channels, 8) for lane in range(arch.lanes)) for w in moved]

        word, left = (
            delay(m, word, ROTATION - 1, "word"),
            delay(m, left, ROTATION - 1, "left", reset=True),
        )
        offset, row = word[:bits], word[bits : bits + width]
        after = Signal(width)
        m.d.comb += after.eq(row + 1)
        m.d.comb += target.group.eq(delay(m, group, ROTATION, "group"))
        mask = Signal(arch.lanes, reset_less=True)
        late = delay(m, part, ROTATION - 1, "part")
        m.d.sync += mask.eq(Cat(late == lane // self.channels for lane in range(arch.lanes)))
        for b in range(banks):
            pixel = Signal(bits, name=f"pixel{b}")
            m.d.comb += pixel.eq(b - offset)
            m.d.sync += target.enable[b].eq((pixel < left) & (pixel < self.pixels))
            to = Signal(width, name=f"row{b}", reset_less=True)
            m.d.sync += to.eq(Mux(b < offset, after, row) if b < banks - 1 else row)
            m.d.comb += [
                getattr(target, f"row{b}").eq(to),
                getattr(target, f"mask{b}").eq(mask),
                getattr(target, f"data{b}").eq(repeated[b % ways]),
            ]
        return m
