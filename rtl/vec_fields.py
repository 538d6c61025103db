"""The fields of a VEC instruction, one set for all functions.

A function that lacks a field gets the value with which it does nothing: strides of 1, a window of 1 x 1, no zero point.
What follows never asks for a function's format, only for fields.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data

from ..ir.isa import FORMATS, Opcode, VecOp
from .words import layout

__all__ = ["FUNCTIONS", "VEC_FIELDS", "vec_fields"]

FUNCTIONS = ("add", "multiply", "maximum", "average", "table", "prelu", "resize")
"""Flags of the functions, in the order of `VecOp`."""

_WITHOUT = {
    "sy": 1,
    "sx": 1,
    "dy": 1,
    "dx": 1,
    "kh": 1,
    "kw": 1,
    "first": 1,
    "last": 1,
    "lo": -128,
    "hi": 127,
}
"""What a field is where a format lacks it; 0 for all others."""
_FREE = {"b_group", "b_span", "b_base", "b_pitch", "b_plane", "b_rows", "b_row0", "zb", "in_h", "in_w", "dy", "dx", "mode"} | {
    "ma", "mb", "scale", "v_base", "v_cols"
}  # fmt: skip
"""Fields that may be anything where a format lacks them."""
_IGNORED = {VecOp.MAX: {"za", "zd", "counted"}}
"""Fields of a format that its function does not use: a maximum compares bytes as they are."""


def _shapes() -> dict[str, Shape]:
    fields: dict[str, Shape] = {}
    for op in VecOp:
        for f in FORMATS[Opcode.VEC, op]:
            if f.name not in {"opcode", "func", "d_span"} and not f.name.startswith("wait_"):
                fields[f.name] = signed(f.bits) if f.signed else unsigned(f.bits)
    return fields


VEC_FIELDS = data.StructLayout(
    _shapes() | {f"is_{name}": unsigned(1) for name in FUNCTIONS} | {"is_column": unsigned(1)}
)
"""All fields that any function has, a flag for each function, and `is_column`: a pooling with one output column, which
takes the columns of its window side by side."""


def vec_fields(m: Module, word: Value) -> data.View:
    """The fields of an instruction word, chosen by its function (combinational)."""
    out = Signal(VEC_FIELDS, name="decoded")
    views = {op: layout(Opcode.VEC, op) for op in VecOp}
    at = views[VecOp.ADD]["func"]
    func = word[at.offset : at.offset + at.width]
    flags = {}
    for op, name in zip(VecOp, FUNCTIONS, strict=True):
        flags[op] = Signal(name=f"func_is_{name}")
        m.d.comb += [flags[op].eq(func == op), out[f"is_{name}"].eq(flags[op])]
    width = views[VecOp.AVG]["out_w"]  # poolings only: no other format's field delays the flag
    pool = flags[VecOp.MAX] | flags[VecOp.AVG]
    m.d.comb += out.is_column.eq(pool & (word[width.offset : width.offset + width.width] == 1))
    for name, shape in _shapes().items():
        places: dict[tuple[int, int], list[VecOp]] = {}
        for op, view in views.items():
            if name in dict(view) and name not in _IGNORED.get(op, ()):
                places.setdefault((view[name].offset, view[name].width), []).append(op)
        sources = [(ops, word[at : at + bits]) for (at, bits), ops in places.items()]
        lacking = set(VecOp) - {op for ops in places.values() for op in ops}
        if lacking and name not in _FREE:
            value: Value = Const(_WITHOUT.get(name, 0), shape)
        else:
            _, value = sources.pop()
        for ops, source in sources:
            value = Mux(Cat(flags[op] for op in ops).any(), source, value)
        if name in {"kh", "kw"}:  # a bilinear resize reads 2 x 2 neighbours
            bilinear = word[views[VecOp.RESIZE]["bilinear"].offset]
            value = Mux(flags[VecOp.RESIZE] & bilinear, 2, value)
        m.d.comb += Value.cast(out[name]).eq(value)
    return out
