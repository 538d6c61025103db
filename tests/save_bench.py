"""The SAVE engine between a map memory and AXI memories, in Amaranth's simulator."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.hdl import Signal
from amaranth.sim import Simulator, SimulatorContext
from map_words import flat
from saves import ACCEPT, BASE, DRAM_BYTES, RESPONSE, Row, Timing
from tilewright.ir.arch import Arch
from tilewright.ir.isa import Opcode, encode, instruction
from tilewright.ir.latency import MAP_READ
from tilewright.rtl.save import SaveEngine


@dataclass
class Port:
    """AXI memory behind one port."""

    addresses: deque[tuple[int, int, int, int]] = field(default_factory=deque)  # cycle, address, beats, bytes
    beats: deque[tuple[int, ...]] = field(default_factory=deque)  # data, strobes, last
    answers: deque[tuple[int, int]] = field(default_factory=deque)  # earliest cycle and address of each
    held: dict[str, tuple[int, ...]] = field(default_factory=dict)
    answering: bool = False
    response: int = 0


class Bench:
    """The engine between a map memory and AXI memories; checks AXI's rules by the way."""

    def __init__(self, arch: Arch, seed: int, *, stall: float = 0.0, faults: float = 0.0) -> None:
        self.arch, self.rng, self.stall, self.faults = arch, random.Random(seed), stall, faults
        noise = np.random.default_rng(seed)
        self.maps = noise.integers(-128, 128, (2, arch.group_words, arch.lanes), np.int8)
        self.dram = noise.integers(-128, 128, DRAM_BYTES, np.int8)
        self.requests: list[int] = []  # cycles
        self.counts: list[tuple[int, int]] = []  # bursts so far, and tokens of each phase
        self.bursts: list[tuple[int, int]] = []  # address and bytes, in the order of the bus
        self.errors: list[tuple[int, int]] = []  # address and response as the engine tells them
        self.faulty: list[tuple[int, int]] = []  # and as the memory gave them
        self.ports = [Port() for _ in range(arch.dma.ports)]

    def run(self, *phases: tuple[list[Row], int | None], limit: int = 20_000) -> None:
        """Runs the instructions of each phase back to back until the engine is idle, or, where there is a second
        number, until it is idle after an abort in that cycle of the phase. `timing` is that of the last phase."""
        engine = SaveEngine(self.arch)
        self.engine, self.cycle = engine, 0

        async def bench(ctx: SimulatorContext) -> None:
            for r, base in enumerate((1, 2, BASE)):
                ctx.set(getattr(engine, f"base{r}"), base)
            reads: deque[dict[int, int]] = deque([{}] * MAP_READ)
            for rows, abort in phases:
                ports = range(self.arch.dma.ports)
                self.timing = Timing(addresses=[[] for _ in ports], beats=[[] for _ in ports])
                self.first, idle, free = self.cycle + 3, False, True
                pending = deque(rows)
                while not idle:
                    assert self.cycle < limit, f"not idle after {limit} cycles"
                    stopping = abort is not None and self.cycle >= self.first + abort
                    begin = bool(pending) and free and not stopping and self.cycle >= self.first
                    word = self.rng.getrandbits(512)
                    if begin:
                        fields = instruction(Opcode.SAVE, **pending.popleft())
                        word = int.from_bytes(encode(fields[None]), "little")
                        self.timing.start.append(self.cycle)
                        free = False
                    ctx.set(engine.control.start, begin)
                    ctx.set(engine.control.word, word)
                    ctx.set(engine.abort, stopping)
                    for b, data in reads.popleft().items():
                        ctx.set(getattr(engine.source, f"data{b}"), data)
                    for port, axi in zip(self.ports, self.channels(), strict=True):
                        self.drive(ctx, port, axi)
                    reads.append(self.read(ctx))
                    for p, (port, axi) in enumerate(zip(self.ports, self.channels(), strict=True)):
                        self.observe(ctx, p, port, axi)
                    if ctx.get(engine.control.last):
                        self.timing.last.append(self.cycle)
                        free = True
                    if ctx.get(engine.control.done):
                        self.timing.done.append(self.cycle)
                    if ctx.get(engine.error):
                        self.errors.append((ctx.get(engine.error_address), ctx.get(engine.error_response)))
                    idle = ctx.get(engine.idle) and (stopping or not (pending or begin or abort is not None))
                    await ctx.tick()
                    self.cycle += 1
                self.counts.append((len(self.bursts), len(self.timing.done)))

        sim = Simulator(engine)
        sim.add_clock(1e-6)
        sim.add_testbench(bench)
        sim.run()

    def channels(self) -> list[Any]:
        return [getattr(self.engine, f"axi{p}") for p in range(self.arch.dma.ports)]

    def read(self, ctx: SimulatorContext) -> dict[int, int]:
        """The words of this cycle's request, by bank; the others become noise, as other engines' reads would."""
        source, out = self.engine.source, {}
        enable = ctx.get(source.enable)
        if enable:
            self.requests.append(self.cycle)
        for b in range(self.arch.banks):
            if enable >> b & 1:
                word = flat(self.maps)[
                    ctx.get(source.group) * self.arch.group_words
                    + ctx.get(getattr(source, f"row{b}")) * self.arch.banks
                    + b
                ]
                out[b] = int.from_bytes(word.tobytes(), "little")
        return out

    def drive(self, ctx: SimulatorContext, port: Port, axi: Any) -> None:
        """Ready and responses of this cycle."""
        ctx.set(axi.aw.ready, self.rng.random() >= self.stall)
        ctx.set(axi.w.ready, self.rng.random() >= self.stall)
        if not port.answering and port.answers and port.answers[0][0] <= self.cycle:
            port.answering = self.rng.random() >= self.stall
            port.response = self.rng.choice((2, 3)) if self.rng.random() < self.faults else 0
        ctx.set(axi.b.valid, port.answering)
        ctx.set(axi.b.resp, port.response if port.answering else self.rng.randrange(4))

    def observe(self, ctx: SimulatorContext, p: int, port: Port, axi: Any) -> None:
        """What the port says in this cycle."""
        t, beat = self.cycle, self.arch.beat_bytes
        aw = self.taken(ctx, port, "aw", axi.aw, (axi.aw.addr, axi.aw.len, axi.aw.user))
        if aw is not None:
            address, size = aw[0], aw[2] + 1
            assert address // 4096 == (address + size - 1) // 4096
            assert aw[1] + 1 == -(-(address % beat + size) // beat)
            assert (1 << ctx.get(axi.aw.size), ctx.get(axi.aw.burst)) == (beat, 1)
            port.addresses.append((t, address, aw[1] + 1, size))
            self.bursts.append((address, size))
            self.timing.addresses[p].append(t)
        w = self.taken(ctx, port, "w", axi.w, (axi.w.data, axi.w.strb, axi.w.last))
        if w is not None:
            port.beats.append(w)
            self.timing.beats[p].append(t)
        if port.answering and ctx.get(axi.b.ready):
            port.answering = False
            _, address = port.answers.popleft()
            if port.response:
                self.faulty.append((address, port.response))
        if port.addresses and len(port.beats) >= port.addresses[0][2]:
            taken_at, address, beats, size = port.addresses.popleft()
            first = address // beat * beat - BASE
            for i in range(beats):
                data, strobes, last = port.beats.popleft()
                assert last == (i == beats - 1)
                for lane in range(beat):
                    at = first + i * beat + lane
                    assert (strobes >> lane & 1) == (address - BASE <= at < address - BASE + size)
                    if strobes >> lane & 1:
                        value = data >> 8 * lane & 255
                        self.dram[at] = value - 256 if value > 127 else value
            port.answers.append((max(taken_at + ACCEPT, t + 1) + RESPONSE - 1, address))

    def taken(
        self, ctx: SimulatorContext, port: Port, name: str, channel: Any, members: tuple[Signal, ...]
    ) -> tuple[int, ...] | None:
        """What the channel hands over in this cycle; what waits stays as it is."""
        before = port.held.pop(name, None)
        if not ctx.get(channel.valid):
            assert before is None, f"{name} was withdrawn"
            return None
        now = tuple(ctx.get(s) for s in members)
        assert before in (None, now), f"{name} changed while it waited"
        if not ctx.get(channel.ready):
            port.held[name] = now
            return None
        return now
