"""The scheduler's decisions on a network in one compiled pass: `search`, `plan` and `place` on index arrays.

For every run of layers the best strip height and order (`_search`), by dynamic programming the cheapest cuts (`_cuts`),
then residency of maps between groups against the words of the map memory (`plan`).
"""

# mypy: disable-error-code="untyped-decorator, no-any-return"

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["GROUP", "MACHINE", "MODES", "plan"]


MACHINE = (
    *("group_words", "map_groups", "weight_words", "deep_words", "tables", "lanes", "oc", "pixels", "sums"),
    *("stream_bytes", "objective"),
)
"""Whole numbers of a machine, as the kernels take them; objective 0 latency, 1 energy, 2 edp."""
(_GROUP_WORDS, _MAP_GROUPS, _WEIGHT_WORDS, _DEEP_WORDS, _TABLES, _LANES, _OC, _PIXELS, _SUMS, _STREAM, _OBJECTIVE) = range(11)  # fmt: skip

MODES = ("resident", "stream", "chunks")
_RESIDENT, _STREAMED, _CHUNKS = range(3)

GROUP = ("first", "stop", "rows", "cols", "mode", "chunk", "entry", "slack")
"""Columns of a group: layers, strip height, tile width, mode (MODES), output blocks a chunk (0: all), entry of `Runs` (-1:
a view), do its rings have slack."""

_RESIDENT_SHARE = 0.3
_HOPELESS = 1.5
_LEAST_BUSY = 256
_PIECES = 4
_NEVER = 1e15

# Columns of quick_network.LAYER, PART and MAP.
_FUNC, _LOOKUP_TABLE, _LOOKUP, _ARRAY, _DEEP = 0, 7, 8, 10, 11
_P_OFFSET, _P_CHANNELS, _P_KH, _P_KW, _P_STEP_Y, _P_STEP_X, _P_DEPTHWISE, _P_RECORD, _P_BLOCKS, _P_FOLD = (
    4, 5, 6, 7, 14, 15, 18, 19, 22, 23,
)  # fmt: skip
_H, _W, _C, _BLOCKS, _FOLD, _FOLD_WIDTH, _IS_INPUT, _MAY_STAY = 0, 1, 2, 3, 4, 5, 8, 9
_CONV, _DWC = 1, 2


@njit(cache=True)
def _ceil(a, b):  # type: ignore[no-untyped-def]
    return (a + b - 1) // b


