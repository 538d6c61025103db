"""What each part of a core takes on the FPGA: DSP, block RAM and UltraRAM counted, LUT and FF from the parts' structure.

DSP, BRAM and UltraRAM follow from the multipliers and memories that `rtl` has; `tests/synthesis.py` demands that Yosys counts the
same. LUT and FF are sums of *terms*: what a group of registers, multiplexers or adders has by its number of bits, times a factor
that `tests/synthesis.py` fits to Yosys' counts and writes to `fabric.toml`, for each family.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from ..ir.arch import Arch
from ..ir.depthwise import rows_a_step
from ..ir.isa import WORD_BYTES
from ..ir.latency import product_chains, shift_levels
from ..ir.ultraram import in_ultraram, uram_blocks, wide_memories

__all__ = ["Terms", "block_ram", "bram36", "dsp_slices", "logic", "logic_terms"]

Terms = dict[str, dict[str, tuple[float, float]]]
"""LUT and FF of a part's terms, before the factors."""

_HALF, _WHOLE = ((36, 512), (18, 1024), (9, 2048)), ((72, 512), (36, 1024), (18, 2048), (9, 4096))
"""Bits and words of a RAMB18 and a RAMB36 as simple dual-port memories (UG473 table 1-7, UG573 table 1-7)."""
_HALF_NARROW, _WHOLE_NARROW = (
    ((4, 4096), (2, 8192), (1, 16384)),
    ((4, 8192), (2, 16384), (1, 32768)),
)
"""The same without the ninth bits: Yosys mixes none of these with the others."""
_DISTRIBUTED = 64
"""Words up to which burst buffers and the buffer of FETCH are LUT RAM (`rtl.burst_buffer`, `rtl.write_buffer`, `rtl.fetch`)."""
_REQUANTISER = {True: (245.0, 400.0), False: (119.0, 190.0)}
"""LUT and FF of one of those that share a scale word, with multiplier and without (`rtl.requantise`)."""
_SLOTS = 16
"""Row slots of the depthwise window, and instructions in flight of the array (`rtl.dwc_walks`, `rtl.conv_sequence`)."""


