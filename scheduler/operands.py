"""Operands of instructions: rings in force, and the input range behind a window's positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..ir.isa import FORMATS
from ..ir.tile import Ring, Statement
from .layers import Layer
from .memories import Chunk

__all__ = ["Kept", "Rows", "Source", "Task", "padded_runs", "window_axis"]

Rows = tuple[int, int]
MOST_PADDING = min(f.high for form in FORMATS.values() for f in form if f.name in {"pad_top", "pad_left"})
"""Rows or columns of padding that an instruction can say."""
Kept = dict[tuple[object, ...], Chunk]
"""Constants that stay on chip for a whole group, by key."""


@dataclass(frozen=True, slots=True)
class Source:
    """A ring in force.

    Parameters
    ----------
    first : int
        Column of the map that its first one holds.
    top : int
        Row of the map that operands call row 0: the first of their frame.
    """

    ring: Ring
    first: int
    top: int = 0

    def operand(self, prefix: str, row: int, column: int, block: int = 0) -> dict[str, int]:
        """Fields of the operand whose row 0 is map row `row`, column 0 map column `column`."""
        r = self.ring
        return {
            f"{prefix}_group": r.group,
            f"{prefix}_base": r.base + block % r.blocks * r.plane + column - self.first,
            f"{prefix}_pitch": r.pitch,
            f"{prefix}_plane": r.plane,
            f"{prefix}_rows": r.rows,
            f"{prefix}_row0": self.row(row),
        }

    def row(self, row: int) -> int:
        """Row of the ring that holds an operand's row."""
        return (self.top + row) % self.ring.rows


@dataclass(frozen=True, slots=True)
class Task:
    """One statement of one strip: make these rows and columns of a layer's output.

    Parameters
    ----------
    rows : (low, high)
        Of a frame, where the layer's windows end at its frames' edges; else of the map.
    index : int
        Of the layer, for reports.
    only : int or None
        The one output chunk to make; None makes all.
    kept : Kept or None
        Where the statement's constants stay; None loads them for each use.
    """

    statement: Statement
    layer: Layer
    sources: tuple[Source, ...]
    out: Source
    rows: Rows
    cols: Rows
    index: int
    only: int | None
    kept: Kept | None


def window_axis(low: int, high: int, stride: int, pad: int, span: int, size: int) -> tuple[int, int, int]:
    """First input index, padding before it, and valid indices from it, for window positions low..high-1."""
    first = low * stride - pad
    before = min(max(0, -first), (high - 1 - low) * stride + span)  # more could not be seen
    start = min(max(first, 0), size - 1)
    stop = min(size, (high - 1) * stride - pad + span)
    if first >= size:  # every tap lies beyond the map
        return size - 1, 0, 0
    return start, before, max(0, stop - start)


def padded_runs(low: int, high: int, stride: int, pad: int, span: int) -> Iterator[Rows]:
    """Window positions low..high-1 in runs that have no more padding before them than an instruction can say.

    A map that is put at the right end of a long concatenation has all the others' columns as padding: the positions
    that see nothing else become runs of their own.

    >>> list(padded_runs(0, 2100, stride=1, pad=1600, span=1))
    [(0, 1023), (1023, 2100)]
    """
    blind = (pad - span) // stride + 1  # first position that sees the map
    longest = (MOST_PADDING - span) // stride + 1
    while low < high and pad - low * stride > MOST_PADDING and blind > low and longest > 0:
        stop = min(high, blind, low + longest)
        yield low, stop
        low = stop
    if low < high:
        yield low, high
