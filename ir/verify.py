"""What a legal program is: its fields obey `rules`, then come addresses, tokens, chains, banks and races.

The first violation becomes a `ProgramError` with the instruction's index and text, both numbers, and what would help.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from .accesses import BOX, MAPS, boxes
from .arch import Arch
from .errors import ProgramError
from .hazards import find_races, wait_counts
from .isa import COLUMNS, Engine, Opcode, Program, Region, VecOp, render
from .rules import RULES

__all__ = ["check_ranges", "verify"]


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
    for box in table[resize[table[:, 0]] & (table[:, BOX["memory"]] == MAPS) & (table[:, BOX["write"]] == 0)]:
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
def _conflict(  # type: ignore[no-untyped-def]
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
