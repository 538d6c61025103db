"""Which map groups an operand needs: the fewest, for an instruction owns their ports while it runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ir.accesses import BOX, MAPS, OPERANDS, boxes, highest
from ..ir.arch import Arch
from ..ir.isa import COLUMNS

__all__ = ["name_groups"]

Matrix = NDArray[np.int64]


def name_groups(fields: Matrix, arch: Arch, weights: NDArray[np.uint8]) -> None:
    """Set group, span and base of the operands of a program, whose bases count from a ring's group, in place.

    An operand that does not wrap around its ring is named by the rows that it touches, so that the ports of the groups
    with the ring's other rows stay free.
    """
    if arch.span == 1:
        return
    table = boxes(fields, arch, weights)
    table = table[table[:, BOX["memory"]] == MAPS]
    last = _last_row(table)
    straight = table[:, BOX["row0"]] + last < table[:, BOX["ring"]]
    skipped = np.where(straight, table[:, BOX["row0"]], 0)
    base = table[:, BOX["base"]] + skipped * table[:, BOX["pitch"]]
    first = base // arch.group_words
    stop = np.maximum(
        highest(table) // arch.group_words, first
    )  # of windows that see nothing but padding too
    for k, p in enumerate(OPERANDS, 1):
        named = fields[table[:, BOX["instruction"]], COLUMNS[f"{p}_group"]]
        mine = (table[:, BOX["operand"]] == k) & ((first != named) | (stop != named))
        i = table[mine, BOX["instruction"]]
        fields[i, COLUMNS[f"{p}_group"]] = first[mine]
        fields[i, COLUMNS[f"{p}_span"]] = stop[mine] - first[mine]
        fields[i, COLUMNS[f"{p}_base"]] = base[mine] - first[mine] * arch.group_words
        fields[i, COLUMNS[f"{p}_row0"]] -= skipped[mine]


def _last_row(table: Matrix) -> Matrix:
    """Last row of an operand that a box touches, counted from its first."""
    count, taps, stride, dilation, pad, limit = (
        table[:, BOX[f"y_{n}"]] for n in ("count", "taps", "stride", "dilation", "pad", "limit")
    )
    return np.asarray(np.minimum((count - 1) * stride + (taps - 1) * dilation - pad, limit - 1), np.int64)
