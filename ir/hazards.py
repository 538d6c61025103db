"""Dependences between instructions: which words each one touches, and the waits that keep them in order.

`accesses.boxes` says what each instruction touches; `assign_waits` walks that to decide waits, `find_races` to judge the
waits that stand in a program. The two decide apart, on purpose.

What needs order: a read after a write, a write after a read, a write after a write. Instructions of one engine
start in order and complete in order, yet one may start while the tail of the one before is in the pipeline, so
within an engine only a read after a write needs a token; the other two are in order by construction.

What an instruction knows at its start is a vector clock, one count an engine: what its waits name, what the named
instructions knew at their start, and what the instruction before it on its own engine knew at its start.

Waits are counts modulo 2^16, read as the count nearest to the number of instructions of that engine that stand
earlier in the stream. So that a wait never grows stale, every instruction waits at least for what lies 2^14
instructions of an engine back.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from .accesses import BOX, DRAM_MAPS, MAPS, MEMORIES, boxes, highest, memory_sizes
from .arch import Arch
from .errors import ProgramError
from .isa import COLUMNS, ENGINE_OF, Engine, Opcode, VecOp, render

__all__ = ["Race", "assign_waits", "find_races", "wait_counts"]

Matrix = NDArray[np.int64]
Race = tuple[int, int, str, int]
"""Earlier instruction, later instruction, memory, word (DRAM: byte) of the first collision of this pair."""

_STALE = 1 << 14
_WAITS = [COLUMNS[f"wait_{e.name.lower()}"] for e in Engine]


def _engines(fields: Matrix) -> Matrix:
    """Engine of each instruction; -1 for END."""
    table = np.full(16, -1, np.int64)
    for opcode, engine in ENGINE_OF.items():
        table[opcode] = engine
    return table[fields[:, COLUMNS["opcode"]]]


def wait_counts(fields: Matrix) -> tuple[Matrix, Matrix]:
    """Waits as whole counts.

    Returns
    -------
    counts : int64 (n, 5)
        The count nearest to what stands earlier, of the field modulo 2^16.
    before : int64 (n, 5)
        Instructions of each engine earlier in the stream; a count above it can never be met.
    """
    engine = _engines(fields)
    mine = engine[:, None] == np.arange(len(Engine))
    before = np.cumsum(mine, axis=0) - mine
    behind = (before - fields[:, _WAITS]) & 0xFFFF
    return np.maximum(before - np.where(behind < 1 << 15, behind, behind - (1 << 16)), 0), before


def assign_waits(fields: Matrix, arch: Arch, weights: NDArray[np.uint8] | None = None) -> Matrix:
    """A copy of a program with its ``wait_`` fields set to the fewest that keep stream order where it matters.

    Raises
    ------
    ProgramError
        An instruction touches a word that its memory does not have.
    """
    table, sizes = _prepare(fields, arch, weights)
    waits, bad = _assign(table, _engines(fields), sizes, _STALE, 1 << 15)
    if bad >= 0:
        raise _out_of_range(fields, table[bad], sizes)
    out = fields.copy()
    out[:, _WAITS] = waits & 0xFFFF
    return out


def find_races(
    fields: Matrix, arch: Arch, weights: NDArray[np.uint8] | None = None, *, limit: int = 100
) -> list[Race]:
    """Pairs of instructions on one word whose order the waits leave open; at most `limit` of them.

    An instruction that writes words it reads as well, other than element by element in place, pairs with itself.

    Raises
    ------
    ProgramError
        An instruction touches a word that its memory does not have.
    """
    table, sizes = _prepare(fields, arch, weights)
    counts, _ = wait_counts(fields)
    found, bad = _races(table, _engines(fields), counts, sizes, _in_place(fields, table), limit)
    if bad >= 0:
        raise _out_of_range(fields, table[bad], sizes)
    return [(int(i), int(j), MEMORIES[m], int(w)) for i, j, m, w in found]


def _prepare(fields: Matrix, arch: Arch, weights: NDArray[np.uint8] | None) -> tuple[Matrix, Matrix]:
    table = boxes(fields, arch, weights)
    dram = table[table[:, BOX["memory"]] == DRAM_MAPS]
    end = dram[:, BOX["base"]] + dram[:, BOX["x_count"]]
    for stride, runs in (("plane", "blocks"), ("pitch", "y_count")):
        end = end + dram[:, BOX[stride]] * np.maximum(dram[:, BOX[runs]] - 1, 0)
    dram_bytes = int(end.max(initial=0))
    if dram_bytes > 1 << 31:
        raise ProgramError(
            f"the program reaches byte {dram_bytes} of the DRAM maps region; 2^31 are analysed"
        )
    return table, memory_sizes(arch, dram_bytes)


def _in_place(fields: Matrix, table: Matrix) -> NDArray[np.bool_]:
    """Reads of elementwise instructions whose words are exactly the words written: read first, pixel by pixel."""
    elementwise = (fields[:, COLUMNS["opcode"]] == Opcode.VEC) & np.isin(
        fields[:, COLUMNS["func"]], (VecOp.ADD, VecOp.MUL, VecOp.TABLE, VecOp.PRELU)
    )
    target = np.zeros((len(fields), len(BOX)), np.int64)
    writes = table[:, BOX["write"]] == 1
    target[table[writes, 0]] = table[writes]
    words = slice(BOX["memory"], BOX["stop"])
    same = (table[:, words] == target[table[:, 0], words]).all(axis=1)
    return np.asarray(elementwise[table[:, 0]] & same & ~writes)


def _out_of_range(fields: Matrix, box: Matrix, sizes: Matrix) -> ProgramError:
    i, memory = int(box[BOX["instruction"]]), int(box[BOX["memory"]])
    verb = "writes" if box[BOX["write"]] else "reads"
    top, size = int(highest(box[None])[0]), int(sizes[memory])
    what = "of the DRAM maps region" if memory == DRAM_MAPS else f"of {MEMORIES[memory]}"
    has = f", which has {size}"
    if memory == MAPS and box[BOX["stop"]] < size:
        size = int(box[BOX["stop"]])
        has = f", and the map groups that the operand names end at word {size}"
    return ProgramError(
        f"instruction {i} ({render(fields[i])}) {verb} up to word {top} {what}{has}; "
        "place the operand lower, or use a smaller tile or a larger memory",
        instruction=i,
        word=top,
        limit=size,
    )


# -- kernels: BOX's columns are read by position, as listed there ------------------------------------------------------


@numba.njit(cache=True)
def _touched(count, taps, stride, dilation, pad, limit, out):  # type: ignore[no-untyped-def]
    """Positions that an axis touches: (first, number, True) where they are contiguous, else a list in `out`."""
    if count <= 0 or taps <= 0:
        return 0, 0, True
    if (taps == 1 or dilation == 1) and (count == 1 or stride <= taps):
        low = max(0, -pad)
        high = min(limit, (count - 1) * stride + (taps - 1) * dilation - pad + 1)
        return low, max(0, high - low), True
    marks = np.zeros(min(limit, (count - 1) * stride + (taps - 1) * dilation - pad + 1), np.bool_)
    for i in range(count):
        for k in range(taps):
            at = i * stride + k * dilation - pad
            if 0 <= at < len(marks):
                marks[at] = True
    n = 0
    for at in range(len(marks)):
        if marks[at]:
            out[n] = at
            n += 1
    return 0, n, False


@numba.njit(cache=True)
def _segments(box, ys, xs, starts, lengths):  # type: ignore[no-untyped-def]
    """A box as runs of words in `starts` and `lengths`; -1 where a word is not below the box's `stop`."""
    y0, ny, straight_y = _touched(box[9], box[10], box[11], box[12], box[13], box[14], ys)
    x0, nx, straight_x = _touched(box[15], box[16], box[17], box[18], box[19], box[20], xs)
    if nx == 0:
        return 0, starts, lengths
    n = 0
    total = box[5] * ny * (1 if straight_x else nx)
    if total > len(starts):
        starts = np.empty(2 * total, np.int64)
        lengths = np.empty(2 * total, np.int64)
    for b in range(box[5]):
        for r in range(ny):
            y = y0 + r if straight_y else ys[r]
            row = box[3] + b * box[4] + (box[8] + y) % box[7] * box[6]
            if straight_x:
                if row + x0 < 0 or row + x0 + nx > box[21]:
                    return -1, starts, lengths
                if (
                    n > 0 and starts[n - 1] + lengths[n - 1] == row + x0
                ):  # rows that follow each other are one run
                    lengths[n - 1] += nx
                else:
                    starts[n] = row + x0
                    lengths[n] = nx
                    n += 1
            else:
                if row + xs[0] < 0 or row + xs[nx - 1] >= box[21]:
                    return -1, starts, lengths
                for x in range(nx):
                    starts[n] = row + xs[x]
                    lengths[n] = 1
                    n += 1
    return n, starts, lengths


