"""When each instruction of a stream runs: five engines that overlap, and one memory behind two of them.

As `hwsim.kernel.run`, with two shortcuts: an instruction that starts is done with at once, and a transfer takes its share of
the memory as a whole instead of burst by burst. The memory's time is kept in spans of `SPAN` cycles, each with what is left of
it, so that two streams share it.
"""

# mypy: disable-error-code="untyped-decorator, no-any-return"

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["PORTS", "SPAN", "play"]

SPAN = 512
"""Cycles: the bytes in flight of a default machine, 16 KB, at its 32 bytes a cycle."""

PORTS = (
    *("depth", "prefetch", "token", "dispatch", "load_start", "load_receive", "load_tail", "save_start"),
    *(
        "save_send",
        "save_tail",
        "fetch_tail",
        "latency",
        "response",
        "window",
        "burst_bytes",
        "interval",
        "groups",
    ),
    *("stream_bytes", "beat_bytes"),
)
"""Whole numbers for `play`: queues, latencies of `ir.latency`, cycles from the request of a read to its first byte and of a write to its response, bursts in flight, bytes of a burst, map groups, bytes a cycle of
all ports and of one."""
(_DEPTH, _PREFETCH, _TOKEN, _DISPATCH, _LOAD_START, _LOAD_RECEIVE, _LOAD_TAIL, _SAVE_START, _SAVE_SEND, _SAVE_TAIL, _FETCH_TAIL,
 _LATENCY, _RESPONSE, _WINDOW, _BURST, _INTERVAL, _GROUPS, _STREAM, _BEAT) = range(19)  # fmt: skip

_LOAD, _SAVE = 0, 4
_PER_FETCH, _FETCH_BYTES = 16, 1024
_INF = 1e18


_inner = njit(
    error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)  # compiled into its callers, and cached with them


@_inner
def _reserve(left, at, need, least):  # type: ignore[no-untyped-def]
    """Take `need` cycles of the memory from cycle `at` on, spread over at least `least` cycles; when they are over."""
    if need <= 0.0:
        return at + least
    share = min(1.0, need / max(least, 1.0))
    spans = len(left)
    while True:
        span = int(at / SPAN)
        if span >= spans:
            return at + need / share
        room = (span + 1) * SPAN - at
        can = min(left[span], share * room, need)
        if can > 0.0:
            left[span] -= can
            need -= can
        if need <= 1e-6:
            return at + can / share
        at = float((span + 1) * SPAN)


