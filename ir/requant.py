"""Requantisation: an int32 accumulator becomes an int8 value, in the arithmetic the hardware has.

A real multiplier is encoded once, at compile time, into a 32-bit *scale word*; the reference, the
emulator and the RTL decode the same word. Three rounding modes:

``f32``
    The word is the IEEE single of the multiplier. ``y = rint(f32(f32(acc) * m))``: two roundings of a
    24 × 24 bit significand product, bit-exact to onnxruntime's int8 × int8 kernels.
``fix16``
    16-bit multiplier M in [2^15, 2^16), shift S: ``y = half_even(acc * M / 2^S)``.
``shift``
    S alone: ``y = floor(acc / 2^S + 1/2)``, as in the vendor's DPU (UG1414, DPU_ROUND).

The zero point is added and the range clamped after rounding, in every mode.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ModelError

__all__ = ["MODES", "RoundingMode", "encode_pair", "encode_scale", "requantise", "round_shift", "scale_value"]

RoundingMode = Literal["f32", "fix16", "shift"]
MODES: tuple[RoundingMode, ...] = get_args(RoundingMode)

_PAIR_BITS = {"f32": 23, "fix16": 16, "shift": 1}
"""Significant bits of the two multipliers of an elementwise sum (`encode_pair`)."""

_MAX_SHIFT = 63


def encode_scale(multiplier: ArrayLike, mode: RoundingMode) -> NDArray[np.uint32]:
    """Encode real multipliers as 32-bit scale words.

    Parameters
    ----------
    multiplier : array of float, any shape
        Positive and finite; ``(x_scale * w_scale) / y_scale``, already rounded to float32 by the caller
        where equality with onnxruntime matters.
    mode : {"f32", "fix16", "shift"}

    Returns
    -------
    array of uint32, same shape
        f32: the IEEE bits. fix16: ``M | S << 16``. shift: ``S``, with S in 0..31.

    Raises
    ------
    ModelError
        A multiplier is zero, negative, infinite or NaN, or outside what the mode can hold.

    >>> [hex(v) for v in encode_scale([0.5, 0.25], "f32")]
    ['0x3f000000', '0x3e800000']
    >>> int(encode_scale(0.5, "shift"))
    1
    """
    m = np.asarray(multiplier, np.float32)
    if not np.all(np.isfinite(m) & (m > 0)):
        raise ModelError(
            f"requantisation multiplier {m.ravel()[~(np.isfinite(m) & (m > 0)).ravel()][0]} is not a positive "
            "finite number; check the model's scales, or quantise it again",
            multiplier=m,
        )
    if mode == "f32":
        return m.view(np.uint32) if m.ndim else np.asarray(m).reshape(1).view(np.uint32).reshape(())
    if mode == "fix16":
        significand, exponent = np.frexp(m.astype(np.float64))  # m = significand * 2^exponent, in [.5, 1)
        mantissa = np.rint(significand * 2**16).astype(np.int64)
        carried = mantissa == 2**16
        mantissa = np.where(carried, 2**15, mantissa)
        shift = 16 - exponent - carried
        # A shift past 48 rounds every 32-bit accumulator to zero: hold it there. Below 0 is no requantiser.
        shift = np.minimum(shift, 48)
        if np.any(shift < 0):
            raise ModelError(
                f"multiplier {m.max()} is above 2^16, the most that mode fix16 holds", multiplier=m
            )
        return np.asarray(mantissa | shift << 16, np.uint32)
    shift = np.rint(-np.log2(m.astype(np.float64))).astype(np.int64)
    if np.any(shift < 0):
        raise ModelError(
            f"multiplier {m.max()} needs a left shift, which mode shift does not have; use fix16 or f32",
            multiplier=m,
        )
    return np.asarray(np.minimum(shift, 31), np.uint32)


def scale_value(word: ArrayLike, mode: RoundingMode) -> NDArray[np.float64]:
    """Real value of scale words: what the hardware multiplies by."""
    w = np.asarray(word, np.uint32)
    if mode == "f32":
        return np.atleast_1d(w).view(np.float32).astype(np.float64).reshape(w.shape)
    if mode == "fix16":
        return np.ldexp((w & 0xFFFF).astype(np.float64), -(w >> 16).astype(np.int64))
    return np.ldexp(1.0, -w.astype(np.int64))


def encode_pair(ratio_a: float, ratio_b: float, mode: RoundingMode) -> tuple[int, int, int]:
    """Encode ``a * ratio_a + b * ratio_b`` as two signed integers over one shift.

    Returns
    -------
    (ma, mb, shift)
        ``(A * ma + B * mb) / 2^shift``; the larger of |ma|, |mb| has 23 bits (f32), 16 (fix16), or both are
        powers of two (shift).

    >>> encode_pair(1.0, 0.5, "shift")
    (2, 1, 1)
    """
    big = max(abs(ratio_a), abs(ratio_b))
    if not (np.isfinite(big) and big > 0):
        raise ModelError(f"elementwise ratios {ratio_a} and {ratio_b} are not finite and non-zero")
    if mode == "shift":
        exps = [int(np.rint(np.log2(abs(r)))) if r else None for r in (ratio_a, ratio_b)]
        shift = max(0, *(-e for e in exps if e is not None))
        shift = min(
            shift, 22
        )  # beyond, the small operand is below one LSB by more than the multiplier is wide
        ints = [
            0 if e is None or e + shift < 0 else int(np.sign(r)) << (e + shift)
            for e, r in zip(exps, (ratio_a, ratio_b), strict=True)
        ]
        return ints[0], ints[1], shift
    bits = _PAIR_BITS[mode]
    shift = bits - int(np.frexp(big)[1])
    if shift < 0:
        raise ModelError(f"elementwise ratio {big} is above 2^{bits}, the most that mode {mode} holds")
    shift = min(shift, _MAX_SHIFT - 16)
    ma, mb = (round(float(np.ldexp(r, shift))) for r in (ratio_a, ratio_b))
    if max(abs(ma), abs(mb)) >= 1 << bits:  # rounded up to the next power of two
        ma, mb, shift = (
            round(float(np.ldexp(ratio_a, shift - 1))),
            round(float(np.ldexp(ratio_b, shift - 1))),
            shift - 1,
        )
    return ma, mb, shift


def round_shift(value: NDArray[np.int64], shift: ArrayLike, *, half_even: bool) -> NDArray[np.int64]:
    """``value / 2^shift`` to the nearest integer; ties to even, or up (toward +inf).

    >>> round_shift(np.array([3, 5, -3]), 1, half_even=True).tolist()
    [2, 2, -2]
    >>> round_shift(np.array([3, 5, -3]), 1, half_even=False).tolist()
    [2, 3, -1]
    """
    v = np.asarray(value, np.int64)
    s = np.asarray(shift, np.int64)
    half = np.where(s > 0, np.int64(1) << np.maximum(s - 1, 0), 0)
    up = (v + half) >> s
    if not half_even:
        return up
    tie = (s > 0) & ((v & ((np.int64(1) << s) - 1)) == half)
    return np.asarray(up - (tie & ((up & 1) == 1)), np.int64)


def requantise(
    acc: NDArray[np.integer[Any]],
    word: ArrayLike,
    mode: RoundingMode,
    *,
    zero_point: int,
    low: int,
    high: int,
) -> NDArray[np.int8]:
    """Accumulators to int8.

    Parameters
    ----------
    acc : array of integers
        Within int32.
    word : array of uint32, broadcast against `acc`
        From `encode_scale`.
    zero_point, low, high : int
        Added after rounding; then clamped to low..high (activation folded in).

    >>> requantise(np.array([3, 200, -3]), encode_scale(0.5, "f32"), "f32", zero_point=0, low=0, high=127).tolist()
    [2, 100, 0]
    """
    w = np.asarray(word, np.uint32)
    if mode == "f32":
        scale = np.atleast_1d(w).view(np.float32).reshape(w.shape)
        with np.errstate(over="ignore"):
            product = np.asarray(acc).astype(np.float32) * scale
        # Clamped before rounding, so that no product is too large for an integer.
        y = np.rint(np.clip(product, np.float32(low - zero_point), np.float32(high - zero_point))).astype(
            np.int64
        )
    elif mode == "fix16":
        y = round_shift(np.asarray(acc, np.int64) * (w & 0xFFFF).astype(np.int64), w >> 16, half_even=True)
    else:
        y = round_shift(np.asarray(acc, np.int64), w, half_even=False)
    return np.asarray(np.clip(y + zero_point, low, high), np.int8)
