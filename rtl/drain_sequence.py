"""The sequence of a drain: which pixels, destination word and turn in which cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.data import StructLayout, View
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import Opcode
from .conv_sequence import IN_FLIGHT
from .delay import delay
from .hierarchy import place
from .loop import Loop
from .lut_memory import LutMemory
from .output_blocks import RECORD
from .words import WORD_BITS, layout

__all__ = ["DrainSequence", "drain_groups"]

_CONTEXT = ("zd", "lo", "hi", "mode", "table", "drain_ways", "d_plane")


def drain_groups(arch: Arch) -> int:
    """Groups of pixels that are requantised one after the other."""
    return -(-arch.conv.pixels // arch.conv.drain)


class DrainSequence(Component):
    """Steps of a drain: group of pixels, destination word, way.

    Instructions and blocks of output channels are told what they need here when they are issued, and looked up by number when
    their sums are there: others may be on their way in between.

    Members
    -------
    start, word, context : in
        The instruction, as in `engine_port`, and its number in the next cycle.
    parameter, record, record_lane, record_count, record_words, record_plane : in
        Of `ConvSequence`.
    drain, finish, context_now, record_now : in
        A pixel block is in the accumulators, or an instruction ends; their numbers.
    step : out
        From the next cycle on, as long as it takes.
    group, way : out
        Group of pixels; turn of those that share a bank.
    turn, block_end : out
        The group's last step; the block's.
    index, first, end, lane, plane : out
        Destination word: its number, first lane of the block of channels counted from this word's first lane times L,
        see below; address of its channel block.
    zd, lo, hi, mode, table : out
        The instruction's.
    finished : out
        All of an instruction has been issued, or nothing is.

    The block's channels are lanes `lane` .. `end` - 1, counted from the first lane of its first word; word `index` holds lanes
    `first` .. `first` + L - 1.
    """

    start: Signal
    word: Signal
    context: Signal
    parameter: Signal
    record: Signal
    record_lane: Signal
    record_count: Signal
    record_words: Signal
    record_plane: Signal
    drain: Signal
    finish: Signal
    context_now: Signal
    record_now: Signal
    step: Signal
    group: Signal
    way: Signal
    turn: Signal
    block_end: Signal
    index: Signal
    first: Signal
    lane: Signal
    end: Signal
    plane: Signal
    zd: Signal
    lo: Signal
    hi: Signal
    mode: Signal
    table: Signal
    finished: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                **{"start": In(1), "word": In(WORD_BITS), "context": In(range(IN_FLIGHT))},
                **{"parameter": In(1), "record": In(range(IN_FLIGHT))},
                **{f"record_{name}": In(bits) for name, bits in RECORD.items()},
                **{"drain": In(1), "finish": In(1)},
                **{"context_now": In(range(IN_FLIGHT)), "record_now": In(range(IN_FLIGHT))},
                **{"step": Out(1), "group": Out(range(max(2, drain_groups(arch)))), "way": Out(5)},
                **{"turn": Out(1), "block_end": Out(1), "index": Out(5), "first": Out(8)},
                **{"lane": Out(6), "end": Out(8), "plane": Out(18)},
                **{n: Out(layout(Opcode.CONV)[n].shape) for n in ("zd", "lo", "hi", "mode", "table")},
                "finished": Out(1),
            }
        )

    @property
    def module_name(self) -> str:
        return "drain_sequence"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, groups = self.arch.lanes, drain_groups(self.arch)

        # What is told early.
        fields, w = layout(Opcode.CONV), View(layout(Opcode.CONV), self.word)
        shapes = {n: fields[n].shape for n in _CONTEXT}
        told = Signal(StructLayout(shapes), reset_less=True)
        with m.If(self.start):
            m.d.sync += [told[n].eq(w[n]) for n in _CONTEXT]
        contexts = place(m, "contexts", LutMemory(IN_FLIGHT, told.shape().size))
        records = place(m, "records", LutMemory(IN_FLIGHT, sum(RECORD.values())))
        numbers = Signal(StructLayout(RECORD))
        m.d.comb += [
            *(
                contexts.write.eq(delay(m, self.start, 1, "started", reset=True)),
                contexts.to.eq(self.context),
            ),
            *(contexts.data.eq(told), contexts.at.eq(self.context_now)),
            *(numbers[n].eq(getattr(self, f"record_{n}")) for n in RECORD),
            *(records.write.eq(self.parameter), records.to.eq(self.record), records.data.eq(numbers)),
            records.at.eq(self.record_now),
        ]

        # Begin.
        found, of_record = View(told.shape(), contexts.word), View(numbers.shape(), records.word)
        now = Signal.like(told, name="now", reset_less=True)
        here = Signal.like(numbers, name="here", reset_less=True)
        finishing = Signal(reset_less=True)
        ways, words = Loop("ways", 5), Loop("words", RECORD["words"])
        last_group, turn = Signal(), Signal()
        with m.If(self.drain):
            m.d.sync += [now.eq(found), here.eq(of_record), finishing.eq(self.finish), self.group.eq(0)]
        with m.Elif(turn & words.last):
            m.d.sync += self.group.eq(self.group + 1)
        m.d.comb += [
            last_group.eq(self.group == groups - 1),
            turn.eq(self.step & ways.last),
            self.turn.eq(turn & words.last),
            self.block_end.eq(self.turn & last_group),
        ]

        # Loops.
        with m.If(self.drain):
            m.d.sync += [*ways.begin(found.drain_ways, found.drain_ways == 1), self.way.eq(0)]
        with m.Elif(ways.last):
            m.d.sync += [*ways.begin(now.drain_ways, now.drain_ways == 1), self.way.eq(0)]
        with m.Else():
            m.d.sync += [*ways.turn(), self.way.eq(self.way + 1)]
        with m.If(self.drain):
            m.d.sync += words.begin(of_record.words, of_record.words == 1)
            m.d.sync += [self.index.eq(0), self.first.eq(0), self.plane.eq(of_record.plane)]
            m.d.sync += self.end.eq(of_record.lane + of_record.count)
        with m.Elif(turn & words.last):
            m.d.sync += words.begin(here.words, here.words == 1)
            m.d.sync += [self.index.eq(0), self.first.eq(0), self.plane.eq(here.plane)]
        with m.Elif(turn):
            m.d.sync += words.turn()
            m.d.sync += [self.index.eq(self.index + 1), self.first.eq(self.first + lanes)]
            m.d.sync += self.plane.eq(self.plane + now.d_plane)
        m.d.sync += self.step.eq(self.drain | (self.step & ~self.block_end))
        m.d.comb += [
            self.lane.eq(here.lane),
            *(getattr(self, n).eq(now[n]) for n in ("zd", "lo", "hi", "mode", "table")),
            self.finished.eq((self.finish & ~self.drain) | (self.block_end & finishing)),
        ]
        return m
