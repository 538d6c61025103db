"""The vector memory of VEC, and who asks it for what."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.latency import ADDRESS
from .hierarchy import place
from .memory import WideMemory
from .ports import fill_port, memory_read
from .stages import Stages
from .vec_fields import VEC_FIELDS
from .vec_sequence import slot_layout, vec_width

__all__ = ["VecConstants", "copies"]


def copies(arch: Arch) -> int:
    """Copies of the vector memory: a counted average reads a word for each pixel, a resize one for the row and one for
    the column."""
    return max(2, arch.vec.pixels)


class VecConstants(Component):
    """Slopes, scale words of counted averages, and indices of a resize.

    A counted average asks, in stage `ADDRESS`, for the word of as many taps as its window has had so far; the last slot of
    the window has counted them all. An instruction's last request comes before the first one of a resize after it, whose
    addresses are therefore two cycles old (`VecResize`).

    Members
    -------
    fields, issue : in, stage 0
    inside : in, stage 2
        Taps that count, of each pixel.
    rows, columns : `memory_read`, in
        Of `VecResize`, served at once.
    constant0, constant1, ... : out, stage `ADDRESS` + `MEMORY_READ`
        One for each pixel; a slope is `constant0`.
    fill : `fill_port`, in
        Into all copies.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.address = max(1, (arch.vector_words - 1).bit_length())
        super().__init__(
            {
                "fields": In(VEC_FIELDS),
                "issue": In(slot_layout(arch)),
                "inside": In(vec_width(arch)),
                "rows": In(memory_read(self.address, 32)),
                "columns": In(memory_read(self.address, 32)),
                **{f"constant{p}": Out(32) for p in range(arch.vec.pixels)},
                "fill": In(fill_port(self.address, 32)),
            }
        )

    @property
    def module_name(self) -> str:
        return "vec_constants"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        f, issue, pixels = self.fields, self.issue, self.arch.vec.pixels
        stages = Stages(m)
        for name, value in (
            ("begins", issue.begins),
            ("column", f.is_column),
            ("v_base", f.v_base[: self.address]),
            ("slope", issue.slope[: self.address]),
            ("read", issue.valid & issue.read_a),
            ("active", issue.active),
            ("head", issue.valid & issue.head & f.is_prelu),
            ("asks", issue.valid & issue.read_a & issue.ends & f.counted),
        ):
            stages.put(name, value, 0)
        memories = [
            place(m, f"copy{k}", WideMemory(self.arch.vector_words, 32)) for k in range(copies(self.arch))
        ]
        resizing = [self.rows, self.columns]
        for k, memory in enumerate(memories):
            m.d.comb += [
                *(memory.fill.enable.eq(self.fill.enable), memory.fill.address.eq(self.fill.address)),
                memory.fill.data.eq(self.fill.data),
            ]
            address, enable = memory.read.address, memory.read.enable
            if k < pixels:
                seen = Signal(range(pixels + 1), name=f"seen{k}", reset_less=True)
                taps = self.inside[k]
                if k == 0:  # the pixels may be taps of one window
                    taps = Mux(stages.at("column", 2), sum(self.inside[p] for p in range(pixels)), taps)
                m.d.sync += seen.eq(taps)
                at = Signal(self.address, name=f"scale_at{k}", reset_less=True)
                moves = stages.at("read", 3) & (
                    stages.at("active", 3)[k] | (stages.at("column", 3) if k == 0 else 0)
                )
                onto = Mux(stages.at("begins", 3), stages.at("v_base", 3), at)
                with m.If(moves):
                    m.d.sync += at.eq(onto + seen)
                wish = Mux(stages.at("head", ADDRESS), stages.at("slope", ADDRESS), at) if k == 0 else at
                asks = stages.at("asks", ADDRESS) | (stages.at("head", ADDRESS) if k == 0 else 0)
                m.d.comb += [address.eq(wish), enable.eq(asks)]
                m.d.comb += getattr(self, f"constant{k}").eq(memory.read.data)
            if k < 2:
                with m.If(resizing[k].enable):
                    m.d.comb += [address.eq(resizing[k].address), enable.eq(1)]
                m.d.comb += resizing[k].data.eq(memory.read.data)
        return m
