"""Two studies side by side: whose front is ahead, where, and by how much."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .explore_design import objective_values
from .explore_front import front, hypervolume
from .explore_study import Study
from .ir.errors import ReportError

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Study A against study B, in the objectives both have.

    Parameters
    ----------
    claim : str
        Of the values compared, the same on both sides.
    best : dict of objective to (A's, B's)
    hypervolume : (float, float)
        In the box that both fronts span together.
    beaten : (float, float)
        Share of A's front that some design of B beats, and the other way round.
    shared : int
        Designs on both fronts.
    together : (int, int)
        Designs of A and of B on the front of both together.
    """

    claim: str
    objectives: tuple[str, ...]
    best: dict[str, tuple[float, float]]
    hypervolume: tuple[float, float]
    beaten: tuple[float, float]
    shared: int
    together: tuple[int, int]
    networks: tuple[tuple[str, ...], tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": "tilewright.comparison/1", **asdict(self)}


def compare(a: Study, b: Study) -> Comparison:
    """Compare the fronts of two studies.

    Raises
    ------
    ReportError
        No objective in common, an empty front, or no claim that both have.
    """
    aims = [o for o in a.objectives if o in b.objectives]
    if not aims:
        raise ReportError(
            f"the studies share no objective: A has {', '.join(o.name for o in a.objectives)}, "
            f"B has {', '.join(o.name for o in b.objectives)}"
        )
    claim = a.claim if a.claim == b.claim else "estimate"
    values: list[NDArray[np.float64]] = []
    keys: list[list[str]] = []
    for which, study in (("A", a), ("B", b)):
        designs = study.with_claim(claim)
        if not designs:
            raise ReportError(
                f"study {which} has no feasible design with the claim {claim}: nothing to compare"
            )
        found = objective_values(designs, aims, claim)
        rows = front(found)
        values.append(found[rows])
        keys.append([designs[i].design for i in rows])
    both = np.vstack(values)
    low, high = both.min(axis=0), both.max(axis=0)
    spread = np.where(high > low, high - low, 1.0)
    # One tenth beyond the worst of both, so that the ends of a front count too.
    volumes = [hypervolume((v - low) / spread, np.full(len(aims), 1.1)) / 1.1 ** len(aims) for v in values]
    ahead = front(both)
    first = len(values[0])
    return Comparison(
        claim=claim,
        objectives=tuple(o.name for o in aims),
        best={
            o.name: (
                float(o.sign * values[0][:, j].min()),
                float(o.sign * values[1][:, j].min()),
            )
            for j, o in enumerate(aims)
        },
        hypervolume=(float(volumes[0]), float(volumes[1])),
        beaten=(_beaten(values[0], values[1]), _beaten(values[1], values[0])),
        shared=len(set(keys[0]) & set(keys[1])),
        together=(int(np.sum(ahead < first)), int(np.sum(ahead >= first))),
        networks=(a.networks, b.networks),
    )


def _beaten(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Share of my rows that one of theirs beats."""
    count = sum(bool(np.any(np.all(theirs <= row, axis=1) & np.any(theirs < row, axis=1))) for row in mine)
    return count / len(mine)
