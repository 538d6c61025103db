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
    "dot_product",
    "dwc_operands",
    "dwc_sums",
    "dwc_tail",
    "dwc_window",
    "product_chains",
    "shift_levels",
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
VEC_RESIZE = 3 + MEMORY_READ
"""More before the first issue of a resize: index address, one to let the constants of the instruction before pass, index,
source row and column."""
LOAD_START = 6
"""Ports granted to the first burst address on the bus: fields, products of runs 2, comparison, selection, size."""
BURST_INTERVAL = 2
"""From one burst address to the next: size, then next address."""
LOAD_RECEIVE = 6
"""Last beat of a burst to the first chunk that is taken out: bus register, rotation 2, beat that waits for the next, word,
burst buffer."""
LOAD_TAIL = 10
"""Last chunk taken out to its words written: burst buffer 2, port, rotation 2, ring 2, rotation 2, group, banks 2; 2 less,
as a chunk is taken one cycle before it counts, and the last cycle is itself one."""
SAVE_START = 9
"""Ports granted to the first group that is read: first burst 6, chunk, chunk that is filled, slot."""
SAVE_SEND = 19
"""Burst gathered to its first beat, if its last group was its first: request 4, word 4, crossbar 2, shift 2, chunk; buffer 3,
beat, rotation 2, bus register."""
SAVE_TAIL = 1
"""Last write response taken to the token: comparison of counts."""

VEC_TAIL = ADDRESS + MAP_READ + _CROSSBAR + 5 + REQUANTISE + _LOOKUP + _WRITE - 1
"""Last issue to last word written; differences, products (3), sum: 5. 1 less, as the last issue lies in the last busy
cycle."""


def product_chains(n: int) -> tuple[int, int]:
    """Cascades of DSP blocks that sum n products, and products of the longest: at most 8, as evenly as can be.

    >>> product_chains(3), product_chains(16), product_chains(20)
    ((1, 3), (2, 8), (3, 7))
    """
    chains = -(-n // 8)
    return chains, -(-n // chains)


def dot_product(n: int) -> int:
    """Two words of n operands to the sum of their products: operand, product and sum registers, the rest of the cascade,
    split of packed sums, adder tree over the cascades."""
    chains, length = product_chains(n)
    return 3 + (length - 1) + 1 + (chains - 1).bit_length()


def conv_tail(arch: Arch) -> int:
    """Last issue to the first word of the last block written, without the drain steps after it.

    Dot product, accumulator, drain register, selection. 2 less, as the last issue lies in the last busy cycle, and the
    first word belongs to the drain steps.
    """
    operands = ADDRESS + MAP_READ + _CROSSBAR
    return operands + dot_product(arch.conv.ic) + 3 + REQUANTISE + _LOOKUP + _WRITE - 2


def shift_levels(arch: Arch) -> int:
    """Registered levels that move a window row to the kernel columns of a step: none where every kernel row fits
    into the taps of one."""
    parts = -(-arch.dwc.rows // arch.dwc.taps)
    return 0 if parts == 1 else 1 if parts <= 4 else 2


def dwc_window(arch: Arch) -> int:
    """Issue of a read to the first cycle in which the window holds the words: request, map memory, lanes of the pass
    (where there are several), rotation from banks to columns, one more to be written."""
    passes = int(arch.dwc.channels < arch.lanes)
    return ADDRESS + MAP_READ + passes + _CROSSBAR + 1


def dwc_operands(arch: Arch) -> int:
    """Issue of a step to its operands. It reads the window one cycle behind the read issued just before it: window, shift
    to the step's columns, taps chosen by stride and dilation."""
    return dwc_window(arch) - 1 + 1 + shift_levels(arch) + 1


def dwc_sums(arch: Arch) -> int:
    """Issue of a step to the sum of its products."""
    return dwc_operands(arch) + dot_product(arch.dwc.taps)


def dwc_tail(arch: Arch) -> int:
    """The same for the depthwise engine: sum, accumulator, drain register, rotation from pixels to banks.

    2 less, as the last issue lies in the last busy cycle, and the first word belongs to the drain steps.
    """
    return dwc_sums(arch) + 2 + REQUANTISE + _LOOKUP + _CROSSBAR - 2
