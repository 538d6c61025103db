"""Row strips of every run of layers and every strip height at once: `strips.plan_strips`, compiled.

The tables hold nothing of a machine but which engine runs a layer, so machines of a sweep share them.
"""

# mypy: disable-error-code="untyped-decorator, no-any-return"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["Chain", "Runs", "group_rows", "runs_of"]

_Ints = NDArray[np.int64]
_NEVER = 1 << 30
_CONV, _DWC, _VEC = 1, 2, 3


class Chain(NamedTuple):
    """Layers in order, and the maps between them; index arrays, so that kernels can take them.

    Parameters
    ----------
    engine : (layers,)
        As `isa.Engine`; -1 for a view.
    out : (layers,)
        Map that the layer makes.
    in_ptr, ins : (layers + 1,), (edges,)
        Maps that it reads.
    reduces : (layers,)
    reach_ptr : (edges,)
        Where an edge's rows lie in `first` and `stop` (`Layer.reach`).
    first, stop : (sum of heights,)
    height : (maps,)
    last_reader : (maps,)
        Last layer that reads the map; -1 for none.
    is_output : (maps,)
    """

    engine: _Ints
    out: _Ints
    in_ptr: _Ints
    ins: _Ints
    reduces: _Ints
    reach_ptr: _Ints
    first: _Ints
    stop: _Ints
    height: _Ints
    last_reader: _Ints
    is_output: _Ints


class Runs(NamedTuple):
    """Strips of runs of layers i..j-1: a run has an entry a strip height, an entry a record a map and heights a layer.

    Parameters
    ----------
    run_at : (layers + 1, fuse + 1)
        Run that ends before layer j and has n layers; -1 where layers cannot run together.
    run_maps : (runs + 1,)
        Where its maps begin in `maps`.
    run_entries : (runs + 1,)
    maps : (...,)
        Maps of the runs.
    rows, strips, steps : (entries,)
        Strip height, strips, steps with the ramp of the stages.
    rings : (entries + 1,)
        Where an entry's rings begin; one a map of its run, in order.
    ring, slack : (...,)
    tiles : (entries * fuse + 1,)
        Where the tile heights of an entry's layers begin.
    tile, times : (...,)
        Tile height, and how many strips have it.
    """

    run_at: _Ints
    run_maps: _Ints
    run_entries: _Ints
    maps: _Ints
    rows: _Ints
    strips: _Ints
    steps: _Ints
    rings: _Ints
    ring: _Ints
    slack: _Ints
    tiles: _Ints
    tile: _Ints
    times: _Ints


@njit(cache=True)
def _ceil(a, b):  # type: ignore[no-untyped-def]
    return (a + b - 1) // b


@njit(cache=True)
def _maps_of(net, i, j, place, maps):  # type: ignore[no-untyped-def]
    """Maps of layers i..j-1 in order of appearance, and the place of each in that list (`place`, else -1)."""
    n = 0
    for layer in range(i, j):
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            t = net.ins[e]
            if place[t] < 0:
                place[t] = n
                maps[n] = t
                n += 1
        t = net.out[layer]
        if place[t] < 0:
            place[t] = n
            maps[n] = t
            n += 1
    return n


