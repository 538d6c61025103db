"""Busy cycles, tail and action counts of each instruction, in closed form.

The rules are those of docs/isa.md; latencies come from `ir.latency`. The scheduler calls the same functions
on candidate tiles, so that its estimate and the simulator cannot drift apart. Words of this file: *busy* is
how long an instruction keeps its engine from the next, *tail* how much later its token is given, a *way* is
one of the read cycles that pixels in the same bank take in turns.

Kernels take the machine as an int64 vector (`machine`), so that numba's cache, which notices edits in this
file only, can never hold a number from another one.
"""

# mypy: disable-error-code="untyped-decorator, no-any-return"

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.isa import COLUMNS, WORD_BYTES, Memory, Opcode, Program, VecOp
from ..ir.latency import (
    CONV_START,
    DWC_START,
    VEC_RESIZE,
    VEC_START,
    VEC_TAIL,
    conv_tail,
    dwc_tail,
)
from .dram import DramSpec

__all__ = [
    "COST",
    "conv_busy",
    "costs",
    "dma_groups",
    "dwc_busy",
    "engine_cycles",
    "estimate",
    "machine",
    "read_ways",
    "vec_busy",
]

_Vector = NDArray[np.int64]
_Matrix = NDArray[np.int64]

COST = np.dtype(
    [
        (name, np.int64)
        for name in (
            "busy",  # cycles (LOAD, FILL, SAVE: cycles of its data stream)
            "tail",  # cycles from the end of busy to the token (LOAD, FILL, SAVE: 0, the simulator knows)
            "map_reads",  # map words
            "map_writes",  # map words
            "weight_reads",  # weight words of oc x lanes bytes
            "products",  # int8 x int8 of the array, for real output channels
            "depthwise_reads",  # depthwise weight words of taps x lanes bytes
            "depthwise_products",
            "vector_ops",  # lanes that the VEC engine works on
            "requantised",  # values
            "lookups",  # table reads, values
            "fill_bytes",  # written to weight, depthwise, table and vector memories
            "dram_bytes",
        )
    ]
)
"""One record an instruction."""

# Machine vector.
_L, _P, _OC, _B, _DRAIN, _DP, _DCH, _DT, _DROWS, _DDRAIN, _V, _VT, _STREAM, _MOVE = range(14)
_CONV_START, _DWC_START, _VEC_START, _VEC_RESIZE, _CONV_TAIL, _DWC_TAIL, _VEC_TAIL = range(14, 21)

_NAMES = (
    *(
        "opcode",
        "func",
        "out_h",
        "out_w",
        "kh",
        "kw",
        "blocks",
        "out_c",
        "lane0",
        "ways",
        "drain_ways",
        "packed",
    ),
    *(
        "first",
        "last",
        "diagonal",
        "sy",
        "sx",
        "dy",
        "dx",
        "a_group",
        "b_group",
        "broadcast",
        "bilinear",
        "table",
    ),
    *(
        "run_bytes",
        "runs1",
        "runs2",
        "width",
        "height",
        "take",
        "step",
        "fold",
        "records",
        "record_rows",
        "counted",
        "fold_pad",
        "a_span",
        "b_span",
    ),
)
_C = {name: i for i, name in enumerate(_NAMES)}
_PICK = np.array([COLUMNS[name] for name in _NAMES])

_A_SPAN, _B_SPAN = _C["a_span"], _C["b_span"]
_LOAD, _FILL, _CONV, _DWC, _VEC, _SAVE = (int(o) for o in Opcode if o != Opcode.END)
_ADD, _MUL, _MAX, _AVG, _TABLE, _PRELU, _RESIZE = (int(v) for v in VecOp)
_TABLES, _VECTOR = int(Memory.TABLES), int(Memory.VECTOR)


def machine(arch: Arch) -> NDArray[np.int64]:
    """The numbers of `arch` and `ir.latency` that the functions below take as their first argument."""
    c, d, v = arch.conv, arch.dwc, arch.vec
    shape = (arch.lanes, c.pixels, c.oc, arch.banks, c.drain, d.pixels, d.channels, d.taps, d.rows, d.drain)
    latency = (CONV_START, DWC_START, VEC_START, VEC_RESIZE, conv_tail(arch), dwc_tail(arch), VEC_TAIL)
    return np.array(
        (*shape, v.pixels, v.table_pixels, arch.stream_bytes, arch.group_move, *latency), np.int64
    )


