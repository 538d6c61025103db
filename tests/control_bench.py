"""Dispatch and interlock with engines of random length: the rules of docs/machine.md, and the bench for the hardware."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from amaranth.hdl import Module
from amaranth.lib.wiring import Component
from amaranth.sim import Simulator
from tilewright.ir.arch import Arch
from tilewright.ir.isa import ENGINE_OF, Engine, Memory, Opcode, VecOp, encode, instruction
from tilewright.ir.latency import DISPATCH, TOKEN
from tilewright.rtl.dispatch import Dispatch
from tilewright.rtl.hierarchy import place
from tilewright.rtl.interlock import Interlock

WAIT = {e: f"wait_{e.name.lower()}" for e in Engine}


@dataclass
class Step:
    """An instruction, its word, how long it keeps its engine, and how much later its token comes."""

    fields: dict[str, int]
    opcode: Opcode
    busy: int
    tail: int
    word: int = 0

    @property
    def engine(self) -> Engine | None:
        return ENGINE_OF.get(self.opcode)


def ports(step: Step) -> tuple[set[int], set[int]]:
    """Groups whose read port, and whose write port, it owns."""
    f, op = step.fields, step.opcode

    def groups(operand: str) -> set[int]:
        return set(range(f[f"{operand}_group"], f[f"{operand}_group"] + f[f"{operand}_span"] + 1))

    reads = groups("a") if op not in {Opcode.LOAD, Opcode.FILL} else set()
    if op == Opcode.VEC and f["func"] in {VecOp.ADD, VecOp.MUL}:
        reads |= groups("b")
    keeps = op == Opcode.CONV or (op == Opcode.VEC and f["func"] in {VecOp.MAX, VecOp.AVG})
    silent = op in {Opcode.FILL, Opcode.SAVE} or (keeps and not f["last"])
    return reads, set() if silent else groups("d")


def rule(arch: Arch, program: list[Step], ready: list[int]) -> list[list[int]]:
    """Queued, start, done of each instruction; instruction i is at the dispatcher from cycle `ready`[i] on."""
    times = [[-1] * 3 for _ in program]
    queues: dict[Engine, deque[int]] = {e: deque() for e in Engine}
    done: dict[Engine, list[int]] = {e: [] for e in Engine}
    free = dict.fromkeys(Engine, 0)
    owner: dict[tuple[str, int], tuple[Engine, int]] = {}  # port: engine, cycle from which others may have it
    at, t = 0, 0
    while any(x[2] < 0 for x in times):
        if at < len(program) and ready[at] <= t:
            engine = program[at].engine
            assert engine is not None
            if len(queues[engine]) < arch.queues.depth:
                queues[engine].append(at)
                times[at][0] = t
                at += 1
        for e in Engine:
            if not queues[e] or t < free[e]:
                continue
            i = queues[e][0]
            step = program[i]
            reads, writes = ports(step)
            wanted = [("read", g) for g in reads] + [("write", g) for g in writes]
            if t < times[i][0] + DISPATCH:
                continue
            if any(sum(d + TOKEN <= t for d in done[o]) < step.fields.get(WAIT[o], 0) for o in Engine):
                continue
            if any(p in owner and owner[p][0] != e and owner[p][1] > t for p in wanted):
                continue
            queues[e].popleft()
            token = t + step.busy + step.tail
            times[i][1], times[i][2], free[e] = t, token, t + step.busy
            done[e].append(token)
            for kind, g in wanted:
                owner[kind, g] = (e, t + step.busy if kind == "read" else token + 1)
        t += 1
    return times


def random_program(arch: Arch, seed: int, count: int) -> list[Step]:
    """Waits on earlier instructions; an engine's tokens come in order, and never two in a cycle."""
    rng = random.Random(seed)
    given = dict.fromkeys(Engine, 0)
    opcodes = [o for o in Opcode if o != Opcode.END and (o != Opcode.DWC or arch.has_dwc)]
    tail = {e: rng.choice((0, 3, 30)) for e in Engine}
    program = []
    for _ in range(count):
        op = rng.choice(opcodes)
        engine = ENGINE_OF[op]
        groups = {}
        for p in "dab":
            first = groups[f"{p}_group"] = rng.randrange(arch.maps.groups)
            groups[f"{p}_span"] = rng.choice((0, 0, rng.randrange(arch.maps.groups - first)))
        f: dict[str, int] = {}
        for e, n in given.items():
            if n and rng.random() < 0.3:
                f[WAIT[e]] = rng.randrange(max(0, n - 4), n + 1)
        func: VecOp | Memory | int = 0
        if op == Opcode.VEC:
            func = rng.choice(list(VecOp))
        elif op == Opcode.FILL:
            func = rng.choice(list(Memory))
        names = {
            Opcode.LOAD: "d",
            Opcode.CONV: "da",
            Opcode.DWC: "da",
            Opcode.VEC: "dab" if func in {VecOp.ADD, VecOp.MUL} else "da",
            Opcode.SAVE: "a",
        }.get(op, "")
        f |= {f"{p}_{n}": groups[f"{p}_{n}"] for p in names for n in ("group", "span")}
        if op == Opcode.CONV or (op == Opcode.VEC and func in {VecOp.MAX, VecOp.AVG}):
            f["last"] = rng.randrange(4) > 0
        row = instruction(op, func, **f)
        word = int.from_bytes(encode(row[None]), "little")
        busy = rng.choice((3, 4, 12, 40))
        program.append(Step(f | {"func": int(func)}, op, busy, tail[engine], word))
        given[engine] += 1
    return program


