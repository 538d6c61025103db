"""When each action of a stream runs, in one pass in stream order: five engines that overlap, one memory behind two of them.

The start of an action depends on what stands before it in the stream alone: its engine, the maps it reads, the rows of rings
and the constants it overwrites, its queue. Only the memory is shared by engines that run far ahead of each other; its time is
kept in spans of `SPAN` cycles, each with what is left of it, so that a later action can use an earlier span.
"""

# mypy: disable-error-code="untyped-decorator, no-any-return"

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["PORTS", "play"]

SPAN = 512
"""Cycles: half of the bytes in flight of a default machine."""
AHEAD = 4
"""As `memories.AHEAD`, which a test holds it to."""

PORTS = (
    *("depth", "prefetch", "weight_words", "deep_words", "tables", "vector_words", "token", "dispatch"),
    *("load_start", "load_receive", "load_tail", "save_start", "save_send", "save_tail", "fetch", "latency"),
    *("response", "window", "burst_bytes", "interval"),
)
"""Whole numbers for `play`: queues, sizes of the memories, latencies of `ir.latency`, cycles from the request of a group of
instructions to their dispatch, of a read to its first byte and of a write to its response, bytes in flight, of a burst."""
(_DEPTH, _PREFETCH, _WEIGHT_WORDS, _DEEP_WORDS, _TABLES, _VECTOR_WORDS, _TOKEN, _DISPATCH, _LOAD_START, _LOAD_RECEIVE,
 _LOAD_TAIL, _SAVE_START, _SAVE_SEND, _SAVE_TAIL, _FETCH, _LATENCY, _RESPONSE, _WINDOW, _BURST, _INTERVAL) = range(20)  # fmt: skip

_LOAD, _CONV, _DWC, _VEC, _SAVE = range(5)
_PER_FETCH = 16
_ENGINE, _ROW, _MAP, _LOW, _HIGH, _RING, _BLOCK, _READS, _WEIGHTS, _CONSTANTS, _RUNS, _GROUP = range(12)


@njit(cache=True)
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


