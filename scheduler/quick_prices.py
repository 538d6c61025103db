"""Cycles of tiles, many at once: instructions as the compiler would write them, through the simulator's own `timing.costs`;
and sums of them for every run of layers."""

# mypy: disable-error-code="untyped-decorator, no-any-return"

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..hwsim.timing import costs, machine, read_ways
from ..ir.arch import Arch
from ..ir.graph import Graph
from ..ir.isa import COLUMNS, Engine, Opcode, VecOp
from .quick_network import FUSE, LAYER, MAP, PART, Network, Tiled
from .search import _TILES
from .weights import parameter_words

__all__ = ["busy_tables", "column_tiles", "no_tiles", "ring_table"]

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


def _cycles(net: Network, arch: Arch, layer: _Ints, rows: _Ints, cols: _Ints) -> _Ints:
    """Busy cycles of each layer's engine for a tile of its output, as `candidates.Costing.busy`."""
    sizes, lanes = net.sizes, arch.lanes
    parts = np.diff(sizes.part_ptr)[layer]
    plain = np.flatnonzero((parts == 0) & (net.chain.engine[layer] >= 0))
    with_parts = np.flatnonzero(parts)
    tile = np.repeat(with_parts, parts[with_parts])
    first = np.repeat(np.cumsum(parts[with_parts]) - parts[with_parts], parts[with_parts])
    part = sizes.parts[sizes.part_ptr[layer[tile]] + np.arange(len(tile)) - first]
    p = dict(zip(PART, part.T, strict=True))
    fields = np.zeros((len(tile) + len(plain), len(COLUMNS)), np.int64)

    def put(where: slice, **columns: _Ints | int) -> None:
        for name, value in columns.items():
            fields[where, COLUMNS[name]] = value

    deep = net.chain.engine[layer[tile]] == Engine.DWC
    high, wide = -(-rows[tile] // p["step_y"]), -(-cols[tile] // p["step_x"])
    stride = np.where(p["fold"] > 0, 1, p["sx"])
    ways = np.ones(len(tile), np.int64)
    for s in np.unique(stride):
        ways[stride == s] = read_ways(arch.conv.pixels, int(s), arch.banks)
    steps = np.where(p["depthwise"] > 0, p["kh"] * p["kw"], p["record"] - parameter_words(lanes))
    put(
        slice(0, len(tile)), opcode=np.where(deep, int(Opcode.DWC), int(Opcode.CONV)), out_h=high, out_w=wide,
        kh=np.where(deep, p["kh"], 1), kw=np.where(deep, p["kw"], 1), sy=p["sy"], sx=p["sx"], dy=p["dy"], dx=p["dx"],
        blocks=np.where(deep, -(-p["channels"] // lanes), steps), out_c=p["channels"], lane0=p["offset"] % lanes,
        ways=ways, drain_ways=1, packed=(high * wide % arch.conv.pixels == 0) | (wide < 4 * arch.conv.pixels), last=1,
    )  # fmt: skip
    v = dict(zip(LAYER, sizes.layers[layer[plain]].T, strict=True))
    pool = (v["func"] == VecOp.MAX) | (v["func"] == VecOp.AVG)
    put(
        slice(len(tile), None), opcode=int(Opcode.VEC), func=np.where(pool, int(VecOp.MAX), v["func"]), out_h=rows[plain],
        out_w=cols[plain], blocks=sizes.maps[net.chain.out[layer[plain]], MAP.index("blocks")], kh=v["kh"], kw=v["kw"],
        sx=np.where(pool, v["sx"], 1), dx=v["dx"], b_group=1, table=v["table"], bilinear=v["bilinear"],
    )  # fmt: skip
    busy = costs(fields, arch)["busy"]
    out = np.zeros(len(layer), np.int64)
    np.add.at(out, tile, busy[: len(tile)])
    out[plain] = busy[len(tile) :]
    return out


def busy_tables(net: Network, arch: Arch) -> tuple[_Ints, _Floats, _Floats, _Floats]:
    """Cycles of full-width tiles, by layer and tile height, and what `quick_prices.entry_times` makes of them; made once for all
    machines that compute alike."""
    vector = machine(arch)
    key = ("busy", vector[:12].tobytes(), vector[14:].tobytes())
    if key not in net.memo:
        layer, rows = net.pairs.T
        cols = net.sizes.maps[net.chain.out[layer], MAP.index("w")]
        table = np.zeros((len(net.layers), int(rows.max(initial=1)) + 1), np.int64)
        table[layer, rows] = _cycles(net, arch, layer, rows, cols)
        net.memo[key] = table, *entry_times(net.chain, net.runs, table, FUSE)
    found = net.memo[key]
    assert isinstance(found, tuple)
    return found


def ring_table(net: Network, arch: Arch) -> tuple[_Ints, _Ints, _Ints]:
    """What `quick_prices.ring_words` gives, made once for each size that an operand may have."""
    operand = arch.span * arch.group_words
    key = ("rings", operand)
    if key not in net.memo:
        columns = [MAP.index(name) for name in ("h", "w", "c", "blocks", "fold", "fold_width")]
        net.memo[key] = ring_words(
            net.chain, net.runs, np.ascontiguousarray(net.sizes.maps[:, columns]), operand
        )
    found = net.memo[key]
    assert isinstance(found, tuple)
    return found


def no_tiles(net: Network) -> Tiled:
    """No column tiles for any layer."""
    none = np.zeros(0, np.int64)
    return Tiled(np.zeros(len(net.layers) + 1, np.int64), none, none, none, none, none)


def column_tiles(net: Network, graph: Graph, arch: Arch, wanted: NDArray[np.bool_]) -> Tiled:
    """Column tiles of the layers that want them."""
    vector = machine(arch)
    begin = [0]
    found: list[_Ints] = []
    for n in range(len(net.layers)):
        if wanted[n]:
            key = ("tiles", n, vector[:12].tobytes(), vector[14:].tobytes())
            if key not in net.memo:
                net.memo[key] = _column_tiles(net, graph, arch, n)
            options = net.memo[key]
            assert isinstance(options, np.ndarray)
            found.append(options)
            begin.append(begin[-1] + len(options))
        else:
            begin.append(begin[-1])
    table = np.concatenate(found) if found else np.zeros((0, 5), np.int64)
    return Tiled(np.array(begin), *(np.ascontiguousarray(c) for c in table.T))


def _column_tiles(net: Network, graph: Graph, arch: Arch, n: int) -> _Ints:
    """Rows of Tiled's last five columns for layer `n`."""
    layer, runs = net.layers[n], net.runs
    width, pixels = graph.tensors[layer.output].shape[1], arch.conv.pixels
    even = [-(-width // k) for k in _TILES if k <= width]
    wide = [-(-cols // pixels) * pixels for cols in even]
    narrow = [min(pixels, width - 1) >> k for k in range(pixels.bit_length())]
    height = graph.tensors[layer.output].shape[0]
    run = int(runs.run_at[n + 1, 1])
    all_entries = np.arange(runs.run_entries[run], runs.run_entries[run + 1])
    high = runs.rows[all_entries]
    lowest = -(-height // -(-height // high))
    out = []
    for cols in sorted({*even, *wide, *narrow}, reverse=True):
        if not 0 < cols < width:
            continue
        step = pixels // math.gcd(pixels, cols)
        blocks = (high % step == 0) & (lowest > high - step) & (layer.engine == Engine.CONV)
        entries = all_entries[(high == lowest) | blocks]
        source = 1
        for k in range(len(layer.inputs)):
            for x in (0, width // cols // 2 * cols, (width - 1) // cols * cols):
                a, b = layer.needs(k, x, min(x + cols, width), 1)
                source = max(source, b - a)
        slots = entries * FUSE
        sizes = runs.tiles[slots + 1] - runs.tiles[slots]
        where = np.concatenate(
            [np.arange(runs.tiles[s], runs.tiles[s] + k) for s, k in zip(slots, sizes, strict=True)]
        )
        rows = runs.tile[where]
        busy = _cycles(net, arch, np.full(len(rows), n), rows, np.full(len(rows), cols)) * runs.times[where]
        total = np.add.reduceat(busy, np.cumsum(sizes) - sizes)
        out += [
            (cols, int(runs.rows[e]), int(e), source, int(b)) for e, b in zip(entries, total, strict=True)
        ]
    return np.array(out, np.int64).reshape(-1, 5)


# -- sums over runs ------------------------------------------------------------------------------------------------------
@njit(cache=True, error_model="numpy")
def entry_times(net, runs, busy, fuse):  # type: ignore[no-untyped-def]
    """Cycles of the layers of each entry of `runs`; `busy` by layer and tile height.

    Returns
    -------
    cycles : (entries * fuse,)
    time : (entries, 2)
        Of the busiest engine, and of all.
    used : (rings,)
        Cycles that a map is written or read, whichever is more, by layers.
    """
    used = np.zeros(len(runs.ring))
    reading = np.zeros(len(net.height))
    cycles, out = np.zeros(len(runs.rows) * fuse), np.zeros((len(runs.rows), 2))
    time = np.zeros(5)
    for j in range(1, len(net.engine) + 1):
        for n in range(1, fuse + 1):
            run = runs.run_at[j, n]
            if run < 0 or net.engine[j - 1] < 0:
                continue
            for entry in range(runs.run_entries[run], runs.run_entries[run + 1]):
                time[:] = 0.0
                for layer in range(n):
                    slot = entry * fuse + layer
                    for k in range(runs.tiles[slot], runs.tiles[slot + 1]):
                        cycles[slot] += busy[j - n + layer, runs.tile[k]] * runs.times[k]
                    time[net.engine[j - n + layer]] += cycles[slot]
                out[entry, 0], out[entry, 1] = time.max(), time.sum()
                for k in range(runs.run_maps[run], runs.run_maps[run + 1]):
                    reading[runs.maps[k]] = 0.0
                for layer in range(j - n, j):
                    busy_here = cycles[entry * fuse + layer - j + n]
                    reading[net.out[layer]] = max(reading[net.out[layer]], busy_here)
                    for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
                        reading[net.ins[e]] = max(reading[net.ins[e]], busy_here)
                for k in range(runs.run_maps[run + 1] - runs.run_maps[run]):
                    used[runs.rings[entry] + k] = reading[runs.maps[runs.run_maps[run] + k]]
    return cycles, out, used


@njit(cache=True, error_model="numpy")
def ring_words(net, runs, maps, operand):  # type: ignore[no-untyped-def]
    """Map words of the rings of each entry, if all that is read is loaded and nothing stays.

    Parameters
    ----------
    maps : (maps, 6)
        h, w, c, blocks, words a column where the map is loaded folded, columns then.
    operand : int
        Words that a ring may take.

    Returns
    -------
    words, slack : (rings,)
        With the fewest rows, and with slack.
    total : (entries, 2)
        Words of all rings, and rings that take too many.
    """
    words, slack = np.zeros(len(runs.ring), np.int64), np.zeros(len(runs.ring), np.int64)
    total = np.zeros((len(runs.rows), 2), np.int64)
    for j in range(1, len(net.engine) + 1):
        for n in range(1, runs.run_at.shape[1]):
            run = runs.run_at[j, n]
            if run < 0:
                continue
            first = runs.run_maps[run]
            for entry in range(runs.run_entries[run], runs.run_entries[run + 1]):
                for k in range(runs.run_maps[run + 1] - first):
                    t, at = runs.maps[first + k], runs.rings[entry] + k
                    line = maps[t, 1] * maps[t, 3]
                    if maps[t, 4] and not (j - n <= net.maker[t] < j):
                        line = maps[t, 5] * maps[t, 4]
                    elif runs.skip_x[first + k] > 1:
                        line = -(-maps[t, 1] // runs.skip_x[first + k]) * maps[t, 3]
                    words[at], slack[at] = runs.ring[at] * line, runs.slack[at] * line
                    total[entry, 0] += words[at]
                    total[entry, 1] += 1 if words[at] > operand else 0
    return words, slack, total
