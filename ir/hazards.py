"""Dependences between instructions: which words each one touches, and the waits that keep them in order.

An instruction's accesses are *boxes*: channel blocks x rows x columns of a map operand, a run of weight words, or
runs of bytes in the DRAM maps region. `boxes` derives them from the fields; `assign_waits` walks them to decide
waits; `find_races` walks them to judge the waits that stand in a program. The two decide apart, on purpose.

What needs order: a read after a write, a write after a read, a write after a write. Instructions of one engine
start in order and complete in order, yet one may start while the tail of the one before is in the pipeline, so
within an engine only a read after a write needs a token; the other two are in order by construction.

What an instruction knows at its start is a vector clock, one count an engine: what its waits name, what the named
instructions knew at their start, and what the instruction before it on its own engine knew at its start.

Waits are counts modulo 2^16, read as the count nearest to the number of instructions of that engine that stand
earlier in the stream. So that a wait never grows stale, every instruction waits at least for what lies 2^14
instructions of an engine back.
"""

# ruff: noqa: PLR0917  (kernels take plain numbers)

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from .arch import Arch
from .errors import ProgramError
from .isa import COLUMNS, ENGINE_OF, Engine, Memory, Opcode, Region, VecOp, render

__all__ = [
    "BOX",
    "DRAM_MAPS",
    "MEMORIES",
    "Race",
    "assign_waits",
    "boxes",
    "find_races",
    "highest",
    "memory_sizes",
    "wait_counts",
]

Matrix = NDArray[np.int64]
Race = tuple[int, int, str, int]
"""Earlier instruction, later instruction, memory, word (DRAM: byte) of the first collision of this pair."""

MEMORIES = (*(f"maps{g}" for g in range(8)), "weights", "depthwise", "tables", "vector", "dram")
"""Memories by number; map groups come first, DRAM (bytes of the maps region) last."""
_WEIGHTS, _DEPTHWISE, _TABLES, _VECTOR, DRAM_MAPS = range(8, 13)

_AXES = tuple(
    f"{axis}_{name}" for axis in "yx" for name in ("count", "taps", "stride", "dilation", "pad", "limit")
)
BOX = {
    name: i
    for i, name in enumerate(
        ("instruction", "write", "memory", "base", "plane", "blocks", "pitch", "ring", "row0", *_AXES)
    )
}
"""Columns of a box. An axis touches ``i * stride + tap * dilation - pad`` for every i < count and tap < taps, where
that is within 0..limit-1; block b, row y, column x is word ``base + b*plane + ((row0 + y) % ring)*pitch + x``."""

_UNLIMITED = 1 << 40
_STALE = 1 << 14
_WAITS = [COLUMNS[f"wait_{e.name.lower()}"] for e in Engine]


def memory_sizes(arch: Arch, dram_bytes: int) -> Matrix:
    """Words of each of `MEMORIES` (DRAM: bytes)."""
    groups = [arch.group_words if g < arch.maps.groups else 0 for g in range(8)]
    beside = [arch.weight_words, arch.depthwise_words, arch.weights.tables, arch.vector_words]
    return np.array([*groups, *beside, dram_bytes], np.int64)


def _engines(fields: Matrix) -> Matrix:
    """Engine of each instruction; -1 for END."""
    table = np.full(16, -1, np.int64)
    for opcode, engine in ENGINE_OF.items():
        table[opcode] = engine
    return table[fields[:, COLUMNS["opcode"]]]


