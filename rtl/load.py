"""The LOAD engine: bursts of DRAM bytes become map words, weights, tables and vector words."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..ir.arch import Arch
from ..ir.isa import Memory, Opcode
from ..ir.latency import LOAD_RECEIVE, LOAD_START, LOAD_TAIL
from .axi import ADDRESS_BITS, CACHE, INCR, PROTECTION, read_channels, size_of
from .bank_write import BankWrite
from .burst_buffer import BUFFER_READ, BUFFER_RECEIVE, BurstBuffer
from .bursts import WALK, BurstWalker
from .chunks import ChunkTaker
from .delay import delay
from .hierarchy import place
from .load_groups import GroupWalker
from .ports import engine_port, fill_port, map_write
from .rotation import ROTATION
from .stream_shape import StreamShape
from .unpack import CHUNK, UNPACK, Unpack
from .words import layout

__all__ = ["LoadEngine"]

_AHEAD = 1
"""A chunk is taken one cycle before its place in the timing rules, so that the bursts it sets free are counted."""
_QUIET = 32
"""Cycles without a beat to come after which nothing of a job that was stopped is under way: above all latencies here."""
_RUNS = ("run_bytes", "runs1", "stride1", "runs2", "stride2")


class LoadEngine(Component):
    """LOAD and FILL.

    The walk over an instruction's bursts ends with `last`; the next may start then, while the bytes of this one still
    come. Bytes are eaten in the order in which they were asked for.

    Members
    -------
    control : In(engine_port())
    axi0, axi1, ... : Out(read_channels)
        Bursts go to them in turn. A beat is never refused.
    base0, base1, base2 : In(64)
        Addresses of the DRAM regions.
    target : Out(map_write)
    weights, depthwise, tables, vector : Out(fill_port)
        Words of `oc` x `ic`, `dwc.taps` x `ic` (not without the engine), 1 and 4 bytes.
    abort : In(1)
        Drop everything, also what may be started while it is high.
    idle : Out(1)
        No instruction, no burst under way, and nothing left of an abort: a job may start, once `abort` is low.
    error, error_address, error_response : Out
        A burst was answered with an error, since the last abort or reset: the first one's address and response.

    Timing: `LOAD_START`, `LOAD_RECEIVE`, `LOAD_TAIL` of `ir.latency`.
    """

    def __init__(self, arch: Arch) -> None:
        assert LOAD_START == WALK
        assert LOAD_RECEIVE == BUFFER_RECEIVE + _AHEAD
        assert LOAD_TAIL + 1 + _AHEAD == UNPACK + ROTATION
        assert CHUNK == BUFFER_READ + 1
        self.arch, self.shape = arch, StreamShape(arch)
        super().__init__(
            {
                "control": In(engine_port()),
                **{f"axi{p}": Out(read_channels(arch.dma.bits)) for p in range(arch.dma.ports)},
                **{f"base{r}": In(ADDRESS_BITS) for r in range(3)},
                "target": Out(map_write(arch)),
                **{
                    name: Out(fill_port(_bits(words), 8 * size))
                    for name, (words, size) in self._memories().items()
                },
                "abort": In(1),
                "idle": Out(1),
                "error": Out(1),
                "error_address": Out(ADDRESS_BITS),
                "error_response": Out(2),
            }
        )

    @property
    def module_name(self) -> str:
        return "load_engine"

    def _memories(self) -> dict[str, tuple[int, int]]:
        """Words, and bytes of a word, of each memory that FILL writes."""
        a = self.arch
        sizes = {
            "weights": (a.weight_words, self.shape.weight_word),
            "depthwise": (a.depthwise_words, self.shape.depthwise_word),
            "tables": (256 * a.weights.tables, 1),
            "vector": (a.vector_words, 4),
        }
        return {name: size for name, size in sizes.items() if a.has_dwc or name != "depthwise"}

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, ports = self.arch, range(self.arch.dma.ports)
        stopping, flush = Signal(), Signal()

        # -- bursts to ask for -----------------------------------------------------------------------------------------
        walker = place(m, "walker", BurstWalker(arch))
        load = data.View(layout(Opcode.LOAD), self.control.word)
        fill = data.View(layout(Opcode.FILL), self.control.word)
        is_fill = load.opcode == Opcode.FILL
        bases = Array([self.base0, self.base1, self.base2])
        m.d.comb += [
            *(walker.start.eq(self.control.start & ~stopping), walker.cancel.eq(stopping)),
            walker.runs.base.eq(bases[Mux(is_fill, fill.region, load.region)]),
            walker.runs.offset.eq(Mux(is_fill, fill.address, load.address)),
            *(getattr(walker.runs, name).eq(getattr(load, name)) for name in _RUNS),
        ]
        with m.If(is_fill):
            m.d.comb += [
                walker.runs.run_bytes.eq(fill.run_bytes),
                walker.runs.runs1.eq(1),
                walker.runs.runs2.eq(1),
            ]
        burst, turn = walker.burst, Signal(len(ports), init=1)
        was_valid, issued = Signal(), Signal()
        m.d.sync += was_valid.eq(burst.valid)
        m.d.comb += [issued.eq(burst.valid & ~was_valid), self.control.last.eq(issued & burst.last)]
        for p in ports:
            ar = getattr(self, f"axi{p}").ar
            m.d.comb += [
                *(ar.valid.eq(burst.valid & turn[p]), ar.addr.eq(burst.address), ar.len.eq(burst.len)),
                *(
                    ar.size.eq(size_of(arch.dma.bits)),
                    ar.burst.eq(INCR),
                    ar.cache.eq(CACHE),
                    ar.prot.eq(PROTECTION),
                ),
                ar.user.eq(burst.bytes - 1),
            ]
            with m.If(turn[p] & ar.ready):
                m.d.comb += burst.ready.eq(1)
        with m.If(burst.valid & burst.ready):
            m.d.sync += turn.eq(turn.rotate_left(1))
        with m.If(flush):
            m.d.sync += turn.eq(1)

        # -- bytes: burst buffers, chunks, groups ------------------------------------------------------------------------
        buffers = [place(m, f"buffer{p}", BurstBuffer(arch), reset=flush) for p in ports]
        groups = place(m, "groups", GroupWalker(arch), reset=stopping)
        taker = place(m, "chunks", ChunkTaker(arch), reset=stopping)
        unpack = place(m, "unpack", Unpack(arch))
        m.d.comb += [
            *(groups.start.eq(self.control.start), groups.word.eq(self.control.word)),
            *(groups.pop.eq(taker.pop), taker.group_valid.eq(groups.valid), taker.group.eq(groups.group)),
            *(taker.issued.eq(issued), taker.bytes.eq(burst.bytes), taker.last.eq(burst.last)),
            *(taker.arrived.eq(Cat(b.arrived for b in buffers)), unpack.step.eq(taker.step)),
        ]
        for p, buffer in enumerate(buffers):
            connect(m, buffer.r, flipped(getattr(self, f"axi{p}").r))
            m.d.comb += [
                *(buffer.expect.eq(issued & turn[p]), buffer.address.eq(burst.address)),
                *(buffer.take.eq(taker.take & (taker.port == p)), buffer.last.eq(taker.port_last)),
            ]
        chunk = Signal(8 * arch.stream_bytes, reset_less=True)
        m.d.sync += chunk.eq(Array(b.row for b in buffers)[delay(m, taker.port, BUFFER_READ, "port")])
        m.d.comb += unpack.chunk.eq(chunk)
        flying = Signal(range(arch.dma.outstanding * len(ports) + 1))
        m.d.sync += flying.eq(flying + issued - taker.retired)
        m.d.comb += walker.permit.eq((flying != arch.dma.outstanding * len(ports)) | taker.retired)

        # -- groups to where they belong -----------------------------------------------------------------------------------
        group = unpack.group
        bank_write = place(m, "bank_write", BankWrite(arch))
        m.d.comb += [
            *(bank_write.valid.eq(unpack.valid & ~group.fill), bank_write.group.eq(group.group)),
            *(bank_write.first.eq(group.target), bank_write.words.eq(group.words)),
            bank_write.data.eq(unpack.bytes[: 8 * self.shape.map_group]),
        ]
        connect(m, bank_write.target, flipped(self.target))
        for name, (_, size) in self._memories().items():
            port = getattr(self, name)
            m.d.comb += [
                port.enable.eq(unpack.valid & group.fill & (group.memory == Memory[name.upper()])),
                *(port.address.eq(group.target), port.data.eq(unpack.bytes[: 8 * size])),
            ]

        # -- done, stopping, errors ------------------------------------------------------------------------------------------
        done = delay(m, taker.done & ~stopping, UNPACK + ROTATION - 1, "done", reset=True)
        running = Signal(range(arch.dma.outstanding * len(ports) + 3))
        waiting = Cat(b.waiting for b in buffers).any() | burst.valid
        quiet = Signal(range(_QUIET))
        m.d.comb += [
            self.control.done.eq(done & ~stopping),
            flush.eq(stopping & (quiet == _QUIET - 1)),
            self.idle.eq((running == 0) & ~waiting & (~stopping | (self.abort & flush))),
        ]
        m.d.sync += running.eq(running + self.control.start - self.control.done)
        with m.If(waiting | ~stopping):
            m.d.sync += quiet.eq(0)
        with m.Elif(~flush):
            m.d.sync += quiet.eq(quiet + 1)
        with m.If(self.abort):
            m.d.sync += stopping.eq(1)
        with m.Elif(flush):
            m.d.sync += stopping.eq(0)
        with m.If(stopping):
            m.d.sync += [running.eq(0), flying.eq(0)]
        self._first_error(m, buffers, stopping)
        return m

    def _first_error(self, m: Module, buffers: list[BurstBuffer], stopping: Value) -> None:
        with m.If(stopping):
            m.d.sync += self.error.eq(0)
        with m.Elif(~self.error):
            for buffer in reversed(buffers):
                with m.If(buffer.error.valid):
                    m.d.sync += [
                        *(self.error.eq(1), self.error_address.eq(buffer.error.address)),
                        self.error_response.eq(buffer.error.response),
                    ]


def _bits(words: int) -> int:
    """Address bits of a memory of so many words."""
    return max(1, (words - 1).bit_length())
