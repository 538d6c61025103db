"""The slow twin of `kernel.run` and `timing`: plain Python, one cycle after the other, hardware words only.

Nothing is predicted: tokens are counters modulo 2^16 that grow when an instruction completes, a port is a flag, a
queue is a list, and each unit looks at what it sees in this cycle. For small programs and tests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import count

from ..ir.arch import Arch
from ..ir.isa import (
    COLUMNS,
    ENGINE_OF,
    FETCH_BYTES,
    WORD_BYTES,
    Engine,
    Memory,
    Opcode,
    Program,
    Region,
    VecOp,
)
from ..ir.latency import (
    BURST_INTERVAL,
    CONV_START,
    DISPATCH,
    DWC_START,
    FETCH_START,
    FETCH_TAIL,
    LOAD_RECEIVE,
    LOAD_START,
    LOAD_TAIL,
    SAVE_START,
    SAVE_TAIL,
    TOKEN,
    VEC_RESIZE,
    VEC_START,
    VEC_TAIL,
    conv_tail,
    dwc_tail,
)
from .dram import DramSpec
from .events import region_bases, region_starts
from .oracle_memory import SlowMemory, SlowRecording
from .replay import Replay

__all__ = ["busy_and_tail", "oracle_shared", "oracle_times"]

_Row = dict[str, int]


def _ways(pixels: int, stride: int, banks: int) -> int:
    """Most pixels that fall into one bank."""
    hits = [0] * banks
    for i in range(pixels):
        hits[i * stride % banks] += 1
    return max(hits)


def _groups(row: _Row, operand: str) -> range:
    """Map groups that an operand lies in."""
    return range(row[f"{operand}_group"], row[f"{operand}_group"] + row[f"{operand}_span"] + 1)


def busy_and_tail(row: _Row, arch: Arch) -> tuple[int, int]:
    """Busy cycles and tail of a compute instruction, by walking its loops."""
    op, lanes = row["opcode"], arch.lanes
    cycles = 0
    if op == Opcode.CONV:
        pixels, oc = arch.conv.pixels, arch.conv.oc
        if row["packed"]:
            tiles = len(range(0, row["out_h"] * row["out_w"], pixels))
        else:
            tiles = sum(len(range(0, row["out_w"], pixels)) for _ in range(row["out_h"]))
        parts = [range(c, min(c + oc, row["out_c"])) for c in range(0, row["out_c"], oc)]
        drains = []
        for mine in parts:
            words = {(row["lane0"] + c) // lanes for c in mine}
            drains.append(sum(len(words) * row["drain_ways"] for _ in range(0, pixels, arch.conv.drain)))
        if not row["last"]:
            drains = [0] * len(parts)
        parameters = len(range(0, 8, lanes))
        for mine in parts:
            inputs = len({c // lanes for c in mine}) if row["diagonal"] else row["blocks"]
            cycles += parameters
            for _ in range(tiles):
                cycles += max(row["kh"] * row["kw"] * inputs * row["ways"], *drains, 1)
        # The next instruction's first step could come before the last drain has ended.
        wait = max(0, drains[-1] - CONV_START - parameters)
        return CONV_START + cycles + wait, conv_tail(arch) + drains[-1] - wait
    if op == Opcode.DWC:
        d, kh, kw = arch.dwc, row["kh"], row["kw"]
        reads = -(-((d.pixels - 1) * row["sx"] + (kw - 1) * row["dx"] + 1) // arch.banks)
        per_row = min(d.taps // kw, max(1, d.taps // 3))  # kernel rows that fit into the taps of a cycle
        mac = len(range(0, kh, per_row)) if per_row else kh * len(range(0, kw, d.taps))
        drain = len(range(0, d.pixels, d.drain))
        fresh = (min(row["sy"], kh) if row["dy"] == 1 else kh) * reads
        for _ in range(0, lanes, d.channels):
            for _ in range(row["blocks"]):
                cycles += len(range(0, 8, d.taps))
                for _ in range(0, row["out_w"], d.pixels):
                    cycles += kh * reads
                    for r in range(row["out_h"]):  # behind every row but the last, the next one's are read
                        cycles += max(mac, fresh if r < row["out_h"] - 1 else 0, drain)
        return DWC_START + cycles, dwc_tail(arch) + drain
    v, columns = arch.vec.pixels, row["out_w"]
    shared = not set(_groups(row, "a")).isdisjoint(_groups(row, "b"))
    if row["func"] == VecOp.PRELU:
        cycles = row["blocks"] * lanes
    elif row["func"] == VecOp.RESIZE:
        cycles = VEC_RESIZE
    elif row["func"] in {VecOp.ADD, VecOp.MUL} and row["broadcast"] and shared:
        cycles = row["blocks"]  # the one pixel is read before the map
    for _ in range(row["blocks"] * row["out_h"]):
        match VecOp(row["func"]):
            case VecOp.ADD | VecOp.MUL:
                twice = shared and not row["broadcast"]
                cycles += len(range(0, columns, v)) * (1 + twice)
            case VecOp.PRELU:
                cycles += len(range(0, columns, v))
            case VecOp.MAX | VecOp.AVG if columns == 1:
                cycles += row["kh"] * len(range(0, row["kw"], v)) * _ways(v, row["dx"], arch.banks)
            case VecOp.MAX | VecOp.AVG:
                cycles += len(range(0, columns, v)) * row["kh"] * row["kw"] * _ways(v, row["sx"], arch.banks)
            case VecOp.TABLE:
                width = arch.vec.table_pixels if row["table"] else v
                cycles += len(range(0, columns, width)) * _ways(width, row["sx"], arch.banks)
            case VecOp.RESIZE:
                cycles += columns * (4 if row["bilinear"] else 1)
    return VEC_START + cycles, VEC_TAIL


def _bursts(row: _Row, base: int, limit: int) -> list[tuple[int, int]]:
    """Address and bytes of each burst: merged runs, cut at multiples of `limit`."""
    fill = row["opcode"] == Opcode.FILL
    runs = [
        base + row["address"] + i2 * row["stride2"] + i1 * row["stride1"]
        for i2 in range(1 if fill else row["runs2"])
        for i1 in range(1 if fill else row["runs1"])
    ]
    n, inner = row["run_bytes"], 1 if fill else row["runs1"]
    spans: list[list[int]] = []
    for i, at in enumerate(runs):
        # Hardware merges the inner dimension where it is contiguous, and the outer only where the inner is.
        joined = inner == 1 or row["stride1"] == n
        outer = joined and (fill or row["runs2"] == 1 or row["stride2"] == n * inner)
        if spans and (outer or (joined and i % inner)):
            spans[-1][1] += n
        else:
            spans.append([at, n])
    out = []
    for start, size in spans:
        at = start
        while at < start + size:
            step = min(start + size - at, limit - at % limit)
            out.append((at, step))
            at += step
    return out


def _needs(row: _Row, arch: Arch) -> list[int]:
    """Bytes of the stream up to the last one of each group; SAVE: up to the first one, inclusive."""
    op, take, lanes = row["opcode"], row["take"], arch.lanes
    ends, at = [], 0
    if op == Opcode.FILL:
        if row["func"] in {Memory.TABLES, Memory.VECTOR}:
            unit = 1 if row["func"] == Memory.TABLES else 4
            return list(range(unit, row["run_bytes"] + 1, unit))
        wide = row["func"] == Memory.WEIGHTS
        plane, depth = (arch.conv.oc, lanes) if wide else (lanes, arch.dwc.taps)
        for _ in range(row["records"]):
            left = 8
            for word in range(row["record_rows"]):
                planes = (
                    min(depth, left)
                    if left
                    else row["tail_take"]
                    if word == row["record_rows"] - 1
                    else depth
                )
                left -= min(left, planes) if left else 0
                at += planes * plane
                ends.append(at)
        return ends
    save = op == Opcode.SAVE
    straight = take == lanes and (save or (row["step"], row["fold"], row["fold_pad"]) == (lanes, 1, 0))
    row_bytes = row["width"] * take if save else row["row_bytes"]
    for r in range(row["blocks"] * row["height"]):
        if straight:
            columns = [
                range(x, min(x + arch.group_move, row["width"]))
                for x in range(0, row["width"], arch.group_move)
            ]
            ends += [r * row_bytes + (c[0] * lanes + 1 if save else (c[-1] + 1) * lanes) for c in columns]
        elif save:
            ends += [r * row_bytes + x * take + 1 for x in range(row["width"])]
        else:
            for x in range(row["width"]):
                for j in range(row["fold"]):
                    need = x * row["step"] + (j + 1) * take - row["fold_pad"]
                    need = r * row_bytes + min(max(need, 1), row_bytes)
                    ends.append(max(need, ends[-1]) if ends else need)
    return ends


@dataclass
class _Stream:
    """The issue side of LOAD or SAVE."""

    bursts: deque[tuple[int, int]] = field(default_factory=deque)
    row: int = -1
    not_before: int = 0
    count: int = 0
    moved: int = 0
    completed: int = 0
    slots: list[int] = field(default_factory=list)
    gather_end: int = -1
    needs: list[int] = field(default_factory=list)
    """Bytes of the stream that each group of words needs (SAVE: with which it has to be read)."""
    taken: int = 0


def oracle_times(
    program: Program, arch: Arch, spec: DramSpec | Replay, limit: int = 1_000_000
) -> tuple[int, list[list[int]]]:
    """Cycles, and (queued, start, busy_end, done) of each instruction, as `simulation.trace` gives them."""
    recorded = isinstance(spec, Replay)
    memory = SlowRecording(spec, arch) if isinstance(spec, Replay) else SlowMemory(spec.state(), arch)
    core = _lived(program, arch, memory, recorded)
    for _ in range(limit):
        try:
            next(core)
        except StopIteration as end:
            found: _Life = end.value
            return found.cycles, found.times
    raise TimeoutError(f"not finished after {limit} cycles")


def oracle_shared(
    programs: Sequence[Program],
    arch: Arch,
    spec: DramSpec,
    starts: Sequence[int],
    frames: int,
    steady: bool = True,
    limit: int = 1_000_000,
) -> list[list[list[tuple[int, int, list[list[int]]]]]]:
    """By core, frame and program: start and end on the memory's clock, and times, as `shared.trace_shared` gives them.

    In each cycle the cores live one after the other, the lowest first.
    """
    state, bases = spec.state(), region_starts(programs, len(starts))
    lives: list[list[tuple[int, int, list[list[int]]]]] = [[] for _ in starts]
    begin, cores = list(starts), [_idle() for _ in starts]
    for t in range(limit):
        for c, life in enumerate(lives):
            if begin[c] == t:
                job = len(life) % len(programs)
                cores[c] = _lived(programs[job], arch, SlowMemory(state, arch, t, int(bases[c, job])), True)
            try:
                next(cores[c])
            except StopIteration as end:
                found: _Life = end.value
                life.append((begin[c], begin[c] + found.cycles, found.times))
                begin[c] += max(found.cycles, found.fetched)
                cores[c] = _idle()
                if not steady and len(life) == frames * len(programs):
                    begin[c] = -1
        if min(map(len, lives)) >= frames * len(programs):
            n = len(programs)
            return [[life[f * n : (f + 1) * n] for f in range(frames)] for life in lives]
    raise TimeoutError(f"not finished after {limit} cycles")


@dataclass(frozen=True, slots=True)
class _Life:
    """A program's end."""

    cycles: int
    times: list[list[int]]
    fetched: int
    """Cycle from which the fetch port is free."""


