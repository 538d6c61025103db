"""Dispatch: what is no instruction, or waits for what does not come, is found before anything behind it runs."""

from __future__ import annotations

import pytest
from control_bench import ARCHES, Step, random_program, run_control
from tilewright.ir.arch import Arch
from tilewright.ir.isa import Opcode, VecOp, encode, instruction
from tilewright.rtl.faults import Cause


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        (7, Cause.OPCODE),
        (Opcode.CONV | 1 << 4, Cause.FUNCTION),
        (Opcode.VEC | 7 << 4, Cause.FUNCTION),
        (Opcode.FILL | 4 << 4, Cause.FUNCTION),
        (Opcode.END | 1 << 4, Cause.FUNCTION),
        (Opcode.DWC, Cause.NO_DEPTHWISE),
    ],
)
def test_a_word_that_is_no_instruction_is_not_dispatched(word: int, cause: Cause) -> None:
    arch = ARCHES["short queues, two groups, no depthwise engine"]
    good = random_program(arch, 1, 2)
    program = [*good, Step({}, Opcode.END, 3, 3, word), *good]
    seen = run_control(arch, program, [0] * 5, 60)
    assert seen.fault == (cause, 2)
    assert [x[0] >= 0 for x in seen.times] == [True, True, False, False, False]


def test_a_wait_for_what_was_not_dispatched_is_a_fault() -> None:
    """The second CONV waits for a token of VEC that only an instruction behind it would give."""
    words = [
        encode(instruction(Opcode.VEC, VecOp.TABLE, d_group=1)[None]),
        encode(instruction(Opcode.CONV, wait_vec=1)[None]),
        encode(instruction(Opcode.CONV, wait_vec=2)[None]),
        encode(instruction(Opcode.VEC, VecOp.TABLE, d_group=1)[None]),
    ]
    kinds = [Opcode.VEC, Opcode.CONV, Opcode.CONV, Opcode.VEC]
    program = [Step({}, op, 3, 3, int.from_bytes(w, "little")) for op, w in zip(kinds, words, strict=True)]
    seen = run_control(Arch(), program, [0, 0, 0, 9], 60)
    assert seen.fault == (Cause.WAIT, 2)
    assert seen.times[2][1] < 0
    assert seen.times[3][0] < 0


def test_a_program_without_end_is_a_fault() -> None:
    """The padding of the last group is never taken for END."""
    program = [*random_program(Arch(), 3, 3), Step({}, Opcode.END, 3, 3, 0)]
    assert run_control(Arch(), program, [0] * 4, 60, words=3).fault == (Cause.NO_END, 3)
    assert run_control(Arch(), program, [0] * 4, 60, words=4).fault == (0, 0)
    assert run_control(Arch(), program, [0] * 4, 20, words=0).fault == (Cause.NO_END, 0)