@njit(cache=True)
def play(actions, reads, chunks, busy, tail, moved, blocks, offsets, rows, p, rates, left, used):  # type: ignore[no-untyped-def]
    """Cycles of a stream.

    Parameters
    ----------
    actions, reads, chunks
        Of a `quick_unroll.Stream`.
    busy, tail, moved : (kinds,)
        Cycles, and DRAM bytes, of each kind of instruction (`timing.costs`).
    blocks : (maps,)
        Blocks of channels of a map.
    offsets : (maps + 1,)
        Where the rows of a map begin in arrays of all rows.
    p : (PORTS,)
    rates : (2,)
        Bytes a cycle that the memory reads and writes.
    left : (spans,), scratch
        Cycles of the memory that are free in each span.
    used : (kinds,), out
        How often each kind of instruction stands in the stream.

    Returns
    -------
    cycles, instructions
    """
    n = len(actions)
    made = np.zeros(offsets[-1])  # when a row is complete
    free_at = np.zeros(offsets[-1])  # when its last reader was done
    half = np.zeros(
        (len(blocks), 2)
    )  # blocks that the last action on the map had done, and when the first was
    free, given = np.zeros(5), np.zeros(5)
    depth = p[_DEPTH]
    starts, order = np.zeros((5, depth)), np.zeros(5, np.int64)
    queued = np.zeros(p[_PREFETCH] + _PER_FETCH)  # dispatch times of the last instructions
    dispatched, dispatch, fetched = 0, -1.0, 0.0
    data, write_data = 0.0, 0.0  # when LOAD's and SAVE's streams are free
    # circular memories: virtual address of the head, oldest chunk that is alive
    size = np.array([p[_WEIGHT_WORDS], p[_DEEP_WORDS], p[_TABLES], p[_VECTOR_WORDS]])
    head = np.zeros(4, np.int64)
    base = np.zeros(len(chunks) + 1, np.int64)
    arrived, last_read = np.zeros(len(chunks) + 1), np.zeros(len(chunks) + 1)
    last_use, first_use = np.zeros(len(chunks) + 1, np.int64), np.zeros(len(chunks) + 1, np.int64)
    queue = np.zeros((4, len(chunks) + 1), np.int64)  # chunks of a memory in order
    oldest, newest = np.zeros(4, np.int64), np.zeros(4, np.int64)
    cleared = np.zeros(4)  # when what the head may overwrite was read for the last time
    for i in range(n):
        for k in (actions[i, _WEIGHTS], actions[i, _CONSTANTS]):
            if k >= 0:
                last_use[k] = i
                if first_use[k] == 0:
                    first_use[k] = i + 1
    upcoming, end = 0, 0.0
    i = 0
    ahead = 0  # 0: what action i itself needs; 1: what comes soon
    while i < n or ahead:
        # The next instruction: a FILL, or action i.
        fill = -1
        a = actions[i - ahead]
        now = i - ahead
        if upcoming < len(chunks):
            wanted = first_use[upcoming] - 1 <= (now + AHEAD if ahead else now)
            if wanted:
                k = upcoming
                memory, words = chunks[k, 0], chunks[k, 1]
                # Free what nobody reads any more.
                limit = now + 1 if ahead else now
                at = head[memory]
                if at % size[memory] + words > size[memory]:
                    at += size[memory] - at % size[memory]
                while (
                    oldest[memory] < newest[memory]
                    and last_use[queue[memory, oldest[memory]]] < limit
                    and (base[queue[memory, oldest[memory]]] < at + words - size[memory])
                ):
                    cleared[memory] = max(cleared[memory], last_read[queue[memory, oldest[memory]]])
                    oldest[memory] += 1
                fits = (
                    oldest[memory] == newest[memory]
                    or base[queue[memory, oldest[memory]]] >= at + words - size[memory]
                )
                if fits or not ahead:
                    fill = k
                    base[k], head[memory] = at, at + words
                    queue[memory, newest[memory]] = k
                    newest[memory] += 1
                    upcoming += 1
        if fill < 0:
            if ahead:
                ahead = 0
                continue
            ahead = 1
            i += 1
        engine = _LOAD if fill >= 0 else a[_ENGINE]
        kind = chunks[fill, 2] if fill >= 0 else a[_ROW]
        used[kind] += 1
        # Dispatch: instructions arrive sixteen at a time, and wait for a place in their queue.
        if dispatched % _PER_FETCH == 0:
            before = dispatched + _PER_FETCH - p[_PREFETCH]
            ask = queued[(before - 1) % len(queued)] + 2 if before > 0 else 0.0
            fetched = max(fetched, ask + p[_FETCH])
        dispatch = max(dispatch + 1, fetched)
        if order[engine] >= depth:
            dispatch = max(dispatch, starts[engine, order[engine] % depth] + 1)
        queued[dispatched % len(queued)] = dispatch
        dispatched += 1
        ready = max(dispatch + p[_DISPATCH], free[engine])
        # Tokens.
        if fill >= 0:
            ready = max(ready, cleared[chunks[fill, 0]] + p[_TOKEN])
        else:
            t = a[_MAP]
            if a[_WEIGHTS] >= 0:
                ready = max(ready, arrived[a[_WEIGHTS]] + p[_TOKEN])
            if a[_CONSTANTS] >= 0:
                ready = max(ready, arrived[a[_CONSTANTS]] + p[_TOKEN])
            stop = actions[now + 1, _READS] if now + 1 < n else len(reads)
            for r in range(a[_READS], stop):
                source, high = reads[r, 0], reads[r, 2]
                at = made[offsets[source] + high - 1]
                if engine == _DWC and a[_BLOCK] < blocks[source] and half[source, 0] >= a[_BLOCK]:
                    at = min(at, half[source, 1])
                ready = max(ready, at + p[_TOKEN])
            if engine != _SAVE and a[_HIGH] - a[_RING] > 0:
                ready = max(ready, free_at[offsets[t] + a[_HIGH] - a[_RING] - 1] + p[_TOKEN])
        starts[engine, order[engine] % depth] = ready
        order[engine] += 1
        cost = float(busy[kind])
        if engine == _LOAD:
            bursts = max(1.0 if fill >= 0 else float(a[_RUNS]), moved[kind] / p[_BURST])
            least = max(cost, bursts * p[_INTERVAL])
            begin = max(data, ready + p[_LOAD_START] + p[_LATENCY])
            data = _reserve(left, begin, moved[kind] / rates[0], least)
            free[_LOAD] = (
                max(
                    ready + p[_LOAD_START] + bursts * p[_INTERVAL], data - p[_LATENCY] - p[_WINDOW] / rates[0]
                )
                + 1
            )
            done = data + p[_LOAD_RECEIVE] + p[_LOAD_TAIL]
        elif engine == _SAVE:
            begin = max(write_data, ready + p[_SAVE_START] + p[_SAVE_SEND])
            write_data = _reserve(
                left, begin, moved[kind] / rates[1], max(cost, float(a[_RUNS] * p[_INTERVAL]))
            )
            free[_SAVE] = max(ready + p[_SAVE_START] + cost, write_data - p[_WINDOW] / rates[1])
            done = write_data + p[_RESPONSE] + p[_SAVE_TAIL]
        else:
            free[engine] = ready + cost
            done = free[engine] + tail[kind]
        done = max(done, given[engine] + 1)
        given[engine] = done
        end = max(end, done)
        if fill >= 0:
            arrived[fill] = last_read[fill] = done
            continue
        if engine != _SAVE and a[_HIGH] > a[_LOW]:
            if a[_BLOCK] == blocks[t]:
                made[offsets[t] + a[_LOW] : offsets[t] + a[_HIGH]] = done
            elif a[_BLOCK] and half[t, 0] == 0:
                half[t, 0], half[t, 1] = a[_BLOCK], done
        for k in (a[_WEIGHTS], a[_CONSTANTS]):
            if k >= 0:
                last_read[k] = max(last_read[k], done)
        for r in range(a[_READS], stop):
            source = reads[r, 0]
            for y in range(offsets[source] + reads[r, 1], offsets[source] + reads[r, 2]):
                free_at[y] = max(free_at[y], done)
    return end, dispatched
