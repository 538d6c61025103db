"""How a feature map lies in DRAM: blocked by channels, the last block dense.

``[block][row][column][lane]``: a block holds `lanes` channels, the last one only what is left of them. A strip
of full-width rows of one block is one contiguous run.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .graph import Shape

__all__ = ["blocks", "pack_map", "tail", "unpack_map"]


def blocks(channels: int, lanes: int) -> int:
    """Channel blocks of `channels` channels."""
    return -(-channels // lanes)


def tail(channels: int, lanes: int) -> int:
    """Channels in the last block, 1..lanes."""
    return channels - lanes * (blocks(channels, lanes) - 1)


def pack_map(value: NDArray[np.int8], lanes: int) -> NDArray[np.uint8]:
    """A map (H, W, C) as the bytes that lie in DRAM.

    >>> pack_map(np.arange(6, dtype=np.int8).reshape(1, 2, 3), 2).tolist()
    [0, 1, 3, 4, 2, 5]
    """
    parts = [value[:, :, c : c + lanes].ravel() for c in range(0, value.shape[2], lanes)]
    return np.concatenate(parts).view(np.uint8)


def unpack_map(data: NDArray[np.uint8], shape: Shape, lanes: int) -> NDArray[np.int8]:
    """The inverse of `pack_map`."""
    h, w, c = shape
    out = np.empty(shape, np.int8)
    at = 0
    for first in range(0, c, lanes):
        width = min(lanes, c - first)
        out[:, :, first : first + width] = data[at : at + h * w * width].view(np.int8).reshape(h, w, width)
        at += h * w * width
    return out
