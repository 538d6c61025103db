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
    maker, last_reader : (maps,)
        Layer that makes the map, last layer that reads it; -1 for none.
    is_output : (maps,)
    elementwise : (layers,)
        Add, multiply, table, PReLU on the VEC engine: may write over a source.
    follows : (layers,)
        Keeps channels apart, as of `channelwise.follows`.
    channels : (maps,)
    skip_y, skip_x : (layers,)
        Rows and columns from one that a layer reads to the next, as of `skipping`.
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
    maker: _Ints
    last_reader: _Ints
    is_output: _Ints
    elementwise: _Ints
    follows: _Ints
    channels: _Ints
    skip_y: _Ints
    skip_x: _Ints


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
    kinds : (...,)
        Engine that makes and engine that first reads each of `maps` in its run, as a number.
    over : (entries * fuse,)
        Sources that each layer may write over: bit k for its input k.
    joins : (runs,)
        1 where layers can join that go chunk by chunk, 2 where these do, as of `channelwise`, if convolutions have one part.
    apart : (entries,)
        No layer that follows reads rows of a strip before its own.
    skip_y, skip_x : (...,)
        Rows and columns from one of `maps` that is loaded to the next; `ring` and `slack` count those.
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
    kinds: _Ints
    over: _Ints
    joins: _Ints
    apart: _Ints
    skip_y: _Ints
    skip_x: _Ints


_inner = njit(
    error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)  # compiled into its callers, and cached with them


@_inner
def _ceil(a, b):  # type: ignore[no-untyped-def]
    return (a + b - 1) // b


class _Run(NamedTuple):
    """Layers i..j-1 and their maps, by place in the order of appearance (`maps`; `place`: -1 elsewhere).

    `made` maps are made here; the edges that read map k are ``edge[reader[k]]`` and on, of layers `layer`; `need` and `stage`
    are as in `strips.Strips`.
    """

    place: _Ints
    maps: _Ints
    made: _Ints
    reader: _Ints
    edge: _Ints
    layer: _Ints
    need: _Ints
    stage: _Ints


@_inner
def _room_for(net, fuse, rows):  # type: ignore[no-untyped-def]
    """Scratch for runs of up to `fuse` layers and `rows` strips."""
    widest = 0
    for layer in range(len(net.engine)):
        widest = max(widest, net.in_ptr[layer + 1] - net.in_ptr[layer])
    most = min(fuse * (widest + 1), len(net.height)) + 1
    edges = fuse * widest + 1
    return _Run(
        np.full(len(net.height), -1, np.int64), np.zeros(most, np.int64), np.zeros(most, np.int64),
        np.zeros(most + 1, np.int64), np.zeros(edges, np.int64), np.zeros(edges, np.int64),
        np.zeros((most, rows + 1), np.int64), np.zeros(most, np.int64),
    )  # fmt: skip


@_inner
def _maps_of(net, i, j, run):  # type: ignore[no-untyped-def]
    """Set what is known of layers i..j-1 without their strips; returns the number of maps."""
    n = 0
    for layer in range(i, j):
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1] + 1):
            t = net.ins[e] if e < net.in_ptr[layer + 1] else net.out[layer]
            if run.place[t] < 0:
                run.place[t], run.maps[n], run.made[n] = n, t, 0
                n += 1
        run.made[run.place[net.out[layer]]] = 1
    run.reader[: n + 1] = 0
    for e in range(net.in_ptr[i], net.in_ptr[j]):
        run.reader[run.place[net.ins[e]] + 1] += 1
    for k in range(n):
        run.reader[k + 1] += run.reader[k]
    for layer in range(i, j):
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            k = run.place[net.ins[e]]
            run.edge[run.reader[k]], run.layer[run.reader[k]] = e, layer
            run.reader[k] += 1
    for k in range(n, 0, -1):
        run.reader[k] = run.reader[k - 1]
    run.reader[0] = 0
    return n


