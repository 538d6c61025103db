"""The byte stream of LOAD: chunks become groups of neighbouring bytes, whatever their alignment.

A chunk is rotated so that byte n of the stream meets lane ``n % lanes`` of the ring, each lane a small LUT RAM. Reading
takes a window of as many bytes as there are lanes, at any place; rotated by the place of its group's first byte, it
lies as the group does. A group that is longer than the window (a weight word) is collected from several.

    chunk -> rotate -> ring -> rotate -> group
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from .chunks import STEP, step_layout
from .collect import Collect
from .delay import delay
from .hierarchy import place
from .load_groups import group_layout
from .rotation import ROTATION, rotated
from .stream_shape import StreamShape

__all__ = ["CHUNK", "UNPACK", "Unpack"]

CHUNK = 3
"""Chunk taken to its bytes here: burst buffer 2, port."""
_WRITE = CHUNK + ROTATION
_READ = _WRITE + 1
_GATHER = _READ + 1 + ROTATION
UNPACK = _GATHER + 1
"""Chunk taken to its groups: rotation 2, ring 2, rotation 2, group."""
_PIECE = 16
"""Bytes of a group that share a component: small enough to read."""


class RingLane(Component):
    """One lane of the ring: a byte a row, in LUT RAM, read into a register."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        super().__init__(
            {
                "write": In(1),
                "to_row": In(range(rows)),
                "data": In(8),
                "from_row": In(range(rows)),
                "byte": Out(8),
            }
        )

    @property
    def module_name(self) -> str:
        return f"ring_lane_{self.rows}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = ram = Memory(shape=8, depth=self.rows, init=[], attrs={"ram_style": "distributed"})
        write, read = ram.write_port(), ram.read_port(domain="comb")
        byte = Signal(8, reset_less=True)
        m.d.comb += [
            *(write.en.eq(self.write), write.addr.eq(self.to_row), write.data.eq(self.data)),
            *(read.addr.eq(self.from_row), self.byte.eq(byte)),
        ]
        m.d.sync += byte.eq(read.data)
        return m


