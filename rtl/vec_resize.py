"""Source rows and columns of a resize, out of the vector memory; everything else passes at once."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.latency import MEMORY_READ, VEC_RESIZE
from .ports import memory_read
from .stages import Stages
from .vec_fields import VEC_FIELDS
from .vec_sequence import slot_layout

__all__ = ["WEIGHT", "VecResize"]

WEIGHT = 1 << 11
"""One, in the fractions of a resize (docs/isa.md)."""


class VecResize(Component):
    """Slots of a resize wait `VEC_RESIZE` cycles for their indices; slots of other functions pass without a register.

    Addresses; request (the vector memory is not free earlier: the slopes or scales of the instruction before are read
    there); `MEMORY_READ`; row, column and weights.

    Members
    -------
    fields, slot : in
        Of `VecSequence`.
    rows, columns : `memory_read`, out
        Index words of output rows and columns.
    issue : out
        The slot, with source row and column in `y` and `x`.
    weight_row, weight_column : out
        Of the neighbour that the slot reads, beside `issue`.
    """

    def __init__(self, arch: Arch) -> None:
        assert VEC_RESIZE == 3 + MEMORY_READ
        self.arch = arch
        self.address = max(1, (arch.vector_words - 1).bit_length())
        super().__init__(
            {
                "fields": In(VEC_FIELDS),
                "slot": In(slot_layout(arch)),
                "rows": Out(memory_read(self.address, 32)),
                "columns": Out(memory_read(self.address, 32)),
                "issue": Out(slot_layout(arch)),
                "weight_row": Out(12),
                "weight_column": Out(12),
            }
        )

    @property
    def module_name(self) -> str:
        return "vec_resize"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        f, slot, issue = self.fields, self.slot, self.issue
        stages = Stages(m)
        stages.put("waiting", slot.valid & f.is_resize, 0, reset=True)
        for name in ("final", "begins", "ends", "odd_row", "odd_column", "row", "column", "a_at", "d_at"):
            stages.put(name, getattr(slot, name), 0)
        waited = stages.at("waiting", VEC_RESIZE)
        m.d.comb += [issue.eq(slot), issue.valid.eq(waited | (slot.valid & ~f.is_resize))]
        kept = {
            n: stages.at(n, VEC_RESIZE) for n in ("final", "begins", "ends", "row", "column", "a_at", "d_at")
        }
        with m.If(waited):
            m.d.comb += [issue.active.eq(1), issue.read_a.eq(1), issue.read_b.eq(0), issue.head.eq(0)]
            m.d.comb += [getattr(issue, name).eq(value) for name, value in kept.items()]
        for port, base, at, size, odd, to, weight in (
            (self.rows, f.v_base, "row", f.in_h, "odd_row", issue.y, self.weight_row),
            (self.columns, f.v_cols, "column", f.in_w, "odd_column", issue.x, self.weight_column),
        ):
            first, address = (Signal(self.address, name=f"{at}_address_{k}", reset_less=True) for k in (1, 2))
            end = Signal(14, name=f"{at}_end", reset_less=True)
            m.d.sync += [first.eq(base + slot[at]), address.eq(first), end.eq(size - 1)]
            m.d.comb += [port.address.eq(address), port.enable.eq(stages.at("waiting", 2))]
            index, fraction = port.data[:14], port.data[16:28] & f.bilinear.replicate(12)
            second = stages.at(odd, VEC_RESIZE - 1)
            source = Signal(14, name=f"source_{at}", reset_less=True)
            share = Signal(12, name=f"share_{at}", reset_less=True)
            m.d.sync += [
                source.eq(Mux(index < end, index + second, end)),
                share.eq(Mux(second, fraction, WEIGHT - fraction)),
            ]
            m.d.comb += weight.eq(share)
            with m.If(waited):
                m.d.comb += to.eq(source)
        return m
