"""SAVE in hardware: bytes as the emulator writes them, cycles as the timing rules say, AXI's own rules."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Signal
from amaranth.sim import Simulator, SimulatorContext
from numpy.typing import NDArray
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


def pads(row: Row, arch: Arch) -> int:
    """Cycles before a first burst that one group fills: it has to take `BURST_INTERVAL`."""
    group = row["take"] * (min(arch.group_move, row["width"]) if row["take"] == arch.lanes else 1)
    return int(bursts_of(row, arch)[0][1] <= min(group, arch.stream_bytes))


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
    free, completed = [0] * ports, list[int]()
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
                word = self.maps[
                    ctx.get(source.group), ctx.get(getattr(source, f"row{b}")) * self.arch.banks + b
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


def program(arch: Arch, seed: int, count: int, most: int) -> list[Row]:
    """SAVEs of at most `most` bytes each, one behind the other in DRAM."""
    rng, rows, at = random.Random(seed), [], 100 + 13 * (seed % 50)
    for _ in range(count):
        row, at = random_save(arch, rng, at, most)
        rows.append(row)
        at += rng.choice((0, rng.randint(1, 300)))
    assert at <= DRAM_BYTES - 64
    return rows


def saved(bench: Bench, rows: list[Row]) -> NDArray[np.int8]:
    """DRAM as the emulator leaves it."""
    names = [
        *("a_group", "a_base", "a_pitch", "a_plane", "a_rows", "a_row0", "address", "run_bytes", "runs1"),
        *("stride1", "stride2", "width", "height", "blocks", "take"),
    ]
    dram = bench.dram.copy()
    for row in rows:
        save(bench.maps, dram, *(row[n] for n in names))
    return dram


MACHINES = {
    "one narrow port, one burst in flight": machine(1, 32, 4, 4, 1),
    "two ports, ten lanes": machine(2, 32, 10, 16, 2),
    "three ports": machine(3, 64, 6, 8, 3),
    "four ports": machine(4, 32, 12, 4, 2, pixels=1),
    "two wide ports": machine(2, 128, 16, 8, 2),
    "one port of 512 bits, few banks": machine(1, 512, 4, 4, 2, pixels=1, kib=16),
    "words wider than the port": machine(1, 32, 64, 16, 3, pixels=1),
    "bursts of one beat": machine(2, 64, 8, 1, 5),
}
CASES = [pytest.param(arch, 10 + i, id=name) for i, (name, arch) in enumerate(MACHINES.items())]


@pytest.mark.parametrize(("arch", "seed"), CASES)
def test_bytes_and_cycles_are_those_of_emulator_and_timing_rules(arch: Arch, seed: int) -> None:
    """Instructions back to back on a memory that never waits: every address, beat and token in its cycle."""
    rows = program(arch, seed, 6, 24 * arch.stream_bytes)
    bench = Bench(arch, seed)
    want = saved(bench, rows)
    bench.run((rows, None))
    assert bench.timing == expected(rows, arch, bench.first)
    assert [b for row in rows for b in bursts_of(row, arch)] == bench.bursts
    assert np.array_equal(bench.dram, want)
    assert bench.requests[0] == bench.first + SAVE_START + ADDRESS + pads(rows[0], arch)
    assert bench.requests[-1] <= bench.timing.last[-1] + ADDRESS


@pytest.mark.parametrize(("arch", "seed"), CASES)
def test_a_memory_that_stalls_changes_no_byte(arch: Arch, seed: int) -> None:
    """Any `ready` may wait, any response be late: bytes, beats, order and tokens stay whole."""
    rows = program(arch, seed + 100, 5, 16 * arch.stream_bytes)
    bench = Bench(arch, seed, stall=0.6)
    want = saved(bench, rows)
    bench.run((rows, None))
    assert np.array_equal(bench.dram, want)
    assert len(bench.timing.done) == len(rows)
    assert not bench.errors


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_an_abort_ends_between_two_bursts_and_leaves_nothing_behind(stall: float) -> None:
    """What was announced arrives whole, nothing else does; then the engine runs as if it had been reset."""
    arch = MACHINES["three ports"]
    rows, others = program(arch, 5, 6, 400), program(arch, 6, 3, 200)
    bench = Bench(arch, 7, stall=stall)
    want, full = bench.dram.copy(), saved(bench, rows)
    cut = [(rows, t) for t in (4, 11, 40, 90, 153)]
    bench.run(*cut, (others, None))
    sizes = [len(bursts_of(row, arch)) for row in rows]
    first = 0
    for (count, done), _ in zip(bench.counts, cut, strict=False):
        assert sum(sizes[:done]) <= count - first < sum(sizes)
        for address, size in bench.bursts[first:count]:
            want[address - BASE :][:size] = full[address - BASE :][:size]
        first = count
    assert first > len(cut)
    bench.dram, seen = want, bench.dram
    assert np.array_equal(seen, saved(bench, others))
    assert stall or bench.timing == expected(others, arch, bench.first)


def test_an_error_is_told_with_the_address_of_its_burst() -> None:
    """SLVERR and DECERR come out; the token comes all the same."""
    arch = MACHINES["one narrow port, one burst in flight"]
    rows = program(arch, 3, 4, 100)
    bench = Bench(arch, 3, faults=0.3)
    bench.run((rows, None))
    assert bench.errors == bench.faulty
    assert len(bench.errors) > 3
    assert len(bench.timing.done) == len(rows)
