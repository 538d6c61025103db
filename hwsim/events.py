"""Programs as the event kernel takes them, and what it finds: for one core, or for several on one memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.errors import InvariantError
from ..ir.isa import COLUMNS, FETCH_BYTES, Engine, Memory, Opcode, Program, Region, VecOp
from ..ir.latency import (
    BURST_INTERVAL,
    DISPATCH,
    FETCH_START,
    FETCH_TAIL,
    LOAD_RECEIVE,
    LOAD_START,
    LOAD_TAIL,
    SAVE_SEND,
    SAVE_START,
    SAVE_TAIL,
    TOKEN,
)
from .kernel import LOADED, LOG, PARAMETERS, PLAIN, RECORDS, SAVED, TABLE, WORDS, run
from .results import CAUSES
from .timing import costs

__all__ = ["Events", "events", "kernel_table", "machine_vector", "region_bases", "region_starts"]

_REGION_ALIGN = 4096
"""AXI4's burst boundary: a region that starts on it splits bursts as its byte offsets do."""

_Matrix = NDArray[np.int64]


def region_bases(program: Program) -> dict[Region, int]:
    """Where each DRAM region starts: one after the other, on 4 KB boundaries; co-simulation uses the same."""
    out, at = {}, 0
    sizes = (program.fetch_bytes, len(program.weights), program.maps_bytes)
    for region, size in zip((Region.PROGRAM, Region.WEIGHTS, Region.MAPS), sizes, strict=True):
        out[region] = at
        at += -(-size // _REGION_ALIGN) * _REGION_ALIGN
    return out


def kernel_table(program: Program, arch: Arch) -> _Matrix:
    """Rows for `kernel.run`: absolute waits, port masks, merged DRAM runs (columns `kernel.TABLE`)."""
    f, n = program.fields, len(program)
    col: dict[str, _Matrix] = {name: f[:, at] for name, at in COLUMNS.items()}
    out: dict[str, _Matrix] = {name: np.zeros(n, np.int64) for name in TABLE}
    engine = program.engine.astype(np.int64)
    out["engine"] = engine
    cost = costs(f, arch)
    out["busy"], out["tail"] = cost["busy"], cost["tail"]

    for e in Engine:
        mine = (engine == e).astype(np.int64)
        before = np.cumsum(mine) - mine
        out["order"] += before * mine
        wait = col[f"wait_{e.name.lower()}"]
        out[f"wait_{e.name.lower()}"] = before - (before - wait) % (1 << 16)

    op, func = col["opcode"], col["func"]
    conv, dwc, vec = op == Opcode.CONV, op == Opcode.DWC, op == Opcode.VEC
    pair = vec & ((func == VecOp.ADD) | (func == VecOp.MUL))
    reads_a = conv | dwc | vec | (op == Opcode.SAVE)
    pool = vec & ((func == VecOp.MAX) | (func == VecOp.AVG))
    keeps = (conv | pool) & (col["last"] == 0)  # accumulators or running sums stay, nothing is written
    writes = ((conv | dwc | vec) & ~keeps) | (op == Opcode.LOAD)
    for side, operands in (("reads", (("a", reads_a), ("b", pair))), ("writes", (("d", writes),))):
        for p, there in operands:
            owned = np.left_shift(np.left_shift(2, col[f"{p}_span"]) - 1, col[f"{p}_group"])
            out[side] |= np.where(there, owned, 0)

    moves = (op == Opcode.LOAD) | (op == Opcode.SAVE)  # with runs; FILL is one
    dma = moves | (op == Opcode.FILL)
    base = np.zeros(4, np.int64)
    for region, start in region_bases(program).items():
        base[region] = start
    runs = {k: np.where(moves, col[k], 1) for k in ("runs1", "runs2")}
    length, stride1, stride2 = col["run_bytes"].copy(), col["stride1"], col["stride2"]
    inner = (runs["runs1"] == 1) | (stride1 == length)
    length = np.where(inner, length * runs["runs1"], length)
    outer = inner & ((runs["runs2"] == 1) | (stride2 == length))
    out["address"] = np.where(dma, base[col["region"]] + col["address"], 0)
    out["run_bytes"] = np.where(outer, length * runs["runs2"], length)
    out["runs1"] = np.where(inner, 1, runs["runs1"])
    out["runs2"] = np.where(outer, 1, runs["runs2"])
    out["stride1"], out["stride2"] = stride1, stride2
    out |= _streams(col, dma, arch)
    return np.ascontiguousarray(np.stack([out[name] for name in TABLE], axis=1))


def _streams(col: dict[str, _Matrix], dma: NDArray[np.bool_], arch: Arch) -> dict[str, _Matrix]:
    """Shape of the byte streams of LOAD, FILL and SAVE, as `kernel` counts their groups; others get a harmless one."""
    op, func, lanes, move = col["opcode"], col["func"], arch.lanes, arch.group_move
    load, fill, save = op == Opcode.LOAD, op == Opcode.FILL, op == Opcode.SAVE
    plane, depth = (
        np.full_like(op, arch.conv.oc),
        np.full_like(op, lanes),
    )  # bytes of a byte plane, planes of a word
    deep = fill & (func == Memory.DEPTHWISE)
    plane[deep], depth[deep] = lanes, arch.dwc.taps
    record = fill & ((func == Memory.WEIGHTS) | deep)
    straight = load & (col["step"] == lanes) & (col["fold"] == 1) & (col["fold_pad"] == 0)
    straight = (straight | save) & (col["take"] == lanes)
    narrow = load & ~straight
    small = np.select([fill & (func == Memory.TABLES), fill & (func == Memory.VECTOR)], [1, 4], 1)
    head = -(-8 // depth)
    row = np.select(
        [record, load, save], [
            plane * (8 + np.maximum(col["record_rows"] - head - 1, 0) * depth + col["tail_take"]), col["row_bytes"],
            col["width"] * col["take"],
        ], col["run_bytes"],
    )  # fmt: skip
    row = np.where(dma, np.maximum(row, 1), 1)
    group = np.select([record, straight, save], [plane * depth, move * lanes, col["take"]], small)
    group = np.where(dma, np.maximum(group, 1), 1)
    groups = np.select([record, narrow], [col["record_rows"], col["width"] * col["fold"]], -(-row // group))
    rest = row % group
    least = np.minimum(group, np.where(rest, rest, group))
    least = np.where(record, np.minimum(8 - (head - 1) * depth, col["tail_take"]) * plane, least)
    least = np.where(record, np.minimum(least, np.minimum(depth, 8) * plane), least)
    shape = np.select([narrow, record, save], [WORDS, RECORDS, SAVED], LOADED)
    shape = np.where(~narrow & (least >= arch.stream_bytes), PLAIN, shape)
    unit = np.where(dma, np.maximum(col["take"], 1), 1)
    return {
        "shape": shape, "row_bytes": row, "group_bytes": group, "row_groups": groups,
        "step": np.maximum(col["step"], 1), "take": np.where(record, 8 * plane, unit),
        "fold": np.maximum(col["fold"], 1), "pad": col["fold_pad"],
    }  # fmt: skip


def machine_vector(arch: Arch, program_base: int = 0) -> _Matrix:
    """The machine as `kernel.run` takes it (entries `kernel.PARAMETERS`)."""
    values = {
        "depth": arch.queues.depth,
        "prefetch": arch.queues.prefetch,
        "beat_bytes": arch.beat_bytes,
        "ports": arch.dma.ports,
        "burst_bytes": arch.burst_bytes,
        "stream_bytes": arch.stream_bytes,
        "outstanding": arch.dma.outstanding,
        "groups": arch.maps.groups,
        "dispatch": DISPATCH,
        "load_start": LOAD_START,
        "load_tail": LOAD_TAIL,
        "save_start": SAVE_START,
        "save_tail": SAVE_TAIL,
        "program_base": program_base,
        "group_bytes": FETCH_BYTES,
        "token": TOKEN,
        "fetch_start": FETCH_START,
        "fetch_tail": FETCH_TAIL,
        "interval": BURST_INTERVAL,
        "receive": LOAD_RECEIVE,
        "send": SAVE_SEND,
    }
    return np.array([values[name] for name in PARAMETERS], np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """What `kernel.run` wrote; its docstring says what the axes are."""

    times: _Matrix
    cause: _Matrix
    stalls: _Matrix
    totals: _Matrix
    spans: _Matrix
    log: _Matrix


def events(
    programs: Sequence[Program],
    arch: Arch,
    state: _Matrix,
    *,
    starts: Sequence[int] = (0,),
    frames: int = 1,
    steady: bool = True,
    bursts: int = 0,
) -> Events:
    """Cores that run the same programs, frame after frame, on one memory.

    Parameters
    ----------
    state : int64
        Of a memory, fresh; what it is afterwards holds its counts.
    starts : sequence of int
        Cycle in which each core starts.
    frames : int
        Of each core.
    steady : bool
        A core that is ready goes on until all are.
    bursts : int
        Of each core, to be written down.
    """
    tables = [kernel_table(p, arch) for p in programs]
    first = np.cumsum([0, *map(len, tables)], dtype=np.int64)
    most = max(int(np.bincount(t[:, 0] + 1, minlength=6)[1:].max()) for t in tables)
    by_engine = np.zeros((len(programs), len(Engine), max(1, most)), np.int64)
    for mine, table in zip(by_engine, tables, strict=True):
        for e in Engine:
            index = np.flatnonzero(table[:, 0] == e)
            mine[e, : len(index)] = index
    many, rows, n = len(starts), frames + (len(starts) > 1), int(first[-1])
    places = np.zeros((many, len(programs), 2), np.int64)
    places[:, :, 0], places[:, :, 1] = np.array(starts)[:, None], region_starts(programs, many)
    shape = (many, rows, len(programs))
    out = Events(
        times=np.full((many, rows, n, 4), -1, np.int64),
        cause=np.zeros((many, rows, n), np.int64),
        stalls=np.zeros((*shape, len(Engine), len(CAUSES)), np.int64),
        totals=np.zeros((*shape, len(Engine), 2), np.int64),
        spans=np.zeros((*shape, 2), np.int64),
        log=np.full((many, bursts, len(LOG)), -1, np.int64),
    )
    machine = np.stack([machine_vector(arch, region_bases(p)[Region.PROGRAM]) for p in programs])
    stuck = run(
        np.concatenate(tables), first, by_engine, machine, state, places, frames, steady,
        out.times, out.cause, out.stalls, out.totals, out.spans, out.log,
    )  # fmt: skip
    if stuck:
        waits = (out.times[..., 3] < 0).any(axis=(0, 1)) & (np.concatenate(tables)[:, 0] >= 0)
        raise InvariantError(
            f"instruction {int(np.flatnonzero(waits)[0])} never starts, though every wait names an earlier one"
        )
    return out


def region_starts(programs: Sequence[Program], cores: int) -> _Matrix:
    """(cores, programs) Where the regions of each core's programs start in the DRAM: all behind one another, core by core."""
    ends = np.cumsum([0, *(_region_end(p) for p in programs)], dtype=np.int64)
    starts: _Matrix = np.add.outer(np.arange(cores, dtype=np.int64) * ends[-1], ends[:-1])
    return starts


def _region_end(program: Program) -> int:
    maps = region_bases(program)[Region.MAPS]
    return maps + -(-program.maps_bytes // _REGION_ALIGN) * _REGION_ALIGN
