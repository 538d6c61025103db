"""SAVE in hardware: bytes as the emulator writes them, cycles as the timing rules say, AXI's own rules."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from amaranth.hdl import Signal
from amaranth.sim import Simulator, SimulatorContext
from tilewright.hwsim.emulate_dram import save
from tilewright.ir.arch import Arch
from tilewright.ir.isa import Opcode, encode, instruction
from tilewright.ir.latency import ADDRESS, BURST_INTERVAL, MAP_READ, SAVE_SEND, SAVE_START, SAVE_TAIL
from tilewright.rtl.save import SaveEngine

Row = dict[str, int]
BASE = 0x12_3456_7803  # of the maps region: any byte, above 32 bits
DRAM_BYTES = 1 << 15
ACCEPT, RESPONSE = 7, 5  # cycles of the exact memory: address to stored, stored to response


def machine(
    ports: int, bits: int, lanes: int, burst: int, outstanding: int, pixels: int = 2, kib: int = 0
) -> Arch:
    row = 2 * lanes << (2 * pixels - 1).bit_length()
    return Arch.build(
        {
            "conv": {"pixels": pixels, "ic": lanes, "oc": 4, "drain": 1},
            "dwc": {"pixels": 0, "channels": 0},
            "vec": {"pixels": 1},
            "maps": {"kib": kib or row, "groups": 2},
            "weights": {"kib": 4 * lanes},
            "dma": {"ports": ports, "bits": bits, "burst": burst, "outstanding": outstanding},
        }
    )


def random_save(arch: Arch, rng: random.Random, address: int, most: int) -> tuple[Row, int]:
    """A legal SAVE of at most `most` bytes from `address` on, and the address behind it."""
    while True:
        take = rng.choice((arch.lanes, arch.lanes, arch.lanes, rng.randint(1, arch.lanes)))
        width, height, blocks = rng.randint(1, 40), rng.choice((1, 2, 3, 5)), rng.choice((1, 1, 2, 3))
        total = take * width * height * blocks
        if total <= most:
            break
    runs1 = rng.choice([n for n in range(1, 9) if total % n == 0])
    runs2 = rng.choice([n for n in range(1, 9) if total // runs1 % n == 0])
    if rng.random() < 0.15:  # runs of a few bytes
        runs1, runs2 = total, 1
    run = total // (runs1 * runs2)
    stride1 = run + rng.choice((0, 0, rng.randint(1, 40)))
    stride2 = (runs1 - 1) * stride1 + run + rng.choice((0, 0, rng.randint(1, 70)))
    rows, words = height + rng.randint(0, 3), arch.group_words
    pitch = width + rng.randint(0, 3)
    plane = rows * pitch + rng.randint(0, 5)
    span = (blocks - 1) * plane + (rows - 1) * pitch + width
    if span > words:
        return random_save(arch, rng, address, most)
    row = {
        **{"a_group": rng.randrange(2), "a_base": rng.randint(0, words - span), "a_pitch": pitch},
        **{"a_plane": plane, "a_rows": rows, "a_row0": rng.randrange(rows), "region": 2, "address": address},
        **{"run_bytes": run, "runs1": runs1, "stride1": stride1, "runs2": runs2, "stride2": stride2},
        **{"width": width, "height": height, "blocks": blocks, "take": take},
    }
    return row, address + (runs2 - 1) * stride2 + (runs1 - 1) * stride1 + run


def bursts_of(row: Row, arch: Arch) -> list[tuple[int, int]]:
    """Address and bytes of each burst, from a walk over single bytes."""
    n1, n2, n = row["runs1"], row["runs2"], row["run_bytes"]
    inner = n1 == 1 or row["stride1"] == n
    outer = inner and (n2 == 1 or row["stride2"] == n * n1)
    found: list[tuple[int, int]] = []
    for i2 in range(n2):
        for i1 in range(n1):
            first = BASE + row["address"] + i2 * row["stride2"] + i1 * row["stride1"]
            new = not ((inner and i1) or (outer and (i1 or i2)))
            for at in range(first, first + n):
                if new or at % arch.burst_bytes == 0:
                    found.append((at, 0))
                new = False
                found[-1] = (found[-1][0], found[-1][1] + 1)
    return found


def costs(row: Row, arch: Arch) -> list[int]:
    """Cycles to gather each burst."""
    take = row["take"]
    unit = arch.group_move if take == arch.lanes else 1
    groups = deque(  # first byte of each
        (r * row["width"] + x) * take
        for r in range(row["height"] * row["blocks"])
        for x in range(0, row["width"], unit)
    )
    out, at = [], 0
    for _, size in bursts_of(row, arch):
        cycles, end = 0, at + size
        while at < end:
            at = min(at + arch.stream_bytes, end)
            new = 0
            while groups and groups[0] < at:
                groups.popleft()
                new += 1
            cycles += max(1, new)
        out.append(max(BURST_INTERVAL, cycles))
    return out


@dataclass
class Timing:
    """Cycles of what is seen on the pins."""

    start: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    addresses: list[list[int]] = field(default_factory=list)  # by port
    beats: list[list[int]] = field(default_factory=list)


def expected(rows: list[Row], arch: Arch, first: int) -> Timing:
    """The timing rules, for a memory that takes everything at once."""
    ports = arch.dma.ports
    out = Timing(addresses=[[] for _ in range(ports)], beats=[[] for _ in range(ports)])
    free, completed = [0] * ports, []
    start, gathered, before = first, 0, -1
    for row in rows:
        out.start.append(start)
        finish = 0
        for (at, size), cost in zip(bursts_of(row, arch), costs(row, arch), strict=True):
            k = len(completed)
            slot = k - arch.dma.outstanding * ports
            gathered = max(gathered, start + SAVE_START, completed[slot] if slot >= 0 else 0) + cost
            port, beats = k % ports, -(-(at % arch.beat_bytes + size) // arch.beat_bytes)
            out.addresses[port].append(gathered)
            begin = max(gathered + SAVE_SEND, free[port])
            free[port] = begin + beats
            out.beats[port] += range(begin, begin + beats)
            completed.append(max(gathered + ACCEPT, free[port]) + RESPONSE)
            finish = max(finish, completed[-1])
        out.last.append(gathered - 1)
        before = max(finish + SAVE_TAIL, before + 1)
        out.done.append(before)
        start = gathered
    return out


@dataclass
class Port:
    """AXI memory behind one port."""

    addresses: deque[tuple[int, int, int, int]] = field(default_factory=deque)  # cycle, address, beats, bytes
    beats: deque[tuple[int, int, int, bool]] = field(default_factory=deque)  # cycle, data, strobes, last
    answers: deque[int] = field(default_factory=deque)  # earliest cycle of each
    held: dict[str, tuple[int, ...]] = field(default_factory=dict)
    answering: bool = False


class Bench:
    """The engine between a map memory and AXI memories; checks AXI's rules by the way."""

    def __init__(self, arch: Arch, seed: int, *, stall: float = 0.0, faults: tuple[int, ...] = ()) -> None:
        self.arch, self.rng, self.stall, self.faults = arch, random.Random(seed), stall, faults
        noise = np.random.default_rng(seed)
        self.maps = noise.integers(-128, 128, (2, arch.group_words, arch.lanes), np.int8)
        self.dram = noise.integers(-128, 128, DRAM_BYTES, np.int8)
        self.timing = Timing(
            addresses=[[] for _ in range(arch.dma.ports)], beats=[[] for _ in range(arch.dma.ports)]
        )
        self.requests: list[int] = []
        self.errors: list[tuple[int, int]] = []
        self.bursts: list[tuple[int, int]] = []
        self.responses = 0
        self.ports = [Port() for _ in range(arch.dma.ports)]

    def run(self, rows: list[Row], *, abort: int = 0, limit: int = 20_000) -> None:
        """Runs the instructions back to back, or stops them in cycle `abort`."""
        engine = SaveEngine(self.arch)
        words = [int.from_bytes(encode(instruction(Opcode.SAVE, **row)[None]), "little") for row in rows]
        self.engine, self.cycle, self.idle = engine, 0, False

        async def bench(ctx: SimulatorContext) -> None:
            for r, base in enumerate((1, 2, BASE)):
                ctx.set(getattr(engine, f"base{r}"), base)
            reads: deque[dict[int, int]] = deque([{}] * MAP_READ)
            pending, free = deque(words), True
            while self.cycle < limit:
                t = self.cycle
                stopping = bool(abort) and t >= abort
                begin = bool(pending) and free and not stopping and t >= 3
                ctx.set(engine.control.start, begin)
                ctx.set(engine.control.word, pending.popleft() if begin else self.rng.getrandbits(512))
                ctx.set(engine.abort, stopping)
                if begin:
                    self.timing.start.append(t)
                    free = False
                for b, data in reads.popleft().items():
                    ctx.set(getattr(engine.source, f"data{b}"), data)
                for p, port in enumerate(self.ports):
                    self.drive(ctx, p, port)
                reads.append(self.read(ctx))
                for p, port in enumerate(self.ports):
                    self.observe(ctx, p, port)
                if ctx.get(engine.control.last):
                    self.timing.last.append(t)
                    free = True
                if ctx.get(engine.control.done):
                    self.timing.done.append(t)
                if ctx.get(engine.error):
                    self.errors.append((ctx.get(engine.error_address), ctx.get(engine.error_response)))
                self.idle = bool(ctx.get(engine.idle))
                if self.idle and (stopping or (not pending and not begin)):
                    return
                await ctx.tick()
                self.cycle += 1
            raise AssertionError(f"not idle after {limit} cycles")

        sim = Simulator(engine)
        sim.add_clock(1e-6)
        sim.add_testbench(bench)
        sim.run()

    def read(self, ctx: SimulatorContext) -> dict[int, int]:
        """The words of this cycle's request, by bank; the others become noise, as other engines' reads would."""
        source, out = self.engine.source, {}
        enable = ctx.get(source.enable)
        if enable:
            self.requests.append(self.cycle)
        for b in range(self.arch.banks):
            if enable >> b & 1:
                word = self.maps[
                    ctx.get(source.group), ctx.get(getattr(source, f"row{b}")) * self.arch.banks + b
                ]
                out[b] = int.from_bytes(word.tobytes(), "little")
        return out

    def drive(self, ctx: SimulatorContext, p: int, port: Port) -> None:
        axi = getattr(self.engine, f"axi{p}")
        ctx.set(axi.aw.ready, self.rng.random() >= self.stall)
        ctx.set(axi.w.ready, self.rng.random() >= self.stall)
        if not port.answering and port.answers and port.answers[0] <= self.cycle:
            port.answering = self.rng.random() >= self.stall
        ctx.set(axi.b.valid, port.answering)
        ctx.set(axi.b.resp, 2 if port.answering and self.responses in self.faults else 0)

    def observe(self, ctx: SimulatorContext, p: int, port: Port) -> None:
        axi, t, beat = getattr(self.engine, f"axi{p}"), self.cycle, self.arch.beat_bytes
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
            port.beats.append((t, *w))
            self.timing.beats[p].append(t)
        if port.answering and ctx.get(axi.b.ready):
            port.answering = False
            port.answers.popleft()
            self.responses += 1
        if port.addresses and len(port.beats) >= port.addresses[0][2]:
            taken_at, address, beats, size = port.addresses.popleft()
            first = address // beat * beat - BASE
            for i in range(beats):
                _, data, strobes, last = port.beats.popleft()
                assert last == (i == beats - 1)
                for lane in range(beat):
                    at = first + i * beat + lane
                    assert (strobes >> lane & 1) == (address - BASE <= at < address - BASE + size)
                    if strobes >> lane & 1:
                        value = data >> 8 * lane & 255
                        self.dram[at] = value - 256 if value > 127 else value
            port.answers.append(max(taken_at + ACCEPT, t + 1) + RESPONSE - 1)

    def taken(
        self, ctx: SimulatorContext, port: Port, name: str, channel: object, members: tuple[Signal, ...]
    ) -> tuple[int, ...] | None:
        """What the channel hands over in this cycle; what waits stays as it is."""
        before = port.held.pop(name, None)
        if not ctx.get(channel.valid):  # type: ignore[attr-defined]
            assert before is None, f"{name} was withdrawn"
            return None
        now = tuple(ctx.get(s) for s in members)
        assert before in (None, now), f"{name} changed while it waited"
        if not ctx.get(channel.ready):  # type: ignore[attr-defined]
            port.held[name] = now
            return None
        return now