@numba.njit(cache=True)
def _highest(values, low, high):  # type: ignore[no-untyped-def]
    """The greatest of values low..high-1, which are not negative: a loop that compiles to vector instructions."""
    most = np.int32(0)
    for value in values[low:high]:
        most = max(most, value)
    return most


@numba.njit(cache=True)
def _assign(boxes, engine, sizes, stale, half):  # type: ignore[no-untyped-def]
    """The waits of every instruction, and the first box outside its memory (or -1)."""
    n, n_engines = len(engine), 5
    n_memories = len(sizes)
    first = np.zeros(n_memories + 1, np.int64)
    for m in range(n_memories):
        first[m + 1] = first[m] + sizes[m]
    on_chip = first[n_memories - 1]
    writer = np.full(first[n_memories], -1, np.int32)
    reader = np.zeros((n_engines, on_chip), np.int32)  # rank of the last reader; 0: none since the last write
    dram_reader = np.zeros((1, sizes[n_memories - 1]), np.int32)  # LOAD alone reads DRAM
    ys, xs = np.empty(1 << 15, np.int64), np.empty(1 << 15, np.int64)
    starts, lengths = np.empty(1024, np.int64), np.empty(1024, np.int64)
    waits = np.zeros((n, n_engines), np.int64)
    clock = np.zeros((n, n_engines), np.int64)
    rank = np.zeros(n, np.int64)
    count = np.zeros(n_engines, np.int64)
    named = np.full((n_engines, n + 1), -1, np.int32)  # instruction behind each token
    need, keep = np.zeros(n_engines, np.int64), np.zeros(n_engines, np.int64)
    at = 0
    for i in range(n):
        e = engine[i]
        for f in range(n_engines):
            need[f] = max(0, count[f] - stale)
        while at < len(boxes) and boxes[at, 0] == i:
            box = boxes[at]
            memory = box[2]
            pieces, starts, lengths = _segments(box, ys, xs, starts, lengths)
            if pieces < 0:
                return waits, at
            dram = memory == n_memories - 1
            readers, base = (dram_reader, 0) if dram else (reader, first[memory])
            for p in range(pieces):
                begin = first[memory] + starts[p]
                last = -1  # neighbouring words mostly have one writer
                for c in range(begin, begin + lengths[p]):
                    w = writer[c]
                    if w != last:
                        last = w
                        if w >= 0 and w != i and (box[1] == 0 or engine[w] != e):
                            need[engine[w]] = max(need[engine[w]], rank[w])
                low = base + starts[p]
                high = low + lengths[p]
                if box[1] == 0:
                    readers[0 if dram else e, low:high] = count[e] + 1
                    continue
                for f in range(len(readers)):
                    latest = _highest(readers[f], low, high)
                    if latest > 0:
                        if dram or f != e:
                            need[f] = max(need[f], latest)
                        readers[f, low:high] = 0
                writer[begin : begin + lengths[p]] = i
            at += 1
        if (
            e < 0
        ):  # END completes after everything by definition; past 2^15 a zero would read as a count that lies ahead
            for f in range(n_engines):
                waits[i, f] = count[f] if count[f] >= half else 0
            continue
        known = clock[i]
        if count[e] > 0:
            known[:] = clock[named[e, count[e]]]
        for f in range(n_engines):
            keep[f] = need[f] if need[f] > known[f] else 0
        for f in range(n_engines):
            if keep[f] == 0:
                continue
            for g in range(n_engines):  # the clock of another wait may cover this one
                if g != f and keep[g] > 0 and clock[named[g, keep[g]], f] >= keep[f]:
                    keep[f] = 0
                    break
        for f in range(n_engines):
            if keep[f] > 0:
                other = clock[named[f, keep[f]]]
                for g in range(n_engines):
                    known[g] = max(known[g], other[g])
        for f in range(n_engines):
            known[f] = max(known[f], keep[f])
            # Past 2^15 a zero would read as a count that lies ahead: name what is known instead.
            waits[i, f] = keep[f] if keep[f] > 0 or count[f] < half else known[f]
        count[e] += 1
        rank[i] = count[e]
        named[e, count[e]] = i
    return waits, -1


