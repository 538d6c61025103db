"""Pareto fronts and hypervolumes, exact. Rows are designs, columns objectives, and less is always better.

>>> front(np.array([[1.0, 4.0], [2.0, 2.0], [3.0, 3.0]])).tolist()
[0, 1]
>>> hypervolume(np.array([[1.0, 4.0], [2.0, 2.0]]), np.array([5.0, 5.0]))
10.0
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["front", "hypervolume", "knee", "near_front", "normalised_hypervolume"]

Values = NDArray[np.float64]


def front(values: Values) -> NDArray[np.int64]:
    """Rows that no other row beats, in order; of rows with equal values, the first.

    A row beats another where it is nowhere worse and somewhere better.
    """
    count = len(values)
    if not count:
        return np.zeros(0, np.int64)
    order = np.lexsort((np.arange(count), *values.T[::-1]))  # by the first objective, ties by the next …
    kept = np.empty_like(values)
    rows: list[int] = []
    for at in order:  # whatever beats a row stands before it in this order
        n = len(rows)
        if n and bool(np.any(np.all(kept[:n] <= values[at], axis=1))):
            continue
        kept[n] = values[at]
        rows.append(int(at))
    return np.array(sorted(rows), np.int64)


def near_front(values: Values, margin: float, scaled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows that nothing would beat if their own `scaled` objectives were better by `margin` of their size.

    Parameters
    ----------
    margin : float
        Share of a value, as 0.05.
    scaled : array of bool
        Objectives that are not known exactly; the others stay.
    """
    if not len(values):
        return np.zeros(0, np.int64)
    best = values[front(values)]
    better = values - margin * np.abs(values) * scaled
    out = []
    for at, row in enumerate(better):
        beaten = np.all(best <= row, axis=1) & np.any(best < row, axis=1)
        # An exact equal of a row of the front is a tie, not a candidate of its own, and stays.
        if not bool(np.any(beaten)):
            out.append(at)
    return np.array(out, np.int64)


def hypervolume(values: Values, reference: Values) -> float:
    """Volume that rows dominate below `reference`; rows beyond it count for nothing.

    By slicing along the last objective (Zitzler 1999), down to two objectives, which are a staircase.
    """
    inside = values[np.all(values < reference, axis=1)]
    if not len(inside):
        return 0.0
    best = inside[front(inside)]
    if best.shape[1] == 1:
        return float(reference[0] - best[:, 0].min())
    if best.shape[1] == 2:
        steps = best[np.argsort(best[:, 0])]
        edges = np.append(steps[1:, 0], reference[0])
        return float(np.sum((edges - steps[:, 0]) * (reference[1] - steps[:, 1])))
    slices = best[np.argsort(best[:, -1], kind="stable")]
    tops = np.append(slices[1:, -1], reference[-1])
    total = 0.0
    for n, (low, high) in enumerate(zip(slices[:, -1], tops, strict=True), 1):
        if high > low:
            total += float(high - low) * hypervolume(slices[:n, :-1], reference[:-1])
    return total


def normalised_hypervolume(values: Values) -> float:
    """Share of the box between the best and the worst of each objective that the front dominates.

    1 where one row is best in everything. An objective on which all rows agree is left out.
    """
    if not len(values):
        return 0.0
    low, high = values.min(axis=0), values.max(axis=0)
    varies = high > low
    if not bool(varies.any()):
        return 1.0
    scaled = (values[:, varies] - low[varies]) / (high[varies] - low[varies])
    return float(hypervolume(scaled[front(scaled)], np.ones(int(varies.sum()))))


def knee(values: Values) -> int:
    """The row of a front nearest to the best of every objective, each scaled by its logarithm where it is positive."""
    positive = np.all(values > 0, axis=0)
    scaled = np.where(positive, np.log(np.where(positive, values, 1.0)), values)
    low, high = scaled.min(axis=0), scaled.max(axis=0)
    spread = np.where(high > low, high - low, 1.0)
    return int(np.argmin(np.sum(((scaled - low) / spread) ** 2, axis=1)))
