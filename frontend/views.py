"""Views: an ONNX tensor seen as strides over an (H, W, C) map.

Reshape, Flatten, Squeeze, Unsqueeze and Transpose do not move data: they change how the logical (row-major)
tensor indexes the map that is stored. Each logical axis is a list of factors ``(extent, stride)`` in elements of
the map; a view is materialised only when an operator needs another order than the stored one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Shape

__all__ = ["Unmapped", "View", "channels_first", "channels_last"]

Factor = tuple[int, int]


class Unmapped(Exception):  # noqa: N818 - a reason, not an error
    """A node the DPU does not run: the reason, and what would help. Caught by the lowering, never by a user."""

    def __init__(self, reason: str, help: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.help = help


@dataclass(frozen=True, slots=True)
class View:
    """A logical tensor over a stored map.

    Parameters
    ----------
    storage : str
        Name of the stored (H, W, C) map.
    axes : tuple of tuples of (extent, stride)
        Factors of each logical axis, outermost first; an axis of extent 1 has none.
    """

    storage: str
    axes: tuple[tuple[Factor, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical extents."""
        return tuple(prod(e for e, _ in axis) for axis in self.axes)

    @property
    def order(self) -> tuple[Factor, ...]:
        """Factors of the whole tensor, neighbours merged: equal for equal element orders.

        >>> View("x", (((2, 12),), ((3, 4), (4, 1)))).order
        ((24, 1),)
        """
        merged: list[Factor] = []
        for extent, stride in (f for axis in self.axes for f in axis):
            if merged and merged[-1][1] == extent * stride:
                merged[-1] = (merged[-1][0] * extent, stride)
            else:
                merged.append((extent, stride))
        return tuple(merged)

    def transpose(self, perm: Sequence[int]) -> View:
        """Axes in another order."""
        return View(self.storage, tuple(self.axes[p] for p in perm))

    def reshape(self, shape: Sequence[int]) -> View:
        """The same elements under other extents; raises Unmapped where a factor would have to be cut unevenly.

        >>> View("x", (((6, 2),), ((2, 1),))).reshape((3, 4)).axes
        (((3, 4),), ((4, 1),))
        """
        left = list(self.order)
        axes: list[tuple[Factor, ...]] = []
        for extent in shape:
            need, axis = extent, []
            while need > 1:
                if not left:
                    raise Unmapped(f"{self.shape} cannot be reshaped to {tuple(shape)}")
                have, stride = left[0]
                if need % have == 0:
                    axis.append(left.pop(0))
                    need //= have
                elif have % need == 0:
                    rest = have // need
                    axis.append((need, stride * rest))
                    left[0] = (rest, stride)
                    need = 1
                else:
                    raise Unmapped(f"reshape of {self.shape} to {tuple(shape)} cuts a dimension unevenly")
            axes.append(tuple(axis))
        return View(self.storage, tuple(axes))

    def index(self) -> NDArray[np.int64]:
        """Position in the stored map of every logical element, in the logical shape."""
        flat = np.zeros((), np.int64)
        for axis in self.axes:
            for extent, stride in axis:
                flat = np.add.outer(flat, np.arange(extent, dtype=np.int64) * stride)
        return flat.reshape(self.shape)

    def take(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        """Logical tensor from its stored map."""
        return stored.reshape(-1)[self.index()]

    def put(self, logical: NDArray[np.generic], shape: Shape) -> NDArray[np.generic]:
        """Stored map from its logical tensor."""
        stored = np.empty(prod(shape), logical.dtype)
        stored[self.index().reshape(-1)] = logical.reshape(-1)
        return stored.reshape(shape)


def _roles(shape: Sequence[int], spatial: Sequence[int], channel: int | None) -> Shape:
    extents = [shape[a] for a in spatial]
    height = prod(extents[:-1]) if extents else 1
    return height, extents[-1] if extents else 1, shape[channel] if channel is not None else 1


def channels_first(shape: Sequence[int]) -> tuple[Shape, tuple[int | None, int | None, int | None]]:
    """Map shape of a batch-1 tensor (1, C), (1, C, W) or (1, C, H, W), and the logical axes of H, W, C.

    >>> channels_first((1, 8, 5, 7))
    ((5, 7, 8), (2, 3, 1))
    """
    rank = len(shape)
    if rank > 4 or (rank > 1 and shape[0] != 1):
        raise Unmapped(
            f"shape {tuple(shape)} is not one frame of (1, C, H, W)",
            "export with batch 1 and at most two spatial axes",
        )
    if rank == 4:
        return _roles(shape, (2, 3), 1), (2, 3, 1)
    if rank == 3:
        return _roles(shape, (2,), 1), (None, 2, 1)
    if rank == 2:
        return _roles(shape, (), 1), (None, None, 1)
    return _roles(shape, (), 0 if rank else None), (None, None, 0 if rank else None)


def channels_last(shape: Sequence[int]) -> tuple[Shape, tuple[int | None, int | None, int | None]]:
    """As `channels_first`, of a tensor (1, H, W, C) or (1, W, C).

    >>> channels_last((1, 5, 7, 8))
    ((5, 7, 8), (1, 2, 3))
    """
    rank = len(shape)
    if rank not in {3, 4} or shape[0] != 1:
        return channels_first(shape)
    if rank == 4:
        return _roles(shape, (1, 2), 3), (1, 2, 3)
    return _roles(shape, (1,), 2), (None, 1, 2)