def boxes(fields: Matrix, arch: Arch, weights: NDArray[np.uint8] | None = None) -> Matrix:
    """All accesses of a program, in stream order, the reads of an instruction before its writes.

    Parameters
    ----------
    weights : uint8 (bytes,), optional
        The weights region. With it, the rows that a resize reads come from the indices the program fills in;
        without it, a resize reads every row that its source can hold.

    Returns
    -------
    int64 (n, len(BOX))
    """
    lanes, oc = arch.lanes, arch.conv.oc
    col = {name: fields[:, at] for name, at in COLUMNS.items()}
    opcode, func = col["opcode"], col["func"]
    conv, dwc, load, fill, save = (
        opcode == o for o in (Opcode.CONV, Opcode.DWC, Opcode.LOAD, Opcode.FILL, Opcode.SAVE)
    )
    vec = opcode == Opcode.VEC
    pool = vec & ((func == VecOp.MAX) | (func == VecOp.AVG))
    copy, prelu, resize = (vec & (func == f) for f in (VecOp.TABLE, VecOp.PRELU, VecOp.RESIZE))
    pair = vec & ((func == VecOp.ADD) | (func == VecOp.MUL))
    parts: list[Matrix] = []

    def add(where: NDArray[np.bool_], **values: Matrix | int) -> None:
        index = np.flatnonzero(where)
        part = np.zeros((len(index), len(BOX)), np.int64)
        part[:, BOX["instruction"]] = index
        unit = {"ring": 1, "blocks": 1} | {
            f"{a}_{n}": 1 for a in "yx" for n in ("count", "taps", "stride", "dilation")
        }
        for name, value in {**unit, "y_limit": _UNLIMITED, "x_limit": _UNLIMITED, **values}.items():
            part[:, BOX[name]] = value[index] if isinstance(value, np.ndarray) else value
        parts.append(part)

    def operand(prefix: str) -> dict[str, Matrix | int]:
        names = {
            "memory": "group",
            "base": "base",
            "plane": "plane",
            "pitch": "pitch",
            "ring": "rows",
            "row0": "row0",
        }
        found: dict[str, Matrix | int] = {box: col[f"{prefix}_{name}"] for box, name in names.items()}
        return found | {"ring": np.maximum(col[f"{prefix}_rows"], 1)}

    out = {"y_count": col["out_h"], "x_count": col["out_w"], "blocks": col["blocks"]}
    stream = {"y_count": col["height"], "x_count": col["width"]}
    taps = col["kh"] * col["kw"]
    window: dict[str, Matrix | int] = {
        "y_taps": col["kh"], "y_stride": col["sy"], "y_dilation": col["dy"], "y_pad": col["pad_top"], "y_limit": col["in_h"],
        "x_taps": col["kw"], "x_stride": col["sx"], "x_dilation": col["dx"], "x_pad": col["pad_left"], "x_limit": col["in_w"],
    }  # fmt: skip
    source = operand("a")
    # A diagonal convolution reads the words of its own channels alone.
    conv_blocks = np.where(col["diagonal"] == 1, -(-col["out_c"] // lanes), col["blocks"])
    add(conv, **source, **window, y_count=col["out_h"], x_count=col["out_w"], blocks=conv_blocks)
    add(dwc | pool, **source, **window, **out)
    add(copy, **source, **out, y_stride=np.maximum(col["sy"], 1), x_stride=np.maximum(col["sx"], 1))
    add(pair | prelu, **source, **out)
    add(save, **source, **stream, blocks=col["blocks"])
    wide = 1 - col["broadcast"]
    second = {"y_count": np.where(wide, col["out_h"], 1), "x_count": np.where(wide, col["out_w"], 1)}
    add(pair, **operand("b"), **second, blocks=col["blocks"])
    low, count = _resize_spans(fields, arch, weights)
    hull = {"y_count": count[0], "y_pad": -low[0], "x_count": count[1], "x_pad": -low[1]}
    add(resize, **source, **hull, blocks=col["blocks"])

    head = -(-8 // lanes)
    record = head + np.where(col["diagonal"] == 1, -(-taps // lanes), taps * col["blocks"])
    add(conv, memory=_WEIGHTS, base=col["w_base"], x_count=-(-col["out_c"] // oc) * record)
    add(dwc, memory=_DEPTHWISE, base=col["w_base"], x_count=col["blocks"] * (1 + -(-taps // 8)))
    add((conv | dwc | copy) & (col["table"] > 0), memory=_TABLES, base=col["table"] - 1)
    add(prelu, memory=_VECTOR, base=col["v_base"], x_count=col["blocks"] * lanes)
    add(resize, memory=_VECTOR, base=col["v_base"], x_count=col["out_h"])
    add(resize, memory=_VECTOR, base=col["v_cols"], x_count=col["out_w"])
    counted = pool & (func == VecOp.AVG) & (col["counted"] == 1)
    least, most = _valid_taps(fields, counted)
    add(counted, memory=_VECTOR, base=col["v_base"] + least, x_count=most - least + 1)

    runs: dict[str, Matrix | int] = {
        "memory": DRAM_MAPS, "base": col["address"], "x_count": col["run_bytes"], "plane": col["stride2"],
        "blocks": col["runs2"], "pitch": col["stride1"], "ring": np.maximum(col["runs1"], 1), "y_count": col["runs1"],
    }  # fmt: skip
    in_maps = col["region"] == Region.MAPS
    add(load & in_maps, **runs)
    add(fill & in_maps, memory=DRAM_MAPS, base=col["address"], x_count=col["run_bytes"])

    conv_words = -(-(col["lane0"] + col["out_c"]) // lanes)
    target = operand("d") | {"write": 1}
    add(
        conv & (col["last"] == 1), **target, y_count=col["out_h"], x_count=col["out_w"], blocks=conv_words,
        y_stride=col["step_y"], x_stride=col["step_x"],
    )  # fmt: skip
    add(dwc | (vec & ~pool) | (pool & (col["last"] == 1)), **target, **out)
    add(load, **target, **stream, blocks=col["blocks"] * np.maximum(col["fold"], 1))
    memory = np.select([func == m for m in Memory], [_WEIGHTS, _DEPTHWISE, _TABLES, _VECTOR], default=_VECTOR)
    words = np.select(
        [func == Memory.TABLES, func == Memory.VECTOR],
        [col["records"], -(-col["run_bytes"] // 4)],
        default=col["records"] * col["record_rows"],
    )
    add(fill, memory=memory, write=1, base=col["m_base"], x_count=words)
    add(save & in_maps, **runs, write=1)
    table = np.concatenate(parts)
    return table[np.argsort(table[:, 0] * 2 + table[:, 1], kind="stable")]


def _resize_spans(
    fields: Matrix, arch: Arch, weights: NDArray[np.uint8] | None
) -> tuple[tuple[Matrix, Matrix], tuple[Matrix, Matrix]]:
    """First source row and column, and number of rows and columns (a hull), that each resize reads."""
    get = {name: fields[:, at] for name, at in COLUMNS.items()}
    low = (np.zeros(len(fields), np.int64), np.zeros(len(fields), np.int64))
    count = (np.maximum(np.minimum(get["a_rows"], get["in_h"] - get["origin"]), 0), get["in_w"].copy())
    if weights is None:
        return low, count
    vector = np.zeros(arch.vector_words, np.uint32)
    fills = (
        (get["opcode"] == Opcode.FILL) & (get["func"] == Memory.VECTOR) & (get["region"] == Region.WEIGHTS)
    )
    resizes = (get["opcode"] == Opcode.VEC) & (get["func"] == VecOp.RESIZE)
    for i in np.flatnonzero(fills | resizes):
        row = {name: int(fields[i, at]) for name, at in COLUMNS.items()}
        if fills[i]:
            data = weights[row["address"] : row["address"] + row["run_bytes"] // 4 * 4]
            room = max(0, min(len(data) // 4, len(vector) - row["m_base"]))
            vector[row["m_base"] : row["m_base"] + room] = np.frombuffer(data.tobytes(), "<u4", room)
            continue
        axes = (("v_base", "out_h", "in_h", row["origin"]), ("v_cols", "out_w", "in_w", 0))
        for axis, (base, outputs, extent, origin) in enumerate(axes):
            index = (vector[row[base] : row[base] + row[outputs]] & 0xFFFF).astype(np.int64)
            if len(index):
                last = max(int(index.max()), min(int(index.max()) + row["bilinear"], row[extent] - 1))
                low[axis][i] = index.min() - origin
                count[axis][i] = last - index.min() + 1
    return low, count


def _valid_taps(fields: Matrix, where: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    """Least and most taps inside the map over all windows of each pooling in `where`."""
    least, most = np.zeros((2, len(fields)), np.int64)
    for i in np.flatnonzero(where):
        low = high = 1
        for axis in (
            ("out_h", "kh", "sy", "dy", "pad_top", "in_h"),
            ("out_w", "kw", "sx", "dx", "pad_left", "in_w"),
        ):
            count, k, stride, dilation, pad, limit = (int(fields[i, COLUMNS[name]]) for name in axis)
            at = np.arange(count)[:, None] * stride + np.arange(k)[None, :] * dilation - pad
            inside = ((at >= 0) & (at < limit)).sum(axis=1)
            low, high = low * int(inside.min(initial=k)), high * int(inside.max(initial=0))
        least[i], most[i] = low, high
    return least, most


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
    same = (table[:, BOX["memory"] :] == target[table[:, 0], BOX["memory"] :]).all(axis=1)
    return np.asarray(elementwise[table[:, 0]] & same & ~writes)


def _out_of_range(fields: Matrix, box: Matrix, sizes: Matrix) -> ProgramError:
    i, memory = int(box[BOX["instruction"]]), int(box[BOX["memory"]])
    verb = "writes" if box[BOX["write"]] else "reads"
    top, size = int(highest(box[None])[0]), int(sizes[memory])
    what = "of the DRAM maps region" if memory == DRAM_MAPS else f"of {MEMORIES[memory]}"
    return ProgramError(
        f"instruction {i} ({render(fields[i])}) {verb} up to word {top} {what}, which has {size}; "
        "place the operand lower, or use a smaller tile or a larger memory",
        instruction=i,
        word=top,
        limit=size,
    )


def highest(table: Matrix) -> Matrix:
    """An upper limit of the words each box touches: exact where no ring wraps."""
    span = {}
    for axis in "yx":
        count, taps, stride, dilation, pad, limit = (table[:, BOX[name]] for name in _AXES if name[0] == axis)
        span[axis] = np.minimum((count - 1) * stride + (taps - 1) * dilation - pad, limit - 1)
    row = np.minimum(table[:, BOX["row0"]] + span["y"], table[:, BOX["ring"]] - 1)
    blocks = np.maximum(table[:, BOX["blocks"]] - 1, 0)
    top = table[:, BOX["base"]] + blocks * table[:, BOX["plane"]] + row * table[:, BOX["pitch"]] + span["x"]
    return np.asarray(top, np.int64)


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
def _segments(box, size, ys, xs, starts, lengths):  # type: ignore[no-untyped-def]
    """A box as runs of words in `starts` and `lengths`; -1 where a word is outside 0..size-1."""
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
                if row + x0 < 0 or row + x0 + nx > size:
                    return -1, starts, lengths
                starts[n] = row + x0
                lengths[n] = nx
                n += 1
            else:
                if row + xs[0] < 0 or row + xs[nx - 1] >= size:
                    return -1, starts, lengths
                for x in range(nx):
                    starts[n] = row + xs[x]
                    lengths[n] = 1
                    n += 1
    return n, starts, lengths


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
    reader = np.full((on_chip, n_engines), -1, np.int32)
    dram_reader = np.full(sizes[n_memories - 1], -1, np.int32)  # LOAD alone reads DRAM
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
            pieces, starts, lengths = _segments(box, sizes[memory], ys, xs, starts, lengths)
            if pieces < 0:
                return waits, at
            for p in range(pieces):
                begin = first[memory] + starts[p]
                for c in range(begin, begin + lengths[p]):
                    w = writer[c]
                    if w >= 0 and w != i and (box[1] == 0 or engine[w] != e):
                        need[engine[w]] = max(need[engine[w]], rank[w])
                    if box[1] == 0:
                        if c < on_chip:
                            reader[c, e] = i
                        else:
                            dram_reader[c - on_chip] = i
                        continue
                    if c < on_chip:
                        for f in range(n_engines):
                            r = reader[c, f]
                            if r >= 0:
                                if f != e:
                                    need[f] = max(need[f], rank[r])
                                reader[c, f] = -1
                    else:
                        r = dram_reader[c - on_chip]
                        if r >= 0:
                            need[engine[r]] = max(need[engine[r]], rank[r])
                            dram_reader[c - on_chip] = -1
                    writer[c] = i
            at += 1
        if e < 0:  # END completes after everything by definition
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
    # Last access of each word by each engine: reads and writes apart.
    on_chip = first[n_memories - 1]
    written = np.full((on_chip, n_engines), -1, np.int32)
    read = np.full((on_chip, n_engines), -1, np.int32)
    own = np.full(on_chip, -1, np.int32)  # instruction that reads this word and must not write it
    dram_written = np.full(sizes[n_memories - 1], -1, np.int32)  # by SAVE
    dram_read = np.full(sizes[n_memories - 1], -1, np.int32)  # by LOAD
    ys, xs = np.empty(1 << 15, np.int64), np.empty(1 << 15, np.int64)
    starts, lengths = np.empty(1024, np.int64), np.empty(1024, np.int64)
    found = np.zeros((limit, 4), np.int64)
    n_found = 0
    at = 0
    for i in range(n):
        e = engine[i]
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
            pieces, starts, lengths = _segments(box, sizes[memory], ys, xs, starts, lengths)
            if pieces < 0:
                return found[:n_found], at
            last_hit = -1
            for p in range(pieces):
                for word in range(starts[p], starts[p] + lengths[p]):
                    if (
                        writes
                        and memory < n_memories - 1
                        and own[first[memory] + word] == i
                        and last_hit != i
                    ):
                        last_hit = i
                        found[n_found, 0], found[n_found, 1], found[n_found, 2], found[n_found, 3] = (
                            i,
                            i,
                            memory,
                            word,
                        )
                        n_found += 1
                        if n_found == limit:
                            return found, -1
                    for f in range(n_engines):
                        for kind in range(2):  # 0: an earlier write, 1: an earlier read
                            if kind == 1 and not writes:
                                continue
                            if memory < n_memories - 1:
                                c = first[memory] + word
                                j = written[c, f] if kind == 0 else read[c, f]
                            elif f == 4 and kind == 0:
                                j = dram_written[word]
                            elif f == 0 and kind == 1:
                                j = dram_read[word]
                            else:
                                continue
                            if j < 0 or j in (i, last_hit) or position[j] <= done[i, f]:
                                continue
                            if f == e and writes:  # one engine writes in order, and after its earlier reads
                                continue
                            last_hit = j
                            known = False
                            for k in range(n_found - 1, -1, -1):
                                if found[k, 1] != i:
                                    break
                                known = known or found[k, 0] == j
                            if not known:
                                found[n_found, 0], found[n_found, 1] = j, i
                                found[n_found, 2], found[n_found, 3] = memory, word
                                n_found += 1
                                if n_found == limit:
                                    return found, -1
                    if memory < n_memories - 1:
                        c = first[memory] + word
                        if writes:
                            written[c, e] = i
                        else:
                            read[c, e] = i
                            if not in_place[at]:
                                own[c] = i
                    elif writes:
                        dram_written[word] = i
                    else:
                        dram_read[word] = i
            at += 1
    return found[:n_found], -1
