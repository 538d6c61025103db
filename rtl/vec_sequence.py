"""The order of issue slots of VEC instructions: decoding and loops.

Every function is the same nest, in which most loops have one turn:

=========  =============================================================================================
block      a block may begin with *head* slots: the slopes of a PRELU, or the one pixel of a broadcast
           whose two maps lie in one group, if only in part
row        output rows
step       output columns, `vec.pixels` a step (`vec.table_pixels` with a table, 1 for a resize)
tap row    window rows; neighbours of a bilinear resize
tap        window columns, one a turn; `vec.pixels` a turn where there is one output column
way        pixels whose words share a bank take turns; ADD and MUL on one group read b, then a
=========  =============================================================================================
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.latency import VEC_START
from .vec_fields import VEC_FIELDS, vec_fields
from .words import WORD_BITS

__all__ = ["POSITION_BITS", "WORD_NUMBER_BITS", "VecSequence", "read_ways", "slot_layout", "vec_width"]

WORD_NUMBER_BITS = 18
"""Of a map word in its group: field ``a_base``."""

POSITION_BITS = 24
"""A signed row or column of a window: 2^14 outputs at stride 31, and 2^14 taps at dilation 255, at most."""


def vec_width(arch: Arch) -> int:
    """Pixels that the engine handles side by side, whatever the function."""
    return max(arch.vec.pixels, arch.vec.table_pixels)


def read_ways(pixels: int, divisor: int, banks: int) -> int:
    """Cycles that the words of `pixels` pixels take, whose stride has the power of two `divisor` in it.

    >>> [read_ways(8, d, 16) for d in (1, 2, 4, 8, 16)]
    [1, 1, 2, 4, 8]
    """
    return max(1, -(-pixels * divisor // banks))


def slot_layout(arch: Arch) -> data.StructLayout:
    """What an issue slot does."""
    position = signed(POSITION_BITS)
    return data.StructLayout(
        {
            "valid": 1,
            "final": 1,  # the last of its instruction
            "head": 1,  # before the rows of a block
            "active": vec_width(arch),  # pixels that read in this slot
            "read_a": 1,
            "read_b": 1,
            "begins": 1,  # the first slot of these pixels' window
            "ends": 1,  # the last
            "odd_row": 1,  # of the two source rows of a resize
            "odd_column": 1,
            "y": position,  # source row and column of pixel 0
            "x": position,
            "row": 14,  # output row and column
            "column": 14,
            "block": 13,
            "a_at": WORD_NUMBER_BITS,  # base and plane of the block
            "b_at": WORD_NUMBER_BITS,
            "d_at": WORD_NUMBER_BITS,
            "lane": range(arch.lanes),  # of a slope
            "slope": 16,  # its vector word
        }
    )


class VecSequence(Component):
    """Decode an instruction, and walk through its issue slots, one a cycle without a gap.

    Members
    -------
    start, word : in
        As in `ports.engine_port`.
    fields : out
        Of the instruction, from start + 1 to the start after it.
    finishing : out
        The slot of the next cycle is the last of its instruction.
    slot : out
        From start + `VEC_START` on.
    """

    def __init__(self, arch: Arch) -> None:
        assert VEC_START == 2  # fields and loops; positions
        self.arch = arch
        super().__init__(
            {
                "start": In(1),
                "word": In(WORD_BITS),
                "fields": Out(VEC_FIELDS),
                "finishing": Out(1),
                "slot": Out(slot_layout(arch)),
            }
        )

    @property
    def module_name(self) -> str:
        return "vec_sequence"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, pixels, table_pixels = self.arch, self.arch.vec.pixels, self.arch.vec.table_pixels
        width, start = vec_width(arch), self.start

        # What the instruction is, from the word itself, so that the loops begin in the next cycle.
        now = vec_fields(m, self.word)
        fields = Signal(VEC_FIELDS, reset_less=True)
        pair, by_table, shared = (Signal(name=f"now_{n}") for n in ("pair", "by_table", "shared"))
        m.d.comb += [
            pair.eq(now.is_add | now.is_multiply),
            by_table.eq(now.is_table & (now.table != 0)),
            shared.eq(
                pair & (now.a_group <= now.b_group + now.b_span) & (now.b_group <= now.a_group + now.a_span)
            ),
        ]
        ways, way_of = _ways(m, arch, now, by_table)
        beside = [
            Mux(by_table, p < table_pixels, (p < pixels) & (~now.is_resize if p else 1)) for p in range(width)
        ]

        def kept(name: str, value: ValueLike) -> Signal:
            register = Signal(Value.cast(value).shape(), name=name, reset_less=True)
            with m.If(start):
                m.d.sync += register.eq(value)
            return register

        table_kept = kept("table_kept", by_table)
        in_turn = kept("in_turn", shared & ~now.broadcast)  # b, then a
        ahead = kept("ahead", shared & now.broadcast)  # b before the rows
        is_pair = kept("is_pair", pair)
        own_way = [kept(f"own_way{p}", w) for p, w in enumerate(way_of)]
        takes_part = [kept(f"takes_part{p}", b) for p, b in enumerate(beside)]
        with m.If(start):
            m.d.sync += fields.eq(now)
        m.d.comb += self.fields.eq(fields)

        # The loops, one cycle ahead of the slot. `ended[loop]`: this slot ends the loop's last turn.
        running, in_head = Signal(), Signal(reset_less=True)
        going = Signal()  # a slot of the loops, not a head slot
        m.d.comb += going.eq(running & ~in_head)
        turns = _Turns(m, start)
        one: _Step = ((), 1)
        step: _Step = (((now.is_resize, fields.is_resize, 1), (by_table, table_kept, table_pixels)), pixels)
        tap: _Step = (((now.is_column, fields.is_column, pixels),), 1)
        loops = {
            "way": (Mux(shared & ~now.broadcast, 2, ways), one),
            "tap": (now.kw, tap),
            "tap_row": (now.kh, one),
            "step": (now.out_w, step),
            "row": (now.out_h, one),
            "block": (now.blocks, one),
        }
        left: dict[str, Signal] = {}
        last: dict[str, Signal] = {}
        ended: dict[str, Signal] = {}
        turn = going
        for name, (total, by) in loops.items():
            left[name], last[name] = turns.loop(name, turn, total, by)
            ended[name] = turn = Signal(name=f"ended_{name}")
            m.d.comb += turn.eq(Cat(running, ~in_head, *last.values()).all())
        lane = Signal(range(arch.lanes), reset_less=True)
        head_ends = in_head & (ahead | (lane == arch.lanes - 1))
        with m.If(start):
            m.d.sync += [running.eq(1), in_head.eq(now.is_prelu | (shared & now.broadcast)), lane.eq(0)]
        with m.Elif(running):
            again = ended["row"] & (fields.is_prelu | ahead)
            m.d.sync += [running.eq(~ended["block"]), in_head.eq((in_head & ~head_ends) | again)]
            m.d.sync += lane.eq(Mux(in_head & ~head_ends, lane + 1, 0))
        way = Signal(own_way[0].shape(), reset_less=True)
        first_way, first_tap, first_step = (
            Signal(name=f"first_{n}", reset_less=True) for n in ("way", "tap", "step")
        )
        with m.If(start | going):
            m.d.sync += [
                way.eq(Mux(start | last["way"], 0, way + 1)),
                first_way.eq(start | last["way"]),
                first_tap.eq(start | ended["tap_row"] | (first_tap & ~ended["way"])),
                first_step.eq(start | ended["row"]),
            ]

        # The slot.
        slot, valid = Signal(slot_layout(arch), reset_less=True), Signal()
        limit = Mux(fields.is_column, left["tap"], left["step"])
        b_now = Mux(in_turn, ~last["way"], first_step | ~fields.broadcast) & going
        m.d.sync += [
            valid.eq(running),
            slot.final.eq(ended["block"]),
            slot.head.eq(in_head),
            slot.lane.eq(lane),
            slot.read_a.eq(going & (last["way"] | ~in_turn)),
            slot.read_b.eq(is_pair & Mux(ahead, running & in_head, b_now)),
            slot.begins.eq(first_tap & (first_way | ~fields.is_column)),
            slot.ends.eq(last["tap"] & last["tap_row"] & (last["way"] | ~(fields.is_column | in_turn))),
        ]
        for p in range(width):
            here = (own_way[p] == way) | in_turn
            m.d.sync += slot.active[p].eq(takes_part[p] & here & (limit > p))
        m.d.comb += [self.finishing.eq(ended["block"]), self.slot.eq(slot), self.slot.valid.eq(valid)]
        self._positions(m, slot, valid, ended, _chosen(step, kept=True))
        return m

    def _positions(
        self, m: Module, slot: data.View, valid: Signal, ended: dict[str, Signal], step: Value
    ) -> None:
        """Rows, columns and offsets of the slot: registers that follow the loops, one cycle later."""
        f = self.fields
        begin = Signal()  # of an instruction: the loops are in its first slot
        over = {name: Signal(name=f"over_{name}", reset_less=True) for name in ended}
        m.d.sync += [begin.eq(self.start), *(over[name].eq(e) for name, e in ended.items())]
        along, across = Signal(range(32 * 256), reset_less=True), Signal(range(32 * 32), reset_less=True)
        m.d.sync += along.eq(Mux(f.is_column, f.dx * self.arch.vec.pixels, f.dx))
        m.d.sync += across.eq(
            Mux(f.is_table & (f.table != 0), f.sx * self.arch.vec.table_pixels, f.sx * self.arch.vec.pixels)
        )
        x, y = (Signal(signed(POSITION_BITS), name=f"window_{n}", reset_less=True) for n in "xy")
        moved_x, moved_y = (Signal(signed(POSITION_BITS), name=f"moved_{n}") for n in "xy")
        m.d.comb += [moved_x.eq(x + across), moved_y.eq(y + f.sy)]

        with m.If(begin | over["step"]):
            m.d.sync += [x.eq(-f.pad_left), slot.x.eq(-f.pad_left), slot.column.eq(0)]
        with m.Elif(over["tap_row"]):
            m.d.sync += [x.eq(moved_x), slot.x.eq(moved_x), slot.column.eq(slot.column + step)]
        with m.Elif(over["tap"]):
            m.d.sync += slot.x.eq(x)
        with m.Elif(over["way"]):
            m.d.sync += slot.x.eq(slot.x + along)

        with m.If(begin | over["row"]):
            m.d.sync += [y.eq(-f.pad_top), slot.y.eq(-f.pad_top), slot.row.eq(0)]
        with m.Elif(over["step"]):
            m.d.sync += [y.eq(moved_y), slot.y.eq(moved_y), slot.row.eq(slot.row + 1)]
        with m.Elif(over["tap_row"]):
            m.d.sync += slot.y.eq(y)
        with m.Elif(over["tap"]):
            m.d.sync += slot.y.eq(slot.y + f.dy)

        with m.If(begin | over["way"]):
            m.d.sync += slot.odd_column.eq(~(begin | over["tap"]))
        with m.If(begin | over["tap"]):
            m.d.sync += slot.odd_row.eq(~(begin | over["tap_row"]))

        with m.If(begin):
            m.d.sync += [slot.block.eq(0), slot.slope.eq(f.v_base)]
            m.d.sync += [slot.a_at.eq(f.a_base), slot.b_at.eq(f.b_base), slot.d_at.eq(f.d_base)]
        with m.Elif(over["row"]):
            m.d.sync += slot.block.eq(slot.block + 1)
            m.d.sync += [
                slot.a_at.eq(slot.a_at + f.a_plane),
                slot.b_at.eq(slot.b_at + f.b_plane),
                slot.d_at.eq(slot.d_at + f.d_plane),
            ]
        with m.Elif(valid & slot.head):
            m.d.sync += slot.slope.eq(slot.slope + 1)


def _ways(m: Module, arch: Arch, now: data.View, by_table: Value) -> tuple[Value, list[Value]]:
    """Read cycles of a step, and the one that each pixel has, from the powers of two in the stride (combinational)."""
    pixels, table_pixels = arch.vec.pixels, arch.vec.table_pixels
    width, levels = vec_width(arch), arch.banks.bit_length() - 1

    def of(name: str, n: int, stride: Value) -> list[Value]:
        counts = [read_ways(n, 1 << e, arch.banks) for e in range(levels + 1)]
        ways = Signal(range(max(counts) + 1), name=f"ways_{name}")
        way_of = [Signal(range(max(2, *counts)), name=f"way_{name}{p}") for p in range(width)]
        with m.Switch(stride):
            for e, count in enumerate(counts):
                found = "-" * (len(stride) - e - 1) + "1" + "0" * e
                with m.Case(found) if e < min(levels, len(stride)) else m.Default():
                    share = -(-n // count)
                    m.d.comb += [ways.eq(count), *(way_of[p].eq(p // share) for p in range(n))]
                if e == len(stride):
                    break
        return [ways, *way_of]

    steps = of("step", pixels, now.sx)
    if pixels > 1:
        steps = [Mux(now.is_column, c, s) for c, s in zip(of("tap", pixels, now.dx), steps, strict=True)]
    if table_pixels != pixels:
        steps = [Mux(by_table, t, s) for t, s in zip(of("table", table_pixels, now.sx), steps, strict=True)]
    return steps[0], steps[1:]


_Step = tuple[tuple[tuple[Value, Value, int], ...], int]
"""How much a turn takes off: (at the start, while running, size) where a condition holds, else another size."""


def _chosen(step: _Step, *, kept: bool) -> Value:
    choices, other = step
    value: Value = Const(other)
    for now, running, size in reversed(choices):
        value = Mux(running if kept else now, size, value)
    return value


def _at_most(number: Value, most: int) -> Value:
    """Whether `number` is at most `most`, without a carry chain: its high bits are zero, and its few low ones in range."""
    low = most.bit_length()
    return (number[low:] == 0) & (number[:low] <= most)


class _Turns:
    """Loops that are loaded by `start`."""

    def __init__(self, m: Module, start: Value) -> None:
        self.m, self.start = m, start

    def loop(self, name: str, turn: Value, total: Value, step: _Step) -> tuple[Signal, Signal]:
        """A loop from `total` down: what is left, and whether this is its last turn.

        `turn` moves it on, and after its last turn it begins anew. Comparisons are made for each size of step, and chosen among.
        """
        m = self.m
        left, whole = (Signal(total.shape(), name=f"{name}_{n}", reset_less=True) for n in ("left", "whole"))
        last, single = (Signal(name=f"{name}_{n}", reset_less=True) for n in ("last", "single"))
        choices, other = step
        fits, next_fits = _at_most(total, other), _at_most(left, 2 * other)
        for now, running, size in reversed(choices):
            fits = Mux(now, _at_most(total, size), fits)
            next_fits = Mux(running, _at_most(left, 2 * size), next_fits)
        with m.If(self.start):
            m.d.sync += [left.eq(total), whole.eq(total), last.eq(fits), single.eq(fits)]
        with m.Elif(turn):
            with m.If(last):
                m.d.sync += [left.eq(whole), last.eq(single)]
            with m.Else():
                m.d.sync += [left.eq(left - _chosen(step, kept=True)), last.eq(next_fits)]
        return left, last
