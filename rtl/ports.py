"""Signatures between the core's components. Directions are those of the side that is named first.

Every signal is in the one clock domain ``sync``. A *word* of a map is `arch.lanes` bytes, lane 0 in the low bits; word
w of a group lies in bank ``w % banks``, at *row* ``w // banks`` of it. Requests count rows from the first group of their
operand; rows beyond a group's last are those of the next group.
"""

from __future__ import annotations

from amaranth.lib.wiring import In, Out, Signature

from ..ir.arch import Arch
from .words import WORD_BITS

__all__ = ["engine_port", "fill_port", "map_read", "map_write", "memory_read", "row_bits"]


def row_bits(arch: Arch) -> int:
    """Bits of a row number, counted from the operand's first group."""
    return max(1, (arch.span * arch.group_words // arch.banks - 1).bit_length())


def engine_port() -> Signature:
    """Control to engine.

    ``start`` is high for one cycle, the instruction's start; ``word`` is valid in that cycle. ``last`` is the last busy
    cycle (start + busy - 1), ``done`` the cycle of the token (start + busy + tail); both one cycle an instruction.
    """
    return Signature({"start": Out(1), "word": Out(WORD_BITS), "last": In(1), "done": In(1)})


def map_read(arch: Arch) -> Signature:
    """Engine to map memory: a request to any banks, ``group`` the operand's first; words come `MAP_READ` cycles later."""
    return Signature(
        {
            "group": Out(3),
            "enable": Out(arch.banks),
            **{f"row{b}": Out(row_bits(arch)) for b in range(arch.banks)},
            **{f"data{b}": In(8 * arch.lanes) for b in range(arch.banks)},
        }
    )


def map_write(arch: Arch) -> Signature:
    """Engine to map memory: a word for any banks, with a write enable a lane; ``group`` is the operand's first.

    ``mask`` of a bank that is not enabled is ignored.
    """
    return Signature(
        {
            "group": Out(3),
            "enable": Out(arch.banks),
            **{f"row{b}": Out(row_bits(arch)) for b in range(arch.banks)},
            **{f"mask{b}": Out(arch.lanes) for b in range(arch.banks)},
            **{f"data{b}": Out(8 * arch.lanes) for b in range(arch.banks)},
        }
    )


def memory_read(address_bits: int, data_bits: int) -> Signature:
    """Engine to one of the memories beside the maps: the word comes `MEMORY_READ` cycles after ``enable``."""
    return Signature({"enable": Out(1), "address": Out(address_bits), "data": In(data_bits)})


def fill_port(address_bits: int, data_bits: int) -> Signature:
    """LOAD to one of the memories beside the maps: a whole word a cycle."""
    return Signature({"enable": Out(1), "address": Out(address_bits), "data": Out(data_bits)})
