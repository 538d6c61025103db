"""The VEC engine: elementwise work, pooling, tables and resizing, `vec.pixels` map words a cycle.

All functions share one pipeline, whose stages are counted from the issue slot:

=====  ==========================================================================================
0      slot (`VecSequence`; a resize fetches its indices first, `VecResize`)
4      request at the map memory (`RingWords`, `BankRequest`); constants asked for
8      words of the banks
10     words of the pixels (`WordSelect`)
15     sums of the lanes (`VecLane`)
23     int8 (`Requantise`)
25     looked up (`Lookup`)
28     request to write (`RunWrite`)
=====  ==========================================================================================

Nothing stalls. What a stage needs of the instruction travels along from stage 0 (`Stages`), so that the next instruction may
follow at once.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..ir.arch import Arch
from ..ir.latency import ADDRESS, MAP_READ, MEMORY_READ, REQUANTISE, VEC_RESIZE, VEC_TAIL
from .delay import delay
from .hierarchy import place
from .lookup import Lookup
from .ports import engine_port, fill_port, map_read, map_write
from .requantise import SHARED as REQUANTISE_SHARED
from .requantise import Requantise
from .row import Row
from .running_sums import RunningSums
from .stages import Stages
from .vec_constants import VecConstants
from .vec_lanes import ACROSS_BITS, SUM_BITS, Across, VecLane
from .vec_lanes import SHARED as LANE_SHARED
from .vec_read import VecRead
from .vec_resize import VecResize
from .vec_sequence import VecSequence, vec_width
from .vec_write import RunWrite

__all__ = ["VecEngine"]

_WORDS = ADDRESS + MAP_READ + 2
_SUMS = _WORDS + 5
_BYTES = _SUMS + REQUANTISE
_LOOKED_UP = _BYTES + 2
_WRITE = _LOOKED_UP + 3
_CONSTANTS = ADDRESS + MEMORY_READ
"""Stages at which things are there."""


class VecEngine(Component):
    """Engine VEC.

    Members
    -------
    control : `engine_port`, in
    source_a, source_b : `map_read`, out
        Two ports, so that the maps of ADD and MUL can lie in two groups.
    target : `map_write`, out
    table_fill, vector_fill : `fill_port`, in
        A byte of a table; a word of the vector memory, which is in here.

    Timing
    ------
    First slot `VEC_START` after `start` (a resize `VEC_RESIZE` later), one slot a cycle, `done` `VEC_TAIL` after the
    last busy cycle's end: the cycle in which the last word is on `target`.
    """

    def __init__(self, arch: Arch) -> None:
        assert VEC_TAIL == _WRITE - 1
        self.arch = arch
        super().__init__(
            {
                "control": In(engine_port()),
                "source_a": Out(map_read(arch)),
                "source_b": Out(map_read(arch)),
                "target": Out(map_write(arch)),
                "table_fill": In(fill_port((arch.weights.tables * 256 - 1).bit_length(), 8)),
                "vector_fill": In(fill_port(max(1, (arch.vector_words - 1).bit_length()), 32)),
            }
        )

    @property
    def module_name(self) -> str:
        return "vec_engine"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, pixels, width, lanes = self.arch, self.arch.vec.pixels, vec_width(self.arch), self.arch.lanes
        sequence = place(m, "sequence", VecSequence(arch))
        resize = place(m, "resize", VecResize(arch))
        read = place(m, "read", VecRead(arch))
        constants = place(m, "constants", VecConstants(arch))
        f, issue = sequence.fields, resize.issue
        m.d.comb += [
            *(sequence.start.eq(self.control.start), sequence.word.eq(self.control.word)),
            *(resize.fields.eq(f), resize.slot.eq(sequence.slot)),
            *(read.fields.eq(f), read.issue.eq(issue)),
            *(constants.fields.eq(f), constants.issue.eq(issue)),
            constants.inside.eq(read.inside),
        ]
        for name in ("source_a", "source_b"):
            connect(m, getattr(read, name), flipped(getattr(self, name)))
        connect(m, resize.rows, constants.rows)
        connect(m, resize.columns, constants.columns)
        connect(m, constants.fill, flipped(self.vector_fill))
        self._ends(m, sequence)

        # The slot and its instruction, for all stages.
        stages = Stages(m)
        put, at = stages.put, stages.at
        raw, reads = f.is_add | f.is_maximum | f.is_table, issue.valid & issue.read_a
        outputs = Mux(f.is_column, 1, issue.active)
        put("write", Mux(reads & issue.ends & f.last, outputs, 0), 0, reset=True)
        put("store", reads & issue.ends & ~f.last, 0, reset=True)
        put("slope_head", issue.valid & issue.head & f.is_prelu, 0, reset=True)
        slot = {n: getattr(issue, n) for n in ("active", "begins", "block", "lane")}
        fields = "za zb zd lo hi mode mb first table counted d_group is_add is_multiply is_maximum is_prelu is_resize"
        for name, value in {
            **slot,
            **{n: getattr(f, n) for n in fields.split()},
            "reads": reads,
            "column": f.is_column,
            "raw": raw,
            "of_taps": f.is_maximum | f.is_average | f.is_table,
            "factor": Mux(f.is_add, f.ma, 1),
            "scale": Mux(raw, f.shift, f.scale),
        }.items():
            put(name, value, 0)
        put("inside", read.inside, 2)
        put("target_word", read.target_word, 3)
        for p in range(pixels):
            put(f"constant{p}", getattr(constants, f"constant{p}"), _CONSTANTS)
        weight = [Signal(23, name=f"weight{k}", reset_less=True) for k in range(2)]
        m.d.sync += [weight[0].eq(resize.weight_row * resize.weight_column), weight[1].eq(weight[0])]
        put("weight", weight[1], 2)

        results = self._values(m, stages, read)

        lookup = place(m, "lookup", Lookup(arch.vec.table_pixels * lanes, arch.weights.tables))
        connect(m, lookup.fill, flipped(self.table_fill))
        write = place(m, "write", RunWrite(arch, width))
        connect(m, write.target, flipped(self.target))
        m.d.comb += [
            lookup.select.eq(at("table", _BYTES)),
            *(write.mask.eq(at("write", _LOOKED_UP)), write.word.eq(at("target_word", _LOOKED_UP))),
            write.group.eq(at("d_group", _LOOKED_UP + 2)),
        ]
        for p, values in enumerate(results):
            if p < arch.vec.table_pixels:
                slots = range(p * lanes, (p + 1) * lanes)
                m.d.comb += [getattr(lookup, f"value{k}").eq(v) for k, v in zip(slots, values, strict=True)]
                word = Cat(getattr(lookup, f"result{k}") for k in slots)
            else:
                put(f"bytes{p}", Cat(values), _BYTES)
                word = at(f"bytes{p}", _LOOKED_UP)
            m.d.comb += getattr(write, f"pixel{p}").eq(word)
        return m

    def _ends(self, m: Module, sequence: VecSequence) -> None:
        """`last` with the last slot; `done` with the last word."""
        f, slot = sequence.fields, sequence.slot
        last, final = Signal(), Signal()
        m.d.comb += final.eq(slot.valid & slot.final & f.is_resize)
        waited = delay(m, final, VEC_RESIZE - 1, "final", reset=True)
        m.d.sync += last.eq((sequence.finishing & ~f.is_resize) | waited)
        m.d.comb += self.control.last.eq(last)
        m.d.comb += self.control.done.eq(delay(m, last, VEC_TAIL + 1, "done", reset=True))

    def _values(self, m: Module, stages: Stages, read: VecRead) -> list[list[Value]]:
        """Bytes of each pixel and lane, stage `_BYTES`."""
        arch, at = self.arch, stages.at
        pixels, lanes = arch.vec.pixels, arch.lanes
        rows = [place(m, f"lanes{p}", Row(VecLane, lanes, LANE_SHARED)) for p in range(pixels)]
        first = _WORDS + 1
        factor = Signal(signed(25), reset_less=True)
        fill = Mux(at("is_maximum", _WORDS), -128, 0)
        m.d.sync += factor.eq(Mux(at("is_resize", _WORDS), at("weight", _WORDS), at("factor", _WORDS)))
        slopes, negative = self._slopes(m, stages)
        empty = Signal(signed(32))
        m.d.comb += empty.eq(Mux(at("is_maximum", _SUMS - 1), -128, 0))

        sums = place(m, "running_sums", RunningSums(arch))
        m.d.comb += [
            *(sums.read_block.eq(at("block", _SUMS - 3)), sums.store.eq(at("store", _SUMS))),
            sums.write_block.eq(at("block", _SUMS)),
            sums.write_data.eq(Cat(rows[0].sum.word_select(k, SUM_BITS)[:32] for k in range(lanes))),
        ]
        goes_on = ~at("first", _SUMS - 1)

        out: list[list[Value]] = []
        for p, row in enumerate(rows):
            common = Signal(32, name=f"scale_of{p}", reset_less=True)
            counted = at("counted", _SUMS - 1)
            m.d.sync += common.eq(Mux(counted, at(f"constant{p}", _SUMS - 1), at("scale", _SUMS - 1)))
            a, b = getattr(read, f"a{p}"), getattr(read, f"b{p}")
            take = at("reads", _SUMS - 1) & at("active", _SUMS - 1)[p]
            begins = at("begins", _SUMS - 1)
            if p == 0:  # the only one that keeps sums, or adds across pixels
                take = at("reads", _SUMS - 1) & (at("active", _SUMS - 1)[p] | at("column", _SUMS - 1))
                begins = begins & ~(goes_on & sums.ongoing)
            m.d.comb += [
                *(row.a.eq(a), row.b.eq(b)),
                *(row.za.eq(at("za", _WORDS)), row.zb.eq(at("zb", _WORDS)), row.fill.eq(fill)),
                row.outside.eq(~at("inside", _WORDS)[p]),
                *(row.factor.eq(factor), row.factor_b.eq(at("mb", first))),
                row.by_b.eq(at("is_multiply", first)),
                row.flip.eq(Mux(at("is_prelu", first), Cat(negative), 0)),
                *(row.take.eq(take), row.start.eq(begins)),
                *(row.of_taps.eq(at("of_taps", _SUMS - 1)), row.of_pair.eq(at("is_add", _SUMS - 1))),
                row.maximum.eq(at("is_maximum", _SUMS - 1)),
            ]
            start_from: Value = Cat([empty] * lanes)
            if p == 0:
                start_from = Mux(goes_on, sums.data, start_from)
            m.d.comb += row.start_from.eq(start_from)
            stages.put(f"taps{p}", row.tap, first)
            taps = at(f"taps{p}", _SUMS - 1)
            across: Value = Cat(_widened(taps.word_select(k, 9), ACROSS_BITS) for k in range(lanes))
            if p == 0 and pixels > 1:
                trees = place(
                    m, "across", Row(lambda: Across(pixels), lanes, [f"maximum{j}" for j in range(3)])
                )
                m.d.comb += [getattr(trees, f"tap{q}").eq(rows[q].tap) for q in range(pixels)]
                m.d.comb += [getattr(trees, f"maximum{j}").eq(at("is_maximum", first + j)) for j in range(3)]
                across = Mux(at("column", _SUMS - 1), trees.total, across)
            m.d.comb += row.across.eq(across)

            units = place(
                m,
                f"requantise{p}",
                Row(lambda: Requantise(arch.rounding, SUM_BITS), lanes, REQUANTISE_SHARED),
            )
            slope = Mux(at("is_prelu", _SUMS), row.below_zero, 0)
            m.d.comb += [
                units.value.eq(row.sum),
                units.word.eq(Cat(Mux(slope[k], slopes[k], common) for k in range(lanes))),
                units.raw.eq(at("raw", _SUMS)),
                *(getattr(units, n).eq(at(n, _SUMS)) for n in ("mode", "zd", "lo", "hi")),
            ]
            out.append([units.result.word_select(k, 8).as_signed() for k in range(lanes)])
        for p in range(pixels, vec_width(arch)):  # only tables are that wide
            stages.put(f"copied{p}", getattr(read, f"a{p}"), _WORDS)
            out.append([at(f"copied{p}", _BYTES).word_select(k, 8) for k in range(lanes)])
        return out

    def _slopes(self, m: Module, stages: Stages) -> tuple[list[Signal], list[Signal]]:
        """Slopes of the lanes as stage `_SUMS` needs them, and their signs as stage `_WORDS` + 1 does.

        The slot that asks for a slope lies between the block before and its own block; a register that changes just as that
        slot passes the stage where it is used serves both.
        """
        at, lanes = stages.at, self.arch.lanes
        slopes = [Signal(32, name=f"slope{k}", reset_less=True) for k in range(lanes)]
        negative = [Signal(name=f"negative{k}", reset_less=True) for k in range(lanes)]
        for stage, registers, bits in ((_WORDS, negative, slice(31, 32)), (_SUMS - 1, slopes, slice(32))):
            arrives, lane, slope = at("slope_head", stage), at("lane", stage), at("constant0", stage)
            for k, register in enumerate(registers):
                with m.If(arrives & (lane == k)):
                    m.d.sync += register.eq(slope[bits])
        return slopes, negative


def _widened(value: Value, bits: int) -> Value:
    """A signed value in more bits."""
    return Cat(value, value[-1].replicate(bits - len(value)))
