"""Pipeline latencies, declared once: the simulator adds them up, the RTL is built to them, a test measures them.

All in cycles of the core clock. Source: the pipeline registers that each component is built with.
"""

from __future__ import annotations

from .arch import Arch

__all__ = [
    "CONV_START",
    "DISPATCH",
    "DWC_PARAMETERS",
    "DWC_START",
    "LOAD_START",
    "LOAD_TAIL",
    "SAVE_START",
    "SAVE_TAIL",
    "VEC_START",
    "VEC_TAIL",
    "conv_tail",
    "dwc_tail",
]

DISPATCH = 1
"""Fetch buffer to the tail of an engine's queue; one instruction a cycle."""
CONV_START = 2
"""Ports granted to the first read address: decode, address generator."""
DWC_START = 2
VEC_START = 2
LOAD_START = 2
"""Ports granted to the first burst address on the bus."""
SAVE_START = 2
DWC_PARAMETERS = 1
"""Cycles that a channel block spends on reading bias and scale."""

_READ = 3
"""Address register, RAM, pixel crossbar."""
_REQUANTISE = 6
"""Significand product (3), rounding, second rounding, clamp and lookup."""
_WRITE = 2
"""Lane rotation, RAM write."""

VEC_TAIL = _READ + 2 + _REQUANTISE + _WRITE
"""Last read address to last word written: operand product and sum are 2."""
LOAD_TAIL = 3
"""Last beat leaving the burst buffer to its word written: lane shift, bank routing, RAM write."""
SAVE_TAIL = 1
"""Write response to the token."""


def conv_tail(arch: Arch) -> int:
    """Last read address to the first word of the last block written, without the drain steps after it.

    Product register, adder tree over `ic`, accumulator.
    """
    return _READ + 2 + (arch.conv.ic - 1).bit_length() + _REQUANTISE + _WRITE


def dwc_tail(arch: Arch) -> int:
    """The same for the depthwise engine: product, adder tree over `taps`, accumulator."""
    return _READ + 2 + (arch.dwc.taps - 1).bit_length() + _REQUANTISE + _WRITE