def _up(a: int, b: int) -> int:
    return -(-a // b)


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


@cache
def bram36(bits: int, words: int, byte_enables: bool = False) -> float:
    """Block RAM36 of a memory, as Yosys cuts it: columns of one shape, and a narrower one for what is left.

    >>> bram36(192, 341), bram36(128, 2048), bram36(64, 512, byte_enables=True)
    (3.0, 7.5, 1.0)
    """
    halves = []
    for parity, narrow, cost in ((_HALF, _HALF_NARROW, 1), (_WHOLE, _WHOLE_NARROW, 2)):
        shapes = tuple((w // 9 * 8, d) for w, d in parity) if byte_enables else parity
        for width, depth in shapes:
            columns, rest = divmod(bits, width)
            blocks = columns * _up(words, depth)
            if rest:
                blocks += min(_up(words, d) for w, d in shapes if w >= rest)
            halves.append(cost * blocks)
        if not byte_enables:
            halves += [cost * _up(bits, width) * _up(words, depth) for width, depth in narrow]
    return min(halves) / 2


def _buffer_words(arch: Arch) -> tuple[int, int]:
    """Words of a burst buffer of LOAD, and of SAVE."""
    rows = _up(arch.dma.burst, arch.dma.ports)
    return max(2, arch.dma.outstanding * _power(rows)), max(2, _power(arch.dma.outstanding * rows))


def block_ram(arch: Arch, uram: int) -> tuple[float, int]:
    """BRAM36 and UltraRAM of a core that may use `uram` of the latter.

    >>> block_ram(Arch.preset("b512"), 0), block_ram(Arch.preset("b512"), 64)
    ((93.0, 0), (56.0, 11))
    """
    banks = arch.banks
    total = arch.maps.groups * banks * bram36(8 * arch.lanes, arch.group_words // banks, True)
    total += max(2, arch.vec.pixels) * bram36(32, arch.vector_words)  # copies of the vector memory
    total += bram36(32 * arch.lanes, arch.vec.sums)
    for words in _buffer_words(arch):
        if words > _DISTRIBUTED:
            total += arch.dma.ports**2 * bram36(arch.dma.bits, words)  # a bank for each beat of a row
    places = _power(arch.queues.prefetch)
    if places > _DISTRIBUTED:
        total += 8 * WORD_BYTES // arch.dma.bits * bram36(arch.dma.bits, places)
    ultra, chosen = 0, in_ultraram(arch, uram)
    for name, (bits, words) in wide_memories(arch).items():
        if name in chosen:
            ultra += uram_blocks(bits, words)
        else:
            total += bram36(bits, words)
    return total, ultra


def _drained(arch: Arch) -> tuple[int, int]:
    """Values requantised a cycle by CONV and DWC."""
    dwc = min(arch.dwc.drain, arch.dwc.pixels) * min(arch.dwc.channels, arch.lanes)
    return arch.conv.drain * min(arch.conv.oc, arch.lanes), dwc


def dsp_slices(arch: Arch, family: str = "ultrascale+") -> dict[str, int]:
    """DSP slices by what they do, with two int8 products in one (`rtl.products`).

    >>> dsp_slices(Arch.preset("b512"))
    {'array': 128, 'depthwise': 48, 'requantise': 80, 'vector': 16, 'address': 20}
    """
    conv, dwc, vec = arch.conv, arch.dwc, arch.vec
    requantised = 0 if arch.rounding == ("shift",) else sum(_drained(arch)) + vec.pixels * arch.lanes
    address = conv.pixels + conv.drain  # a row of the ring times the pitch
    address += 2 if arch.has_dwc else 0  # row of the source, of the result
    address += 4  # VEC: two sources, the result, weights of a resize
    # LOAD, SAVE: three products of a burst walk, and a row; one of a walk is too wide for the DSP48E1.
    address += 2 * (4 if family == "ultrascale+" else 5)
    return {
        "array": conv.pixels * conv.oc // 2 * conv.ic,
        "depthwise": _up(dwc.pixels, 2) * min(dwc.channels, arch.lanes) * dwc.taps,
        "requantise": 2 * requantised,
        "vector": 2 * vec.pixels * arch.lanes,  # the two products of an add
        "address": address,
    }


# -- LUT and FF --------------------------------------------------------------------------------------------------------
def _mux(inputs: float) -> float:
    """LUTs a bit of a multiplexer: four inputs in one."""
    return max(0.0, (inputs - 1) / 3)


def _requantised(arch: Arch, values: int, looked_up: int) -> dict[str, tuple[float, float]]:
    """Requantisers and lookup tables (`rtl.requantise`, `rtl.lookup`)."""
    with_product = arch.rounding != ("shift",)
    lut, ff = _REQUANTISER[with_product]
    tables = arch.weights.tables
    return {
        "requantisers" if with_product else "shifters": (lut * values, ff * values),
        # 64 words of 32 bits in five RAM64M8 of eight LUTs; a choice of four bytes, and of tables.
        "tables": (40.0 * tables * looked_up, 0.0),
        "lookups": ((24.0 + 8 * tables) * looked_up, 48.0 * looked_up),
    }


def _dots(n: int, dots: int, paired: int, shared: int) -> dict[str, tuple[float, float]]:
    """Dot products of n pairs in DSP slices, with the registers before them (`rtl.products`)."""
    chains, length = product_chains(n)
    late = chains * sum(min(i, 2) for i in range(length)), chains * max(0, length - 3)
    return {
        "products": (36.0 * n * dots, 73.0 * n * dots),
        "splits": (20.0 * chains * dots, 23.0 * chains * dots),
        "trees": (40.0 * (chains - 1) * dots, 40.0 * (chains - 1) * dots),
        "operands": (
            18.0 * late[1] * paired + 3 * n * paired + 8 * late[1] * shared,
            18.0 * n * paired + 8 * late[0] * paired + 8 * n * shared,
        ),
    }


def _conv(arch: Arch, banks: int, rows: int) -> Terms:
    conv, word = arch.conv, 8 * arch.lanes
    drain, places = conv.drain, min(conv.oc, arch.lanes)
    steps = _up(conv.pixels, drain) * _up(conv.oc, arch.lanes)
    group = 4 if banks <= 16 else 8
    values = drain * places
    engine = {
        "fixed": (1500.0, 2200.0),
        "pixels": (300.0 * conv.pixels, 350.0 * conv.pixels),
        "requests": (conv.pixels * banks * (rows + 3) / 2, banks * (rows + 1.0)),
        "crossbar": (
            conv.pixels * word * (_up(banks, group) * (1 + (group > 4)) + 0.5),
            conv.pixels * word * (banks / group + 1),
        ),
        "weights": (
            8.0 * arch.lanes * conv.oc + 8 * conv.oc * _mux(arch.lanes),
            16.0 * arch.lanes * conv.oc + 8 * conv.oc,
        ),
        "kept": (37.0 * conv.oc, 32.0 * conv.oc * (conv.pixels + 3)),
        "selected": (32.0 * values * (0.2 + _mux(steps)), 32.0 * (values + places)),
        "results": (300.0 * drain + 2 * drain * word, 300.0 * drain + 2 * drain * word),
        "target": (banks * (word * drain / 2.2 + drain * rows / 2), banks * (word + 2.0 * rows + drain)),
        **_requantised(arch, values, values),
    }
    dots = conv.pixels * conv.oc // 2
    array = _dots(conv.ic, dots, conv.oc // 2, conv.pixels)
    array["sums"] = (32.0 * conv.pixels * conv.oc, 32.0 * conv.pixels * conv.oc)
    return {"conv": engine, "array": array}


def _dwc(arch: Arch, banks: int, rows: int) -> Terms:
    if not arch.has_dwc:
        return {}
    dwc, word = arch.dwc, 8 * arch.lanes
    channels = min(dwc.channels, arch.lanes)
    bits, drained = 8 * channels, min(dwc.drain, dwc.pixels)
    passes = _up(arch.lanes, channels)
    readers = rows_a_step(dwc.taps, 1)
    columns = min(2 * banks, 2 * (dwc.pixels - 1) + 2 * (dwc.rows - 1) + 1)
    need = 2 * (dwc.pixels - 1) + 2 * (min(dwc.taps, dwc.rows) - 1) + 1
    levels = shift_levels(arch)
    rotation = 1 if banks <= 4 else 2
    sums = dwc.pixels * channels * 32.0
    several = banks * bits * (passes > 1)
    engine = {
        "fixed": (2200.0, 2800.0),
        "columns": (
            banks * bits * (rotation + 0.5) + several * _mux(passes + 1),
            banks * bits * 2.0 + several,
        ),
        "window": (readers * columns * bits * 4 / 7, 1.0 * readers * columns * bits),
        "shifted": (
            levels * need * bits * _mux(_up(dwc.rows, dwc.taps) * 2),
            levels * (need + columns * (readers - 1)) * bits,
        ),
        "taps": (
            dwc.pixels * dwc.taps * bits * _mux(4 + min(dwc.taps, dwc.rows)),
            1.0 * dwc.pixels * dwc.taps * bits,
        ),
        "sums": (sums * 1.5, sums + 32.0 * max(drained, dwc.pixels) * channels),
        "parameters": (0.0, 8.0 * channels * (8 + 4 * min(dwc.taps, 8))),
        "target": (banks * word * (0.5 + drained / 4), banks * (word + 20.0) + 2 * drained * word),
        **_requantised(arch, drained * channels, drained * channels),
    }
    pairs = _up(dwc.pixels, 2) * channels
    return {"dwc": engine, "depthwise array": _dots(dwc.taps, pairs, pairs, channels)}


def _vec(arch: Arch, banks: int, rows: int) -> Terms:
    vec, word = arch.vec, 8 * arch.lanes
    width = max(vec.pixels, vec.table_pixels)
    lanes = vec.pixels * arch.lanes
    return {
        "vec": {
            "fixed": (1400.0, 1700.0),
            "pixels": (200.0 * width, 250.0 * width),
            "lanes": (350.0 * lanes, 370.0 * lanes),
            "requests": (banks * (3 * rows + 2.0 * width), banks * (3.0 * rows + 4)),
            "crossbar": (2.0 * width * word * _mux(banks), 2.0 * width * word * (banks / 4 + 1)),
            "slopes": (33.0 * arch.lanes, 33.0 * arch.lanes),
            "results": (width * word * 2.0, width * word * 4.0),
            "constants": (0.0, max(2, vec.pixels) * (66.0 + 2 * (arch.vector_words - 1).bit_length())),
            **_requantised(arch, lanes, vec.table_pixels * arch.lanes),
        }
    }


def _dma(arch: Arch, banks: int) -> Terms:
    ports, beat, stream, word = arch.dma.ports, arch.dma.bits, 8 * arch.stream_bytes, 8 * arch.lanes
    move = min(banks, _up(arch.stream_bytes, arch.lanes))
    ring = _power(max(2 * arch.stream_bytes - 1, arch.lanes))
    widest = 8 * max(
        move * arch.lanes, arch.conv.oc * arch.lanes, arch.dwc.taps * arch.lanes * arch.has_dwc, 4
    )
    load_words, save_words = _buffer_words(arch)
    memory = [
        _up(words, 64) * stream * 8 / 7 if words <= _DISTRIBUTED else 0.0
        for words in (load_words, save_words)
    ]
    rotate = max(1, _power(arch.beat_bytes).bit_length() - 1) / 2
    return {
        "load": {
            "fixed": (1700.0, 2500.0),
            "ports": (300.0 * ports, 400.0 * ports),
            "beats": (ports * beat * (rotate + 1.0), ports * beat * 6.0),
            "chunks": (ports * memory[0] + stream * (_mux(ports) + 2), stream * (ports + 3.0)),
            "ring": (ring * 24.0, ring * 24.0),
            "groups": (widest * 2.0, widest * 2.0),
            "banks": (banks * (word * _mux(move) + 10.0), banks * (word + 20.0)),
        },
        "save": {
            "fixed": (1200.0, 1900.0),
            "ports": (300.0 * ports, 300.0 * ports),
            "beats": (ports * beat * (rotate + 1.0), ports * beat * 5.0),
            "chunks": (ports * memory[1] + stream * (_mux(ports) * ports + 1.0), stream * (ports + 3.0)),
            "gather": (move * word * (_mux(banks) + 3.0), move * word * (banks / 4 + 4.0)),
            "banks": (banks * (3.0 * move + 10), banks * 20.0),
        },
    }


def _maps(arch: Arch, banks: int, rows: int) -> Terms:
    groups, word = arch.maps.groups, 8 * arch.lanes
    readers, writers = 4 + arch.has_dwc, 3 + arch.has_dwc
    request = word + arch.lanes + rows
    wide = wide_memories(arch).values()
    return {
        "maps": {
            "switch": (
                readers * banks * word * _mux(groups) + (readers + writers) * banks * groups,
                1.0 * readers * banks * word,
            ),
            "banks": (
                groups * banks * (request * (2.0 if writers > 3 else 1.0) + 3 * rows + 2),
                groups * banks * (2.0 * word + arch.lanes + 2 * rows + 1),
            ),
        },
        "wide memories": {
            "words": (0.0, float(sum(2 * bits + 2 * (words - 1).bit_length() + 2 for bits, words in wide)))
        },
    }


def _control(arch: Arch) -> Terms:
    engines = 4 + arch.has_dwc
    deep = _up(_power(arch.queues.depth), 32)
    return {
        "control": {
            "fixed": (4000.0, 2600.0),
            "engines": (250.0 * engines, 550.0 * engines),
            "queues": (257.0 * engines * deep, 0.0),
            "buses": (30.0 * arch.dma.ports, 1.0 * arch.dma.bits + 20 * arch.dma.ports),
        }
    }


def logic_terms(arch: Arch) -> Terms:
    """Terms of each part of a core."""
    banks = arch.banks
    rows = max(1, (arch.group_words // banks - 1).bit_length())  # bits of a row's number
    return (
        _control(arch)
        | _conv(arch, banks, rows)
        | _dwc(arch, banks, rows)
        | _vec(arch, banks, rows)
        | _dma(arch, banks)
        | _maps(arch, banks, rows)
    )


@cache
def _factors() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("fabric.toml").read_text(encoding="utf-8"))


def logic(arch: Arch, family: str) -> dict[str, tuple[float, float]]:
    """LUT and FF of each part of a core on a family of `Board`, estimated."""
    factors = _factors()[family]
    out = {}
    for part, terms in logic_terms(arch).items():
        own, lut, ff = factors[part], 0.0, 0.0
        for name, (luts, ffs) in terms.items():
            of_lut, of_ff = own[name]
            lut += luts * of_lut
            ff += ffs * of_ff
        out[part] = (lut, ff)
    return out