@njit(cache=True, error_model="numpy")
def play(entries, wait, busy, tail, moved, p, rates, left):  # type: ignore[no-untyped-def]
    """Cycles of a stream.

    Parameters
    ----------
    entries, wait
        As `quick_waits.waits` gives them.
    busy, tail, moved : (kinds,)
        Cycles, and DRAM bytes, of each kind of instruction (`timing.costs`).
    p : (PORTS)
    rates : (2,)
        Bytes a cycle that the memory reads and writes.
    left : (spans,), scratch
        Cycles of the memory that are free in each span.
    """
    n, depth = len(entries), p[_DEPTH]
    count = np.zeros(6, np.int64)
    for s in range(n):
        count[entries[s, 0] + 1] += 1
    begin = np.cumsum(count)  # instructions by engine, in order
    index, order = np.zeros(n, np.int64), np.zeros(n, np.int64)
    filled = begin[:5].copy()
    for s in range(n):
        e = entries[s, 0]
        order[s] = filled[e] - begin[e]
        index[filled[e]] = s
        filled[e] += 1
    head = begin[:5].copy()
    queued, done = np.full(n, -1.0), np.full(n + 1, -1.0)  # done: by engine, in order
    start = np.full(n + 1, -1.0)
    free, given = np.zeros(5), np.zeros(5)
    tokens = np.full(5, -1.0)  # of the engines' next instructions; -1: not known yet
    owner = np.full((2, p[_GROUPS]), -1, np.int64)
    release = np.zeros((2, p[_GROUPS]))
    bus, data, gathered = (
        np.zeros(2),
        0.0,
        0.0,
    )  # ends of the transfers at the memory, of LOAD's and SAVE's streams
    taken = np.zeros((count[1] + 1, 3))  # bursts up to each LOAD, when its first and last are taken out
    total, loads, oldest, end = 0.0, 0, 0, 0.0
    dispatched, asked, last, fetched = 0, 0, -1.0, 0.0
    for _ in range(n):
        # Dispatch what can be.
        while dispatched < n:
            e = entries[dispatched, 0]
            if dispatched == asked:
                asked += _PER_FETCH
                before = asked - p[_PREFETCH]
                ask = queued[before - 1] + 2 if before > 0 else 0.0
                at = max(fetched - p[_FETCH_TAIL], ask + p[_LATENCY])
                # Behind the bursts of LOAD that are in flight, but not behind those that it will ask for.
                flying = min(max(0.0, bus[0] - at), p[_WINDOW] * p[_BURST] / rates[0])
                got = _reserve(left, at, _FETCH_BYTES / rates[0], _FETCH_BYTES / p[_BEAT])
                fetched = min(got, at + flying + _FETCH_BYTES / min(rates[0], p[_BEAT])) + p[_FETCH_TAIL]
            t = max(last + 1, fetched)
            if order[dispatched] >= depth:
                older = start[begin[e] + order[dispatched] - depth]
                if older < 0:
                    break
                t = max(t, older + 1)
            queued[dispatched] = last = t
            dispatched += 1
        # The engine that starts first.
        best, engine = _INF, -1
        for e in range(5):
            if head[e] == begin[e + 1]:
                continue
            s = index[head[e]]
            if queued[s] < 0:
                continue
            if tokens[e] < 0:
                at = 0.0
                for o in range(5):
                    if wait[s, o]:
                        given_at = done[begin[o] + wait[s, o] - 1]
                        if given_at < 0:
                            at = -1.0
                            break
                        at = max(at, given_at + p[_TOKEN])
                tokens[e] = at
                if at < 0:
                    continue
            t = max(queued[s] + p[_DISPATCH], free[e], tokens[e])
            for kind in range(2):
                mask, group = entries[s, 3 + kind], 0
                while mask:
                    if mask & 1 and owner[kind, group] != e and owner[kind, group] >= 0:
                        t = max(t, release[kind, group])
                    mask >>= 1
                    group += 1
            if t < best:
                best, engine = t, e
        s = index[head[engine]]
        kind = entries[s, 1]
        start[head[engine]] = best
        cost = float(busy[kind])
        if engine == _LOAD:
            bursts = max(float(entries[s, 2]), np.ceil(moved[kind] / p[_BURST]))
            one = min(moved[kind] / entries[s, 2], p[_BURST])
            at = best + p[_LOAD_START] + p[_LATENCY]
            least = bursts * max(p[_INTERVAL], p[_LATENCY] / p[_WINDOW])
            bus[0] = _reserve(
                left, max(bus[0], at), moved[kind] / rates[0], max(moved[kind] / p[_STREAM], least)
            )
            first = max(data, at + one / p[_BEAT] + p[_LOAD_RECEIVE])
            data = max(first + cost, bus[0] + p[_LOAD_RECEIVE] + one / p[_STREAM])
            # The last burst is asked for when the one that had its slot was taken out.
            total += bursts
            taken[loads, 0], taken[loads, 1], taken[loads, 2] = total, first, data
            loads += 1
            while taken[oldest, 0] < total - p[_WINDOW]:
                oldest += 1
            behind = taken[oldest, 0] - total + p[_WINDOW]
            each = (taken[oldest, 2] - taken[oldest, 1]) / (
                taken[oldest, 0] - (taken[oldest - 1, 0] if oldest else 0.0)
            )
            slot = taken[oldest, 2] - behind * each if total > p[_WINDOW] else 0.0
            free[_LOAD] = max(best + p[_LOAD_START] + (bursts - 1) * p[_INTERVAL], slot) + 1
            finish = data + p[_LOAD_TAIL]
        elif engine == _SAVE:
            bursts = max(float(entries[s, 2]), np.ceil(moved[kind] / p[_BURST]))
            one = min(moved[kind] / entries[s, 2], p[_BURST])
            at = max(gathered, best + p[_SAVE_START])
            cost = max(cost, bursts * p[_INTERVAL])
            bus[1] = _reserve(left, max(bus[1], at + one / p[_STREAM]), moved[kind] / rates[1], cost)
            gathered = max(at + cost, bus[1] - p[_WINDOW] * one / rates[1])
            free[_SAVE] = gathered
            finish = max(bus[1], gathered + p[_SAVE_SEND] + one / p[_BEAT]) + p[_RESPONSE] + p[_SAVE_TAIL]
        else:
            free[engine] = best + cost
            finish = free[engine] + tail[kind]
        finish = max(finish, given[engine] + 1)
        done[head[engine]] = given[engine] = finish
        end = max(end, finish)
        for kind in range(2):
            mask, group = entries[s, 3 + kind], 0
            while mask:
                if mask & 1:
                    owner[kind, group], release[kind, group] = engine, finish + 1 if kind else free[engine]
                mask >>= 1
                group += 1
        head[engine] += 1
        tokens[engine] = -1.0
    return end
