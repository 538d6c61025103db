"""Weight words for the array: read in time with the pixels, and spread out for depthwise layers."""

from __future__ import annotations

from math import gcd

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.latency import ADDRESS, MAP_READ, MEMORY_READ
from .delay import delay
from .ports import memory_read

__all__ = ["ConvWeights"]


class ConvWeights(Component):
    """The weight word of each step, and the parameter words between them.

    A word has byte (l, o) at l * oc + o: weight of input lane l, output channel o. A diagonal word instead has a tap in
    each l, so for tap t output channel o has only byte (t, o), and it belongs into lane l where input word and lane are those
    of its own channel: ``l = o - place`` with `place` = lanes of the input words passed, less the lane of the
    block's first channel. All other lanes are zero.

    Members
    -------
    enable, address, tap, place : in
        Of `ConvSequence`: one cycle ahead of the issue slot.
    diagonal : in
        Of `WindowAddress`.
    memory : `memory_read`, out
    raw : out
        The word as read, ``ADDRESS + MAP_READ`` cycles after the slot.
    weights : out
        Two cycles later, when the pixels are there.
    """

    enable: Signal
    address: Signal
    tap: Signal
    place: Signal
    diagonal: Signal
    raw: Signal
    weights: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.address_bits = max(1, (arch.weight_words - 1).bit_length())
        self.word_bits = 8 * arch.lanes * arch.conv.oc
        super().__init__(
            {
                **{"enable": In(1), "address": In(18), "tap": In(range(arch.lanes)), "place": In(signed(8))},
                **{"diagonal": In(1), "memory": Out(memory_read(self.address_bits, self.word_bits))},
                **{"raw": Out(self.word_bits), "weights": Out(self.word_bits)},
            }
        )

    @property
    def module_name(self) -> str:
        return "conv_weights"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, oc = self.arch.lanes, self.arch.conv.oc
        word = ADDRESS + MAP_READ  # cycle after the slot in which the memory's word is there
        before = 1 + word - MEMORY_READ
        m.d.comb += [
            self.memory.enable.eq(delay(m, self.enable, before, "enable", reset=True)),
            self.memory.address.eq(delay(m, self.address[: self.address_bits], before, "address")),
            self.raw.eq(self.memory.data),
        ]
        tap, place = delay(m, self.tap, 1 + word, "tap"), delay(m, self.place, 1 + word, "place").as_signed()
        diagonal = delay(m, self.diagonal, word + 1, "diagonal")  # from the instruction's second cycle on
        stored = Signal(self.word_bits, reset_less=True)
        taps = [Signal(8, name=f"tap_of_channel{o}", reset_less=True) for o in range(oc)]
        m.d.sync += stored.eq(self.raw)
        with m.Switch(tap):
            for lane in range(lanes):
                with m.Case(lane):
                    m.d.sync += [t.eq(self.raw.word_select(lane * oc + o, 8)) for o, t in enumerate(taps)]
        # Places are multiples of this, so most bytes never hold a tap.
        unit = gcd(oc, lanes)
        here: dict[int, Signal] = {}
        for at in range(1 - lanes, oc):
            if at % unit == 0:
                here[at] = Signal(name=f"here{at}".replace("-", "m"), reset_less=True)
                m.d.sync += here[at].eq(place == at)
        out: list[Value] = []
        for lane in range(lanes):
            for o in range(oc):
                byte = Signal(8, name=f"weight{lane}_{o}", reset_less=True)
                spread: Value = Mux(here[o - lane], taps[o], 0) if o - lane in here else Const(0)
                m.d.sync += byte.eq(Mux(diagonal, spread, stored.word_select(lane * oc + o, 8)))
                out.append(byte)
        m.d.comb += self.weights.eq(Cat(out))
        return m
