"""The compiled heart: the DRAM model and the event simulation of a program.

Both live in one file because numba's cache notices edits in a kernel's own file only. Everything is an integer:
cycles of the core clock outside, *ticks* of 1/256 cycle inside the DRAM, so that results are the same everywhere.

**DRAM.** `dram_access` is one plain function over one int64 array; it also stands behind the RTL in co-simulation.
A request is cut into segments of one page and one bank group. A segment waits for its row (open, closed, or another
row open), for its bank group (column commands to one group are tCCD_L apart) and for the data bus, which it holds
for tCCD_S a column burst: bursts of two groups interleave, bursts of one group leave gaps. Rows are opened as soon
as a request arrives, so a row miss behind other traffic costs nothing. Writes are posted: they collect to
`WRITE_BATCH` bytes, and a batch pays one turnaround of the bus.

**Events.** Each actor (fetch, dispatch, the issue side of LOAD and SAVE, five engines) names the earliest cycle of
its next action from what has happened so far; the earliest acts, ties in the order of the list. Every action
allows others only at later cycles, or at the same cycle to actors later in the list, so one pass is exact.

**Cores.** Cores meet in the DRAM alone. So each may run ahead (`_advance`) up to its next burst, and that has to wait
only until no other core can ask earlier: the core with the earliest burst goes on, up to the burst that another one
waits with; of two in one cycle the lower core's is first. All that a core is lies in one array between two turns.

**Replay.** In place of the DRAM, a recording may answer (`hwsim.replay`): `_replayed` and `_send` take its waits.
"""

# mypy: disable-error-code="untyped-decorator, no-any-return, assignment, arg-type"

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "DRAM_HEADER",
    "LOG",
    "PARAMETERS",
    "REPLAYED",
    "REPLAY_BEAT",
    "REPLAY_HEADER",
    "REPLAY_PORT",
    "REPLAY_ROW",
    "TABLE",
    "dram_access",
    "run",
]

_Array = NDArray[np.int64]

TICKS = 256
"""DRAM ticks in a core cycle."""

DRAM_HEADER = (
    *(
        "kind",
        "front",
        "back",
        "response",
        "byte_ticks",
    ),  # kind 0 fixed, 1 banked, 2 replayed (then there is nothing else here); byte_ticks in 1/65536 tick
    *(
        "column_bytes",
        "burst",
        "ccd_l",
        "cl",
        "cwl",
        "rcd",
        "rp",
        "ras",
        "rrd",
        "faw",
        "wtr",
        "rtw",
        "wr",
        "rtp",
    ),
    *("refi", "rfc", "page_bytes", "banks", "groups", "group_bytes", "write_batch"),
    *("bus_free", "last_write", "next_refresh", "pending_bytes", "pending_ready", "drained", "act_at"),
    *("act0", "act1", "act2", "act3"),
    *("activates", "read_bytes", "write_bytes", "refreshes", "read_columns", "write_columns"),
)
"""Slots of the DRAM state, then per bank: open row, earliest precharge; then per group: column commands free."""

(_KIND, _FRONT, _BACK, _RESPONSE, _BYTE_TICKS, _COLUMN, _BURST, _CCDL, _CL, _CWL, _RCD, _RP, _RAS, _RRD, _FAW,
 _WTR, _RTW, _WR, _RTP, _REFI, _RFC, _PAGE, _BANKS, _GROUPS, _GROUP_BYTES, _BATCH, _BUS, _LAST_WRITE, _REFRESH,
 _PENDING, _PENDING_READY, _DRAINED, _ACT_AT, _ACT0, _ACT1, _ACT2, _ACT3, _N_ACT, _N_READ, _N_WRITE, _N_REFRESH,
 _N_RCOL, _N_WCOL) = range(43)  # fmt: skip
_BANK0 = 43


@njit(cache=True)
def _refresh(s: _Array, at: int) -> None:
    """Do the refreshes that are due at tick `at`: all rows closed, the bus blocked for tRFC."""
    due = max(at, s[_BUS])
    if due < s[_REFRESH]:
        return
    count = (due - s[_REFRESH]) // s[_REFI] + 1
    begin = max(s[_REFRESH] + (count - 1) * s[_REFI], s[_BUS])
    s[_BUS] = begin + s[_RFC]
    for bank in range(s[_BANKS]):
        s[_BANK0 + 2 * bank] = -1
        s[_BANK0 + 2 * bank + 1] = max(s[_BANK0 + 2 * bank + 1], begin + s[_RFC])
    s[_REFRESH] += count * s[_REFI]
    s[_N_REFRESH] += count


