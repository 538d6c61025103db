"""Instruction words in hardware: a bit layout for each format, from the one definition in `ir.isa`."""

from __future__ import annotations

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data

from ..ir.isa import FORMATS, WORD_BYTES, Opcode, VecOp

__all__ = ["WORD_BITS", "layout"]

WORD_BITS = 8 * WORD_BYTES


def layout(opcode: Opcode, func: VecOp | None = None) -> data.FlexibleLayout:
    """Fields of a format as they lie in the 512-bit word.

    >>> layout(Opcode.END)["wait_load"].offset
    8
    """
    fields, at = {}, 0
    for field in FORMATS[opcode, func]:
        shape: Shape = signed(field.bits) if field.signed else unsigned(field.bits)
        fields[field.name] = data.Field(shape, at)
        at += field.bits
    return data.FlexibleLayout(WORD_BITS, fields)