def _idle() -> Generator[None, None, _Life]:
    """A core that has ended one program and not begun the next."""
    while True:
        yield


def _lived(program: Program, arch: Arch, memory: SlowMemory, whole: bool) -> Generator[None, None, _Life]:
    """A program on one core, a cycle each turn; with `whole`, up to the last word of the last fetch."""
    rows = [{name: int(v) for name, v in zip(COLUMNS, r, strict=True)} for r in program.fields]
    bases = region_bases(program)
    times = [[-1] * 4 for _ in rows]
    queues: dict[Engine, deque[int]] = {e: deque() for e in Engine}
    finished: dict[Engine, list[int]] = {e: [] for e in Engine}  # cycles of tokens, in order
    free = dict.fromkeys(Engine, 0)
    read_owner: dict[int, tuple[Engine, int | None]] = {}  # group: engine, cycle of release or None
    write_owner: dict[int, tuple[Engine, int | None]] = {}
    streams = {
        e: _Stream(slots=[0] * (arch.dma.outstanding * arch.dma.ports)) for e in (Engine.LOAD, Engine.SAVE)
    }
    per_fetch = FETCH_BYTES // WORD_BYTES
    fetch_at, fetch_next = 0, 0
    fetch_end = -(-len(rows) // per_fetch) * FETCH_BYTES
    ready: list[int | None] = [None] * len(rows)
    dispatched, end = 0, None
    dispatch_at: list[int] = []

    def token(engine: Engine, at: int) -> int:
        given = max(at, finished[engine][-1] + 1 if finished[engine] else at)
        finished[engine].append(given)
        return given

    def ports_of(row: _Row) -> tuple[set[int], set[int]]:
        op = row["opcode"]
        reads: set[int] = set(_groups(row, "a")) if op not in {Opcode.LOAD, Opcode.FILL} else set()
        if op == Opcode.VEC and row["func"] in {VecOp.ADD, VecOp.MUL}:
            reads |= set(_groups(row, "b"))
        pool = op == Opcode.VEC and row["func"] in {VecOp.MAX, VecOp.AVG}
        keeps = op == Opcode.CONV or pool
        silent = op in {Opcode.FILL, Opcode.SAVE} or (keeps and not row["last"])
        return reads, set() if silent else set(_groups(row, "d"))

    def taken(owner: dict[int, tuple[Engine, int | None]], groups: set[int], e: Engine, t: int) -> bool:
        for g in groups & owner.keys():
            other, until = owner[g]
            if other != e and (until is None or until > t):
                return True
        return False

    def work(s: _Stream, size: int) -> int:
        """Cycles to take one burst out chunk by chunk, or to gather it."""
        cycles, at = 0, s.taken
        for low in range(at, at + size, arch.stream_bytes):
            high = min(low + arch.stream_bytes, at + size)
            cycles += max(1, sum(low < need <= high for need in s.needs))
        return cycles

    def close(e: Engine, s: _Stream, t: int, at: int) -> None:
        """The last burst of a stream's instruction went out at `t`; its token is due at `at`."""
        i = s.row
        times[i][2], times[i][3] = s.moved, token(e, at)
        reads, writes = ports_of(rows[i])
        for g in reads:
            read_owner[g] = (e, t)
        for g in writes:
            write_owner[g] = (e, times[i][3] + 1)
        free[e] = t + 1 if e == Engine.LOAD else t
        s.row = -1

    for t in count():
        # Fetch: room for a whole group once enough instructions, up to the cycle before, were dispatched.
        gone = bisect_left(dispatch_at, t - FETCH_START + 1)
        room = (fetch_at // FETCH_BYTES + 1) * per_fetch - gone <= arch.queues.prefetch
        if fetch_at < fetch_end and room and t >= fetch_next:
            at = bases[Region.PROGRAM] + fetch_at
            size = min(FETCH_BYTES - fetch_at % FETCH_BYTES, arch.burst_bytes - at % arch.burst_bytes)
            asked, last = memory.read("fetch", 0, t, at, size)
            fetch_next = asked + 1
            for i in range(fetch_at // WORD_BYTES, min(len(rows), (fetch_at + size) // WORD_BYTES)):
                ready[i] = last + FETCH_TAIL
            fetch_at += size
        # LOAD puts one burst on the bus.
        s = streams[Engine.LOAD]
        if s.bursts and t >= s.not_before and t >= s.slots[s.count % len(s.slots)]:
            at, size = s.bursts.popleft()
            asked, last = memory.read("load", s.count % arch.dma.ports, t, at, size)
            s.moved = max(s.moved, last + LOAD_RECEIVE) + work(s, size)
            s.taken += size
            s.slots[s.count % len(s.slots)] = s.moved
            s.count += 1
            s.not_before = asked + BURST_INTERVAL
            if not s.bursts:
                close(Engine.LOAD, s, t, s.moved + LOAD_TAIL)
        # SAVE gathers a burst, and puts it on the bus when it is whole.
        s = streams[Engine.SAVE]
        while s.bursts:
            if s.gather_end < 0 and t >= s.not_before and t >= s.slots[s.count % len(s.slots)]:
                s.gather_end = t + max(work(s, s.bursts[0][1]), BURST_INTERVAL)
            if s.gather_end != t:
                break
            at, size = s.bursts.popleft()
            s.taken += size
            done = memory.write(s.count % arch.dma.ports, t, at, size)
            s.slots[s.count % len(s.slots)] = done
            s.completed = max(s.completed, done)
            s.count += 1
            s.moved, s.not_before, s.gather_end = t, t, -1
            if not s.bursts:
                close(Engine.SAVE, s, t, s.completed + SAVE_TAIL)
        # Dispatch, in order, one a cycle, while the queue has a place that was free in the cycle before.
        available = ready[dispatched] if dispatched < len(rows) else None
        if available is not None and available <= t:
            row = rows[dispatched]
            if row["opcode"] == Opcode.END:
                times[dispatched][0], end = t, t + 1
                dispatch_at.append(t)
                dispatched += 1
            else:
                e = ENGINE_OF[Opcode(row["opcode"])]
                if len(queues[e]) < arch.queues.depth:
                    queues[e].append(dispatched)
                    times[dispatched][0] = t
                    dispatch_at.append(t)
                    dispatched += 1
        # Engines start.
        for e in Engine:
            if not queues[e] or t < free[e]:
                continue
            i = queues[e][0]
            row = rows[i]
            if t < times[i][0] + DISPATCH or (e in streams and streams[e].row >= 0):
                continue
            counters = {o: bisect_left(finished[o], t - TOKEN + 1) for o in Engine}
            if any((counters[o] - row[f"wait_{o.name.lower()}"]) % 65536 >= 32768 for o in Engine):
                continue
            reads, writes = ports_of(row)
            if taken(read_owner, reads, e, t) or taken(write_owner, writes, e, t):
                continue
            queues[e].popleft()
            times[i][1] = t
            if e in streams:
                until_read = until_write = None
                s = streams[e]
                s.row = i
                s.bursts.extend(_bursts(row, bases[Region(row["region"])], arch.burst_bytes))
                s.needs, s.taken = _needs(row, arch), 0
                s.not_before = max(s.not_before, t + (LOAD_START if e == Engine.LOAD else SAVE_START))
            else:
                busy, tail = busy_and_tail(row, arch)
                free[e] = until_read = times[i][2] = t + busy
                times[i][3] = token(e, t + busy + tail)
                until_write = times[i][3] + 1
            for g in reads:
                read_owner[g] = (e, until_read)
            for g in writes:
                write_owner[g] = (e, until_write)
        fetched = not whole or fetch_at >= fetch_end
        if fetched and end is not None and all(x[3] >= 0 for x in times[:-1]):
            cycles = max(end, *(f[-1] for f in finished.values() if f), 0)
            return _Life(cycles, times, fetch_next)
        yield
    raise AssertionError
