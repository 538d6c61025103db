"""Where maps live, compiled: `place.Floor` and the placement of `plan` on index arrays."""

# mypy: disable-error-code="untyped-decorator, no-any-return"

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["GROUP", "RING", "place"]

GROUP = ("first", "stop", "rows", "cols", "mode", "chunk", "entry", "rings")
"""Columns of a group: layers, strip height, tile width, mode, output blocks a chunk (0: all), entry of `Runs` (-1: a view),
where its rings begin."""
RING = ("base", "rows", "blocks", "width")
"""Columns of a ring, one a map of the group's run, in order: first word from the beginning of the map memory."""

# As in `place` and `plan`, which a test compares.
_SWEEPS, _WAIT, _PLACED, _DRAM_WEIGHT = 3, 0.5, 16, 0.3

# Columns of quick_plan.STEP, TABLE and COST, and of quick_network.MAP.
_S_FIRST, _S_STOP, _S_BEFORE, _S_AFTER, _S_TABLE, _S_ENTRY = range(6)
_S_OVER = 9
_WORDS, _ENTRY, _MODE, _CHUNK, _COLS, _OVER = range(6)
_VALUE, _BUSIEST, _ENGINES, _WORK = 0, 1, 2, 8
_CHUNKS, _CHUNKS_HELD = 2, 2
_H, _W, _C, _BLOCKS, _FOLD, _FOLD_WIDTH, _BIT = 0, 1, 2, 3, 4, 5, 11
# Columns of a place: words, first and last group of layers, map.
_BASE, _STOP, _FIRST, _LAST, _MAP = range(5)
_LOAD, _CONV, _SAVE = 0, 1, 4


_inner = njit(
    error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)  # compiled into its callers, and cached with them


@_inner
def _ceil(a, b):  # type: ignore[no-untyped-def]
    return (a + b - 1) // b


@_inner
def _stays(sizes, mask, t):  # type: ignore[no-untyped-def]
    bit = sizes.maps[t, _BIT]
    return bit >= 0 and (mask >> bit) & 1 == 1


