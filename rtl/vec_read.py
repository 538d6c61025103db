"""What VEC reads and where it writes: from issue slots to the words of pixels."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.latency import ADDRESS, MAP_READ
from .hierarchy import place
from .pixel_walk import times
from .ports import map_read
from .stages import Stages
from .vec_address import BankRequest, RingWords, bank_bits
from .vec_fields import VEC_FIELDS
from .vec_select import WordSelect
from .vec_sequence import POSITION_BITS, WORD_NUMBER_BITS, slot_layout, vec_width

__all__ = ["VecRead"]

_BANKS = ADDRESS + MAP_READ


class VecRead(Component):
    """Addresses of both sources and of the target, requests, and words. Stages count from `issue`.

    Members
    -------
    fields, issue : in
        Stage 0.
    source_a, source_b : `map_read`, out
        Requests in stage `ADDRESS`.
    inside : out, stage 2
        Pixels that read a: active ones within the map.
    target_word : out, stage 3
        Of pixel 0.
    a0, a1, ... b0, b1, ... : out, stage `ADDRESS` + `MAP_READ` + 2
        Words. Those of b stay until others are read.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch, self.width = arch, vec_width(arch)
        word = 8 * arch.lanes
        super().__init__(
            {
                "fields": In(VEC_FIELDS),
                "issue": In(slot_layout(arch)),
                "source_a": Out(map_read(arch)),
                "source_b": Out(map_read(arch)),
                "inside": Out(self.width),
                "target_word": Out(WORD_NUMBER_BITS),
                **{f"a{p}": Out(word) for p in range(self.width)},
                **{f"b{p}": Out(word) for p in range(arch.vec.pixels)},
            }
        )

    @property
    def module_name(self) -> str:
        return "vec_read"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        f, issue, width = self.fields, self.issue, self.width
        stages = Stages(m)
        stages.put("a_group", f.a_group, 0)
        stages.put("b_group", f.b_group, 0)
        stages.put("read_b", issue.valid & issue.read_b, 0, reset=True)

        # Columns of the pixels, and whether they lie within the map: padding is not read.
        pool = f.is_maximum | f.is_average
        columns = [Signal(signed(POSITION_BITS), name=f"column{p}", reset_less=True) for p in range(width)]
        row_inside, inside = Signal(reset_less=True), Signal(width)
        reading = Signal(width)
        m.d.sync += row_inside.eq(~pool | ((issue.y >= 0) & (issue.y < f.in_h)))
        m.d.sync += reading.eq(Mux(issue.valid & issue.read_a, issue.active, 0))
        for p, x in enumerate(columns):
            apart = Signal(range(32 * 256), name=f"apart{p}", reset_less=True)
            m.d.sync += [apart.eq(times(Mux(f.is_column, f.dx, f.sx), p)), x.eq(issue.x + apart)]
            m.d.sync += inside[p].eq(reading[p] & row_inside & (~pool | ((x >= 0) & (x < f.in_w))))
        m.d.comb += self.inside.eq(inside)

        a = place(m, "a_words", RingWords(width))
        b = place(m, "b_words", RingWords(self.arch.vec.pixels))
        d = place(m, "d_words", RingWords(1))
        for words, prefix in ((a, "a"), (b, "b"), (d, "d")):
            m.d.comb += [getattr(words, n).eq(getattr(f, f"{prefix}_{n}")) for n in ("row0", "rows", "pitch")]
            m.d.comb += words.at.eq(getattr(issue, f"{prefix}_at"))
        m.d.comb += [
            *(a.row.eq(issue.y), a.above.eq(f.origin), d.row.eq(issue.row), self.target_word.eq(d.word0)),
            b.row.eq(Mux(f.broadcast, 0, issue.row)),
            *(getattr(a, f"column{p}").eq(x) for p, x in enumerate(columns)),
        ]
        d_column = Signal(14, reset_less=True)
        m.d.sync += d_column.eq(issue.column)
        m.d.comb += d.column0.eq(d_column)
        wanted_b = Signal(self.arch.vec.pixels)
        active = Signal(self.arch.vec.pixels, reset_less=True)
        stages.put("active", issue.active, 0)
        m.d.comb += active.eq(stages.at("active", 2))
        m.d.sync += wanted_b.eq(Mux(stages.at("read_b", 2), active, 0))
        for p in range(self.arch.vec.pixels):
            x = Signal(WORD_NUMBER_BITS, name=f"b_column{p}", reset_less=True)
            m.d.sync += x.eq(Mux(f.broadcast, 0, issue.column + p))
            m.d.comb += getattr(b, f"column{p}").eq(x)
        wanted_a = Signal(width)
        m.d.sync += wanted_a.eq(inside)

        self._words(m, "a", a, wanted_a, stages, Const(1))
        self._words(m, "b", b, wanted_b, stages, stages.at("read_b", _BANKS + 1))
        return m

    def _words(
        self, m: Module, name: str, ring: RingWords, wanted: Signal, stages: Stages, take: Value
    ) -> None:
        """Request the words of one source, and pick them out of what the banks give."""
        low, source = bank_bits(self.arch), getattr(self, f"source_{name}")
        request = place(m, f"{name}_request", BankRequest(self.arch, ring.pixels))
        select = place(m, f"{name}_select", WordSelect(self.arch, ring.pixels))
        m.d.comb += [
            *(request.wanted.eq(wanted), source.enable.eq(request.enable), select.take.eq(take)),
            source.group.eq(stages.at(f"{name}_group", ADDRESS)),
        ]
        for k in range(self.arch.banks):
            m.d.comb += getattr(source, f"row{k}").eq(getattr(request, f"row{k}"))
            m.d.comb += getattr(select, f"data{k}").eq(getattr(source, f"data{k}"))
        for p in range(ring.pixels):
            word = getattr(ring, f"word{p}")
            stages.put(f"{name}_bank{p}", word[:low], 3)
            m.d.comb += getattr(request, f"word{p}").eq(word)
            m.d.comb += getattr(select, f"bank{p}").eq(stages.at(f"{name}_bank{p}", _BANKS))
            m.d.comb += getattr(self, f"{name}{p}").eq(getattr(select, f"word{p}"))
