"""FPGA resources of a design: DSP, BRAM and UltraRAM counted from its structure, LUT and FF estimated.

Structure: two int8 products a DSP48 wherever two products share an operand; a requantiser's 32 x 25 bit product is
two; map banks are simple dual-port block RAM with a write enable a byte, so the ninth bits stay unused; weights are
in UltraRAM where the board has it; lookup tables are distributed RAM, a copy for each value looked up a cycle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..ir.arch import Arch
from ..ir.board import Board

__all__ = ["ResourceUse", "fits", "flip_flops", "resources"]


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """One FPGA resource.

    Parameters
    ----------
    available : float or None
        On the board; None without a board.
    exact : bool
        Counted from the structure; otherwise estimated.
    """

    resource: str
    used: float
    available: float | None = None
    exact: bool = True


_BRAM = (
    (8, 512, 1.0),
    (4, 1024, 1.0),
    (2, 2048, 1.0),
    (1, 4096, 1.0),
    (4, 512, 0.5),
    (2, 1024, 0.5),
    (1, 2048, 0.5),
)
"""Bytes a word, words, BRAM36: simple dual-port shapes of a BRAM36 and of its half (UG473 table 1-7, UG573 table 1-7),
ninth bits unused."""
_URAM_BYTES, _URAM_WORDS = 8, 4096
"""UltraRAM: 72 bits x 4096 (UG573 chapter 2), a write enable a byte."""

_BASE_LUT, _BASE_FF = 17_400, 24_100
_LUT_A_PRODUCT, _FF_A_PRODUCT = 13.3, 37.0
"""Straight line through B512 and B4096 with low DSP usage: PG338 v1.2 table 9 (20,759 and 44,583 LUT; 33,572 and
99,791 FF; 256 and 2048 products)."""
_LUT_A_REQUANTISER, _FF_A_REQUANTISER = 250, 300
"""Leading-zero count and two 32-bit shifters at 80 LUT, rounding and clamp; six pipeline stages of 50 bits. Estimated
until fitted to synthesis."""
_LUT_A_TABLE = 256 * 8 // 64 + 8
"""256 bytes in 64-bit LUT RAMs, and their multiplexer."""


def _bram(width_bytes: int, depth: int) -> float:
    """Fewest BRAM36 for a memory of this shape.

    >>> _bram(16, 512), _bram(4, 2048), _bram(10, 512)
    (2.0, 2.0, 1.5)
    """

    def columns(lanes: int, shape: tuple[int, int, float]) -> float:
        return math.ceil(lanes / shape[0]) * math.ceil(depth / shape[1]) * shape[2]

    best = math.inf
    for shape in _BRAM:
        whole = width_bytes // shape[0] * shape[0]
        rest = width_bytes - whole
        best = min(
            best, columns(whole, shape) + (min(columns(rest, other) for other in _BRAM) if rest else 0.0)
        )
    return best


def _uram(width_bytes: int, depth: int) -> int:
    return math.ceil(width_bytes / _URAM_BYTES) * math.ceil(depth / _URAM_WORDS)


def _requantisers(arch: Arch) -> int:
    """Values requantised a cycle, over all engines."""
    dwc = arch.dwc.drain * arch.dwc.channels if arch.has_dwc else 0
    return arch.conv.drain * arch.conv.oc + dwc + arch.vec.pixels * arch.lanes


def _lookups(arch: Arch) -> int:
    """Values looked up a cycle, over all engines."""
    dwc = arch.dwc.drain * arch.dwc.channels if arch.has_dwc else 0
    return arch.conv.drain * arch.conv.oc + dwc + arch.vec.table_pixels * arch.lanes


def _dsp(arch: Arch) -> int:
    pixels = math.ceil(arch.conv.pixels / 2) if arch.conv.pixels > 1 else 1
    array = min(pixels * arch.conv.oc, arch.conv.pixels * math.ceil(arch.conv.oc / 2)) * arch.conv.ic
    depthwise = math.ceil(arch.dwc.pixels / 2) * arch.dwc.channels * arch.dwc.taps
    vector = 2 * arch.vec.pixels * arch.lanes  # the two products of an add
    requantise = 0 if arch.rounding == ("shift",) else 2 * _requantisers(arch)
    return array + depthwise + vector + requantise


def _products(arch: Arch) -> int:
    return arch.macs_per_cycle + arch.depthwise_macs_per_cycle


def flip_flops(arch: Arch) -> int:
    """Flip-flops of a core, estimated."""
    return round(_BASE_FF + _FF_A_PRODUCT * _products(arch) + _FF_A_REQUANTISER * _requantisers(arch))


def _luts(arch: Arch) -> int:
    tables = _LUT_A_TABLE * arch.weights.tables * _lookups(arch)
    return round(
        _BASE_LUT + _LUT_A_PRODUCT * _products(arch) + _LUT_A_REQUANTISER * _requantisers(arch) + tables
    )


def _memories(arch: Arch, uram: int) -> tuple[float, int]:
    """BRAM36 and UltraRAM of a core that may use `uram` of the latter: weights first, then depthwise weights."""
    depth = arch.group_words // arch.banks
    bram = arch.maps.groups * arch.banks * _bram(arch.lanes, depth)
    bram += _bram(4, arch.vector_words)
    in_flight = arch.dma.outstanding * arch.burst_bytes // arch.beat_bytes
    bram += 2 * arch.dma.ports * _bram(arch.beat_bytes, in_flight)  # burst buffers of LOAD and SAVE
    used = 0
    shapes = [(arch.conv.oc, arch.lanes, arch.weight_words)]
    if arch.has_dwc:
        shapes.append((1, arch.dwc.taps * arch.lanes, arch.depthwise_words))
    for count, width, words in shapes:
        need = count * _uram(width, words)
        if used + need <= uram:
            used += need
        else:
            bram += count * _bram(width, words)
    return bram, used


def resources(arch: Arch, board: Board | None = None) -> tuple[ResourceUse, ...]:
    """What all cores of a design use, and what the board has.

    >>> [r.used for r in resources(Arch.preset("b512-nodw")) if r.resource == "DSP"]
    [192]
    """
    n = arch.cores
    bram, uram = _memories(arch, board.uram // n if board is not None else 0)
    have = (board.dsp, board.bram36, board.uram, board.lut, board.ff) if board is not None else (None,) * 5
    return (
        ResourceUse("DSP", n * _dsp(arch), have[0]),
        ResourceUse("BRAM36", n * bram, have[1]),
        ResourceUse("URAM", n * uram, have[2]),
        ResourceUse("LUT", n * _luts(arch), have[3], exact=False),
        ResourceUse("FF", n * flip_flops(arch), have[4], exact=False),
    )


_LEVERS = {
    "DSP": "a smaller array, fewer dwc.taps or a smaller conv.drain",
    "BRAM36": "a smaller maps.kib or weights.kib",
    "URAM": "a smaller weights.kib",
    "LUT": "a smaller array, conv.drain or fewer weights.tables",
    "FF": "a smaller array or conv.drain",
}


def fits(arch: Arch, board: Board) -> tuple[str, ...]:
    """Why the design does not fit the board, one sentence each; empty where it does."""
    out = []
    for use in resources(arch, board):
        if use.available is not None and use.used > use.available:
            mark = "" if use.exact else " (estimated)"
            out.append(
                f"{arch.name} needs {use.used:,g}{mark} {use.resource}, {board.name} has {use.available:,g}: "
                f"{_LEVERS[use.resource]} would help"
            )
    if arch.clock_mhz > board.clock_max_mhz:
        out.append(
            f"{arch.name} runs at {arch.clock_mhz:g} MHz, RAM of {board.part} ends at {board.clock_max_mhz:g} MHz: "
            "lower clock_mhz"
        )
    if arch.cores * arch.dma.ports > board.ports:
        out.append(
            f"{arch.name} has {arch.cores} x {arch.dma.ports} ports, {board.name} offers {board.ports}: lower dma.ports"
        )
    if arch.dma.bits > board.port_bits:
        out.append(
            f"{arch.name} has ports of {arch.dma.bits} bit, those of {board.name} are {board.port_bits}: "
            f"set dma.bits = {board.port_bits}"
        )
    if arch.dma.burst > board.port_burst:
        out.append(
            f"{arch.name} bursts {arch.dma.burst} beats, ports of {board.name} take {board.port_burst}: "
            f"set dma.burst = {board.port_burst}"
        )
    return tuple(out)
