"""Simulate a program: its words through the event kernel, with the memory behind the ports; then counts and energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.errors import InvariantError, SimulationError
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
from .bounds import bounds, program_bounds
from .dram import DramCounts, DramSpec, dram_counts, parse
from .energy import action_counts, energy
from .kernel import LOADED, PARAMETERS, PLAIN, RECORDS, SAVED, TABLE, WORDS, run
from .replay import Replay, Requests
from .results import CAUSES, EngineResult, LayerResult, Simulation, Timeline
from .timing import costs, estimate

if TYPE_CHECKING:
    from ..ir.board import Board
    from ..ir.graph import Graph

__all__ = ["Trace", "kernel_table", "machine_vector", "region_bases", "simulate", "trace"]

_REGION_ALIGN = 4096
"""AXI4's burst boundary: a region that starts on it splits bursts as its byte offsets do."""

_Matrix = NDArray[np.int64]
_ENGINES = tuple(e.name.lower() for e in Engine)


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
class Trace:
    """What the event kernel found.

    Parameters
    ----------
    cycles : int
    times : int64 (n, 4)
        queued, start, busy_end, done of each instruction (END: queued only).
    cause : int64 (n,)
    stalls : int64 (5, len(CAUSES))
    totals : int64 (5, 2)
        Busy cycles of each engine, and when it had nothing left to do.
    dram : DramCounts
    requests : Requests, optional
        What was asked of a replayed bus.
    """

    cycles: int
    times: _Matrix
    cause: _Matrix
    stalls: _Matrix
    totals: _Matrix
    dram: DramCounts
    requests: Requests | None = None


def trace(program: Program, arch: Arch, dram: DramSpec | Replay | str) -> Trace:
    """Times of every instruction.

    Parameters
    ----------
    dram : DramSpec, Replay or str
        A memory, text for `dram.parse`, or a recorded bus.

    Raises
    ------
    SimulationError
        The program is for another design, or a recording of another number of ports.
    """
    if program.design != arch.design_hash:
        raise SimulationError(
            f"the program is for design {program.design}, {arch.name} is design {arch.design_hash}; compile it again",
            program=program.design,
            arch=arch.design_hash,
        )
    if isinstance(dram, Replay):
        if len(dram.beats) != arch.dma.ports:
            raise SimulationError(
                f"the recording has {len(dram.beats)} ports, {arch.name} has {arch.dma.ports}"
            )
        state = dram.state()
    else:
        spec = (
            parse(dram, arch.clock_mhz) if isinstance(dram, str) else replace(dram, clock_mhz=arch.clock_mhz)
        )
        state = spec.state()
    table, n = kernel_table(program, arch), len(program)
    engine = table[:, 0]
    by_engine = np.zeros((len(Engine), max(1, int(np.bincount(engine + 1, minlength=6)[1:].max()))), np.int64)
    for e in Engine:
        index = np.flatnonzero(engine == e)
        by_engine[e, : len(index)] = index
    times, cause = np.empty((n, 4), np.int64), np.zeros(n, np.int64)
    stalls, totals = np.zeros((len(Engine), len(CAUSES)), np.int64), np.zeros((len(Engine), 2), np.int64)
    base = region_bases(program)[Region.PROGRAM]
    cycles = run(table, by_engine, machine_vector(arch, base), state, times, cause, stalls, totals)
    if cycles < 0:
        stuck = int(np.flatnonzero((times[:, 3] < 0) & (engine >= 0))[0])
        raise InvariantError(f"instruction {stuck} never starts, though every wait names an earlier one")
    requests = dram.requests(state) if isinstance(dram, Replay) else None
    return Trace(int(cycles), times, cause, stalls, totals, dram_counts(state), requests)


