"""Ranges that end where the functions behind a map do.

A map that only tables read needs no code for values on which those functions are flat: hard-swish is 0 below -3, a
sigmoid 1 beyond 6 or so. The convolution before them saturates there, and its int8 steps are finer where they count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .elementwise import evaluate
from .layers import Layer, Unary

__all__ = ["end_where_flat", "flat_ends"]

Range = tuple[float, float]
POINTS = 4097
"""Samples of a function along its input's range: 16 between two codes."""
TOLERANCE = 0.25
"""Share of a step of the function's output that saturation may cost; rounding costs up to a half."""


def end_where_flat(
    layers: Sequence[Layer], ranges: Mapping[str, Range], seen_outside: Collection[str]
) -> dict[str, Range]:
    """The ranges, those of maps that only tables read shortened to where the tables change.

    Parameters
    ----------
    ranges : dict of map name to (low, high)
    seen_outside : collection of map names
        Read by the host or outputs of the network: left as they are.
    """
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        for name in dict.fromkeys(layer.inputs):
            readers.setdefault(name, []).append(layer)
    out = dict(ranges)
    for layer in layers:
        name = layer.output
        tables = [x for x in readers.get(name, ()) if isinstance(x, Unary) and x.steps]
        if not tables or name in seen_outside or len(tables) < len(readers[name]) or name not in ranges:
            continue
        if any(t.output not in ranges for t in tables):
            continue
        low, high = ranges[name]
        x = np.linspace(low, high, POINTS)
        ends = [_ends_of(t, x, ranges[t.output]) for t in tables]
        out[name] = min(a for a, _ in ends), max(b for _, b in ends)
    return out


def _ends_of(table: Unary, x: NDArray[np.float64], made: Range) -> Range:
    step = (max(made[1], 0.0) - min(made[0], 0.0)) / 255
    first, last = flat_ends(evaluate(table.steps, table.root, x), TOLERANCE * step)
    return float(x[first]), float(x[last])


def flat_ends(y: NDArray[np.float64], tolerance: float) -> tuple[int, int]:
    """The last index that stands for all before it, and the first that stands for all behind it.

    >>> flat_ends(np.array([0.0, 0.0, 0.0, 1.0, 2.0, 2.0]), 0.1)
    (2, 4)
    """

    def stands_for(values: NDArray[np.float64]) -> int:
        most, least = np.maximum.accumulate(values), np.minimum.accumulate(values)
        return int(np.flatnonzero((most - values <= tolerance) & (values - least <= tolerance))[-1])

    first, last = stands_for(y), len(y) - 1 - stands_for(y[::-1])
    return (first, last) if first < last else (0, len(y) - 1)
