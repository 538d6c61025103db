"""Moves: an order of data that a view cannot express, as a convolution with 0/1 weights.

A channel shuffle is a 1x1 convolution; space to depth, and flattening a map, one whose stride is its kernel; depth to
space the transposed one.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Shape, Window
from .layers import Linear
from .views import Unmapped, View

__all__ = ["move"]

MAX_MOVE_WEIGHTS = 1 << 20
"""Most 0/1 weights a data movement may have: the 1 MiB of weights that the largest preset holds twice over."""


def move(name: str, source: str, stored: Shape, order: View, shape: Shape) -> Linear:
    """The layer that gives map `source` another order.

    Parameters
    ----------
    stored, shape : (H, W, C)
        The map as it is, and as it is wanted.
    order : View with axes H, W, C
        Where each wanted element lies in the stored map.

    Raises
    ------
    Unmapped
        The order moves data across rows in a way no such convolution does, or needs too many weights.
    """
    flat = order.index().reshape(shape)
    y, x, c = flat // (stored[1] * stored[2]), flat // stored[2] % stored[1], flat % stored[2]
    gathered = _gather(stored, shape, (y, x, c))
    if gathered is not None:
        return _layer(name, source, *gathered, transposed=False)
    scattered = _scatter(stored, shape, (y, x, c))
    if scattered is not None:
        return _layer(name, source, *scattered, transposed=True)
    raise Unmapped(
        f"needs {source} in an order that moves data across rows ({stored} to {shape})",
        "keep channels as the second axis, or leave this part to the host",
    )


Index = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
Weighted = tuple[NDArray[np.float32], tuple[int, int]]


def _gather(stored: Shape, shape: Shape, index: Index) -> Weighted | None:
    """Each wanted pixel reads one block of fy x fx stored pixels, all in the same way."""
    fy, fx = max(1, stored[0] // shape[0]), max(1, stored[1] // shape[1])
    if (shape[0] * fy, shape[1] * fx, fy * fx * stored[2]) != (stored[0], stored[1], shape[2]):
        return None
    gy, gx, _ = np.ogrid[: shape[0], : shape[1], : shape[2]]
    dy, dx, c = index[0] - gy * fy, index[1] - gx * fx, index[2]
    inside = dy.min() >= 0 and dy.max() < fy and dx.min() >= 0 and dx.max() < fx
    if not inside or any(np.any(o != o[:1, :1]) for o in (dy, dx, c)):
        return None
    weight = _zeros(shape[2], fy, fx, stored[2])
    weight[np.arange(shape[2]), dy[0, 0], dx[0, 0], c[0, 0]] = 1
    return weight, (fy, fx)


def _scatter(stored: Shape, shape: Shape, index: Index) -> Weighted | None:
    """Each stored pixel writes one block of by x bx wanted pixels, all in the same way."""
    by, bx = max(1, shape[0] // stored[0]), max(1, shape[1] // stored[1])
    if (stored[0] * by, stored[1] * bx, by * bx * shape[2]) != (shape[0], shape[1], stored[2]):
        return None
    gy, gx, _ = np.ogrid[: shape[0], : shape[1], : shape[2]]
    if np.any(index[0] != gy // by) or np.any(index[1] != gx // bx):
        return None
    blocks = index[2].reshape(stored[0], by, stored[1], bx, shape[2]).transpose(0, 2, 1, 3, 4)
    if np.any(blocks != blocks[:1, :1]):
        return None
    weight = _zeros(shape[2], by, bx, stored[2])
    iy, ix, io = np.ogrid[:by, :bx, : shape[2]]
    weight[io, iy, ix, blocks[0, 0]] = 1
    return weight, (by, bx)


def _zeros(*shape: int) -> NDArray[np.float32]:
    if prod(shape) > MAX_MOVE_WEIGHTS:
        raise Unmapped(
            f"moving the data would need {prod(shape)} 0/1 weights, the most is {MAX_MOVE_WEIGHTS}",
            "reorder before or after the network",
        )
    return np.zeros(shape, np.float32)


def _layer(
    name: str, source: str, weight: NDArray[np.float32], block: tuple[int, int], *, transposed: bool
) -> Linear:
    zero, window = np.zeros(weight.shape[0]), Window(block, block)
    return Linear(name, (source,), name, (), weight, zero, window, transposed=transposed, moves=True)
