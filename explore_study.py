"""The answer of an exploration: every design with its numbers, the front, and what can be asked of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .explore_design import Design, objective_values
from .explore_expression import parse
from .explore_front import front, knee, normalised_hypervolume
from .explore_objectives import DESIGN, MEASURED_QUANTITIES, Objective, named
from .explore_points import make_point
from .explore_space import Space
from .explore_statistics import Agreement, agreement, sensitivity
from .explore_store import SCHEMA
from .ir.errors import ArchError

__all__ = ["Design", "Study"]


@dataclass(frozen=True, eq=False)
class Study:
    """What an exploration found.

    Parameters
    ----------
    designs : tuple of Design
        Every one that was met, in order; infeasible and failed ones too.
    claim : str
        Of the front: simulated, or estimate where nothing was simulated.
    sample : tuple of str
        Hashes of designs that were drawn to judge the estimate, whatever they promised.
    complete : bool
        Every design within the margin of the front was simulated.
    seconds : float
        Wall-clock time of this run.
    """

    space: Space
    objectives: tuple[Objective, ...]
    designs: tuple[Design, ...]
    networks: tuple[str, ...]
    claim: str
    sample: tuple[str, ...] = ()
    complete: bool = True
    margin: float = 0.0
    method: str = "exhaustive"
    seconds: float = 0.0
    seed: int = 0
    folder: Path | None = None
    provenance: dict[str, str] = field(default_factory=dict)

    # -- groups of designs -----------------------------------------------------------------------------------------------
    @cached_property
    def feasible(self) -> tuple[Design, ...]:
        """Designs that keep every constraint."""
        return tuple(d for d in self.designs if d.status == "evaluated")

    @cached_property
    def infeasible(self) -> tuple[Design, ...]:
        """Designs that do not, with their reasons."""
        return tuple(d for d in self.designs if d.status == "infeasible")

    @cached_property
    def failed(self) -> tuple[Design, ...]:
        """Designs at which the model itself failed."""
        return tuple(d for d in self.designs if d.status == "failed")

    @cached_property
    def simulated(self) -> tuple[Design, ...]:
        """Designs that were simulated."""
        return tuple(d for d in self.designs if d.simulated)

    def with_claim(self, claim: str) -> tuple[Design, ...]:
        """Feasible designs of which this claim is known."""
        return tuple(d for d in self.feasible if (d.simulated if claim == "simulated" else d.estimate))

    @cached_property
    def pareto(self) -> tuple[Design, ...]:
        """The front, by the first objective, best first; all of one claim, `claim`."""
        return self.front_of(self.claim)

    def front_of(self, claim: str) -> tuple[Design, ...]:
        """The front of one claim."""
        designs = self.with_claim(claim)
        values = objective_values(designs, self.objectives, claim)
        rows = sorted(front(values), key=lambda i: (*values[i], i))
        return tuple(designs[i] for i in rows)

    def best(self, objective: str = "", *, where: str = "") -> Design:
        """One design: the best in an objective, or the most balanced one of the front.

        Parameters
        ----------
        objective : str, optional
            Name of any objective; default: the design of the front nearest to the best of all, on logarithmic scales.
        where : str, optional
            An expression that must be true of it, as ``"dsp <= 400"``.

        Raises
        ------
        ArchError
            Nothing is feasible, or nothing is true of `where`.
        """
        pool = list(self.with_claim(self.claim) if objective else self.pareto)
        if where:
            rule = parse(where, self.space.quantities, where="where")
            pool = [
                d
                for d in pool
                if rule.value({**make_point(self.space, d.choices, d.number).quantities, **d.values})
            ]
        if not pool:
            raise ArchError(
                f"no design to choose from: {len(self.designs):,} were met, {len(self.infeasible):,} are infeasible"
                + (f", and `{where}` leaves none" if where else "")
            )
        if not objective:
            return pool[knee(objective_values(pool, self.objectives, self.claim))]
        (wanted,) = named([objective])
        if wanted.exact and wanted.column not in pool[0].resources:
            raise ArchError(
                f"objective {objective}: was not measured in this study; name it among the objectives"
            )
        # Ties in the one are broken by the others.
        values = objective_values(pool, [wanted, *self.objectives], self.claim)
        return pool[min(range(len(pool)), key=lambda i: (*values[i], i))]

    # -- numbers about the study -------------------------------------------------------------------------------------------
    @cached_property
    def hypervolume(self) -> float:
        """Share of the box between best and worst feasible values that the front dominates."""
        return normalised_hypervolume(
            objective_values(self.with_claim(self.claim), self.objectives, self.claim)
        )

    def agreement(self, column: str = "latency_ms", *, sample_only: bool = False) -> Agreement | None:
        """How well the estimate foretold a quantity, on all simulated designs or on the random sample alone."""
        both = [d for d in self.designs if d.estimate and d.simulated]
        if sample_only:
            both = [d for d in both if d.design in set(self.sample)]
        return agreement(
            np.array([d.estimate[column] for d in both]), np.array([d.simulated[column] for d in both])
        )

    @property
    def estimate_error(self) -> float | None:
        """Mean error of the estimated latency, as a share, on the designs that were simulated."""
        found = self.agreement()
        return found.mean_error if found else None

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's rank correlation of estimated and simulated latency."""
        found = self.agreement()
        return found.rank_correlation if found else None

    @cached_property
    def sensitivity(self) -> dict[str, dict[str, float]]:
        """For each axis and objective, the share of variance that the axis explains alone."""
        claim = "estimate" if self.with_claim("estimate") else "simulated"
        designs = self.with_claim(claim)
        values = objective_values(designs, self.objectives, claim)
        choices = [d.choices for d in designs]
        return {
            axis: {
                o.name: sensitivity(choices, axis, o.sign * values[:, j])
                for j, o in enumerate(self.objectives)
            }
            for axis in self.space.axes
        }

    # -- out -----------------------------------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """What `tilewright explore --json` prints."""

        def told(d: Design) -> dict[str, Any]:
            return {
                "design": d.design,
                "number": d.number,
                "claim": self.claim,
                "choices": d.choices,
                "arch": d.machine["arch"],
                "board": d.machine["board"],
                "dram": d.machine["dram"],
                "objectives": {o.name: d.values[o.column] for o in self.objectives},
                "resources": d.resources,
                "estimate": d.estimate,
                "simulated": d.simulated,
                "notes": list(d.notes),
            }

        agreements = {
            column: {
                "all": _plain(self.agreement(column)),
                "sample": _plain(self.agreement(column, sample_only=True)),
            }
            for column in ("latency_ms", "energy_mj", "dram_bytes")
        }
        return {
            "schema": SCHEMA,
            "title": self.space.title,
            "networks": list(self.networks),
            "objectives": [o.name for o in self.objectives],
            "space_size": self.space.size,
            "method": self.method,
            "claim": self.claim,
            "points_evaluated": sum(bool(d.claim) for d in self.designs),
            "points_simulated": len(self.simulated),
            "points_infeasible": len(self.infeasible),
            "points_failed": len(self.failed),
            "seconds": round(self.seconds, 3),
            "hypervolume": self.hypervolume,
            "front_complete": self.complete,
            "margin": self.margin,
            "estimate_error": self.estimate_error,
            "rank_correlation": self.rank_correlation,
            "agreement": agreements,
            "sensitivity": self.sensitivity,
            "pareto": [told(d) for d in self.pareto],
            "seed": self.seed,
            "provenance": self.provenance,
        }

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1, sort_keys=True) + "\n"

    def table(self) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Columns and a row a design; the claim stands in each result's column name."""
        axes = tuple(self.space.axes)
        results = (*MEASURED_QUANTITIES, "cycles", "utilization")
        on_front = {d.design for d in self.pareto}
        own = (*DESIGN, *(("sqnr_db",) if any("sqnr_db" in d.resources for d in self.designs) else ()))
        columns = (
            "number",
            "design",
            "status",
            "pareto",
            "claim",
            *(f"axis.{a}" for a in axes),
            *own,
            *(f"{claim}.{c}" for claim in ("estimate", "simulated") for c in results),
            *(
                f"{n}.{claim}.{c}"
                for n in self.networks
                for claim in ("estimate", "simulated")
                for c in ("cycles", "energy_mj", "dram_bytes")
            ),
            "reasons",
            "notes",
        )
        rows = []
        for d in self.designs:
            each = [
                d.networks.get(n, {}).get(claim, {}).get(c)
                for n in self.networks
                for claim in ("estimate", "simulated")
                for c in ("cycles", "energy_mj", "dram_bytes")
            ]
            rows.append(
                (
                    d.number,
                    d.design,
                    d.status,
                    d.design in on_front,
                    d.claim,
                    *(_cell(d.choices.get(a)) for a in axes),
                    *(d.resources.get(c) for c in own),
                    *(d.estimate.get(c) for c in results),
                    *(d.simulated.get(c) for c in results),
                    *each,
                    "; ".join(d.reasons),
                    "; ".join(d.notes),
                )
            )
        return columns, rows

    def to_csv(self, path: str | Path | None = None) -> str:
        """Every design as CSV text, and into a file where one is named."""
        import csv
        import io

        from .folder import write_whole

        columns, rows = self.table()
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        if path is not None:
            write_whole(Path(path), out.getvalue().encode())
        return out.getvalue()

    def to_parquet(self, path: str | Path) -> Path:
        """Every design as a Parquet file; needs pyarrow, extra ``[data]``."""
        from .explore_export import parquet
        from .folder import write_whole

        write_whole(Path(path), parquet(*self.table(), facts=self.to_json()))
        return Path(path)

    def report(self, folder: str | Path, *, figures: bool = True) -> tuple[str, ...]:
        """Write ``report.html``, figures, ``study.json`` and ``designs.csv`` into a folder; names of the files."""
        from .explore_export import write_report

        return write_report(self, Path(folder), figures=figures)

    def page(self) -> str:
        """``report.html`` as text."""
        from .explore_export import facts_of
        from .reports.study_page import study_page

        return study_page(facts_of(self))

    def summary(self, most: int = 12) -> str:
        """The study as text for a terminal."""
        from .explore_export import summary

        return summary(self, most)

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from .explore_export import notebook

        return notebook(self)


def _plain(found: Agreement | None) -> dict[str, Any] | None:
    return asdict(found) if found is not None else None


def _cell(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list | tuple) else value
