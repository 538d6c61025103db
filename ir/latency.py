"""Pipeline latencies, declared once: the simulator adds them up, the RTL is built to them, a test measures them.

All in cycles of the core clock. Source: the pipeline registers that each component is built with.
"""

from __future__ import annotations

from .arch import Arch

__all__ = [
    "ADDRESS",
    "BURST_INTERVAL",
    "CONV_START",
    "DISPATCH",
    "DWC_START",
    "FETCH_START",
    "FETCH_TAIL",
    "LOAD_RECEIVE",
    "LOAD_START",
    "LOAD_TAIL",
    "MAP_READ",
    "MEMORY_READ",
    "REQUANTISE",
    "SAVE_SEND",
    "SAVE_START",
    "SAVE_TAIL",
    "TOKEN",
    "VEC_RESIZE",
    "VEC_START",
    "VEC_TAIL",
    "conv_tail",
    "dwc_tail",
]

# -- control -----------------------------------------------------------------------------------------------------------
FETCH_START = 2
"""Dispatch of the instruction that makes room, to the request for the next group."""
FETCH_TAIL = 3
"""Last beat of a burst to its instructions at the dispatcher: bus register, buffer RAM, output register."""
DISPATCH = 2
"""Dispatch to the earliest start: queue RAM, output register."""
TOKEN = 2
"""Token to the earliest start of an instruction that waits for it: counter, comparison."""

# -- memories ----------------------------------------------------------------------------------------------------------
ADDRESS = 4
"""Issue to the request at the map memory: row of the ring, two product registers, bank routing. The same for all engines,
so that a read port can change hands from one cycle to the next."""
MAP_READ = 4
"""Request to the word: group register, RAM, output register, engine register."""
MEMORY_READ = 3
"""The same for the memories beside the maps: address register, RAM, output register."""
_CROSSBAR = 2
"""Words of banks to words of pixels, two levels of multiplexers."""
_WRITE = 3
"""Rotation to lanes and banks in two levels, request register."""

# -- engines -----------------------------------------------------------------------------------------------------------
REQUANTISE = 8
"""Accumulator and scale word to int8: leading zeros, normalise, three product registers, two roundings, range."""
_LOOKUP = 2
"""Table: address register and RAM, output register."""

CONV_START = 2
"""Ports granted to the first issue: decode, address generator."""
DWC_START = 2
VEC_START = 2
VEC_RESIZE = 4
"""More before the first issue of a resize: source index out of the vector memory."""
LOAD_START = 2
"""Ports granted to the first burst address on the bus."""
BURST_INTERVAL = 2
"""From one burst address to the next: size, then next address."""
LOAD_RECEIVE = 2
"""Last beat of a burst to the first chunk that is taken out: bus register, burst counter."""
LOAD_TAIL = 10
"""Last chunk taken out to its words written: burst buffer 2, alignment 3, lanes 1, banks 2, memory 2."""
SAVE_START = 2
SAVE_SEND = 3
"""Burst gathered to its first beat: buffer RAM 2, bus register."""
SAVE_TAIL = 2
"""Last write response to the token: bus register, retirement."""

VEC_TAIL = ADDRESS + MAP_READ + _CROSSBAR + 5 + REQUANTISE + _LOOKUP + _WRITE
"""Last issue to last word written; differences, products (3), sum: 5."""


def conv_tail(arch: Arch) -> int:
    """Last issue to the first word of the last block written, without the drain steps after it.

    Product 4, adder tree over `ic`, accumulator, drain register.
    """
    tree = (arch.conv.ic - 1).bit_length()
    return ADDRESS + MAP_READ + _CROSSBAR + 4 + tree + 2 + REQUANTISE + _LOOKUP + _WRITE


def dwc_tail(arch: Arch) -> int:
    """The same for the depthwise engine: window write and read 3, shift 3, product 4, tree over `taps`, accumulator."""
    tree = (arch.dwc.taps - 1).bit_length()
    return ADDRESS + MAP_READ + _CROSSBAR + 3 + 3 + 4 + tree + 2 + REQUANTISE + _LOOKUP + _WRITE
