"""Which words each instruction reads and writes, as boxes.

A box is channel blocks x rows x columns of a map operand, a run of words of another memory, or runs of bytes in the
DRAM maps region. It follows from an instruction's fields alone, but for a resize, whose rows stand in vector memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .arch import Arch
from .depthwise import record_words
from .isa import COLUMNS, Memory, Opcode, Region, VecOp

__all__ = ["BOX", "DRAM_MAPS", "MAPS", "MEMORIES", "OPERANDS", "boxes", "highest", "memory_sizes"]

Matrix = NDArray[np.int64]

MEMORIES = ("maps", "weights", "depthwise", "tables", "vector", "dram")
"""Memories by number; the maps are the words of all groups, one after the other, DRAM is the bytes of the maps region."""
MAPS, _WEIGHTS, _DEPTHWISE, _TABLES, _VECTOR, DRAM_MAPS = range(6)

OPERANDS = ("d", "a", "b")

_AXES = tuple(
    f"{axis}_{name}" for axis in "yx" for name in ("count", "taps", "stride", "dilation", "pad", "limit")
)
BOX = {
    name: i
    for i, name in enumerate(
        (
            "instruction",
            "write",
            "memory",
            "base",
            "plane",
            "blocks",
            "pitch",
            "ring",
            "row0",
            *_AXES,
            "stop",
            "operand",
        )
    )
}
"""Columns of a box. An axis touches ``i * stride + tap * dilation - pad`` for every i < count and tap < taps, where
that is within 0..limit-1; block b, row y, column x is word ``base + b*plane + ((row0 + y) % ring)*pitch + x``, which is
below `stop`: the end of the memory, or of the map groups of the operand (`OPERANDS`, counted from 1).
"""

_UNLIMITED = 1 << 40


def memory_sizes(arch: Arch, dram_bytes: int) -> Matrix:
    """Words of each of `MEMORIES` (DRAM: bytes)."""
    beside = [arch.weight_words, arch.depthwise_words, arch.weights.tables, arch.vector_words]
    return np.array([arch.map_words, *beside, dram_bytes], np.int64)


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
        most = {"y_limit": _UNLIMITED, "x_limit": _UNLIMITED, "stop": _UNLIMITED}
        for name, value in {**unit, **most, **values}.items():
            part[:, BOX[name]] = value[index] if isinstance(value, np.ndarray) else value
        parts.append(part)

    def operand(prefix: str) -> dict[str, Matrix | int]:
        group, words = col[f"{prefix}_group"], arch.group_words
        found: dict[str, Matrix | int] = {
            name: col[f"{prefix}_{name}"] for name in ("plane", "pitch", "row0")
        }
        return found | {
            "memory": MAPS, "base": group * words + col[f"{prefix}_base"], "ring": np.maximum(col[f"{prefix}_rows"], 1),
            "stop": (group + col[f"{prefix}_span"] + 1) * words, "operand": OPERANDS.index(prefix) + 1,
        }  # fmt: skip

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
    add(
        dwc,
        memory=_DEPTHWISE,
        base=col["w_base"],
        x_count=col["blocks"] * record_words(arch, col["kh"], col["kw"]),
    )
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
    sizes = memory_sizes(arch, _UNLIMITED)
    table[:, BOX["stop"]] = np.minimum(table[:, BOX["stop"]], sizes[table[:, BOX["memory"]]])
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
