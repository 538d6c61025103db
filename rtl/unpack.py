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
from .delay import delay
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
            ram = m.submodules[f"lane{i}"] = Memory(
                shape=8, depth=len(rows), init=[], attrs={"ram_style": "distributed"}
            )
            write, read = ram.write_port(), ram.read_port(domain="comb")
            s, k = divmod(i, places)
            byte = Signal(8, name=f"byte{i}", reset_less=True)
            m.d.comb += [
                write.en.eq(writes & Mux(wrapped[k], second[s], first[s])),
                write.addr.eq(Mux(crosses, to_next, to_row) if s == 0 else to_row),
                *(write.data.eq(moved[k]), read.addr.eq(Mux(below[i], from_next, from_row))),
            ]
            m.d.sync += byte.eq(read.data)
            out.append(byte)
        place = delay(m, step.group.place[:lane_bits], _READ + 1 - STEP, "place")
        aligned = rotated(m, out, place, "aligned")

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
        parts = range(-(-shape.group // lanes))
        low, high = then.low[:lane_bits], then.high[:lane_bits]
        from_part, to_part = then.low[lane_bits:], then.high[lane_bits:]
        after, before = (Signal(lanes, name=n, reset_less=True) for n in ("after", "before"))
        above, at_low, under, at_high = (
            Signal(len(parts), name=n, reset_less=True) for n in ("above", "at_low", "under", "at_high")
        )
        fresh, reading = Signal(reset_less=True), Signal()
        outside = Signal(
            shape.map_group, reset_less=True
        )  # bytes of map words that hold `za` if not the stream
        m.d.sync += [
            *(after.eq(Cat(i >= low for i in range(lanes))), before.eq(Cat(i < high for i in range(lanes)))),
            *(above.eq(Cat(p > from_part for p in parts)), at_low.eq(Cat(p == from_part for p in parts))),
            *(under.eq(Cat(p < to_part for p in parts)), at_high.eq(Cat(p == to_part for p in parts))),
            *(fresh.eq(then.fresh), reading.eq(reads)),
            outside.eq(Cat(i < then.size for i in range(shape.map_group))),
        ]
        za = delay(m, step.group.za, _GATHER - STEP, "za")
        for i in range(shape.group):
            p, k = divmod(i, lanes)
            byte = Signal(8, name=f"group{i}", reset_less=True)
            inside = (above[p] | (at_low[p] & after[k])) & (under[p] | (at_high[p] & before[k]))
            if i < shape.map_group:
                with m.If(reading & (inside | fresh)):
                    m.d.sync += byte.eq(Mux(inside, aligned[k], Mux(outside[i], za, 0)))
            else:  # in this order a flip-flop's own reset and enable do it
                with m.If(reading & fresh & ~inside):
                    m.d.sync += byte.eq(0)
                with m.Elif(reading & inside):
                    m.d.sync += byte.eq(aligned[k])
            m.d.comb += self.bytes.word_select(i, 8).eq(byte)
        m.d.comb += [
            self.valid.eq(delay(m, step.emit, UNPACK - STEP, "emit", reset=True)),
            self.group.eq(delay(m, step.group, UNPACK - STEP, "group")),
        ]
        return m
