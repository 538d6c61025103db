"""Store and forward: the bursts of one AXI read port, until they are complete and it is their turn.

Every burst has a slot, so the port never refuses a beat. Beats are shifted on their way in, so that a burst's first
byte lies at the start of its slot, wherever in its beat it was: beat n is rotated, and joined with what beat n + 1
brings. Each beat gives at most one word of the buffer, in the cycle in which the next beat follows or, for the last, in
the next cycle, so beats may come in every cycle. A row of the buffer is one word for each port of the machine, that is
a chunk.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, Signature

from ..ir.arch import Arch
from .axi import ADDRESS_BITS, read_channels
from .delay import delay
from .hierarchy import place
from .rotation import ROTATION, rotated
from .short_queue import ShortQueue

__all__ = ["BUFFER_READ", "BUFFER_RECEIVE", "BurstBuffer", "read_error"]

BUFFER_RECEIVE = 5
"""Cycle after a burst's last handshake to the first `take`: rotation 2, beat that waits for the next, word, RAM."""
BUFFER_READ = 2
"""`take` to the row: RAM, output register."""


def read_error() -> Signature:
    """A beat whose response is an error, and the address of its burst."""
    return Signature({"valid": Out(1), "address": Out(ADDRESS_BITS), "response": Out(2)})


class BurstBuffer(Component):
    """Buffer of `dma.outstanding` bursts of one port.

    Members
    -------
    r : Out
        The port's read data channel; always ready.
    expect : In(1)
        A burst whose first byte is at `address` has been asked for.
    arrived : Out(1)
        One more burst is complete: its row may be taken two cycles later.
    take, last : In(1)
        Read the next row of the oldest burst; it is that burst's last. `row` has it `BUFFER_READ` cycles later.
    waiting : Out(1)
        Bursts asked for have beats to come.
    error : Out(read_error())
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                "r": read_channels(arch.dma.bits).members["r"],
                "expect": In(1),
                "address": In(ADDRESS_BITS),
                "arrived": Out(1),
                "take": In(1),
                "last": In(1),
                "row": Out(8 * arch.stream_bytes),
                "waiting": Out(1),
                "error": Out(read_error()),
            }
        )

    @property
    def module_name(self) -> str:
        return "burst_buffer"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, beat, r = self.arch, self.arch.beat_bytes, self.r
        # -- bus register --------------------------------------------------------------------------------------------
        m.d.comb += r.ready.eq(1)
        valid, last, response = Signal(), Signal(), Signal(2)
        data = Signal(8 * beat, reset_less=True)
        m.d.sync += [valid.eq(r.valid), last.eq(r.last), response.eq(r.resp), data.eq(r.data)]
        bursts = place(m, "bursts", ShortQueue(arch.dma.outstanding + 1, ADDRESS_BITS))
        m.d.comb += [
            *(bursts.push.eq(self.expect), bursts.entry.eq(self.address)),
            *(bursts.pop.eq(valid & last), self.waiting.eq(bursts.valid)),
        ]
        m.d.sync += [
            self.error.valid.eq(valid & response[1]),
            self.error.response.eq(response),
            self.error.address.eq(bursts.head),
        ]
        # -- rotation: byte `skip` of a beat comes first -----------------------------------------------------------------
        skip = bursts.head[: (beat - 1).bit_length()]
        turned = Cat(rotated(m, [data.word_select(i, 8) for i in range(beat)], skip, "turned"))
        here = delay(m, valid, ROTATION, "here", reset=True)
        final = delay(m, last, ROTATION, "final")
        # -- the beat before, joined with this one -----------------------------------------------------------------------
        waits, waits_last = Signal(), Signal(reset_less=True)
        before = Signal(8 * beat, reset_less=True)
        kept = Signal(beat, reset_less=True)  # bytes of the beat before that come first
        left = delay(m, skip, ROTATION, "left")
        with m.If(here):
            m.d.sync += [
                *(waits.eq(1), waits_last.eq(final), before.eq(turned)),
                kept.eq(Cat(left <= beat - 1 - i for i in range(beat))),
            ]
        with m.Elif(waits_last):
            m.d.sync += waits.eq(0)
        store = waits & (waits_last | here)
        m.d.comb += self.arrived.eq(waits & waits_last)
        joined = Cat(Mux(kept[i], before.word_select(i, 8), turned.word_select(i, 8)) for i in range(beat))
        # -- the buffer: a row is a word for each port ---------------------------------------------------------------------
        ports, slots = arch.dma.ports, arch.dma.outstanding
        rows = 1 << (-(-arch.dma.burst // ports) - 1).bit_length()
        depth = max(2, slots * rows)
        to_bank, to_row, to_slot = Signal(range(ports)), Signal(range(rows)), Signal(range(slots))
        with m.If(store):
            with m.If(waits_last):
                m.d.sync += [to_bank.eq(0), to_row.eq(0), to_slot.eq(_following(to_slot, slots))]
            with m.Elif(to_bank == ports - 1):
                m.d.sync += [to_bank.eq(0), to_row.eq(to_row + 1)]
            with m.Else():
                m.d.sync += to_bank.eq(to_bank + 1)
        from_row, from_slot = Signal(range(rows)), Signal(range(slots))
        with m.If(self.take):
            m.d.sync += from_row.eq(Mux(self.last, 0, from_row + 1))
            with m.If(self.last):
                m.d.sync += from_slot.eq(_following(from_slot, slots))
        word, address = Signal(8 * beat, reset_less=True), Signal(range(depth), reset_less=True)
        m.d.sync += [word.eq(joined), address.eq(Cat(to_row, to_slot))]
        for b in range(ports):
            ram = m.submodules[f"bank{b}"] = Memory(
                shape=8 * beat,
                depth=depth,
                init=[],
                attrs={"ram_style": "block" if depth > 64 else "distributed"},
            )
            write, read = ram.write_port(), ram.read_port()
            enable = Signal(name=f"enable{b}")
            m.d.sync += [enable.eq(store & (to_bank == b)), self.row.word_select(b, 8 * beat).eq(read.data)]
            m.d.comb += [
                *(write.en.eq(enable), write.addr.eq(address), write.data.eq(word)),
                *(read.en.eq(self.take), read.addr.eq(Cat(from_row, from_slot))),
            ]
        return m


def _following(slot: Signal, slots: int) -> Mux:
    return Mux(slot == slots - 1, 0, slot + 1)
