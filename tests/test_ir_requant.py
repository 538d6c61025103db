"""Requantisation in whole numbers: each mode against exact rational arithmetic, ties and extremes included."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright.ir.errors import ModelError
from tilewright.ir.requant import (
    MODES,
    RoundingMode,
    encode_pair,
    encode_scale,
    requantise,
    round_shift,
    scale_value,
)

SETTINGS = settings(max_examples=300, deadline=None, derandomize=True)
accumulators = st.integers(-(2**31), 2**31 - 1) | st.integers(-600, 600)
shifts = st.integers(0, 40)
multipliers = st.floats(2**-30, 1.0, width=32, exclude_min=True) | st.integers(0, 30).map(lambda s: 2.0**-s)
zero_points = st.integers(-128, 127)


def half_even(x: Fraction) -> int:
    return round(x)  # Fraction rounds half to even


def half_up(x: Fraction) -> int:
    return floor(x + Fraction(1, 2))


def single(x: Fraction) -> Fraction:
    """The nearest IEEE single, in exact arithmetic: 24 significant bits, ties to even."""
    if x == 0:
        return x
    exponent = 0
    while abs(x) >= 2 ** (24 + exponent):
        exponent += 1
    while abs(x) < Fraction(2) ** (23 + exponent):
        exponent -= 1
    return half_even(x / Fraction(2) ** exponent) * Fraction(2) ** exponent


def clamp(y: int, zero_point: int, low: int, high: int) -> int:
    return min(max(y + zero_point, low), high)


@SETTINGS
@given(accumulators, multipliers, zero_points)
def test_f32_is_two_roundings_to_single_and_one_to_integer(acc: int, m: float, zero_point: int) -> None:
    """Twin in rational numbers: the accumulator to 24 bits, the product to 24 bits, then half to even."""
    word = encode_scale(m, "f32")
    exact = half_even(single(single(Fraction(acc)) * Fraction(float(np.float32(m)))))
    got = requantise(np.array([acc]), word, "f32", zero_point=zero_point, low=-128, high=127)
    assert got[0] == clamp(exact, zero_point, -128, 127)


@SETTINGS
@given(accumulators, multipliers, zero_points)
def test_fix16_rounds_the_exact_product_half_to_even(acc: int, m: float, zero_point: int) -> None:
    word = int(encode_scale(m, "fix16"))
    exact = half_even(Fraction(acc * (word & 0xFFFF), 1 << (word >> 16)))
    got = requantise(np.array([acc]), np.uint32(word), "fix16", zero_point=zero_point, low=-128, high=127)
    assert got[0] == clamp(exact, zero_point, -128, 127)


@SETTINGS
@given(accumulators, st.integers(0, 31), zero_points)
def test_shift_rounds_half_up(acc: int, shift: int, zero_point: int) -> None:
    got = requantise(np.array([acc]), np.uint32(shift), "shift", zero_point=zero_point, low=-128, high=127)
    assert got[0] == clamp(half_up(Fraction(acc, 1 << shift)), zero_point, -128, 127)


@SETTINGS
@given(st.integers(-(2**45), 2**45), shifts)
def test_round_shift_is_exact_in_both_ties(value: int, shift: int) -> None:
    v = np.array([value])
    assert round_shift(v, shift, half_even=True)[0] == half_even(Fraction(value, 1 << shift))
    assert round_shift(v, shift, half_even=False)[0] == half_up(Fraction(value, 1 << shift))


@SETTINGS
@given(multipliers, st.sampled_from(MODES))
def test_an_encoded_scale_is_close_to_the_real_one(m: float, mode: RoundingMode) -> None:
    """f32 exactly, fix16 within 2^-16 of it, shift within a factor sqrt(2)."""
    value = float(scale_value(encode_scale(m, mode), mode))
    ratio = value / float(np.float32(m))
    low, high = {"f32": (1, 1), "fix16": (1 - 2**-16, 1 + 2**-16), "shift": (2**-0.51, 2**0.51)}[mode]
    assert low <= ratio <= high


@pytest.mark.parametrize("mode", MODES)
def test_the_clamp_comes_after_the_zero_point(mode: RoundingMode) -> None:
    """A ReLU with zero point z clamps at z, and no value leaves low..high."""
    acc = np.arange(-4000, 4000)
    y = requantise(acc, encode_scale(0.25, mode), mode, zero_point=-20, low=-20, high=60)
    assert y.min() == -20
    assert y.max() == 60
    assert np.all(np.diff(y.astype(int)) >= 0)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("mode", MODES)
def test_a_scale_that_is_no_positive_number_is_refused(bad: float, mode: RoundingMode) -> None:
    with pytest.raises(ModelError, match="not a positive finite number"):
        encode_scale([0.5, bad], mode)


def test_a_scale_beyond_the_mode_is_refused() -> None:
    with pytest.raises(ModelError, match=r"above 2\^16"):
        encode_scale(2.0**17, "fix16")
    with pytest.raises(ModelError, match="needs a left shift"):
        encode_scale(3.0, "shift")


def test_a_tiny_scale_rounds_everything_to_zero() -> None:
    """Shifts stop where every accumulator is gone already."""
    for mode in ("fix16", "f32"):
        acc = np.array([-(2**31), 2**31 - 1])
        assert requantise(
            acc, encode_scale(1e-30, mode), mode, zero_point=0, low=-128, high=127
        ).tolist() == [0, 0]


@SETTINGS
@given(*[st.floats(2**-12, 4.0).flatmap(lambda r: st.sampled_from((r, -r)))] * 2, st.sampled_from(MODES))
def test_an_encoded_pair_keeps_both_ratios(a: float, b: float, mode: RoundingMode) -> None:
    """Within half a unit of the larger one's last place; powers of two in mode shift; and within the ISA's 25 bits."""
    ma, mb, shift = encode_pair(a, b, mode)
    assert max(abs(ma), abs(mb)) < 1 << 24
    assert 0 <= shift < 64
    if mode == "shift":
        assert all(m == 0 or abs(m) & (abs(m) - 1) == 0 for m in (ma, mb))
        assert 2**-0.51 <= ma / 2**shift / a <= 2**0.51
        return
    step = max(abs(a), abs(b)) * 2.0 ** -{"f32": 22, "fix16": 15}[mode]
    assert abs(ma / 2**shift - a) <= step
    assert abs(mb / 2**shift - b) <= step


@pytest.mark.parametrize("pair", [(0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_a_pair_without_a_size_is_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(ModelError, match="not finite and non-zero"):
        encode_pair(*pair, "f32")