@njit(cache=True)
def _ceil(a: int, b: int) -> int:
    return (a + b - 1) // b


@njit(cache=True)
def read_ways(pixels: int, stride: int, banks: int) -> int:
    """Read cycles that `pixels` words, `stride` apart, take in `banks` (a power of two) banks.

    >>> [read_ways(8, s, 16) for s in (1, 2, 3, 4)]
    [1, 1, 1, 2]
    """
    divisor = 1
    while divisor < banks and stride % (2 * divisor) == 0:
        divisor *= 2
    return max(1, _ceil(pixels * divisor, banks))


@njit(cache=True)
def _conv_blocks(m: _Vector, out_h: int, out_w: int, packed: int) -> int:
    """Pixel blocks of a tile."""
    return _ceil(out_h * out_w, m[_P]) if packed else out_h * _ceil(out_w, m[_P])


@njit(cache=True)
def _conv_block(
    m: _Vector,
    ob: int,
    taps: int,
    blocks: int,
    out_c: int,
    lane0: int,
    ways: int,
    drain_ways: int,
    last: int,
    diagonal: int,
) -> tuple[int, int]:
    """Steps, and drain steps, of output block `ob` for one pixel block."""
    lo, hi = ob * m[_OC], min((ob + 1) * m[_OC], out_c) - 1
    words = (lane0 + hi) // m[_L] - (lane0 + lo) // m[_L] + 1
    inputs = hi // m[_L] - lo // m[_L] + 1 if diagonal else blocks
    drain = _ceil(m[_P], m[_DRAIN]) * words * drain_ways if last else 0
    return taps * inputs, drain


@njit(cache=True)
def conv_busy(
    m: _Vector,
    out_h: int,
    out_w: int,
    kh: int,
    kw: int,
    blocks: int,
    out_c: int,
    lane0: int,
    ways: int,
    drain_ways: int,
    packed: int,
    last: int,
    diagonal: int,
) -> tuple[int, int]:
    """Busy cycles of a CONV and, second, its tail.

    Every pixel block takes at least the longest drain of the instruction, and the last drain at most what the next
    instruction takes to its first step, so that a drain always ends before another begins. Where oc is a multiple of the
    lanes, all full output blocks cost the same: one is computed for all.
    """
    pixel_blocks = _conv_blocks(m, out_h, out_w, packed)
    parameter = _ceil(8, m[_L])
    count = _ceil(out_c, m[_OC])
    equal = out_c // m[_OC] if m[_OC] % m[_L] == 0 and out_c >= m[_OC] else 1
    longest, drain, ob = 0, 0, 0
    while ob < count:
        _, drain = _conv_block(m, ob, kh * kw, blocks, out_c, lane0, ways, drain_ways, last, diagonal)
        longest = max(longest, drain)
        ob += equal if ob == 0 else 1
    total, ob = m[_CONV_START], 0
    while ob < count:
        steps, _ = _conv_block(m, ob, kh * kw, blocks, out_c, lane0, ways, drain_ways, last, diagonal)
        same = equal if ob == 0 else 1
        total += same * (parameter + pixel_blocks * max(steps * ways, longest, 1))
        ob += same
    extra = max(0, drain - m[_CONV_START] - parameter)
    return total + extra, m[_CONV_TAIL] + drain - extra


