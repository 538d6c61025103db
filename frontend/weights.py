"""Weights and biases as integers: per channel, symmetric, -127..127; int32 biases at the product of both scales."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.requant import RoundingMode
from .layers import Linear

__all__ = ["SMALLEST_MULTIPLIER", "bias_codes", "largest_sum", "quantise_weights", "weight_drift"]

SMALLEST_MULTIPLIER = 2.0**-40
"""Below it every int32 accumulator rounds to zero; a weight scale is not made smaller than that."""
BLOCK_ELEMENTS = 1 << 20
"""Weights that are quantised at a time (8 MiB of float64)."""
BIAS_BITS = 24
"""A weight scale is widened until its bias fits so many bits: float32 holds the bias exactly then."""


def quantise_weights(
    weight: NDArray[Any], bias: NDArray[np.float64], x_scale: float, y_scale: float, mode: RoundingMode
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Per-channel symmetric int8 weights (O, ...) and their scales (O,).

    >>> w, s = quantise_weights(np.array([[1.27, -0.5]]), np.zeros(1), 1.0, 1.0, "f32")
    >>> w.tolist(), round(float(s[0]), 6)
    ([[127, -50]], 0.01)
    """
    flat = weight.reshape(weight.shape[0], -1)
    floor = np.maximum(np.abs(bias) / (x_scale * 2.0**BIAS_BITS), SMALLEST_MULTIPLIER * y_scale / x_scale)
    peak = np.maximum(flat.max(axis=1), -flat.min(axis=1)).astype(np.float64)
    scale = np.maximum(peak / 127, floor).astype(np.float32)
    if mode == "shift":
        scale = np.array([2.0 ** ceil(log2(s)) for s in scale.astype(np.float64)], np.float32)
    codes = np.empty(flat.shape, np.int8)
    for rows in _blocks(*flat.shape):
        steps = flat[rows] / scale[rows].astype(np.float64)[:, None]
        codes[rows] = np.clip(np.rint(steps), -127, 127)
    return codes.reshape(weight.shape), scale


def _blocks(outputs: int, inputs: int) -> Iterator[slice]:
    """Output channels a few megabytes at a time: a fully connected layer in float64 would not fit the cache, or memory."""
    size = max(1, BLOCK_ELEMENTS // max(1, inputs))
    for start in range(0, outputs, size):
        yield slice(start, start + size)


def weight_drift(
    layer: Linear, codes: NDArray[np.int8], scale: NDArray[np.float32], mean: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Mean error that rounding the weights adds to each output channel.

    Parameters
    ----------
    mean : array (C,), optional
        Mean of each input channel; without it nothing is known, and the drift is zero.

    Taken out of the bias, this is bias correction. Source: Nagel et al. 2019, sec. 4.2.
    """
    outputs, _, _, inputs = codes.shape
    drift = np.zeros(outputs)
    if mean is None or len(mean) != layer.groups * inputs:
        return drift
    by_group, per_out = mean.reshape(layer.groups, inputs), outputs // layer.groups
    for rows in _blocks(outputs, codes[0].size):
        error = codes[rows] * scale[rows].astype(np.float64)[:, None, None, None] - layer.weight[rows]
        channels = by_group[np.arange(outputs)[rows] // per_out]
        drift[rows] = (error.sum(axis=(1, 2)) * channels).sum(axis=1)
    return drift


def largest_sum(codes: NDArray[np.int8], bias: NDArray[np.int64], zero_point: int) -> NDArray[np.int64]:
    """Bound of each output channel's accumulator, for any int8 input with this zero point.

    >>> largest_sum(np.array([[1, -2]], np.int8), np.array([5]), 0).tolist()
    [389]
    """
    flat, reach = codes.reshape(len(codes), -1), max(127 - zero_point, 128 + zero_point)
    sums = [np.abs(flat[r].astype(np.int16)).sum(axis=1, dtype=np.int64) for r in _blocks(*flat.shape)]
    most: NDArray[np.int64] = np.concatenate(sums) * reach + np.abs(bias)
    return most


def bias_codes(bias: NDArray[np.float64], x_scale: float, scale: NDArray[np.float32]) -> NDArray[np.int64]:
    """Real biases in steps of ``x_scale * scale``."""
    steps = x_scale * scale.astype(np.float64)
    return np.rint(np.asarray(bias, np.float64) / steps).astype(np.int64)
