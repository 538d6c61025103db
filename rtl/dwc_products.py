"""Products of a depthwise step, and the accumulators they are summed in."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.depthwise import PARAMETER_BYTES, parameter_words
from ..ir.latency import dot_product
from .hierarchy import place
from .products import PairedDot, PairedOperand, SharedOperand, sum_bits
from .stages import Stages

__all__ = ["DwcAccumulate", "DwcParameters", "DwcProducts"]


class DwcProducts(Component):
    """Dot products over the taps of a step: two pixels at a time, which share their channel's weights.

    Members
    -------
    taps : in
        Byte (pixel, channel, tap), tap fastest.
    weights : in
        Byte (tap, channel), channel fastest.
    sums : out
        Number (pixel, channel) of `sum_bits(taps)` bits, `dot_product(taps)` cycles later.
    """

    taps: Signal
    weights: Signal
    sums: Signal

    def __init__(self, arch: Arch, channels: int, mac: str) -> None:
        self.arch, self.channels, self.mac = arch, channels, mac
        bytes_ = channels * arch.dwc.taps
        super().__init__(
            {
                "taps": In(8 * arch.dwc.pixels * bytes_),
                "weights": In(8 * bytes_),
                "sums": Out(arch.dwc.pixels * channels * sum_bits(arch.dwc.taps)),
            }
        )

    @property
    def module_name(self) -> str:
        return "dwc_products"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pixels, n, channels = self.arch.dwc.pixels, self.arch.dwc.taps, self.channels
        words = [
            [self.taps.word_select(p * channels + c, 8 * n) for c in range(channels)] for p in range(pixels)
        ]
        sums: dict[tuple[int, int], Value] = {}
        for c in range(channels):
            shared = place(m, f"weights{c}", SharedOperand(n, self.mac))
            m.d.comb += shared.word.eq(Cat(self.weights.word_select(j * channels + c, 8) for j in range(n)))
            for p in range(0, pixels, 2):
                pair = place(m, f"pixels{p}_{c}", PairedOperand(n, self.mac))
                dot = place(m, f"dot{p}_{c}", PairedDot(n, self.mac))
                alone = p + 1 == pixels
                m.d.comb += [
                    pair.one.eq(words[p][c]),
                    pair.two.eq(Const(0, 8 * n) if alone else words[p + 1][c]),
                    *(dot.shared.eq(shared.operand), dot.paired.eq(pair.operand)),
                ]
                if self.mac == "dsp48e1":
                    m.d.comb += dot.offsets.eq(shared.offsets)
                sums[p, c] = dot.one
                if not alone:
                    sums[p + 1, c] = dot.two
        m.d.comb += self.sums.eq(Cat(sums[key] for key in sorted(sums)))
        return m


class DwcParameters(Component):
    """Bias and scale word of each channel, for as long as its block lasts.

    Parameter words arrive where weights do. The bias must not change before the last step of the block before has
    reached the accumulators, the scale word not before that block's last drain is over: both bytes wait on the way.

    Members
    -------
    valid, index : in
        A parameter word is among the `weights`; which.
    weights : in
        Byte (plane, channel), channel fastest.
    bias, scale : out
        A number a channel, from ``dot_product(taps) + 1`` cycles after the word on; the scale word as many cycles later
        as a drain has steps.
    """

    valid: Signal
    index: Signal
    weights: Signal
    bias: Signal
    scale: Signal

    def __init__(self, arch: Arch, channels: int) -> None:
        self.arch, self.channels = arch, channels
        super().__init__(
            {
                **{"valid": In(1), "index": In(3), "weights": In(8 * channels * arch.dwc.taps)},
                **{"bias": Out(32 * channels), "scale": Out(32 * channels)},
            }
        )

    @property
    def module_name(self) -> str:
        return "dwc_parameters"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        dwc, width = self.arch.dwc, 8 * self.channels
        wait = dot_product(dwc.taps)
        stages = Stages(m)
        stages.put("valid", self.valid, 0, reset=True)
        stages.put("index", self.index, 0)
        for plane in range(min(dwc.taps, PARAMETER_BYTES)):
            stages.put(f"plane{plane}", self.weights.word_select(plane, width), 0)
        held = [Signal(width, name=f"byte{k}", reset_less=True) for k in range(PARAMETER_BYTES)]
        for word in range(parameter_words(dwc.taps)):
            for plane in range(min(dwc.taps, PARAMETER_BYTES - word * dwc.taps)):
                k = word * dwc.taps + plane
                at = wait if k < 4 else wait + -(-dwc.pixels // dwc.drain)
                arrived, value = (
                    stages.at("valid", at) & (stages.at("index", at) == word),
                    stages.at(f"plane{plane}", at),
                )
                with m.If(arrived):
                    m.d.sync += held[k].eq(value)
        for out, planes in ((self.bias, held[:4]), (self.scale, held[4:])):
            m.d.comb += out.eq(Cat(p.word_select(c, 8) for c in range(self.channels) for p in planes))
        return m


class DwcAccumulate(Component):
    """Accumulators of a row of outputs, and the registers from which they are drained.

    Members
    -------
    step, first : in
        `sums` are those of a step; it is its row's first.
    sums, bias : in
        Numbers (pixel, channel); a number a channel.
    drain : in
        The accumulators hold a row (the cycle after its last step, or later).
    values : out
        Accumulators of a group of `dwc.drain` pixels: the first in the cycle after `drain`, then one a cycle.
    """

    step: Signal
    first: Signal
    sums: Signal
    bias: Signal
    drain: Signal
    values: Signal

    def __init__(self, arch: Arch, channels: int) -> None:
        self.arch, self.channels = arch, channels
        dwc = arch.dwc
        self.group = min(dwc.drain, dwc.pixels)
        super().__init__(
            {
                **{"step": In(1), "first": In(1), "drain": In(1), "bias": In(32 * channels)},
                "sums": In(dwc.pixels * channels * sum_bits(dwc.taps)),
                "values": Out(32 * self.group * channels),
            }
        )

    @property
    def module_name(self) -> str:
        return "dwc_accumulate"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pixels, channels, bits = self.arch.dwc.pixels, self.channels, sum_bits(self.arch.dwc.taps)
        rows: list[Value] = []
        for p in range(pixels):
            row = []
            for c in range(channels):
                total = Signal(signed(32), name=f"sum{p}_{c}", reset_less=True)
                start = Mux(self.first, self.bias.word_select(c, 32), total).as_signed()
                with m.If(self.step):
                    m.d.sync += total.eq(start + self.sums.word_select(p * channels + c, bits).as_signed())
                row.append(total)
            rows.append(Cat(row))
        values = [Signal(32 * channels, name=f"values{p}", reset_less=True) for p in range(self.group)]
        held: list[Value] = [
            Signal(32 * channels, name=f"held{p}", reset_less=True) for p in range(self.group, pixels)
        ]
        for i, to in enumerate([*values, *held]):
            after = held[i] if i < len(held) else to
            m.d.sync += to.eq(Mux(self.drain, rows[i], after))
        m.d.comb += self.values.eq(Cat(values))
        return m
