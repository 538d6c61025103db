"""The instructions of a plan in stream order, without words or addresses: `lower` on index arrays, for `quick`.

Equal instructions of a group share a row of fields, so that `timing.costs` prices each kind once.
"""

# mypy: disable-error-code="untyped-decorator, no-any-return"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["unroll"]

_Ints = NDArray[np.int64]

# Columns of quick_stream.FIELDS and SHAPE.
(_OPCODE, _FUNC, _OUT_H, _OUT_W, _KH, _KW, _BLOCKS, _OUT_C, _LANE0, _WAYS, _DRAIN_WAYS, _PACKED, _FIRST, _LAST,
 _DIAGONAL, _SY, _SX, _DY, _DX, _A_GROUP, _B_GROUP, _BROADCAST, _BILINEAR, _TABLE, _RUN_BYTES, _RUNS1, _RUNS2, _WIDTH,
 _HEIGHT, _TAKE, _STEP, _FOLD, _RECORDS, _RECORD_ROWS, _FOLD_PAD, _A_SPAN, _B_SPAN) = range(37)  # fmt: skip
_LANES, _OC, _PIXELS, _DRAIN, _BANKS, _WEIGHT_WORDS, _GROUP_WORDS, _SPAN = range(8)

_LOAD, _CONV, _DWC, _VEC, _SAVE = range(5)
_OP_LOAD, _OP_FILL, _OP_CONV, _OP_DWC, _OP_VEC, _OP_SAVE = range(1, 7)
_FUNC_TABLE = 4
_WEIGHTS, _DEEP, _TABLES, _VECTOR = range(4)
_STREAMED, _CHUNKED, _PARTS = 1, 2, 3

# Columns of quick_place.GROUP and RING, and of quick_network.LAYER, PART and MAP.
_G_FIRST, _G_STOP, _G_ROWS, _G_COLS, _G_MODE, _G_CHUNK, _G_ENTRY, _G_RINGS = range(8)
_R_BASE, _R_ROWS, _R_BLOCKS, _R_WIDTH = range(4)
_L_FUNC, _L_KH, _L_KW, _L_SX, _L_DX, _L_BROADCAST, _L_BILINEAR, _L_TABLE, _L_LOOKUP, _L_CONSTANTS = range(10)
(_P_LAYER, _P_SOURCE, _P_FIRST, _P_STOP, _P_OFFSET, _P_CHANNELS, _P_KH, _P_KW, _P_SY, _P_SX, _P_DY, _P_DX, _P_PAD_TOP,
 _P_PAD_LEFT, _P_STEP_Y, _P_STEP_X, _P_ORIGIN_Y, _P_ORIGIN_X, _P_DEPTHWISE, _P_RECORD, _P_INPUTS, _P_BYTES, _P_COUNT,
 _P_FOLD) = range(24)  # fmt: skip
(
    _M_H,
    _M_W,
    _M_C,
    _M_BLOCKS,
    _M_FOLD,
    _M_FOLD_WIDTH,
    _M_FOLD_TAKE,
    _M_FOLD_STEP,
    _M_INPUT,
    _M_STAY,
    _M_VIEW,
    _M_BIT,
) = range(12)


class _Out(NamedTuple):
    """A stream in the making: arrays with room, and how far each is filled (`at`: kinds, actions, reads, chunks, places).

    `begin` is the first kind of the present group; `ring` the rings of maps in force, `place` their places, `skip` rows and columns
    from one of them to the next; `chunk` output
    blocks an instruction of each layer (0: all); `kept` chunks that stay: of parts by their first output block, of tables in a
    drain, of constants of VEC (-1: none); `seen` scratch, an entry a bank.
    """

    fields: _Ints
    actions: _Ints
    reads: _Ints
    chunks: _Ints
    places: _Ints
    at: _Ints
    begin: _Ints
    ring: _Ints
    place: _Ints
    skip: _Ints
    chunk: _Ints
    kept_at: _Ints
    kept: _Ints
    kept_table: _Ints
    kept_words: _Ints
    seen: _Ints


class _Site(NamedTuple):
    """Where in the loops of a group: pass, columns, step; `resident`: constants stay; `tiled`: columns are cut."""

    group: int
    first: int
    stop: int
    mode: int
    chunk: int
    resident: bool
    turn: int
    x0: int
    x1: int
    tiled: bool


