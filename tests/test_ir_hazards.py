"""Waits and races against a slow twin that enumerates words and searches a graph of starts and completions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ProgramError
from tilewright.ir.hazards import assign_waits, find_races, wait_counts
from tilewright.ir.isa import COLUMNS, Engine, Memory, Opcode, Region, VecOp, instruction

ARCH = Arch.model_validate(
    {
        "name": "twin",
        "conv": {"pixels": 2, "ic": 8, "oc": 4, "drain": 1},
        "dwc": {"pixels": 1, "channels": 8, "drain": 1},
        "maps": {"kib": 4, "groups": 2},
    }
)
LANES, OC = ARCH.lanes, ARCH.conv.oc
WAITS = [COLUMNS[f"wait_{e.name.lower()}"] for e in Engine]

Access = tuple[str, int]
GROUP = ARCH.group_words


def get(row: np.ndarray, *names: str) -> list[int]:
    return [int(row[COLUMNS[n]]) for n in names]


def words(row: np.ndarray, prefix: str, blocks: int, rows: list[int], cols: list[int]) -> set[Access]:
    group, base, pitch, plane, ring, row0 = get(
        row, *(f"{prefix}_{n}" for n in ("group", "base", "pitch", "plane", "rows", "row0"))
    )
    return {
        ("maps", GROUP * group + base + b * plane + (row0 + r) % ring * pitch + x)
        for b, r, x in product(range(blocks), rows, cols)
    }


def accesses(row: np.ndarray) -> tuple[set[Access], set[Access]]:
    """Words read and words written, straight from the meaning of the fields."""
    opcode, func = get(row, "opcode", "func")
    out_h, out_w, blocks, in_h, in_w, sy, sx, dy, dx, kh, kw, top, left = get(
        row,
        "out_h",
        "out_w",
        "blocks",
        "in_h",
        "in_w",
        "sy",
        "sx",
        "dy",
        "dx",
        "kh",
        "kw",
        "pad_top",
        "pad_left",
    )
    here, across = list(range(out_h)), list(range(out_w))
    reads: set[Access] = set()
    if opcode in (Opcode.CONV, Opcode.DWC) or (opcode == Opcode.VEC and func == VecOp.MAX):
        rows = {r * sy + k * dy - top for r in here for k in range(kh)}
        cols = {x * sx + k * dx - left for x in across for k in range(kw)}
        reads |= words(
            row, "a", blocks, [r for r in rows if 0 <= r < in_h], [x for x in cols if 0 <= x < in_w]
        )
    if opcode == Opcode.CONV:
        out_c, lane0, base, step_y, step_x = get(row, "out_c", "lane0", "w_base", "step_y", "step_x")
        n = -(-out_c // OC) * (-(-8 // LANES) + kh * kw * blocks)
        reads |= {("weights", base + i) for i in range(n)}
        targets = {(lane0 + c) // LANES for c in range(out_c)}
        return reads, words(
            row, "d", max(targets) + 1, [r * step_y for r in here], [x * step_x for x in across]
        )
    if opcode == Opcode.DWC:
        (base,) = get(row, "w_base")
        reads |= {("depthwise", base + i) for i in range(blocks * (3 + kh))}  # three taps a step
        return reads, words(row, "d", blocks, here, across)
    if opcode == Opcode.VEC:
        if func == VecOp.ADD:
            reads |= words(row, "a", blocks, here, across)
            (broadcast,) = get(row, "broadcast")
            reads |= words(row, "b", blocks, [0] if broadcast else here, [0] if broadcast else across)
        elif func == VecOp.TABLE:
            reads |= words(row, "a", blocks, [r * sy for r in here], [x * sx for x in across])
            (table,) = get(row, "table")
            reads |= {("tables", table - 1)} if table else set()
        return reads, words(row, "d", blocks, here, across)
    width, height, address, run, runs1, stride1, runs2, stride2, region = get(
        row, "width", "height", "address", "run_bytes", "runs1", "stride1", "runs2", "stride2", "region"
    )
    dram = {
        ("dram", address + j * stride2 + i * stride1 + k)
        for j, i, k in product(range(runs2), range(runs1), range(run))
        if region == Region.MAPS
    }
    if opcode == Opcode.LOAD:
        (fold,) = get(row, "fold")
        return dram, words(row, "d", blocks * fold, list(range(height)), list(range(width)))
    if opcode == Opcode.SAVE:
        return words(row, "a", blocks, list(range(height)), list(range(width))), dram
    base, records, record_rows = get(row, "m_base", "records", "record_rows")
    if func == Memory.TABLES:
        return set(), {("tables", base + i) for i in range(records)}
    name = {Memory.WEIGHTS: "weights", Memory.DEPTHWISE: "depthwise"}[Memory(func)]
    return set(), {(name, base + i) for i in range(records * record_rows)}


def races(fields: np.ndarray) -> set[tuple[int, int]]:
    """All unordered pairs. Nodes are starts and completions; what the machine orders is an edge."""
    n = len(fields)
    engine = [-1] * n
    for i, row in enumerate(fields):
        engine[i] = {1: 0, 2: 0, 3: 1, 4: 2, 5: 3, 6: 4}[int(row[COLUMNS["opcode"]])]
    of = {e: [i for i in range(n) if engine[i] == e] for e in range(5)}
    before: list[set[int]] = []  # completions that precede each start
    for i in range(n):
        known: set[int] = set()
        mine = of[engine[i]].index(i)
        if mine:
            known |= before[of[engine[i]][mine - 1]]
        for e in range(5):
            count = int(fields[i, WAITS[e]])
            for j in of[e][:count]:
                known |= {j} | before[j]
        before.append(known)
    sets = [accesses(row) for row in fields]
    found = set()
    for j in range(n):
        for i in range(j):
            if i in before[j]:
                continue
            (read_i, write_i), (read_j, write_j) = sets[i], sets[j]
            if write_i & read_j or (engine[i] != engine[j] and (write_j & read_i or write_i & write_j)):
                found.add((i, j))
    return found


small = st.integers(0, 2)


@st.composite
def operand(draw: st.DrawFn, prefix: str, groups: st.SearchStrategy[int]) -> dict[str, int]:
    rows = draw(st.integers(1, 4))
    values = {
        "group": draw(groups), "base": draw(st.integers(0, 20)), "pitch": draw(st.integers(1, 6)),
        "plane": draw(st.integers(0, 9)), "rows": rows, "row0": draw(st.integers(0, rows - 1)),
    }  # fmt: skip
    return {f"{prefix}_{k}": v for k, v in values.items()}


@st.composite
def row(draw: st.DrawFn) -> np.ndarray:
    """One instruction over a few words; source and destination are in different groups."""
    source = draw(st.integers(0, 1))
    a, d = operand("a", st.just(source)), operand("d", st.just(1 - source))
    area = {
        "out_h": draw(st.integers(1, 3)),
        "out_w": draw(st.integers(1, 4)),
        "blocks": draw(st.integers(1, 2)),
    }
    window = {
        "in_h": draw(st.integers(1, 4)), "in_w": draw(st.integers(1, 5)), "sy": draw(st.integers(1, 3)),
        "sx": draw(st.integers(1, 3)), "dy": draw(st.integers(1, 2)), "dx": draw(st.integers(1, 2)),
        "kh": draw(st.integers(1, 3)), "kw": draw(st.integers(1, 3)), "pad_top": draw(small), "pad_left": draw(small),
    }  # fmt: skip
    stream = {
        "width": area["out_w"], "height": area["out_h"], "blocks": area["blocks"], "region": draw(st.integers(1, 2)),
        "address": draw(st.integers(0, 30)), "run_bytes": draw(st.integers(1, 6)), "runs1": draw(st.integers(1, 3)),
        "stride1": draw(st.integers(0, 9)), "runs2": draw(st.integers(1, 2)), "stride2": draw(st.integers(0, 20)),
    }  # fmt: skip
    base, table = draw(st.integers(0, 12)), draw(small)
    kind = draw(st.integers(0, 8))
    if kind == 0:
        return instruction(Opcode.LOAD, **draw(d), **stream, fold=draw(st.integers(1, 2)))
    if kind == 1:
        return instruction(Opcode.SAVE, **draw(a), **{**stream, "region": Region.MAPS})
    if kind == 2:
        memory = draw(st.sampled_from((Memory.WEIGHTS, Memory.DEPTHWISE)))
        return instruction(
            Opcode.FILL, memory, region=1, m_base=base, records=draw(st.integers(1, 2)), record_rows=3
        )
    if kind == 3:
        return instruction(Opcode.FILL, Memory.TABLES, region=1, run_bytes=256, m_base=draw(small), records=1)
    if kind == 4:
        return instruction(
            Opcode.CONV, **draw(a), **draw(d), **area, **window, w_base=base, out_c=draw(st.integers(1, 9)),
            lane0=draw(st.integers(0, 7)), first=1, last=1, step_y=draw(st.integers(1, 2)), step_x=draw(st.integers(1, 2)),
        )  # fmt: skip
    if kind == 5:
        return instruction(Opcode.DWC, **draw(a), **draw(d), **area, **window, w_base=base)
    if kind == 6:
        b = operand("b", st.just(source))
        return instruction(
            Opcode.VEC, VecOp.ADD, **draw(a), **draw(b), **draw(d), **area, broadcast=draw(st.integers(0, 1))
        )
    if kind == 7:
        return instruction(Opcode.VEC, VecOp.MAX, **draw(a), **draw(d), **area, **window, first=1, last=1)
    return instruction(
        Opcode.VEC, VecOp.TABLE, **draw(a), **draw(d), **area, sy=window["sy"], sx=window["sx"], table=table
    )


programs = st.lists(row(), min_size=2, max_size=14).map(np.array)
SETTINGS = settings(max_examples=80, deadline=None, derandomize=True)


@SETTINGS
@given(programs)
def test_assigned_waits_leave_no_race(fields: np.ndarray) -> None:
    """By the twin and by the fast check; and every wait names an earlier instruction."""
    got = assign_waits(fields, ARCH)
    assert not races(got)
    assert not find_races(got, ARCH)
    counts, before = wait_counts(got)
    assert np.all(counts <= before)


@SETTINGS
@given(programs)
def test_no_assigned_wait_is_idle(fields: np.ndarray) -> None:
    """One token less, anywhere, and the twin sees a race."""
    got = assign_waits(fields, ARCH)
    for i, column in product(range(len(got)), WAITS):
        if got[i, column]:
            less = got.copy()
            less[i, column] -= 1
            assert races(less), (i, column)


@SETTINGS
@given(programs, st.data())
def test_races_are_found_where_the_twin_sees_them(fields: np.ndarray, data: st.DataObject) -> None:
    """With some waits taken away or lowered: both see a race or neither, and each that is found is one."""
    got = assign_waits(fields, ARCH)
    for i, column in np.argwhere(got[:, WAITS]):
        if data.draw(st.booleans()):
            got[i, WAITS[column]] -= data.draw(st.integers(1, int(got[i, WAITS[column]])))
    want, found = races(got), find_races(got, ARCH)
    assert bool(want) == bool(found)
    sets = [accesses(r) for r in got]
    for i, j, memory, word in found:
        assert (i, j) in want
        assert (memory, word) in (sets[i][0] | sets[i][1]) & (sets[j][0] | sets[j][1])


def test_waits_hold_in_programs_longer_than_their_counters() -> None:
    """More than 2^16 instructions on one engine: counts wrap, and no wait is further back than a counter can tell."""
    place = {"d_group": 0, "d_pitch": 1, "d_plane": 1, "d_rows": 1}
    load = instruction(
        Opcode.LOAD,
        **place,
        region=1,
        run_bytes=8,
        runs1=1,
        runs2=1,
        width=1,
        height=1,
        blocks=1,
        take=8,
        fold=1,
    )
    source = {"a_group": 0, "a_pitch": 1, "a_plane": 1, "a_rows": 1}
    copy = instruction(
        Opcode.VEC, VecOp.TABLE, **source, **{**place, "d_group": 1}, out_h=1, out_w=1, blocks=1, sy=1, sx=1
    )
    save = instruction(
        Opcode.SAVE,
        **{**source, "a_group": 1},
        region=2,
        run_bytes=8,
        runs1=1,
        runs2=1,
        width=1,
        height=1,
        blocks=1,
        take=8,
    )
    fields = np.concatenate(
        [[load], np.repeat([copy], 70_000, axis=0), [save], [load], [copy], [save], [load]]
    )
    got = assign_waits(fields, ARCH)
    assert not find_races(got, ARCH)
    counts, before = wait_counts(got)
    assert np.all(counts <= before)
    assert np.all(before - counts <= 1 << 15)
    assert got[70_001, COLUMNS["wait_vec"]] == 70_000 - (1 << 16)
    assert got[70_002, COLUMNS["wait_vec"]] == 70_000 - (1 << 16)
    got[70_002, COLUMNS["wait_vec"]] -= 1
    assert find_races(got, ARCH)


def test_rows_that_interleave_in_dram_are_no_race() -> None:
    """Bytes are compared, not bursts: two saves and a load of neighbouring strips share a burst and no byte."""
    source = {"a_group": 0, "a_pitch": 1, "a_plane": 1, "a_rows": 1}
    strip = {
        "region": 2,
        "run_bytes": 3,
        "runs1": 4,
        "stride1": 6,
        "runs2": 1,
        "width": 4,
        "height": 1,
        "blocks": 1,
        "take": 3,
    }
    save = instruction(Opcode.SAVE, **source, **strip, address=0)
    load = instruction(
        Opcode.LOAD,
        d_group=1,
        d_pitch=1,
        d_plane=1,
        d_rows=1,
        **strip,
        address=3,
        step=3,
        fold=1,
        row_bytes=12,
    )
    assert not assign_waits(np.array([save, load]), ARCH)[:, WAITS].any()
    load[COLUMNS["address"]] = 2
    assert assign_waits(np.array([save, load]), ARCH)[1, COLUMNS["wait_save"]] == 1


def test_a_resize_depends_on_the_rows_that_its_indices_name() -> None:
    """With the weights region at hand the rows are known; without, all rows of the ring count."""
    index = np.array([4, 5, 0, 1], "<u4")
    rows = [
        instruction(Opcode.FILL, Memory.VECTOR, region=1, run_bytes=16),
        *(
            instruction(
                Opcode.LOAD, d_pitch=2, d_plane=1, d_rows=8, d_row0=first, region=2, run_bytes=32, runs1=1, runs2=1, width=2,
                height=2, blocks=1, take=8, fold=1,
            )
            for first in (4, 2)
        ),
        instruction(
            Opcode.VEC, VecOp.RESIZE, d_group=1, d_pitch=2, d_plane=4, d_rows=2, a_pitch=2, a_plane=16, a_rows=8, out_h=2,
            out_w=2, blocks=1, in_h=8, in_w=2, v_base=0, v_cols=2,
        ),
    ]  # fmt: skip
    fields = np.array(rows)
    assert assign_waits(fields, ARCH, index.view(np.uint8))[3, COLUMNS["wait_load"]] == 2
    assert assign_waits(fields, ARCH)[3, COLUMNS["wait_load"]] == 3


def test_an_address_beyond_its_memory_is_named() -> None:
    fields = np.array([
        instruction(
            Opcode.DWC, a_pitch=1, a_plane=1, a_rows=1, d_base=254, d_pitch=1, d_plane=1, d_rows=1, out_h=1, out_w=3,
            blocks=1, in_h=1, in_w=3, sy=1, sx=1, dy=1, dx=1, kh=1, kw=1,
        )
    ])  # fmt: skip
    for check in (assign_waits, find_races):
        with pytest.raises(
            ProgramError,
            match=r"instruction 0 \(dwc .*\) writes up to word 256 of maps, and .* end at word 256",
        ):
            check(fields, ARCH)
