"""What is proved of the control: queues, the ledger, FETCH and the interlock."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Const, Mux, Signal, Value
from amaranth.lib import data
from formal import Bench, in_order, stable
from tilewright.ir.arch import Arch
from tilewright.ir.isa import ENGINE_OF, Engine, Opcode, VecOp
from tilewright.rtl.words import layout

__all__ = ["FOUR_WORDS", "fetch", "instruction_queue", "interlock", "ledger", "short_queue"]

_MACHINE = Arch().override(
    {
        "conv.pixels": 2, "conv.drain": 2, "conv.ic": 4, "conv.oc": 4, "dwc.pixels": 0, "dwc.channels": 0, "vec.pixels": 2,
        "maps.kib": 4, "maps.groups": 2, "weights.kib": 4, "weights.depthwise_kib": 1, "weights.vector_kib": 1,
        "dma.bits": 32, "dma.ports": 1, "dma.burst": 2, "dma.outstanding": 1, "queues.depth": 2, "queues.prefetch": 16,
        "name": "small",
    }
)  # fmt: skip
FOUR_WORDS = (("import FETCH_BYTES, WORD_BYTES", "import WORD_BYTES\n\nFETCH_BYTES = 4 * WORD_BYTES"),)
"""FETCH with groups of four instructions."""
_FLIGHT = 2
"""Instructions of an engine between start and done, most."""


def _join(bench: Bench, part: Any, **values: Any) -> None:
    bench.m.d.comb += [getattr(part, name).eq(value) for name, value in values.items()]


def short_queue(bench: Bench, module: Any) -> None:
    """Four entries; never more pushed, never popped when empty."""
    dut = bench.add(module.ShortQueue(4, 2))
    push, entry, pop = bench.free(1, "push"), bench.free(2, "entry"), bench.free(1, "pop")
    _join(bench, dut, push=push, entry=entry, pop=pop)
    inside = in_order(bench, push, entry, pop, dut.head, 4)
    bench.assume(~push | (inside < 4))
    bench.assume(~pop | (inside != 0))
    bench.check("valid tells whether there is one", dut.valid == (inside != 0))
    bench.reach("full", inside == 4)


def instruction_queue(bench: Bench, module: Any) -> None:
    """Three places, no power of two; pushed into where there is space, popped where there is a head."""
    dut = bench.add(module.InstructionQueue(3, 2))
    push, word, popped = bench.free(1, "push"), bench.free(2, "word"), bench.free(1, "popped")
    _join(bench, dut, push=push, word=word, popped=popped)
    inside = in_order(bench, push, word, popped, dut.head, 3)
    bench.assume(~push | dut.space)
    bench.assume(~popped | dut.valid)
    bench.check("valid tells whether there is one", dut.valid == (inside != 0))
    bench.check("space means a place, and a place is space", dut.space == ((inside < 3) | popped))
    bench.check("never more than the depth", inside <= 3)
    bench.reach("full, then popped and pushed at once", (inside == 3) & popped & push)


def ledger(bench: Bench, module: Any) -> None:
    """Four entries; the youngest that is retired was written two cycles before."""
    dut = bench.add(module.Ledger(4, 2))
    write, entry, retire = bench.free(1, "write"), bench.free(2, "entry"), bench.free(1, "retire")
    _join(bench, dut, write=write, entry=entry, retire=retire)
    inside = in_order(bench, write, entry, retire, dut.oldest, 4)
    bench.assume(~write | (inside < 4))
    bench.assume(~retire | (inside > bench.past(write, "write")))
    bench.check("any tells whether there is one", dut.any == (inside != 0))
    kept = Signal(2)
    bench.m.d.sync += kept.eq(Cat(retire, kept))
    bench.reach("retired in three cycles in a row", retire & kept.all())


def _wants(engine: Engine, word: Value) -> tuple[Value, Value]:
    """Groups whose read ports, and whose write port, an instruction uses: a bit a group."""

    def groups(f: data.View, operand: str, flag: Value | int = 1) -> Value:
        first, further = f[f"{operand}_group"], f[f"{operand}_span"]
        return Mux(flag, Cat((first <= g) & (g - first <= further) for g in range(_MACHINE.maps.groups)), 0)

    f = data.View(layout(Opcode.VEC, VecOp.ADD), word)
    if engine == Engine.LOAD:
        f = data.View(layout(Opcode.LOAD), word)
        return Const(0, 2), groups(f, "d", f.opcode == Opcode.LOAD)
    if engine == Engine.SAVE:
        return groups(data.View(layout(Opcode.SAVE), word), "a"), Const(0, 2)
    if engine == Engine.CONV:
        f = data.View(layout(Opcode.CONV), word)
        return groups(f, "a"), groups(f, "d", f.last)
    second = (f.func == VecOp.ADD) | (f.func == VecOp.MUL)
    pools = (f.func == VecOp.MAX) | (f.func == VecOp.AVG)
    ends = data.View(layout(Opcode.VEC, VecOp.MAX), word).last
    return groups(f, "a") | groups(f, "b", second), groups(f, "d", ~pools | ends)


def interlock(bench: Bench, module: Any) -> None:
    """No port has two owners, nothing starts before its tokens, and what may start does.

    Engines take any time: at least three cycles to `last`, at least one more to `done`.
    """
    dut, m = bench.add(module.Interlock(_MACHINE)), bench.m
    word, push, stop = (
        bench.free(len(dut.word), "word"),
        bench.free(len(Engine), "push"),
        bench.free(1, "stop"),
    )
    _join(bench, dut, word=word, push=push, stop=stop)
    header = data.View(layout(Opcode.END), word)
    bench.assume((push & (push - 1)) == 0)
    for e in Engine:  # a token is waited for that is less than half of the counter away
        bench.assume((push == 0) | ~getattr(header, f"wait_{e.name.lower()}")[14:].any())
    met: dict[Engine, Value] = {}
    starts: dict[Engine, Value] = {}
    wants: dict[Engine, tuple[Value, Value]] = {}
    reads: dict[Engine, Signal] = {}
    writes: dict[Engine, Value] = {}
    queued: dict[Engine, Signal] = {}
    flights, given = [], {e: Signal(16, name=f"given_{e.name}") for e in Engine}
    for e in Engine:
        if e not in dut.engines:
            bench.assume(~push[e])
    for e in dut.engines:
        port, name = getattr(dut, e.name.lower()), e.name.lower()
        bench.assume(~push[e] | dut.space[e])
        opcodes = [o for o in Opcode if ENGINE_OF.get(o) == e]
        bench.assume(~push[e] | Cat(header.opcode == o for o in opcodes).any())
        last, done = bench.free(1, f"{name}_last"), bench.free(1, f"{name}_done")
        m.d.comb += [port.last.eq(last), port.done.eq(done)]
        starts[e], wants[e] = port.start, _wants(e, port.word)
        age, flight, ended = (
            Signal(2, name=f"{name}_age"),
            Signal(2, name=f"{name}_flight"),
            Signal(2, name=f"{name}_ended"),
        )
        oldest, second = (Signal(2, name=f"{name}_{n}") for n in ("oldest", "second"))
        reads[e], queued[e] = Signal(2, name=f"{name}_reads"), Signal(3, name=f"{name}_queued")
        running = Signal(name=f"{name}_running")
        with m.If(port.start):
            m.d.sync += [running.eq(1), age.eq(0), reads[e].eq(wants[e][0])]
        with m.Elif(last):
            m.d.sync += [running.eq(0), reads[e].eq(0)]
        with m.Elif(age != 3):
            m.d.sync += age.eq(age + 1)
        bench.assume(~last | (running & (age >= 1)))
        bench.assume(~done | (ended != 0))
        bench.assume(flight - done + port.start <= _FLIGHT)
        m.d.sync += [
            flight.eq(flight + port.start - done),
            ended.eq(ended + last - done),
            queued[e].eq(queued[e] + push[e] - port.start),
            given[e].eq(given[e] + done),
        ]
        behind = flight - done
        with m.If(done):
            m.d.sync += [oldest.eq(second), second.eq(0)]
        with m.If(port.start):
            with m.If(behind == 0):
                m.d.sync += oldest.eq(wants[e][1])
            with m.Else():
                m.d.sync += second.eq(wants[e][1])
        writes[e] = oldest | second
        flights.append(flight)
        waits = data.View(layout(Opcode.END), port.word)
        met[e] = Cat(~(given[o] - getattr(waits, f"wait_{o.name.lower()}"))[15] for o in Engine).all()
        bench.check(
            f"{name} starts an instruction that it has, when it has none",
            ~port.start | ((queued[e] != 0) & ~running),
        )
        bench.check(f"{name} starts with its tokens", ~port.start | met[e])
    for a in dut.engines:
        for b in dut.engines:
            if a == b:
                continue
            name, both = f"{a.name} and {b.name}", starts[b] if a < b else Const(0, 1)
            read = wants[a][0] & (reads[b] | Mux(both, wants[b][0], 0))
            write = wants[a][1] & (writes[b] | Mux(both, wants[b][1], 0))
            bench.check(f"no read port has two owners: {name}", ~starts[a] | ~read.any())
            bench.check(f"no write port has two owners: {name}", ~starts[a] | ~write.any())
    waiting = Cat((queued[e] != 0) & met[e] for e in dut.engines).any()
    quiet = waiting & ~stop & ~Cat(flights).any() & ~Cat(starts.values()).any()
    stuck = bench.register(3, "stuck", lambda s: Mux(quiet, Mux(s == 7, 7, s + 1), 0))
    bench.check("what may start does", stuck < 4)
    bench.reach(
        "a write port goes from one engine to another",
        starts[Engine.CONV]
        & wants[Engine.CONV][1][0]
        & bench.register(1, "loaded", lambda s: s | (dut.load.done & (flights[0] == 1))),
    )
    bench.reach(
        "three engines run",
        Cat(starts.values())[1:].any()
        & (reads[Engine.CONV] != 0)
        & (writes[Engine.LOAD] != 0)
        & starts[Engine.SAVE],
    )


def fetch(bench: Bench, module: Any) -> None:
    """AXI4 read address channel; never more asked for than there is room; words in the order of their beats.

    A beat is an instruction, a burst two, a group four, the buffer has eight.
    """
    room = 8
    small = SimpleNamespace(
        dma=SimpleNamespace(bits=512), burst_bytes=128, queues=SimpleNamespace(prefetch=room)
    )
    dut, m = bench.add(module.Fetch(small)), bench.m
    begin, stop, take = (bench.free(1, n) for n in ("begin", "stop", "take"))
    base, words = bench.any(64), bench.any(32)
    _join(bench, dut, begin=begin, stop=stop, take=take, base=base, words=words)
    ar, r = dut.bus.ar, dut.bus.r
    ready, valid, bit = (bench.free(1, n) for n in ("ready", "valid", "bit"))
    odd = bench.register(1, "odd", lambda s: s ^ valid)
    m.d.comb += [ar.ready.eq(ready), r.valid.eq(valid), r.last.eq(odd), r.data.eq(bit)]
    began = bench.register(1, "began", lambda s: s | begin)
    bench.assume(~begin | ~began)
    bench.assume(base[:10] == 0)
    bench.assume(~take | dut.valid)
    asked = ar.valid & ar.ready
    owed = bench.register(5, "owed", lambda s: s + (asked << 1) - valid)
    bench.assume(~valid | (owed != 0))
    held = bench.register(5, "held", lambda s: s + (asked << 1) - take)
    count = bench.register(33, "count", lambda s: s + (asked << 1))
    stable(bench, ar, ("addr", "len", "size", "burst"), "ar")
    bench.check("a burst is cut at its own length", ~ar.valid | ((ar.addr[:7] == 0) & (ar.len == 1)))
    bench.check("never more than there is room for", held + (ar.valid << 1) <= room)
    bench.check("no group that the program has not", ~ar.valid | (count < ((words + 3)[:33] & ~3)))
    inside = in_order(bench, valid, bit, take, dut.word[0], room)
    bench.check("a word comes after its beat", ~dut.valid | (inside != 0))
    bench.reach("the buffer is full", (inside == room) & dut.valid)
