"""The array's sequence: instruction decode, loop counters, weight addresses."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import Opcode
from ..ir.latency import CONV_START
from .hierarchy import place
from .loop import Loop
from .output_blocks import RECORD, OutputBlocks
from .tile_loop import TileLoop
from .words import WORD_BITS, layout

__all__ = ["IN_FLIGHT", "ConvSequence", "head_words"]

IN_FLIGHT = 16
"""Instructions, and blocks of output channels, that are numbered apart. The pipeline from issue to drain is shorter than 32
cycles, and they begin at least four, and two, cycles apart."""

_FLAGS = (
    *("turn_input", "turn_column", "turn_row", "turn_block", "turn_record"),
    *("line", "carry", "block_end", "record_end", "drain", "finish", "begin", "parameter", "step"),
)


def head_words(lanes: int) -> int:
    """Parameter words of a record: 8 bytes a channel."""
    return -(-8 // lanes)


class ConvSequence(Component):
    """Loops of a CONV: block of output channels, pixel block, kernel row, kernel column, input block, way.

    A block of output channels begins with its parameter words. A pixel block takes its steps, then waits until the longest
    drain of the instruction has had time. An instruction ends with a wait where its last drain takes longer than the first
    step of the next one is away. Nothing ever stalls.

    All outputs but `last` are one cycle ahead of the issue slot that they belong to: so the address pipeline gains the
    cycle by which a first step is later than its parameter word.

    Members
    -------
    start, word : in
        As in `engine_port`.
    last : out
        The last busy cycle.
    parameter, parameter_word : out
        A parameter word is read; which.
    address : out
        Weight word of the parameter word or step.
    step, share : out
        A step, for these pixels.
    begin : out
        It is a pixel block's first, and its sums start from the bias.
    tap, place : out
        Diagonal: tap within its weight word; lanes of the input words passed, less the lane of the block's first channel.
    turn_input, turn_column, turn_row, turn_block, turn_record : out
        After this cycle comes the next input block, kernel column, kernel row, pixel block, block of output channels.
    line : out
        This pixel block ends its row.
    carry : out
        `OutputBlocks`.
    block_end, drain, finish : out
        Last cycle of a pixel block; of one that is drained; of the instruction's last.
    record_end : out
        This pixel block is the tile's last.
    record, context : out
        Numbers, modulo `IN_FLIGHT`, of the block of output channels and of the instruction.
    record_lane, record_count, record_words, record_plane : out
        `RECORD` of `record`.
    """

    start: Signal
    word: Signal
    last: Signal
    parameter: Signal
    parameter_word: Signal
    address: Signal
    step: Signal
    share: Signal
    begin: Signal
    tap: Signal
    place: Signal
    turn_input: Signal
    turn_column: Signal
    turn_row: Signal
    turn_block: Signal
    turn_record: Signal
    line: Signal
    carry: Signal
    block_end: Signal
    record_end: Signal
    drain: Signal
    finish: Signal
    record: Signal
    context: Signal
    record_lane: Signal
    record_count: Signal
    record_words: Signal
    record_plane: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                **{"start": In(1), "word": In(WORD_BITS), "last": Out(1)},
                **{name: Out(1) for name in _FLAGS},
                **{"parameter_word": Out(range(max(2, head_words(arch.lanes)))), "address": Out(18)},
                **{"share": Out(arch.conv.pixels), "tap": Out(range(arch.lanes)), "place": Out(signed(8))},
                **{"record": Out(range(IN_FLIGHT)), "context": Out(range(IN_FLIGHT))},
                **{f"record_{name}": Out(bits) for name, bits in RECORD.items()},
            }
        )

    @property
    def module_name(self) -> str:
        return "conv_sequence"

    def elaborate(self, platform: object) -> Module:
        assert CONV_START == 2  # the instruction's register, then the slot that this is one cycle ahead of
        m = Module()
        arch, head = self.arch, head_words(self.arch.lanes)
        w = View(layout(Opcode.CONV), self.word)
        tile, outputs = place(m, "tile", TileLoop(arch)), place(m, "outputs", OutputBlocks(arch))
        for part in (tile, outputs):
            m.d.comb += [part.start.eq(self.start), part.word.eq(self.word)]

        # The instruction.
        counts = {"ways": 5, "blocks": 13, "kw": 10, "kh": 10}
        turns = {name: Signal(bits, name=name, reset_less=True) for name, bits in counts.items()}
        one = {name: Signal(name=f"one_{name}", reset_less=True) for name in counts}
        first, last, diagonal = (
            Signal(name=n, reset_less=True) for n in ("from_bias", "drained", "diagonal")
        )
        with m.If(self.start):
            m.d.sync += [*(turns[n].eq(w[n]) for n in counts), *(one[n].eq(w[n] == 1) for n in counts)]
            m.d.sync += [first.eq(w.first), last.eq(w.last), diagonal.eq(w.diagonal)]
            m.d.sync += [self.context.eq(self.context + 1)]
        inputs = Mux(diagonal, outputs.inputs, turns["blocks"])
        one_input = Mux(diagonal, outputs.inputs == 1, one["blocks"])

        # Steps of a pixel block, then idle until the longest drain would be over.
        active, idle, opening = Signal(), Signal(), Signal()
        way, block, column, row = (
            Loop(n, bits) for n, bits in zip(("way", "input", "column", "row"), counts.values(), strict=True)
        )
        wait = Loop("wait", len(outputs.longest))
        parameters_end, restart, turn, steps_end, fresh = (
            Signal(name=n) for n in ("parameters_end", "restart", "turn", "steps_end", "fresh")
        )
        opened = Signal(reset_less=True)  # the block has had a step
        m.d.comb += [
            parameters_end.eq(self.parameter & (self.parameter_word == head - 1)),
            self.step.eq(active & ~idle),
            turn.eq(self.step & way.last),
            steps_end.eq(turn & block.last & column.last & row.last),
            self.turn_input.eq(turn & ~block.last),
            self.turn_column.eq(turn & block.last & ~column.last),
            self.turn_row.eq(turn & block.last & column.last & ~row.last),
            self.block_end.eq(active & (idle | steps_end) & Mux(opening, outputs.no_wait, wait.last)),
            restart.eq(parameters_end | self.block_end),
            fresh.eq(restart | steps_end),
            self.begin.eq(first & ~opened),
        ]
        m.d.sync += [idle.eq((idle | steps_end) & ~self.block_end), opening.eq(restart)]
        for loop, again, number, single, on in (
            (way, fresh | turn, turns["ways"], one["ways"], self.step),
            (block, fresh | (turn & block.last), inputs, one_input, turn),
            (column, fresh | self.turn_row, turns["kw"], one["kw"], self.turn_column),
            (row, fresh, turns["kh"], one["kh"], self.turn_row),
        ):
            with m.If(again):
                m.d.sync += loop.begin(number, single)
            with m.Elif(on):
                m.d.sync += loop.turn()
        with m.If(opening):
            m.d.sync += [
                wait.left.eq(outputs.longest - 1),
                wait.last.eq(outputs.no_wait | (outputs.longest == 2)),
            ]
        with m.Elif(~wait.last):
            m.d.sync += wait.turn()
        with m.If(fresh):
            m.d.sync += opened.eq(0)
        with m.Elif(turn):
            m.d.sync += opened.eq(1)

        # What follows a pixel block.
        m.d.comb += [
            tile.restart.eq(self.parameter),
            tile.advance.eq(self.turn_block),
            outputs.advance.eq(self.turn_record),
            self.line.eq(tile.line),
            self.drain.eq(self.block_end & last),
            self.carry.eq(outputs.carry),
            self.record_end.eq(tile.last),
            self.turn_block.eq(self.block_end & ~tile.last),
            self.turn_record.eq(self.block_end & tile.last & ~outputs.last),
            self.finish.eq(self.block_end & tile.last & outputs.last),
            *(getattr(self, f"record_{name}").eq(getattr(outputs, name)) for name in RECORD),
        ]
        with m.If(self.start | self.turn_record):
            m.d.sync += [self.record.eq(self.record + 1), self.parameter_word.eq(0)]
        with m.Else():
            m.d.sync += self.parameter_word.eq(self.parameter_word + 1)
        m.d.sync += [
            self.parameter.eq(self.start | self.turn_record | (self.parameter & ~parameters_end)),
            active.eq(parameters_end | (active & ~(self.block_end & tile.last))),
        ]
        self._end(m, outputs, CONV_START + head)
        self._weights(m, w, steps_end, turn, block.last, diagonal, tile.last, outputs.lane_in)
        self._shares(m, w, fresh | turn)
        return m

    def _end(self, m: Module, outputs: OutputBlocks, near: int) -> None:
        """Last cycle: at once, or when the drain has at most `near` cycles left.

        A pixel block that waits for no drain is too short for these registers, and needs no wait at the end.
        """
        left, one_left = Signal.like(outputs.drained, reset_less=True), Signal(reset_less=True)
        late, waiting, pause = Signal(reset_less=True), Signal(), Loop("pause", len(outputs.drained))
        m.d.sync += [
            left.eq(outputs.drained - near),
            one_left.eq(outputs.drained == near + 1),
            late.eq(outputs.drained > near),
        ]
        paused = Signal()
        m.d.comb += paused.eq(self.finish & late & ~outputs.no_wait)
        with m.If(self.finish):
            m.d.sync += pause.begin(left, one_left)
        with m.Else():
            m.d.sync += pause.turn()
        m.d.sync += [
            waiting.eq(paused | (waiting & ~pause.last)),
            self.last.eq((self.finish & ~paused) | (waiting & pause.last)),
        ]

    def _weights(
        self, m: Module, w: View, steps_end: Signal, turn: Signal, last_input: Signal, diagonal: Signal,
        last_block: Signal, lane_in: Signal,
    ) -> None:  # fmt: skip
        """Addresses: parameter words, then the steps' words again for every pixel block.

        A diagonal word holds L taps, each of which stays for all input words.
        """
        lanes, data = self.arch.lanes, Signal(18, reset_less=True)
        after = Signal(18)
        full = Signal()
        m.d.comb += [after.eq(self.address + 1), full.eq(self.tap == lanes - 1)]
        with m.If(self.start):
            m.d.sync += self.address.eq(w.w_base)
        with m.Elif(self.parameter):
            m.d.sync += [self.address.eq(after), data.eq(after)]
        with m.Elif(steps_end):
            m.d.sync += self.address.eq(Mux(last_block, after, data))
        with m.Elif(turn & (~diagonal | (last_input & full))):
            m.d.sync += self.address.eq(after)
        with m.If(self.parameter | steps_end):
            m.d.sync += [self.tap.eq(0), self.place.eq(-lane_in)]
        with m.Elif(turn & last_input):
            m.d.sync += [self.tap.eq(Mux(full, 0, self.tap + 1)), self.place.eq(-lane_in)]
        with m.Elif(turn):
            m.d.sync += self.place.eq(self.place + lanes)

    def _shares(self, m: Module, w: View, again: Signal) -> None:
        """Pixels of each way: as many neighbours as go into one."""
        pixels = self.arch.conv.pixels
        at = Signal(5, reset_less=True)
        with m.If(again):
            m.d.sync += at.eq(0)
        with m.Else():
            m.d.sync += at.eq(at + 1)
        mine = [Signal(range(pixels), name=f"way_of_pixel{p}", reset_less=True) for p in range(pixels)]
        with m.If(self.start), m.Switch(w.ways):
            for ways in range(1, min(pixels, 32)):
                with m.Case(ways):
                    m.d.sync += [s.eq(p // -(-pixels // ways)) for p, s in enumerate(mine)]
            with m.Default():
                m.d.sync += [s.eq(p) for p, s in enumerate(mine)]
        m.d.comb += self.share.eq(Cat(s == at for s in mine))
