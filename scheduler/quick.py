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
from ..ir.errors import ScheduleError
from ..ir.graph import Graph
from ..ir.isa import COLUMNS, FETCH_BYTES, WORD_BYTES
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
from .quick_network import FUSE, MAP, Network, network
from .quick_plan import GROUP, plan
from .quick_play import SPAN, play
from .quick_prices import busy_table, column_tiles, no_tiles
from .quick_stream import ACTION, CHUNK, FIELDS, Stream
from .quick_strips import group_rows
from .quick_unroll import unroll
from .search import Objective, Options, Search

__all__ = ["Quick", "quick"]

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
    if objective not in get_args(Objective):
        raise ScheduleError(f"objective {objective!r} is not one of {', '.join(get_args(Objective))}")
    memory = _memory(dram, arch.clock_mhz, arch.burst_bytes, arch.stream_bytes)
    net = network(graph, arch)
    groups, stays = _plan(net, graph, arch, memory, objective)
    stream = _stream(net, arch, groups, stays)
    fields = np.zeros((len(stream.fields), len(COLUMNS)), np.int64)
    fields[:, _COLUMNS] = stream.fields
    cost = costs(fields, arch)
    used = np.zeros(len(fields), np.int64)
    cycles, instructions = _play(net, arch, memory, stream, cost, used)
    table = cost.view(np.int64).reshape(len(cost), -1)
    total = (table * used[:, None]).sum(axis=0, keepdims=True).view(cost.dtype)[0]
    fetched = -(-(instructions + 1) * WORD_BYTES // FETCH_BYTES) * FETCH_BYTES
    moved = used * cost["dram_bytes"]
    written = int(moved[fields[:, COLUMNS["opcode"]] == 6].sum())
    read = int(moved.sum()) - written + fetched
    spent, _ = energy(
        action_counts(total, arch, instructions + 1),
        DramCounts(int((read + written) / memory.columns), read, written, 0, 0, 0),
        cycles, arch, memory.spec, board,
    )  # fmt: skip
    return Quick(cycles, read + written, sum(spent.components.values()) * 1e9, graph.macs)


_COLUMNS = np.array([COLUMNS[name] for name in FIELDS])


def _plan(
    net: Network, graph: Graph, arch: Arch, memory: _Memory, objective: Objective
) -> tuple[_Ints, _Ints]:
    aim = get_args(Objective).index(objective)
    m = np.array(
        [arch.group_words, arch.maps.groups, arch.weight_words, arch.depthwise_words, arch.weights.tables, arch.lanes,
         arch.conv.oc, arch.conv.pixels, arch.vec.sums, arch.stream_bytes, aim], np.int64,
    )  # fmt: skip
    rate = min(float(arch.stream_bytes), memory.peak) * DRAM_SHARE
    busy, tiled = busy_table(net, arch), no_tiles(net)
    wanted = np.zeros(len(net.layers), np.bool_)
    while True:
        groups, stays, wants, misfit = plan(net.chain, net.runs, net.sizes, busy, tiled, m, rate, FUSE)
        if not wants.any():
            break
        wanted |= wants
        tiled = column_tiles(net, graph, arch, wanted)
    if misfit >= 0:
        raise Search(graph, arch, net.layers, objective, memory.peak, Options()).does_not_fit(
            net.layers[misfit]
        )
    return groups, stays


def _stream(net: Network, arch: Arch, groups: _Ints, stays: _Ints) -> Stream:
    c = arch.conv
    m = np.array([arch.lanes, c.oc, c.pixels, c.drain, arch.banks, arch.weight_words], np.int64)
    chosen = np.ascontiguousarray(groups[groups[:, GROUP.index("entry")] >= 0])
    rows = group_rows(net.chain, np.ascontiguousarray(chosen[:, :3]))
    room = np.array([256, 2048, 4096, 256])
    while True:
        widths = (len(FIELDS), len(ACTION), 3, len(CHUNK))
        arrays = Stream(*(np.empty((int(n), width), np.int64) for n, width in zip(room, widths, strict=True)))
        want = unroll(net.chain, net.runs, net.sizes, chosen, stays, rows, m, arrays)
        if (want <= room).all():
            return Stream(*(a[:n] for a, n in zip(arrays, want, strict=True)))
        room = np.maximum(room, want + want // 4)


def _play(
    net: Network, arch: Arch, memory: _Memory, stream: Stream, cost: NDArray[np.void], used: _Ints
) -> tuple[int, int]:
    window = arch.dma.outstanding * arch.dma.ports * arch.burst_bytes
    fetch = memory.latency + FETCH_BYTES // arch.beat_bytes + FETCH_TAIL
    p = np.array(
        [arch.queues.depth, arch.queues.prefetch, arch.weight_words, arch.depthwise_words, arch.weights.tables,
         arch.vector_words, TOKEN, DISPATCH, LOAD_START, LOAD_RECEIVE, LOAD_TAIL, SAVE_START, SAVE_SEND, SAVE_TAIL,
         fetch, memory.latency, memory.response, window, arch.burst_bytes, BURST_INTERVAL], np.int64,
    )  # fmt: skip
    heights = net.sizes.maps[:, MAP.index("h")]
    offsets = np.concatenate([[0], np.cumsum(heights)])
    busy = np.ascontiguousarray(cost["busy"])
    rates = np.array([memory.read, memory.write])
    spans = int(busy[stream.actions[:, 1]].sum() + 4 * cost["dram_bytes"].sum()) // SPAN + 1000
    left = np.full(min(spans, 1 << 20), float(SPAN))
    cycles, instructions = play(
        stream.actions, stream.reads, stream.chunks, busy, np.ascontiguousarray(cost["tail"]),
        np.ascontiguousarray(cost["dram_bytes"]).astype(np.float64), net.sizes.maps[:, MAP.index("blocks")].copy(),
        offsets, len(heights), p, rates, left, used,
    )  # fmt: skip
    return int(cycles) + 1, int(instructions)


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