@njit(cache=True)
def _rows(net, i, j, rows, place, maps, n, need, stage):  # type: ignore[no-untyped-def]
    """Fill `need` and `stage` (as in `strips.Strips`, by place of the map); returns strips and the last stage."""
    driver = net.ins[net.in_ptr[j - 1]] if net.reduces[j - 1] else net.out[j - 1]
    count = _ceil(net.height[driver], rows)
    need[:n, : count + 1] = 0
    for layer in range(j - 1, i - 1, -1):
        t = net.out[layer]
        at, height = place[t], net.height[t]
        if t == driver and layer == j - 1:
            for s in range(1, count + 1):
                need[at, s] = min(s * rows, height)
        elif net.reduces[layer]:
            need[at, count] = height
        else:
            read = False
            for other in range(i, j):
                for e in range(net.in_ptr[other], net.in_ptr[other + 1]):
                    read |= net.ins[e] == t
            if not read:
                for s in range(1, count + 1):
                    need[at, s] = _ceil(height * s, count)
        if net.is_output[t] or net.last_reader[t] >= j:
            need[at, count] = height
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            source = place[net.ins[e]]
            most = net.height[net.ins[e]]
            for s in range(1, count + 1):
                if net.reduces[layer]:
                    want = min(s * rows, most)
                else:
                    want = net.stop[net.reach_ptr[e] + need[at, s] - 1] if need[at, s] > 0 else 0
                need[source, s] = max(need[source, s], want)

    stage[:n] = -1
    last = 0
    for layer in range(i, j):
        late = 0
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            t = net.ins[e]
            for maker in range(i, layer):
                if net.out[maker] == t:
                    other = net.engine[maker]
                    wait = net.engine[layer] == _CONV and other in (_DWC, _VEC) and count > 1
                    late = max(late, stage[place[t]] + (1 if wait else 0))
        stage[place[net.out[layer]]] = late
        last = max(last, late)
    for layer in range(j - 1, i - 1, -1):
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            at, made = place[net.ins[e]], False
            for maker in range(i, j):
                made |= net.out[maker] == net.ins[e]
            if not made:
                mine = stage[place[net.out[layer]]]
                stage[at] = mine if stage[at] < 0 else min(stage[at], mine)
    return count, last


@njit(cache=True)
def _within(index, most):  # type: ignore[no-untyped-def]
    return min(max(index, 0), most)


@njit(cache=True)
def _ring(net, i, j, t, place, need, stage, count, steps):  # type: ignore[no-untyped-def]
    """Fewest rows of the ring of map `t`, and the rows that let its producer run ahead."""
    at = place[t]
    mine, made = stage[at], False
    for layer in range(i, j):
        made |= net.out[layer] == t
    ring = slack = 1
    for step in range(steps):
        after = need[at, _within(step - mine + 1, count)]
        ahead = need[at, _within(step - mine + 2, count)]
        low = after
        for layer in range(i, j):
            to = place[net.out[layer]]
            for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
                if net.ins[e] != t:
                    continue
                strip = _within(step - stage[to], count)
                if net.reduces[layer]:
                    low = min(low, need[at, strip])
                elif need[to, strip] < need[to, count]:
                    low = min(low, net.first[net.reach_ptr[e] + need[to, strip]])
        if made:
            low = min(low, need[at, _within(step - mine, count)])
        ring, slack = max(ring, after - low), max(slack, ahead - low)
    height = net.height[t]
    ring = min(ring, height)
    return ring, min(max(ring, slack), height)


@njit(cache=True)
def _grown(a, size):  # type: ignore[no-untyped-def]
    if size <= len(a):
        return a
    out = np.zeros(2 * size, np.int64)
    out[: len(a)] = a
    return out