@njit(cache=True)
def _open_row(s: _Array, at: int, address: int) -> tuple[int, int]:
    """Column commands to the row of `address` may go out at the first number; the second is the bank's slot."""
    if (
        s[_GROUPS] > 1
    ):  # bank groups alternate every group_bytes: take their bits out, the rest is page and bank
        chunk, inside = address // s[_GROUP_BYTES], address % s[_GROUP_BYTES]
        group = chunk % s[_GROUPS]
        inner = chunk // s[_GROUPS] * s[_GROUP_BYTES] + inside
        each = s[_BANKS] // s[_GROUPS]
        bank = group * each + inner // s[_PAGE] % each
        row = inner // s[_PAGE] // each
    else:
        bank, row = address // s[_PAGE] % s[_BANKS], address // s[_PAGE] // s[_BANKS]
    slot = _BANK0 + 2 * bank
    if s[slot] == row:
        return at, slot
    act = max(at, s[slot + 1])
    if s[slot] >= 0:
        act += s[_RP]
    act = max(act, s[_ACT0 + (s[_ACT_AT] + 3) % 4] + s[_RRD], s[_ACT0 + s[_ACT_AT]] + s[_FAW])
    s[_ACT0 + s[_ACT_AT]] = act
    s[_ACT_AT] = (s[_ACT_AT] + 1) % 4
    s[_N_ACT] += 1
    s[slot], s[slot + 1] = row, act + s[_RAS]
    return act + s[_RCD], slot


