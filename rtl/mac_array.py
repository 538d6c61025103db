"""The array: pixels times weights, summed up over input lanes and over steps."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from .hierarchy import place
from .products import PairedDot, PairedOperand, SharedOperand

__all__ = ["Accumulate", "MacArray"]


class Accumulate(Component):
    """Accumulators of one pixel: int32, one for each output channel.

    Members: `sum<o>` in; `enable` in: they are added; `begin` in: to the bias, not to what is there; `bias` in, 32 bits a
    channel; `total` out, the same, one cycle later.
    """

    enable: Signal
    begin: Signal
    bias: Signal
    total: Signal

    def __init__(self, channels: int, bits: int) -> None:
        self.channels, self.bits = channels, bits
        super().__init__(
            {
                **{f"sum{o}": In(signed(bits)) for o in range(channels)},
                **{"enable": In(1), "begin": In(1), "bias": In(32 * channels), "total": Out(32 * channels)},
            }
        )

    @property
    def module_name(self) -> str:
        return f"accumulate_{self.channels}x{self.bits}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        totals = [Signal(32, name=f"total{o}", reset_less=True) for o in range(self.channels)]
        with m.If(self.enable):
            for o, total in enumerate(totals):
                before = Mux(self.begin, self.bias.word_select(o, 32), total)
                m.d.sync += total.eq(before + getattr(self, f"sum{o}"))
        m.d.comb += self.total.eq(Cat(totals))
        return m


class MacArray(Component):
    """``pixels x ic x oc`` products a cycle.

    Every product's pixel byte is shared by two output channels, o and o + 1, whose weights are paired (`rtl.products`).

    Parameters
    ----------
    mac : {"plain", "dsp48e2", "dsp48e1"}

    Members
    -------
    word<p> : in
        Map word of pixel p.
    weights : in
        Byte (l, o) at l * oc + o.
    enable, begin, bias : in
        As in `Accumulate`, `enable` for each pixel, `dot_product(ic)` cycles after the words.
    total<p> : out
        Accumulators, one cycle later.
    """

    weights: Signal
    enable: Signal
    begin: Signal
    bias: Signal

    def __init__(self, arch: Arch, mac: str = "plain") -> None:
        self.arch, self.mac = arch, mac
        lanes, oc, pixels = arch.lanes, arch.conv.oc, arch.conv.pixels
        super().__init__(
            {
                **{f"word{p}": In(8 * lanes) for p in range(pixels)},
                **{"weights": In(8 * lanes * oc), "enable": In(pixels), "begin": In(1), "bias": In(32 * oc)},
                **{f"total{p}": Out(32 * oc) for p in range(pixels)},
            }
        )

    @property
    def module_name(self) -> str:
        return f"mac_array_{self.mac}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, oc, mac = self.arch.lanes, self.arch.conv.oc, self.mac
        pairs = []
        for o in range(0, oc, 2):
            pair = place(m, f"weights{o}", PairedOperand(lanes, mac))
            for name, channel in (("one", o), ("two", o + 1)):
                of_lanes: list[Value] = [
                    self.weights.word_select(lane * oc + channel, 8) for lane in range(lanes)
                ]
                m.d.comb += getattr(pair, name).eq(Cat(of_lanes))
            pairs.append(pair)
        for p in range(self.arch.conv.pixels):
            pixel = place(m, f"pixel{p}", SharedOperand(lanes, mac))
            sums: Accumulate | None = None
            m.d.comb += pixel.word.eq(getattr(self, f"word{p}"))
            for i, pair in enumerate(pairs):
                dot = place(m, f"dot{p}_{2 * i}", PairedDot(lanes, mac))
                if sums is None:
                    sums = place(m, f"sums{p}", Accumulate(oc, len(dot.one)))
                m.d.comb += [
                    *(dot.shared.eq(pixel.operand), dot.paired.eq(pair.operand)),
                    *(getattr(sums, f"sum{2 * i}").eq(dot.one), getattr(sums, f"sum{2 * i + 1}").eq(dot.two)),
                ]
                if mac == "dsp48e1":
                    m.d.comb += dot.offsets.eq(pixel.offsets)
            assert sums is not None
            m.d.comb += [
                *(sums.enable.eq(self.enable[p]), sums.begin.eq(self.begin), sums.bias.eq(self.bias)),
                getattr(self, f"total{p}").eq(sums.total),
            ]
        return m
