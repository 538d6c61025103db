"""Expressions of constraints: read, checked and walked; nothing is ever executed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tilewright.explore_expression import parse
from tilewright.ir.errors import ArchError

NAMES = {"dsp", "clock_mhz", "conv.pixels", "board.dsp", "mode"}
HERE = {"dsp": 742, "clock_mhz": 300.0, "conv.pixels": 8, "board.dsp": 1248, "mode": "f32"}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("dsp <= 0.8 * board.dsp", True),
        ("200 <= clock_mhz <= 300", True),
        ("200 <= clock_mhz < 300", False),
        ("conv.pixels in (4, 8) and not mode == 'shift'", True),
        ("max(dsp, 800) // conv.pixels % 7", 2),
        ("-2 ** 2 if mode != 'f32' else log2(conv.pixels)", 3.0),
        ("dsp > 1000 or clock_mhz == 300", True),
    ],
)
def test_an_expression_means_what_python_means(text: str, want: object) -> None:
    assert parse(text, NAMES).value(HERE) == want


numbers = st.integers(-20, 20).map(str) | st.sampled_from(["dsp", "conv.pixels"])
terms = st.recursive(
    numbers,
    lambda t: st.tuples(t, st.sampled_from(["+", "-", "*"]), t).map(lambda p: f"({' '.join(p)})"),
    max_leaves=8,
)


@given(st.tuples(terms, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), terms).map(" ".join))
def test_random_arithmetic_agrees_with_python(text: str) -> None:
    plain = text.replace("conv.pixels", "8").replace("dsp", "742")
    assert parse(text, NAMES).value(HERE) == eval(plain)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dsp <= sixty", r"column 8, `sixty`: no quantity of this name; there are board.dsp"),
        ("dps <= 60", "did you mean dsp"),
        ("__import__('os').system('true')", "column 1"),
        ("().__class__.__mro__", "only names with dots between"),
        ("[x for x in (1,)]", "not allowed"),
        ("lambda: 1", "not allowed"),
        ("(dsp := 4)", "not allowed"),
        ("f'{dsp}'", "not allowed"),
        ("dsp[0]", "not allowed"),
        ("open('x')", "only these functions are known: abs"),
        ("max()", "takes values"),
        ("max(*dsp)", "takes values"),
        ("max(dsp, key=dsp)", "only these functions"),
        ("dsp @ dsp", "only \\+ - \\* / // % \\*\\*"),
        ("dsp is 4", "only < <= > >= == != in"),
        ("~dsp", "only - and not"),
        ("dsp <=", "not an expression"),
        ("1j", "only numbers"),
        ("dsp == 1 " + "+ 1" * 400, "at most 1000"),
        ("-" * 60 + "dsp", "nested deeper than 40"),
        ("", "not an expression"),
    ],
)
def test_everything_else_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ArchError, match=message):
        parse(text, NAMES, where="constraints.require[0]")


@pytest.mark.parametrize(
    "text", ["dsp / 0 > 1", "dsp ** 99 > 1", "mode * 3 == 1", "mode < 4", "log2(-1) > 0"]
)
def test_what_has_no_value_says_so_with_the_numbers(text: str) -> None:
    expression = parse(text, NAMES)
    with pytest.raises(ArchError, match="has no value with"):
        expression.value(HERE)
