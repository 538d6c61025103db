"""Which chunk is taken out of which burst in which cycle, and which group is complete with it.

`gap` is the bytes that the stream holds beyond the end of the next group (below zero: that are missing). In each cycle
either a chunk is taken, if the group is not complete, or not; then the group is *emitted*, if it is complete now. Both
depend on sizes only, never on data, so all that moves bytes follows in pipelines.
"""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from .delay import delay
from .hierarchy import place
from .load_groups import ADVANCE, group_layout
from .short_queue import ShortQueue
from .stream_shape import StreamShape

__all__ = ["STEP", "ChunkTaker", "step_layout"]

STEP = 2
"""Chunk taken to the description of what it does to the stream: numbers, window."""


def step_layout(arch: Arch) -> data.StructLayout:
    """One cycle of the stream.

    write: a chunk goes to ring place `at`. read: bytes `low` to `high` of a group are read, and its others cleared if
    `fresh`. emit: the group is complete.
    """
    shape = StreamShape(arch)
    size, ring = range(shape.group + 1), unsigned((shape.ring - 1).bit_length())
    return data.StructLayout(
        {
            "write": 1,
            "at": ring,
            "read": 1,
            "low": size,
            "high": size,
            "fresh": 1,
            "emit": 1,
            "group": group_layout(arch),
        }
    )


