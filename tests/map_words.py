"""Map memory as benches hold it, int8 (group, word, lane), and as the emulator's kernels take it, (word, lane)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["flat", "placed"]


def flat(maps: NDArray[np.int8]) -> NDArray[np.int8]:
    """A view of all words, one group after the other: word w of an operand is the `group * maps.shape[1] + w`-th."""
    return maps.reshape(-1, maps.shape[-1])


def placed(row: Mapping[str, Any], maps: NDArray[np.int8]) -> dict[str, Any]:
    """An instruction's fields with bases that count from the first word of all."""
    bases = {
        f"{p}_base": row[f"{p}_base"] + row[f"{p}_group"] * maps.shape[1] for p in "dab" if f"{p}_base" in row
    }
    return dict(row) | bases
