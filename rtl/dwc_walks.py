"""The two walks that go on side by side in the depthwise engine: steps of an output row, and rows read for the next."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.depthwise import rows_a_step

__all__ = ["COLUMN", "ROW", "SLOT_BITS", "RowWalk", "StepWalk", "most_rows"]

SLOT_BITS = 5
"""The window is a ring of 32 row slots: twice the 15 rows of the tallest kernel, so that the rows read for the next output
row never fall on those of this one. Also the depth of a LUT RAM."""
ROW = signed(21)
"""An input row: 16383 output rows of stride 31, and 14 kernel rows of dilation 255, or 1023 rows above the map."""
COLUMN = signed(17)
"""An input column: 16383 + 32 output columns of stride 2, or 1023 left of the map."""


def most_rows(arch: Arch) -> int:
    """Most kernel rows in a step: the window's read ports."""
    return int(rows_a_step(arch.dwc.taps, 1))


class StepWalk(Component):
    """Steps of one output row: kernel rows by `group`, and within a row wider than the taps, its parts.

    Members
    -------
    begin : in
        An output row begins in the next cycle; `slot`, `kernel_rows`, `group`, `parts` are valid: ring slot of its first
        kernel row, kernel rows, kernel rows a step, steps a kernel row.
    valid, first, row, part : out
        A step in this cycle, whether it is the output row's first, ring slot of its first kernel row, part.
    ready : out
        The last step is in this cycle or over.
    ready_next, single : out
        The same for the next cycle, where no row begins; where one does: it has one step. (Apart, to be short.)
    """

    begin: Signal
    slot: Signal
    kernel_rows: Signal
    group: Signal
    parts: Signal
    valid: Signal
    first: Signal
    row: Signal
    part: Signal
    ready: Signal
    ready_next: Signal
    single: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                "begin": In(1),
                "slot": In(SLOT_BITS),
                "kernel_rows": In(4),
                "group": In(range(most_rows(arch) + 1)),
                "parts": In(4),
                "valid": Out(1),
                "first": Out(1),
                "row": Out(SLOT_BITS),
                "part": Out(4),
                "ready": Out(1),
                "ready_next": Out(1),
                "single": Out(1),
            }
        )

    @property
    def module_name(self) -> str:
        return "dwc_step_walk"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(4, reset_less=True)  # kernel rows from this step on
        valid, ready = Signal(), Signal(init=1)
        part, row = Signal(4, reset_less=True), Signal(SLOT_BITS, reset_less=True)
        first, last_part, last_rows, single = (
            Signal(name=n, reset_less=True) for n in ("first", "last_part", "last_rows", "single")
        )
        one_part, second_last_part, last_rows_next = (
            self.parts == 1,
            part + 2 == self.parts,
            left <= (self.group << 1),
        )
        ready_next = Signal()
        m.d.comb += [
            *(self.valid.eq(valid), self.first.eq(first), self.row.eq(row), self.part.eq(part)),
            *(self.ready.eq(ready), self.ready_next.eq(ready_next), self.single.eq(single)),
            ready_next.eq(ready | Mux(last_part, one_part & last_rows_next, second_last_part & last_rows)),
        ]
        m.d.sync += [first.eq(self.begin), single.eq(one_part & (self.kernel_rows <= self.group))]
        m.d.sync += [valid.eq(self.begin | (valid & ~ready)), ready.eq(Mux(self.begin, single, ready_next))]
        with m.If(self.begin):
            m.d.sync += [
                *(row.eq(self.slot), part.eq(0), left.eq(self.kernel_rows)),
                *(last_part.eq(one_part), last_rows.eq(self.kernel_rows <= self.group)),
            ]
        with m.Elif(last_part):
            m.d.sync += [
                *(row.eq(row + self.group), part.eq(0), left.eq(left - self.group)),
                *(last_part.eq(one_part), last_rows.eq(last_rows_next)),
            ]
        with m.Else():
            m.d.sync += [part.eq(part + 1), last_part.eq(second_last_part)]
        return m