@_inner
def _rows(net, i, j, rows, run, n):  # type: ignore[no-untyped-def]
    """Fill `need` and `stage`; returns strips and the last stage."""
    place, need, stage = run.place, run.need, run.stage
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
        elif run.reader[at] == run.reader[at + 1]:
            for s in range(1, count + 1):
                need[at, s] = _ceil(height * s, count)
        if net.is_output[t] or net.last_reader[t] >= j:
            need[at, count] = height
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            source = place[net.ins[e]]
            most, reach = net.height[net.ins[e]], net.reach_ptr[e] - 1
            for s in range(1, count + 1):
                if net.reduces[layer]:
                    want = min(s * rows, most)
                else:
                    want = net.stop[reach + need[at, s]] if need[at, s] > 0 else 0
                need[source, s] = max(need[source, s], want)

    last = 0
    for layer in range(i, j):
        late = 0
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            at = place[net.ins[e]]
            if run.made[at]:
                maker = net.engine[net.maker[net.ins[e]]]
                wait = net.engine[layer] == _CONV and maker in (_DWC, _VEC) and count > 1
                late = max(late, stage[at] + (1 if wait else 0))
        stage[place[net.out[layer]]] = late
        last = max(last, late)
    for k in range(n):
        if not run.made[k]:
            stage[k] = last
            for r in range(run.reader[k], run.reader[k + 1]):
                stage[k] = min(stage[k], stage[place[net.out[run.layer[r]]]])
    return count, last


@_inner
def _within(index, most):  # type: ignore[no-untyped-def]
    return min(max(index, 0), most)


@_inner
def _low(net, run, k, r, strip, count):  # type: ignore[no-untyped-def]
    """First row of map k that its reader `r` still reads from a strip on; beyond the map when none."""
    layer = run.layer[r]
    if net.reduces[layer]:
        return run.need[k, strip]
    to = run.place[net.out[layer]]
    if run.need[to, strip] >= run.need[to, count]:
        return _NEVER
    return net.first[net.reach_ptr[run.edge[r]] + run.need[to, strip]]


@_inner
def _ring(net, run, k, count, steps):  # type: ignore[no-untyped-def]
    """Fewest rows of the ring of map k, and the rows that let its producer run ahead."""
    mine = run.stage[k]
    ring = slack = 1
    for step in range(steps):
        after = run.need[k, _within(step - mine + 1, count)]
        ahead = run.need[k, _within(step - mine + 2, count)]
        low = after
        for r in range(run.reader[k], run.reader[k + 1]):
            strip = _within(step - run.stage[run.place[net.out[run.layer[r]]]], count)
            low = min(low, _low(net, run, k, r, strip, count))
        if run.made[k]:
            low = min(low, run.need[k, _within(step - mine, count)])
        ring, slack = max(ring, after - low), max(slack, ahead - low)
    height = net.height[run.maps[k]]
    ring, alone = min(ring, height), run.made[k] == 1
    for r in range(run.reader[k], run.reader[k + 1]):
        alone = alone and net.engine[run.layer[r]] == net.engine[net.maker[run.maps[k]]]
    return ring, ring if alone else min(max(ring, slack), height)


@_inner
def _replaces(net, run, layer, e, count, steps):  # type: ignore[no-untyped-def]
    """Whether an elementwise layer may write over what edge `e` reads, as `strips.may_replace`."""
    k, to = run.place[net.ins[e]], run.place[net.out[layer]]
    if not net.elementwise[layer] or run.made[k]:
        return False
    for other in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
        if other != e and net.ins[other] == net.ins[e]:
            return False
    for step in range(steps):
        written = run.need[to, _within(step - run.stage[to] + 1, count)]
        for r in range(run.reader[k], run.reader[k + 1]):
            if run.layer[r] == layer:
                continue
            late = 1 if run.layer[r] > layer else 0
            strip = _within(step + 1 - late - run.stage[run.place[net.out[run.layer[r]]]], count)
            if written > _low(net, run, k, r, strip, count):
                return False
    return True