@njit(cache=True)
def _dwc_shape(m: _Vector, kh: int, kw: int, sy: int, sx: int, dy: int, dx: int) -> tuple[int, int, int, int]:
    """Words of a row that a strip reads, rows it reads anew for each output row, MAC cycles, drain cycles."""
    run = (m[_DP] - 1) * sx + (kw - 1) * dx + 1
    t = m[_DT]
    mac = kh * _ceil(kw, t) if t < kw else _ceil(kh, min(t // kw, max(1, t // 3)))
    fresh = min(sy, kh) if dy == 1 else kh
    return run, fresh, mac, _ceil(m[_DP], m[_DDRAIN])


@njit(cache=True)
def dwc_busy(
    m: _Vector, out_h: int, out_w: int, kh: int, kw: int, blocks: int, sy: int, sx: int, dy: int, dx: int
) -> tuple[int, int]:
    """Busy cycles of a DWC and, second, its tail.

    A strip is `dwc.pixels` output columns: it fills its window once, then reads only the rows that are new, while the
    products of the row before are summed.
    """
    run, fresh, mac, drain = _dwc_shape(m, kh, kw, sy, sx, dy, dx)
    row = _ceil(run, m[_B])
    strip = kh * row + max(mac, drain) + (out_h - 1) * max(mac, fresh * row, drain)
    passes, parameter = _ceil(m[_L], m[_DCH]), _ceil(8, m[_DT])
    busy = m[_DWC_START] + passes * blocks * (parameter + _ceil(out_w, m[_DP]) * strip)
    return busy, m[_DWC_TAIL] + drain


@njit(cache=True)
def vec_busy(
    m: _Vector,
    func: int,
    out_h: int,
    out_w: int,
    blocks: int,
    kh: int,
    kw: int,
    sx: int,
    dx: int,
    shared: int,
    table: int,
    bilinear: int,
) -> tuple[int, int]:
    """Busy cycles of a VEC and, second, its tail; `shared`: both sources lie in one group, if only in part (2: the second is one pixel a block)."""
    rows, v = blocks * out_h, m[_V]
    if func in (_ADD, _MUL):
        work = rows * _ceil(out_w, v) * (2 if shared == 1 else 1) + (blocks if shared == 2 else 0)
    elif func == _PRELU:  # a block's slopes first, one a cycle
        work = blocks * m[_L] + rows * _ceil(out_w, v)
    elif func in (_MAX, _AVG):
        if out_w == 1:
            work = rows * kh * _ceil(kw, v) * read_ways(v, dx, m[_B])
        else:
            work = rows * _ceil(out_w, v) * kh * kw * read_ways(v, sx, m[_B])
    elif func == _TABLE:
        width = m[_VT] if table else v
        work = rows * _ceil(out_w, width) * read_ways(width, sx, m[_B])
    else:
        work = m[_VEC_RESIZE] + rows * out_w * (4 if bilinear else 1)
    return m[_VEC_START] + work, m[_VEC_TAIL]


@njit(cache=True)
def dma_groups(m: _Vector, f: _Vector) -> int:
    """Groups of words that a LOAD, FILL or SAVE (picked fields `f`) moves one a cycle, beside its chunks of bytes."""
    op, func, take = f[0], f[1], f[29]
    if op == _FILL:
        if func in (_TABLES, _VECTOR):
            return f[24] // (1 if func == _TABLES else 4)
        return f[32] * f[33]
    rows = f[28] * f[6]
    if take == m[_L] and (op == _SAVE or (f[30] == take and f[31] == 1 and f[35] == 0)):
        return rows * _ceil(f[27], m[_MOVE])
    return rows * f[27] * (1 if op == _SAVE else f[31])


@njit(cache=True)
def _costs(m: _Vector, rows: _Matrix, out: _Matrix) -> None:
    """Fill `out` (columns in the order of COST) from picked fields."""
    for i in range(len(rows)):
        f = rows[i]
        (op, func, oh, ow, kh, kw, blocks, out_c) = f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]
        sy, sx, dy, dx, table = f[15], f[16], f[17], f[18], f[23]
        busy = tail = reads = writes = weight = products = dw_reads = dw_products = 0
        ops = requantised = lookups = fill = dram = 0
        pixels = oh * ow
        if op == _CONV:
            lane0, ways, drain_ways, packed, last, diagonal = f[8], f[9], f[10], f[11], f[13], f[14]
            busy, tail = conv_busy(
                m, oh, ow, kh, kw, blocks, out_c, lane0, ways, drain_ways, packed, last, diagonal
            )
            pixel_blocks = _conv_blocks(m, oh, ow, packed)
            for ob in range(_ceil(out_c, m[_OC])):
                steps, drain = _conv_block(m, ob, kh * kw, blocks, out_c, lane0, ways, 1, 1, diagonal)
                channels = min((ob + 1) * m[_OC], out_c) - ob * m[_OC]
                reads += pixels * steps
                weight += _ceil(8, m[_L]) + pixel_blocks * (_ceil(kh * kw, m[_L]) if diagonal else steps)
                products += pixels * kh * kw * channels * (1 if diagonal else blocks * m[_L])
                if last:
                    writes += pixels * (drain // _ceil(m[_P], m[_DRAIN]))
            requantised = pixels * out_c if last else 0
            lookups = requantised if table else 0
        elif op == _DWC:
            busy, tail = dwc_busy(m, oh, ow, kh, kw, blocks, sy, sx, dy, dx)
            run, fresh, mac, _ = _dwc_shape(m, kh, kw, sy, sx, dy, dx)
            strips = _ceil(m[_L], m[_DCH]) * blocks * _ceil(ow, m[_DP])
            reads = strips * (kh + (oh - 1) * fresh) * run
            writes = blocks * pixels
            dw_reads = _ceil(m[_L], m[_DCH]) * blocks * (_ceil(8, m[_DT]) + _ceil(ow, m[_DP]) * oh * mac)
            dw_products = writes * m[_L] * kh * kw
            requantised = writes * m[_L]
            lookups = requantised if table else 0
        elif op == _VEC:
            broadcast = f[21]
            shared = 0
            if f[19] <= f[20] + f[_B_SPAN] and f[20] <= f[19] + f[_A_SPAN]:
                shared = 2 if broadcast else 1
            busy, tail = vec_busy(m, func, oh, ow, blocks, kh, kw, sx, dx, shared, table, f[22])
            writes = blocks * pixels
            if func in (_ADD, _MUL):
                reads = writes + (blocks if broadcast else writes)
            elif func in (_MAX, _AVG):
                reads = writes * kh * kw
            elif func == _RESIZE:
                reads = writes * (4 if f[22] else 1)
            else:
                reads = writes
            ops = reads * m[_L]
            if func == _TABLE:
                lookups = writes * m[_L] if table else 0
            elif func != _MAX:
                requantised = writes * m[_L]
        elif op == _FILL:
            dram = fill = f[24]
            busy = max(_ceil(dram, m[_STREAM]), dma_groups(m, f))
        elif op in (_LOAD, _SAVE):
            dram = f[24] * f[25] * f[26]
            busy = max(_ceil(dram, m[_STREAM]), dma_groups(m, f))
            words = f[27] * f[28] * blocks
            if op == _LOAD:
                writes = words * f[31]
            else:
                reads = words
        values = (busy, tail, reads, writes, weight, products, dw_reads, dw_products)
        for j in range(8):
            out[i, j] = values[j]
        out[i, 8], out[i, 9], out[i, 10], out[i, 11], out[i, 12] = ops, requantised, lookups, fill, dram


def costs(fields: NDArray[np.int64], arch: Arch) -> NDArray[np.void]:
    """Busy, tail and action counts of each instruction.

    Parameters
    ----------
    fields : int64 (n, len(COLUMNS))
        Decoded instructions, as `Program.fields`.
    arch : Arch

    Returns
    -------
    COST records (n,)
    """
    out = np.zeros((len(fields), len(COST.names or ())), np.int64)
    _costs(machine(arch), np.ascontiguousarray(fields[:, _PICK]), out)
    return out.view(COST)[:, 0]


def engine_cycles(fields: NDArray[np.int64], arch: Arch) -> dict[str, int]:
    """Busy cycles of each engine if nothing ever waits, by engine name in lower case."""
    busy, op = costs(fields, arch)["busy"], fields[:, COLUMNS["opcode"]]
    kinds = {"load": (_LOAD, _FILL), "conv": (_CONV,), "dwc": (_DWC,), "vec": (_VEC,), "save": (_SAVE,)}
    return {name: int(busy[np.isin(op, opcodes)].sum()) for name, opcodes in kinds.items()}


def estimate(program: Program | NDArray[np.int64], arch: Arch, dram: DramSpec | None = None) -> int:
    """Cycles of the busiest resource: an engine, the dispatcher, or the memory with all bytes at its peak.

    Never above the simulated cycles: it leaves out every wait.
    """
    fields = program.fields if isinstance(program, Program) else program
    moved = int(costs(fields, arch)["dram_bytes"].sum()) + len(fields) * WORD_BYTES
    transfer = int(moved / dram.peak_bytes_per_cycle) if dram is not None else 0
    return max(*engine_cycles(fields, arch).values(), transfer, len(fields))
