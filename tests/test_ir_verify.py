"""A legal program passes; each way to break it is named with its instruction, both numbers, and what would help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ProgramError
from tilewright.ir.hazards import assign_waits
from tilewright.ir.isa import COLUMNS, Memory, Opcode, Program, Region, VecOp, instruction
from tilewright.ir.rules import RULES
from tilewright.ir.verify import verify

ARCH = Arch.model_validate(
    {
        "name": "judge",
        "conv": {"pixels": 4, "ic": 8, "oc": 8, "drain": 2},
        "dwc": {"pixels": 4, "channels": 8, "drain": 1},
        "vec": {"pixels": 1, "sums": 2},
        "maps": {"kib": 8, "groups": 4},
        "rounding": ["f32", "shift"],
    }
)
(
    LOAD,
    WEIGHTS,
    TAPS,
    TABLES,
    VECTOR,
    PART,
    CONV,
    DWC,
    ADD,
    MUL,
    MAX,
    AVG,
    LATER,
    COPY,
    PRELU,
    RESIZE,
    SAVE,
    END,
) = range(18)
"""Instructions of the program below, by place."""


def place(prefix: str, group: int, base: int = 0) -> dict[str, int]:
    """A 4 x 4 map of one block."""
    names = {"group": group, "base": base, "pitch": 4, "plane": 16, "rows": 4, "row0": 0}
    return {f"{prefix}_{k}": v for k, v in names.items()}


def legal(arch: Arch = ARCH) -> Program:
    """One instruction of every kind."""
    a, b, d = place("a", 0), place("b", 0, 16), place("d", 1)
    size = {"out_h": 4, "out_w": 4, "blocks": 1}
    window = {
        "in_h": 4,
        "in_w": 4,
        "sy": 1,
        "sx": 1,
        "dy": 1,
        "dx": 1,
        "kh": 3,
        "kw": 3,
        "pad_top": 1,
        "pad_left": 1,
    }
    range_ = {"lo": -128, "hi": 127}
    array = {"out_c": 8, "ways": 1, "drain_ways": 1, "first": 1, "last": 1, "step_y": 1, "step_x": 1}
    stream = {"region": Region.MAPS, "run_bytes": 64, "runs1": 4, "stride1": 64, "runs2": 1, "width": 4, "height": 4,
              "blocks": 2, "take": 8}  # fmt: skip
    pool = {
        **size,
        "out_h": 1,
        "out_w": 1,
        "in_h": 2,
        "in_w": 4,
        "sy": 1,
        "sx": 1,
        "dy": 1,
        "dx": 1,
        "kh": 2,
        "kw": 4,
    }
    rows = [
        instruction(Opcode.LOAD, **place("d", 0), **stream, step=8, fold=1, row_bytes=32),
        instruction(
            Opcode.FILL, Memory.WEIGHTS, region=1, run_bytes=8 * 80, records=1, record_rows=10, tail_take=8
        ),
        instruction(
            Opcode.FILL, Memory.DEPTHWISE, region=1, run_bytes=8 * 17, records=1, record_rows=6, tail_take=3
        ),
        instruction(Opcode.FILL, Memory.TABLES, region=1, run_bytes=512, records=2),
        instruction(Opcode.FILL, Memory.VECTOR, region=1, address=640, run_bytes=64),
        instruction(
            Opcode.CONV, **a, **d, **{**size, "out_h": 1}, **window, **range_, **{**array, "last": 0}
        ),
        instruction(
            Opcode.CONV,
            **a,
            **d,
            **{**size, "out_h": 1},
            **window,
            **range_,
            **{**array, "first": 0},
            table=2,
        ),
        instruction(Opcode.DWC, **a, **d, **size, **window, **range_),
        instruction(Opcode.VEC, VecOp.ADD, **a, **b, **d, **size, **range_, ma=1, mb=1),
        instruction(Opcode.VEC, VecOp.MUL, **a, **b, **d, **size, **range_, broadcast=1),
        instruction(Opcode.VEC, VecOp.MAX, **a, **d, **size, **window, **range_, first=1, last=1),
        instruction(Opcode.VEC, VecOp.AVG, **a, **d, **pool, **range_, first=1),
        instruction(Opcode.VEC, VecOp.AVG, **{**a, "a_row0": 2}, **d, **pool, **range_, last=1),
        instruction(Opcode.VEC, VecOp.TABLE, **a, **d, **size, sy=1, sx=1, table=1),
        instruction(Opcode.VEC, VecOp.PRELU, **a, **d, **size, **range_),
        instruction(
            Opcode.VEC,
            VecOp.RESIZE,
            **a,
            **d,
            **size,
            **range_,
            in_h=4,
            in_w=4,
            v_base=0,
            v_cols=4,
            bilinear=1,
        ),
        instruction(Opcode.SAVE, **{**place("a", 1)}, **{**stream, "blocks": 1, "runs1": 2, "address": 256}),
        instruction(Opcode.END),
    ]
    weights = np.zeros(704, np.uint8)
    index = np.array([0, 1, 2, 3 | 7 << 16, 0, 1, 3, 2], "<u4")
    weights[640 : 640 + 4 * len(index)] = index.view(np.uint8)
    return program(np.array(rows), weights, arch)


def program(rows: np.ndarray, weights: np.ndarray, arch: Arch = ARCH) -> Program:
    n = len(rows)
    fields = assign_waits(rows, arch, weights)
    return Program(fields, weights, 512, arch.design_hash, np.zeros(n, np.int32), np.zeros(n, np.int8))


def changed(i: int, **values: int) -> Program:
    """The legal program with fields of one instruction changed."""
    one = legal()
    for name, value in values.items():
        one.fields[i, COLUMNS[name]] = value
    return one


def test_the_legal_program_passes() -> None:
    """It has every opcode and every VEC function."""
    one = legal()
    verify(one, ARCH)
    assert set(one.fields[:, 0]) == set(Opcode)
    assert set(one.fields[one.fields[:, 0] == Opcode.VEC, COLUMNS["func"]]) == set(VecOp)


BROKEN = {
    "group": (CONV, {"d_group": 4}, "d_group is 4, at most is 3; use a lower group"),
    "ring without rows": (DWC, {"a_rows": 0}, "a_rows is 0, at least is 1"),
    "row beyond the ring": (SAVE, {"a_row0": 4}, "a_row0 is 4, at most is 3; .*modulo"),
    "second source": (ADD, {"b_group": 7}, "b_group is 7, at most is 3"),
    "empty output": (MUL, {"out_w": 0}, "out_w is 0, at least is 1"),
    "no blocks": (COPY, {"blocks": 0}, "blocks is 0, at least is 1"),
    "no kernel": (MAX, {"kh": 0}, "kh is 0, at least is 1"),
    "no stride": (COPY, {"sx": 0}, "sx is 0, at least is 1"),
    "no dilation": (DWC, {"dy": 0}, "dy is 0, at least is 1"),
    "no ways": (CONV, {"ways": 0}, "ways is 0, at least is 1"),
    "no step": (CONV, {"step_x": 0}, "step_x is 0, at least is 1"),
    "lane": (CONV, {"lane0": 8}, "lane0 is 8, at most is 7"),
    "table": (CONV, {"table": 5}, "table is 5, at most is 4; use a lower table"),
    "empty clamp": (AVG, {"lo": 3, "hi": 2}, "lo is 3, at most is 2; the clamp is empty"),
    "mode not built": (CONV, {"mode": 1}, "requantisers of the mode is 0, at least is 1"),
    "mode unknown": (ADD, {"mode": 3}, "requantisers of the mode is 0"),
    "take": (LOAD, {"take": 9}, "take is 9, at most is 8"),
    "load stream": (LOAD, {"row_bytes": 31}, "bytes that the rows take is 248, it must be 256"),
    "save stream": (SAVE, {"runs1": 1}, "bytes that the rows give is 128, it must be 64"),
    "more rows than the ring": (ADD, {"out_h": 5}, "d_rows is 4, at least is 5; .*overwrite the first"),
    "rows of a load": (LOAD, {"d_pitch": 3}, "d_pitch is 3, at least is 4; rows would overwrite each other"),
    "stepped columns": (DWC, {"out_w": 5}, "d_pitch is 4, at least is 5"),
    "save region": (SAVE, {"region": 1}, "region is 1, it must be 2"),
    "load region": (LOAD, {"region": 3}, "region is 3, at most is 2"),
    "weight bytes": (WEIGHTS, {"run_bytes": 641}, "run_bytes is 641, it must be 640"),
    "tap bytes": (TAPS, {"tail_take": 2}, "run_bytes is 136, it must be 128"),
    "table bytes": (TABLES, {"records": 1}, "run_bytes is 512, it must be 256"),
    "vector bytes": (VECTOR, {"run_bytes": 62}, "run_bytes modulo 4 is 2, it must be 0"),
    "record": (WEIGHTS, {"record_rows": 1, "run_bytes": 64}, "record_rows is 1, at least is 2"),
    "weight tail": (WEIGHTS, {"tail_take": 9, "run_bytes": 648}, "tail_take is 9, at most is 8"),
    "chain of many pixels": (PART, {"out_h": 2}, "pixels is 8, at most is 4"),
    "chain of many channels": (PART, {"out_c": 9}, "out_c is 9, at most is 8"),
    "sums of many pixels": (AVG, {"out_w": 2}, "pixels is 2, at most is 1"),
    "sums of many blocks": (AVG, {"blocks": 3}, "blocks is 3, at most is 2; .*vec.sums"),
    "sums counted": (LATER, {"counted": 1}, "counted is 1, it must be 0"),
    "chain without a beginning": (PART, {"first": 0}, "first is 0, and the CONV before it left nothing"),
    "chain cut": (CONV, {"first": 1}, "first is 1, and the CONV before it kept"),
    "chain of another size": (CONV, {"out_w": 3}, r"out_h, out_w, out_c are \[1, 3, 8\].*kept are of \[1, 4, 8\]"),
    "chain without an end": (CONV, {"last": 0}, "last is 0, and no CONV takes up"),
    "sums without an end": (LATER, {"last": 0}, "last is 0, and no pooling takes up"),
    "origin": (RESIZE, {"origin": 4}, "origin is 4, at most is 3"),
    "resize above the source": (RESIZE, {"origin": 1}, "first source row, .*, is -1"),
    "resize below the source": (RESIZE, {"a_rows": 3}, "last source row, .*, is 3, the source has <= 2"),
    "resize beside the source": (RESIZE, {"in_w": 3}, "last source column, .*, is 3, the source has <= 2"),
    "maps region": (SAVE, {"address": 400}, r"its last byte is 527 of the DRAM maps region, which has 512"),
    "weights region": (VECTOR, {"address": 644}, r"its last byte is 707 of the DRAM weights region, which has 704"),
    "map word": (CONV, {"d_base": 253}, "writes up to word 512 of maps, and the map groups .* end at word 512"),
    "weight word": (CONV, {"w_base": 8183}, "reads up to word 8192 of weights, which has 8192"),
    "vector word": (PRELU, {"v_base": 2041}, "reads up to word 2048 of vector, which has 2048"),
    "token to come": (CONV, {"wait_vec": 1}, "waits for token 1 of VEC, 0 instructions of which stand earlier"),
    "window over itself": (DWC, {"d_group": 0, "wait_conv": 2}, "it writes word 0 of maps, which it reads as a window"),
    "race": (PART, {"wait_load": 0}, r"race with instruction 0 \(load .*word 0 of maps: it waits for 0 tokens of LOAD, .* wait for 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_program_is_named(name: str) -> None:
    """The message begins with the instruction and its text."""
    i, values, message = BROKEN[name]
    with pytest.raises(ProgramError, match=message) as error:
        verify(changed(i, **values), ARCH)
    assert str(error.value).startswith(f"instruction {i} (")
    assert error.value.facts["instruction"] == i


def test_every_rule_can_be_broken() -> None:
    """No rule is idle: for each there is a field value that it refuses."""
    columns = {name: legal().fields[:, at].copy() for name, at in COLUMNS.items()}
    extremes = (-(1 << 20), 1 << 20, 0, 1)
    for rule in RULES:
        broken = False
        for name, value in ((n, v) for n in columns for v in extremes if n not in ("opcode",)):
            trial = {**columns, name: np.full_like(columns[name], value)}
            try:
                broken = broken or rule.broken(trial, ARCH) is not None
            except IndexError:  # a mode that no table has
                continue
        if rule.what == "depthwise engines needed":
            bare = ARCH.override({"dwc.pixels": 0, "dwc.channels": 0})
            broken = rule.broken(columns, bare) is not None
        assert broken, rule.what


def test_a_machine_without_the_depthwise_engine_refuses_it() -> None:
    bare = ARCH.override({"dwc.pixels": 0, "dwc.channels": 0})
    with pytest.raises(
        ProgramError, match=r"instruction 7 \(dwc .*depthwise engines needed is 1, at most is 0"
    ):
        verify(replace(legal(), design=bare.design_hash), bare)


def test_a_program_for_another_machine_is_refused() -> None:
    other = ARCH.override({"conv.drain": 1})
    with pytest.raises(
        ProgramError,
        match=f"program is for design {ARCH.design_hash}, the machine judge\\+ is {other.design_hash}",
    ):
        verify(legal(), other)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f[:-1], r"program of 17 instructions has END at \[\]; it stands once, as the last: at 16"),
        (lambda f: np.concatenate([f, f[-1:]]), r"END at \[17, 18\]"),
        (lambda f: f[[END, *range(END)]], r"END at \[0\]"),
        (lambda f: f[:0], r"program of 0 instructions"),
    ],
    ids=["missing", "twice", "first", "empty"],
)
def test_end_stands_once_and_last(edit: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    one = legal()
    with pytest.raises(ProgramError, match=message):
        verify(replace(one, fields=edit(one.fields)), ARCH)


def test_an_elementwise_instruction_may_work_in_place_and_nowhere_near() -> None:
    """Exactly in place it reads each word before it writes it; one column aside it would read its own results."""
    one = legal()
    rows = one.fields[[LOAD, COPY, END]].copy()
    rows[1, COLUMNS["d_group"]] = rows[1, COLUMNS["table"]] = 0
    verify(program(rows, one.weights), ARCH)
    rows[1, COLUMNS["d_base"]] = 1
    with pytest.raises(
        ProgramError, match=r"instruction 1 \(vec.table .*it writes word 1 of maps, which it reads"
    ):
        verify(program(rows, one.weights), ARCH)


def conv(**values: int) -> Program:
    """One whole 1x1 convolution of a 4 x 4 map, 4 pixels in 8 banks."""
    one = legal()
    rows = one.fields[[LOAD, WEIGHTS, CONV, END]].copy()
    plain = {"out_h": 4, "kh": 1, "kw": 1, "pad_top": 0, "pad_left": 0, "first": 1, "table": 0}
    for name, value in {**plain, **values}.items():
        rows[2, COLUMNS[name]] = value
    return program(rows, one.weights)


def test_pixels_of_a_row_never_meet_in_a_bank() -> None:
    assert ARCH.banks == 8
    verify(conv(), ARCH)


def test_packed_pixels_that_meet_in_a_bank_need_turns() -> None:
    """Two columns, four rows apart by 8 words: rows share banks until pixels are read one after the other."""
    narrow = {"packed": 1, "out_w": 2, "in_w": 2, "a_pitch": 8}
    with pytest.raises(
        ProgramError, match=r"output pixels 0 and 2 want bank 0 of the source in one cycle; set ways higher"
    ):
        verify(conv(**narrow), ARCH)
    verify(conv(**narrow, ways=2), ARCH)


def test_a_stride_that_folds_banks_needs_turns() -> None:
    """Stride 4 in 8 banks: the pixels 0 and 2 meet."""
    wide = {"out_h": 1, "out_w": 4, "in_h": 1, "in_w": 16, "sx": 4, "a_pitch": 16, "a_rows": 1}
    with pytest.raises(ProgramError, match="output pixels 0 and 2 want bank 0 of the source"):
        verify(conv(**wide), ARCH)
    verify(conv(**wide, ways=2), ARCH)


def test_padding_wants_no_bank() -> None:
    """The same stride where the later pixels lie beyond the map."""
    verify(conv(out_h=1, out_w=4, in_h=1, in_w=8, sx=4, a_pitch=16, a_rows=1), ARCH)


def test_written_pixels_that_meet_in_a_bank_need_turns() -> None:
    """A drain step writes two pixels; a destination step of 8 columns puts both in one bank."""
    far = {"out_h": 1, "out_w": 4, "step_x": 8, "d_pitch": 32, "d_rows": 1}
    with pytest.raises(
        ProgramError, match=r"output pixels 0 and 1 want bank 0 of the destination .* set drain_ways higher"
    ):
        verify(conv(**far), ARCH)
    verify(conv(**far, drain_ways=2), ARCH)
