"""Two levels of truth: which designs of an estimated study are worth simulating.

The front of the estimates, everything that an error of the estimate within the margin could bring there, and a random
sample that the promise of no design has drawn. What simulation says moves the front, so this is repeated until no
design within the margin is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .explore_campaign import Campaign
from .explore_design import Design, objective_values
from .explore_front import near_front
from .explore_objectives import MEASURED_QUANTITIES, OBJECTIVES
from .explore_points import misses

__all__ = ["Confirmation", "confirm", "drawn"]

_ROUNDS = 20
"""More would mean that the estimate and the simulation have nothing to do with each other."""
_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Parts of the margin, by which designs are ordered where not all may be simulated."""
_MORE = {o.column for o in OBJECTIVES.values() if o.maximise} | {"utilization"}


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What was simulated.

    Parameters
    ----------
    complete : bool
        No design within the margin is left without.
    sample : tuple of str
        Hashes of the random designs.
    """

    complete: bool
    sample: tuple[str, ...]


def confirm(campaign: Campaign, *, margin: float, sample: int, most: int, seed: int) -> Confirmation:
    """Simulate the front, a margin around it, and a random sample.

    Parameters
    ----------
    margin : float
        Share by which a design may miss the front and is still simulated.
    sample : int
        Designs drawn at random among those with an estimate.
    most : int
        Simulated for the front at most.
    """
    keys = [k for k, r in campaign.rows.items() if r.estimate and k in campaign.points]
    keys.sort(key=lambda k: campaign.rows[k].number)
    judges = drawn(keys, sample, seed)
    campaign.evaluate([campaign.points[k] for k in judges], "simulated")
    tried: set[str] = set()
    for _ in range(_ROUNDS):
        wanted = [k for k in _within(campaign, keys, margin) if k not in tried]
        left = most - len(tried)
        tried |= set(wanted[:left])
        campaign.evaluate([campaign.points[k] for k in wanted[:left]], "simulated")
        if len(wanted) > left:
            return Confirmation(False, judges)
        if not wanted:
            return Confirmation(True, judges)
    return Confirmation(False, judges)


def drawn(keys: Sequence[str], sample: int, seed: int) -> tuple[str, ...]:
    """Some keys at random, in their order.

    >>> drawn(["a", "b", "c"], 5, 0)
    ('a', 'b', 'c')
    """
    count = min(sample, len(keys))
    if not count:
        return ()
    chosen = np.random.default_rng(seed).choice(len(keys), count, replace=False)
    return tuple(keys[i] for i in sorted(chosen))


def _within(campaign: Campaign, keys: Sequence[str], margin: float) -> list[str]:
    """Designs not further from the front than the margin: the best in each objective, then the nearest first.

    Where some are simulated, the estimates of the others are corrected by the median of simulated / estimate.
    """
    candidates = [d for k in keys if _may_hold(d := campaign.design(k), campaign, margin)]
    if not candidates:
        return []
    objectives = campaign.objectives
    values = objective_values(candidates, objectives, "estimate")
    known = np.array([bool(d.simulated) for d in candidates])
    if known.any():
        told = objective_values([d for d in candidates if d.simulated], objectives, "simulated")
        base = np.where(values[known] != 0, values[known], 1.0)
        values = values * np.median(np.where(values[known] != 0, told / base, 1.0), axis=0)
        values[known] = told
    unsure: NDArray[np.bool_] = np.array([not o.exact for o in objectives])
    order = dict.fromkeys(int(i) for i in values.argmin(axis=0))
    for step in _STEPS:
        order |= dict.fromkeys(int(i) for i in near_front(values, margin * step, unsure))
    # Known ones stay in the list: their own evaluation costs nothing, and the count of the front is honest.
    return [candidates[i].design for i in order]


def _may_hold(design: Design, campaign: Campaign, margin: float) -> bool:
    """Feasible, or by its estimate so near to it that only simulation can tell."""
    if design.status == "evaluated":
        return True
    row = campaign.rows[design.design]
    if row.status != "evaluated" or design.simulated:
        return False
    better = {c: v * ((1 + margin) if c in _MORE else (1 - margin)) for c, v in design.estimate.items()}
    known = {**row.machine["quantities"], **design.resources, **better}
    rules = [e for e in campaign.space.requirements if set(e.names) & set(MEASURED_QUANTITIES)]
    return not misses([e for e in rules if set(e.names) <= known.keys()], known)
