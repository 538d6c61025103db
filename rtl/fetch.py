"""FETCH: instruction words out of DRAM, ahead of need.

The program is read in groups of 16 words (`FETCH_BYTES`), in bursts as the simulator cuts them. A group is asked for as
soon as `queues.prefetch` has room for all of it; so whatever arrives has a place, and the bus is never kept waiting.

    dispatch of the instruction that makes room in cycle d:   d + 1 room seen, d + 2 request       (FETCH_START)
    last beat of a burst in cycle h = last - 1:               h + 1 bus register, h + 2 in the buffer and counted,
                                                              h + 3 buffer's output, h + 4 at the dispatcher (FETCH_TAIL)
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import FETCH_BYTES, WORD_BYTES
from ..ir.latency import FETCH_START, FETCH_TAIL
from .axi import ADDRESS_BITS, CACHE, INCR, PROTECTION, read_channels, size_of
from .words import WORD_BITS

__all__ = ["Fetch"]

_GROUP = FETCH_BYTES // WORD_BYTES


class Fetch(Component):
    """Reads a program and hands it on, one word a cycle.

    Members
    -------
    begin, base, words : in
        Read `words` instructions from address `base` (a multiple of `FETCH_BYTES`) on; the two stay for the run.
    stop : in
        No new requests.
    idle : out
        Nothing is asked for that has not arrived.
    bus : out, read channels of `dma.bits`
    first : out
        The cycle of the run's first request.
    beat : out
        A beat arrived.
    word, valid, take : out, out, in
        The next instruction; `take` moves on to the one after it.
    failed, failed_address, failed_response : out
        A beat came back with an error; address of its burst.
    """

    begin: Signal
    base: Signal
    words: Signal
    stop: Signal
    idle: Signal
    first: Signal
    beat: Signal
    word: Signal
    valid: Signal
    take: Signal
    failed: Signal
    failed_address: Signal
    failed_response: Signal

    def __init__(self, arch: Arch) -> None:
        assert (FETCH_START, FETCH_TAIL) == (2, 3)
        self.arch = arch
        super().__init__(
            {
                "begin": In(1),
                "base": In(ADDRESS_BITS),
                "words": In(32),
                "stop": In(1),
                "idle": Out(1),
                "bus": Out(read_channels(arch.dma.bits)),
                "first": Out(1),
                "beat": Out(1),
                "word": Out(WORD_BITS),
                "valid": Out(1),
                "take": In(1),
                "failed": Out(1),
                "failed_address": Out(ADDRESS_BITS),
                "failed_response": Out(2),
            }
        )

    @property
    def module_name(self) -> str:
        return "fetch"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        burst = min(self.arch.burst_bytes, FETCH_BYTES)
        ordered = self._requests(m, burst)
        arrived = self._replies(m, burst)
        flying = Signal(range(self.arch.queues.prefetch * WORD_BYTES // burst + 2))
        m.d.sync += flying.eq(flying + ordered - arrived)
        m.d.sync += self.idle.eq(~ordered & ~self.bus.ar.valid & ~flying.any())
        return m

    def _requests(self, m: Module, burst: int) -> Signal:
        """The address channel; returns the signal that a burst was ordered."""
        ar, prefetch = self.bus.ar, self.arch.queues.prefetch
        running, seen = Signal(name="running"), Signal(name="seen")
        groups, any_left = Signal(29), Signal(name="any_left")  # not asked for yet
        room = Signal(range(prefetch + 1), init=prefetch)  # instructions that may be asked for
        parts = FETCH_BYTES // burst
        part = Signal(range(max(2, parts)))
        order, opens = Signal(name="order"), Signal(name="opens")
        address = _address(m, "request", self.begin, self.base, order, burst)
        whole = Signal(ADDRESS_BITS, reset_less=True)
        m.d.comb += [
            opens.eq(part == 0),
            order.eq(
                running & ~self.stop & (~ar.valid | ar.ready) & (~opens | (any_left & (room >= _GROUP)))
            ),
            *(ar.addr.eq(whole), ar.len.eq(burst * 8 // self.arch.dma.bits - 1), ar.user.eq(burst - 1)),
            *(ar.size.eq(size_of(self.arch.dma.bits)), ar.burst.eq(INCR), ar.cache.eq(CACHE)),
            ar.prot.eq(PROTECTION),
            self.first.eq(ar.valid & ~seen),
        ]
        m.d.sync += [
            room.eq(room + self.take - ((order & opens) << (_GROUP.bit_length() - 1))),
            seen.eq(seen | ar.valid),
        ]
        with m.If(ar.ready):
            m.d.sync += ar.valid.eq(0)
        with m.If(order):
            m.d.sync += [ar.valid.eq(1), whole.eq(address), groups.eq(groups - opens)]
            m.d.sync += any_left.eq((groups > 1) | (~opens & any_left))
            m.d.sync += part.eq(part + 1 if parts > 1 else 0)
        with m.If(self.begin):
            m.d.sync += [running.eq(1), any_left.eq(self.words.any())]
            m.d.sync += groups.eq((self.words + _GROUP - 1) >> (_GROUP.bit_length() - 1))
        return order

    def _replies(self, m: Module, burst: int) -> Signal:
        """The data channel, the buffer and its output; returns the signal that a burst is whole."""
        r, bits = self.bus.r, self.arch.dma.bits
        data = Signal(bits, reset_less=True)
        here, last, response = Signal(name="here"), Signal(name="last"), Signal(2, name="response")
        m.d.comb += [r.ready.eq(1), self.beat.eq(here)]
        m.d.sync += [data.eq(r.data), last.eq(r.last & r.valid), here.eq(r.valid), response.eq(r.resp)]
        address = _address(m, "reply", self.begin, self.base, last, burst)
        m.d.comb += [
            self.failed.eq(here & response.any()),
            *(self.failed_address.eq(address), self.failed_response.eq(response)),
        ]

        lanes = WORD_BITS // bits
        places = 1 << (self.arch.queues.prefetch - 1).bit_length()
        lane, to, at = Signal(range(max(2, lanes))), Signal(range(places)), Signal(range(places))
        stored = Signal(range(places + 1))  # whole instructions in the buffer
        whole, gained = Signal(name="whole"), Signal(range(_GROUP + 1), name="gained")
        fresh, ahead = Signal(name="fresh"), Signal(name="ahead")
        word = Signal(WORD_BITS, name="output_word", reset_less=True)
        m.d.comb += [
            whole.eq(here & (lane == lanes - 1)),
            # Instructions count when their burst is whole.
            gained.eq(Mux(last, burst // WORD_BYTES, 0) if burst > WORD_BYTES else whole),
            fresh.eq(~ahead | ~self.valid | self.take),  # the buffer's output register may take another
            self.word.eq(word),
        ]
        style = "distributed" if places <= 64 else "block"
        parts = []
        for i in range(lanes):
            ram = Memory(shape=bits, depth=places, init=[], attrs={"ram_style": style})
            m.submodules[f"ram{i}"] = ram
            write, read = ram.write_port(), ram.read_port()
            m.d.comb += [write.en.eq(here & (lane == i)), write.addr.eq(to), write.data.eq(data)]
            m.d.comb += [read.en.eq(fresh), read.addr.eq(at)]
            parts.append(read.data)
        with m.If(here):
            m.d.sync += lane.eq(lane + 1 if lanes > 1 else 0)
        advance = Signal()
        m.d.comb += advance.eq(fresh & stored.any())
        m.d.sync += [to.eq(to + whole), at.eq(at + advance), stored.eq(stored + gained - advance)]
        with m.If(fresh):
            m.d.sync += ahead.eq(stored.any())
        with m.If(~self.valid | self.take):
            m.d.sync += [self.valid.eq(ahead), word.eq(Cat(parts))]
        return last


def _address(m: Module, name: str, begin: Signal, base: Signal, step: Signal, size: int) -> Cat:
    """An address that `step` moves on by `size`, from `base` on: two adders of 32 bits side by side."""
    low, high = (Signal(32, name=f"{name}_{n}", reset_less=True) for n in ("low", "high"))
    total = Signal(33, name=f"{name}_total")
    m.d.comb += total.eq(low + size)
    with m.If(begin):
        m.d.sync += [low.eq(base[:32]), high.eq(base[32:])]
    with m.Elif(step):
        m.d.sync += low.eq(total)
        with m.If(total[32]):
            m.d.sync += high.eq(high + 1)
    return Cat(low, high)