@_inner
def _joins(net, i, j, run):  # type: ignore[no-untyped-def]
    """As `channelwise.joins_chunks` (1) and `goes_by_chunks` (2)."""
    if net.engine[i] != _CONV:
        return 0
    channels = net.channels[net.out[i]]
    for layer in range(i, j):
        inside = 0
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            made = net.maker[net.ins[e]]
            inside += 1 if made >= i and made < layer else 0
            if net.engine[layer] != _CONV and net.channels[net.ins[e]] != channels:
                return 0
        fits = inside == 0 if net.engine[layer] == _CONV else inside > 0 and net.follows[layer]
        if not fits or net.channels[net.out[layer]] != channels:
            return 0
    return 2 if net.engine[j - 1] != _CONV else 1


@_inner
def _apart(net, run, n, count):  # type: ignore[no-untyped-def]
    """As `channelwise.keeps_rows_apart`."""
    for k in range(n):
        chunked = True
        for r in range(run.reader[k], run.reader[k + 1]):
            chunked = chunked and (run.made[k] == 1 or net.engine[run.layer[r]] != _CONV)
        for r in range(run.reader[k], run.reader[k + 1]):
            for strip in range(1, count):
                if chunked and _low(net, run, k, r, strip, count) < run.need[k, strip]:
                    return 0
    return 1


@_inner
def _grown(a, size):  # type: ignore[no-untyped-def]
    if size <= len(a):
        return a
    out = np.zeros(2 * size, np.int64)
    out[: len(a)] = a
    return out


