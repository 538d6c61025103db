"""The SAVE engine: map words to DRAM."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Signal, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, PureInterface, connect, flipped

from ..ir.arch import Arch
from ..ir.isa import Opcode
from ..ir.latency import SAVE_SEND, SAVE_START, SAVE_TAIL
from .axi import ADDRESS_BITS, write_channels
from .bursts import WALK, BurstWalker
from .gather import SLOT_TO_ROW, Gather
from .gather_plan import Chunks, GatherPlan, Groups
from .hierarchy import place
from .ports import engine_port, map_read
from .words import layout
from .write_buffer import ROW_TO_BEAT, WriteBuffer

__all__ = ["SaveEngine"]

_PLAN = 3
"""A burst to its first slot: chunk, chunk that is filled, slot."""


class SaveEngine(Component):
    """Runs SAVE instructions: gathers words of a map group into bursts, and sends them through the ports in turn.

    Members
    -------
    control : In
        ``last`` is in the cycle in which the last group is read, so that the map's read port is free from the next on;
        ``done`` comes in the order of the instructions, one a cycle at most.
    source : Out
        Map requests.
    axi0, axi1, ... : Out
        Write channels of the ports.
    base0, base1, base2 : In
        Addresses of the DRAM regions.
    abort : In
        While high, no burst begins and what is left of the instruction is forgotten; bursts that have begun are sent.
    idle : Out
        No instruction, no burst in flight, nothing left to say.
    error, error_address, error_response : Out
        High for a cycle where a response is an error: address of its burst, AXI's code.

    Timing
    ------
    First slot in cycle start + `SAVE_START`; a burst's address on the bus in the cycle after its last slot, its first
    beat `SAVE_SEND` later; ``done`` `SAVE_TAIL` cycles after the last response of the instruction was taken.

    Resources of 2 ports of 128 bits, 16 lanes, 16 banks (yosys, UltraScale+): 5,400 LUT, 6,900 FF, 8 RAMB36, 4 DSP.
    """

    control: PureInterface
    source: PureInterface
    abort: Signal
    idle: Signal
    error: Signal
    error_address: Signal
    error_response: Signal

    def __init__(self, arch: Arch) -> None:
        assert SAVE_START == WALK + _PLAN
        assert SAVE_SEND == SLOT_TO_ROW + ROW_TO_BEAT - 1
        assert SAVE_TAIL == 1
        self.arch = arch
        super().__init__(
            {
                "control": In(engine_port()),
                "source": Out(map_read(arch)),
                **{f"axi{p}": Out(write_channels(arch.dma.bits)) for p in range(arch.dma.ports)},
                **{f"base{r}": In(ADDRESS_BITS) for r in range(3)},
                "abort": In(1),
                "idle": Out(1),
                "error": Out(1),
                "error_address": Out(ADDRESS_BITS),
                "error_response": Out(2),
            }
        )

    @property
    def module_name(self) -> str:
        return "save_engine"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, ports = self.arch, range(self.arch.dma.ports)
        word = data.View(layout(Opcode.SAVE), self.control.word)
        start = self.control.start
        flush, room = Signal(), Signal(len(ports), init=(1 << len(ports)) - 1)

        # -- what to do in which cycle ---------------------------------------------------------------------------------
        walker = place(m, "walker", BurstWalker(arch))
        groups = place(m, "groups", Groups(arch), reset=flush)
        chunks = place(m, "chunks", Chunks(arch), reset=flush)
        plan = place(m, "plan", GatherPlan(arch), reset=flush)
        slot = plan.slot
        m.d.comb += [
            *(walker.start.eq(start), walker.permit.eq(1), walker.cancel.eq(flush)),
            walker.runs.base.eq(Array([self.base0, self.base1, self.base2, self.base2])[word.region]),
            walker.runs.offset.eq(word.address),
            *(
                getattr(walker.runs, n).eq(getattr(word, n))
                for n in ("run_bytes", "runs1", "stride1", "runs2", "stride2")
            ),
            *(groups.start.eq(start), groups.word.eq(self.control.word)),
            *(plan.start.eq(start), plan.room.eq(room), plan.hold.eq(self.abort)),
        ]
        connect(m, walker.burst, chunks.burst)
        connect(m, groups.group, plan.group)
        connect(m, chunks.chunk, plan.chunk)

        # -- words to bytes to beats -------------------------------------------------------------------------------------
        gather = place(m, "gather", Gather(arch))
        pitch = Signal.like(gather.pitch, reset_less=True)
        group = Signal.like(gather.group, reset_less=True)
        with m.If(start):
            m.d.sync += [pitch.eq(word.a_pitch), group.eq(word.a_group)]
        m.d.comb += [gather.pitch.eq(pitch), gather.group.eq(group)]
        m.d.comb += [Value.cast(getattr(gather.slot, n)).eq(getattr(slot, n)) for n in slot.signature.members]
        connect(m, gather.source, flipped(self.source))
        buffers = [place(m, f"buffer{p}", WriteBuffer(arch, SLOT_TO_ROW)) for p in ports]
        begun, pushed = (Signal(len(ports), name=n) for n in ("begun", "pushed"))
        for p, buffer in enumerate(buffers):
            mine = slot.issue & (slot.port == p)
            m.d.comb += [
                *(begun[p].eq(mine & slot.begins), pushed[p].eq(mine & slot.ends)),
                *(buffer.store.eq(gather.store[p]), buffer.row.eq(gather.row)),
                *(buffer.push.eq(pushed[p]), buffer.address.eq(slot.address), buffer.most.eq(slot.most)),
            ]
            connect(m, buffer.axi, flipped(getattr(self, f"axi{p}")))

        # -- bursts in flight --------------------------------------------------------------------------------------------
        limit = arch.dma.outstanding
        completed = Cat(buffer.completed for buffer in buffers)
        flying = [Signal(range(limit + 1), name=f"flying{p}") for p in ports]
        for p in ports:
            m.d.sync += flying[p].eq(flying[p] + begun[p] - completed[p])
            with m.If(completed[p] & ~begun[p]):
                m.d.sync += room[p].eq(1)
            with m.Elif(begun[p] & ~completed[p]):
                m.d.sync += room[p].eq(flying[p] != limit - 1)

        # -- the instruction, and stopping it: only between two bursts ---------------------------------------------------
        busy, within = Signal(), Signal()
        last = slot.issue & slot.last
        m.d.comb += [self.control.last.eq(last), flush.eq(self.abort & ~within)]
        with m.If(start):
            m.d.sync += busy.eq(1)
        with m.Elif(last | flush):
            m.d.sync += busy.eq(0)
        with m.If(slot.issue):
            m.d.sync += within.eq(~slot.ends)
        quiet = self._retire(m, last, begun, completed)
        m.d.comb += self.idle.eq(quiet & ~busy & ~Cat(flying).any())

        # -- errors: the first port's, if several come together ----------------------------------------------------------
        for buffer in reversed(buffers):
            with m.If(buffer.error):
                m.d.comb += [
                    *(self.error.eq(1), self.error_address.eq(buffer.error_address)),
                    self.error_response.eq(buffer.error_response),
                ]
        return m

    def _retire(self, m: Module, last: Value, begun: Value, completed: Value) -> Value:
        """Say `done` in order; returns whether all is said.

        Bursts of a port complete in order. So an instruction is done when each port has completed as many as had begun
        when the instruction's last one had: those counts, modulo more than can be in flight, wait in a queue.
        """
        arch, ports = self.arch, range(self.arch.dma.ports)
        window = arch.dma.outstanding * arch.dma.ports
        bits = (2 * (arch.dma.outstanding + 2)).bit_length()
        depth_bits = (window + 2).bit_length()
        opened = [Signal(bits, name=f"opened{p}") for p in ports]
        closed = [Signal(bits, name=f"closed{p}") for p in ports]
        for p in ports:
            m.d.sync += [opened[p].eq(opened[p] + begun[p]), closed[p].eq(closed[p] + completed[p])]
        m.submodules.ends = ends = Memory(
            shape=bits * len(ports), depth=1 << depth_bits, init=[], attrs={"ram_style": "distributed"}
        )
        write, read = ends.write_port(), ends.read_port(domain="comb")
        store, put, get = Signal(), Signal(depth_bits), Signal(depth_bits)
        head_valid, head = Signal(), Signal(bits * len(ports), reset_less=True)
        done = Signal()
        behind = Cat((closed[p] - head.word_select(p, bits))[bits - 1] for p in ports)
        pop = head_valid & ~behind.any()
        more = put != get
        m.d.comb += [
            *(write.en.eq(store), write.addr.eq(put), write.data.eq(Cat(opened))),
            *(read.addr.eq(get), self.control.done.eq(done)),
        ]
        m.d.sync += [store.eq(last), put.eq(put + store), done.eq(pop)]
        with m.If(pop | ~head_valid):
            m.d.sync += [head.eq(read.data), head_valid.eq(more), get.eq(get + more)]
        return ~(store | more | head_valid | done)