class Control(Component):
    """Dispatch and interlock, joined as in the core."""

    def __init__(self, arch: Arch) -> None:
        self.dispatch, self.interlock = Dispatch(arch), Interlock(arch)
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        d, i = place(m, "dispatch", self.dispatch), place(m, "interlock", self.interlock)
        m.d.comb += [
            *(i.word.eq(d.word), i.index.eq(d.index), i.push.eq(d.push), d.space.eq(i.space)),
            d.stop.eq(i.stop),
        ]
        return m


@dataclass
class Seen:
    times: list[list[int]]
    words_at_start: list[int]
    oldest_at_done: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    fault: tuple[int, int] = (0, 0)


def run_control(
    arch: Arch, program: list[Step], ready: list[int], cycles: int, words: int | None = None
) -> Seen:
    """The hardware, with engines played by the bench."""
    dut = Control(arch)
    d, lock = dut.dispatch, dut.interlock
    seen = Seen([[-1] * 3 for _ in program], [0] * len(program))
    mine = {e: [i for i, s in enumerate(program) if s.engine == e] for e in Engine}

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        ctx.set(d.words, len(program) if words is None else words)
        ctx.set(lock.stop, 1)
        for _ in range(4):
            await ctx.tick()
        ctx.set(lock.stop, 0)
        head = dict.fromkeys(lock.engines, 0)
        pulses: dict[tuple[str, Engine], set[int]] = {
            (kind, e): set() for kind in ("last", "done") for e in lock.engines
        }
        at = 0
        for t in range(cycles):
            there = at < len(program) and ready[at] <= t
            ctx.set(d.valid, there)
            ctx.set(d.word, program[at].word if there else 0)
            for (kind, e), cycles_of in pulses.items():
                now = t in cycles_of
                ctx.set(getattr(getattr(lock, e.name.lower()), kind), now)
                if now and kind == "done":
                    seen.oldest_at_done.append(ctx.get(getattr(lock, f"oldest_{e.name.lower()}")))
            if ctx.get(d.fault) and not seen.fault[0]:
                seen.fault = (ctx.get(d.fault), ctx.get(d.fault_index))
            if ctx.get(d.take):
                seen.times[at][0] = t
                at += 1
            started = ctx.get(lock.started)
            for e in lock.engines:
                if started >> e & 1:
                    i = mine[e][head[e]]
                    head[e] += 1
                    seen.times[i][1] = t
                    seen.times[i][2] = t + program[i].busy + program[i].tail
                    seen.words_at_start[i] = ctx.get(getattr(lock, e.name.lower()).word)
                    pulses["last", e].add(t + program[i].busy - 1)
                    pulses["done", e].add(seen.times[i][2])
            await ctx.tick()
        seen.tokens = [ctx.get(getattr(lock, f"tokens_{e.name.lower()}")) for e in Engine]

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return seen


ARCHES = {
    "default": Arch(),
    "short queues, two groups, no depthwise engine": Arch().override(
        {"queues.depth": 2, "maps.groups": 2, "dwc.pixels": 0, "dwc.channels": 0}
    ),
    "eight groups": Arch().override({"maps.groups": 8, "queues.depth": 5}),
}
