"""The scheduler's decisions on a network, compiled: `candidates`, `search` and `plan` on index arrays.

For every run of layers and every set of maps on chip around it the best strip heights and orders (`_candidates`, remembered as
fronts of value and map words); by dynamic programming the cheapest cuts, with what is on chip at each (`cuts`). A set of maps
is a mask: maps that live at the same time have different bits.
"""

# mypy: disable-error-code="untyped-decorator, no-any-return"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["COST", "MACHINE", "STEP", "TABLE", "Problem", "choices", "cuts", "pieces"]

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]

MACHINE = (
    *(
        "group_words",
        "span",
        "map_words",
        "weight_words",
        "deep_words",
        "tables",
        "lanes",
        "oc",
        "pixels",
        "sums",
    ),
    *("objective", "move", "weight_bytes"),
)
"""Numbers of a machine for `Problem`; objective 0 latency, 1 energy, 2 edp; map words that LOAD or SAVE moves a cycle; bytes of
the weight memory."""
(_GROUP_WORDS, _SPAN, _MAP_WORDS, _WEIGHT_WORDS, _DEEP_WORDS, _TABLES, _LANES, _OC, _PIXELS, _SUMS, _OBJECTIVE, _MOVE,
 _WEIGHT_BYTES) = range(13)  # fmt: skip

TABLE = ("words", "entry", "mode", "chunk", "cols", "over", "way")
"""Columns of a candidate: least map words, entry of `Runs`, mode, output blocks a chunk (0: all), tile width (0: whole rows),
which sources are written over (two bits a layer: 1 + place of the source), way to hold constants."""
_WORDS, _ENTRY, _K_MODE, _CHUNK, _COLS, _OVER, _WAY = range(7)
_RESIDENT, _STREAMED, _CHUNKS, _PARTS = range(4)
COST = ("value", "busiest", "engines", "fill", "dram", "weights", "first", "held", "work")
"""Columns of its cost, as `candidates.Cost`; `work`: cycles of the compute engines together."""
_VALUE, _BUSIEST, _ENGINES, _FILL, _DRAM, _WEIGHTS, _FIRST, _HELD, _WORK = range(9)
STEP = ("first", "stop", "before", "after", "words", "entry", "mode", "chunk", "cols", "over", "way")
"""Columns of a step: layers, maps on chip before and after, and its candidate (entry -1: none)."""

# As in `search`, `candidates` and `plan`, which a test compares.
_HOPELESS, _LEAST_BUSY, _QUARTERS, _CHUNKS_HELD, _EIGHTH, _PER_STEP = 1.5, 256, 4, 2, 8, 40.0
_BEAM, _SMALL, _AHEAD, _CRAMPED, _PACKED, _WAIT, _DRAM_WEIGHT = 24, 16, 0.1, 0.5, 0.85, 0.5, 0.3
_NEVER = 1e15
_MOST = 1024
"""Candidates of a run."""
_SHARES = 16
"""Pairs of engines that make and read maps of a run."""

# Columns of quick_network.LAYER, PART and MAP.
_L_TABLE, _L_LOOKUP, _L_ARRAY, _L_DEEP = 7, 8, 10, 11
_P_CHANNELS, _P_KH, _P_KW, _P_SX, _P_STEP_Y, _P_STEP_X, _P_DEPTHWISE, _P_RECORD, _P_FOLD = (
    5,
    6,
    7,
    9,
    14,
    15,
    18,
    19,
    23,
)
_H, _W, _C, _BLOCKS, _FOLD, _FOLD_WIDTH, _BIT = 0, 1, 2, 3, 4, 5, 11
_LOAD, _CONV, _DWC, _VEC = 0, 1, 2, 3


class Problem(NamedTuple):
    """A network on a machine: tables as in `quick_network`, and what depends on both.

    Parameters
    ----------
    net, runs, sizes, tiled : Chain, Runs, Sizes, Tiled
    m : (MACHINE)
    rate : (1,)
        Bytes a cycle that streams of strips sustain.
    busy : (layers, heights)
        Cycles of a tile of this height.
    cycles, time
        As `quick_prices.entry_times` gives them.
    used : (rings,)
        As `quick_prices.entry_times`.
    ring, slack, total
        As `quick_prices.ring_words`.
    """

    net: object
    runs: object
    sizes: object
    tiled: object
    m: _Ints
    rate: _Floats
    busy: _Ints
    cycles: _Floats
    time: _Floats
    used: _Floats
    ring: _Ints
    slack: _Ints
    total: _Ints


# Columns of `_chunks`.
_USUAL, _LARGEST, _LONG = range(3)

_inner = njit(
    error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)  # compiled into its callers, and cached with them


@_inner
def _ceil(a, b):  # type: ignore[no-untyped-def]
    return (a + b - 1) // b


@_inner
def _step_of(m):  # type: ignore[no-untyped-def]
    """Output blocks that make whole map blocks."""
    a, b = m[_LANES], m[_OC]
    while b:
        a, b = b, a % b
    return m[_LANES] // a