def program(arch: Arch, seed: int, count: int, most: int) -> list[Row]:
    rng, rows, at = random.Random(seed), [], rng_start(seed)
    for _ in range(count):
        row, at = random_save(arch, rng, at, most)
        rows.append(row)
        at += rng.choice((0, rng.randint(1, 300)))
    assert at <= DRAM_BYTES - 64
    return rows


def rng_start(seed: int) -> int:
    return 100 + 13 * (seed % 50)


def saved(bench: Bench, rows: list[Row], before: np.ndarray) -> np.ndarray:
    """DRAM as the emulator leaves it."""
    names = (
        "a_group",
        "a_base",
        "a_pitch",
        "a_plane",
        "a_rows",
        "a_row0",
        "address",
        "run_bytes",
        "runs1",
        "stride1",
    )
    names += ("stride2", "width", "height", "blocks", "take")
    for row in rows:
        save(bench.maps, before, *(row[n] for n in names))
    return before


MACHINES = {
    "one narrow port, one burst in flight": machine(1, 32, 4, 4, 1),
    "two ports, ten lanes": machine(2, 32, 10, 16, 2),
    "three ports": machine(3, 64, 6, 8, 3),
    "four ports": machine(4, 32, 12, 4, 2, pixels=1),
    "two wide ports": machine(2, 128, 16, 8, 2),
    "one port of 512 bits, few banks": machine(1, 512, 4, 4, 2, pixels=1, kib=16),
    "words wider than the port": machine(1, 32, 64, 16, 3, pixels=1),
}


