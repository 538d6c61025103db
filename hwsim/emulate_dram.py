"""What LOAD, FILL and SAVE move, as compiled loops; memories are laid out as `emulate_kernels` says.

Each returns the bytes that crossed the DRAM port. Callers have checked every address (`ir.verify`).
"""


# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numba
import numpy as np

__all__ = ["fill_depthwise", "fill_tables", "fill_vector", "fill_weights", "load", "save"]


@numba.njit(cache=True)
def load(
    maps, dram, d_base, d_pitch, d_plane, d_rows, d_row0, address, run_bytes, runs1, stride1, stride2, width,
    height, blocks, take, step, fold, fold_pad, row_bytes, za,
):  # fmt: skip
    """LOAD: runs of bytes become rows of words; returns the bytes read."""
    lanes = maps.shape[1]
    row = np.empty(row_bytes, np.int8)
    at, i1, i2 = 0, 0, 0  # place in the current run, and its number
    moved = 0
    for b in range(blocks):
        for r in range(height):
            got = 0
            while got < row_bytes:
                n = min(row_bytes - got, run_bytes - at)
                start = address + i2 * stride2 + i1 * stride1 + at
                row[got : got + n] = dram[start : start + n]
                got += n
                at += n
                moved += n
                if at == run_bytes:
                    at = 0
                    i1 += 1
                    if i1 == runs1:
                        i1 = 0
                        i2 += 1
            for j in range(fold):
                base = d_base + (b * fold + j) * d_plane + (d_row0 + r) % d_rows * d_pitch
                for x in range(width):
                    word = maps[base + x]
                    start = x * step + j * take - fold_pad
                    for t in range(take):
                        word[t] = row[start + t] if 0 <= start + t < row_bytes else za
                    for t in range(take, lanes):
                        word[t] = 0
    return moved


@numba.njit(cache=True)
def save(
    maps, dram, a_base, a_pitch, a_plane, a_rows, a_row0, address, run_bytes, runs1, stride1, stride2, width,
    height, blocks, take,
):  # fmt: skip
    """SAVE: the first `take` lanes of words become runs of bytes; returns the bytes written."""
    row = np.empty(width * take, np.int8)
    at, i1, i2 = 0, 0, 0
    moved = 0
    for b in range(blocks):
        for r in range(height):
            base = a_base + b * a_plane + (a_row0 + r) % a_rows * a_pitch
            for x in range(width):
                for t in range(take):
                    row[x * take + t] = maps[base + x, t]
            sent = 0
            while sent < len(row):
                n = min(len(row) - sent, run_bytes - at)
                start = address + i2 * stride2 + i1 * stride1 + at
                dram[start : start + n] = row[sent : sent + n]
                sent += n
                at += n
                moved += n
                if at == run_bytes:
                    at = 0
                    i1 += 1
                    if i1 == runs1:
                        i1 = 0
                        i2 += 1
    return moved


@numba.njit(cache=True)
def fill_weights(weights, dram, address, m_base, records, record_rows, tail_take):
    """FILL of the weight memory; returns the bytes read. Bytes that a word does not get are zero."""
    lanes, oc = weights.shape[1:]
    at = address
    for record in range(records):
        for i in range(record_rows):
            take = lanes
            if i * lanes < 8:
                take = min(lanes, 8 - i * lanes)
            elif i == record_rows - 1:
                take = tail_take
            word = weights[m_base + record * record_rows + i]
            word[:] = 0
            for lane in range(take):
                for o in range(oc):
                    word[lane, o] = dram[at]
                    at += 1
    return at - address


@numba.njit(cache=True)
def fill_depthwise(depthwise, dram, address, m_base, records, record_rows, tail_take):
    """FILL of the depthwise memory; returns the bytes read."""
    taps, lanes = depthwise.shape[1:]
    at = address
    for record in range(records):
        for i in range(record_rows):
            take = taps
            if i * taps < 8:
                take = min(taps, 8 - i * taps)
            elif i == record_rows - 1:
                take = tail_take
            word = depthwise[m_base + record * record_rows + i]
            word[:] = 0
            for byte in range(take):
                for lane in range(lanes):
                    word[byte, lane] = dram[at]
                    at += 1
    return at - address


@numba.njit(cache=True)
def fill_tables(tables, dram, address, m_base, records):
    """FILL of lookup tables; returns the bytes read."""
    for i in range(records):
        tables[m_base + i] = dram[address + 256 * i : address + 256 * (i + 1)]
    return 256 * records


@numba.njit(cache=True)
def fill_vector(vector, dram, address, run_bytes, m_base):
    """FILL of the vector memory; returns the bytes read."""
    for i in range(run_bytes // 4):
        at = address + 4 * i
        vector[m_base + i] = _unsigned(dram[at], dram[at + 1], dram[at + 2], dram[at + 3])
    return run_bytes


@numba.njit(cache=True)
def _unsigned(low, b, c, d):
    """Four little-endian bytes."""
    return (
        np.uint32(low & 255) | np.uint32(b & 255) << 8 | np.uint32(c & 255) << 16 | np.uint32(d & 255) << 24
    )
