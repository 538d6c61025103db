"""Folding: an affine map or a clamp that follows a layer becomes part of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layers import OPEN, Average, Layer, Linear, Maximum, Product, Slopes, Sum

__all__ = ["fold_clamp", "scale_linear"]


def scale_linear(layer: Linear, scale: NDArray[Any], shift: NDArray[Any]) -> Linear:
    """A linear layer followed by a per-channel affine map, as one linear layer."""
    o = layer.weight.shape[0]
    k, b = np.broadcast_to(scale, (o,)).astype(np.float64), np.broadcast_to(shift, (o,)).astype(np.float64)
    return replace(layer, weight=layer.weight * k[:, None, None, None], bias=layer.bias * k + b, exact=None)


def fold_clamp(layer: Layer, folded: tuple[float, float, float, float]) -> Layer | None:
    """The layer with ``clamp(k * y + b)`` folded in, or None where it cannot."""
    k, b, low, high = folded
    if not isinstance(layer, Linear | Sum | Product | Average | Maximum | Slopes) or layer.clamp != OPEN:
        return None
    if isinstance(layer, Linear) and layer.moves:
        return None
    if isinstance(layer, Linear) and (k, b) != (1.0, 0.0):
        layer = scale_linear(layer, np.asarray(k), np.asarray(b))
    elif isinstance(layer, Sum) and b == 0.0:
        layer = replace(layer, factors=(layer.factors[0] * k, layer.factors[1] * k))
    elif (k, b) != (1.0, 0.0):
        return None
    if low >= high:
        return None
    return replace(layer, clamp=(low, high))