@njit(cache=True, error_model="numpy")
def runs_of(net, fuse, counts, steps):  # type: ignore[no-untyped-def]
    """All runs of up to `fuse` layers, as the fields of `Runs`; several layers take one of `counts`
    strips, a layer of the array alone also heights that are multiples of one of `steps`."""
    layers = len(net.engine)
    run_at = np.full((layers + 1, fuse + 1), -1, np.int64)
    start = np.zeros(1, np.int64)
    run_maps, run_entries, maps, over = start.copy(), start.copy(), start.copy(), start.copy()
    kinds, joins, apart, skip_y, skip_x = start.copy(), start.copy(), start.copy(), start.copy(), start.copy()
    rows_, strips_, steps_, rings = start.copy(), start.copy(), start.copy(), start.copy()
    ring_, slack_, tiles, tile, times = start.copy(), start.copy(), start.copy(), start.copy(), start.copy()
    runs = entries = n_maps = n_rings = n_tiles = 0
    run = _room_for(net, fuse, net.height.max())
    for j in range(1, layers + 1):
        for i in range(j - 1, max(-1, j - 1 - fuse), -1):
            if j - i > 1 and (net.reduces[i] or net.engine[i] < 0 or net.engine[j - 1] < 0):
                break
            n = _maps_of(net, i, j, run)
            run_at[j, j - i] = runs
            joins = _grown(joins, runs + 1)
            joins[runs] = _joins(net, i, j, run) if j - i > 1 else 0
            fewest = 1 if joins[runs] == 2 else 2
            maps, kinds = _grown(maps, n_maps + n), _grown(kinds, n_maps + n)
            skip_y, skip_x = _grown(skip_y, n_maps + n), _grown(skip_x, n_maps + n)
            maps[n_maps : n_maps + n] = run.maps[:n]
            for k in range(n):
                made = net.engine[net.maker[run.maps[k]]] if run.made[k] else 0
                read = net.engine[run.layer[run.reader[k]]] if run.reader[k + 1] > run.reader[k] else -2
                kinds[n_maps + k] = made * 8 + read + 2
                skip_y[n_maps + k] = skip_x[n_maps + k] = 1
                if not run.made[k] and run.reader[k + 1] - run.reader[k] == 1:
                    only = run.layer[run.reader[k]]
                    skip_y[n_maps + k], skip_x[n_maps + k] = net.skip_y[only], net.skip_x[only]
            n_maps += n
            driver = net.ins[net.in_ptr[j - 1]] if net.reduces[j - 1] else net.out[j - 1]
            height, before = net.height[driver], -1
            for option in range(len(counts) if j - i > 1 else height):
                rows = height - option
                if j - i > 1:
                    rows = _ceil(height, min(counts[option], height))
                    if rows == before or not fewest <= counts[option] <= height:
                        continue
                else:
                    lowest = _ceil(height, _ceil(height, rows))
                    tried = rows == lowest
                    for step in steps:
                        tried |= net.engine[i] == _CONV and rows % step == 0 and lowest > rows - step
                    if not tried:
                        continue
                before = rows
                count, last = _rows(net, i, j, rows, run, n)
                rows_, strips_ = _grown(rows_, entries + 1), _grown(strips_, entries + 1)
                steps_ = _grown(steps_, entries + 1)
                rows_[entries], strips_[entries], steps_[entries] = rows, count, count + last
                apart = _grown(apart, entries + 1)
                apart[entries] = _apart(net, run, n, count) if joins[runs] == 2 else 0
                ring_, slack_ = _grown(ring_, n_rings + n), _grown(slack_, n_rings + n)
                for k in range(n):
                    least, most = _ring(net, run, k, count, count + last)
                    skip = skip_y[n_maps - n + k]
                    ring_[n_rings + k], slack_[n_rings + k] = _ceil(least, skip), _ceil(most, skip)
                n_rings += n
                tiles, over = _grown(tiles, (entries + 1) * fuse + 1), _grown(over, (entries + 1) * fuse)
                for layer in range(i, i + fuse):
                    slot, first = entries * fuse + layer - i, n_tiles
                    over[slot] = 0
                    if layer < j and net.elementwise[layer]:
                        for e in range(net.in_ptr[layer + 1] - 1, net.in_ptr[layer] - 1, -1):
                            if _replaces(net, run, layer, e, count, count + last):
                                over[slot] |= 1 << (e - net.in_ptr[layer])
                    reduces = layer < j and net.reduces[layer]
                    if layer < j:
                        at = run.place[net.out[layer]]
                        for s in range(1 if reduces else count):
                            high = 1 if reduces else run.need[at, s + 1] - run.need[at, s]
                            k = first
                            while k < n_tiles and tile[k] != high:
                                k += 1
                            if high and k == n_tiles:
                                n_tiles += 1
                                tile, times = _grown(tile, n_tiles), _grown(times, n_tiles)
                                tile[k], times[k] = high, 0
                            if high:
                                times[k] += 1
                    tiles[slot + 1] = n_tiles
                entries += 1
                rings = _grown(rings, entries + 1)
                rings[entries] = n_rings
            runs += 1
            run_maps, run_entries = _grown(run_maps, runs + 1), _grown(run_entries, runs + 1)
            run_maps[runs], run_entries[runs] = n_maps, entries
            for k in range(n):
                run.place[run.maps[k]] = -1
    return (
        run_at, run_maps[: runs + 1], run_entries[: runs + 1], maps[:n_maps], rows_[:entries], strips_[:entries],
        steps_[:entries], rings[: entries + 1], ring_[:n_rings], slack_[:n_rings], tiles[: entries * fuse + 1],
        tile[:n_tiles], times[:n_tiles], kinds[:n_maps], over[: entries * fuse], joins[:runs], apart[:entries],
        skip_y[:n_maps], skip_x[:n_maps],
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
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
    begin = np.zeros((len(groups) + 1, 2), np.int64)
    counts = np.zeros(len(groups), np.int64)
    need, stage, maps = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64)
    longest = 1
    for g in range(len(groups)):
        longest = max(longest, groups[g, 1] - groups[g, 0])
    run = _room_for(net, longest, net.height.max())
    for g in range(len(groups)):
        i, j, rows = groups[g]
        n = _maps_of(net, i, j, run)
        count, _ = _rows(net, i, j, rows, run, n)
        a, b = begin[g]
        stage, maps, need = _grown(stage, a + n), _grown(maps, a + n), _grown(need, b + n * (count + 1))
        stage[a : a + n], maps[a : a + n] = run.stage[:n], run.maps[:n]
        for k in range(n):
            need[b : b + count + 1] = run.need[k, : count + 1]
            b += count + 1
            run.place[run.maps[k]] = -1
        begin[g + 1, 0], begin[g + 1, 1], counts[g] = a + n, b, count
    return begin, need, stage, counts, maps
