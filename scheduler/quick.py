"""A fast estimate of what scheduler and simulator find for a network on a machine, for sweeps over many machines.

The same decisions (`quick_plan`) on tables that machines share (`quick_network`, `quick_prices`), the same instructions
(`quick_unroll`) at the simulator's own cycles (`timing.costs`), and one pass in stream order instead of every burst
(`quick_play`). A few milliseconds a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ..hwsim.dram import DramCounts, DramSpec, dram_access, parse
from ..hwsim.energy import action_counts, energy
from ..hwsim.timing import costs
from ..ir.arch import Arch
from ..ir.board import Board
from ..ir.graph import Graph
from ..ir.isa import COLUMNS, FETCH_BYTES, WORD_BYTES, Engine, Opcode
from ..ir.latency import (
    BURST_INTERVAL,
    DISPATCH,
    FETCH_TAIL,
    LOAD_RECEIVE,
    LOAD_START,
    LOAD_TAIL,
    SAVE_SEND,
    SAVE_START,
    SAVE_TAIL,
    TOKEN,
)
from .costing import DRAM_SHARE
from .quick_network import FUSE, MAP, Network, Tiled, network
from .quick_place import GROUP, place
from .quick_plan import STEP, TABLE, Problem, choices, cuts, pieces
from .quick_play import SPAN, play
from .quick_prices import busy_tables, column_tiles, no_tiles, ring_table
from .quick_stream import ACTION, CHUNK, FIELDS, PLACE, READ, Stream
from .quick_strips import group_rows
from .quick_unroll import unroll
from .quick_waits import ENTRY, waits
from .search import Objective, Options, Search, check_objective

__all__ = ["Decisions", "Quick", "decide", "quick"]

_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quick:
    """One frame of a network on a machine, estimated.

    Parameters
    ----------
    cycles : int
    dram_bytes : int
        Maps, weights and instructions.
    energy_pj : float
    macs : int
    """

    cycles: int
    dram_bytes: int
    energy_pj: float
    macs: int
    claim: str = "estimate"


@dataclass(frozen=True, slots=True)
class _Memory:
    """A memory as `play` knows it: sustained bytes a cycle, cycles to the first byte of a read and to a write's response."""

    spec: DramSpec
    peak: float
    read: float
    write: float
    latency: int
    response: int
    columns: float


