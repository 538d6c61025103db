"""The loop over the blocks of output channels, and what each of them reads and writes."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import Opcode
from .pixel_walk import times
from .words import WORD_BITS, layout

__all__ = ["RECORD", "OutputBlocks", "reaches"]

RECORD = {"lane": 6, "count": 7, "words": 5, "plane": 18}
"""What the drain has to know of a block of output channels: lane of its first channel in the first word that it writes,
number of channels, number of words, address of the first word's channel block."""
_NEVER = (1 << 18) - 1
"""More output channels than an instruction can have."""


def reaches(lanes: int, oc: int, words: int, lane0: int) -> int:
    """Output channels from which on some block of `oc` channels writes `words` words of `lanes`, the first at `lane0`.

    >>> reaches(16, 16, 2, 0) == _NEVER, reaches(16, 16, 2, 5), reaches(10, 12, 3, 3)
    (True, 12, 48)
    """
    least = _NEVER
    for block in range(lanes):  # lanes of first channels repeat after that
        count = (words - 1) * lanes - (lane0 + block * oc) % lanes + 1
        if count <= oc:
            least = min(least, block * oc + max(count, 1))
    return least


class OutputBlocks(Component):
    """Blocks of `oc` output channels of a CONV.

    Members
    -------
    start, word, advance : in
        As in `engine_port`; the next block follows.
    last : out
        This is the last block.
    inputs : out
        Diagonal: input words that hold its channels.
    lane_in : out
        Diagonal: lane of its first channel in the first of them.
    carry : out
        The next block's first input word is ``oc // L + 1`` words further, otherwise ``oc // L``.
    lane, count, words, plane : out
        `RECORD`.
    no_wait, longest : out
        No drain of the instruction is longer than a cycle; cycles of the longest. From the second cycle after `start`.
    drained : out
        Cycles of the drain of this block, one cycle later than the rest.

    Timing: outputs from the cycle after `start` or `advance`, where nothing else is said.
    """

    start: Signal
    word: Signal
    advance: Signal
    last: Signal
    inputs: Signal
    lane_in: Signal
    carry: Signal
    lane: Signal
    count: Signal
    words: Signal
    plane: Signal
    no_wait: Signal
    longest: Signal
    drained: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.groups = -(-arch.conv.pixels // arch.conv.drain)
        self.most = -(-(arch.conv.oc + arch.lanes - 1) // arch.lanes)
        drain = (self.groups * self.most * 31).bit_length()
        super().__init__(
            {
                **{"start": In(1), "word": In(WORD_BITS), "advance": In(1), "last": Out(1)},
                **{"inputs": Out(range(self.most + 1)), "lane_in": Out(range(arch.lanes)), "carry": Out(1)},
                **{name: Out(bits) for name, bits in RECORD.items()},
                **{"no_wait": Out(1), "longest": Out(drain), "drained": Out(drain)},
            }
        )

    @property
    def module_name(self) -> str:
        return "output_blocks"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, oc, w = self.arch.lanes, self.arch.conv.oc, View(layout(Opcode.CONV), self.word)

        # Channels that are left.
        left = Signal(17, reset_less=True)
        with m.If(self.start):
            m.d.sync += [left.eq(w.out_c), self.last.eq(w.out_c <= oc), self.count.eq(_at_most(w.out_c, oc))]
        with m.Elif(self.advance):
            rest = Signal(17)
            m.d.comb += rest.eq(left - oc)
            m.d.sync += [left.eq(rest), self.last.eq(left <= 2 * oc)]
            m.d.sync += self.count.eq(Mux(left >= 2 * oc, oc, rest[:7]))

        # Words that they lie in.
        whole, part = divmod(oc, lanes)
        lane_in, lane = Signal(range(lanes), reset_less=True), Signal(range(lanes), reset_less=True)
        carry_out = Signal()
        many, more = Signal(18, reset_less=True), Signal(18, reset_less=True)
        d_plane = Signal(18, reset_less=True)
        m.d.sync += [many.eq(times(d_plane, whole)), more.eq(times(d_plane, whole + 1))]
        m.d.comb += [self.carry.eq(lane_in + part >= lanes), carry_out.eq(lane + part >= lanes)]
        with m.If(self.start):
            m.d.sync += [lane_in.eq(0), lane.eq(w.lane0), self.plane.eq(w.d_base), d_plane.eq(w.d_plane)]
        with m.Elif(self.advance):
            m.d.sync += [
                lane_in.eq(Mux(self.carry, lane_in + part - lanes, lane_in + part)),
                lane.eq(Mux(carry_out, lane + part - lanes, lane + part)),
                self.plane.eq(self.plane + Mux(carry_out, more, many)),
            ]
        m.d.comb += [
            *(self.lane_in.eq(lane_in), self.lane.eq(lane)),
            self.inputs.eq(self._words(m, lane_in + self.count, "inputs")),
            self.words.eq(self._words(m, lane + self.count, "outputs")),
        ]

        # Drains.
        last, ways = Signal(reset_less=True), Signal(range(31 * self.groups + 1), reset_less=True)
        reached = Signal(self.most, reset_less=True)
        with m.If(self.start):
            m.d.sync += [last.eq(w.last), ways.eq(times(w.drain_ways, self.groups)), reached[0].eq(1)]
            for k in range(1, self.most):
                threshold = Signal(18, name=f"threshold{k}")
                with m.Switch(w.lane0):
                    for lane0 in range(lanes):
                        with m.Case(lane0):
                            m.d.comb += threshold.eq(reaches(lanes, oc, k + 1, lane0))
                m.d.sync += reached[k].eq(w.out_c >= threshold)
        most = Signal(range(self.most + 1))
        for k in range(self.most):
            with m.If(reached[k]):
                m.d.comb += most.eq(k + 1)
        m.d.sync += [
            self.longest.eq(times(ways, most)),
            self.no_wait.eq(~last | ((ways == 1) & (most == 1))),
            self.drained.eq(Mux(last, times(ways, self.words[: len(most)]), 0)),
        ]
        return m

    def _words(self, m: Module, end: Value, name: str) -> Signal:
        """Words of `lanes` lanes, the last of them with lane `end` - 1."""
        lanes, most = self.arch.lanes, self.arch.lanes - 1 + self.arch.conv.oc
        at, out = Signal(range(most + 1), name=f"{name}_end"), Signal(range(self.most + 1), name=name)
        m.d.comb += at.eq(end)
        for bit in range(len(out)):
            table = sum((-(-n // lanes) >> bit & 1) << n for n in range(1 << len(at)))
            m.d.comb += out[bit].eq(Const(table, 1 << len(at)).bit_select(at, 1))
        return out


def _at_most(value: Value, bound: int) -> Value:
    return Mux(value > bound, bound, value[:7])