_inner = njit(
    error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)  # compiled into its callers, and cached with them


@_inner
def _ceil(a, b):  # type: ignore[no-untyped-def]
    return (a + b - 1) // b


@_inner
def _stays(sizes, mask, t):  # type: ignore[no-untyped-def]
    """Whether a map is in a set of maps on chip."""
    bit = sizes.maps[t, _M_BIT]
    return bit >= 0 and (mask >> bit) & 1 == 1


@_inner
def _ways(pixels, stride, banks):  # type: ignore[no-untyped-def]
    """As `timing.read_ways`."""
    divisor = 1
    while divisor < banks and stride % (2 * divisor) == 0:
        divisor *= 2
    return max(1, _ceil(pixels * divisor, banks))


@_inner
def _free(h, w, block, together, sy, sx, pitch, ring, row, seen):  # type: ignore[no-untyped-def]
    """As `ports.free_of_conflicts`; `seen` has an entry a bank."""
    seen[:] = -1
    turn, mask, in_block, in_turn = 0, len(seen) - 1, 0, 0
    for y in range(h):
        line = (row + y * sy) % ring * pitch
        for _ in range(w):
            if in_block == block:
                in_block = 0
            if in_block == 0 or in_turn == together:
                turn += 1
                in_turn = 0
            bank = line & mask
            if seen[bank] == turn:
                return False
            seen[bank] = turn
            line += sx
            in_block += 1
            in_turn += 1
    return True


# -- into the stream -----------------------------------------------------------------------------------------------------
@_inner
def _kind(out, row):  # type: ignore[no-untyped-def]
    """Row of fields equal to `row`, a new one where the group has none yet."""
    last = min(out.at[0], len(out.fields))
    for k in range(last - 1, out.begin[0] - 1, -1):
        same = True
        for f in range(len(row)):
            if out.fields[k, f] != row[f]:
                same = False
                break
        if same:
            return k
    if last < len(out.fields):
        out.fields[last] = row
    out.at[0] += 1
    return last