def quick(
    graph: Graph, arch: Arch, dram: str, objective: Objective = "latency", *, board: Board | None = None
) -> Quick:
    """Estimate one frame.

    Parameters
    ----------
    dram : str
        As `hwsim.dram.parse` reads it.
    objective : str
        latency, energy or edp.
    board : Board, optional
        Gives the process node of the energy, as in `simulate`.

    Raises
    ------
    ScheduleError
        A layer does not fit the machine.
    SimulationError
        The text names no memory.
    """
    check_objective(objective)
    memory = _memory(dram, arch.clock_mhz, arch.burst_bytes, arch.stream_bytes)
    net = network(graph, arch)
    stream = _stream(net, arch, decide(net, graph, arch, memory.peak, objective))
    cost = _costs(stream, arch)
    entries, wait = _waits(net, arch, stream)
    cycles, instructions = _play(arch, memory, entries, wait, cost), len(entries)
    used = np.bincount(entries[:, ENTRY.index("kind")], minlength=len(cost))
    table = cost.view(np.int64).reshape(len(cost), -1)
    total = (table * used[:, None]).sum(axis=0, keepdims=True).view(cost.dtype)[0]
    fetched = -(-(instructions + 1) * WORD_BYTES // FETCH_BYTES) * FETCH_BYTES
    moved = used * cost["dram_bytes"]
    written = int(moved[stream.fields[:, FIELDS.index("opcode")] == Opcode.SAVE].sum())
    read = int(moved.sum()) - written + fetched
    spent, _ = energy(
        action_counts(total, arch, instructions + 1),
        DramCounts(int((read + written) / memory.columns), read, written, 0, 0, 0),
        cycles, arch, memory.spec, board,
    )  # fmt: skip
    return Quick(cycles, read + written, sum(spent.components.values()) * 1e9, graph.macs)


_COLUMNS = np.array([COLUMNS[name] for name in FIELDS])


@dataclass(frozen=True, slots=True)
class Decisions:
    """Groups of layers without views: steps as `quick_plan.cuts` gives them, groups and rings as `quick_place.place`.

    Parameters
    ----------
    chunk : (layers,)
        Output blocks an instruction; 0 for all.
    """

    steps: _Ints
    groups: _Ints
    rings: _Ints
    chunk: _Ints


def decide(net: Network, graph: Graph, arch: Arch, peak: float, objective: Objective) -> Decisions:
    """What the scheduler decides for a network on a machine whose memory gives `peak` bytes a cycle."""
    aim = get_args(Objective).index(objective)
    m = np.array(
        [arch.group_words, arch.span, arch.map_words, arch.weight_words, arch.depthwise_words, arch.weights.tables,
         arch.lanes, arch.conv.oc, arch.conv.pixels, arch.vec.sums, aim, arch.group_move, arch.weights.kib * 1024], np.int64,
    )  # fmt: skip
    rate = np.array([min(float(arch.stream_bytes), peak) * DRAM_SHARE])
    maps = net.sizes.maps
    words = maps[:, MAP.index("h")] * maps[:, MAP.index("w")] * maps[:, MAP.index("blocks")]
    spilled = (maps[:, MAP.index("bit")] < 0) | (words > arch.span * arch.group_words)
    order = np.argsort(np.lexsort((net.names, words)))
    alone = np.zeros(len(net.layers), np.bool_)
    wanted = np.zeros(len(net.layers), np.bool_)
    tiled, priced, rings = no_tiles(net), busy_tables(net, arch), ring_table(net, arch)
    while True:
        problem = Problem(net.chain, net.runs, net.sizes, tiled, m, rate, *priced, *rings)
        steps, wants = cuts(problem, spilled, alone, order, FUSE)
        if (wants & ~wanted).any():  # of some layers there are no tiles either
            wanted |= wants
            tiled = column_tiles(net, graph, arch, wanted)
            continue
        stuck = (steps[:, STEP.index("entry")] < 0) & (net.chain.engine[steps[:, 0]] >= 0)
        if not len(steps) or stuck.any():
            misfits = Search(graph, arch, net.layers, objective, peak, Options()).misfits()
            if misfits:
                raise misfits[0]
            spilled[:] = True
            continue
        at, costs_, table = choices(problem, steps, FUSE)
        groups, words_of, spill, split = place(
            problem, steps, at, costs_, table, _widths(tiled, table), net.names, FUSE
        )
        if spill >= 0:
            spilled[spill] = True
        elif split >= 0 and steps[split, 1] - steps[split, 0] > 1:
            alone[steps[split, 0] : steps[split, 1]] = True
        elif split >= 0:
            search = Search(graph, arch, net.layers, objective, peak, Options())
            raise search.does_not_fit(net.layers[int(steps[split, 0])])
        else:
            break
    chunk = np.zeros(len(net.layers), np.int64)
    for i, stop, mode, one in groups[:, [GROUP.index(name) for name in ("first", "stop", "mode", "chunk")]]:
        if mode == 0:
            pieces(problem, i, stop, chunk)
        else:
            chunk[i:stop] = one
            if stop - i > 1:
                chunk[i:stop][net.chain.engine[i:stop] == Engine.DWC] = one * arch.conv.oc // arch.lanes
    real = groups[:, GROUP.index("entry")] >= 0
    return Decisions(np.ascontiguousarray(steps[real]), np.ascontiguousarray(groups[real]), words_of, chunk)


def _widths(tiled: Tiled, table: _Ints) -> _Ints:
    """Columns of the source that the tile of each candidate reads; 0 for whole rows."""
    out = np.zeros(len(table), np.int64)
    cols, entry = TABLE.index("cols"), TABLE.index("entry")
    for k in np.flatnonzero(table[:, cols]):
        same = (tiled.cols == table[k, cols]) & (tiled.entry == table[k, entry])
        out[k] = tiled.width[same][0]
    return out


def _stream(net: Network, arch: Arch, planned: Decisions) -> Stream:
    c = arch.conv
    m = np.array(
        [arch.lanes, c.oc, c.pixels, c.drain, arch.banks, arch.weight_words, arch.group_words, arch.span],
        np.int64,
    )
    rows = group_rows(net.chain, np.ascontiguousarray(planned.groups[:, :3]))
    room = net.room
    widths = (len(FIELDS), len(ACTION), len(READ), len(CHUNK), len(PLACE))
    while True:
        arrays = Stream(*(np.empty((int(n), width), np.int64) for n, width in zip(room, widths, strict=True)))
        want = unroll(
            net.chain,
            net.runs,
            net.sizes,
            planned.steps,
            planned.groups,
            planned.rings,
            rows,
            planned.chunk,
            m,
            arrays,
        )
        if (want <= room).all():
            return Stream(*(a[:n] for a, n in zip(arrays, want, strict=True)))
        net.room = room = np.maximum(room, want + want // 4)


def _costs(stream: Stream, arch: Arch) -> NDArray[np.void]:
    """Cost of each kind of instruction."""
    fields = np.zeros((len(stream.fields), len(COLUMNS)), np.int64)
    fields[:, _COLUMNS] = stream.fields
    return costs(fields, arch)


def _waits(net: Network, arch: Arch, stream: Stream) -> tuple[_Ints, _Ints]:
    size = np.array(
        [arch.weight_words, arch.depthwise_words, arch.weights.tables, arch.vector_words], np.int64
    )
    maps = net.sizes.maps
    offsets = np.concatenate([[0], np.cumsum(maps[:, MAP.index("h")])])
    found: tuple[_Ints, _Ints] = waits(
        stream.actions,
        stream.reads,
        stream.chunks,
        stream.places,
        maps[:, MAP.index("blocks")].copy(),
        offsets,
        size,
    )
    return found


def _play(arch: Arch, memory: _Memory, entries: _Ints, wait: _Ints, cost: NDArray[np.void]) -> int:
    window = arch.dma.outstanding * arch.dma.ports
    p = np.array(
        [arch.queues.depth, arch.queues.prefetch, TOKEN, DISPATCH, LOAD_START, LOAD_RECEIVE, LOAD_TAIL, SAVE_START, SAVE_SEND,
         SAVE_TAIL, FETCH_TAIL, memory.latency, memory.response, window, arch.burst_bytes, BURST_INTERVAL, arch.maps.groups,
         arch.stream_bytes, arch.beat_bytes],
        np.int64,
    )  # fmt: skip
    busy, tail = np.ascontiguousarray(cost["busy"]), np.ascontiguousarray(cost["tail"])
    moved = cost["dram_bytes"].astype(np.float64)
    rates = np.array([memory.read, memory.write])
    kinds = entries[:, ENTRY.index("kind")]
    longest = busy[kinds].sum() + 2 * moved[kinds].sum() / rates.min()
    left = np.full(min(int(longest) // SPAN + 1000, 1 << 20), float(SPAN))
    return int(play(entries, wait, busy, tail, moved, p, rates, left)) + 1


@lru_cache(maxsize=4096)
def _memory(dram: str, clock_mhz: float, burst_bytes: int, stream_bytes: int) -> _Memory:
    """Sustained rates of streams of bursts, from the simulator's own memory."""
    spec = parse(dram, clock_mhz)
    peak = spec.peak_bytes_per_cycle
    rates = []
    for write in (0, 1):
        state, last = spec.state(), 0
        count = max(16, (1 << 17) // burst_bytes)
        for k in range(count):
            _, last = dram_access(state, 0, k * burst_bytes, burst_bytes, write)
        rates.append(min(count * burst_bytes / max(1, last), float(stream_bytes)))
    first, _ = dram_access(spec.state(), 0, 0, 64, 0)
    state = spec.state()
    response = int(state[3]) + int(state[1]) // 256
    return _Memory(spec, peak, rates[0], rates[1], int(first), response, 4096.0)