class RowWalk(Component):
    """Rows read into the window: a strip's first, then for each further output row those that are new.

    A row is named three ways: as a row of the source (to tell padding), as that row of the ring, and the same less the
    rows of the ring (where the ring has wrapped). All three advance together, so that no sum stands in the address pipeline.

    Members
    -------
    begin, more : in
        In the next cycle a strip begins with all kernel rows; the rows of the next output row begin.
    kernel_rows, new_rows, all_new : in
        Rows of the first batch, of every other; whether those are all kernel rows.
    halves : in
        A row is longer than the banks: two reads.
    top, top_ring, top_wrapped : in
        First row of a strip.
    sy, dy : in
    valid, half, slot, row, ring, wrapped : out
        A read in this cycle; half of the row; window slot; the row.
    next_slot : out
        Slot of the next row.
    ready : out
        The batch's last read is in this cycle or over.
    """

    begin: Signal
    more: Signal
    kernel_rows: Signal
    new_rows: Signal
    all_new: Signal
    halves: Signal
    top: Signal
    top_ring: Signal
    top_wrapped: Signal
    sy: Signal
    dy: Signal
    valid: Signal
    half: Signal
    slot: Signal
    row: Signal
    ring: Signal
    wrapped: Signal
    ready: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                **{"begin": In(1), "more": In(1), "kernel_rows": In(4), "new_rows": In(4), "all_new": In(1)},
                **{"halves": In(1), "top": In(ROW), "top_ring": In(ROW), "top_wrapped": In(ROW)},
                **{"sy": In(5), "dy": In(8)},
                **{"valid": Out(1), "half": Out(1), "slot": Out(SLOT_BITS)},
                **{"row": Out(ROW), "ring": Out(ROW), "wrapped": Out(ROW)},
                "ready": Out(1),
            }
        )

    @property
    def module_name(self) -> str:
        return "dwc_row_walk"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(4, reset_less=True)  # rows of the batch from this one on
        valid, ready = Signal(), Signal(init=1)
        half, slot = Signal(reset_less=True), Signal(SLOT_BITS)
        last_half, last_row = Signal(reset_less=True), Signal(reset_less=True)
        m.d.comb += [
            *(self.valid.eq(valid), self.half.eq(half), self.slot.eq(slot), self.ready.eq(ready)),
        ]
        begin = self.begin | self.more
        m.d.sync += valid.eq(begin | (valid & ~ready))
        with m.If(begin):
            rows = Mux(self.begin, self.kernel_rows, self.new_rows)
            m.d.sync += [half.eq(0), last_half.eq(~self.halves), left.eq(rows)]
            m.d.sync += [last_row.eq(rows == 1), ready.eq((rows == 1) & ~self.halves)]
        with m.Elif(~ready):
            with m.If(last_half):
                m.d.sync += [half.eq(0), last_half.eq(~self.halves), left.eq(left - 1)]
                m.d.sync += [last_row.eq(left == 2), ready.eq((left == 2) & ~self.halves)]
            with m.Else():
                m.d.sync += [half.eq(1), last_half.eq(1), ready.eq(last_row)]

        done = Signal()  # with this row
        m.d.comb += done.eq(valid & last_half)
        with m.If(done):
            m.d.sync += slot.eq(slot + 1)
        jump = Signal()  # to the first row of the next output row; else on to the next row
        m.d.comb += jump.eq(last_row & self.all_new)
        step = Mux(jump, self.sy, self.dy)
        for name, start in (("row", self.top), ("ring", self.top_ring), ("wrapped", self.top_wrapped)):
            now, top = (Signal(ROW, name=f"{n}{name}", reset_less=True) for n in ("", "top_"))
            m.d.comb += getattr(self, name).eq(now)
            with m.If(self.begin):
                m.d.sync += [now.eq(start), top.eq(start)]
            with m.Elif(done):
                onward = Signal(ROW, name=f"next_{name}")
                m.d.comb += onward.eq(Mux(jump, top, now) + step)
                m.d.sync += now.eq(onward)
                with m.If(jump):
                    m.d.sync += top.eq(onward)
        return m
