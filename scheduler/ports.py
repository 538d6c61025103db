"""Bank conflicts of the array: do pixels that are read or written together fall into different banks?"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..hwsim.timing import read_ways

__all__ = ["free_of_conflicts", "read_ways"]


@lru_cache(maxsize=1 << 16)
def free_of_conflicts(
    h: int, w: int, block: int, together: int, sy: int, sx: int, pitch: int, ring: int, row: int, banks: int
) -> bool:
    """Whether no two pixels that are read or written in one cycle lie in one bank.

    The pixels of an h x w tile are packed over rows into blocks of `block`; of a block, `together` after `together`
    go at once. Pixel (y, x) lies at word ``((row + y*sy) % ring) * pitch + x*sx``.

    >>> free_of_conflicts(7, 7, 8, 8, 1, 1, 7, 7, 0, 16)
    True
    >>> free_of_conflicts(7, 7, 8, 8, 2, 2, 14, 14, 0, 16)
    False
    """
    i = np.arange(h * w)
    y, x = i // w, i % w
    bank = (((row + y * sy) % ring) * pitch + x * sx) % banks
    blocks = -(-h * w // block)
    padded = np.full((blocks, -(-block // together) * together), -1)
    padded[i // block, i % block] = bank
    cycles = np.sort(padded.reshape(-1, together), axis=1)
    return not bool(np.any((cycles[:, 1:] == cycles[:, :-1]) & (cycles[:, 1:] >= 0)))
