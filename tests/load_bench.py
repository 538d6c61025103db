"""A LOAD engine on a bench: an AXI memory, memories that its ports write, and a plain model of its cycles."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator
from map_words import flat, placed
from numpy.typing import NDArray
from tilewright.hwsim import emulate_dram
from tilewright.ir.arch import Arch
from tilewright.ir.isa import COLUMNS, Memory, Opcode, encode, instruction
from tilewright.ir.latency import BURST_INTERVAL, LOAD_RECEIVE, LOAD_START, LOAD_TAIL
from tilewright.rtl.load import LoadEngine

__all__ = [
    "BASES",
    "Bench",
    "Memories",
    "Row",
    "bursts",
    "expected",
    "instructions",
    "predicted",
    "random_dram",
    "small",
    "word_of",
    "words",
]

Row = dict[str, int]

BASES = (0x12_3456_7000, 0x45_0000_0000, 0x9A45_0001_0400)
"""Addresses of the regions; the last does not begin on a 4 KB boundary."""
_REGION_BYTES = 1 << 15


def small(**settings: int) -> Arch:
    """A small machine; settings as ``dma_bits=32``."""
    start = {
        "conv.pixels": 2, "conv.ic": 4, "conv.oc": 4, "conv.drain": 1, "dwc.pixels": 2, "dwc.channels": 4, "dwc.taps": 3,
        "dwc.drain": 1, "vec.pixels": 1, "maps.kib": 16, "maps.groups": 2, "weights.kib": 4, "weights.depthwise_kib": 3,
        "dma.bits": 32, "dma.ports": 2, "dma.burst": 8, "dma.outstanding": 2,
    }  # fmt: skip
    changes = {key.replace("_", ".", 1): value for key, value in settings.items()}
    return Arch.preset("b512").override(start | changes)


# -- random instructions -------------------------------------------------------------------------------------------------


def _split(rng: random.Random, total: int) -> tuple[int, int, int]:
    """Three factors of `total`, the first not too small."""

    def factor(n: int) -> int:
        return rng.choice([d for d in range(1, n + 1) if n % d == 0][-4:])

    run = factor(total)
    outer = factor(total // run)
    return run, total // run // outer, outer


def _runs(rng: random.Random, total: int) -> Row:
    run, runs1, runs2 = _split(rng, total)
    stride1 = run + rng.choice((0, 0, rng.randrange(1, 40)))
    stride2 = runs1 * stride1 + rng.choice((0, 0, rng.randrange(1, 40)))
    region = rng.randrange(3)
    room = _REGION_BYTES - (runs2 * stride2 + stride1)
    return {
        "region": region, "address": rng.randrange(room), "run_bytes": run, "runs1": runs1, "stride1": stride1,
        "runs2": runs2, "stride2": stride2,
    }  # fmt: skip


def _load(rng: random.Random, arch: Arch, kind: str) -> Row:
    lanes = arch.lanes
    width, height, blocks = rng.randrange(1, 14), rng.randrange(1, 5), rng.randrange(1, 3)
    take, fold, pad = lanes, 1, 0
    step = lanes
    if kind == "tail":
        take = step = rng.randrange(1, lanes + 1)
    elif kind == "fold":
        channels = rng.randrange(1, lanes // 2 + 1)
        columns = rng.randrange(1, lanes // channels + 1)
        take, fold, step = columns * channels, rng.randrange(1, 4), rng.randrange(1, 4) * channels
        pad = rng.randrange(3) * channels
    elif kind == "odd":
        take, fold, step = rng.randrange(1, lanes + 1), rng.choice((1, 2, 7)), rng.randrange(1, 3 * lanes)
        pad = rng.randrange(2 * lanes)
    row_bytes = (
        width * take if kind in {"straight", "tail"} else max(1, (width - 1) * step + fold * take - 2 * pad)
    )
    if kind in {"odd", "cut"}:
        row_bytes = max(1, row_bytes + rng.randrange(-2 * lanes, 2 * lanes))
    rows = height + rng.randrange(3)
    pitch = width + rng.randrange(3)
    planes = (blocks * fold) * rows * pitch
    if planes > arch.group_words:
        return _load(rng, arch, kind)
    return {
        "opcode": Opcode.LOAD, "d_group": rng.randrange(arch.maps.groups), "d_pitch": pitch, "d_plane": rows * pitch,
        "d_base": rng.randrange(arch.group_words - planes + 1), "d_rows": rows, "d_row0": rng.randrange(rows),
        "width": width, "height": height, "blocks": blocks, "take": take, "step": step, "fold": fold, "fold_pad": pad,
        "row_bytes": row_bytes, "za": rng.randrange(-128, 128), **_runs(rng, blocks * height * row_bytes),
    }  # fmt: skip


def _fill(rng: random.Random, arch: Arch, memory: Memory) -> Row:
    out: Row = {"opcode": Opcode.FILL, "func": memory, "region": rng.randrange(3)}
    if memory in (Memory.WEIGHTS, Memory.DEPTHWISE):
        wide = memory == Memory.WEIGHTS
        planes, lanes = (arch.lanes, arch.conv.oc) if wide else (arch.dwc.taps, arch.lanes)
        depth = arch.weight_words if wide else arch.depthwise_words
        head = -(-8 // planes)
        records, rows = rng.randrange(1, 4), head + rng.randrange(1, 4)
        tail = rng.randrange(1, planes + 1)
        out |= {"records": records, "record_rows": rows, "tail_take": tail}
        out["run_bytes"] = records * lanes * (8 + (rows - head - 1) * planes + tail)
        out["m_base"] = rng.randrange(depth - records * rows + 1)
    elif memory == Memory.TABLES:
        out |= {"records": 1, "run_bytes": 256, "m_base": rng.randrange(arch.weights.tables)}
    else:
        words = rng.randrange(1, 20)
        out |= {"run_bytes": 4 * words, "m_base": rng.randrange(arch.vector_words - words + 1)}
    return out | {"address": rng.randrange(_REGION_BYTES - out["run_bytes"])}


def instructions(rng: random.Random, arch: Arch, count: int) -> list[Row]:
    """Random LOADs and FILLs of all kinds."""
    fills = [memory for memory in Memory if arch.has_dwc or memory != Memory.DEPTHWISE]
    makers: list[Callable[[], Row]] = [
        *(lambda k=k: _load(rng, arch, k) for k in ("straight", "straight", "tail", "fold", "odd", "cut")),
        *(lambda k=k: _fill(rng, arch, k) for k in fills if k != Memory.TABLES),
    ]
    out = [rng.choice(makers)() for _ in range(count)]
    if count > 8:
        out[count // 2] = _fill(rng, arch, Memory.TABLES)
    return out


# -- values: the emulator ------------------------------------------------------------------------------------------------


@dataclass
class Memories:
    """All that LOAD and FILL write, empty at first."""

    arch: Arch
    maps: NDArray[np.int8] = field(init=False)
    weights: NDArray[np.int8] = field(init=False)
    depthwise: NDArray[np.int8] = field(init=False)
    tables: NDArray[np.int8] = field(init=False)
    vector: NDArray[np.uint32] = field(init=False)

    def __post_init__(self) -> None:
        a = self.arch
        self.maps = np.zeros((a.maps.groups, a.group_words, a.lanes), np.int8)
        self.weights = np.zeros((a.weight_words, a.lanes, a.conv.oc), np.int8)
        self.depthwise = np.zeros((a.depthwise_words, a.dwc.taps, a.lanes), np.int8)
        self.tables = np.zeros((a.weights.tables, 256), np.int8)
        self.vector = np.zeros(a.vector_words, np.uint32)

    def differences(self, other: Memories) -> list[str]:
        """Names of the memories whose contents differ."""
        names = ("maps", "weights", "depthwise", "tables", "vector")
        return [n for n in names if not np.array_equal(getattr(self, n), getattr(other, n))]


def expected(arch: Arch, rows: list[Row], dram: list[NDArray[np.int8]]) -> Memories:
    """What the emulator leaves in the memories."""
    out = Memories(arch)
    for row in rows:
        r = dict.fromkeys(COLUMNS, 0) | row
        data = dram[r["region"]]
        if r["opcode"] == Opcode.LOAD:
            names = (
                "d_base d_pitch d_plane d_rows d_row0 address run_bytes runs1 stride1 stride2 width height blocks "
                "take step fold fold_pad row_bytes za"
            )
            fields = placed(r, out.maps)
            emulate_dram.load(flat(out.maps), data, *(fields[n] for n in names.split()))
        elif r["func"] == Memory.WEIGHTS:
            record = (r["m_base"], r["records"], r["record_rows"], r["tail_take"])
            emulate_dram.fill_weights(out.weights, data, r["address"], *record)
        elif r["func"] == Memory.DEPTHWISE:
            record = (r["m_base"], r["records"], r["record_rows"], r["tail_take"])
            emulate_dram.fill_depthwise(out.depthwise, data, r["address"], *record)
        elif r["func"] == Memory.TABLES:
            emulate_dram.fill_tables(out.tables, data, r["address"], r["m_base"], r["records"])
        else:
            emulate_dram.fill_vector(out.vector, data, r["address"], r["run_bytes"], r["m_base"])
    return out


# -- cycles: the rules of docs/machine.md --------------------------------------------------------------------------------


def bursts(row: Row, arch: Arch) -> list[tuple[int, int]]:
    """Address and bytes of each burst of an instruction."""
    r = {"runs1": 1, "runs2": 1, "stride1": 0, "stride2": 0} | row
    n, inner, limit = r["run_bytes"], r["runs1"], arch.burst_bytes
    merged = inner == 1 or r["stride1"] == n
    whole = merged and (r["runs2"] == 1 or r["stride2"] == n * inner)
    spans: list[list[int]] = []
    for i in range(inner * r["runs2"]):
        at = BASES[r["region"]] + r["address"] + i // inner * r["stride2"] + i % inner * r["stride1"]
        if spans and (whole or (merged and i % inner)):
            spans[-1][1] += n
        else:
            spans.append([at, n])
    out = []
    for first, size in spans:
        at, end = first, first + size
        while at < end:
            out.append((at, min(end, at - at % limit + limit) - at))
            at += out[-1][1]
    return out


def needs(row: Row, arch: Arch) -> Iterator[int]:
    """For each group in order, the bytes of the stream that it needs."""
    if row["opcode"] == Opcode.FILL:
        at, memory = 0, row["func"]
        if memory in (Memory.TABLES, Memory.VECTOR):
            size = 1 if memory == Memory.TABLES else 4
            yield from range(size, row["run_bytes"] + 1, size)
            return
        planes, lanes = (
            (arch.lanes, arch.conv.oc) if memory == Memory.WEIGHTS else (arch.dwc.taps, arch.lanes)
        )
        for i in range(row["records"] * row["record_rows"]):
            word = i % row["record_rows"]
            if word * planes < 8:
                at += min(planes, 8 - word * planes) * lanes
            else:
                at += (row["tail_take"] if word == row["record_rows"] - 1 else planes) * lanes
            yield at
        return
    lanes, take, step, pad, size = arch.lanes, row["take"], row["step"], row["fold_pad"], row["row_bytes"]
    together = min(arch.banks, -(-arch.stream_bytes // lanes))
    straight = take == step == lanes and row["fold"] == 1 and pad == 0
    most = 0
    for r in range(row["blocks"] * row["height"]):
        if straight:
            ends = [min(x + together, row["width"]) * lanes for x in range(0, row["width"], together)]
        else:
            ends = [x * step + j * take - pad + take for x in range(row["width"]) for j in range(row["fold"])]
        for end in ends:
            most = max(most, r * size + min(max(end, 1), size))
            yield most


def words(row: Row) -> int:
    """Words of its memory that an instruction writes."""
    if row["opcode"] == Opcode.LOAD:
        return row["width"] * row["height"] * row["blocks"] * row["fold"]
    if row["func"] in (Memory.TABLES, Memory.VECTOR):
        return row["run_bytes"] // (1 if row["func"] == Memory.TABLES else 4)
    return row["records"] * row["record_rows"]


def predicted(
    arch: Arch, rows: list[Row], pauses: list[int], latency: Callable[[int], int]
) -> list[tuple[int, int, int]]:
    """Start, cycle of `last`, and `done` of each instruction, started `pauses` cycles after it could be."""
    ports, window = arch.dma.ports, arch.dma.outstanding * arch.dma.ports
    free, consumed, out = [0] * ports, [0] * window, []
    begin, issue, used, k = 0, -BURST_INTERVAL, 0, 0
    for row, pause in zip(rows, pauses, strict=True):
        start = begin + pause
        groups = deque(needs(row, arch))
        have, not_before = 0, start + LOAD_START
        for at, size in bursts(row, arch):
            issue = max(not_before, issue + BURST_INTERVAL, consumed[k % window])
            port = k % ports
            beats = -(-(at % arch.beat_bytes + size) // arch.beat_bytes)
            last = max(issue + latency(k), free[port]) + beats
            free[port] = last
            used = max(used, last + LOAD_RECEIVE)
            for first in range(0, size, arch.stream_bytes):
                have += min(arch.stream_bytes, size - first)
                complete = 0
                while groups and groups[0] <= have:
                    groups.popleft()
                    complete += 1
                used += max(1, complete)
            consumed[k % window] = used
            k += 1
        assert not groups
        out.append((start, issue, used + LOAD_TAIL))
        begin = issue + 1
    return out


# -- the bench -----------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """An engine, its memory, and what was seen of it.

    Parameters
    ----------
    latency : callable
        Cycles from the address of burst k to its first beat, at least 1.
    stall : float
        Share of cycles in which a channel is not ready or not valid.
    faults : dict
        Response of burst k, where it is not OKAY.
    """

    arch: Arch
    dram: list[NDArray[np.int8]]
    latency: Callable[[int], int] = lambda k: 5
    stall: float = 0.0
    faults: dict[int, int] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        self.memories = Memories(self.arch)
        self.rng = random.Random(self.seed)
        self.cycle = 0
        self.asked = 0
        self.lasts: list[int] = []
        self.dones: list[int] = []
        self.writes: list[int] = []  # cycle of each word written
        self.requests: list[tuple[int, int]] = []
        self.flying: list[deque[tuple[int, int, int, int]]] = [deque() for _ in range(self.arch.dma.ports)]
        self.free = [0] * self.arch.dma.ports
        self.held: list[tuple[int, int, int] | None] = [None] * self.arch.dma.ports
        self.dut = LoadEngine(self.arch)

    def fresh(self) -> None:
        """Forget what was seen; the cycle goes on."""
        self.memories = Memories(self.arch)
        self.asked = 0
        for seen in (self.lasts, self.dones, self.writes, self.requests):
            seen.clear()

    def run(self, script: Callable[..., object]) -> None:
        """Run ``script(bench, ctx)``, which calls `tick` for each cycle."""

        async def testbench(ctx) -> None:  # type: ignore[no-untyped-def]
            for r, base in enumerate(BASES):
                ctx.set(getattr(self.dut, f"base{r}"), base)
            await script(self, ctx)  # type: ignore[misc]

        sim = Simulator(self.dut)
        sim.add_clock(1e-6)
        sim.add_testbench(testbench)
        sim.run()

    async def tick(self, ctx) -> None:  # type: ignore[no-untyped-def]
        """One cycle: answer the bus, note what the ports do."""
        for p in range(self.arch.dma.ports):
            self._bus(ctx, p)
        control = self.dut.control
        if ctx.get(control.last):
            self.lasts.append(self.cycle)
        if ctx.get(control.done):
            self.dones.append(self.cycle)
        self._ports(ctx)
        await ctx.tick()
        self.cycle += 1

    def _bus(self, ctx, p: int) -> None:  # type: ignore[no-untyped-def]
        axi, arch = getattr(self.dut, f"axi{p}"), self.arch
        ready = self.rng.random() >= self.stall
        ctx.set(axi.ar.ready, ready)
        if ctx.get(axi.ar.valid):
            address, beats, size = ctx.get(axi.ar.addr), ctx.get(axi.ar.len) + 1, ctx.get(axi.ar.user) + 1
            assert self.held[p] in (None, (address, beats, size)), "the address changed while it waited"
            self.held[p] = None if ready else (address, beats, size)
            if ready:
                assert address // 4096 == (address + size - 1) // 4096, "a burst crosses 4 KB"
                assert beats == -(-(address % arch.beat_bytes + size) // arch.beat_bytes)
                assert beats <= arch.dma.burst
                assert self.asked % arch.dma.ports == p, "bursts go to the ports in turn"
                self.requests.append((address, size))
                begin = max(self.cycle + self.latency(self.asked), self.free[p])
                self.free[p] = begin + beats
                for i in range(beats):
                    at = address // arch.beat_bytes * arch.beat_bytes + i * arch.beat_bytes
                    last = int(i == beats - 1)
                    self.flying[p].append((begin + i, at, last, self.faults.get(self.asked, 0)))
                self.asked += 1
        else:
            assert self.held[p] is None, "an address was withdrawn"
        assert ctx.get(axi.r.ready)
        queue = self.flying[p]
        valid = bool(queue) and queue[0][0] <= self.cycle and self.rng.random() >= self.stall
        ctx.set(axi.r.valid, valid)
        if valid:
            _, at, last, response = queue.popleft()
            ctx.set(axi.r.data, self._beat(at))
            ctx.set(axi.r.last, last)
            ctx.set(axi.r.resp, response)

    def _beat(self, at: int) -> int:
        value = 0
        for i in range(self.arch.beat_bytes):
            region = max(r for r in range(3) if BASES[r] <= at + i) if at + i >= BASES[0] else 0
            offset = at + i - BASES[region]
            byte = int(self.dram[region][offset]) if 0 <= offset < _REGION_BYTES else self.rng.randrange(256)
            value |= (byte & 255) << 8 * i
        return value

    def _ports(self, ctx) -> None:  # type: ignore[no-untyped-def]
        dut, memories = self.dut, self.memories
        enable = ctx.get(dut.target.enable)
        if enable:
            group = ctx.get(dut.target.group)
            for b in range(self.arch.banks):
                if enable >> b & 1:
                    word = ctx.get(getattr(dut.target, f"row{b}")) * self.arch.banks + b
                    assert ctx.get(getattr(dut.target, f"mask{b}")) == (1 << self.arch.lanes) - 1
                    data = ctx.get(getattr(dut.target, f"data{b}"))
                    flat(memories.maps)[group * self.arch.group_words + word] = _bytes(data, self.arch.lanes)
                    self.writes.append(self.cycle)
        for name in ("weights", "depthwise", "tables", "vector"):
            port = getattr(dut, name, None)
            if port is None or not ctx.get(port.enable):
                continue
            address, data = ctx.get(port.address), ctx.get(port.data)
            memory = getattr(memories, name)
            if name == "vector":
                memory[address] = data
            elif name == "tables":
                memory.reshape(-1)[address] = _bytes(data, 1)[0]
            else:
                memory[address] = _bytes(data, memory[0].size).reshape(memory[0].shape)
            self.writes.append(self.cycle)


def _bytes(value: int, count: int) -> NDArray[np.int8]:
    return np.frombuffer(value.to_bytes(count, "little"), np.int8)


def word_of(row: Row) -> int:
    """The instruction as its 512-bit word."""
    fields = {k: v for k, v in row.items() if k not in {"opcode", "func"}}
    encoded = encode(instruction(Opcode(row["opcode"]), row.get("func", 0), **fields)[None])
    return int.from_bytes(encoded, "little")


def random_dram(seed: int) -> list[NDArray[np.int8]]:
    """Three regions of random bytes."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-128, 128, _REGION_BYTES, dtype=np.int8) for _ in range(3)]