@njit(cache=True)
def _chunks(net, sizes, busy, m):  # type: ignore[no-untyped-def]
    """Output blocks a chunk of each layer: where weights stream, and the most that half the memory takes; 0: all."""
    out = np.zeros((len(net.engine), 2), np.int64)
    a, b = m[_LANES], m[_OC]
    while b:
        a, b = b, a % b
    step = m[_LANES] // a
    for layer in range(len(out)):
        record = widest = diagonal = 0
        for p in range(sizes.part_ptr[layer], sizes.part_ptr[layer + 1]):
            widest = max(widest, sizes.parts[p, _P_CHANNELS])
            if net.engine[layer] == _CONV:
                record = max(record, sizes.parts[p, _P_RECORD])
                diagonal = max(diagonal, sizes.parts[p, _P_DEPTHWISE])
            else:
                record = max(record, 1 + _ceil(sizes.parts[p, _P_KH] * sizes.parts[p, _P_KW], 8))
        if widest == 0:
            continue
        array = net.engine[layer] == _CONV
        memory = m[_WEIGHT_WORDS] if array else m[_DEEP_WORDS]
        total = _ceil(widest, m[_OC] if array else m[_LANES])
        pieces = max(1, min(_PIECES, busy[layer, sizes.maps[net.out[layer], _H]] // _LEAST_BUSY))
        chunk = min(max(1, memory // 4 // record), _ceil(total, pieces))
        if array and (chunk > step or diagonal):
            chunk = max(1, chunk // step) * step
        out[layer, 0] = 0 if chunk >= total else chunk
        if array:
            chunk = memory // 2 // record // step * step
            out[layer, 1] = 0 if chunk >= total else chunk
    return out


@njit(cache=True)
def _weights_fit(sizes, m, i, j):  # type: ignore[no-untyped-def]
    """All constants of layers i..j-1 at once, with room for one wrap of the circular memories."""
    array = deep = most_array = most_deep = tables = 0
    for layer in range(i, j):
        row = sizes.layers[layer]
        array, deep = array + row[_ARRAY], deep + row[_DEEP]
        most_array, most_deep = max(most_array, row[_ARRAY]), max(most_deep, row[_DEEP])
        tables += 1 if row[_LOOKUP_TABLE] or row[_LOOKUP] else 0
    if most_array and array + most_array > m[_WEIGHT_WORDS]:
        return False
    if most_deep and deep + most_deep > m[_DEEP_WORDS]:
        return False
    return tables < m[_TABLES]


@njit(cache=True)
def _reduction_fits(net, sizes, m, layer, rows, cols):  # type: ignore[no-untyped-def]
    """An output block whose weights exceed their memory is summed in pieces, while its pixels wait in accumulators."""
    if net.engine[layer] != _CONV or sizes.layers[layer, _ARRAY] <= m[_WEIGHT_WORDS]:
        return True
    for p in range(sizes.part_ptr[layer], sizes.part_ptr[layer + 1]):
        part = sizes.parts[p]
        if part[_P_DEPTHWISE] or part[_P_RECORD] <= m[_WEIGHT_WORDS]:
            continue
        pixels = _ceil(rows, part[_P_STEP_Y]) * _ceil(cols, part[_P_STEP_X])
        taps = part[_P_KH] if part[_P_FOLD] else part[_P_KH] * part[_P_KW]
        if pixels > m[_PIXELS] or _ceil(8, m[_LANES]) + taps > m[_WEIGHT_WORDS] // 2:
            return False
    return True


@njit(cache=True)
def _value(m, rate, cycles, moved):  # type: ignore[no-untyped-def]
    """What the objective makes of cycles and DRAM bytes."""
    if m[_OBJECTIVE] == 0:
        return cycles + 0.05 * moved / rate
    if m[_OBJECTIVE] == 1:
        return moved / rate + 0.01 * cycles
    return cycles + moved / rate


@njit(cache=True)
def _search(net, runs, sizes, busy, chunks, tiled, m, rate, i, j, stay, room, fuse):  # type: ignore[no-untyped-def]
    """The best candidate of layers i..j-1 with the maps of `stay` on chip, in at most `room` map words.

    Returns
    -------
    value, words, entry, mode, chunk, cols : value 1e15 where nothing fits; cols 0: whole rows
    wants_tiles : column tiles would be tried, and `tiled` has none for the layer
    """
    best, best_words, best_entry, best_mode, best_chunk, best_cols = _NEVER, 0, -1, 0, 0, 0
    run, single = runs.run_at[j, j - i], j - i == 1
    if run < 0:
        return best, best_words, best_entry, best_mode, best_chunk, best_cols, False
    first, count_maps = runs.run_maps[run], runs.run_maps[run + 1] - runs.run_maps[run]
    fits = _weights_fit(sizes, m, i, j)
    weight_bytes = saved = 0
    for layer in range(i, j):
        weight_bytes += sizes.weight_bytes[layer]
        t = net.out[layer]
        wanted = net.is_output[t] or net.last_reader[t] >= j
        if wanted and (net.is_output[t] or not stay[t]):
            saved += sizes.maps[t, _H] * sizes.maps[t, _W] * sizes.maps[t, _C]
    engines = np.zeros(5, np.bool_)
    for layer in range(i, j):
        engines[net.engine[layer]] = True
    kinds = engines.sum()
    last, last_out = j - 1, net.out[j - 1]
    too_wide = net.reduces[last] and sizes.maps[last_out, _BLOCKS] > m[_SUMS]
    whole_value, least_seen = _NEVER, 1 << 60
    time = np.zeros(5)
    for entry in range(runs.run_entries[run], runs.run_entries[run + 1]):
        rows, count, steps = runs.rows[entry], runs.strips[entry], runs.steps[entry]
        ok = True
        for layer in range(i, j):
            ok = ok and _reduction_fits(net, sizes, m, layer, rows, sizes.maps[last_out, _W])
        words = loaded = once = 0
        for k in range(count_maps):
            t = runs.maps[first + k]
            made = sizes.maker[t] >= i and sizes.maker[t] < j
            if not made and stay[t]:
                continue
            need, width, deep_words = (
                runs.ring[runs.rings[entry] + k],
                sizes.maps[t, _W],
                sizes.maps[t, _BLOCKS],
            )
            size = sizes.maps[t, _H] * sizes.maps[t, _W] * sizes.maps[t, _C]
            if made:
                if stay[t] and (net.is_output[t] or net.last_reader[t] >= j):
                    need = sizes.maps[t, _H]
            else:
                if need >= sizes.maps[t, _H]:
                    once += size
                else:
                    loaded += size
                if sizes.maps[t, _FOLD]:
                    width, deep_words = sizes.maps[t, _FOLD_WIDTH], sizes.maps[t, _FOLD]
            words += need * width * deep_words
            ok = ok and need * width * deep_words <= m[_GROUP_WORDS]
        if not ok:
            continue
        time[:] = 0.0
        for n in range(j - i):
            spent = 0
            for k in range(runs.tiles[entry * fuse + n], runs.tiles[entry * fuse + n + 1]):
                spent += busy[i + n, runs.tile[k]] * runs.times[k]
            time[net.engine[i + n]] += spent
        compute, total = time.max(), time.sum()
        ramp = (total - compute) / max(1, count) if kinds > 1 else 0.0
        here = _NEVER
        for option in range(4):
            mode, chunk, again, passes = _RESIDENT, 0, 1, 1
            if count == 1:
                if option:
                    break
                mode, chunk = _STREAMED, chunks[i, 0] if single else 0
            elif option == 0:
                if not fits:
                    continue
            elif not single or net.engine[i] < _CONV or net.engine[i] > _DWC:
                break
            elif option == 1:
                mode, chunk, again = _STREAMED, chunks[i, 0], count
            else:
                chunk = chunks[i, option - 2]
                one = sizes.part_ptr[i + 1] - sizes.part_ptr[i] == 1
                aligned = chunk > 0 and one and chunk * m[_OC] % m[_LANES] == 0
                if (
                    net.engine[i] == _DWC
                    or not aligned
                    or not fits
                    or (option == 3 and chunk == chunks[i, 0])
                ):
                    continue
                mode, passes = _CHUNKS, _ceil(_ceil(sizes.maps[last_out, _C], m[_OC]), chunk)
            moved = weight_bytes * again + loaded * passes + once + saved
            cycles = max(compute, moved / rate) + ramp + 40 * steps / max(1, count)
            value = _value(m, rate, cycles, moved)
            here = min(here, value)
            if words <= room and value < best and not (too_wide and count > 1):
                best, best_words, best_entry = value, words, entry
                best_mode, best_chunk = mode, chunk
        if here < _NEVER and not (too_wide and count > 1):
            least_seen = min(least_seen, words)
        worse = whole_value < _NEVER and here < _NEVER and here > _HOPELESS * whole_value
        whole_value = min(whole_value, here)
        if worse and words < m[_GROUP_WORDS] // 4:
            break
    half = m[_GROUP_WORDS] * m[_MAP_GROUPS] // 2
    if not single or net.reduces[i] or least_seen <= half:
        return best, best_words, best_entry, best_mode, best_chunk, best_cols, False
    begin, stop = tiled.at[i], tiled.at[i + 1]
    out = sizes.maps[last_out]
    before = 0
    found = 1 << 60
    for option in range(begin, stop):
        cols = tiled.cols[option]
        if cols != before and found <= half // 4:
            break
        before = cols
        rows, entry = tiled.rows[option], tiled.entry[option]
        tiles, count = _ceil(out[_W], cols), runs.strips[entry]
        if not _reduction_fits(net, sizes, m, i, rows, cols):
            continue
        words = moved_maps = 0
        ok = True
        for k in range(count_maps):
            t = runs.maps[first + k]
            need, width, deep_words = runs.ring[runs.rings[entry] + k], cols, sizes.maps[t, _BLOCKS]
            if t != last_out:
                if stay[t]:
                    continue
                width = tiled.width[option]
                size = sizes.maps[t, _H] * sizes.maps[t, _W] * sizes.maps[t, _C]
                if sizes.maps[t, _FOLD]:
                    width, deep_words = cols, sizes.maps[t, _FOLD]
                    moved_maps += size
                else:
                    moved_maps += size * width * tiles // max(1, sizes.maps[t, _W])
            words += need * width * deep_words
            ok = ok and need * width * deep_words <= m[_GROUP_WORDS]
        if not ok:
            continue
        size = out[_H] * out[_W] * out[_C]
        compute = float(tiled.busy[option] * tiles)
        for mode in (_RESIDENT, _STREAMED):
            if mode == _RESIDENT and count > 1 and not fits:
                continue
            if (mode == _RESIDENT) == (count == 1):
                continue
            if mode == _STREAMED and count > 1 and (net.engine[i] < _CONV or net.engine[i] > _DWC):
                continue
            again = count * tiles if mode == _STREAMED else 1
            moved = weight_bytes * again + moved_maps + size
            cycles = max(compute, moved / rate) + 40.0
            value = _value(m, rate, cycles, moved)
            found = min(found, words)
            if words <= room and value < best:
                best, best_words, best_entry, best_cols = value, words, entry, cols
                best_mode, best_chunk = mode, chunks[i, 0] if mode == _STREAMED else 0
    return best, best_words, best_entry, best_mode, best_chunk, best_cols, begin == stop


@njit(cache=True)
def _cuts(net, runs, sizes, busy, chunks, tiled, m, rate, fuse, hopeful, wants):  # type: ignore[no-untyped-def]
    """First layer of the group that ends before each layer, from the cheapest sequence of groups."""
    n = len(net.engine)
    total = m[_GROUP_WORDS] * m[_MAP_GROUPS]
    best = np.full(n + 1, np.inf)
    best[0] = 0.0
    back = np.zeros(n + 1, np.int64)
    for j in range(1, n + 1):
        for i in range(j - 1, max(-1, j - 1 - fuse), -1):
            if j - i > 1 and (runs.run_at[j, j - i] < 0 or not _weights_fit(sizes, m, i, j)):
                break
            cost = _NEVER
            run = runs.run_at[j, j - i]
            if run >= 0:
                room = total * 9 // 10
                for k in range(runs.run_maps[run], runs.run_maps[run + 1]):
                    t = runs.maps[k]
                    made = sizes.maker[t] >= i and sizes.maker[t] < j
                    outside = made and (net.is_output[t] or net.last_reader[t] >= j)
                    if hopeful[t] and not outside:
                        room -= sizes.maps[t, _H] * sizes.maps[t, _W] * sizes.maps[t, _BLOCKS]
                found = _search(net, runs, sizes, busy, chunks, tiled, m, rate, i, j, hopeful, room, fuse)
                cost = found[0]
                wants[i] = wants[i] or found[6]
                if cost >= _NEVER and j - i > 1:
                    continue
            if best[i] + cost < best[j]:
                best[j], back[j] = best[i] + cost, i
    return back


@njit(cache=True)
def plan(net, runs, sizes, busy, tiled, m, rate, fuse):  # type: ignore[no-untyped-def]
    """Groups of a network on a machine.

    Parameters
    ----------
    net, runs, sizes : Chain, Runs, Sizes
    busy : (layers, heights)
        Cycles of a tile of this height.
    tiled : Tiled
    m : (MACHINE)
    rate : float
        Bytes a cycle that streams of strips sustain.

    Returns
    -------
    groups : (n, GROUP)
    stays : (maps,)
        Last group that reads a map that stays on chip; -1: in DRAM.
    wants : (layers,)
        Layers for which column tiles should have been offered: if any, offer them and plan again.
    misfit : int
        A layer that fits in no tile, or -1.
    """
    n, maps = len(net.engine), len(net.height)
    total = m[_GROUP_WORDS] * m[_MAP_GROUPS]
    chunks = _chunks(net, sizes, busy, m)
    words = sizes.maps[:, _H] * sizes.maps[:, _W] * sizes.maps[:, _BLOCKS]
    spilled = np.zeros(maps, np.bool_)
    hopeful = np.zeros(maps, np.bool_)
    for t in range(maps):
        spilled[t] = not sizes.maps[t, _MAY_STAY] or words[t] > m[_GROUP_WORDS]
        hopeful[t] = not spilled[t] and words[t] <= _RESIDENT_SHARE * total
    wants = np.zeros(n, np.bool_)
    groups = np.zeros((n, len(GROUP)), np.int64)
    back = _cuts(net, runs, sizes, busy, chunks, tiled, m, rate, fuse, hopeful, wants)
    stays = np.full(maps, -1, np.int64)
    if wants.any():
        return groups[:0], stays, wants, -1
    starts = np.zeros(n + 1, np.bool_)
    j = n
    while j:
        starts[back[j]] = True
        j = back[j]
    group_of = np.zeros(n, np.int64)
    while True:
        count = 0
        for layer in range(n):
            count += starts[layer]
            group_of[layer] = count - 1
        stays[:] = -1
        for t in range(maps):
            if sizes.maker[t] >= 0 and not spilled[t] and net.last_reader[t] >= 0:
                last = group_of[net.last_reader[t]]
                if last > group_of[sizes.maker[t]]:
                    stays[t] = last
        stay = stays >= 0
        i, g, spill, split = 0, 0, -1, -1
        while i < n:
            j = i + 1
            while j < n and not starts[j]:
                j += 1
            groups[g, :] = 0
            groups[g, 0], groups[g, 1], groups[g, 6] = i, j, -1
            if net.engine[i] >= 0:
                taken = 0
                for t in range(maps):
                    if stay[t] and stays[t] >= g and sizes.maker[t] < i:
                        taken += words[t]
                found = _search(
                    net, runs, sizes, busy, chunks, tiled, m, rate, i, j, stay, total - taken, fuse
                )
                wants[i] = wants[i] or found[6]
                if found[0] >= _NEVER:
                    largest = -1
                    for t in range(maps):
                        if stay[t] and stays[t] >= g and sizes.maker[t] < j and words[t] > largest:
                            spill, largest = t, words[t]
                    split = g if spill < 0 else -1
                    break
                if found[5] and stay[net.out[i]]:
                    spill = net.out[i]
                    break
                entry = found[2]
                slack, run = 0, runs.run_at[j, j - i]
                for k in range(runs.run_maps[run + 1] - runs.run_maps[run]):
                    t = runs.maps[runs.run_maps[run] + k]
                    made = sizes.maker[t] >= i and sizes.maker[t] < j
                    if made and not stay[t]:
                        slack += (
                            runs.slack[runs.rings[entry] + k] * sizes.maps[t, _W] * sizes.maps[t, _BLOCKS]
                        )
                    elif made:
                        slack += words[t]
                    elif not stay[t] and sizes.maps[t, _FOLD]:
                        slack += (
                            runs.slack[runs.rings[entry] + k]
                            * sizes.maps[t, _FOLD_WIDTH]
                            * sizes.maps[t, _FOLD]
                        )
                    elif not stay[t]:
                        slack += (
                            runs.slack[runs.rings[entry] + k] * sizes.maps[t, _W] * sizes.maps[t, _BLOCKS]
                        )
                groups[g, 2] = runs.rows[entry]
                groups[g, 3] = found[5] if found[5] else sizes.maps[net.out[j - 1], _W]
                groups[g, 4], groups[g, 5], groups[g, 6] = found[3], found[4], entry
                groups[g, 7] = 1 if found[5] or slack + taken <= total else 0
            i, g = j, g + 1
        if wants.any():
            return groups[:0], stays, wants, -1
        if spill >= 0:
            spilled[spill] = True
        elif split >= 0 and groups[split, 1] - groups[split, 0] > 1:
            starts[groups[split, 0] : groups[split, 1]] = True
        elif split >= 0:
            return groups[:0], stays, wants, groups[split, 0]
        else:
            return groups[:g], stays, wants, -1
