"""Instruction words: every value that fits comes back, every value that does not is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright.ir.errors import InvariantError, ProgramError
from tilewright.ir.isa import (
    COLUMNS,
    ENGINE_OF,
    FORMATS,
    WORD_BYTES,
    Engine,
    Memory,
    Opcode,
    Program,
    VecOp,
    decode,
    encode,
    instruction,
    render,
)


@st.composite
def instructions(draw: st.DrawFn) -> np.ndarray:
    """A row of any format with any values that its fields hold, often the extremes."""
    (opcode, func), fields = draw(st.sampled_from(list(FORMATS.items())))
    values = {
        f.name: draw(st.sampled_from((f.low, f.high, 0, 1 if f.high else 0)) | st.integers(f.low, f.high))
        for f in fields
        if f.name not in ("opcode", "func")
    }
    memory = draw(st.sampled_from(list(Memory))) if opcode == Opcode.FILL else 0
    return instruction(opcode, memory if func is None else func, **values)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(instructions(), max_size=5))
def test_encoding_and_decoding_give_back_the_same_rows(rows: list[np.ndarray]) -> None:
    fields = np.array(rows, np.int64).reshape(len(rows), len(COLUMNS))
    words = encode(fields)
    assert len(words) == WORD_BYTES * len(rows)
    np.testing.assert_array_equal(decode(words), fields)


@pytest.mark.parametrize(
    ("key", "fields"), list(FORMATS.items()), ids=lambda v: str(v[0]) if isinstance(v, tuple) else ""
)
def test_every_format_fits_its_word_and_names_no_field_twice(key: object, fields: tuple) -> None:
    assert sum(f.bits for f in fields) <= 8 * WORD_BYTES
    names = [f.name for f in fields]
    assert len(names) == len(set(names))
    assert all(f.meaning for f in fields)


def test_each_field_has_bits_of_its_own() -> None:
    """Setting one field to its largest value changes exactly its number of bits."""
    for (opcode, func), fields in FORMATS.items():
        empty = int.from_bytes(encode(instruction(opcode, func or 0)[None]), "little")
        taken = 0
        for f in fields[2:]:
            row = instruction(opcode, func or 0, **{f.name: -1 if f.signed else f.high})
            bits = int.from_bytes(encode(row[None]), "little") ^ empty
            assert bits.bit_count() == f.bits, f.name
            assert not bits & taken, f.name
            taken |= bits


def test_a_value_too_wide_names_the_field_and_its_limits() -> None:
    with pytest.raises(
        ProgramError, match=r"CONV.kh = 99999 does not fit \d+ bits \(0\.\.\d+\): kernel rows"
    ):
        instruction(Opcode.CONV, kh=99999)
    with pytest.raises(ProgramError, match=r"CONV.za = -129 does not fit 8 bits \(-128\.\.127\)"):
        instruction(Opcode.CONV, za=-129)


def test_a_field_of_another_format_is_refused() -> None:
    with pytest.raises(ProgramError, match="SAVE has no field 'kh'"):
        instruction(Opcode.SAVE, kh=3)


@pytest.mark.parametrize(
    ("opcode", "func"), [(15, 0), (int(Opcode.VEC), 15), (int(Opcode.FILL), 4), (int(Opcode.CONV), 1)]
)
def test_an_unknown_opcode_is_refused(opcode: int, func: int) -> None:
    word = (opcode | func << 4).to_bytes(WORD_BYTES, "little")
    with pytest.raises(ProgramError, match=f"no instruction has opcode {opcode} with function {func}"):
        decode(word)


def test_bits_beyond_the_fields_are_refused() -> None:
    word = bytearray(encode(instruction(Opcode.END)[None]))
    word[-1] = 0x80
    with pytest.raises(ProgramError, match="instruction 1: bits beyond the fields"):
        decode(encode(instruction(Opcode.END)[None]) + bytes(word))


def test_a_part_of_a_word_is_refused() -> None:
    with pytest.raises(ProgramError, match="whole 64-byte words; 65 bytes are not"):
        decode(bytes(65))


def test_encoding_a_row_that_skipped_the_checks_is_our_bug() -> None:
    row = instruction(Opcode.CONV)
    row[COLUMNS["kh"]] = 1 << 20
    with pytest.raises(InvariantError, match="kh = 1048576"):
        encode(row[None])


def program() -> Program:
    """An instruction of every kind, with a few fields each."""
    rows = [
        instruction(
            Opcode.LOAD,
            d_group=1,
            d_pitch=8,
            d_rows=4,
            region=2,
            address=4096,
            run_bytes=512,
            width=8,
            take=16,
        ),
        instruction(
            Opcode.FILL, Memory.WEIGHTS, run_bytes=1024, m_base=7, records=2, record_rows=2, tail_take=3
        ),
        instruction(Opcode.FILL, Memory.VECTOR, region=1, run_bytes=8),
        instruction(
            Opcode.CONV, wait_load=2, kh=3, kw=3, za=-128, zd=5, lo=-128, hi=127, out_c=24, first=1, last=1
        ),
        instruction(Opcode.DWC, wait_load=1, wait_conv=1, kh=5, kw=5, sy=2, sx=2),
        *(instruction(Opcode.VEC, op, wait_dwc=1, d_group=2, out_h=7, out_w=7) for op in VecOp),
        instruction(Opcode.SAVE, wait_vec=7, a_group=2, region=2, run_bytes=49),
        instruction(Opcode.END),
    ]
    n = len(rows)
    return Program(
        np.array(rows), np.arange(64, dtype=np.uint8), 8192, "0123456789abcdef", np.arange(n, dtype=np.int32),
        np.zeros(n, np.int8),
    )  # fmt: skip


def test_a_program_prints_as_the_golden_text(golden: Callable[[str, str], None]) -> None:
    golden("isa.txt", str(program()) + "\n")


def test_a_rendered_instruction_shows_all_that_is_not_zero() -> None:
    row = instruction(Opcode.VEC, VecOp.ADD, wait_conv=3, ma=-5, shift=2)
    assert render(row).split() == ["vec.add", "[conv>=3]", "ma=-5", "shift=2"]


def test_every_instruction_but_end_has_an_engine() -> None:
    engine = program().engine
    assert engine[-1] == -1
    assert list(engine[:5]) == [Engine.LOAD, Engine.LOAD, Engine.LOAD, Engine.CONV, Engine.DWC]
    assert set(ENGINE_OF) == set(Opcode) - {Opcode.END}


def test_a_program_file_gives_back_the_program() -> None:
    one = program()
    other = Program.load(one.save())
    for name in ("fields", "weights", "layer", "traffic"):
        np.testing.assert_array_equal(getattr(other, name), getattr(one, name))
    assert (other.maps_bytes, other.design, other.words) == (one.maps_bytes, one.design, one.words)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not a Tilewright program"),
        (b"ELF" * 40, "not a Tilewright program"),
        (program().save()[:-1], "cut off or damaged"),
    ],
    ids=["empty", "something else", "cut off"],
)
def test_a_file_that_is_no_program_is_refused(data: bytes, match: str) -> None:
    with pytest.raises(ProgramError, match=match):
        Program.load(data)