class ChunkTaker(Component):
    """Takes chunks out of bursts, in the order in which the bursts were asked for.

    Members
    -------
    issued, bytes, last : In
        A burst was asked for, from port number bursts % ports; it is its instruction's last.
    arrived : In(ports)
        A burst of the port is complete.
    group_valid, group, pop : the next group, from `GroupWalker`
    take, port, port_last : Out
        A chunk is taken from `port`, the last of its burst.
    retired : Out(1)
        A burst is consumed: one cycle after its last cycle.
    done : Out(1)
        The same for an instruction's last burst.
    step : Out(step_layout)
        `STEP` cycles after `take`.

    Timing: a burst's first chunk is taken two cycles after `arrived`, or after the burst before.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        ports = arch.dma.ports
        super().__init__(
            {
                "issued": In(1),
                "bytes": In(range(arch.burst_bytes + 1)),
                "last": In(1),
                "arrived": In(ports),
                "group_valid": In(1),
                "group": In(group_layout(arch)),
                "pop": Out(1),
                "take": Out(1),
                "port": Out(range(max(2, ports))),
                "port_last": Out(1),
                "retired": Out(1),
                "done": Out(1),
                "step": Out(step_layout(arch)),
            }
        )

    @property
    def module_name(self) -> str:
        return "chunk_taker"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, shape = self.arch, StreamShape(self.arch)
        ports, chunk = arch.dma.ports, shape.chunk
        # -- the next burst ------------------------------------------------------------------------------------------
        kept = data.StructLayout({"bytes": range(arch.burst_bytes + 1), "last": 1})
        bursts = place(m, "bursts", ShortQueue(arch.dma.outstanding * ports + 1, kept.size))
        entry, oldest = (Signal(kept, name=n) for n in ("entry", "oldest"))
        following = Signal(kept, reset_less=True)
        waiting, move = Signal(), Signal()
        m.d.comb += [
            *(
                entry.bytes.eq(self.bytes),
                entry.last.eq(self.last),
                bursts.entry.eq(entry),
                oldest.eq(bursts.head),
            ),
            *(bursts.push.eq(self.issued), bursts.pop.eq(bursts.valid & (move | ~waiting))),
        ]
        with m.If(move | ~waiting):
            m.d.sync += [following.eq(oldest), waiting.eq(bursts.valid)]
        from_port = Signal(range(max(2, ports)))
        complete = [Signal(range(arch.dma.outstanding + 1), name=f"complete{p}") for p in range(ports)]
        for p, count in enumerate(complete):
            m.d.sync += count.eq(count + self.arrived[p] - (move & (from_port == p)))
        ready = Array(count != 0 for count in complete)[from_port]

        # -- the chunk -----------------------------------------------------------------------------------------------
        valid, last, final = Signal(), Signal(reset_less=True), Signal(reset_less=True)
        left, size = Signal.like(self.bytes, reset_less=True), Signal(range(chunk + 1), reset_less=True)
        m.d.comb += move.eq(waiting & ready & (~valid | (self.take & last)))
        with m.If(move):
            m.d.sync += [
                *(
                    valid.eq(1),
                    left.eq(following.bytes),
                    last.eq(following.bytes <= chunk),
                    final.eq(following.last),
                ),
                *(size.eq(Mux(following.bytes <= chunk, following.bytes, chunk)), self.port.eq(from_port)),
                from_port.eq(Mux(from_port == ports - 1, 0, from_port + 1)),
            ]
        with m.Elif(self.take):
            m.d.sync += [
                *(valid.eq(~last), left.eq(left - chunk), last.eq(left <= 2 * chunk)),
                size.eq(Mux(left <= 2 * chunk, left - chunk, chunk)),
            ]

        # -- the group -----------------------------------------------------------------------------------------------
        head = Signal(group_layout(arch), reset_less=True)
        known = (
            Signal()
        )  # `head` is a group, and `gap` counts from its end; else from the end of the group before
        gap = Signal(signed(ADVANCE.width + 1))
        rest = Signal(1)  # all groups of the chunk's instruction are emitted, and chunks are left
        at_end = Signal()  # the instruction's last chunk was taken
        held, held_final = Signal(), Signal()  # a burst's last chunk was taken, and groups are left to emit
        now = Signal.like(gap)
        emit, load, more = Signal(), Signal(), Signal()
        after = Signal.like(gap)
        m.d.comb += [
            self.take.eq(valid & Mux(known, gap < 0, rest)),
            now.eq(gap + Mux(self.take, size, 0)),
            emit.eq(known & (now >= 0)),
            load.eq(self.group_valid & (emit | ~known)),
            after.eq(Mux(load, gap + Mux(self.take, size, 0) - self.group.advance, now)),
            more.eq((load | (known & ~emit)) & (after >= 0)),
            *(self.pop.eq(load), self.port_last.eq(last)),
        ]
        m.d.sync += [gap.eq(after), known.eq(load | (known & ~emit))]
        with m.If(load):
            m.d.sync += head.eq(self.group)
        ended = Mux(self.take, last & final, at_end)
        m.d.sync += at_end.eq(ended)
        with m.If(emit & head.final):
            m.d.sync += rest.eq(~ended)
        with m.Elif(self.take & last & final):
            m.d.sync += rest.eq(0)
        burst = (self.take & last) | held
        burst_final = Mux(self.take, final, held_final)
        m.d.sync += [
            *(held.eq(burst & more), held_final.eq(burst_final)),
            *(self.retired.eq(burst & ~more), self.done.eq(burst & ~more & burst_final)),
        ]

        # -- what it does to the stream: numbers, then the window ------------------------------------------------------
        took, emits, reads = Signal(), Signal(), Signal()
        taken = Signal.like(size, reset_less=True)
        beyond = Signal.like(gap, reset_less=True)
        group = Signal(group_layout(arch), reset_less=True)
        m.d.sync += [
            *(took.eq(self.take), taken.eq(size), emits.eq(emit), beyond.eq(now), group.eq(head)),
            reads.eq(emit | (known & self.take & head.fill)),
        ]
        at = Signal(shape.ring.bit_length() - 1)
        filled = Signal(range(shape.group + 1))
        reach = Signal(signed(len(beyond) + 1))
        high = Signal.like(filled)
        m.d.comb += [
            reach.eq(group.size + beyond),
            high.eq(Mux(emits, group.size, Mux(reach < 0, 0, reach[: len(high)]))),
        ]
        with m.If(took):
            m.d.sync += at.eq(at + taken)
        with m.If(reads & group.fill):
            m.d.sync += filled.eq(Mux(emits, 0, high))
        step = Signal(step_layout(arch), reset_less=True)
        m.d.sync += [
            *(step.at.eq(at), step.group.eq(group), step.fresh.eq(~group.fill | (filled == 0))),
            *(
                step.low.eq(Mux(group.fill, filled, group.low)),
                step.high.eq(Mux(group.fill, high, group.high)),
            ),
        ]
        m.d.comb += [
            self.step.eq(step),
            self.step.write.eq(delay(m, took, 1, "write", reset=True)),
            self.step.read.eq(delay(m, reads, 1, "read", reset=True)),
            self.step.emit.eq(delay(m, emits, 1, "emitted", reset=True)),
        ]
        return m