class Unpack(Component):
    """Chunks to groups.

    Members
    -------
    chunk : In
        Bytes of a chunk, `CHUNK` cycles after it was taken.
    step : In(step_layout)
        `STEP` cycles after.
    valid, group, bytes : Out
        A group and its bytes, `UNPACK` cycles after.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        shape = StreamShape(arch)
        super().__init__(
            {
                "chunk": In(8 * shape.chunk),
                "step": In(step_layout(arch)),
                "valid": Out(1),
                "group": Out(group_layout(arch)),
                "bytes": Out(8 * shape.group),
            }
        )

    @property
    def module_name(self) -> str:
        return "unpack"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, step = StreamShape(self.arch), self.step
        lanes, lane_bits = shape.lanes, (shape.lanes - 1).bit_length()
        rows = range(shape.ring // lanes)

        # -- into the ring -------------------------------------------------------------------------------------------
        places, narrow = shape.chunk_lanes, (shape.chunk_lanes - 1).bit_length()
        down = Signal(narrow, reset_less=True)
        m.d.sync += down.eq(-step.at)
        items: list[Value] = [self.chunk.word_select(i, 8) for i in range(shape.chunk)]
        items += [Const(0, 8)] * (places - shape.chunk)
        moved = rotated(m, items, delay(m, down, CHUNK - STEP - 1, "down"), "moved")
        at = delay(m, step.at, _WRITE - STEP - 1, "at")
        writes = delay(m, step.write, _WRITE - STEP, "writes", reset=True)
        segments = lanes // places
        segment = at[narrow:lane_bits]
        wrapped = Signal(places, reset_less=True)  # lanes of a segment that belong to the next one
        to_row, to_next = (Signal(rows, name=n, reset_less=True) for n in ("to_row", "to_next"))
        first, second = (Signal(segments, name=n, reset_less=True) for n in ("first", "second"))
        crosses = Signal(reset_less=True)
        m.d.sync += [
            wrapped.eq(Cat(i < at[:narrow] for i in range(places))),
            *(
                to_row.eq(at >> lane_bits),
                to_next.eq((at >> lane_bits) + 1),
                crosses.eq(segment == segments - 1),
            ),
            first.eq(Cat(segment == s for s in range(segments))),
            second.eq(Cat(segment == (s - 1) % segments for s in range(segments))),
        ]

        # -- out of the ring -------------------------------------------------------------------------------------------
        start = Signal(shape.ring.bit_length() - 1, reset_less=True)
        m.d.sync += start.eq(step.group.place + step.low)
        window = delay(m, start, _READ - STEP - 2, "window")
        below = Signal(lanes, reset_less=True)  # lanes whose byte of the window is in the next row
        from_row, from_next = (Signal(rows, name=n, reset_less=True) for n in ("from_row", "from_next"))
        m.d.sync += [
            below.eq(Cat(i < window[:lane_bits] for i in range(lanes))),
            *(from_row.eq(window >> lane_bits), from_next.eq((window >> lane_bits) + 1)),
        ]
        out = []
        for i in range(lanes):
            s, k = divmod(i, places)
            lane = place(m, f"lane{i}", RingLane(len(rows)))
            m.d.comb += [
                lane.write.eq(writes & Mux(wrapped[k], second[s], first[s])),
                lane.to_row.eq(Mux(crosses, to_next, to_row) if s == 0 else to_row),
                *(lane.data.eq(moved[k]), lane.from_row.eq(Mux(below[i], from_next, from_row))),
            ]
            out.append(lane.byte)
        turn = delay(m, step.group.place[:lane_bits], _READ + 1 - STEP, "turn")
        aligned = rotated(m, out, turn, "aligned")

        # -- the group -------------------------------------------------------------------------------------------------
        late = data.StructLayout(
            {"low": step.low.shape(), "high": step.high.shape(), "fresh": 1, "size": step.low.shape()}
        )
        early = Signal(late)
        m.d.comb += [early.low.eq(step.low), early.high.eq(step.high), early.fresh.eq(step.fresh)]
        m.d.comb += early.size.eq(Mux(step.group.fill, 0, step.group.size))
        reads = delay(m, step.read, _GATHER - STEP - 1, "reads", reset=True)
        then = Signal(late)
        m.d.comb += then.eq(delay(m, early, _GATHER - STEP - 1, "then"))
        parts, piece = range(-(-shape.group // lanes)), min(lanes, _PIECE)
        low, high = then.low[:lane_bits], then.high[:lane_bits]
        from_part, to_part = then.low[lane_bits:], then.high[lane_bits:]
        after, before = (Signal(lanes, name=n, reset_less=True) for n in ("after", "before"))
        relation = {
            name: Signal(len(parts), name=name, reset_less=True)
            for name in ("above", "at_low", "under", "at_high")
        }
        fresh, reading = Signal(reset_less=True), Signal()
        outside = Signal(
            shape.map_group, reset_less=True
        )  # bytes of map words that hold `za` if not the stream
        m.d.sync += [
            *(after.eq(Cat(i >= low for i in range(lanes))), before.eq(Cat(i < high for i in range(lanes)))),
            *(
                relation["above"].eq(Cat(p > from_part for p in parts)),
                fresh.eq(then.fresh),
                reading.eq(reads),
            ),
            relation["at_low"].eq(Cat(p == from_part for p in parts)),
            relation["under"].eq(Cat(p < to_part for p in parts)),
            relation["at_high"].eq(Cat(p == to_part for p in parts)),
            outside.eq(Cat(i < then.size for i in range(shape.map_group))),
        ]
        za = delay(m, step.group.za, _GATHER - STEP, "za")
        collected = []
        for first_byte in range(0, shape.group, piece):
            p, k = divmod(first_byte, lanes)
            part = slice(k, k + piece)
            filled = max(0, min(piece, shape.map_group - first_byte))
            collect = place(m, f"collect{first_byte}", Collect(piece, filled))
            m.d.comb += [
                *(collect.read.eq(reading), collect.fresh.eq(fresh)),
                *(
                    collect.after.eq(after[part]),
                    collect.before.eq(before[part]),
                    collect.window.eq(Cat(aligned[part])),
                ),
                *(getattr(collect, name).eq(flags[p]) for name, flags in relation.items()),
            ]
            if filled:
                m.d.comb += [collect.outside.eq(outside[first_byte:]), collect.za.eq(za)]
            collected.append(collect.bytes)
        m.d.comb += self.bytes.eq(Cat(collected))
        m.d.comb += [
            self.valid.eq(delay(m, step.emit, UNPACK - STEP, "emit", reset=True)),
            self.group.eq(delay(m, step.group, UNPACK - STEP, "group")),
        ]
        return m
