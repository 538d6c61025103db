"""The depthwise engine's sequence: which read, step, parameter word and drain is issued in which cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.depthwise import parameter_words, rows_a_step
from ..ir.isa import Opcode
from ..ir.latency import DWC_START
from .dwc_walks import COLUMN, ROW, SLOT_BITS, RowWalk, StepWalk, most_rows
from .hierarchy import place
from .words import WORD_BITS, layout

__all__ = ["DwcSequence"]


class DwcSequence(Component):
    """Loops of a DWC: pass (a share of the lanes), channel block, strip of `pixels` output columns, output row.

    A block begins with its parameter words, a strip with a fill of the window. Then each output row is a slot: its steps are
    issued, and at the same time the rows that the next one needs are read. A slot lasts as long as the longest of steps, reads
    and drain of the row before; its row is drained at its end. Nothing ever stalls.

    Members
    -------
    start, word : in
        As in `engine_port`.
    fields : out
        The instruction: from the cycle after `start`, to the same cycle of the next one.
    last : out
        In the last cycle in which anything is issued.
    parameter, parameter_index : out
        A parameter word is issued; which.
    weight : out
        Address of the depthwise word of a parameter word or step.
    step, step_first, step_row, step_part : out
        A step is issued; `StepWalk`.
    read, read_half, read_slot, row, ring, wrapped : out
        Words of an input row are asked for; `RowWalk`.
    block, column, run : out
        First word of the source's block; input column of the strip's first; words of a row that the strip needs.
    drain, final : out
        The accumulators hold a row of outputs after this cycle's step; it is the instruction's last.
    d_row, d_column, count : out
        Ring row, first word of the ring's row 0 in this strip, columns of it that exist.
    part : out
        Pass.
    """

    start: Signal
    word: Signal
    fields: Signal
    last: Signal
    parameter: Signal
    parameter_index: Signal
    weight: Signal
    step: Signal
    step_first: Signal
    step_row: Signal
    step_part: Signal
    read: Signal
    read_half: Signal
    read_slot: Signal
    row: Signal
    ring: Signal
    wrapped: Signal
    block: Signal
    column: Signal
    run: Signal
    drain: Signal
    final: Signal
    d_row: Signal
    d_column: Signal
    count: Signal
    part: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.passes = -(-arch.lanes // arch.dwc.channels)
        super().__init__(
            {
                **{"start": In(1), "word": In(WORD_BITS), "fields": Out(WORD_BITS), "last": Out(1)},
                **{"parameter": Out(1), "parameter_index": Out(3), "weight": Out(18)},
                **{"step": Out(1), "step_first": Out(1), "step_row": Out(SLOT_BITS), "step_part": Out(4)},
                **{"read": Out(1), "read_half": Out(1), "read_slot": Out(SLOT_BITS)},
                **{"row": Out(ROW), "ring": Out(ROW), "wrapped": Out(ROW)},
                **{"block": Out(18), "column": Out(COLUMN), "run": Out(range(2 * arch.banks + 1))},
                **{"drain": Out(1), "final": Out(1), "d_row": Out(14), "d_column": Out(18)},
                **{"count": Out(range(arch.dwc.pixels + 1)), "part": Out(range(max(2, self.passes)))},
            }
        )

    @property
    def module_name(self) -> str:
        return "dwc_sequence"

    def elaborate(self, platform: object) -> Module:
        assert DWC_START == 2  # the instruction's register, decoded registers
        m = Module()
        arch, dwc = self.arch, self.arch.dwc
        fields = Signal(WORD_BITS, reset_less=True)
        f = View(layout(Opcode.DWC), fields)
        decode = Signal()
        m.d.sync += decode.eq(self.start)
        with m.If(self.start):
            m.d.sync += fields.eq(self.word)

        # Decoded registers: from the second cycle after the start.
        group, parts = Signal(range(most_rows(arch) + 1), reset_less=True), Signal(4, reset_less=True)
        with m.Switch(f.kw):
            for kw in range(1, dwc.rows + 1):
                with m.Case(kw):
                    m.d.sync += [group.eq(rows_a_step(dwc.taps, kw)), parts.eq(-(-kw // dwc.taps))]
        run, halves = Signal(range(4 * arch.banks), reset_less=True), Signal(reset_less=True)
        wide, spread = f.sx == 2, f.dx == 2
        taps = Mux(spread, (f.kw[:4] - 1)[:4] << 1, (f.kw[:4] - 1)[:4])
        m.d.sync += [
            run.eq(taps + Mux(wide, 2 * (dwc.pixels - 1), dwc.pixels - 1) + 1),
            halves.eq(taps > Mux(wide, arch.banks - 1 - 2 * (dwc.pixels - 1), arch.banks - dwc.pixels)),
        ]
        all_new, new_rows = Signal(reset_less=True), Signal(4, reset_less=True)
        jump = (f.dy != 1) | (f.sy >= f.kh)
        m.d.sync += [all_new.eq(jump), new_rows.eq(Mux(jump, f.kh, f.sy))]
        top, top_ring, top_wrapped = (
            Signal(ROW, name=n, reset_less=True) for n in ("top", "top_ring", "top_wrapped")
        )
        m.d.sync += [
            top.eq(-f.pad_top),
            top_ring.eq(f.a_row0 - f.pad_top),
            top_wrapped.eq(f.a_row0 - f.pad_top - f.a_rows),
        ]

        d_last = Signal(14, reset_less=True)
        m.d.sync += d_last.eq(f.d_rows - 1)

        # Where the loops stand.
        part, weight, column, d_row, d_column = (
            Signal.like(getattr(self, n), name=n, reset_less=True)
            for n in ("part", "weight", "column", "d_row", "d_column")
        )
        steps, rows = place(m, "steps", StepWalk(arch)), place(m, "rows", RowWalk())
        # This cycle belongs to parameter words, the fill of a strip, or a row's slot.
        parameter, filling, active = (Signal(name=n) for n in ("parameter", "filling", "active"))
        index = Signal(3, reset_less=True)
        draining, drained = Signal(range(max(2, dwc.pixels)), reset_less=True), Signal(reset_less=True)
        out_row = Signal(14, reset_less=True)  # rows from this one on
        last_row, second_last_row = Signal(reset_less=True), Signal(reset_less=True)
        left, last_strip = Signal(14, reset_less=True), Signal(reset_less=True)  # columns from this strip on
        blocks, last_block = Signal(13, reset_less=True), Signal(reset_less=True)  # blocks from this one on
        last_pass = part == self.passes - 1
        head = parameter_words(dwc.taps)
        drain_steps = -(-dwc.pixels // dwc.drain)

        parameters_end, slot_end, strip_end, block_end, pass_end = (
            Signal(name=n) for n in ("parameters_end", "slot_end", "strip_end", "block_end", "pass_end")
        )
        to_block, to_strip, to_slot = Signal(), Signal(), Signal()
        m.d.comb += [
            parameters_end.eq(parameter & (index == head - 1)),
            slot_end.eq(active & steps.ready & rows.ready & drained),
            strip_end.eq(slot_end & last_row),
            block_end.eq(strip_end & last_strip),
            pass_end.eq(block_end & last_block),
            to_block.eq(decode | (block_end & ~(last_block & last_pass))),
            to_strip.eq(parameters_end | (strip_end & ~last_strip)),
            to_slot.eq((filling & rows.ready) | (slot_end & ~last_row)),
        ]
        m.d.sync += [
            parameter.eq(to_block | (parameter & ~parameters_end)),
            filling.eq(to_strip | (filling & ~rows.ready)),
            active.eq(to_slot | (active & ~slot_end)),
            index.eq(Mux(to_block, 0, index + 1)),
        ]

        # Blocks and passes.
        block, d_block = Signal(18, reset_less=True), Signal(18, reset_less=True)
        d_block_next = Signal(18)
        m.d.comb += d_block_next.eq(d_block)
        with m.If(to_block):
            with m.If(decode | last_block):
                m.d.sync += [block.eq(f.a_base), blocks.eq(f.blocks), last_block.eq(f.blocks == 1)]
                m.d.sync += part.eq(Mux(decode, 0, part + 1))
                m.d.comb += d_block_next.eq(f.d_base)
            with m.Else():
                m.d.sync += [block.eq(block + f.a_plane), blocks.eq(blocks - 1), last_block.eq(blocks == 2)]
                m.d.comb += d_block_next.eq(d_block + f.d_plane)
        m.d.sync += d_block.eq(d_block_next)

        # Strips.
        with m.If(to_block):
            m.d.sync += [left.eq(f.out_w), last_strip.eq(f.out_w <= dwc.pixels)]
            m.d.sync += [column.eq(-f.pad_left), d_column.eq(d_block_next)]
        with m.Elif(strip_end):
            m.d.sync += [left.eq(left - dwc.pixels), last_strip.eq(left <= 2 * dwc.pixels)]
            m.d.sync += column.eq(column + Mux(wide, 2 * dwc.pixels, dwc.pixels))
            m.d.sync += d_column.eq(d_column + dwc.pixels)

        # Output rows.
        base, base_next = (
            Signal(SLOT_BITS, reset_less=True),
            Signal(SLOT_BITS),
        )  # slot of the row's first kernel row
        m.d.comb += base_next.eq(Mux(slot_end, base + new_rows, base))
        more = Mux(slot_end, ~second_last_row, ~last_row)  # where a row begins: others follow
        with m.If(to_strip):
            m.d.sync += [base.eq(rows.slot), out_row.eq(f.out_h), d_row.eq(f.d_row0)]
            m.d.sync += [last_row.eq(f.out_h == 1), second_last_row.eq(f.out_h == 2)]
        with m.Elif(slot_end):
            m.d.sync += [base.eq(base_next), out_row.eq(out_row - 1)]
            m.d.sync += [last_row.eq(second_last_row), second_last_row.eq(out_row == 3)]
            m.d.sync += d_row.eq(Mux(d_row == d_last, 0, d_row + 1))
        # A slot lasts at least as long as a drain.
        drained_next = drained | (draining == 1)
        m.d.sync += drained.eq(Mux(to_slot, drain_steps == 1, drained_next))
        m.d.sync += draining.eq(Mux(to_slot, drain_steps - 1, draining - 1))
        m.d.sync += self.last.eq(
            (last_strip & last_block & last_pass)
            & Mux(
                to_slot,
                ~more & steps.single & (drain_steps == 1),
                active & last_row & ~slot_end & steps.ready_next & drained_next,
            )
        )

        # Depthwise words: every output row begins again at the record's first step.
        first_step = Signal(18, reset_less=True)
        with m.If(decode | (pass_end & to_block)):
            m.d.sync += weight.eq(f.w_base)
        with m.Elif(to_slot):
            m.d.sync += weight.eq(first_step)
        with m.Elif(parameter | steps.valid):
            m.d.sync += weight.eq(weight + 1)
        with m.If(parameters_end):
            m.d.sync += first_step.eq(weight + 1)

        m.d.comb += [
            *(steps.begin.eq(to_slot), steps.slot.eq(base_next)),
            *(steps.kernel_rows.eq(f.kh), steps.group.eq(group), steps.parts.eq(parts)),
            *(rows.begin.eq(to_strip), rows.more.eq(to_slot & more)),
            *(rows.kernel_rows.eq(f.kh), rows.new_rows.eq(new_rows), rows.all_new.eq(all_new)),
            *(rows.halves.eq(halves), rows.sy.eq(f.sy), rows.dy.eq(f.dy)),
            *(rows.top.eq(top), rows.top_ring.eq(top_ring), rows.top_wrapped.eq(top_wrapped)),
            *(self.fields.eq(fields), self.part.eq(part), self.weight.eq(weight)),
            *(self.column.eq(column), self.d_row.eq(d_row), self.d_column.eq(d_column)),
            *(self.parameter.eq(parameter), self.parameter_index.eq(index)),
            *(self.step.eq(steps.valid), self.step_first.eq(steps.first)),
            *(self.step_row.eq(steps.row), self.step_part.eq(steps.part)),
            *(self.read.eq(rows.valid), self.read_half.eq(rows.half), self.read_slot.eq(rows.slot)),
            *(self.row.eq(rows.row), self.ring.eq(rows.ring), self.wrapped.eq(rows.wrapped)),
            *(self.block.eq(block), self.run.eq(run)),
            *(self.drain.eq(slot_end), self.final.eq(self.last)),
            self.count.eq(Mux(left > dwc.pixels, dwc.pixels, left)),
        ]
        return m
