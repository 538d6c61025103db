"""What each instruction of a stream waits for: `memories.fill_memories` and `hazards.assign_waits` on rows instead of words.

A wait is a count of instructions of an engine, as in the instruction set.
"""

# mypy: disable-error-code="untyped-decorator, no-any-return"

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["AHEAD", "ENTRY", "waits"]

AHEAD = 4
"""As `memories.AHEAD`, which a test holds it to."""

ENTRY = ("engine", "kind", "runs", "reads", "writes")
"""Columns of an instruction beside its waits: engine, row of fields, DRAM runs, map groups that it reads and writes, as bits."""

_LOAD, _CONV, _DWC, _VEC, _SAVE = range(5)
# Columns of quick_stream.ACTION.
(_ENGINE, _KIND, _MAP, _LOW, _HIGH, _RING, _BLOCK, _READS, _WEIGHTS, _CONSTANTS, _RUNS, _TURN, _PLACE, _READ_PORTS,
 _WRITE_PORTS) = range(15)  # fmt: skip
_MARKS = 32
"""Chunks of a map whose makers are told apart."""


_inner = njit(
    error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)  # compiled into its callers, and cached with them


@_inner
def _memories(actions, chunks, size):  # type: ignore[no-untyped-def]
    """Where FILLs stand in the stream, as `memories.fill_memories` puts them.

    Returns
    -------
    (chunks + 1, 4)
        Of each chunk: the action before which its FILL stands; from which entry to which the chunks lie, in the order of the
        third number's column, that it overwrites; of each entry, a chunk.
    """
    n, most = len(actions), len(chunks)
    out = np.zeros((most + 1, 4), np.int64)
    last_use, first_use = np.zeros(most, np.int64), np.full(most, n, np.int64)
    for i in range(n):
        for k in (actions[i, _WEIGHTS], actions[i, _CONSTANTS]):
            if k >= 0:
                last_use[k] = i
                first_use[k] = min(first_use[k], i)
    count = np.zeros(5, np.int64)  # a memory's chunks stand together among the entries
    for k in range(most):
        count[chunks[k, 0] + 1] += 1
    for memory in range(4):
        count[memory + 1] += count[memory]
    oldest, newest, head = count[:4].copy(), count[:4].copy(), np.zeros(4, np.int64)
    base = np.zeros(most + 1, np.int64)
    upcoming = 0
    for i in range(n):
        for ahead in range(2):
            limit = i + ahead  # chunks that were used last before this action are free
            while upcoming < most and first_use[upcoming] <= i + ahead * AHEAD:
                memory, words = chunks[upcoming, 0], chunks[upcoming, 1]
                at = head[memory]
                if at % size[memory] + words > size[memory]:
                    at += size[memory] - at % size[memory]
                first = oldest[memory]
                last = first
                while last < newest[memory] and base[out[last, 3]] < at + words - size[memory]:
                    if last_use[out[last, 3]] >= limit:
                        break
                    last += 1
                if ahead and last < newest[memory] and base[out[last, 3]] < at + words - size[memory]:
                    break
                base[upcoming], head[memory] = at, at + words
                out[newest[memory], 3] = upcoming
                newest[memory] += 1
                oldest[memory] = last
                out[upcoming, 0], out[upcoming, 1], out[upcoming, 2] = i + ahead, first, last
                upcoming += 1
    return out


