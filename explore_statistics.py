"""How good the estimate is, and which axis matters: rank correlation, errors, sensitivity.

>>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 90.0]))
1.0
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Agreement", "agreement", "ranks", "sensitivity", "spearman"]

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well the estimate foretells the simulation, on `points` designs.

    Parameters
    ----------
    mean_error, worst_error : float
        Of |estimate - simulated| / simulated.
    bias : float
        Mean of (estimate - simulated) / simulated: below 0, the estimate is optimistic.
    rank_correlation : float or None
        Spearman's; None for fewer than three designs, or where all are equal.
    """

    points: int
    mean_error: float
    worst_error: float
    bias: float
    rank_correlation: float | None


def agreement(estimate: Values, simulated: Values) -> Agreement | None:
    """Compare two claims about the same designs; None where there are no designs."""
    if not len(estimate):
        return None
    relative = (estimate - simulated) / np.where(simulated != 0, simulated, 1.0)
    rho = spearman(estimate, simulated) if len(estimate) >= 3 else None
    return Agreement(
        len(estimate),
        float(np.mean(np.abs(relative))),
        float(np.max(np.abs(relative))),
        float(np.mean(relative)),
        rho,
    )


def ranks(values: Values) -> Values:
    """Ranks from 1; equal values share the mean of theirs.

    >>> ranks(np.array([5.0, 1.0, 5.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    out: Values = ((2 * ends - counts + 1) / 2.0)[inverse.reshape(-1)]
    return out


def spearman(a: Values, b: Values) -> float | None:
    """Spearman's rank correlation; None where one side has no order."""
    x, y = ranks(a) - (len(a) + 1) / 2, ranks(b) - (len(b) + 1) / 2
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return round(float(x @ y) / spread, 12) if spread else None


def sensitivity(choices: Sequence[Mapping[str, Any]], axis: str, values: Values) -> float:
    """Share of the variance of an objective that an axis explains alone: the squared correlation ratio.

    0: its choices have equal means; 1: nothing else matters. Positive objectives are taken as logarithms, so that
    a factor counts the same everywhere. On a whole grid this is Sobol's first-order index.
    """
    if len(values) < 2:
        return 0.0
    y = np.log(values) if bool(np.all(values > 0)) else values
    total = float(np.var(y))
    if total <= 1e-18:
        return 0.0
    labels = np.array([repr(c.get(axis)) for c in choices])
    mean, between = float(np.mean(y)), 0.0
    for label in np.unique(labels):
        group = y[labels == label]
        between += len(group) * (float(np.mean(group)) - mean) ** 2
    return min(1.0, between / len(y) / total)
