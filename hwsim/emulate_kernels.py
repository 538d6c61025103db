"""What each instruction computes, as compiled loops over the modelled memories.

A kernel is one instruction: arrays of the memories it touches, then its fields as plain numbers. Memories are held so
that the innermost loop runs over neighbouring bytes, which the compiler turns into vector instructions:

============  =========================  =============================================
maps          int8 [word, lane]          words of map group 0, then of group 1, ...
weights       int8 [word, input lane, output lane]
depthwise     int8 [word, tap of a step, lane]
tables        int8 [table, value + 128]
vector        uint32 [word]
============  =========================  =============================================

Callers have checked every address (`ir.verify`): nothing here does.
"""


# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numba
import numpy as np

__all__ = ["add", "average", "conv", "copy", "depthwise", "maximum", "multiply", "prelu", "resize"]


@numba.njit(cache=True)
def _requantise(acc, words, scales, n, mode, zd, lo, hi, out):
    """`n` accumulators to int8 in `out`; `words` are scale words, `scales` the same bits as float32."""
    if mode == 0:
        low, high = np.float32(lo - zd), np.float32(hi - zd)
        for i in range(n):
            product = np.float32(acc[i]) * scales[i]
            out[i] = np.int32(np.rint(min(max(product, low), high))) + zd
    elif mode == 1:
        for i in range(n):
            out[i] = min(
                max(_half_even(np.int64(acc[i]) * np.int64(words[i] & 0xFFFF), words[i] >> 16 & 63) + zd, lo),
                hi,
            )
    else:
        for i in range(n):
            out[i] = min(max(_half_up(np.int64(acc[i]), np.int64(words[i] & 63)) + zd, lo), hi)


@numba.njit(cache=True)
def _half_even(value, shift):
    """``value / 2^shift``, ties to even."""
    s = np.int64(shift)
    if s == 0:
        return value
    half = np.int64(1) << (s - 1)
    up = (value + half) >> s
    tie = (value & ((np.int64(1) << s) - 1)) == half
    return up - (up & 1 if tie else 0)


@numba.njit(cache=True)
def _half_up(value, shift):
    """``value / 2^shift``, ties toward +infinity."""
    if shift == 0:
        return value
    return (value + (np.int64(1) << (shift - 1))) >> shift


@numba.njit(cache=True)
def _look_up(table, out, n):
    for i in range(n):
        out[i] = table[np.int64(out[i]) + 128]


@numba.njit(cache=True)
def _unsigned(low, b, c, d):
    """Four little-endian bytes."""
    return (
        np.uint32(low & 255) | np.uint32(b & 255) << 8 | np.uint32(c & 255) << 16 | np.uint32(d & 255) << 24
    )


# -- products ----------------------------------------------------------------------------------------------------------


@numba.njit(cache=True)
def _multiply(acc, source, block, oc):
    """Accumulate one pixel's word times the weights [input lane, output lane]."""
    for lane in range(len(source)):
        v = np.int32(source[lane])
        for o in range(oc):
            acc[o] += v * block[lane, o]


@numba.njit(cache=True)
def _multiply4(acc, one, two, three, four, block, oc):
    """The same for four pixels: a row of weights is read once, and four sums grow independently of each other."""
    for lane in range(len(one)):
        v1, v2, v3, v4 = np.int32(one[lane]), np.int32(two[lane]), np.int32(three[lane]), np.int32(four[lane])
        for o in range(oc):
            w = block[lane, o]
            acc[0, o] += v1 * w
            acc[1, o] += v2 * w
            acc[2, o] += v3 * w
            acc[3, o] += v4 * w


