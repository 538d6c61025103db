"""Bias and scale of the output channels, from their parameter words to where they are used."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from .conv_sequence import IN_FLIGHT, head_words
from .hierarchy import place
from .lut_memory import LutMemory

__all__ = ["ConvParameters"]


class ConvParameters(Component):
    """A queue of records' parameters, by the number of the record.

    Products take longer than a short block of output channels, so several blocks' parameters are on their way at once.
    Byte plane k (bytes of all channels, 0-3 bias, 4-7 scale word) is plane ``k % L`` of parameter word ``k // L``.

    Members
    -------
    write, index, to, word : in
        A parameter word: which, of which record, its bytes.
    bias_at, scale_at : in
        Records that are used.
    bias, scale : out
        32 bits for each channel, in the cycle after `bias_at` and `scale_at`.
    """

    write: Signal
    index: Signal
    to: Signal
    word: Signal
    bias_at: Signal
    scale_at: Signal
    bias: Signal
    scale: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        lanes, oc = arch.lanes, arch.conv.oc
        super().__init__(
            {
                **{"write": In(1), "index": In(range(max(2, head_words(lanes)))), "to": In(range(IN_FLIGHT))},
                **{
                    "word": In(8 * lanes * oc),
                    "bias_at": In(range(IN_FLIGHT)),
                    "scale_at": In(range(IN_FLIGHT)),
                },
                **{"bias": Out(32 * oc), "scale": Out(32 * oc)},
            }
        )

    @property
    def module_name(self) -> str:
        return "conv_parameters"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, oc = self.arch.lanes, self.arch.conv.oc
        heads = head_words(lanes)
        for part, (name, at, out) in enumerate(
            (("bias", self.bias_at, self.bias), ("scale", self.scale_at, self.scale))
        ):
            planes = range(4 * part, 4 * part + 4)
            memory = place(m, name, LutMemory(IN_FLIGHT, 32 * oc, 1 if heads == 1 else 4))
            m.d.comb += [
                memory.to.eq(self.to),
                memory.at.eq(at),
                memory.data.eq(Cat(self.word.word_select(k % lanes, 8 * oc) for k in planes)),
                memory.write.eq(
                    self.write
                    if heads == 1
                    else Cat(self.write & (self.index == Const(k // lanes, len(self.index))) for k in planes)
                ),
            ]
            # Byte planes to channels.
            planes_of = [memory.word.word_select(k, 8 * oc) for k in range(4)]
            word = Signal(32 * oc, name=f"{name}_word", reset_less=True)
            m.d.sync += word.eq(Cat(plane.word_select(o, 8) for o in range(oc) for plane in planes_of))
            m.d.comb += out.eq(word)
        return m
