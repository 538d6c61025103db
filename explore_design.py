"""One design of a study: its choices, its machine, its numbers under each claim, and why it may be infeasible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .explore_objectives import Combine, Objective, combined, measures
from .explore_points import misses
from .explore_space import Space
from .explore_store import Row, Status
from .ir.arch import Arch
from .ir.errors import ArchError

__all__ = ["Design", "design_of", "designs_of", "objective_values"]


@dataclass(frozen=True, slots=True)
class Design:
    """One design of a study.

    Parameters
    ----------
    design : str
        Hash of everything that is built and run.
    choices : dict of axis to value
    status : str
        evaluated, infeasible or failed.
    reasons : tuple of str
        Why it is infeasible or failed.
    estimate, simulated : dict of quantity to number
        Over all networks; two claims that are never mixed. Empty where not known.
    networks : dict of network to dict of claim to dict of quantity
    """

    design: str
    number: int
    choices: dict[str, Any]
    status: Status
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    machine: dict[str, Any] = field(default_factory=dict, repr=False)
    resources: dict[str, float] = field(default_factory=dict)
    estimate: dict[str, float] = field(default_factory=dict)
    simulated: dict[str, float] = field(default_factory=dict)
    networks: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict, repr=False)

    @property
    def claim(self) -> str:
        """The best claim there is: simulated, else estimate; "" where it was not evaluated."""
        return "simulated" if self.simulated else "estimate" if self.estimate else ""

    @property
    def values(self) -> dict[str, float]:
        """Quantities of that claim, and the design's own."""
        return {**(self.simulated or self.estimate), **self.resources}

    @property
    def arch(self) -> Arch:
        """The machine."""
        if not self.machine.get("arch"):
            raise ArchError(f"design {self.design} is no legal machine: {'; '.join(self.reasons)}")
        return Arch.build(self.machine["arch"], where=f"design {self.design}")

    def told(self) -> str:
        """Its choices in one line."""
        return ", ".join(f"{k} {_short(v)}" for k, v in self.choices.items())


def design_of(row: Row, space: Space, weights: Mapping[str, float], combine: Combine) -> Design:
    """A stored row with its quantities worked out and its constraints on results checked."""
    claims: dict[str, dict[str, float]] = {"estimate": {}, "simulated": {}}
    each: dict[str, dict[str, dict[str, float]]] = {name: {} for name in row.networks}
    for claim, costs in (("estimate", row.estimate), ("simulated", row.simulated)):
        if not costs:
            continue
        found = {
            name: measures(
                cost,
                clock_mhz=row.machine["clock_mhz"],
                cores=row.machine["cores"],
                macs_per_cycle=row.machine["macs_per_cycle"],
                dram_gb_s=row.machine["dram_gb_s"],
            )
            for name, cost in costs.items()
        }
        for name, quantities in found.items():
            each[name][claim] = quantities
        claims[claim] = combined(found, weights, combine, row.resources["dsp"])
    resources = dict(row.resources)
    if row.sqnr:
        total = sum(weights[n] for n in row.sqnr)
        mean = sum(weights[n] * v for n, v in row.sqnr.items()) / total
        resources["sqnr_db"] = min(row.sqnr.values()) if combine == "worst" else mean
    status, reasons = row.status, row.reasons
    claim = "simulated" if claims["simulated"] else "estimate"
    if status == "evaluated" and claims[claim]:
        known = {**row.machine["quantities"], **resources, **claims[claim]}
        wanted = [e for e in space.requirements if set(e.names) - row.machine["quantities"].keys()]
        missed = misses([e for e in wanted if set(e.names) <= known.keys()], known, claim)
        if missed:
            status, reasons = "infeasible", tuple(missed)
    return Design(
        row.design,
        row.number,
        row.choices,
        status,
        reasons,
        row.notes,
        row.machine,
        resources,
        claims["estimate"],
        claims["simulated"],
        each,
    )


def objective_values(
    designs: Sequence[Design], objectives: Sequence[Objective], claim: str
) -> NDArray[np.float64]:
    """A row a design, a column an objective; less is better in all of them."""
    out = np.empty((len(designs), len(objectives)))
    for i, design in enumerate(designs):
        results = design.simulated if claim == "simulated" else design.estimate
        for j, objective in enumerate(objectives):
            source = design.resources if objective.exact else results
            out[i, j] = objective.sign * source[objective.column]
    return out


def designs_of(
    rows: Iterable[Row], space: Space, weights: Mapping[str, float], combine: Combine
) -> tuple[Design, ...]:
    """Designs of stored rows, in order."""
    return tuple(
        design_of(row, space, weights, combine) for row in sorted(rows, key=lambda r: (r.number, r.design))
    )


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} {v}" for k, v in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