CASES = [pytest.param(arch, 10 + i, id=name) for i, (name, arch) in enumerate(MACHINES.items())]


@pytest.mark.parametrize(("arch", "seed"), CASES)
def test_bytes_and_cycles_are_those_of_emulator_and_timing_rules(arch: Arch, seed: int) -> None:
    """Instructions back to back on a memory that never waits: every address, beat and token in its cycle."""
    rows = program(arch, seed, 6, 40 * arch.stream_bytes)
    bench = Bench(arch, seed)
    want = saved(bench, rows, bench.dram.copy())
    bench.run(rows)
    assert bench.timing == expected(rows, arch, 3)
    assert [b for row in rows for b in bursts_of(row, arch)] == bench.bursts
    assert np.array_equal(bench.dram, want)
    first, last = 3 + SAVE_START + ADDRESS, bench.timing.last[-1] + ADDRESS
    assert first <= bench.requests[0]
    assert bench.requests[-1] <= last


@pytest.mark.parametrize(("arch", "seed"), CASES)
def test_a_memory_that_stalls_changes_no_byte(arch: Arch, seed: int) -> None:
    """Any `ready` may wait, any response be late: bytes, beats, order and tokens stay whole."""
    rows = program(arch, seed + 100, 6, 24 * arch.stream_bytes)
    bench = Bench(arch, seed, stall=0.6)
    want = saved(bench, rows, bench.dram.copy())
    bench.run(rows)
    assert np.array_equal(bench.dram, want)
    assert len(bench.timing.done) == len(rows)