@_inner
def _gaps(taken, n, size, span, words, out):  # type: ignore[no-untyped-def]
    """Free words low..high-1 between the first n rows of `taken` (base, stop; sorted here by base); how many gaps."""
    for k in range(1, n):
        base, stop = taken[k, 0], taken[k, 1]
        at = k
        while at > 0 and taken[at - 1, 0] > base:
            taken[at] = taken[at - 1]
            at -= 1
        taken[at, 0], taken[at, 1] = base, stop
    count = at = 0
    for k in range(n + 1):
        base = taken[k, 0] if k < n else words
        while at < base:
            end = base if span > 1 else min(base, (at // size + 1) * size)
            out[count, 0], out[count, 1] = at, end
            count += 1
            at = end
        if k < n:
            at = max(at, taken[k, 1])
    return count


@_inner
def _bases(gaps, n, words, size, span, out):  # type: ignore[no-untyped-def]
    """Places for `words` words, rising: at either end of a gap, and at either end of a map group; how many."""
    count = 0
    if words > span * size:
        return 0
    for k in range(n):
        low, high = gaps[k]
        if high - low < words:
            continue
        out[count], out[count + 1] = low, high - words
        count += 2
        for edge in range(_ceil(low, size) * size, high + 1, size):
            if edge + words <= high:
                out[count] = edge
                count += 1
            if edge - words >= low:
                out[count] = edge - words
                count += 1
    return count


@_inner
def _clash(a, b):  # type: ignore[no-untyped-def]
    """Cycles that engines would wait for each other if both maps were in one map group, at most; users: (2, 5) cycles of
    writing and reading, by engine."""
    total = 0.0
    for kind in range(2):
        for e in range(5):
            if a[kind, e] > 0.0:
                for o in range(5):
                    if o != e:
                        total += min(a[kind, e], b[kind, o])
    return total


@_inner
def _ports(base, words, user, live, users, n, skip, begin, end, size, key):  # type: ignore[no-untyped-def]
    """Fill the first three of `key`: cycles that engines may wait at a port, map groups beyond one, words of others there.

    Others are the first n places but `skip`, of those that live between groups of layers `begin` and `end`.
    """
    first, last = base // size, (base + words - 1) // size
    clash, fill = 0.0, 0
    for k in range(n):
        if k == skip or live[k, _FIRST] > end or live[k, _LAST] < begin:
            continue
        if live[k, _BASE] // size <= last and (live[k, _STOP] - 1) // size >= first:
            clash += _clash(user, users[k])
            fill += live[k, _STOP] - live[k, _BASE]
    key[0], key[1], key[2] = clash, last - first, fill


@_inner
def _better(a, b):  # type: ignore[no-untyped-def]
    """Whether the numbers of a come before those of b."""
    for k in range(len(a)):
        if a[k] != b[k]:
            return a[k] < b[k]
    return False


@_inner
def _settle(wanted, users, n, size, span, words, live):  # type: ignore[no-untyped-def]
    """Place the first n rows of `wanted` (words in _BASE), which stay, into `live`; the map that finds no place, or -1."""
    taken, gaps, rest = (
        np.zeros((n + 2, 2), np.int64),
        np.zeros((n + 20, 2), np.int64),
        np.zeros((n + 20, 2), np.int64),
    )
    bases = np.zeros(20 * (n + 20), np.int64)
    key, best, edges = np.zeros(5), np.zeros(5), np.zeros(n + 1, np.int64)
    for w in range(n):
        need, first, last = wanted[w, _BASE], wanted[w, _FIRST], wanted[w, _LAST]
        others, points = 0, 1
        edges[0] = first
        for k in range(w):
            if live[k, _FIRST] <= last and live[k, _LAST] >= first:
                taken[others] = live[k, :2]
                others += 1
                fresh = live[k, _FIRST] > first
                for q in range(points):
                    fresh = fresh and edges[q] != live[k, _FIRST]
                if fresh:
                    edges[points] = live[k, _FIRST]
                    points += 1
        options = _bases(gaps, _gaps(taken, others, size, span, words, gaps), need, size, span, bases)
        if options == 0:
            return wanted[w, _MAP]
        best[:] = 1e300
        for b in range(options):
            base, lost = bases[b], 0
            for q in range(points):
                m = 0
                for k in range(w):
                    if live[k, _FIRST] <= edges[q] <= live[k, _LAST] and live[k, _LAST] >= first:
                        taken[m] = live[k, :2]
                        m += 1
                taken[m, 0], taken[m, 1] = base, base + need
                longest = 0
                for k in range(_gaps(taken, m + 1, size, span, words, rest)):
                    longest = max(longest, rest[k, 1] - rest[k, 0])
                lost -= longest
            _ports(base, need, users[w], live, users, w, -1, first, last, size, key[1:])
            key[0], key[4] = lost, base
            if _better(key, best):
                best[:] = key
        live[w] = wanted[w]
        live[w, _BASE], live[w, _STOP] = int(best[4]), int(best[4]) + need
    return -1


@_inner
def _best(need, user, live, users, n, skip, size, span, words, taken, gaps, bases, key, best):  # type: ignore[no-untyped-def]
    """First word where a ring of `need` words clashes least beside the first n places but `skip`; -1: nowhere."""
    m = 0
    for k in range(n):
        if k != skip:
            taken[m] = live[k, :2]
            m += 1
    options = _bases(gaps, _gaps(taken, m, size, span, words, gaps), need, size, span, bases)
    best[:] = 1e300
    for b in range(options):
        _ports(bases[b], need, user, live, users, n, skip, -1, 1 << 60, size, key)
        key[3] = bases[b]
        if _better(key, best):
            best[:] = key
    return int(best[3]) if options else -1


@_inner
def _rings(wanted, users, gain, slack, order, names, n, size, span, words, live, alive):  # type: ignore[no-untyped-def]
    """Place the rings of a group of layers beside `alive` maps that stay, as `place.Floor.rings`.

    Parameters
    ----------
    wanted : (n, ...)
        Words in _BASE.
    users : (alive + n, 2, 5)
        Of the maps that stay, then of the rings in `order`.
    gain, slack : (n,)
        Cycles that slack saves; words with slack.
    order : (n,)
        Largest first.
    live : scratch, `alive` rows of maps that stay in front; out: the rings in `order` behind them

    Returns
    -------
    waits : cycles that engines may wait; -1 where the rings do not fit
    """
    taken, gaps = np.zeros((alive + n + 2, 2), np.int64), np.zeros((alive + n + 20, 2), np.int64)
    bases, key, best = np.zeros(20 * (alive + n + 20), np.int64), np.zeros(4), np.zeros(4)
    worth, by_worth = np.full(n, 1e300), np.zeros(0, np.int64)
    for w in range(n):
        if slack[w] > wanted[w, _BASE]:
            worth[w] = gain[w] / (slack[w] - wanted[w, _BASE])
            by_worth = np.append(by_worth, w)
    for a in range(1, len(by_worth)):
        w, at = by_worth[a], a
        while at > 0 and (worth[by_worth[at - 1]], names[by_worth[at - 1]]) > (worth[w], names[w]):
            by_worth[at] = by_worth[at - 1]
            at -= 1
        by_worth[at] = w
    plain = np.zeros(n, np.bool_)
    waits = 0.0
    for poor in range(len(by_worth) + 1):
        if poor:
            plain[by_worth[poor - 1]] = True
            waits += gain[by_worth[poor - 1]]
        placed = alive
        for at in range(n):
            w = order[at]
            need = wanted[w, _BASE] if plain[w] else slack[w]
            base = _best(
                need,
                users[alive + at],
                live,
                users,
                placed,
                -1,
                size,
                span,
                words,
                taken,
                gaps,
                bases,
                key,
                best,
            )
            if base < 0:
                break
            live[placed] = wanted[w]
            live[placed, _BASE], live[placed, _STOP] = base, base + need
            placed += 1
        if placed == alive + n:
            break
    if placed < alive + n:
        return -1.0
    for _ in range(_SWEEPS):
        moved = False
        for at in range(alive, alive + n):
            need = live[at, _STOP] - live[at, _BASE]
            base = _best(
                need, users[at], live, users, alive + n, at, size, span, words, taken, gaps, bases, key, best
            )
            moved = moved or base != live[at, _BASE]
            live[at, _BASE], live[at, _STOP] = base, base + need
        if not moved:
            break
    for a in range(alive, alive + n):
        for b in range(a):
            first, last = live[a, _BASE] // size, (live[a, _STOP] - 1) // size
            if live[b, _BASE] // size <= last and (live[b, _STOP] - 1) // size >= first:
                waits += _clash(users[a], users[b])
    return waits


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
def _need(p, i, j, c, k, before, kept, wide, out):  # type: ignore[no-untyped-def]
    """Fill `out` for map k of a candidate: width, blocks, rows, rows with slack, folded, rows from one that is loaded to the next;
    False where it is there already."""
    net, runs, sizes = p.net, p.runs, p.sizes
    t, at = runs.maps[runs.run_maps[runs.run_at[j, j - i]] + k], runs.rings[c[_ENTRY]] + k
    made = net.maker[t] >= i and net.maker[t] < j
    if not made and _stays(sizes, before, t):
        return False
    out[0], out[1], out[2], out[3] = sizes.maps[t, _W], sizes.maps[t, _BLOCKS], runs.ring[at], runs.slack[at]
    out[4], out[5] = 0, 1
    if made and net.last_reader[t] >= j and _stays(sizes, kept, t):
        out[2] = out[3] = sizes.maps[t, _H]
        return True
    if not made and sizes.maps[t, _FOLD]:
        out[0], out[1], out[4] = c[_COLS] if c[_COLS] else sizes.maps[t, _FOLD_WIDTH], sizes.maps[t, _FOLD], 1
    elif c[_COLS]:
        out[0] = c[_COLS] if made else wide
        if not made:  # tiles skip nothing
            skip = runs.skip_y[runs.run_maps[runs.run_at[j, j - i]] + k]
            out[2], out[3] = (out[2] - 1) * skip + 1, (out[3] - 1) * skip + 1
    elif not made:
        at = runs.run_maps[runs.run_at[j, j - i]] + k
        out[0], out[5] = _ceil(out[0], runs.skip_x[at]), runs.skip_y[at]
        out[4] = 1 if runs.skip_y[at] > 1 or runs.skip_x[at] > 1 else 0
    if c[_MODE] >= _CHUNKS and _chunked(net, i, j, t):
        out[1] = min(out[1], _CHUNKS_HELD * c[_CHUNK] * p.m[7] // p.m[6])
    return True


@_inner
def _users(p, i, j, c, work, t, kept, fuse, need, user):  # type: ignore[no-untyped-def]
    """Fill `user` with the cycles that engines write and read a map in a group; returns the cycles that slack of its ring saves."""
    net, sizes = p.net, p.sizes
    user[:] = 0.0
    high = _ceil(sizes.maps[t, _H], need[5])
    words = high * need[0] * need[1]
    if c[_COLS]:
        words *= _ceil(sizes.maps[net.out[j - 1], _W], c[_COLS])
    narrow = need[4] or sizes.maps[t, _C] < p.m[6]
    size = high * sizes.maps[t, _W] * sizes.maps[t, _C]
    moved = max(size / p.rate[0], words / (1 if narrow else p.m[11]))
    maker, making, reading = _LOAD, moved, 0.0
    for layer in range(i, j):
        busy = work if c[_COLS] else p.cycles[c[_ENTRY] * fuse + layer - i]
        if net.out[layer] == t:
            maker, making = net.engine[layer], busy
    user[0, maker] = making
    for layer in range(i, j):
        busy = work if c[_COLS] else p.cycles[c[_ENTRY] * fuse + layer - i]
        reads = False
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            reads = reads or net.ins[e] == t
        if reads:
            user[1, net.engine[layer]] += busy
            reading += busy if net.engine[layer] != maker else 0.0
    if net.maker[t] >= i and (net.is_output[t] or (net.last_reader[t] >= j and not _stays(sizes, kept, t))):
        user[1, _SAVE] += moved
    return min(making, reading)


@njit(cache=True, error_model="numpy")
def place(p, steps, at, costs, table, widths, names, fuse):  # type: ignore[no-untyped-def]
    """Words for the maps of a plan.

    Parameters
    ----------
    p : Problem
    steps, at, costs, table
        As `quick_plan.cuts` and `choices` give them.
    widths : (...,)
        Columns of a source that the tile of each candidate reads.
    names : (maps,)
        Rank of the map's name.

    Returns
    -------
    groups : (n, GROUP)
    rings : (..., RING)
    spill, split : a map that has to go to DRAM, a step that has to be split; -1: none, all are placed
    """
    net, runs, sizes, m = p.net, p.runs, p.sizes, p.m
    size, span, words, objective = m[0], m[1], m[2], m[10]
    n, most = len(steps), len(net.height)
    groups = np.zeros((n, 8), np.int64)
    count = 0
    for g in range(n):
        run = runs.run_at[steps[g, 1], steps[g, 1] - steps[g, 0]]
        groups[g, 7] = count
        count += runs.run_maps[run + 1] - runs.run_maps[run]
    rings, need = np.zeros((count, 4), np.int64), np.zeros(6, np.int64)
    holder, index = (
        np.arange(most),
        np.full(most, -1, np.int64),
    )  # the first of maps that take over each other's words
    residents, stay = np.zeros((most, 5), np.int64), 0
    users = np.zeros((most, 2, 5))
    for g in range(n):
        i, j, before, after = steps[g, 0], steps[g, 1], steps[g, 2], steps[g, 3]
        if steps[g, _S_ENTRY] < 0:
            continue
        c, over = steps[g, _S_TABLE:], steps[g, _S_OVER]
        for t in range(most):
            if (
                net.maker[t] >= 0
                and net.maker[t] < i
                and net.last_reader[t] >= i
                and _stays(sizes, before, t)
            ):
                residents[index[holder[t]], _LAST] = g
        for layer in range(i, j):
            t = net.out[layer]
            if net.last_reader[t] < j or not _stays(sizes, after, t):
                continue
            code = over >> 2 * (layer - i) & 3
            if code:
                holder[t] = holder[net.ins[net.in_ptr[layer] + code - 1]]
                continue
            need[0], need[1], need[4], need[5] = sizes.maps[t, _W], sizes.maps[t, _BLOCKS], 0, 1
            _users(p, i, j, c, 0.0, t, after, fuse, need, users[stay])
            row = residents[stay]
            row[_BASE] = sizes.maps[t, _H] * sizes.maps[t, _W] * sizes.maps[t, _BLOCKS]
            row[_FIRST], row[_LAST], row[_MAP] = g, g, t
            index[t] = stay
            stay += 1
    rank = np.zeros(stay)
    for k in range(stay):
        rank[k] = -float(residents[k, _BASE]) * 1e9 + residents[k, _FIRST] * 1e5 + names[residents[k, _MAP]]
    order = np.argsort(rank)
    wanted, staying = residents[order], users[order]
    live = np.zeros((stay + 1, 5), np.int64)
    lost = _settle(wanted, staying, stay, size, span, words, live)
    if lost >= 0:
        return groups, rings, lost, -1
    base_of = np.zeros(most, np.int64)
    for k in range(stay):
        base_of[live[k, _MAP]] = live[k, _BASE]

    for g in range(n):
        i, j, before, after = steps[g, 0], steps[g, 1], steps[g, 2], steps[g, 3]
        groups[g, 0], groups[g, 1], groups[g, 6] = i, j, -1
        if net.engine[i] < 0:
            continue
        run = runs.run_at[j, j - i]
        maps = runs.run_maps[run + 1] - runs.run_maps[run]
        here, around = np.zeros((stay + maps, 5), np.int64), np.zeros((stay + maps, 2, 5))
        alive, free = 0, words
        for k in range(stay):
            if live[k, _FIRST] <= g and live[k, _LAST] >= g:
                here[alive], around[alive] = live[k], staying[k]
                free -= live[k, _STOP] - live[k, _BASE] if live[k, _FIRST] != g else 0
                alive += 1
        local, slack, gain = np.zeros((maps, 5), np.int64), np.zeros(maps, np.int64), np.zeros(maps)
        mine, rank, local_names = np.zeros((maps, 2, 5)), np.zeros(maps), np.zeros(maps, np.int64)
        best, tried = -1.0, 0
        for option in range(at[g], at[g + 1]):
            c = table[option]
            if c[_WORDS] > free:
                continue
            value = costs[option, _VALUE]
            if best >= 0.0 and (tried >= _PLACED or value > best):
                break
            tried += 1
            locals_here = 0
            for k in range(maps):
                t = runs.maps[runs.run_maps[run] + k]
                made = net.maker[t] >= i and net.maker[t] < j
                stays = made and net.last_reader[t] >= j and _stays(sizes, after, t)
                if not _need(p, i, j, c, k, before, after, widths[option], need) or stays:
                    continue
                row = local[locals_here]
                gain[locals_here] = _users(
                    p, i, j, c, costs[option, _WORK], t, after, fuse, need, mine[locals_here]
                )
                row[_BASE], row[_MAP], row[_LAST] = need[0] * need[1] * need[2], k, 1 << 60
                slack[locals_here] = need[0] * need[1] * need[3]
                rank[locals_here], local_names[locals_here] = -float(row[_BASE]) * 1e5 + names[t], names[t]
                locals_here += 1
            order = np.argsort(rank[:locals_here])
            for k in range(locals_here):
                around[alive + k] = mine[order[k]]
            waits = _rings(
                local, around, gain, slack, order, local_names, locals_here, size, span, words, here, alive
            )
            if waits < 0.0:
                continue
            waits = _WAIT * min(waits, costs[option, _ENGINES] - costs[option, _BUSIEST])
            value += 0.01 * waits if objective == 1 else waits
            if best >= 0.0 and value >= best:
                continue
            best = value
            groups[g, 2], groups[g, 3] = (
                runs.rows[c[_ENTRY]],
                c[_COLS] if c[_COLS] else sizes.maps[net.out[j - 1], _W],
            )
            groups[g, 4], groups[g, 5], groups[g, 6] = c[_MODE], c[_CHUNK], c[_ENTRY]
            for k in range(maps):
                t = runs.maps[runs.run_maps[run] + k]
                ring = rings[groups[g, 7] + k]
                ring[0], ring[1] = base_of[holder[t]], sizes.maps[t, _H]
                ring[2], ring[3] = sizes.maps[t, _BLOCKS], sizes.maps[t, _W]
            for position in range(locals_here):
                k = local[order[position], _MAP]
                _need(p, i, j, c, k, before, after, widths[option], need)
                ring, found = rings[groups[g, 7] + k], here[alive + position]
                ring[0], ring[1] = found[_BASE], (found[_STOP] - found[_BASE]) // (need[0] * need[1])
                ring[2], ring[3] = need[1], need[0]
        if best < 0.0:
            largest, spill = -1, -1
            for t in range(most):
                inside = (
                    net.maker[t] >= i
                    and net.maker[t] < j
                    and net.last_reader[t] >= j
                    and _stays(sizes, after, t)
                )
                held = (
                    net.maker[t] >= 0
                    and net.maker[t] < i
                    and net.last_reader[t] >= i
                    and _stays(sizes, before, t)
                )
                if inside or held:
                    total = (
                        sizes.maps[t, _H] * sizes.maps[t, _W] * sizes.maps[t, _BLOCKS] * len(names) + names[t]
                    )
                    if total > largest:
                        largest, spill = total, t
            return groups, rings, spill, g if spill < 0 else -1
    return groups, rings, -1, -1