@njit(cache=True)
def runs_of(net, fuse):  # type: ignore[no-untyped-def]
    """All runs of up to `fuse` layers, as the fields of `Runs`."""
    layers, most = len(net.engine), net.height.max()
    place = np.full(len(net.height), -1, np.int64)
    here = np.zeros(len(net.height) + 1, np.int64)
    run_at = np.full((layers + 1, fuse + 1), -1, np.int64)
    start = np.zeros(1, np.int64)
    run_maps, run_entries, maps = start.copy(), start.copy(), start.copy()
    rows_, count_, steps_, rings = start.copy(), start.copy(), start.copy(), start.copy()
    ring_, slack_, tiles, tile, times = start.copy(), start.copy(), start.copy(), start.copy(), start.copy()
    runs = entries = n_maps = n_rings = n_tiles = 0
    widest = 0
    for layer in range(layers):
        widest = max(widest, net.in_ptr[layer + 1] - net.in_ptr[layer])
    need = np.zeros((fuse * (widest + 1), most + 1), np.int64)
    stage = np.zeros(len(need), np.int64)
    for j in range(1, layers + 1):
        for i in range(j - 1, max(-1, j - 1 - fuse), -1):
            if net.engine[i] < 0 or (j - i > 1 and (net.reduces[i] or net.engine[j - 1] < 0)):
                break
            n = _maps_of(net, i, j, place, here)
            run_at[j, j - i] = runs
            maps = _grown(maps, n_maps + n)
            maps[n_maps : n_maps + n] = here[:n]
            n_maps += n
            driver = net.ins[net.in_ptr[j - 1]] if net.reduces[j - 1] else net.out[j - 1]
            height, before = net.height[driver], -1
            for parts in range(1, height + 1):
                rows = _ceil(height, parts)
                if rows == before or (j - i > 1 and rows == height):
                    continue
                before = rows
                count, last = _rows(net, i, j, rows, place, here, n, need, stage)
                rows_, count_, steps_ = (
                    _grown(rows_, entries + 1), _grown(count_, entries + 1), _grown(steps_, entries + 1),
                )  # fmt: skip
                rows_[entries], count_[entries], steps_[entries] = rows, count, count + last
                ring_, slack_ = _grown(ring_, n_rings + n), _grown(slack_, n_rings + n)
                for k in range(n):
                    found = _ring(net, i, j, here[k], place, need, stage, count, count + last)
                    ring_[n_rings + k], slack_[n_rings + k] = found
                n_rings += n
                tiles = _grown(tiles, (entries + 1) * fuse + 1)
                for layer in range(fuse):
                    first = n_tiles
                    if i + layer < j and not net.reduces[i + layer]:
                        at = place[net.out[i + layer]]
                        for s in range(count):
                            high = need[at, s + 1] - need[at, s]
                            k = first
                            while k < n_tiles and tile[k] != high:
                                k += 1
                            if high and k == n_tiles:
                                n_tiles += 1
                                tile, times = _grown(tile, n_tiles), _grown(times, n_tiles)
                                tile[k], times[k] = high, 0
                            if high:
                                times[k] += 1
                    elif i + layer < j:
                        tile, times = _grown(tile, n_tiles + 1), _grown(times, n_tiles + 1)
                        tile[n_tiles] = times[n_tiles] = 1
                        n_tiles += 1
                    tiles[entries * fuse + layer + 1] = n_tiles
                entries += 1
                rings = _grown(rings, entries + 1)
                rings[entries] = n_rings
            runs += 1
            run_maps, run_entries = _grown(run_maps, runs + 1), _grown(run_entries, runs + 1)
            run_maps[runs], run_entries[runs] = n_maps, entries
            for k in range(n):
                place[here[k]] = -1
    return (
        run_at, run_maps[: runs + 1], run_entries[: runs + 1], maps[:n_maps], rows_[:entries], count_[:entries],
        steps_[:entries], rings[: entries + 1], ring_[:n_rings], slack_[:n_rings], tiles[: entries * fuse + 1],
        tile[:n_tiles], times[:n_tiles],
    )  # fmt: skip


@njit(cache=True)
def group_rows(net, groups):  # type: ignore[no-untyped-def]
    """Rows of some groups of layers.

    Parameters
    ----------
    groups : (n, 3)
        First layer, layer after the last, strip height.

    Returns
    -------
    begin, need, stage, count : (n + 1, 2), (...,), (...,), (n,)
        Of group g, map k (in order of appearance) has stage ``stage[begin[g, 0] + k]`` and rows
        ``need[begin[g, 1] + k * (count[g] + 1)]`` and on.
    maps : (...,)
        Maps of the groups, from ``begin[g, 0]``.
    """
    place = np.full(len(net.height), -1, np.int64)
    here = np.zeros(len(net.height) + 1, np.int64)
    begin = np.zeros((len(groups) + 1, 2), np.int64)
    counts = np.zeros(len(groups), np.int64)
    need, stage, maps = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64)
    for g in range(len(groups)):
        i, j, rows = groups[g]
        n = _maps_of(net, i, j, place, here)
        driver = net.ins[net.in_ptr[j - 1]] if net.reduces[j - 1] else net.out[j - 1]
        count = _ceil(net.height[driver], rows)
        rows_here, stage_here = np.zeros((n, count + 1), np.int64), np.zeros(n, np.int64)
        _rows(net, i, j, rows, place, here, n, rows_here, stage_here)
        a, b = begin[g]
        stage, maps, need = _grown(stage, a + n), _grown(maps, a + n), _grown(need, b + n * (count + 1))
        stage[a : a + n], maps[a : a + n] = stage_here, here[:n]
        need[b : b + n * (count + 1)] = rows_here.ravel()
        begin[g + 1, 0], begin[g + 1, 1], counts[g] = a + n, b + n * (count + 1), count
        for k in range(n):
            place[here[k]] = -1
    return begin, need, stage, counts, maps
