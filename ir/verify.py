"""What a legal program is: a table of rules over its fields, then addresses, tokens, bank conflicts and races.

Every rule is a value, a bound and a relation for each instruction it concerns; the first violation becomes a
`ProgramError` with the instruction's index and text, both numbers, and what would help.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from .arch import Arch
from .errors import ProgramError
from .hazards import BOX, MEMORIES, boxes, find_races, wait_counts
from .isa import COLUMNS, Engine, Memory, Opcode, Program, Region, VecOp, render
from .requant import MODES

__all__ = ["RULES", "Rule", "check_ranges", "verify"]

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
    depthwise = lanes * (8 + np.maximum(words - 2, 0) * 8 + np.where(words > 1, c["tail_take"], 0))
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
        "record_rows", _fill(Memory.DEPTHWISE), _field("record_rows"), ">=", _number(2),
        "a record holds bias, scale and at least one word of taps",
    ),
    Rule(
        "tail_take", _fill(Memory.WEIGHTS), _field("tail_take"), "<=", lambda c, arch: arch.lanes,
        "a weight word has that many bytes a lane",
    ),
    Rule("tail_take", _fill(Memory.DEPTHWISE), _field("tail_take"), "<=", _number(8), "a word has 8 bytes a lane"),
    *_at_least_one(_fill(Memory.WEIGHTS, Memory.DEPTHWISE), "tail_take"),
    Rule(
        "pixels", lambda c: _CONV(c) & ((c["first"] == 0) | (c["last"] == 0)), lambda c, arch: c["out_h"] * c["out_w"],
        "<=", lambda c, arch: arch.conv.pixels, _CHAINED + "use a smaller tile",
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


def verify(program: Program, arch: Arch) -> None:
    """Raise unless a program is legal on a machine.

    Raises
    ------
    ProgramError
        The first violation found: of the machine it is for, the place of END, a field, an address, a token, the
        banks that pixels share, or the order of two instructions on one word.
    """
    if program.design != arch.design_hash:
        raise ProgramError(
            f"program is for design {program.design}, the machine {arch.name} is {arch.design_hash}; compile it again",
            program=program.design,
            machine=arch.design_hash,
        )
    fields = program.fields
    ends = np.flatnonzero(fields[:, COLUMNS["opcode"]] == Opcode.END)
    if not len(fields) or len(ends) != 1 or ends[0] != len(fields) - 1:
        raise ProgramError(
            f"program of {len(fields)} instructions has END at {ends.tolist()}; it stands once, as the last: "
            f"at {max(len(fields) - 1, 0)}"
        )
    columns = {name: fields[:, at] for name, at in COLUMNS.items()}
    for rule in RULES:
        found = rule.broken(columns, arch)
        if found is not None:
            i, value, bound = found
            relation = {"==": "it must be", "<=": "at most is", ">=": "at least is"}[rule.relation]
            raise _illegal(
                fields, i, f"{rule.what} is {value}, {relation} {bound}; {rule.help}", value, bound
            )
    check_ranges(program, arch)
    _check_tokens(fields)
    _check_chains(fields)
    _check_banks(fields, arch)
    for i, j, memory, word in find_races(fields, arch, program.weights, limit=1):
        if i == j:
            raise _illegal(
                fields,
                i,
                f"it writes word {word} of {memory}, which it reads as a window; use another place",
                word,
                i,
            )
        engine = Engine(int(program.engine[i]))
        token = int(np.count_nonzero(program.engine[: i + 1] == engine))
        have = int(wait_counts(fields)[0][j, engine])
        raise _illegal(
            fields, j,
            f"race with instruction {i} ({render(fields[i])}) on word {word} of {memory}: it waits for {have} tokens of "
            f"{engine.name}, and that instruction gives number {token}; wait for {token}", have, token,
        )  # fmt: skip


def check_ranges(program: Program, arch: Arch) -> None:
    """Raise unless every address lies in its memory or DRAM region.

    Raises
    ------
    ProgramError
    """
    fields = program.fields
    c = {name: fields[:, at] for name, at in COLUMNS.items()}
    moves = np.isin(c["opcode"], (Opcode.LOAD, Opcode.FILL, Opcode.SAVE))
    fill = c["opcode"] == Opcode.FILL
    end = c["address"] + c["run_bytes"]
    end = end + np.where(fill, 0, (c["runs1"] - 1) * c["stride1"] + (c["runs2"] - 1) * c["stride2"])
    size = np.array([len(program.words), len(program.weights), program.maps_bytes, 0])[c["region"]]
    bad = np.flatnonzero(moves & (end > size))
    if len(bad):
        i = int(bad[0])
        region = Region(int(c["region"][i])).name.lower()
        raise _illegal(
            fields, i, f"its last byte is {end[i] - 1} of the DRAM {region} region, which has {size[i]}", int(end[i]) - 1,
            int(size[i]),
        )  # fmt: skip
    table = boxes(fields, arch, program.weights)
    resize = (c["opcode"] == Opcode.VEC) & (c["func"] == VecOp.RESIZE)
    for box in table[
        resize[table[:, 0]]
        & (table[:, BOX["memory"]] < MEMORIES.index("weights"))
        & (table[:, BOX["write"]] == 0)
    ]:
        i = int(box[0])
        first, rows = -int(box[BOX["y_pad"]]), int(box[BOX["y_count"]])
        last_x = int(box[BOX["x_count"]]) - int(box[BOX["x_pad"]]) - 1
        bounds = (
            ("its first source row", first, ">=", 0),
            ("its last source row", first + rows - 1, "<=", min(int(c["in_h"][i] - c["origin"][i]), int(c["a_rows"][i])) - 1),
            ("its last source column", last_x, "<=", int(c["in_w"][i]) - 1),
        )  # fmt: skip
        for what, value, relation, bound in bounds:
            if (value < bound) if relation == ">=" else (value > bound):
                raise _illegal(
                    fields, i, f"{what}, from the indices in vector memory, is {value}, the source has {relation} {bound}",
                    value, bound,
                )  # fmt: skip


def _illegal(fields: NDArray[np.int64], i: int, problem: str, value: int, bound: int) -> ProgramError:
    return ProgramError(
        f"instruction {i} ({render(fields[i])}): {problem}", instruction=i, value=value, limit=bound
    )


def _check_tokens(fields: NDArray[np.int64]) -> None:
    """Waits name earlier instructions, so no order of progress can deadlock."""
    counts, before = wait_counts(fields)
    late = np.argwhere(counts > before)
    if len(late):
        i, e = (int(v) for v in late[0])
        raise _illegal(
            fields, i,
            f"it waits for token {counts[i, e]} of {Engine(e).name}, {before[i, e]} instructions of which stand earlier: "
            "it could wait for ever; wait for an earlier instruction, or move it", int(counts[i, e]), int(before[i, e]),
        )  # fmt: skip


def _check_chains(fields: NDArray[np.int64]) -> None:
    """What continues kept accumulators or running sums follows what kept them, and is of the same size."""
    c = {name: fields[:, at] for name, at in COLUMNS.items()}
    pool = (c["opcode"] == Opcode.VEC) & np.isin(c["func"], (VecOp.MAX, VecOp.AVG))
    # Every CONV uses the accumulators; a pooling uses the running sums only where it begins or goes on with some.
    chains = (
        ("CONV", c["opcode"] == Opcode.CONV, ("out_h", "out_w", "out_c")),
        ("pooling", pool & ((c["first"] == 0) | (c["last"] == 0)), ("func", "blocks", "za")),
    )
    for what, where, size in chains:
        kept, before = False, -1
        for i in map(int, np.flatnonzero(where)):
            first = int(c["first"][i])
            if bool(first) == kept:
                state = "kept" if kept else "left nothing of"
                raise _illegal(
                    fields, i, f"first is {first}, and the {what} before it {state} its accumulators; it must be "
                    f"{int(not kept)}", first, int(not kept),
                )  # fmt: skip
            if kept:
                mine, other = ([int(c[n][k]) for n in size] for k in (i, before))
                if mine != other:
                    raise _illegal(
                        fields, i, f"{', '.join(size)} are {mine}, and the accumulators kept are of {other}; continue "
                        "the same tile", mine[-1], other[-1],
                    )  # fmt: skip
            kept, before = not c["last"][i], i
        if kept:
            raise _illegal(
                fields, before, f"last is 0, and no {what} takes up its accumulators; it must be 1", 0, 1
            )


def _check_banks(fields: NDArray[np.int64], arch: Arch) -> None:
    """Pixels that the array reads or writes in one cycle lie in different banks."""
    names = (
        "a_base a_pitch a_rows a_row0 d_base d_pitch d_rows d_row0 out_h out_w in_h in_w sy sx dy dx pad_top pad_left kh kw "
        "ways drain_ways packed step_y step_x last"
    )
    convs = np.flatnonzero(fields[:, COLUMNS["opcode"]] == Opcode.CONV)
    numbers = fields[convs][:, [COLUMNS[n] for n in names.split()]]
    rows, repeats = np.unique(numbers, axis=0, return_index=True)
    for values, at in zip(rows.tolist(), repeats, strict=True):
        one, other, bank, what = _conflict(arch.conv.pixels, arch.conv.drain, arch.banks, *values)
        if bank >= 0:
            i = int(convs[at])
            side, lever = ("source", "ways") if what == 0 else ("destination", "drain_ways")
            raise _illegal(
                fields, i, f"output pixels {one} and {other} want bank {bank} of the {side} in one cycle; set {lever} "
                "higher, or another pitch", one, other,
            )  # fmt: skip


@numba.njit(cache=True)
def _conflict(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    pixels, drain, banks, a_base, a_pitch, a_rows, a_row0, d_base, d_pitch, d_rows, d_row0, out_h, out_w, in_h, in_w, sy,
    sx, dy, dx, pad_top, pad_left, kh, kw, ways, drain_ways, packed, step_y, step_x, last,
):  # fmt: skip
    """Two output pixels of a CONV that want one bank in one cycle: (one, other, bank, 0 source or 1 destination)."""
    owner = np.full(banks, -1, np.int64)
    taken = np.full(banks, -1, np.int64)
    stamp = 0
    share, out_share = -(-pixels // ways), -(-drain // drain_ways)
    lines = 1 if packed else out_h
    length = out_h * out_w if packed else out_w
    for line in range(lines):
        for start in range(0, length, pixels):
            n = min(pixels, length - start)
            for ky in range(kh):
                for kx in range(kw):
                    for lane in range(n):
                        if lane % share == 0:
                            stamp += 1
                        p = line * out_w + start + lane
                        iy = p // out_w * sy + ky * dy - pad_top
                        ix = p % out_w * sx + kx * dx - pad_left
                        if not (0 <= iy < in_h and 0 <= ix < in_w):
                            continue
                        bank = (a_base + (a_row0 + iy) % a_rows * a_pitch + ix) % banks
                        if taken[bank] == stamp:
                            return owner[bank], p, bank, 0
                        taken[bank], owner[bank] = stamp, p
            if not last:
                continue
            for lane in range(n):
                if lane % drain == 0 or lane % drain % out_share == 0:
                    stamp += 1
                p = line * out_w + start + lane
                row = (d_row0 + p // out_w * step_y) % d_rows
                bank = (d_base + row * d_pitch + p % out_w * step_x) % banks
                if taken[bank] == stamp:
                    return owner[bank], p, bank, 1
                taken[bank], owner[bank] = stamp, p
    return -1, -1, -1, 0
