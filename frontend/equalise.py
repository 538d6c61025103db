"""Cross-layer equalisation: level the channel ranges between neighbouring convolutions before quantising.

Where a convolution feeds only another one through nothing or a ReLU, channel c of the map between them may be divided by
s_c and the next layer's weights multiplied by it: the network computes the same, and the map's channels use the int8
range evenly. Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", sec. 4.1;
here the ranges of the measured activations take the place of the first layer's weights, which are per channel anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from .calibration import Statistics
from .layers import Layer, Linear
from .partition import Plan

__all__ = ["equalise_layers"]

MOST = 16.0
"""Largest factor a channel is changed by: four bits, beyond which the next layer's weights would suffer instead."""


def equalise_layers(
    plan: Plan, layers: tuple[Layer, ...], statistics: Mapping[str, Statistics]
) -> tuple[Plan, tuple[Layer, ...], dict[str, Statistics], dict[str, NDArray[np.float64]]]:
    """Layers and statistics with the maps between scale-invariant pairs levelled, and each levelled map's divisors.

    A pair is two linear layers, the map between them read by nothing else, its activation none or a ReLU.
    """
    known = dict(statistics)
    divisors: dict[str, NDArray[np.float64]] = {}
    current = {x.output: x for x in layers}
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        for name in dict.fromkeys(layer.inputs):
            readers.setdefault(name, []).append(layer)
    seen_outside = plan.seen_outside
    for name, following in readers.items():
        first, second = current.get(name), current[following[0].output]
        if len(following) != 1 or name in seen_outside or name not in known:
            continue
        if not isinstance(first, Linear) or not isinstance(second, Linear) or first.moves or second.moves:
            continue
        if first.clamp not in {(-inf, inf), (0.0, inf)}:
            continue
        peak = np.maximum(np.abs(known[name].floor), np.abs(known[name].ceiling))
        if peak.shape != (first.weight.shape[0],):
            continue
        factor = _factors(peak, second)
        divisors[name] = factor
        weight = first.weight / factor[:, None, None, None]
        current[first.output] = replace(first, weight=weight, bias=first.bias / factor, exact=None)
        current[second.output] = replace(second, weight=second.weight * _spread(factor, second), exact=None)
        old = known[name]
        low, high = float((old.floor / factor).min()), float((old.ceiling / factor).max())
        known[name] = replace(
            old,
            low=low,
            high=high,
            mean=old.mean / factor,
            floor=old.floor / factor,
            ceiling=old.ceiling / factor,
        )
    pieces = tuple(replace(p, layers=tuple(current[x.output] for x in p.layers)) for p in plan.pieces)
    return replace(plan, pieces=pieces), tuple(current[x.output] for x in layers), known, divisors


def _factors(peak: NDArray[np.float64], second: Linear) -> NDArray[np.float64]:
    """By how much to divide each channel: the geometric mean of its own excess and its weights' want."""
    columns = _columns(second)
    peak = np.maximum(peak, 1e-6 * peak.max() + 1e-30)
    columns = np.maximum(columns, 1e-6 * columns.max() + 1e-30)
    factor = np.sqrt((peak / peak.max()) / (columns / columns.max()))
    limited: NDArray[np.float64] = np.clip(factor / factor.max(), 1 / MOST, 1.0)
    return limited


def _columns(layer: Linear) -> NDArray[np.float64]:
    """Largest weight that reads each input channel."""
    per_group = np.abs(layer.weight).max(axis=(1, 2)).reshape(layer.groups, -1, layer.weight.shape[3])
    return per_group.max(axis=1).reshape(-1).astype(np.float64)  # type: ignore[no-any-return]


def _spread(factor: NDArray[np.float64], layer: Linear) -> NDArray[np.float64]:
    """Input-channel factors in the shape of the weights (O, 1, 1, I)."""
    per_out = layer.weight.shape[0] // layer.groups
    rows = np.repeat(factor.reshape(layer.groups, -1), per_out, axis=0)
    return rows[:, None, None, :]
