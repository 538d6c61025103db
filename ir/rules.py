"""The rules that one instruction's fields obey or break alone, as a table.

Every rule is a value, a bound and a relation for each instruction it concerns; `verify` checks them in order and names
the first that is broken, with both numbers and what would help.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arch import Arch
from .depthwise import DEPTHWISE_STEP, parameter_words
from .isa import Memory, Opcode, Region, VecOp
from .requant import MODES

__all__ = ["RULES", "Rule"]

Column = NDArray[np.int64]
Columns = dict[str, Column]


@dataclass(frozen=True, slots=True)
class Rule:
    """`value` must be equal to, at most, or at least `bound`, wherever `where` holds.

    Parameters
    ----------
    what : str
        Names the value, as in "lane0 is 20".
    where, value, bound : callable
        Of the fields' columns and the machine; one entry an instruction (or one number for all).
    relation : {"==", "<=", ">="}
    help : str
    """

    what: str
    where: Callable[[Columns], NDArray[np.bool_]]
    value: Callable[[Columns, Arch], Column]
    relation: str
    bound: Callable[[Columns, Arch], Column | int]
    help: str

    def broken(self, columns: Columns, arch: Arch) -> tuple[int, int, int] | None:
        """Instruction, value and bound of the first violation."""
        at = np.flatnonzero(self.where(columns))
        if not len(at):
            return None
        value = np.broadcast_to(self.value(columns, arch), columns["opcode"].shape)[at]
        bound = np.broadcast_to(self.bound(columns, arch), columns["opcode"].shape)[at]
        bad = {"==": value != bound, "<=": value > bound, ">=": value < bound}[self.relation]
        first = int(np.argmax(bad))
        return (int(at[first]), int(value[first]), int(bound[first])) if bad[first] else None


def _is(*opcodes: Opcode) -> Callable[[Columns], NDArray[np.bool_]]:
    return lambda c: np.isin(c["opcode"], opcodes)


def _vec(*funcs: VecOp) -> Callable[[Columns], NDArray[np.bool_]]:
    return lambda c: (c["opcode"] == Opcode.VEC) & np.isin(c["func"], funcs)


def _fill(*memories: Memory) -> Callable[[Columns], NDArray[np.bool_]]:
    return lambda c: (c["opcode"] == Opcode.FILL) & np.isin(c["func"], memories)


def _either(*parts: Callable[[Columns], NDArray[np.bool_]]) -> Callable[[Columns], NDArray[np.bool_]]:
    return lambda c: np.logical_or.reduce([part(c) for part in parts])


_CONV, _DWC, _LOAD, _SAVE = (_is(o) for o in (Opcode.CONV, Opcode.DWC, Opcode.LOAD, Opcode.SAVE))
_PRODUCT = _is(Opcode.CONV, Opcode.DWC)
_COMPUTE = _is(Opcode.CONV, Opcode.DWC, Opcode.VEC)
_PAIR = _vec(VecOp.ADD, VecOp.MUL)
_POOL = _vec(VecOp.MAX, VecOp.AVG)
_WINDOW = _either(_PRODUCT, _POOL)
_TABLE, _RESIZE = _vec(VecOp.TABLE), _vec(VecOp.RESIZE)
_RANGED = _either(_PRODUCT, _vec(*(f for f in VecOp if f != VecOp.TABLE)))
_ROUNDED = _either(_PRODUCT, _vec(*(f for f in VecOp if f not in (VecOp.TABLE, VecOp.MAX))))
_OPERANDS = {"d": _either(_COMPUTE, _LOAD), "a": _either(_COMPUTE, _SAVE), "b": _PAIR}
_TO_THE_ARRAY = "run it on the array, as CONV with diagonal = 1"
_CHAINED = "accumulators are kept for one pixel block and one block of output channels: "


def _field(name: str) -> Callable[[Columns, Arch], Column]:
    return lambda c, arch: c[name]


def _number(value: int) -> Callable[[Columns, Arch], int]:
    return lambda c, arch: value


def _record_bytes(c: Columns, arch: Arch) -> Column:
    """Stream bytes of the records of a FILL."""
    lanes, words = arch.lanes, c["record_rows"]
    head = -(-8 // lanes)
    weights = arch.conv.oc * (
        8 + np.maximum(words - head - 1, 0) * lanes + np.where(words > head, c["tail_take"], 0)
    )
    taps, first = arch.dwc.taps, parameter_words(arch.dwc.taps)
    depthwise = lanes * (
        8 + np.maximum(words - first - 1, 0) * taps + np.where(words > first, c["tail_take"], 0)
    )
    tables = np.full_like(words, 256)
    each = np.select(
        [c["func"] == m for m in (Memory.WEIGHTS, Memory.DEPTHWISE)], [weights, depthwise], tables
    )
    return np.asarray(c["records"] * each, np.int64)


def _written(c: Columns, axis: str) -> Column:
    """Rows or columns from the first to the last that an instruction writes."""
    of_load, others = ("height", "out_h") if axis == "y" else ("width", "out_w")
    step = np.where(c["opcode"] == Opcode.CONV, c[f"step_{axis}"], 1)
    count = np.where(c["opcode"] == Opcode.LOAD, c[of_load], c[others])
    return np.asarray((count - 1) * step + 1, np.int64)


def _rows_read(c: Columns, arch: Arch) -> Column:
    """Rows of the source's ring that an instruction may read; a resize names its own."""
    window = _WINDOW(c)
    count = np.where(_SAVE(c), c["height"], np.where(_TABLE(c), (c["out_h"] - 1) * c["sy"] + 1, c["out_h"]))
    seen = (c["out_h"] - 1) * c["sy"] + (c["kh"] - 1) * c["dy"] + 1 - c["pad_top"]
    return np.asarray(
        np.where(_RESIZE(c), 0, np.where(window, np.minimum(c["in_h"], np.maximum(seen, 0)), count)), np.int64
    )


