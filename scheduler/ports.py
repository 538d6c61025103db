"""Bank conflicts of the array: do pixels that are read or written together fall into different banks?"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..hwsim.timing import read_ways

__all__ = ["free_of_conflicts", "read_ways"]


@lru_cache(maxsize=1 << 16)
def free_of_conflicts(
    h: int, w: int, pixels: int, sy: int, sx: int, pitch: int, ring: int, row: int, banks: int
) -> bool:
    """Whether every run of `pixels` pixels of an h x w tile, packed over rows, touches no bank twice.

    Pixel (y, x) lies at word ``((row + y*sy) % ring) * pitch + x*sx``.

    >>> free_of_conflicts(7, 7, 8, 1, 1, 7, 7, 0, 16)
    True
    >>> free_of_conflicts(7, 7, 8, 2, 2, 14, 14, 0, 16)
    False
    """
    i = np.arange(h * w)
    y, x = i // w, i % w
    bank = (((row + y * sy) % ring) * pitch + x * sx) % banks
    padded = np.full(-(-h * w // pixels) * pixels, -1)
    padded[: h * w] = bank
    runs = np.sort(padded.reshape(-1, pixels), axis=1)
    return not bool(np.any((runs[:, 1:] == runs[:, :-1]) & (runs[:, 1:] >= 0)))
