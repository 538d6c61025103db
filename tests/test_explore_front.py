"""Fronts and hypervolumes against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tilewright.explore_front import front, hypervolume, knee, near_front, normalised_hypervolume
from tilewright.explore_statistics import agreement, sensitivity, spearman

Rows = NDArray[np.float64]
tables = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 6), min_size=n, max_size=n), min_size=1, max_size=14)
)


def naive_front(values: Rows) -> list[int]:
    """By the definition; of equal rows the first."""
    out = []
    for i, a in enumerate(values):
        beaten = any(np.all(b <= a) and np.any(b < a) for b in values)
        if not beaten and not any(np.array_equal(values[j], a) for j in range(i)):
            out.append(i)
    return out


def naive_volume(values: Rows, reference: Rows) -> float:
    """Unit cells of an integer grid that some row dominates."""
    cells = itertools.product(*(range(int(r)) for r in reference))
    return float(sum(any(np.all(row <= cell) for row in values) for cell in cells))


@given(tables)
def test_the_front_is_what_nothing_beats(rows: list[list[int]]) -> None:
    values = np.array(rows, float)
    assert front(values).tolist() == naive_front(values)


@given(tables)
def test_the_hypervolume_is_exact(rows: list[list[int]]) -> None:
    values = np.array(rows, float)
    reference = np.full(values.shape[1], 7.0)
    assert hypervolume(values, reference) == pytest.approx(naive_volume(values, reference))


@given(tables, st.sampled_from([0.0, 0.1, 0.5]))
def test_designs_near_the_front_hold_the_front_and_grow_with_the_margin(
    rows: list[list[int]], margin: float
) -> None:
    values = np.array(rows, float) + 1
    scaled = np.ones(values.shape[1], bool)
    near = set(near_front(values, margin, scaled).tolist())
    assert set(front(values).tolist()) <= near
    assert near <= set(near_front(values, margin + 0.2, scaled).tolist())
    assert set(near_front(values, 0.9, np.zeros_like(scaled)).tolist()) == {
        i for i, row in enumerate(values) if any(np.array_equal(row, values[j]) for j in front(values))
    }


def test_one_best_design_fills_the_box_and_the_knee_is_balanced() -> None:
    assert normalised_hypervolume(np.array([[1.0, 1.0], [2.0, 2.0]])) == 1.0
    assert normalised_hypervolume(np.empty((0, 2))) == 0.0
    assert knee(np.array([[1.0, 100.0], [10.0, 10.0], [100.0, 1.0]])) == 1


def test_rank_correlation_is_spearmans() -> None:
    """Against the textbook formula for ranks without ties, and what ties and constants do."""
    rng = np.random.default_rng(0)
    a, b = rng.permutation(50).astype(float), rng.permutation(50).astype(float)
    formula = 1 - 6 * np.sum((a - b) ** 2) / (50 * (50**2 - 1))
    assert spearman(np.exp(a / 10), b) == pytest.approx(formula)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0])) == 1.0
    assert spearman(np.ones(4), np.arange(4.0)) is None
    found = agreement(np.array([90.0, 110.0]), np.array([100.0, 100.0]))
    assert found is not None
    assert (found.mean_error, found.bias, found.rank_correlation) == (
        pytest.approx(0.1),
        pytest.approx(0.0),
        None,
    )
    assert agreement(np.empty(0), np.empty(0)) is None


def test_an_axis_that_decides_alone_explains_all() -> None:
    choices = [{"a": a, "b": b} for a in (1, 2, 3) for b in (1, 2)]
    values = np.array([10.0 ** c["a"] for c in choices])
    assert sensitivity(choices, "a", values) == pytest.approx(1.0)
    assert sensitivity(choices, "b", values) == pytest.approx(0.0)
    assert sensitivity(choices, "b", np.ones(6)) == 0.0