@_inner
def _chunks(p):  # type: ignore[no-untyped-def]
    """Output blocks a chunk of each layer: where weights stream, the most that half the memory takes; last, whether one block of
    output channels has more weights than their memory."""
    net, sizes, m = p.net, p.sizes, p.m
    out = np.zeros((len(net.engine), _LONG + 1), np.int64)
    step = _step_of(m)
    for layer in range(len(out)):
        record = widest = diagonal = 0
        for k in range(sizes.part_ptr[layer], sizes.part_ptr[layer + 1]):
            part = sizes.parts[k]
            widest = max(widest, part[_P_CHANNELS])
            if net.engine[layer] == _CONV:
                record, diagonal = max(record, part[_P_RECORD]), max(diagonal, part[_P_DEPTHWISE])
                out[layer, _LONG] |= part[_P_RECORD] > m[_WEIGHT_WORDS] and not part[_P_DEPTHWISE]
            else:
                record = max(record, 1 + _ceil(part[_P_KH] * part[_P_KW], 8))
        if widest == 0:
            continue
        array = net.engine[layer] == _CONV
        memory = m[_WEIGHT_WORDS] if array else m[_DEEP_WORDS]
        total = _ceil(widest, m[_OC] if array else m[_LANES])
        pieces = max(1, min(_QUARTERS, p.busy[layer, sizes.maps[net.out[layer], _H]] // _LEAST_BUSY))
        chunk = min(max(1, memory // 4 // record), _ceil(total, pieces))
        if array and (chunk > step or diagonal):
            chunk = max(1, chunk // step) * step
        out[layer, _USUAL] = 0 if chunk >= total else chunk
        if array:
            out[layer, _LARGEST] = memory // 2 // record // step * step
    return out


@njit(cache=True, error_model="numpy")
def pieces(p, i, j, out):  # type: ignore[no-untyped-def]
    """Whether all constants of layers i..j-1 fit at once, with room for one wrap of the circular memories; sets `out` of the
    layers that are cut for it to output blocks an instruction, of the others to 0. As `candidates.resident_chunks`."""
    sizes, m = p.sizes, p.m
    tables = 0
    for layer in range(i, j):
        out[layer] = 0
        tables += 1 if sizes.layers[layer, _L_TABLE] or sizes.layers[layer, _L_LOOKUP] else 0
    if tables >= m[_TABLES]:
        return False
    for axis in (_L_ARRAY, _L_DEEP):
        size = m[_WEIGHT_WORDS] if axis == _L_ARRAY else m[_DEEP_WORDS]
        most = total = largest = 0
        for layer in range(i, j):
            total, most = total + sizes.layers[layer, axis], max(most, sizes.layers[layer, axis])
        if most == 0 or total + most <= size:
            continue
        for layer in range(i, j):
            words, first = sizes.layers[layer, axis], sizes.part_ptr[layer]
            several = sizes.part_ptr[layer + 1] - first != 1
            if words <= size // _EIGHTH or several or sizes.parts[first, _P_DEPTHWISE]:
                largest = max(largest, words)
                continue
            step = _step_of(m)
            count = max(1, size // _EIGHTH // sizes.parts[first, _P_RECORD] // step) * step
            piece = min(words, count * sizes.parts[first, _P_RECORD])
            largest = max(largest, piece)
            if piece < words:
                out[layer] = count
        if total + largest > size:
            return False
    return True


@_inner
def _joins(p, run, i, j):  # type: ignore[no-untyped-def]
    """As `Runs.joins`, where convolutions have one part and tables are on chip at once."""
    net, sizes, tables = p.net, p.sizes, 0
    for layer in range(i, j):
        tables += 1 if sizes.layers[layer, _L_TABLE] or sizes.layers[layer, _L_LOOKUP] else 0
        if net.engine[layer] == _CONV and sizes.part_ptr[layer + 1] - sizes.part_ptr[layer] != 1:
            return 0
    return p.runs.joins[run] if tables < p.m[_TABLES] else 0


@_inner
def _common(net, chunks, i, j, total):  # type: ignore[no-untyped-def]
    """Output blocks a chunk that suit all convolutions of layers i..j-1: where weights stream, and the most; 0: all, or none."""
    usual = largest = 1 << 60
    for layer in range(i, j):
        if net.engine[layer] == _CONV:
            usual = min(usual, chunks[layer, _USUAL]) if chunks[layer, _USUAL] else usual
            largest = min(largest, chunks[layer, _LARGEST])
    return usual if usual < 1 << 60 else 0, largest if largest < total else 0


@_inner
def _deep_chunk(p, i, j):  # type: ignore[no-untyped-def]
    """The array's output blocks whose depthwise weights fit half of their memory, of all depthwise layers."""
    sizes, m, least = p.sizes, p.m, 1 << 30
    for layer in range(i, j):
        if p.net.engine[layer] == _DWC:
            taken = sizes.layers[layer, _L_DEEP] // sizes.maps[p.net.out[layer], _BLOCKS]
            least = min(least, m[_DEEP_WORDS] // 2 // taken * m[_LANES] // m[_OC])
    return least


@_inner
def _chunked(net, i, j, t):  # type: ignore[no-untyped-def]
    """Whether a map of layers i..j-1 comes chunk by chunk where these do, as of `channelwise.maps_in_chunks`."""
    if net.maker[t] >= i and net.maker[t] < j:
        return True
    for layer in range(i, j):
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            if net.ins[e] == t and net.engine[layer] == _CONV:
                return False
    return True


@_inner
def _reduction_fits(sizes, m, layer, rows, cols):  # type: ignore[no-untyped-def]
    """An output block whose weights exceed their memory is summed in pieces, while its pixels wait in accumulators."""
    for k in range(sizes.part_ptr[layer], sizes.part_ptr[layer + 1]):
        part = sizes.parts[k]
        if part[_P_DEPTHWISE] or part[_P_RECORD] <= m[_WEIGHT_WORDS]:
            continue
        pixels = _ceil(rows, part[_P_STEP_Y]) * _ceil(cols, part[_P_STEP_X])
        taps = part[_P_KH] if part[_P_FOLD] else part[_P_KH] * part[_P_KW]
        if pixels > m[_PIXELS] or _ceil(8, m[_LANES]) + taps > m[_WEIGHT_WORDS] // 2:
            return False
    return True


@_inner
def _bytes(maps, t):  # type: ignore[no-untyped-def]
    return maps[t, _H] * maps[t, _W] * maps[t, _C]


@_inner
def _words(maps, t):  # type: ignore[no-untyped-def]
    return maps[t, _H] * maps[t, _W] * maps[t, _BLOCKS]


@_inner
def _stays(maps, mask, t):  # type: ignore[no-untyped-def]
    bit = maps[t, _BIT]
    return bit >= 0 and (mask >> bit) & 1 == 1


@_inner
def _readers(net, i, j, t):  # type: ignore[no-untyped-def]
    """Layers among i..j-1 that read a map."""
    count = 0
    for layer in range(i, j):
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            if net.ins[e] == t:
                count += 1
                break
    return count


@_inner
def _overs(net, runs, maps, entry, i, j, before, kept, fuse, alone):  # type: ignore[no-untyped-def]
    """Sources that are written over, and the words that this saves; `alone`: if one layer reads them."""
    code = saved = 0
    for layer in range(i, j):
        bits = runs.over[entry * fuse + layer - i]
        t = net.out[layer]
        if bits == 0 or not _stays(maps, kept, t):
            continue
        for k in range(2):
            source = net.ins[net.in_ptr[layer] + k] if bits >> k & 1 else t
            dies = source != t and net.last_reader[source] < j and not net.is_output[source]
            for axis in range(3):
                dies = dies and maps[source, axis] == maps[t, axis]
            if dies and _stays(maps, before, source):
                if alone and _readers(net, i, j, source) > 1:
                    break
                code |= (k + 1) << 2 * (layer - i)
                saved += _words(maps, t)
                break
    return code, saved


@_inner
def _weigh(objective, cycles, dram):  # type: ignore[no-untyped-def]
    """As `search.weigh`."""
    if objective == 0:
        return max(cycles, dram) + _DRAM_WEIGHT * dram
    return dram + 0.01 * cycles if objective == 1 else cycles + dram


@_inner
def _moves(m, rate, maps, t, width, blocks, folded):  # type: ignore[no-untyped-def]
    """Cycles to bring a map on chip or back, as `candidates.move_cycles`."""
    words = maps[t, _H] * width * blocks
    return max(_bytes(maps, t) / rate, words / (1 if folded or maps[t, _C] < m[_LANES] else m[_MOVE]))


@_inner
def _loaded_bytes(p, at):  # type: ignore[no-untyped-def]
    """Bytes of a map of a run (`at` in `Runs.maps`) that a LOAD of the whole brings."""
    maps, t = p.sizes.maps, p.runs.maps[at]
    return _ceil(maps[t, _H], p.runs.skip_y[at]) * maps[t, _W] * maps[t, _C]


@_inner
def _load_cycles(p, move, at):  # type: ignore[no-untyped-def]
    """Cycles to bring a map of a run on chip."""
    maps, t, runs = p.sizes.maps, p.runs.maps[at], p.runs
    if runs.skip_y[at] == 1 and runs.skip_x[at] == 1:
        return move[t, 0]
    words = _ceil(maps[t, _H], runs.skip_y[at]) * _ceil(maps[t, _W], runs.skip_x[at]) * maps[t, _BLOCKS]
    return max(_loaded_bytes(p, at) / p.rate[0], float(words))


@_inner
def _put(objective, rate, costs, table, n, work, engines, fill, moves, dram, weights, first, held, row):  # type: ignore[no-untyped-def]
    """Candidate n; its number of candidates."""
    if n == len(costs):
        return n
    c = costs[n]
    c[_BUSIEST] = max(work, moves)
    c[_ENGINES], c[_WORK] = max(c[_BUSIEST], engines), engines
    c[_FILL], c[_DRAM], c[_WEIGHTS], c[_FIRST], c[_HELD] = fill, dram, weights, first, held
    transfer = dram / rate
    c[_VALUE] = _weigh(objective, max(c[_BUSIEST], transfer) + fill, transfer)
    for k in range(7):
        table[n, k] = row[k]
    return n + 1


@_inner
def _height_is_tried(m, array, rows, height, width):  # type: ignore[no-untyped-def]
    """Whether `search` tries strips of this height for a layer: the lowest of a number of strips, or, on the array, one whose
    pixels make whole blocks."""
    lowest = _ceil(height, _ceil(height, rows))
    if rows == lowest or not array:
        return rows == lowest
    a, b = m[_PIXELS], width
    while b:
        a, b = b, a % b
    step = m[_PIXELS] // a
    return rows % step == 0 and lowest > rows - step


@_inner
def _candidates(p, net, runs, sizes, move, chunks, fits, i, j, before, kept, fuse, costs, table, touch):  # type: ignore[no-untyped-def]
    """All candidates of layers i..j-1 with maps `before` on chip and `kept` to stay, in the order they are found.

    Returns
    -------
    count, wants_tiles : rows of `costs` and `table`; column tiles would be tried, and there are none yet
    """
    m, rate, objective = p.m, p.rate[0], p.m[_OBJECTIVE]
    maps, maker, last_reader, is_output, of_run = (
        sizes.maps,
        net.maker,
        net.last_reader,
        net.is_output,
        runs.maps,
    )
    ring, total, time, rows_of_ring, ring_at = p.ring, p.total, p.time, runs.ring, runs.rings
    run, single, out = runs.run_at[j, j - i], j - i == 1, net.out[j - 1]
    first_map, count = runs.run_maps[run], runs.run_maps[run + 1] - runs.run_maps[run]
    operand = m[_SPAN] * m[_GROUP_WORDS]
    weights = first = saved = kinds = engines = elementwise = long = 0
    save_moves = load_moves = 0.0
    for layer in range(i, j):
        t = net.out[layer]
        weights += sizes.weight_bytes[layer]
        first = first if first else sizes.weight_bytes[layer]
        if net.engine[layer] >= 0:
            kinds += 1 - (engines >> net.engine[layer] & 1)
            engines |= 1 << net.engine[layer]
        long |= chunks[layer, _LONG]
        if _stays(maps, kept, t):
            elementwise |= net.elementwise[layer]
        if is_output[t] or (last_reader[t] >= j and not _stays(maps, kept, t)):
            saved += _bytes(maps, t)
            save_moves += move[t, 1]
    loaded = touched = out_at = 0
    for k in range(count):
        t = of_run[first_map + k]
        made = maker[t] >= i and maker[t] < j
        out_at = k if t == out else out_at
        if _stays(maps, kept if made else before, t):
            touch[touched, 0], touch[touched, 1] = k, _words(maps, t) if made else 0
            touched += 1
        elif not made:
            loaded += _loaded_bytes(p, first_map + k)
            load_moves += _load_cycles(p, move, first_map + k)
    moves = max(load_moves, save_moves)
    out_blocks = maps[out, _BLOCKS]
    too_wide = net.reduces[j - 1] and out_blocks > m[_SUMS]
    computes, array, step = net.engine[i] in (_CONV, _DWC), net.engine[i] == _CONV, _step_of(m)
    aligned = sizes.part_ptr[i + 1] - sizes.part_ptr[i] == 1
    unit = m[_LANES] if net.engine[i] == _DWC else m[_OC]
    follow = not single and _joins(p, run, i, j) == 2
    cap = _deep_chunk(p, i, j) // step * step if follow else 1 << 30
    usual, largest = _common(net, chunks, i, j, _ceil(maps[out, _C], m[_OC]))
    usual = usual if follow else chunks[i, _USUAL]
    row = np.zeros(7, np.int64)
    height = maps[net.ins[net.in_ptr[i]], _H] if net.reduces[i] else maps[out, _H]
    n, best, least_seen = 0, _NEVER, 1 << 60
    for entry in range(runs.run_entries[run], runs.run_entries[run + 1]):
        strips = runs.strips[entry]
        if single and not _height_is_tried(m, array, runs.rows[entry], height, maps[out, _W]):
            continue
        ok = not long or (single and _reduction_fits(sizes, m, i, runs.rows[entry], maps[out, _W]))
        words, large, twice, rings = total[entry, 0], total[entry, 1], 0, ring_at[entry]
        for k in range(touched):
            at = rings + touch[k, 0]
            words += touch[k, 1] - ring[at]
            large -= 1 if ring[at] > operand else 0
        if single or follow:
            for k in range(count):
                t = of_run[first_map + k]
                if (
                    not _chunked(net, i, j, t)
                    and not _stays(maps, before, t)
                    and rows_of_ring[rings + k] * runs.skip_y[first_map + k] < maps[t, _H]
                ):
                    twice += _loaded_bytes(p, first_map + k)
        over, over_words = (
            _overs(net, runs, maps, entry, i, j, before, kept, fuse, False) if elementwise else (0, 0)
        )
        alone, alone_words = 0, 0
        if over and follow:
            alone, alone_words = _overs(net, runs, maps, entry, i, j, before, kept, fuse, True)
        work, together = time[entry, 0], time[entry, 1]
        fill = _PER_STEP
        if kinds > 1:
            fill = (together - work) / strips + _PER_STEP * runs.steps[entry]
        here, here_words = _NEVER, 1 << 60
        for option in range(6):
            mode, chunk, again, passes, way = _RESIDENT, 0, 1, 1, 0
            if option == 0:
                if strips == 1:
                    if not single:
                        continue
                    mode, chunk, way = _STREAMED, usual, 1
                elif not fits:
                    continue
            elif option == 1 and strips > 1:
                if not single or not computes:
                    continue
                mode, chunk, again, way = _STREAMED, usual, strips, 1
            elif not follow and not (single and array):
                break
            else:
                # One strip: three sizes of chunks, thin ones; several: chunks of a strip, thin ones, two sizes for all strips.
                thin = option == (4 if strips == 1 else 3)
                size = option - 1 if strips == 1 else max(0, option - 4)
                chunk = step if thin else (usual, largest, largest // 2)[min(size, 2)]
                if thin:
                    seen = _ceil(maps[out, _C], m[_OC]) <= step
                else:
                    seen = (size > 0 and chunk == usual) or option > (3 if strips == 1 else 5)
                chunk = min(chunk, cap)
                if seen or not (chunk > 0 and aligned and chunk * m[_OC] % m[_LANES] == 0):
                    continue
                if thin or (option == 2 and strips > 1):
                    mode, again, way = _PARTS, strips, 1
                    if follow and strips > 1 and not runs.apart[entry]:
                        continue
                elif strips > 1 and not fits:
                    continue
                else:
                    mode, way = _CHUNKS, 2 if strips == 1 else 3
            least, wide, moving, begin = words, large, moves, first
            each = 1
            if chunk:
                each = passes = _ceil(_ceil(maps[out, _C], unit), chunk)
                begin = first // passes if strips == 1 or way == 1 else first
            if mode != _CHUNKS:
                passes = 1
            if mode >= _CHUNKS:
                loading = saving = 0.0
                for k in range(count):
                    t = of_run[first_map + k]
                    made = maker[t] >= i and maker[t] < j
                    if not made and _stays(maps, before, t):
                        continue
                    held = maps[t, _BLOCKS]
                    if _chunked(net, i, j, t) and not (
                        made and last_reader[t] >= j and _stays(maps, kept, t)
                    ):
                        held = min(held, _CHUNKS_HELD * chunk * m[_OC] // m[_LANES])
                        whole = ring[rings + k]
                        part = whole // maps[t, _BLOCKS] * held
                        least -= whole - part
                        wide -= (1 if whole > operand else 0) - (1 if part > operand else 0)
                    cycles = _load_cycles(p, move, first_map + k) if not made else move[t, 1]
                    if held < maps[t, _BLOCKS]:
                        cycles = _moves(m, rate, maps, t, maps[t, _W], held, False)
                    if not made:
                        loading += cycles
                    elif is_output[t] or (last_reader[t] >= j and not _stays(maps, kept, t)):
                        saving += cycles
                moving = max(loading, saving)
            if not ok or wide > 0:
                continue
            code, code_words = (over, over_words) if mode < _CHUNKS else (alone, alone_words)
            least -= code_words if code else 0
            filling = fill
            if mode >= _CHUNKS and kinds > 1:
                filling = (together - work) / (strips * each) + _PER_STEP * runs.steps[entry] * each
            dram = weights * again + saved + loaded + twice * (passes - 1)
            kept_bytes = weights * again if mode == _RESIDENT and strips > 1 else begin
            row[_WORDS], row[_ENTRY], row[_K_MODE], row[_CHUNK], row[_OVER], row[_WAY] = (
                least,
                entry,
                mode,
                chunk,
                code,
                way,
            )
            added = _put(
                objective,
                rate,
                costs,
                table,
                n,
                work,
                together,
                filling,
                moving,
                dram,
                weights * again,
                begin,
                kept_bytes,
                row,
            )
            if added > n:
                here, here_words = min(here, costs[n, _VALUE]), min(here_words, least)
                if not (too_wide and strips > 1):
                    least_seen, n = min(least_seen, least), added
        # Where the first strips that fit take few words, the others are not tried, as in `search`.
        worse = here < _NEVER and best < _NEVER and here > _HOPELESS * best
        best = min(best, here)
        if worse and here_words < m[_MAP_WORDS] // 16:
            break
    if not single or net.reduces[i] or kept or net.engine[i] < 0 or least_seen <= m[_MAP_WORDS] // 2:
        return n, False
    tiled = p.tiled
    found, at = 1 << 60, 0
    for option in range(tiled.at[i], tiled.at[i + 1]):
        cols = tiled.cols[option]
        if cols != at and found <= m[_MAP_WORDS] // 2 // 4:
            break
        at = cols
        entry = tiled.entry[option]
        tiles, strips = _ceil(maps[out, _W], cols), runs.strips[entry]
        ok = _reduction_fits(sizes, m, i, runs.rows[entry], cols)
        words, loaded, load_moves = 0, 0, 0.0
        for k in range(count):
            t = of_run[first_map + k]
            if t == out or _stays(maps, before, t):
                continue
            wide, deep, fold = cols, maps[t, _BLOCKS], maps[t, _FOLD] > 0
            columns = tiled.width[option]
            if fold:
                part = sizes.parts[sizes.part_ptr[i]]
                deep, columns = maps[t, _FOLD], (cols - 1) * part[_P_SX] + part[_P_KW]
            else:
                wide = columns
            loaded += _bytes(maps, t) * columns * tiles // max(1, maps[t, _W])
            load_moves += _moves(m, rate, maps, t, wide * tiles, deep, fold)
            skip = runs.skip_y[first_map + k]  # which tiles do not
            here_words = ((rows_of_ring[ring_at[entry] + k] - 1) * skip + 1) * wide * deep
            words += here_words
            ok = ok and here_words <= operand
        if not ok:
            continue
        made_words = runs.ring[runs.rings[entry] + out_at] * cols
        for way in range(4):
            mode, again, chunk = min(way, 2), 1, 0
            if way == 0 and (strips == 1 or not fits):
                continue
            if way > 0:
                if strips > 1 and not computes:
                    continue
                again, chunk = strips * tiles, step if way == 3 else chunks[i, _USUAL]
            held_blocks = out_blocks
            if way > 1:
                mode = _PARTS
                whole = chunk > 0 and array and aligned and chunk * m[_OC] % m[_LANES] == 0
                few = way == 3 and _ceil(maps[out, _C], m[_OC]) <= step
                if not whole or few or (way == 2 and strips == 1):
                    continue
                held_blocks = min(out_blocks, _CHUNKS_HELD * chunk * m[_OC] // m[_LANES])
            moving = max(load_moves, _moves(m, rate, maps, out, cols * tiles, held_blocks, False))
            here_words = words + made_words * held_blocks
            if made_words * held_blocks > operand:
                continue
            begin = first // _ceil(_ceil(maps[out, _C], unit), chunk) if chunk else first
            held = weights if mode == _RESIDENT else begin
            work = float(tiled.busy[option] * tiles)
            dram = weights * again + loaded + _bytes(maps, out)
            found = min(found, here_words)
            row[_WORDS], row[_ENTRY], row[_K_MODE], row[_CHUNK], row[_OVER] = (
                here_words,
                entry,
                mode,
                chunk,
                0,
            )
            row[_WAY], row[_COLS] = min(way, 1), cols
            n = _put(
                objective,
                rate,
                costs,
                table,
                n,
                work,
                work,
                _PER_STEP,
                moving,
                dram,
                weights * again,
                begin,
                held,
                row,
            )
    return n, tiled.at[i] == tiled.at[i + 1]


@_inner
def _shares(p, used, slack, move, c, i, j, before, kept, kind, out):  # type: ignore[no-untyped-def]
    """Map groups that maps want of their own because other engines use the rest, and the cycles that they are used, most
    first; as `candidates.sharing`. Returns how many, and the map words with slack."""
    net, runs, maps, maker, m = p.net, p.runs, p.sizes.maps, p.net.maker, p.m
    entry, over, mode = c[_ENTRY], c[_OVER], c[_K_MODE]
    run, n, most = runs.run_at[j, j - i], 0, 0
    first, rings = runs.run_maps[run], runs.rings[entry]
    count, of_run, kind_of = runs.run_maps[run + 1] - first, runs.maps, runs.kinds
    for made in range(2):
        for k in range(count):
            t = of_run[first + k]
            inside = maker[t] >= i and maker[t] < j
            if inside != (made == 1) or (not inside and _stays(maps, before, t)):
                continue
            if inside and over and over >> 2 * (maker[t] - i) & 3:
                continue
            stays = inside and _stays(maps, kept, t)
            words, moved = _words(maps, t) if stays else slack[rings + k], _load_cycles(p, move, first + k)
            if mode >= _CHUNKS and not stays and _chunked(net, i, j, t):
                held = min(maps[t, _BLOCKS], _CHUNKS_HELD * c[_CHUNK] * m[_OC] // m[_LANES])
                words = words // maps[t, _BLOCKS] * held
                moved = _moves(m, p.rate[0], maps, t, maps[t, _W], held, False)
            most += words
            cycles = used[rings + k] if inside else max(used[rings + k], moved)
            q = 0
            while q < n and kind[q] != kind_of[first + k]:
                q += 1
            if q == n:
                if n == len(kind):
                    continue
                kind[n], out[n, 0], out[n, 1] = kind_of[first + k], 0.0, 0.0
                n += 1
            out[q, 0] += words
            out[q, 1] += cycles
    for q in range(1, n):
        words_here, cycles, at = out[q, 0], out[q, 1], q
        while at > 0 and out[at - 1, 1] < cycles:
            out[at, 0], out[at, 1] = out[at - 1, 0], out[at - 1, 1]
            at -= 1
        out[at, 0], out[at, 1] = words_here, cycles
    return n, most


@_inner
def _map_moves(p):  # type: ignore[no-untyped-def]
    """Cycles to bring each map on chip whole, and back."""
    m, rate, maps = p.m, p.rate[0], p.sizes.maps
    out = np.zeros((len(maps), 2))
    for t in range(len(maps)):
        fold, width = maps[t, _FOLD], maps[t, _W]
        out[t, 1] = _moves(m, rate, maps, t, width, maps[t, _BLOCKS], False)
        out[t, 0] = _moves(m, rate, maps, t, maps[t, _FOLD_WIDTH], fold, True) if fold else out[t, 1]
    return out


@_inner
def _after(m, rate, state, c, least, most, shares, n, room, out):  # type: ignore[no-untyped-def]
    """Fill `out` with computed, loaded, dram, held behind a group, as `plan._after`."""
    memory = m[_WEIGHT_BYTES]
    early = min(c[_WEIGHTS], max(0.0, memory - state[3]))
    loaded = state[1] + early / rate
    if c[_WEIGHTS] > early:
        loaded = max(loaded, state[0]) + (c[_WEIGHTS] - early) / rate
    loaded = max(loaded, state[0] - max(0.0, memory - c[_WEIGHTS]) / rate)
    start = max(state[0], loaded - (c[_WEIGHTS] - c[_FIRST]) / rate)
    loaded += (c[_DRAM] - c[_WEIGHTS]) / rate
    cramped = 0.0
    if most > least:
        cramped = 1.0 - min(1.0, max(0.0, (_PACKED * room - least) / (most - least)))
    free, waits = room / m[_GROUP_WORDS], 0.0
    for q in range(n):
        need = max(1, _ceil(int(shares[q, 0]), m[_GROUP_WORDS]))
        if need <= free:
            free -= need
        else:
            waits += shares[q, 1]
    hidden = c[_ENGINES] - c[_BUSIEST]
    busy = c[_BUSIEST] + c[_FILL] + max(_CRAMPED * cramped * hidden, min(_WAIT * waits, hidden))
    out[0], out[1] = max(start + busy, loaded), loaded
    out[2], out[3] = state[2] + c[_DRAM] / rate, c[_HELD]


@_inner
def _sort(costs, n, order):  # type: ignore[no-untyped-def]
    """Numbers of the first n candidates by value into `order`, equal ones as they are."""
    for k in range(n):
        at, value = k, costs[k, _VALUE]
        while at > 0 and costs[order[at - 1], _VALUE] > value:
            order[at] = order[at - 1]
            at -= 1
        order[at] = k


@_inner
def _front(costs, table, n, way, order, keep):  # type: ignore[no-untyped-def]
    """Candidates of a way, best first, each next one in fewer words: their numbers into `keep`; how many."""
    count, words = 0, 1 << 60
    for k in range(n):
        c = order[k]
        if table[c, _WAY] == way and table[c, _WORDS] < words:
            keep[count], words = c, table[c, _WORDS]
            count += 1
    return count


@_inner
def _keeps(p, spilled, order, i, j, small_too, out):  # type: ignore[no-untyped-def]
    """Sets of maps to leave on chip for later groups: all; each number of the smaller ones; none. How many. As `plan._keeps`."""
    net, maps = p.net, p.sizes.maps
    later = np.zeros(j - i, np.int64)
    n = total = 0
    for layer in range(i, j):
        t = net.out[layer]
        if not spilled[t] and net.last_reader[t] >= j:
            at = n
            while at > 0 and order[later[at - 1]] > order[t]:
                later[at] = later[at - 1]
                at -= 1
            later[at] = t
            n += 1
            total += _words(maps, t)
    count = 0
    for size in range(n, -1, -1):
        out[count] = 0
        for k in range(size):
            out[count] |= 1 << maps[later[k], _BIT]
        count += 1
        if not small_too and total * _SMALL <= p.m[_MAP_WORDS]:
            break
    return count


@_inner
def _value(objective, state):  # type: ignore[no-untyped-def]
    return _weigh(objective, max(state[0], state[1]), state[2]) + _weigh(objective, _AHEAD * state[1], 0.0)


@_inner
def _find(slots, cut, mask, layer, after):  # type: ignore[no-untyped-def]
    """Slot of the state of a cut with these maps on chip, or the free one for it."""
    slot = (after * 0x9E3779B1 + layer * 0x85EBCA77) & 0x7FFFFFFF
    slot = (slot ^ slot >> 15) % len(slots)
    while slots[slot] >= 0 and (mask[slots[slot]] != after or cut[slots[slot]] != layer):
        slot = (slot + 1) % len(slots)
    return slot


@njit(cache=True, error_model="numpy")
def cuts(p, spilled, alone, order, fuse):  # type: ignore[no-untyped-def]
    """The cheapest groups of layers.

    Parameters
    ----------
    p : Problem
    spilled : (maps,)
        Maps that cannot stay on chip.
    alone : (layers,)
        Layers that share no group.
    order : (maps,)
        Rank by words, then name.

    Returns
    -------
    steps : (n, STEP)
    wants : (layers,)
        Layers for which column tiles should have been offered.
    """
    net, runs, sizes, m, rate, objective = p.net, p.runs, p.sizes, p.m, p.rate[0], p.m[_OBJECTIVE]
    used, slack, move = p.used, p.slack, _map_moves(p)
    maps, last_reader, maker = sizes.maps, net.last_reader, net.maker
    n = len(net.engine)
    chunks = _chunks(p)
    wants, scratch = np.zeros(n, np.bool_), np.zeros(n, np.int64)
    words, owner = np.zeros(64, np.int64), np.full(64, -1, np.int64)
    # States: computed, loaded, dram, held; maps on chip, cut, first layer of the group, state before, candidate.
    room = 4096
    state, mask, cut = np.zeros((room, 4)), np.zeros(room, np.int64), np.zeros(room, np.int64)
    link = np.full((room, 4), -1, np.int64)  # first layer, state before, candidate, next state of the cut
    slots = np.full(1 << 15, -1, np.int64)
    head, tail = np.full(n + 1, -1, np.int64), np.full(n + 1, -1, np.int64)
    head[0] = tail[0] = 0
    states = 1
    # Fronts that are known, by run and maps on chip: four ways each.
    known = np.full(len(runs.run_entries), -1, np.int64)
    front_key, front_next, front_at = (
        np.zeros(512, np.int64),
        np.zeros(512, np.int64),
        np.zeros(2049, np.int64),
    )
    fronts = 0
    costs, table = np.zeros((_MOST, 9)), np.zeros((_MOST, 7), np.int64)
    all_costs, all_table = np.zeros((2048, 9)), np.zeros((2048, 7), np.int64)
    most, share_count = np.zeros(2048, np.int64), np.zeros(2048, np.int64)
    shares = np.zeros((2048, _SHARES, 2))
    touch, by_value = np.zeros((len(net.height), 2), np.int64), np.zeros(_MOST, np.int64)
    keep, keeps, new = np.zeros(_MOST, np.int64), np.zeros(fuse + 1, np.int64), np.zeros(4)
    pick, kind = np.zeros(4, np.int64), np.zeros(_SHARES, np.int64)
    for i in range(n):
        here = np.zeros(0, np.int64)
        at = head[i]
        while at >= 0:
            here = np.append(here, at)
            at = link[at, 3]
        if len(here) == 0:
            continue
        values = np.zeros(len(here))
        for k in range(len(here)):
            values[k] = _value(objective, state[here[k]])
        here = here[np.argsort(values, kind="mergesort")][:_BEAM]
        owner[:] = -1
        for t in range(len(net.height)):
            bit = maps[t, _BIT]
            if bit >= 0 and maker[t] < i and last_reader[t] >= i:
                owner[bit], words[bit] = t, _words(maps, t)
        space = np.full(len(here), m[_MAP_WORDS])
        for k in range(len(here)):
            for bit in range(64):
                if mask[here[k]] >> bit & 1:
                    space[k] -= words[bit]
        read = 0
        for j in range(i + 1, min(n, i + fuse) + 1):
            run = runs.run_at[j, j - i]
            fits = pieces(p, i, j, scratch)
            if j - i > 1 and (run < 0 or alone[i] or alone[j - 1]):
                break
            if j - i > 1 and not fits and not _joins(p, run, i, j):
                break
            alive = 0
            for bit in range(64):
                if owner[bit] >= 0 and last_reader[owner[bit]] >= j:
                    alive |= 1 << bit
            for e in range(net.in_ptr[j - 1], net.in_ptr[j]):
                t = net.ins[e]
                if maps[t, _BIT] >= 0 and maker[t] < i:
                    read |= 1 << maps[t, _BIT]
            options = _keeps(p, spilled, order, i, j, j - i == 1 and chunks[i, _LONG] > 0, keeps)
            for k in range(len(here)):
                before = mask[here[k]]
                for option in range(options):
                    kept = keeps[option]
                    key = (before & read) | kept
                    f = known[run]
                    while f >= 0 and front_key[f] != key:
                        f = front_next[f]
                    if f < 0:
                        count, want = _candidates(
                            p,
                            net,
                            runs,
                            sizes,
                            move,
                            chunks,
                            fits,
                            i,
                            j,
                            before & read,
                            kept,
                            fuse,
                            costs,
                            table,
                            touch,
                        )
                        wants[i] = wants[i] or want
                        f = fronts
                        fronts += 1
                        if fronts == len(front_key):
                            front_key = np.append(front_key, np.zeros_like(front_key))
                            front_next = np.append(front_next, np.zeros_like(front_next))
                            front_at = np.append(front_at, np.zeros_like(front_at))
                        front_key[f], front_next[f], known[run] = key, known[run], f
                        _sort(costs, count, by_value)
                        for way in range(4):
                            begin = front_at[4 * f + way]
                            found = _front(costs, table, count, way, by_value, keep)
                            while begin + found > len(all_costs):
                                all_costs = np.concatenate((all_costs, np.zeros_like(all_costs)))
                                all_table = np.concatenate((all_table, np.zeros_like(all_table)))
                                shares = np.concatenate((shares, np.zeros_like(shares)))
                                most = np.append(most, np.zeros_like(most))
                                share_count = np.append(share_count, np.zeros_like(share_count))
                            for q in range(found):
                                all_costs[begin + q], all_table[begin + q] = costs[keep[q]], table[keep[q]]
                                share_count[begin + q] = -1
                            front_at[4 * f + way + 1] = begin + found
                    tried = 0
                    for way in range(4):
                        pick[way] = -1
                        for q in range(front_at[4 * f + way], front_at[4 * f + way + 1]):
                            if all_table[q, _WORDS] <= space[k]:
                                pick[way] = q
                                tried += 1
                                break
                    after = kept | (before & alive)
                    slot = _find(slots, cut, mask, j, after)
                    if tried == 0 and (j - i > 1 or kept or slots[slot] >= 0):
                        continue
                    for _ in range(max(tried, 1)):
                        q = -1
                        for way in range(4):
                            better = pick[way] >= 0 and (
                                q < 0 or all_costs[pick[way], _VALUE] < all_costs[q, _VALUE]
                            )
                            q = pick[way] if better else q
                        if q >= 0:
                            for way in range(4):
                                pick[way] = -1 if pick[way] == q else pick[way]
                            if share_count[q] < 0:
                                cols = all_table[q, _COLS]
                                share_count[q], most[q] = _shares(
                                    p,
                                    used,
                                    slack,
                                    move,
                                    all_table[q],
                                    i,
                                    j,
                                    before & read,
                                    kept,
                                    kind,
                                    shares[q],
                                )
                                most[q] = all_table[q, _WORDS] if cols else most[q]
                                share_count[q] = share_count[q] if j - i > 1 else 0
                            _after(
                                m, rate, state[here[k]], all_costs[q], all_table[q, _WORDS], most[q], shares[q],
                                share_count[q], space[k], new,
                            )  # fmt: skip
                        else:
                            new[:] = state[here[k]]
                            new[0] = _NEVER
                        s = slots[slot]
                        if s < 0:
                            if 4 * states > 3 * len(slots):
                                continue
                            if states == len(mask):
                                state = np.concatenate((state, np.zeros_like(state)))
                                link = np.concatenate((link, np.full_like(link, -1)))
                                mask, cut = (
                                    np.append(mask, np.zeros_like(mask)),
                                    np.append(cut, np.zeros_like(cut)),
                                )
                            s = slots[slot] = states
                            states += 1
                            mask[s], cut[s] = after, j
                            if tail[j] >= 0:
                                link[tail[j], 3] = s
                            else:
                                head[j] = s
                            tail[j] = s
                        elif _value(objective, new) >= _value(objective, state[s]):
                            continue
                        state[s] = new
                        link[s, 0], link[s, 1], link[s, 2] = i, here[k], q
    best, at = -1, head[n]
    while at >= 0:
        if best < 0 or _value(objective, state[at]) < _value(objective, state[best]):
            best = at
        at = link[at, 3]
    steps = np.zeros((n, len(STEP)), np.int64)
    count, j = 0, n
    while best > 0:
        count += 1
        step, before = steps[n - count], link[best, 1]
        step[0], step[1], step[2], step[3], step[5] = link[best, 0], j, mask[before], mask[best], -1
        if link[best, 2] >= 0:
            step[4:] = all_table[link[best, 2]]
        best, j = before, link[best, 0]
    return steps[n - count :], wants


@njit(cache=True, error_model="numpy")
def choices(p, steps, fuse):  # type: ignore[no-untyped-def]
    """Candidates of each step that write over the same sources, best first.

    Returns
    -------
    at : (steps + 1,)
    costs, table : (..., COST), (..., TABLE)
    """
    net, runs, sizes, maps, move = p.net, p.runs, p.sizes, p.sizes.maps, _map_moves(p)
    chunks = _chunks(p)
    scratch = np.zeros(len(net.engine), np.int64)
    at = np.zeros(len(steps) + 1, np.int64)
    costs, table = np.zeros((_MOST, 9)), np.zeros((_MOST, 7), np.int64)
    touch, by_value = np.zeros((len(net.height), 2), np.int64), np.zeros(_MOST, np.int64)
    out_costs, out_table = np.zeros((1024, 9)), np.zeros((1024, 7), np.int64)
    for g in range(len(steps)):
        i, j, before, after = steps[g, 0], steps[g, 1], steps[g, 2], steps[g, 3]
        at[g + 1] = at[g]
        if steps[g, 5] < 0:
            continue
        read = kept = 0
        for layer in range(i, j):
            t = net.out[layer]
            if net.last_reader[t] >= j and _stays(maps, after, t):
                kept |= 1 << sizes.maps[t, _BIT]
            for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
                t = net.ins[e]
                if net.maker[t] < i and sizes.maps[t, _BIT] >= 0:
                    read |= 1 << sizes.maps[t, _BIT]
        fits = pieces(p, i, j, scratch)
        count, _ = _candidates(
            p, net, runs, sizes, move, chunks, fits, i, j, before & read, kept, fuse, costs, table, touch
        )
        while at[g] + count > len(out_costs):
            out_costs = np.concatenate((out_costs, np.zeros_like(out_costs)))
            out_table = np.concatenate((out_table, np.zeros_like(out_table)))
        _sort(costs, count, by_value)
        for c in by_value[:count]:
            if table[c, _OVER] == steps[g, 9]:
                out_costs[at[g + 1]], out_table[at[g + 1]] = costs[c], table[c]
                at[g + 1] += 1
    return at, out_costs[: at[-1]], out_table[: at[-1]]
