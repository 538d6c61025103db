"""How the depthwise engine walks a kernel: a step takes up to `dwc.taps` taps, and reads one word of weights.

A step covers `rows` whole kernel rows where more than one fits, one whole row, or a part of a row. The scheduler packs
records by these functions, the emulator and the hardware walk them by the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arch import Arch

__all__ = [
    "DEPTHWISE_STEP",
    "PARAMETER_BYTES",
    "fits",
    "parameter_words",
    "record_words",
    "rows_a_step",
    "steps",
    "tail_taps",
    "tap_place",
]

DEPTHWISE_STEP = 2
"""Largest column stride and column dilation: the window's taps are picked from neighbouring columns."""
PARAMETER_BYTES = 8
"""Bias and scale word of a channel."""


def rows_a_step(taps: int, kw: Any) -> Any:
    """Kernel rows that a step covers: the window has a read port for every three taps.

    >>> rows_a_step(9, 3), rows_a_step(3, 1), rows_a_step(3, 5)
    (3, 1, 1)
    """
    fit = np.minimum(taps // np.asarray(kw), max(1, taps // 3))
    return np.maximum(fit, 1) if np.ndim(kw) else int(max(fit, 1))


def steps(taps: int, kh: Any, kw: Any) -> Any:
    """Steps of an output pixel.

    >>> steps(3, 3, 3), steps(9, 3, 3), steps(3, 5, 5), steps(1, 3, 3)
    (3, 1, 10, 9)
    """
    kh, kw = np.asarray(kh), np.asarray(kw)
    whole = -(-kh // rows_a_step(taps, np.maximum(kw, 1) if kw.ndim else max(1, int(kw))))
    count = np.where(kw <= taps, whole, kh * -(-kw // taps))
    return count if count.ndim else int(count)


def tap_place(taps: int, kh: int, kw: int) -> NDArray[np.int64]:
    """Step and slot of each tap, in the order ky, kx: (kh*kw, 2).

    >>> tap_place(3, 1, 5).tolist()
    [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]
    """
    ky, kx = (a.ravel() for a in np.mgrid[:kh, :kw])
    if kw <= taps:
        g = rows_a_step(taps, kw)
        return np.stack([ky // g, ky % g * kw + kx], axis=1)
    return np.stack([ky * -(-kw // taps) + kx // taps, kx % taps], axis=1)


def tail_taps(taps: int, kh: int, kw: int) -> int:
    """Slots of the last step that hold a tap.

    >>> tail_taps(3, 3, 3), tail_taps(3, 5, 5), tail_taps(9, 5, 4)
    (3, 2, 4)
    """
    return int(tap_place(taps, kh, kw)[-1, 1]) + 1


def fits(arch: Arch, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> bool:
    """Whether the engine's window holds this kernel; others run on the array.

    >>> b4096 = Arch.preset("b4096")
    >>> fits(b4096, (7, 7), (2, 2), (1, 1)), fits(b4096, (3, 3), (1, 1), (1, 6))
    (True, False)
    """
    (kh, kw), sx, dx = kernel, stride[1], dilation[1]
    run = (arch.dwc.pixels - 1) * sx + (kw - 1) * dx + 1
    return max(kh, kw) <= arch.dwc.rows and max(sx, dx) <= DEPTHWISE_STEP and run <= 2 * arch.banks


def parameter_words(taps: int) -> int:
    """Words of a record that hold bias and scale."""
    return -(-PARAMETER_BYTES // taps)


def record_words(arch: Arch, kh: Any, kw: Any) -> Any:
    """Depthwise words of the record of one channel block."""
    return parameter_words(arch.dwc.taps) + steps(arch.dwc.taps, kh, kw)