@njit(cache=True)
def dram_access(s: _Array, now: int, address: int, size: int, write: int) -> tuple[int, int]:
    """One burst of `size` bytes asked for at cycle `now`; calls come in time order.

    Returns
    -------
    first, last : int
        Read: the first byte is at the port at cycle `first`, all bytes at `last`. Write: accepted at `last`.
    """
    s[_N_WRITE if write else _N_READ] += size
    if s[_KIND] == 0:
        begin = max(now * TICKS, s[_BUS])
        end = begin + ((size * s[_BYTE_TICKS] + 65535) >> 16)
        s[_BUS] = end
        if write:
            return now, (end + TICKS - 1) // TICKS
        return (begin + s[_BACK]) // TICKS, (end + s[_BACK] + TICKS - 1) // TICKS
    arrival = now * TICKS + s[_FRONT]
    if write:
        accepted = max(arrival, s[_DRAINED])
        at, stop = address, address + size
        while at < stop:
            step = min(stop - at, s[_GROUP_BYTES] - at % s[_GROUP_BYTES])
            ready, slot = _open_row(s, arrival, at)
            s[_PENDING_READY] = max(s[_PENDING_READY], ready)
            columns = (at % s[_COLUMN] + step + s[_COLUMN] - 1) // s[_COLUMN]
            s[_PENDING] += columns
            s[_N_WCOL] += columns
            if s[_PENDING] * s[_COLUMN] >= s[_BATCH]:
                _refresh(s, arrival)
                begin = max(s[_PENDING_READY] + s[_CWL], s[_BUS] + (0 if s[_LAST_WRITE] else s[_RTW]))
                end = begin + s[_PENDING] * s[_BURST]
                s[_BUS], s[_LAST_WRITE], s[_DRAINED] = end, 1, end
                s[_PENDING] = s[_PENDING_READY] = 0
                s[slot + 1] = max(s[slot + 1], end + s[_WR])
            at += step
        return now, (accepted + TICKS - 1) // TICKS
    first, last, at, stop = -1, 0, address, address + size
    while at < stop:
        step = min(stop - at, s[_GROUP_BYTES] - at % s[_GROUP_BYTES])
        _refresh(s, arrival)
        ready, slot = _open_row(s, arrival, at)
        columns = (at % s[_COLUMN] + step + s[_COLUMN] - 1) // s[_COLUMN]
        s[_N_RCOL] += columns
        group = _BANK0 + 2 * s[_BANKS] + (at // s[_GROUP_BYTES]) % s[_GROUPS]
        begin = max(ready + s[_CL], s[_BUS] + (s[_WTR] + s[_CL] if s[_LAST_WRITE] else 0), s[group])
        end = begin + (columns - 1) * s[_CCDL] + s[_BURST]
        s[_BUS], s[_LAST_WRITE], s[group] = begin + columns * s[_BURST], 0, begin + columns * s[_CCDL]
        s[slot + 1] = max(s[slot + 1], end - s[_CL] + s[_RTP])
        if first < 0:
            first = (begin + s[_BACK]) // TICKS
        last = max(last, end)
        at += step
    return first, (last + s[_BACK] + TICKS - 1) // TICKS


REPLAYED = 2
"""Kind of a state that a recording is behind. After the header, for FETCH, LOAD and SAVE: bursts asked for, bursts
recorded, slot of their rows; then the slot of the ports' rows."""
REPLAY_HEADER = 10
REPLAY_ROW = 5
"""A burst: cycles that its address waits, and to its end; out: cycle in which it was asked for, address, bytes."""
REPLAY_PORT = 7
"""A port: beats of write data so far, recorded, slot of their rows; cycle from which the address channel is free; pipe
cycle in which the way to the bus is free; cycles that it stood still; cycle in which the last beat was taken."""
REPLAY_BEAT = 4
"""A beat: cycles that it waits; out: cycle in which it was on the bus, cycles from and to which the way stood still."""
_ENTER, _WAY = 7, 6
"""Cycles from a burst's entry into the way to its first beat on the bus, and to the end of the way."""


@njit(cache=True)
def _replayed(s: _Array, channel: int, now: int, address: int, size: int) -> tuple[int, int]:
    """The next burst of a channel, whose address is on the bus at `now`: cycle in which it is taken, and its second wait."""
    at = len(DRAM_HEADER) + 3 * channel
    k = s[at]
    s[at] += 1
    if k >= s[at + 1]:  # not recorded: as quick as can be
        return now, 1
    row = s[at + 2] + k * REPLAY_ROW
    s[row + 2], s[row + 3], s[row + 4] = now, address, size
    return now + s[row], s[row + 1]


@njit(cache=True)
def _send(s: _Array, port: int, now: int, send: int, beats: int) -> int:
    """Cycle in which the last beat of a burst is taken, whose address was ready at `now`.

    The way from the burst buffer to the bus is a pipeline with two places at its end. While both are taken it stands
    still, so what is inside is counted in *pipe cycles*, those in which it moves.
    """
    r = s[len(DRAM_HEADER) + 9] + port * REPLAY_PORT
    rows = s[r + 2]
    ripe = now + send - _ENTER
    # Pipe cycle of `ripe`: without the cycles before it in which the way stood still.
    enter, k = ripe - s[r + 5], min(s[r], s[r + 1]) - 1
    while k >= 0 and s[rows + k * REPLAY_BEAT + 1] > ripe:
        begin, end = s[rows + k * REPLAY_BEAT + 2], s[rows + k * REPLAY_BEAT + 3]
        if end >= begin and end >= ripe:
            enter += end - max(begin, ripe) + 1
        k -= 1
    enter = max(enter, s[r + 4])
    s[r + 4] = enter + beats
    for j in range(beats):
        reached, before = enter + _WAY + j + s[r + 5], s[r + 6]
        k, wait = s[r], 0
        s[r] += 1
        shown = max(reached, before) + 1
        if k < s[r + 1]:
            row = rows + k * REPLAY_BEAT
            wait = s[row]
            s[row + 1], s[row + 2], s[row + 3] = shown, reached + 1, before
        s[r + 5] += max(0, before - reached)
        s[r + 6] = shown + wait
    return s[r + 6]


TABLE = (
    *("engine", "busy", "tail", "wait_load", "wait_conv", "wait_dwc", "wait_vec", "wait_save"),
    *(
        "reads",
        "writes",
        "address",
        "run_bytes",
        "runs1",
        "stride1",
        "runs2",
        "stride2",
        "order",
    ),
    *("shape", "row_bytes", "group_bytes", "row_groups", "step", "take", "fold", "pad"),
)
"""Columns of an instruction for `run`: waits are absolute counts, reads and writes are masks of map groups, runs that
are contiguous are merged, `order` is its place among its engine's instructions. The END row has engine -1. The last
eight describe the stream of a LOAD, FILL or SAVE (`_groups`)."""
(_ENGINE, _BUSY, _TAIL, _WAIT, _READS, _WRITES, _ADDRESS, _RUN, _RUNS1, _STRIDE1, _RUNS2, _STRIDE2,
 _ORDER, _SHAPE, _ROW_BYTES, _GROUP, _ROW_GROUPS, _STEP, _TAKE, _FOLD, _PAD) = (0, 1, 2, 3, *range(8, 25))  # fmt: skip

PLAIN, LOADED, WORDS, RECORDS, SAVED = range(5)
"""Shapes of a stream: every chunk completes at most one group; groups of `group_bytes` from the start of each row of
`row_bytes`; single words of a folded or narrow row; records of a FILL; as LOADED, but a group is read when its first byte
is needed."""

PARAMETERS = (
    *("depth", "prefetch", "beat_bytes", "ports", "burst_bytes", "stream_bytes", "outstanding", "groups"),
    *("dispatch", "load_start", "load_tail", "save_start", "save_tail", "program_base", "group_bytes"),
    *("token", "fetch_start", "fetch_tail", "interval", "receive", "send"),
)
"""Entries of the machine vector for `run`."""
(_DEPTH, _PREFETCH, _BEAT, _PORTS, _BURST_BYTES, _STREAM, _OUTSTANDING, _MAP_GROUPS, _DISPATCH, _LOAD_START,
 _LOAD_TAIL, _SAVE_START, _SAVE_TAIL, _PROGRAM, _FETCH_BYTES, _TOKEN, _FETCH_START, _FETCH_TAIL, _INTERVAL,
 _RECEIVE, _SEND) = range(21)  # fmt: skip

_INF = 1 << 62
_WORD = 64
_LOAD, _SAVE = 0, 4
_C_FETCH, _C_QUEUE, _C_PORT, _C_DRAM = 7, 8, 6, 9
"""Places in `results.CAUSES`; a token's cause is 1 + engine."""


@njit(cache=True)
def _hold(owner: _Array, release: _Array, row: _Array, e: int, reads_until: int, writes_until: int) -> None:
    """Engine `e` owns the ports of instruction `row`."""
    for group in range(owner.shape[1]):
        if row[_READS] >> group & 1:
            owner[0, group], release[0, group] = e, reads_until
        if row[_WRITES] >> group & 1:
            owner[1, group], release[1, group] = e, writes_until


@njit(cache=True)
def _groups(row: _Array, at: int) -> int:
    """Groups that the first `at` bytes of a stream complete (SAVED: that have to be read for them)."""
    shape = row[_SHAPE]
    before, at = at // row[_ROW_BYTES] * row[_ROW_GROUPS], at % row[_ROW_BYTES]
    if shape == LOADED:
        return before + at // row[_GROUP]
    if shape == SAVED:
        return before + (at + row[_GROUP] - 1) // row[_GROUP]
    if at == 0:
        return before
    if (
        shape == RECORDS
    ):  # `take` bytes of parameters in words of `group_bytes`, then taps; the last word is `pad` bytes
        if at < row[_TAKE]:
            return before + at // row[_GROUP]
        head = (row[_TAKE] + row[_GROUP] - 1) // row[_GROUP]
        return before + head + (at - row[_TAKE]) // row[_GROUP]
    # Words in the order column, fold: a column is whole with byte x*step + fold*take - pad of its row.
    whole = at + row[_PAD] - row[_FOLD] * row[_TAKE]
    columns = whole // row[_STEP] + 1 if whole >= 0 else 0
    last = row[_ROW_GROUPS] // row[_FOLD]
    if columns >= last:
        return before + row[_ROW_GROUPS]
    part = (at + row[_PAD] - columns * row[_STEP]) // row[_TAKE]
    return before + columns * row[_FOLD] + min(max(part, 0), row[_FOLD] - 1)


@njit(cache=True)
def _taking(row: _Array, at: int, size: int, stream: int) -> int:
    """Cycles to take `size` bytes out of a burst whose first byte is byte `at` of the stream, or to gather them."""
    if row[_SHAPE] == PLAIN:
        return (size + stream - 1) // stream
    cycles, known, end = 0, _groups(row, at), at + size
    while at < end:
        at = min(at + stream, end)
        now = _groups(row, at)
        cycles += max(1, now - known)
        known = now
    return cycles


_ROWS = 17
"""Of a core's state: the marks, then vectors by engine, or by LOAD and SAVE."""
(_BEGUN, _FETCH_AT, _FETCH_NEXT, _FETCH_PORT, _DISPATCHED, _DISPATCH_NEXT, _COMPLETED, _END_AT, _LEFT,
 _LOGGED) = range(10)  # fmt: skip
_MARKS = 10

LOG = ("channel", "now", "address", "size", "first", "last")
"""A burst that a core asked for: 0 fetch, 1 read, 2 write; then what `dram_access` took and gave."""

_WAITING, _FINISHED, _STUCK = range(3)


@njit(cache=True)
def _ask(
    dram: _Array, marks: _Array, log: _Array, place: _Array, channel: int, now: int, address: int, size: int
) -> tuple[int, int]:
    """`dram_access` on the core's own clock, its regions where `place` (start cycle, address) says."""
    at, there = now + place[0], address + place[1]
    first, last = dram_access(dram, at, there, size, 1 if channel == 2 else 0)
    k = marks[_LOGGED]
    if k < len(log):
        log[k, 0], log[k, 1], log[k, 2], log[k, 3], log[k, 4], log[k, 5] = (
            channel,
            at,
            there,
            size,
            first,
            last,
        )
    marks[_LOGGED] = k + 1
    return first - place[0], last - place[0]


@njit(cache=True)
def _advance(
    table: _Array,
    by_engine: _Array,
    p: _Array,
    dram: _Array,
    times: _Array,
    cause: _Array,
    stalls: _Array,
    totals: _Array,
    core: _Array,
    words: _Array,
    map_groups: _Array,
    slots: _Array,
    ports: _Array,
    log: _Array,
    place: _Array,
    until: int,
    whole: bool,
) -> tuple[int, int]:
    """Go on with one program on one core.

    Parameters
    ----------
    core, words, map_groups, slots, ports : state, zeros before the first call
        (_ROWS, _MARKS); (2, n); (4, groups); (2, outstanding bursts) when the one that had this slot was consumed or
        completed; (3, ports).
    place : (2,)
        Cycle of the memory's clock in which the program starts; where its regions start.
    until : int
        Bursts are asked for up to this cycle of the memory's clock.
    whole : bool
        Fetch the last group of words to its end, though nobody waits for it: others feel it in the DRAM.

    Returns
    -------
    (_WAITING, cycle of the memory's clock of the next burst), (_FINISHED, cycles) or (_STUCK, 0)
    """
    n, window = len(table), p[_OUTSTANDING] * p[_PORTS]
    marks = core[0]
    head = core[1]  # instructions started, by engine
    free = core[2]  # cycle at which the engine can start another
    given = core[3]  # cycle of its last token
    count = core[4]
    owner, release = map_groups[:2], map_groups[2:]  # read ports, write ports
    blocked_by_fetch, available = words[0], words[1]
    # DMA: index 0 the issue side of LOAD, 1 of SAVE.
    port_free, answered = ports[:2], ports[2]  # answered: last write response of each port, one a cycle
    bursts, now_doing, offset, r1, r2 = core[5], core[6], core[7], core[8], core[9]
    issue_next, moved = core[10], core[11]  # moved: consumed or gathered up to here
    stream = core[12]  # bytes of the instruction's stream that bursts have taken
    limits, reasons = core[13:15], core[15:17]  # of the instruction that issues: queued, tokens, port
    if marks[_BEGUN] == 0:
        marks[_BEGUN], marks[_LEFT] = 1, n
        times[:] = -1
        given[:] = -1
        owner[:] = -1
        available[:] = _INF
        now_doing[:] = -1
        reasons[:] = _C_PORT
        for e in range(5):
            count[e] = (table[:, _ENGINE] == e).sum()
    fetch_at, fetch_next, fetch_port = marks[_FETCH_AT], marks[_FETCH_NEXT], marks[_FETCH_PORT]
    dispatched, dispatch_next = marks[_DISPATCHED], marks[_DISPATCH_NEXT]
    completed, end_at, left = marks[_COMPLETED], marks[_END_AT], marks[_LEFT]
    per_group = p[_FETCH_BYTES] // _WORD
    fetch_total = (n + per_group - 1) // per_group * p[_FETCH_BYTES]
    latest = until - place[0] if until < _INF else _INF
    whole = whole or dram[_KIND] == REPLAYED
    gather = -1  # cycles that SAVE gathers its next burst; below 0: not looked at yet
    # What is recorded of a bus goes on until the last group of words is fetched, which nobody may be waiting for.
    while left > 0 or (whole and fetch_at < fetch_total):
        best, actor = _INF, -1
        # 0: FETCH
        if fetch_at < fetch_total:
            need = (fetch_at // p[_FETCH_BYTES] + 1) * per_group - p[_PREFETCH]
            if need <= dispatched:
                t = fetch_next
                if need > 0 and times[need - 1, 0] + p[_FETCH_START] > t:
                    t = times[need - 1, 0] + p[_FETCH_START]
                best, actor = t, 0
        # 1, 2: bursts of LOAD and SAVE
        if now_doing[0] >= 0:
            t = max(issue_next[0], slots[0, bursts[0] % window])
            if t < best:
                best, actor = t, 1
        if now_doing[1] >= 0:
            if gather < 0:
                i = now_doing[1]
                address = (
                    table[i, _ADDRESS] + r1[1] * table[i, _STRIDE1] + r2[1] * table[i, _STRIDE2] + offset[1]
                )
                size = min(p[_BURST_BYTES] - address % p[_BURST_BYTES], table[i, _RUN] - offset[1])
                gather = max(_taking(table[i], stream[1], size, p[_STREAM]), p[_INTERVAL])
            t = max(moved[1], issue_next[1], slots[1, bursts[1] % window]) + gather
            if t < best:
                best, actor = t, 2
        # 3: DISPATCH
        if dispatched < n and available[dispatched] < _INF:
            t = max(dispatch_next, available[dispatched])
            e = table[dispatched, _ENGINE]
            ok = True
            if e >= 0 and table[dispatched, _ORDER] >= p[_DEPTH]:
                older = times[by_engine[e, table[dispatched, _ORDER] - p[_DEPTH]], 1]
                ok = older >= 0
                t = max(t, older + 1)
            if ok and t < best:
                best, actor = t, 3
        # 4..8: an engine starts its next instruction
        for e in range(5):
            if head[e] == count[e]:
                continue
            i = by_engine[e, head[e]]
            if times[i, 0] < 0 or (e == _LOAD and now_doing[0] >= 0) or (e == _SAVE and now_doing[1] >= 0):
                continue
            t = max(times[i, 0] + p[_DISPATCH], free[e])
            if t >= best:  # it gets no earlier
                continue
            for o in range(5):
                wait = table[i, _WAIT + o]
                if wait > 0:
                    token = times[by_engine[o, wait - 1], 3]
                    t = max(t, token + p[_TOKEN] if token >= 0 else _INF)
            if t >= best:
                continue
            for kind in range(2):
                mask, group = table[i, _READS + kind], 0
                while mask:
                    if mask & 1 and owner[kind, group] != e and owner[kind, group] != -1:
                        t = max(t, release[kind, group])
                    mask, group = mask >> 1, group + 1
            if t < best:
                best, actor = t, 4 + e

        if actor < 0 or best >= _INF:
            return _STUCK, 0
        t = best
        if t > latest and actor <= 2:
            marks[_FETCH_AT], marks[_FETCH_NEXT], marks[_FETCH_PORT] = fetch_at, fetch_next, fetch_port
            marks[_DISPATCHED], marks[_DISPATCH_NEXT] = dispatched, dispatch_next
            marks[_COMPLETED], marks[_END_AT], marks[_LEFT] = completed, end_at, left
            return _WAITING, t + place[0]
        d, address, size = actor - 1, 0, 0
        first = last = taken = t
        if actor <= 2:
            if actor == 0:
                address = p[_PROGRAM] + fetch_at
                size = min(
                    p[_FETCH_BYTES] - fetch_at % p[_FETCH_BYTES], p[_BURST_BYTES] - address % p[_BURST_BYTES]
                )
            else:
                i = now_doing[d]
                address = (
                    table[i, _ADDRESS] + r1[d] * table[i, _STRIDE1] + r2[d] * table[i, _STRIDE2] + offset[d]
                )
                size = min(p[_BURST_BYTES] - address % p[_BURST_BYTES], table[i, _RUN] - offset[d])
            if dram[_KIND] != REPLAYED:
                first, last = _ask(dram, marks, log, place, actor, t, address, size)
        if actor == 0:
            if dram[_KIND] == REPLAYED:
                taken, wait = _replayed(dram, 0, t, address, size)
                fetch_port = taken + wait
            else:
                fetch_port = max(last, max(first, fetch_port) + (size + p[_BEAT] - 1) // p[_BEAT])
            fetch_next = taken + 1
            for i in range(fetch_at // _WORD, min(n, (fetch_at + size) // _WORD)):
                available[i] = fetch_port + p[_FETCH_TAIL]
            fetch_at += size
        elif actor <= 2:
            i = now_doing[d]
            work = _taking(table[i], stream[0], size, p[_STREAM]) if d == 0 else gather
            beats = (address % p[_BEAT] + size + p[_BEAT] - 1) // p[_BEAT]
            slot, port, e = bursts[d] % window, bursts[d] % p[_PORTS], 4 * d
            before = moved[d]
            first_burst = offset[d] == 0 and r1[d] == 0 and r2[d] == 0
            if d == 0:
                if dram[_KIND] == REPLAYED:
                    taken, wait = _replayed(dram, 1, t, address, size)
                    last = taken + wait
                else:
                    port_free[0, port] = last = max(last, max(first, port_free[0, port]) + beats)
                begin = max(moved[0], last + p[_RECEIVE])
                moved[0] = begin + work
                slots[0, slot] = moved[0]
            else:
                begin, gather = t - work, -1
                moved[1] = t
                if dram[_KIND] == REPLAYED:
                    sent = _send(dram, port, t, p[_SEND], beats)
                    channel = dram[len(DRAM_HEADER) + 9] + port * REPLAY_PORT + 3
                    taken, wait = _replayed(dram, 2, max(t, dram[channel]), address, size)
                    dram[channel] = taken + 1
                    answered[port] = max(max(taken, sent) + wait, answered[port] + 1)
                else:
                    port_free[1, port] = max(t + p[_SEND], port_free[1, port]) + beats
                    answered[port] = max(max(last, port_free[1, port]) + dram[_RESPONSE], answered[port] + 1)
                slots[1, slot] = answered[port]
                completed = max(completed, slots[1, slot])
            issue_next[d] = taken + p[_INTERVAL] if d == 0 else t
            stream[d] += size
            bursts[d] += 1
            totals[e, 0] += work
            if first_burst:  # the wait before this instruction's first byte, cause by cause
                at = before
                for c in range(3):
                    if limits[d, c] > at:
                        stalls[e, reasons[d, c]] += limits[d, c] - at
                        at = limits[d, c]
                if d == 1:
                    setup = min(p[_SAVE_START], max(0, begin - at))
                    totals[e, 0] += setup
                    at += setup
                stalls[e, _C_DRAM] += max(0, begin - at)
            else:
                stalls[e, _C_DRAM] += begin - before
            # Next burst, or the end of this instruction.
            offset[d] += size
            if offset[d] == table[i, _RUN]:
                offset[d] = 0
                r1[d] += 1
                if r1[d] == table[i, _RUNS1]:
                    r1[d] = 0
                    r2[d] += 1
            if r2[d] == table[i, _RUNS2]:
                now_doing[d] = -1
                stream[d] = 0
                tail = moved[0] + p[_LOAD_TAIL] if d == 0 else completed + p[_SAVE_TAIL]
                times[i, 2] = moved[d]
                times[i, 3] = given[e] = max(tail, given[e] + 1)
                free[e] = t + 1 if d == 0 else t
                totals[e, 1] = moved[d]
                _hold(owner, release, table[i], e, t, times[i, 3] + 1)
                left -= 1
        elif actor == 3:
            blocked_by_fetch[dispatched] = t == available[dispatched]
            times[dispatched, 0] = t
            if table[dispatched, _ENGINE] < 0:
                end_at = t + 1
                left -= 1
            dispatch_next = t + 1
            dispatched += 1
        else:
            e = actor - 4
            i = by_engine[e, head[e]]
            queued, tokens, why = times[i, 0] + p[_DISPATCH], 0, 0
            for o in range(5):
                wait = table[i, _WAIT + o]
                if wait > 0 and times[by_engine[o, wait - 1], 3] + p[_TOKEN] > tokens:
                    tokens, why = times[by_engine[o, wait - 1], 3] + p[_TOKEN], 1 + o
            after_token = max(free[e], queued, tokens)
            if t > after_token:
                cause[i] = _C_PORT
            elif tokens > max(free[e], queued):
                cause[i] = why
            elif queued > free[e]:
                cause[i] = _C_FETCH if blocked_by_fetch[i] else _C_QUEUE
            times[i, 1] = t
            head[e] += 1
            dma = e in (_LOAD, _SAVE)
            if dma:
                d = 0 if e == _LOAD else 1
                now_doing[d] = i
                offset[d] = r1[d] = r2[d] = 0
                issue_next[d] = max(issue_next[d], t + (p[_LOAD_START] if d == 0 else p[_SAVE_START]))
                limits[d, 0], limits[d, 1], limits[d, 2] = queued, tokens, t if t > after_token else 0
                reasons[d, 0], reasons[d, 1] = _C_FETCH if blocked_by_fetch[i] else _C_QUEUE, why
            else:
                at = free[e]
                if queued > at:
                    stalls[e, _C_FETCH if blocked_by_fetch[i] else _C_QUEUE] += queued - at
                    at = queued
                if tokens > at:
                    stalls[e, why] += tokens - at
                    at = tokens
                stalls[e, _C_PORT] += t - at
                free[e] = t + table[i, _BUSY]
                totals[e, 0] += table[i, _BUSY]
                totals[e, 1] = free[e]
                times[i, 2] = free[e]
                times[i, 3] = given[e] = max(free[e] + table[i, _TAIL], given[e] + 1)
                left -= 1
            _hold(owner, release, table[i], e, _INF if dma else free[e], _INF if dma else times[i, 3] + 1)
    cycles = end_at
    for e in range(5):
        cycles = max(cycles, given[e])
    marks[_FETCH_NEXT] = fetch_next
    return _FINISHED, cycles


@njit(cache=True)
def run(
    table: _Array,
    first: _Array,
    by_engine: _Array,
    p: _Array,
    dram: _Array,
    places: _Array,
    frames: int,
    steady: bool,
    times: _Array,
    cause: _Array,
    stalls: _Array,
    totals: _Array,
    spans: _Array,
    log: _Array,
) -> int:
    """Simulate cores that run the same programs, frame after frame; 0, or -1 where nothing can go on.

    Parameters
    ----------
    table : (n, len(TABLE))
        All programs of a frame, one behind the other.
    first : (programs + 1,)
        Where each begins in `table`.
    by_engine : (programs, 5, most)
        Instructions of each engine, in order, counted from the program's first.
    p : (programs, len(PARAMETERS))
        Machine vectors.
    dram : DRAM state
    places : (cores, programs, 2)
        Cycle of the memory's clock in which a core starts, and where the program's regions start in the DRAM.
    frames : int
        That every core finishes.
    steady : bool
        Those that are ready earlier go on with another frame, until all have theirs; else they rest.
    times : (cores, rows, n, 4), out
        queued, start, busy_end, done, on a clock that begins with the program. Here and below a row is a frame, and
        with several cores there is a last one more, for the frames beyond.
    cause : (cores, rows, n), out
        What it waited for before its start.
    stalls : (cores, rows, programs, 5, len(CAUSES)), out
    totals : (cores, rows, programs, 5, 2), out
        Busy cycles; the cycle at which the engine had nothing left.
    spans : (cores, rows, programs, 2), out
        Start and end of each program on the memory's clock.
    log : (cores, bursts, len(LOG)), out
        The first bursts of each core.
    """
    many, programs, rows = len(places), len(first) - 1, times.shape[1]
    begun = places[:, 0, 0].copy()  # of the program that runs
    asks = begun.copy()  # no burst of this core comes earlier
    frame, job = np.zeros(many, np.int64), np.zeros(many, np.int64)
    place = np.zeros(2, np.int64)
    # State of each core; the largest program's words.
    core, words = np.zeros((many, _ROWS, _MARKS), np.int64), np.zeros((many, 2, table.shape[0]), np.int64)
    map_groups = np.zeros((many, 4, p[0, _MAP_GROUPS]), np.int64)
    slots = np.zeros((many, 2, p[0, _OUTSTANDING] * p[0, _PORTS]), np.int64)
    ports = np.zeros((many, 3, p[0, _PORTS]), np.int64)
    unfinished = many
    while unfinished > 0:
        c = 0
        for k in range(1, many):
            if asks[k] < asks[c]:
                c = k
        until = _INF
        for k in range(many):
            if k != c:
                until = min(until, asks[k] if k > c else asks[k] - 1)
        j, f = job[c], min(frame[c], rows - 1)
        a, b = first[j], first[j + 1]
        place[0], place[1] = begun[c], places[c, j, 1]
        found, at = _advance(
            table[a:b], by_engine[j], p[j], dram, times[c, f, a:b], cause[c, f, a:b], stalls[c, f, j], totals[c, f, j],
            core[c], words[c], map_groups[c], slots[c], ports[c], log[c], place, until, many > 1,
        )  # fmt: skip
        if found == _STUCK:
            return -1
        if found == _WAITING:
            asks[c] = at
            continue
        spans[c, f, j, 0], spans[c, f, j, 1] = begun[c], begun[c] + at
        begun[c] += max(at, core[c, 0, _FETCH_NEXT]) if many > 1 else at
        asks[c] = begun[c]
        logged = core[c, 0, _LOGGED]
        core[c], words[c], map_groups[c], slots[c], ports[c] = 0, 0, 0, 0, 0
        core[c, 0, _LOGGED] = logged
        job[c] += 1
        if job[c] == programs:
            job[c], frame[c] = 0, frame[c] + 1
            unfinished -= frame[c] == frames
            if frame[c] == frames and not steady:
                asks[c] = _INF
        if f == rows - 1 and rows > frames:
            stalls[c, f] = 0
            totals[c, f] = 0
    return 0