@numba.njit(cache=True)
def _races(boxes, engine, counts, sizes, in_place, limit):  # type: ignore[no-untyped-def]
    """Rows (earlier, later, memory, word) that no chain of waits orders, and the first box out of range (or -1)."""
    n, n_engines = len(engine), 5
    n_memories = len(sizes)
    first = np.zeros(n_memories + 1, np.int64)
    for m in range(n_memories):
        first[m + 1] = first[m] + sizes[m]
    position = np.zeros(n, np.int64)  # 1-based among the instructions of its engine
    token = np.zeros((n_engines, n + 1), np.int64)
    seen = np.zeros(n_engines, np.int64)
    done = np.zeros((n, n_engines), np.int64)  # completed before the instruction starts, as far as waits tell
    # Position of the last access of each word by each engine, 0: none; reads and writes apart.
    on_chip = first[n_memories - 1]
    written = np.zeros((n_engines, on_chip), np.int32)
    read = np.zeros((n_engines, on_chip), np.int32)
    own = np.full(on_chip, -1, np.int32)  # instruction that reads this word and must not write it
    dram_written = np.zeros((1, sizes[n_memories - 1]), np.int32)  # by SAVE, engine 4
    dram_read = np.zeros((1, sizes[n_memories - 1]), np.int32)  # by LOAD, engine 0
    ys, xs = np.empty(1 << 15, np.int64), np.empty(1 << 15, np.int64)
    starts, lengths = np.empty(1024, np.int64), np.empty(1024, np.int64)
    found = np.zeros((limit, 4), np.int64)
    doubt = np.zeros((2, n_engines), np.bool_)
    n_found = 0
    at = 0
    for i in range(n):
        e, alone = engine[i], False
        if e >= 0:
            if seen[e] > 0:
                done[i] = done[token[e, seen[e]]]
            for f in range(n_engines):
                if 0 < counts[i, f] <= seen[f]:
                    through = done[token[f, counts[i, f]]]
                    for g in range(n_engines):
                        done[i, g] = max(done[i, g], through[g])
                    done[i, f] = max(done[i, f], counts[i, f])
            seen[e] += 1
            position[i] = seen[e]
            token[e, seen[e]] = i
        while at < len(boxes) and boxes[at, 0] == i:
            box = boxes[at]
            memory, writes = box[2], box[1] == 1
            pieces, starts, lengths = _segments(box, ys, xs, starts, lengths)
            if pieces < 0:
                return found[:n_found], at
            dram = memory == n_memories - 1
            writers, readers, base = (dram_written, dram_read, 0) if dram else (written, read, first[memory])
            writer, reader = (4, 0) if dram else (0, 0)  # engines of the first rows
            marks = (writers if writes else readers)[0 if dram else e]
            reads_alone = not dram and not writes and not in_place[at]
            least, most, words = base + starts[0] if pieces else 0, 0, 0
            for p in range(pieces):
                words += lengths[p]
                least, most = min(least, base + starts[p]), max(most, base + starts[p] + lengths[p])
            # First, if they are near, all words between the first and the last; then, for engines in doubt, run by run; one by one
            # where a run collides. One engine writes in order, and after its earlier reads.
            doubts, near = 0, most - least <= 4 * words
            for f in range(writer, writer + len(writers)):
                doubt[0, f] = (f != e or not writes) and _highest(writers[f - writer], least, most) > done[
                    i, f
                ]
                doubts += doubt[0, f]
            for f in range(reader, reader + len(readers)):
                doubt[1, f] = f != e and writes
                if doubt[1, f] and near:
                    doubt[1, f] = _highest(readers[f - reader], least, most) > done[i, f]
                doubts += doubt[1, f]
            last_hit = -1
            for p in range(pieces):
                low = base + starts[p]
                high = low + lengths[p]
                collides = False
                if doubts > 0:
                    for f in range(writer, writer + len(writers)):
                        if doubt[0, f]:
                            collides = collides or _highest(writers[f - writer], low, high) > done[i, f]
                    for f in range(reader, reader + len(readers)):
                        if doubt[1, f]:
                            collides = collides or _highest(readers[f - reader], low, high) > done[i, f]
                if alone and writes and not dram:
                    for c in range(low, high):
                        collides = collides or own[c] == i
                if collides:
                    for c in range(low, high):
                        if writes and not dram and own[c] == i and last_hit != i:
                            last_hit = i
                            found[n_found] = (i, i, memory, c - base)
                            n_found += 1
                            if n_found == limit:
                                return found, -1
                        for f in range(n_engines):
                            for kind in range(2):  # 0: an earlier write, 1: an earlier read
                                if kind == 1 and not writes:
                                    continue
                                rows, row = (writers, f - writer) if kind == 0 else (readers, f - reader)
                                if not 0 <= row < len(rows):
                                    continue
                                place = rows[row, c]
                                if place <= done[i, f] or (f == e and writes):
                                    continue
                                j = token[f, place]
                                if j in (i, last_hit):
                                    continue
                                last_hit = j
                                known = False
                                for k in range(n_found - 1, -1, -1):
                                    if found[k, 1] != i:
                                        break
                                    known = known or found[k, 0] == j
                                if not known:
                                    found[n_found] = (j, i, memory, c - base)
                                    n_found += 1
                                    if n_found == limit:
                                        return found, -1
                for c in range(low, high):
                    marks[c] = position[i]
                if reads_alone:
                    for c in range(low, high):
                        own[c] = i
            alone = alone or reads_alone
            at += 1
    return found[:n_found], -1
