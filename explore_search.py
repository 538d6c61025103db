"""Which designs to look at: all of them where the space allows, else an evolution towards the front (NSGA-II, optuna).

Both are functions of the space and the seed alone. The evolution asks for whole generations and is told their results
in the order of asking, so it takes the same way whoever evaluates them; a resumed run goes that way again, and finds
what it evaluated before in the table.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .explore_campaign import Campaign
from .explore_design import Design, objective_values
from .explore_evaluate import Level
from .explore_points import Point, make_point, numbered
from .explore_space import Space
from .ir.errors import ArchError

if TYPE_CHECKING:
    import optuna

__all__ = ["JOURNAL", "chosen_method", "search"]

JOURNAL = "journal.log"
"""The evolution as optuna's journal, for its dashboards; written anew by each run."""
STILL = 8
"""Generations without a new design that end the evolution: it has converged, or the space is exhausted."""
_WORST = 1e30
"""Told of an infeasible design; how far it is from feasible decides among those."""


def chosen_method(space: Space) -> str:
    """exhaustive or nsga2."""
    if space.search.method != "auto":
        return space.search.method
    return "exhaustive" if space.size <= space.search.exhaustive_up_to else "nsga2"


def search(campaign: Campaign, level: Level, *, seed: int, folder: Path | None = None) -> str:
    """Evaluate designs of the space at a level; the method that was used."""
    method = chosen_method(campaign.space)
    if method == "exhaustive":
        if campaign.space.size > 5_000_000:
            raise ArchError(
                f"an exhaustive search of {campaign.space.size:,} designs is beyond reason; take fewer choices, or method = "
                '"nsga2"'
            )
        campaign.evaluate(numbered(campaign.space), level)
    else:
        _evolve(campaign, level, seed, folder)
    return method


def _evolve(campaign: Campaign, level: Level, seed: int, folder: Path | None) -> None:
    """Generations of NSGA-II until the budget is spent or nothing new comes."""
    optuna = _optuna()
    space = campaign.space
    study = _new_study(optuna, campaign, seed, folder)
    kinds = _distributions(optuna, space)
    met: dict[str, Point] = {}
    still = evaluated = 0
    while evaluated < space.search.evaluations and still < STILL:
        asked: list[tuple[Any, Point | None]] = []
        still += 1
        for _ in range(space.search.population):
            trial = study.ask(kinds)
            point = make_point(space, {a: space.axes[a][trial.params[a]] for a in space.axes}, len(met))
            if point.key not in met:
                if not point.reasons:
                    if evaluated >= space.search.evaluations:
                        asked.append((trial, None))
                        continue
                    evaluated += 1
                met[point.key] = point
                still = 0
            asked.append((trial, met[point.key]))
        generation = {p.key: p for _, p in asked if p is not None}
        campaign.evaluate(generation.values(), level)
        for trial, chosen in asked:
            if chosen is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            values, violation = _judged(campaign.design(chosen.key), campaign, level)
            trial.set_constraint("feasible", violation)
            trial.set_user_attr("design", chosen.key)
            study.tell(trial, values)


def _judged(design: Design, campaign: Campaign, level: Level) -> tuple[list[float], float]:
    """Values and violation as the evolution hears of them."""
    if design.status == "evaluated":
        return [float(v) for v in objective_values([design], campaign.objectives, level)[0]], 0.0
    return [_WORST] * len(campaign.objectives), float(max(1, len(design.reasons)))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ArchError(
            "the space is too large to look at every design, and optuna, which searches it, is not installed: "
            "pip install 'tilewright[explore]', or take fewer choices (search.exhaustive_up_to)"
        ) from None
    logging.getLogger("optuna").setLevel(logging.ERROR)
    return optuna


def _new_study(optuna: Any, campaign: Campaign, seed: int, folder: Path | None) -> optuna.Study:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if folder is None:
            storage: Any = optuna.storages.InMemoryStorage()
        else:
            path = folder / JOURNAL
            path.unlink(missing_ok=True)
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        sampler = optuna.samplers.NSGAIISampler(
            population_size=campaign.space.search.population,
            seed=seed,
        )
        return optuna.create_study(
            study_name=campaign.space.title or "space",
            storage=storage,
            sampler=sampler,
            directions=["minimize"] * len(campaign.objectives),
        )


def _distributions(optuna: Any, space: Space) -> Mapping[str, Any]:
    """Places in the lists of choices: numbers in order, words as they come."""
    out = {}
    for axis, values in space.axes.items():
        last = len(values) - 1
        ordered = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        out[axis] = (
            optuna.distributions.IntDistribution(0, last)
            if ordered and last
            else optuna.distributions.CategoricalDistribution(tuple(range(last + 1)))
        )
    return out