@_inner
def _groups(out, t, low, high, b0, b1, m):  # type: ignore[no-untyped-def]
    """First and last map group with rows low..high-1 and blocks b0..b1-1 of a map, as `spans.name_groups` finds them."""
    r = out.ring[t]
    plane, first, rows = r[_R_ROWS] * r[_R_WIDTH], low % r[_R_ROWS], high - low
    if first + rows > r[_R_ROWS]:
        first, rows = 0, r[_R_ROWS]
    if b1 - b0 >= r[_R_BLOCKS]:
        b0, b1 = 0, r[_R_BLOCKS]
    elif b0 >= r[_R_BLOCKS]:
        b0, b1 = b0 % r[_R_BLOCKS], b0 % r[_R_BLOCKS] + b1 - b0
    base = r[_R_BASE] + b0 * plane + first * r[_R_WIDTH]
    stop = base + (b1 - b0 - 1) * plane + rows * r[_R_WIDTH] - 1
    size = m[_GROUP_WORDS]
    return (base // size, stop // size) if m[_SPAN] > 1 else (r[_R_BASE] // size, r[_R_BASE] // size)


@_inner
def _mask(groups):  # type: ignore[no-untyped-def]
    return (2 << groups[1]) - (1 << groups[0])


@_inner
def _emit(out, site, engine, row, t, low, high, block, weights, constants, runs, writes):  # type: ignore[no-untyped-def]
    """One more action, which writes map groups `writes`; its reads follow by `_read`."""
    kind = _kind(out, row)
    if out.at[1] < len(out.actions):
        a = out.actions[out.at[1]]
        a[0], a[1], a[2], a[3], a[4], a[5], a[6] = engine, kind, t, low, high, out.ring[t, _R_ROWS], block
        a[7], a[8], a[9], a[10] = out.at[2], weights, constants, runs
        a[11], a[12] = site.turn if site.mode == _CHUNKED and site.chunk else -1, out.place[t]
        a[13], a[14] = 0, writes
    out.at[1] += 1


@_inner
def _read(out, t, low, high, ports):  # type: ignore[no-untyped-def]
    """The last action reads these rows of a map, in map groups `ports`."""
    if out.at[2] < len(out.reads) and out.at[1] <= len(out.actions):
        a = out.reads[out.at[2]]
        a[0], a[1], a[2], a[3] = t, low, high, out.place[t]
        out.actions[out.at[1] - 1, 13] |= ports
    out.at[2] += 1


@_inner
def _fill(out, memory, words, size, records, record_rows):  # type: ignore[no-untyped-def]
    """A new chunk of constants and its FILL."""
    if out.at[0] < len(out.fields) and out.at[3] < len(out.chunks):
        row = out.fields[out.at[0]]
        row[:] = 0
        row[_OPCODE], row[_FUNC], row[_RUN_BYTES] = _OP_FILL, memory, size
        row[_RECORDS], row[_RECORD_ROWS] = records, record_rows
        chunk = out.chunks[out.at[3]]
        chunk[0], chunk[1], chunk[2] = memory, words, out.at[0]
    out.at[0] += 1
    out.at[3] += 1
    return out.at[3] - 1


# -- statements ----------------------------------------------------------------------------------------------------------
@_inner
def _columns(net, sizes, site, layer, t):  # type: ignore[no-untyped-def]
    """Columns of a source that a tile of its reader needs."""
    width, of = sizes.maps[t, _M_W], sizes.maps[net.out[layer], _M_W]
    if not site.tiled:
        return 0, width
    if sizes.part_ptr[layer + 1] > sizes.part_ptr[layer]:
        part = sizes.parts[sizes.part_ptr[layer]]
        left = site.x0 * part[_P_SX] - part[_P_PAD_LEFT]
        right = (site.x1 - 1) * part[_P_SX] - part[_P_PAD_LEFT] + (part[_P_KW] - 1) * part[_P_DX] + 1
    else:
        left, right = site.x0 * width // of, _ceil(site.x1 * width, of) + sizes.layers[layer, _L_KW] - 1
    left = min(max(0, left), width - 1)
    return left, max(left + 1, min(right, width))


@_inner
def _span(sizes, site, t, m):  # type: ignore[no-untyped-def]
    """Blocks of a map that a chunk has; all where layers do not go chunk by chunk."""
    total = sizes.maps[t, _M_BLOCKS]
    if site.mode != _CHUNKED or not site.chunk:
        return 0, total
    step = site.chunk * m[_OC]
    return site.turn * step // m[_LANES], min(total, _ceil((site.turn + 1) * step, m[_LANES]))


@_inner
def _chunked(net, site, t):  # type: ignore[no-untyped-def]
    """Whether a map comes chunk by chunk where the group does, as of `channelwise.maps_in_chunks`."""
    if net.maker[t] >= site.first and net.maker[t] < site.stop:
        return True
    for layer in range(site.first, site.stop):
        for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
            if net.ins[e] == t and net.engine[layer] == _CONV:
                return False
    return True


@_inner
def _loads(out, net, sizes, site, layer, t, low, high, m, row):  # type: ignore[no-untyped-def]
    """LOADs of rows of a map: the full channel blocks, then the dense last one; folded maps in one piece."""
    size, lanes = sizes.maps[t], m[_LANES]
    left, right = _columns(net, sizes, site, layer, t)
    lines = high - low if site.tiled else 1
    row[:] = 0
    row[_OPCODE], row[_RUNS1], row[_RUNS2], row[_HEIGHT], row[_BLOCKS] = _OP_LOAD, 1, 1, high - low, 1
    if size[_M_FOLD]:
        row[_TAKE], row[_STEP], row[_FOLD] = size[_M_FOLD_TAKE], size[_M_FOLD_STEP], size[_M_FOLD]
        row[_WIDTH] = site.x1 - site.x0 if site.tiled else size[_M_FOLD_WIDTH]
        row[_RUN_BYTES] = (high - low) * (right - left) * size[_M_C]
        ports = _mask(_groups(out, t, low, high, 0, size[_M_FOLD], m))
        _emit(out, site, _LOAD, row, t, low, high, size[_M_BLOCKS], -1, -1, lines, ports)
        return
    rest = size[_M_C] - lanes * (size[_M_BLOCKS] - 1)
    full = size[_M_BLOCKS] if rest == lanes else size[_M_BLOCKS] - 1
    row[_WIDTH], row[_FOLD] = right - left, 1
    skip_y, skip_x = out.skip[t]
    low, high = _ceil(low, skip_y), _ceil(high, skip_y)
    row[_HEIGHT], row[_WIDTH] = high - low, _ceil(right - left, skip_x)
    columns = (row[_WIDTH] - 1) * skip_x + 1 if skip_x > 1 or skip_y > 1 else right - left
    lines = high - low if skip_x > 1 or skip_y > 1 else lines
    if not _chunked(net, site, t):
        site = _Site(
            site.group, site.first, site.stop, _STREAMED, 0, site.resident, site.turn, site.x0, site.x1, site.tiled
        )  # fmt: skip
    b0, b1 = _span(sizes, site, t, m)
    whole = max(0, min(b1, full) - b0)
    for blocks, take, done in ((whole, lanes, b0 + whole), (b1 - b0 - whole, rest, b1)):
        if blocks > 0:
            row[_BLOCKS], row[_TAKE], row[_STEP] = blocks, take, take * skip_x
            row[_RUN_BYTES] = (high - low) * columns * blocks * take
            ports = _mask(_groups(out, t, low, high, done - blocks, done, m))
            _emit(out, site, _LOAD, row, t, low, high, done, -1, -1, lines * blocks, ports)


@_inner
def _saves(out, sizes, site, t, low, high, m, row):  # type: ignore[no-untyped-def]
    """SAVEs of rows of a map, of one chunk's blocks where chunks come one by one."""
    size, lanes = sizes.maps[t], m[_LANES]
    rest = size[_M_C] - lanes * (size[_M_BLOCKS] - 1)
    full = size[_M_BLOCKS] if rest == lanes else size[_M_BLOCKS] - 1
    b0, b1 = _span(sizes, site, t, m)
    width = site.x1 - site.x0 if site.tiled else size[_M_W]
    row[:] = 0
    row[_OPCODE], row[_RUNS1], row[_RUNS2], row[_FOLD] = _OP_SAVE, 1, 1, 1
    row[_WIDTH], row[_HEIGHT] = width, high - low
    whole = max(0, min(b1, full) - b0)
    for blocks, take in ((whole, lanes), (b1 - b0 - whole, rest)):
        if blocks > 0:
            row[_BLOCKS], row[_TAKE], row[_RUN_BYTES] = blocks, take, (high - low) * width * blocks * take
            lines = blocks * (high - low if site.tiled else 1)
            _emit(out, site, _SAVE, row, t, low, high, 0, -1, -1, lines, 0)
            _read(out, t, low, high, _mask(_groups(out, t, low, high, b0, b0 + blocks, m)))
            b0 += blocks


@_inner
def _pack(out, row, part, height, source_ring, ring, low, m):  # type: ignore[no-untyped-def]
    """Set `packed` and ways: pixels are packed over rows where that saves blocks and no bank is asked twice."""
    h, w, sy, sx, pixels = row[_OUT_H], row[_OUT_W], row[_SY], row[_SX], m[_PIXELS]
    row[_PACKED] = 0
    row[_WAYS], row[_DRAIN_WAYS] = _ways(pixels, sx, m[_BANKS]), _ways(m[_DRAIN], part[_P_STEP_X], m[_BANKS])
    if _ceil(h * w, pixels) >= h * _ceil(w, pixels):
        return
    pitch, source_rows = source_ring[_R_WIDTH], source_ring[_R_ROWS]
    top = low * sy - part[_P_PAD_TOP]
    top = top if top < 0 else min(top, height - 1)
    for ky in range(row[_KH]):
        at = (top + ky * row[_DY]) % source_rows
        if not _free(h, w, pixels, pixels, sy, sx, pitch, source_rows, at, out.seen):
            return
    at = (part[_P_ORIGIN_Y] + part[_P_STEP_Y] * low) % ring[_R_ROWS]
    steps = part[_P_STEP_Y], part[_P_STEP_X]
    if _free(h, w, pixels, m[_DRAIN], steps[0], steps[1], ring[_R_WIDTH], ring[_R_ROWS], at, out.seen):
        row[_PACKED] = row[_WAYS] = row[_DRAIN_WAYS] = 1


@_inner
def _part(out, net, sizes, site, p, low, high, m, row):  # type: ignore[no-untyped-def]
    """CONVs or DWCs of a part, one a chunk of output blocks; more where a block's weights exceed their memory."""
    part = sizes.parts[p]
    layer = part[_P_LAYER]
    t, deep, final = net.out[layer], net.engine[layer] == _DWC, p + 1 == sizes.part_ptr[layer + 1]
    made = sizes.maps[t]
    r0 = max(0, _ceil(low - part[_P_ORIGIN_Y], part[_P_STEP_Y]))
    r1 = max(0, _ceil(high - part[_P_ORIGIN_Y], part[_P_STEP_Y]))
    wide = site.x1 - site.x0 if site.tiled else made[_M_W]
    cols = max(0, _ceil(wide - part[_P_ORIGIN_X], part[_P_STEP_X]))
    if r1 <= r0 or cols == 0:
        return
    e = net.in_ptr[layer] + part[_P_SOURCE]
    source = net.ins[e]
    looks_up = sizes.layers[layer, _L_LOOKUP]
    table = out.kept_table[layer] if looks_up else -1
    each = out.chunk[layer] if out.chunk[layer] else part[_P_COUNT]
    b0, stop = 0, part[_P_COUNT]
    if site.mode == _CHUNKED:
        b0, stop = site.turn * each, min((site.turn + 1) * each, stop)
    while b0 < stop:
        b1 = min(b0 + each, part[_P_COUNT])
        row[:] = 0
        row[_OUT_H], row[_OUT_W], row[_KH], row[_KW] = r1 - r0, cols, part[_P_KH], part[_P_KW]
        row[_SY], row[_SX], row[_DY], row[_DX] = part[_P_SY], part[_P_SX], part[_P_DY], part[_P_DX]
        row[_TABLE] = sizes.layers[layer, _L_LOOKUP]
        pieces, most, words = 1, part[_P_INPUTS], (b1 - b0) * part[_P_RECORD]
        if deep:
            row[_OPCODE], row[_BLOCKS], done = _OP_DWC, b1 - b0, b1
            written = _groups(out, t, low, high, b0, b1, m)
        else:
            row[_OPCODE], row[_DIAGONAL], row[_FIRST], row[_LAST] = _OP_CONV, part[_P_DEPTHWISE], 1, 1
            row[_OUT_C] = min(part[_P_CHANNELS], b1 * m[_OC]) - b0 * m[_OC]
            first = part[_P_OFFSET] + b0 * m[_OC]
            row[_LANE0], row[_BLOCKS] = first % m[_LANES], max(part[_P_INPUTS], 1)
            if part[_P_FOLD]:
                row[_KW] = row[_SX] = row[_DX] = 1
            if out.skip[source, 0] > 1 or out.skip[source, 1] > 1:
                row[_SY] = row[_SX] = 1
            done = made[_M_BLOCKS] if final and b1 == part[_P_COUNT] else (first + row[_OUT_C]) // m[_LANES]
            written = _groups(
                out, t, low, high, first // m[_LANES], (first + row[_OUT_C] - 1) // m[_LANES] + 1, m
            )
            _pack(out, row, part, net.height[source], out.ring[source], out.ring[t], r0, m)
            if words > m[_WEIGHT_WORDS] and not part[_P_DEPTHWISE]:
                taps = part[_P_KH] if part[_P_FOLD] else part[_P_KH] * part[_P_KW]
                most = max(1, (m[_WEIGHT_WORDS] // 2 - _ceil(8, m[_LANES])) // taps)
                pieces = _ceil(part[_P_INPUTS], most)
        done = done if final else min(done, made[_M_BLOCKS] - 1)
        for piece in range(pieces):
            if pieces > 1:
                row[_BLOCKS] = min(most, part[_P_INPUTS] - piece * most)
                row[_FIRST], row[_LAST] = int(piece == 0), int(piece + 1 == pieces)
            weights = out.kept[out.kept_at[p] + b0]
            if weights < 0 or pieces > 1:
                size = (b1 - b0) * part[_P_BYTES] // pieces
                weights = _fill(
                    out,
                    _DEEP if deep else _WEIGHTS,
                    words // pieces,
                    size,
                    b1 - b0,
                    words // pieces // (b1 - b0),
                )
                out.kept[out.kept_at[p] + b0] = weights if site.resident else -1
            last = deep or row[_LAST] == 1
            if looks_up and table < 0 and last:
                table = _fill(out, _TABLES, 1, 256, 1, 256)
                out.kept_table[layer] = table
            ports = _mask(written) if last else 0
            _emit(
                out,
                site,
                net.engine[layer],
                row,
                t,
                low,
                high,
                done,
                weights,
                table if last else -1,
                0,
                ports,
            )
            y0, y1 = net.first[net.reach_ptr[e] + low], net.stop[net.reach_ptr[e] + high - 1]
            y0, y1 = _ceil(y0, out.skip[source, 0]), _ceil(y1, out.skip[source, 0])
            x0, x1 = 0, out.ring[source, _R_BLOCKS]
            if deep:
                x0, x1 = b0, b1
            elif part[_P_DEPTHWISE]:
                x0 = b0 * m[_OC] // m[_LANES]
                x1 = min(_ceil(b1 * m[_OC], m[_LANES]), out.ring[source, _R_BLOCKS])
            _read(
                out,
                source,
                y0,
                y1,
                _mask(_groups(out, source, y0, y1, x0, x1, m)),
            )
        b0 = b1


@_inner
def _vector(out, net, sizes, site, layer, low, high, m, row):  # type: ignore[no-untyped-def]
    """VECs: one, or one a source where blocks are copied side by side."""
    L, t = sizes.layers[layer], net.out[layer]
    constants = out.kept_words[layer]
    if constants < 0 and L[_L_TABLE]:
        constants = _fill(out, _TABLES, 1, 256, 1, 256)
    elif constants < 0 and L[_L_CONSTANTS]:
        constants = _fill(out, _VECTOR, L[_L_CONSTANTS], 4 * L[_L_CONSTANTS], 1, L[_L_CONSTANTS])
    out.kept_words[layer] = constants
    begin, stop = net.in_ptr[layer], net.in_ptr[layer + 1]
    copies = stop - begin if L[_L_FUNC] == _FUNC_TABLE else 1
    row[:] = 0
    row[_OPCODE], row[_FUNC], row[_OUT_H], row[_B_GROUP] = _OP_VEC, L[_L_FUNC], high - low, 1
    row[_OUT_W] = site.x1 - site.x0 if site.tiled else sizes.maps[t, _M_W]
    begin_block, stop_block = _span(sizes, site, t, m)
    row[_BLOCKS], row[_KH], row[_KW], row[_SX] = stop_block - begin_block, L[_L_KH], L[_L_KW], L[_L_SX]
    row[_DX], row[_BROADCAST], row[_BILINEAR], row[_TABLE] = (
        L[_L_DX],
        L[_L_BROADCAST],
        L[_L_BILINEAR],
        L[_L_TABLE],
    )
    y0, y1 = low, high
    if net.reduces[layer]:
        row[_OUT_H], row[_OUT_W], row[_KH] = 1, 1, high - low
        y0, y1 = 0, int(high == net.height[net.ins[begin]])
    block = begin_block
    for copy in range(copies):
        if copies > 1:
            row[_BLOCKS] = sizes.maps[net.ins[begin + copy], _M_BLOCKS]
        for e in range(begin, stop):
            t1 = net.ins[e]
            if stop - begin == 2 and copies == 1:
                found = _groups(
                    out,
                    t1,
                    net.first[net.reach_ptr[e] + low],
                    net.stop[net.reach_ptr[e] + high - 1],
                    begin_block,
                    stop_block,
                    m,
                )
                if e == begin:
                    row[_A_GROUP], row[_A_SPAN] = found[0], found[1] - found[0]
                else:
                    row[_B_GROUP], row[_B_SPAN] = found[0], found[1] - found[0]
        done = stop_block if copy + 1 == copies else 0
        writes = _mask(_groups(out, t, y0, y1, block, block + row[_BLOCKS], m)) if y1 > y0 else 0
        block += row[_BLOCKS]
        _emit(out, site, _VEC, row, t, y0, y1, done, -1, constants, 0, writes)
        for e in range(begin, stop):
            if copies == 1 or e == begin + copy:
                t1 = net.ins[e]
                first = low if net.reduces[layer] else net.first[net.reach_ptr[e] + low]
                last = high if net.reduces[layer] else net.stop[net.reach_ptr[e] + high - 1]
                blocks = (begin_block, stop_block) if copies == 1 else (0, out.ring[t1, _R_BLOCKS])
                _read(out, t1, first, last, _mask(_groups(out, t1, first, last, blocks[0], blocks[1], m)))


# -- loops ---------------------------------------------------------------------------------------------------------------
@njit(cache=True, error_model="numpy")
def unroll(net, runs, sizes, steps, groups, rings, rows, chunk_of, m, arrays):  # type: ignore[no-untyped-def]
    """Write the stream of some groups into `arrays`; what does not fit is counted and left out.

    Parameters
    ----------
    steps
        As `quick_plan.cuts` gives them, without views.
    groups, rings
        As `quick_place.place` gives them.
    rows
        What `quick_strips.group_rows` gives for them.
    chunk_of : (layers,)
        Output blocks an instruction; 0: all.
    m : (SHAPE)
    arrays : Stream

    Returns
    -------
    (5,)
        Kinds, actions, reads, chunks and places of the stream.
    """
    begin, need, stage, counts, maps = rows
    ints = np.zeros(6, np.int64)
    none = np.full(len(net.engine), -1, np.int64)
    kept_at = np.zeros(len(sizes.parts) + 1, np.int64)
    for part in range(len(sizes.parts)):
        kept_at[part + 1] = kept_at[part] + sizes.parts[part, _P_COUNT]
    out = _Out(
        arrays.fields, arrays.actions, arrays.reads, arrays.chunks, arrays.places, ints[:5], ints[5:],
        np.zeros((len(net.height), 4), np.int64), np.zeros(len(net.height), np.int64),
        np.ones((len(net.height), 2), np.int64), chunk_of, kept_at, np.full(kept_at[-1] + 1, -1, np.int64), none.copy(), none.copy(), np.zeros(m[_BANKS], np.int64),
    )  # fmt: skip
    place = np.zeros(len(net.height), np.int64)
    row = np.zeros(arrays.fields.shape[1], np.int64)
    for g in range(len(groups)):
        i, j, mode, chunk = groups[g, _G_FIRST], groups[g, _G_STOP], groups[g, _G_MODE], groups[g, _G_CHUNK]
        before, after, over = steps[g, 2], steps[g, 3], steps[g, 9]
        out.begin[0] = min(out.at[0], len(out.fields))
        late = 0
        for k in range(begin[g, 0], begin[g + 1, 0]):
            t, late = maps[k], max(late, stage[k])
            place[t] = k - begin[g, 0]
            made = net.maker[t] >= i and net.maker[t] < j
            if not made and _stays(sizes, before, t):
                continue
            out.ring[t] = rings[groups[g, _G_RINGS] + place[t]]
            out.skip[t] = 1
            if not made and groups[g, _G_COLS] == sizes.maps[net.out[j - 1], _M_W]:
                at = runs.run_maps[runs.run_at[j, j - i]] + place[t]
                out.skip[t, 0], out.skip[t, 1] = runs.skip_y[at], runs.skip_x[at]
            if made and over >> 2 * (net.maker[t] - i) & 3:
                layer = net.maker[t]
                out.place[t] = out.place[net.ins[net.in_ptr[layer] + (over >> 2 * (layer - i) & 3) - 1]]
                continue
            out.place[t] = out.at[4]
            if out.at[4] < len(out.places):
                r = out.ring[t]
                out.places[out.at[4], 0] = r[_R_BASE]
                out.places[out.at[4], 1] = r[_R_BASE] + r[_R_ROWS] * r[_R_BLOCKS] * r[_R_WIDTH]
            out.at[4] += 1
        width, cols = sizes.maps[net.out[j - 1], _M_W], groups[g, _G_COLS]
        turns = 1
        if mode == _CHUNKED and chunk:
            turns = _ceil(_ceil(sizes.maps[net.out[i], _M_C], m[_OC]), chunk)
        out.kept_table[i:j] = -1
        out.kept_words[i:j] = -1
        for turn in range(turns):
            out.kept[out.kept_at[sizes.part_ptr[i]] : out.kept_at[sizes.part_ptr[j]]] = -1
            for x0 in range(0, width, cols):
                x1 = min(x0 + cols, width)
                resident = mode in (0, _CHUNKED) and counts[g] > 1
                site = _Site(g, i, j, mode, chunk, resident, turn, x0, x1, cols < width)
                for step in range(counts[g] + late):
                    _step(
                        out,
                        net,
                        sizes,
                        site,
                        step,
                        begin[g],
                        need,
                        stage,
                        counts[g],
                        place,
                        before,
                        after,
                        m,
                        row,
                    )
    return ints[:5]


@_inner
def _fetch(out, net, sizes, site, step, begin, need, stage, count, place, before, layer, part, m, row):  # type: ignore[no-untyped-def]
    """One step's LOADs before a layer: of maps that come chunk by chunk (`part`), of those that do not, or (-1) of all."""
    for e in range(net.in_ptr[layer], net.in_ptr[layer + 1]):
        t = net.ins[e]
        if (net.maker[t] >= site.first and net.maker[t] < site.stop) or _stays(sizes, before, t):
            continue
        fresh = part < 0 or part == _chunked(net, site, t)
        for other in range(net.in_ptr[site.first], e):
            fresh = fresh and net.ins[other] != t
        strip = step - stage[begin[0] + place[t]]
        if not fresh or strip < 0 or strip >= count:
            continue
        at = begin[1] + place[t] * (count + 1) + strip
        whole = out.ring[t, _R_ROWS] * out.skip[t, 0] >= net.height[t] and not site.tiled and part <= 0
        if need[at + 1] > need[at] and not (site.turn and whole):
            _loads(out, net, sizes, site, layer, t, need[at], need[at + 1], m, row)


@_inner
def _step(out, net, sizes, site, step, begin, need, stage, count, place, before, after, m, row):  # type: ignore[no-untyped-def]
    """One step of a group: what each layer loads, computes and saves."""
    cut = False
    for layer in range(site.first, site.stop):
        t = net.out[layer]
        cut = cut or (site.mode == _PARTS and out.ring[t, _R_BLOCKS] < sizes.maps[t, _M_BLOCKS])
    if not cut and site.mode != _CHUNKED:
        for layer in range(site.first, site.stop):
            _fetch(out, net, sizes, site, step, begin, need, stage, count, place, before, layer, -1, m, row)
            _run(out, net, sizes, site, step, begin, need, stage, count, place, after, layer, m, row)
        return
    for layer in range(site.first, site.stop):
        _fetch(out, net, sizes, site, step, begin, need, stage, count, place, before, layer, 0, m, row)
    turn, stop = site.turn, site.turn + 1
    if cut:
        turn, stop = 0, _ceil(_ceil(sizes.maps[net.out[site.first], _M_C], m[_OC]), site.chunk)
    while turn < stop:
        one = _Site(
            site.group, site.first, site.stop, _CHUNKED, site.chunk, site.resident, turn, site.x0, site.x1, site.tiled
        )  # fmt: skip
        for layer in range(site.first, site.stop):
            _fetch(out, net, sizes, one, step, begin, need, stage, count, place, before, layer, 1, m, row)
        for layer in range(site.first, site.stop):
            _run(out, net, sizes, one, step, begin, need, stage, count, place, after, layer, m, row)
        turn += 1


@_inner
def _run(out, net, sizes, site, step, begin, need, stage, count, place, after, layer, m, row):  # type: ignore[no-untyped-def]
    """One step of a layer, and the SAVEs of its map."""
    t = net.out[layer]
    strip = step - stage[begin[0] + place[t]]
    if strip < 0 or strip >= count:
        return
    driver = net.ins[net.in_ptr[layer]] if net.reduces[layer] else t
    at = begin[1] + place[driver] * (count + 1) + strip
    if need[at + 1] > need[at]:
        if sizes.part_ptr[layer + 1] > sizes.part_ptr[layer]:
            for p in range(sizes.part_ptr[layer], sizes.part_ptr[layer + 1]):
                _part(out, net, sizes, site, p, need[at], need[at + 1], m, row)
        else:
            _vector(out, net, sizes, site, layer, need[at], need[at + 1], m, row)
    at = begin[1] + place[t] * (count + 1) + strip
    wanted = net.is_output[t] or net.last_reader[t] >= site.stop
    stays = net.last_reader[t] >= site.stop and _stays(sizes, after, t)
    if wanted and (net.is_output[t] or not stays) and need[at + 1] > need[at]:
        _saves(out, sizes, site, t, need[at], need[at + 1], m, row)