@numba.njit(cache=True)
def conv(
    maps, weights, tables, accumulators, d_base, d_pitch, d_plane, d_rows, d_row0, a_base, a_pitch,
    a_plane, a_rows, a_row0, out_h, out_w, in_h, in_w, sy, sx, dy, dx, pad_top, pad_left, za, zd, lo, hi, mode, kh, kw,
    w_base, table, blocks, out_c, lane0, first, last, diagonal, step_y, step_x,
):  # fmt: skip
    """CONV, in groups of up to four pixels of a row."""
    lanes, oc = weights.shape[1:]
    head = -(-8 // lanes)
    taps = kh * kw
    record_rows = head + (-(-taps // lanes) if diagonal else taps * blocks)
    source = maps
    outside = source.shape[0]  # number of the word that padding reads
    padding = np.full(lanes, za, np.int8)
    bias, words = np.empty(oc, np.int32), np.empty(oc, np.uint32)
    byte = np.empty(8, np.int64)
    acc, result = np.empty((4, oc), np.int32), np.empty(oc, np.int8)
    at = np.empty(4, np.int64)
    wide = np.empty((record_rows - head, lanes, oc), np.int32)  # weights of one block of output channels
    for ob in range(-(-out_c // oc)):
        record = w_base + ob * record_rows
        for o in range(oc):
            for k in range(8):
                byte[k] = weights[record + k // lanes, k % lanes, o]
            bias[o] = np.int32(_unsigned(byte[0], byte[1], byte[2], byte[3]))
            words[o] = _unsigned(byte[4], byte[5], byte[6], byte[7])
        scales = words.view(np.float32)
        wide[:] = weights[record + head : record + record_rows]
        real = min(oc, out_c - ob * oc)
        for r in range(out_h):
            for x0 in range(0, out_w, 4):
                n = min(4, out_w - x0)
                for p in range(n):
                    acc[p] = bias if first else accumulators[r * out_w + x0 + p]
                for tap in range(taps):
                    iy = r * sy + tap // kw * dy - pad_top
                    row = a_base + (a_row0 + iy) % a_rows * a_pitch
                    for p in range(4):
                        ix = (x0 + p) * sx + tap % kw * dx - pad_left
                        at[p] = row + ix if p < n and 0 <= iy < in_h and 0 <= ix < in_w else outside
                    if diagonal:
                        w = wide[tap // lanes, tap % lanes]
                        for p in range(n):
                            for o in range(real):
                                c = ob * oc + o
                                v = (
                                    za
                                    if at[p] == outside
                                    else source[at[p] + c // lanes * a_plane, c % lanes]
                                )
                                acc[p, o] += np.int32(v) * w[o]
                        continue
                    for b in range(blocks):
                        block = wide[tap * blocks + b]
                        plane = b * a_plane
                        if n >= 3:
                            _multiply4(
                                acc,
                                padding if at[0] == outside else source[at[0] + plane],
                                padding if at[1] == outside else source[at[1] + plane],
                                padding if at[2] == outside else source[at[2] + plane],
                                padding if at[3] == outside else source[at[3] + plane],
                                block, oc,
                            )  # fmt: skip
                        else:
                            for p in range(n):
                                _multiply(
                                    acc[p], padding if at[p] == outside else source[at[p] + plane], block, oc
                                )
                for p in range(n):
                    if not last:
                        accumulators[r * out_w + x0 + p] = acc[p]
                        continue
                    _requantise(acc[p], words, scales, real, mode, zd, lo, hi, result)
                    if table > 0:
                        _look_up(tables[table - 1], result, real)
                    target = d_base + (d_row0 + r * step_y) % d_rows * d_pitch + (x0 + p) * step_x
                    for o in range(real):
                        c = lane0 + ob * oc + o
                        maps[target + c // lanes * d_plane, c % lanes] = result[o]


@numba.njit(cache=True)
def depthwise(
    maps, memory, tables, d_base, d_pitch, d_plane, d_rows, d_row0, a_base, a_pitch, a_plane, a_rows,
    a_row0, out_h, out_w, in_h, in_w, sy, sx, dy, dx, pad_top, pad_left, za, zd, lo, hi, mode, kh, kw, w_base, table,
    blocks,
):  # fmt: skip
    """DWC."""
    lanes = maps.shape[1]
    slots = memory.shape[1]
    head = -(-8 // slots)
    if kw <= slots:  # whole kernel rows a step
        rows = max(1, min(slots // kw, max(1, slots // 3)))
        record_rows = head + -(-kh // rows)
    else:
        rows = 0
        record_rows = head + kh * -(-kw // slots)
    byte = np.empty(8, np.int64)
    bias, words = np.empty(lanes, np.int32), np.empty(lanes, np.uint32)
    acc = np.empty(lanes, np.int32)
    outside = np.full(lanes, za, np.int8)
    wide = np.empty((kh * kw, lanes), np.int32)
    for b in range(blocks):
        record = w_base + b * record_rows
        for lane in range(lanes):
            for k in range(8):
                byte[k] = memory[record + k // slots, k % slots, lane]
            bias[lane] = np.int32(_unsigned(byte[0], byte[1], byte[2], byte[3]))
            words[lane] = _unsigned(byte[4], byte[5], byte[6], byte[7])
        scales = words.view(np.float32)
        for ky in range(kh):
            for kx in range(kw):
                if rows:
                    step, slot = ky // rows, ky % rows * kw + kx
                else:
                    step, slot = ky * -(-kw // slots) + kx // slots, kx % slots
                wide[ky * kw + kx] = memory[record + head + step, slot]
        for r in range(out_h):
            for x in range(out_w):
                acc[:] = bias
                for ky in range(kh):
                    iy = r * sy + ky * dy - pad_top
                    row = a_base + b * a_plane + (a_row0 + iy) % a_rows * a_pitch
                    for kx in range(kw):
                        ix = x * sx + kx * dx - pad_left
                        inside = 0 <= iy < in_h and 0 <= ix < in_w
                        source = maps[row + ix] if inside else outside
                        w = wide[ky * kw + kx]
                        for lane in range(lanes):
                            acc[lane] += np.int32(source[lane]) * w[lane]
                out = maps[d_base + b * d_plane + (d_row0 + r) % d_rows * d_pitch + x]
                _requantise(acc, words, scales, lanes, mode, zd, lo, hi, out)
                if table > 0:
                    _look_up(tables[table - 1], out, lanes)


# -- elements ----------------------------------------------------------------------------------------------------------


@numba.njit(cache=True)
def add(
    maps, d_base, d_pitch, d_plane, d_rows, d_row0, a_base, a_pitch, a_plane, a_rows, a_row0,
    b_base, b_pitch, b_plane, b_rows, b_row0, out_h, out_w, blocks, za, zd, lo, hi, mode, zb, broadcast, ma, mb, shift,
):  # fmt: skip
    """VEC ADD."""
    lanes = maps.shape[1]
    for b in range(blocks):
        for r in range(out_h):
            for x in range(out_w):
                first = maps[a_base + b * a_plane + (a_row0 + r) % a_rows * a_pitch + x]
                by, bx = (0, 0) if broadcast else (r, x)
                second = maps[b_base + b * b_plane + (b_row0 + by) % b_rows * b_pitch + bx]
                out = maps[d_base + b * d_plane + (d_row0 + r) % d_rows * d_pitch + x]
                for lane in range(lanes):
                    total = (np.int64(first[lane]) - za) * ma + (np.int64(second[lane]) - zb) * mb
                    y = _half_up(total, shift) if mode == 2 else _half_even(total, shift)
                    out[lane] = min(max(y + zd, lo), hi)


@numba.njit(cache=True)
def multiply(
    maps, d_base, d_pitch, d_plane, d_rows, d_row0, a_base, a_pitch, a_plane, a_rows, a_row0,
    b_base, b_pitch, b_plane, b_rows, b_row0, out_h, out_w, blocks, za, zd, lo, hi, mode, zb, broadcast, scale,
):  # fmt: skip
    """VEC MUL."""
    lanes = maps.shape[1]
    acc, words = np.empty(lanes, np.int32), np.full(lanes, np.uint32(scale), np.uint32)
    scales = words.view(np.float32)
    for b in range(blocks):
        for r in range(out_h):
            for x in range(out_w):
                first = maps[a_base + b * a_plane + (a_row0 + r) % a_rows * a_pitch + x]
                by, bx = (0, 0) if broadcast else (r, x)
                second = maps[b_base + b * b_plane + (b_row0 + by) % b_rows * b_pitch + bx]
                for lane in range(lanes):
                    acc[lane] = (np.int32(first[lane]) - za) * (np.int32(second[lane]) - zb)
                out = maps[d_base + b * d_plane + (d_row0 + r) % d_rows * d_pitch + x]
                _requantise(acc, words, scales, lanes, mode, zd, lo, hi, out)


@numba.njit(cache=True)
def maximum(
    maps, sums, d_base, d_pitch, d_plane, d_rows, d_row0, a_base, a_pitch, a_plane, a_rows, a_row0,
    out_h, out_w, blocks, in_h, in_w, sy, sx, dy, dx, pad_top, pad_left, lo, hi, kh, kw, first, last,
):  # fmt: skip
    """VEC MAX: padding is -128, below everything."""
    lanes = maps.shape[1]
    out = np.empty(lanes, np.int8)
    for b in range(blocks):
        for r in range(out_h):
            for x in range(out_w):
                for lane in range(lanes):
                    out[lane] = -128 if first else sums[b, lane]
                for ky in range(kh):
                    iy = r * sy + ky * dy - pad_top
                    if iy < 0 or iy >= in_h:
                        continue
                    row = a_base + b * a_plane + (a_row0 + iy) % a_rows * a_pitch
                    for kx in range(kw):
                        ix = x * sx + kx * dx - pad_left
                        if 0 <= ix < in_w:
                            source = maps[row + ix]
                            for lane in range(lanes):
                                out[lane] = max(out[lane], source[lane])
                if last:
                    target = maps[d_base + b * d_plane + (d_row0 + r) % d_rows * d_pitch + x]
                    for lane in range(lanes):
                        target[lane] = min(max(np.int64(out[lane]), lo), hi)
                else:
                    sums[b, :] = out


@numba.njit(cache=True)
def average(
    maps, vector, sums, d_base, d_pitch, d_plane, d_rows, d_row0, a_base, a_pitch, a_plane, a_rows, a_row0,
    out_h, out_w, blocks, in_h, in_w, sy, sx, dy, dx, pad_top, pad_left, za, zd, lo, hi, mode, kh, kw, scale, counted,
    v_base, first, last,
):  # fmt: skip
    """VEC AVG: the sum over valid taps; the scale word holds the division."""
    lanes = maps.shape[1]
    acc, words = np.empty(lanes, np.int32), np.full(lanes, np.uint32(scale), np.uint32)
    scales = words.view(np.float32)
    for b in range(blocks):
        for r in range(out_h):
            for x in range(out_w):
                for lane in range(lanes):
                    acc[lane] = 0 if first else sums[b, lane]
                valid = 0
                for ky in range(kh):
                    iy = r * sy + ky * dy - pad_top
                    if iy < 0 or iy >= in_h:
                        continue
                    row = a_base + b * a_plane + (a_row0 + iy) % a_rows * a_pitch
                    for kx in range(kw):
                        ix = x * sx + kx * dx - pad_left
                        if 0 <= ix < in_w:
                            valid += 1
                            source = maps[row + ix]
                            for lane in range(lanes):
                                acc[lane] += np.int32(source[lane]) - za
                if not last:
                    sums[b, :] = acc
                    continue
                if counted:
                    words[:] = vector[v_base + valid]
                out = maps[d_base + b * d_plane + (d_row0 + r) % d_rows * d_pitch + x]
                _requantise(acc, words, scales, lanes, mode, zd, lo, hi, out)


@numba.njit(cache=True)
def copy(
    maps, tables, d_base, d_pitch, d_plane, d_rows, d_row0, a_base, a_pitch, a_plane, a_rows, a_row0,
    out_h, out_w, blocks, sy, sx, table,
):  # fmt: skip
    """VEC TABLE: a strided copy, through a table or not."""
    lanes = maps.shape[1]
    for b in range(blocks):
        for r in range(out_h):
            for x in range(out_w):
                source = maps[a_base + b * a_plane + (a_row0 + r * sy) % a_rows * a_pitch + x * sx]
                out = maps[d_base + b * d_plane + (d_row0 + r) % d_rows * d_pitch + x]
                out[:] = source
                if table > 0:
                    _look_up(tables[table - 1], out, lanes)


@numba.njit(cache=True)
def prelu(
    maps, vector, d_base, d_pitch, d_plane, d_rows, d_row0, a_base, a_pitch, a_plane, a_rows, a_row0,
    out_h, out_w, blocks, za, zd, lo, hi, mode, scale, v_base,
):  # fmt: skip
    """VEC PRELU: one scale word at or above zero, one a channel below, whose bit 31 is the slope's sign."""
    lanes = maps.shape[1]
    acc, words = np.empty(lanes, np.int32), np.empty(lanes, np.uint32)
    scales = words.view(np.float32)
    for b in range(blocks):
        for r in range(out_h):
            for x in range(out_w):
                source = maps[a_base + b * a_plane + (a_row0 + r) % a_rows * a_pitch + x]
                for lane in range(lanes):
                    v = np.int32(source[lane]) - za
                    slope = vector[v_base + b * lanes + lane]
                    words[lane] = scale if v >= 0 else slope & 0x7FFFFFFF
                    acc[lane] = -v if v < 0 and slope >> 31 else v
                out = maps[d_base + b * d_plane + (d_row0 + r) % d_rows * d_pitch + x]
                _requantise(acc, words, scales, lanes, mode, zd, lo, hi, out)


@numba.njit(cache=True)
def resize(
    maps, vector, d_base, d_pitch, d_plane, d_rows, d_row0, a_base, a_pitch, a_plane, a_rows, a_row0,
    out_h, out_w, blocks, za, zd, lo, hi, mode, in_h, in_w, origin, scale, v_base, v_cols, bilinear,
):  # fmt: skip
    """VEC RESIZE: fractions have 11 bits, so the four weights of a pixel sum to 2^22."""
    lanes = maps.shape[1]
    acc, words = np.empty(lanes, np.int32), np.full(lanes, np.uint32(scale), np.uint32)
    scales = words.view(np.float32)
    reach = 2 if bilinear else 1
    for b in range(blocks):
        for r in range(out_h):
            y0 = np.int64(vector[v_base + r] & 0xFFFF)
            fy = np.int64(vector[v_base + r] >> 16) if bilinear else 0
            for x in range(out_w):
                x0 = np.int64(vector[v_cols + x] & 0xFFFF)
                fx = np.int64(vector[v_cols + x] >> 16) if bilinear else 0
                acc[:] = 0
                for j in range(reach):
                    y = min(y0 + j, in_h - 1) - origin
                    row = a_base + b * a_plane + (a_row0 + y) % a_rows * a_pitch
                    wy = fy if j else 2048 - fy
                    for i in range(reach):
                        source = maps[row + min(x0 + i, in_w - 1)]
                        weight = wy * (fx if i else 2048 - fx)
                        for lane in range(lanes):
                            acc[lane] += (np.int32(source[lane]) - za) * weight
                out = maps[d_base + b * d_plane + (d_row0 + r) % d_rows * d_pitch + x]
                _requantise(acc, words, scales, lanes, mode, zd, lo, hi, out)