def _mode_known(c: Columns, arch: Arch) -> Column:
    built = np.array([int(m in arch.rounding) for m in MODES] + [0], np.int64)
    return np.asarray(built[c["mode"]], np.int64)


def _at_least_one(where: Callable[[Columns], NDArray[np.bool_]], *names: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            n,
            where,
            _field(n),
            ">=",
            _number(1),
            "an empty or stationary walk is no instruction: leave it out",
        )
        for n in names
    )


RULES: tuple[Rule, ...] = (
    *(
        rule
        for p, where in _OPERANDS.items()
        for rule in (
            Rule(
                f"{p}_group", where, _field(f"{p}_group"), "<=", lambda c, arch: arch.maps.groups - 1,
                "use a lower group, or set maps.groups higher",
            ),
            Rule(
                f"last group of {p}", where, lambda c, arch, p=p: c[f"{p}_group"] + c[f"{p}_span"], "<=",  # type: ignore[misc]
                lambda c, arch: arch.maps.groups - 1, "use a lower group or a smaller span, or set maps.groups higher",
            ),
            Rule(
                f"{p}_span", where, _field(f"{p}_span"), "<=", lambda c, arch: arch.span - 1,
                "operands in several groups need groups of a power of two words, and addresses of 18 bits: set maps.kib or "
                "maps.groups otherwise, or use a smaller operand",
            ),
            Rule(f"{p}_rows", where, _field(f"{p}_rows"), ">=", _number(1), "a ring has at least one row"),
            Rule(
                f"{p}_row0", where, _field(f"{p}_row0"), "<=", lambda c, arch, p=p: c[f"{p}_rows"] - 1,  # type: ignore[misc]
                "the first row is a row of the ring: take it modulo the ring's rows",
            ),
        )
    ),
    *_at_least_one(_COMPUTE, "out_h", "out_w"),
    *_at_least_one(_either(_COMPUTE, _LOAD, _SAVE), "blocks"),
    *_at_least_one(_WINDOW, "kh", "kw", "sy", "sx", "dy", "dx"),
    *_at_least_one(_TABLE, "sy", "sx"),
    *_at_least_one(_CONV, "out_c", "ways", "drain_ways", "step_y", "step_x"),
    *_at_least_one(_either(_LOAD, _SAVE), "width", "height", "take", "runs1", "runs2", "run_bytes"),
    *_at_least_one(_LOAD, "step", "fold", "row_bytes"),
    *_at_least_one(_RESIZE, "in_h", "in_w"),
    *_at_least_one(_is(Opcode.FILL), "run_bytes"),
    *_at_least_one(_fill(Memory.WEIGHTS, Memory.DEPTHWISE, Memory.TABLES), "records"),
    Rule(
        "depthwise engines needed", _DWC, lambda c, arch: np.ones_like(c["opcode"]), "<=",
        lambda c, arch: int(arch.has_dwc), "compile for this machine, which runs depthwise layers on the array",
    ),
    Rule("sx", _DWC, _field("sx"), "<=", _number(DEPTHWISE_STEP), _TO_THE_ARRAY),
    Rule("dx", _DWC, _field("dx"), "<=", _number(DEPTHWISE_STEP), _TO_THE_ARRAY),
    Rule("kh", _DWC, _field("kh"), "<=", lambda c, arch: arch.dwc.rows, _TO_THE_ARRAY),
    Rule("kw", _DWC, _field("kw"), "<=", lambda c, arch: arch.dwc.rows, _TO_THE_ARRAY),
    Rule(
        "words of a row that a strip reads", _DWC,
        lambda c, arch: (arch.dwc.pixels - 1) * c["sx"] + (c["kw"] - 1) * c["dx"] + 1, "<=", lambda c, arch: 2 * arch.banks,
        _TO_THE_ARRAY,
    ),
    Rule("take", _either(_LOAD, _SAVE), _field("take"), "<=", lambda c, arch: arch.lanes, "a map word has that many lanes"),
    Rule("lane0", _CONV, _field("lane0"), "<=", lambda c, arch: arch.lanes - 1, "name the block that the lane is in"),
    Rule(
        "table", _either(_PRODUCT, _TABLE), _field("table"), "<=", lambda c, arch: arch.weights.tables,
        "use a lower table, or set weights.tables higher",
    ),
    Rule("lo", _RANGED, _field("lo"), "<=", _field("hi"), "the clamp is empty: exchange lo and hi"),
    Rule(
        "requantisers of the mode", _ROUNDED, _mode_known, ">=", _number(1),
        "compile for a rounding mode that the machine's `rounding` lists",
    ),
    Rule(
        "bytes that the rows take", _LOAD, lambda c, arch: c["blocks"] * c["height"] * c["row_bytes"], "==",
        lambda c, arch: c["runs1"] * c["runs2"] * c["run_bytes"], "runs and rows describe the same stream",
    ),
    Rule(
        "bytes that the rows give", _SAVE, lambda c, arch: c["blocks"] * c["height"] * c["width"] * c["take"], "==",
        lambda c, arch: c["runs1"] * c["runs2"] * c["run_bytes"], "runs and rows describe the same stream",
    ),
    Rule(
        "d_rows", _COMPUTE, _field("d_rows"), ">=", lambda c, arch: _written(c, "y"),
        "rows that the ring does not have would overwrite the first ones: use a smaller tile or a taller ring",
    ),
    Rule(
        "rows that it reads", _either(_COMPUTE, _SAVE), _rows_read, "<=", _field("a_rows"),
        "rows that the ring does not have are other rows: use a smaller tile or a taller ring",
    ),
    Rule(
        "rows that it reads", lambda c: _PAIR(c) & (c["broadcast"] == 0), _field("out_h"), "<=", _field("b_rows"),
        "rows that the ring does not have are other rows: use a smaller tile or a taller ring",
    ),
    Rule(
        "d_pitch", lambda c: _OPERANDS["d"](c) & (_written(c, "y") > 1), _field("d_pitch"), ">=",
        lambda c, arch: _written(c, "x"), "rows would overwrite each other: set them further apart",
    ),
    Rule("region", _SAVE, _field("region"), "==", _number(Region.MAPS), "only the maps region is written"),
    Rule("region", _either(_LOAD, _is(Opcode.FILL)), _field("region"), "<=", _number(2), "regions are 0, 1, 2"),
    Rule(
        "run_bytes", _fill(Memory.WEIGHTS, Memory.DEPTHWISE, Memory.TABLES), _field("run_bytes"), "==", _record_bytes,
        "the records take that many bytes",
    ),
    Rule(
        "run_bytes modulo 4", _fill(Memory.VECTOR), lambda c, arch: c["run_bytes"] % 4, "==", _number(0),
        "vector words have 4 bytes",
    ),
    Rule(
        "record_rows", _fill(Memory.WEIGHTS), _field("record_rows"), ">=", lambda c, arch: -(-8 // arch.lanes) + 1,
        "a record holds bias, scale and at least one word of weights",
    ),
    Rule(
        "record_rows", _fill(Memory.DEPTHWISE), _field("record_rows"), ">=",
        lambda c, arch: parameter_words(arch.dwc.taps) + 1, "a record holds bias, scale and at least one word of taps",
    ),
    Rule(
        "tail_take", _fill(Memory.WEIGHTS), _field("tail_take"), "<=", lambda c, arch: arch.lanes,
        "a weight word has that many bytes a lane",
    ),
    Rule(
        "tail_take", _fill(Memory.DEPTHWISE), _field("tail_take"), "<=", lambda c, arch: arch.dwc.taps,
        "a word has dwc.taps bytes a lane",
    ),
    *_at_least_one(_fill(Memory.WEIGHTS, Memory.DEPTHWISE), "tail_take"),
    Rule(
        "pixels", lambda c: _CONV(c) & ((c["first"] == 0) | (c["last"] == 0)), lambda c, arch: c["out_h"] * c["out_w"],
        "<=", lambda c, arch: arch.conv.pixels, _CHAINED + "use a smaller tile",
    ),
    Rule(
        "out_h", lambda c: _CONV(c) & ((c["first"] == 0) | (c["last"] == 0)) & (c["packed"] == 0), _field("out_h"), "<=",
        _number(1), _CHAINED + "pack the pixels over rows",
    ),
    Rule(
        "out_c", lambda c: _CONV(c) & ((c["first"] == 0) | (c["last"] == 0)), _field("out_c"), "<=",
        lambda c, arch: arch.conv.oc, _CHAINED + "give each block of output channels its own instructions",
    ),
    Rule(
        "pixels", lambda c: _POOL(c) & ((c["first"] == 0) | (c["last"] == 0)), lambda c, arch: c["out_h"] * c["out_w"],
        "<=", _number(1), "running sums are kept for one output pixel: use a global window",
    ),
    Rule(
        "blocks", lambda c: _POOL(c) & ((c["first"] == 0) | (c["last"] == 0)), _field("blocks"), "<=",
        lambda c, arch: arch.vec.sums, "pool fewer channels at once, or set vec.sums higher",
    ),
    Rule(
        "counted", lambda c: _POOL(c) & ((c["first"] == 0) | (c["last"] == 0)), _field("counted"), "==", _number(0),
        "valid taps are counted within one instruction: give the divisor as the scale word",
    ),
    Rule("origin", _RESIZE, _field("origin"), "<=", lambda c, arch: c["in_h"] - 1, "the source begins inside the map"),
)  # fmt: skip
"""Rules that one instruction's fields obey or break alone."""