@njit(cache=True, error_model="numpy")
def waits(actions, reads, chunks, places, blocks, offsets, size):  # type: ignore[no-untyped-def]
    """Instructions of a stream in order, FILLs among them.

    Parameters
    ----------
    actions, reads, chunks, places
        Of a `Stream`.
    blocks : (maps,)
        Blocks of channels of a map.
    offsets : (maps + 1,)
        Where the rows of a map begin among all rows.
    size : (4,)
        Words of the weight, depthwise, table and vector memories.

    Returns
    -------
    entries : (n, ENTRY)
    wait : (n, 5)
    """
    n = len(actions) + len(chunks)
    entries, wait = np.zeros((n, 5), np.int64), np.zeros((n, 5), np.int64)
    memory = _memories(actions, chunks, size)
    order = np.zeros(5, np.int64)
    made = np.zeros((offsets[-1], 2), np.int64)  # engine that made a row, and its count then
    read = np.zeros((offsets[-1], 5), np.int64)  # count of each engine at the last read of a row
    marks, marked = np.zeros((len(blocks), _MARKS, 2), np.int64), np.zeros(len(blocks), np.int64)
    touched = np.zeros((len(places), 5), np.int64)
    latest = np.zeros((len(places), 2), np.int64)
    turns = np.zeros(
        (len(places), 2, 6), np.int64
    )  # of a half of a ring: count of each engine at the last read, and the chunk then
    last_read = np.zeros((len(chunks), 5), np.int64)
    arrived = np.zeros(len(chunks), np.int64)
    fills = i = 0
    for s in range(n):
        w = wait[s]
        if i == len(actions) or (fills < len(chunks) and memory[fills, 0] <= i):
            order[_LOAD] += 1
            entries[s, 0], entries[s, 1], entries[s, 2] = _LOAD, chunks[fills, 2], 1
            for k in range(memory[fills, 1], memory[fills, 2]):
                for e in range(1, 5):
                    w[e] = max(w[e], last_read[memory[k, 3], e])
            arrived[fills] = order[_LOAD]
            fills += 1
            continue
        a = actions[i]
        engine, t, place = a[_ENGINE], a[_MAP], a[_PLACE]
        order[engine] += 1
        count = order[engine]
        entries[s, 0], entries[s, 1], entries[s, 2] = engine, a[_KIND], a[_RUNS]
        entries[s, 3], entries[s, 4] = a[_READ_PORTS], a[_WRITE_PORTS]
        for k in (a[_WEIGHTS], a[_CONSTANTS]):
            if k >= 0:
                w[_LOAD] = max(w[_LOAD], arrived[k])
                last_read[k, engine] = count
        stop = actions[i + 1, _READS] if i + 1 < len(actions) else len(reads)
        for r in range(a[_READS], stop):
            source, low, high, there = reads[r]
            maker, needed = made[offsets[source] + high - 1]
            if engine == _SAVE and a[_TURN] >= 0:
                maker, needed = latest[place]
            elif engine == _DWC and marked[source]:
                for k in range(marked[source]):
                    if marks[source, k, 0] >= a[_BLOCK]:
                        needed = min(needed, marks[source, k, 1]) if needed else marks[source, k, 1]
                        break
            w[maker] = max(w[maker], needed)
            if a[_TURN] >= 0:
                turns[there, a[_TURN] % 2, engine], turns[there, a[_TURN] % 2, 5] = count, a[_TURN] + 1
            touched[there, engine] = count
            read[offsets[source] + low : offsets[source] + high, engine] = count
        if engine == _SAVE:
            i += 1
            continue
        if a[_TURN] >= 0:
            if turns[place, a[_TURN] % 2, 5] != a[_TURN] + 1 or a[_HIGH] > a[_RING]:
                for e in range(5):
                    if e != engine:
                        w[e] = max(w[e], turns[place, a[_TURN] % 2, e])
        elif a[_HIGH] > a[_RING]:
            row = offsets[t] + a[_HIGH] - a[_RING] - 1
            for e in range(5):
                if e != engine:
                    w[e] = max(w[e], read[row, e])
        if latest[place, 1] == 0:
            for k in range(place):
                if places[k, 0] < places[place, 1] and places[place, 0] < places[k, 1]:
                    for e in range(5):
                        if e != engine:
                            w[e] = max(w[e], touched[k, e])
        touched[place, engine] = count
        latest[place, 0], latest[place, 1] = engine, count
        if a[_HIGH] > a[_LOW]:
            made[offsets[t] + a[_LOW] : offsets[t] + a[_HIGH], 0] = engine
            made[offsets[t] + a[_LOW] : offsets[t] + a[_HIGH], 1] = count
            if a[_BLOCK] and a[_HIGH] - a[_LOW] == offsets[t + 1] - offsets[t] and marked[t] < _MARKS:
                marks[t, marked[t], 0], marks[t, marked[t], 1] = a[_BLOCK], count
                marked[t] += 1
        i += 1
    return entries, wait