def simulate(
    program: Program,
    arch: Arch,
    dram: DramSpec | str,
    *,
    board: Board | None = None,
    graph: Graph | None = None,
    energy_table: str | None = None,
) -> Simulation:
    """Cycles, traffic and energy of a program on one core: one frame, or the batch that it was compiled for.

    Parameters
    ----------
    dram : DramSpec or str
        A memory, or text for `dram.parse`.
    board : Board, optional
        Gives the process node of the energy, and its name to the result.
    graph : Graph, optional
        What `Program.layer` counts: names layers, their MACs and the bounds.
    energy_table : str, optional
        ``fpga16`` (with a board, the default) or ``asic45``.

    Raises
    ------
    SimulationError
        As `trace`, or an unknown memory or energy table.
    """
    spec = parse(dram, arch.clock_mhz) if isinstance(dram, str) else replace(dram, clock_mhz=arch.clock_mhz)
    found = trace(program, arch, spec)
    cost = costs(program.fields, arch)
    limits = bounds(graph, arch, spec) if graph is not None else program_bounds(program, arch, spec)
    used, coefficients = energy(
        action_counts(cost, arch, len(program)), found.dram, found.cycles, arch, spec, board, energy_table
    )
    moved = {
        name: int(cost["dram_bytes"][program.traffic == i].sum())
        for i, name in enumerate(("ifmap", "weights", "ofmap"), 1)
    }
    moved["instructions"] = program.fetch_bytes
    moved["total"] = sum(moved.values())
    moved["compulsory"] = limits.compulsory_bytes
    engines = {
        name: EngineResult(
            busy=int(found.totals[e, 0]),
            stalls={c: int(v) for c, v in zip(CAUSES, found.stalls[e], strict=True) if v},
            idle=found.cycles - int(found.totals[e, 1]),
            instructions=int((program.engine == e).sum()),
        )
        for e, name in enumerate(_ENGINES)
    }
    for name, result in engines.items():
        if result.busy + sum(result.stalls.values()) + result.idle != found.cycles:
            raise InvariantError(f"{name}: {result} does not add up to {found.cycles} cycles")
    index = np.flatnonzero(program.engine >= 0)
    return Simulation(
        cycles=found.cycles,
        clock_mhz=arch.clock_mhz,
        macs=graph.macs if graph is not None else 0,
        macs_per_cycle=arch.macs_per_cycle,
        frames=graph.frames if graph is not None else 1,
        dram_bytes=moved,
        energy=used,
        engines=engines,
        layers=_layers(program, arch, found, cost, coefficients, graph),
        bounds=limits,
        estimate_cycles=estimate(program, arch, spec),
        dram=str(spec),
        network=graph.name if graph is not None else "",
        arch=arch.name,
        board=board.name if board is not None else "",
        design=program.design,
        timeline=Timeline(
            index=index.astype(np.int32),
            engine=program.engine[index],
            layer=program.layer[index],
            queued=found.times[index, 0],
            start=found.times[index, 1],
            busy_end=found.times[index, 2],
            done=found.times[index, 3],
            cause=found.cause[index].astype(np.int8),
        ),
    )


def _layers(
    program: Program,
    arch: Arch,
    found: Trace,
    cost: NDArray[np.void],
    coefficients: dict[str, dict[str, float]],
    graph: Graph | None,
) -> tuple[LayerResult, ...]:
    """Every layer that has an instruction, in order."""
    out = []
    engine, layer = program.engine, program.layer
    order = np.argsort(layer, kind="stable")
    order = order[engine[order] >= 0]
    cuts = np.flatnonzero(np.diff(layer[order])) + 1
    for rows in np.split(order, cuts):
        number = int(layer[rows[0]]) if len(rows) else -1
        if number < 0:
            continue
        mine = {name: int(cost["busy"][rows[engine[rows] == e]].sum()) for e, name in enumerate(_ENGINES)}
        mine = {name: busy for name, busy in mine.items() if busy}
        computing = {name: busy for name, busy in mine.items() if name in {"conv", "dwc", "vec"}} or mine
        main = max(computing, key=lambda name: computing[name]) if computing else ""
        macs, label, kind = 0, f"layer{number}", ""
        if graph is not None and number < len(graph.ops):
            op = graph.ops[number]
            label, kind = op.name, type(op).__name__
            macs = graph.macs_of(op)
        peak = arch.depthwise_macs_per_cycle if main == "dwc" else arch.macs_per_cycle
        actions = action_counts(cost[rows], arch, len(rows))
        out.append(
            LayerResult(
                name=label,
                op=kind,
                engine=main,
                busy=mine,
                first_cycle=int(found.times[rows, 1].min()),
                last_cycle=int(found.times[rows, 3].max()),
                macs=macs,
                bound_cycles=-(-macs // max(1, peak)),
                dram_bytes={
                    name: int(cost["dram_bytes"][rows[program.traffic[rows] == i]].sum())
                    for i, name in enumerate(("ifmap", "weights", "ofmap"), 1)
                },
                onchip_read_bytes=int(cost["map_reads"][rows].sum()) * arch.lanes,
                onchip_write_bytes=int(cost["map_writes"][rows].sum()) * arch.lanes,
                energy_mj=_spent(actions, coefficients),
                limited_by=_limited(rows, program, found, main),
            )
        )
    return tuple(out)


def _spent(actions: dict[str, int], coefficients: dict[str, dict[str, float]]) -> dict[str, float]:
    """mJ by component, from pJ an action."""
    return {
        part: sum(actions[action] * pj for action, pj in table.items()) * 1e-9
        for part, table in coefficients.items()
    }


def _limited(rows: _Matrix, program: Program, found: Trace, main: str) -> str:
    """compute, unless the main engine waited longer than it worked; then the cause of most of the wait."""
    if not main:
        return "compute"
    mine: Sequence[int] = rows[program.engine[rows] == _ENGINES.index(main)]
    start, ready = found.times[mine, 1], found.times[mine, 2]
    everything = np.flatnonzero(program.engine == _ENGINES.index(main))
    at = np.searchsorted(everything, mine)
    before = np.where(at > 0, found.times[everything[np.maximum(at - 1, 0)], 2], 0)
    gaps = np.maximum(0, start - before)
    if gaps.sum() <= (ready - start).sum():
        return "compute"
    by_cause = np.bincount(found.cause[mine], weights=gaps, minlength=len(CAUSES))
    return CAUSES[int(by_cause.argmax())]
