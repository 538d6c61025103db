"""A study of designs as values that its report needs; whoever explored fills them in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Agreement", "Aim", "Candidate", "Group", "StudyFacts", "grouped"]


@dataclass(frozen=True, slots=True)
class Aim:
    """An objective: its name, what it says, its unit, and which way is better."""

    name: str
    title: str
    unit: str
    maximise: bool
    exact: bool

    @property
    def label(self) -> str:
        return f"{self.title}, {self.unit}" if self.unit else self.title


@dataclass(frozen=True, slots=True)
class Candidate:
    """A feasible design.

    Parameters
    ----------
    choices : tuple of int
        Its place on each axis.
    estimate, simulated : tuple of float
        A value an objective; empty where not known. Two claims.
    """

    number: int
    design: str
    choices: tuple[int, ...]
    estimate: tuple[float, ...]
    simulated: tuple[float, ...]
    front: bool = False
    drawn: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Designs that fail for one reason: the reason with its numbers left out, how many, and one of them."""

    reason: str
    count: int
    example: str
    example_design: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well the estimate foretold a quantity on some designs."""

    quantity: str
    designs: str
    points: int
    mean_error: float
    worst_error: float
    bias: float
    rank_correlation: float | None


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """Everything a study's report shows.

    Parameters
    ----------
    axes : dict of axis to labels of its choices
    claim : str
        Of the front: simulated or estimate.
    picks : tuple of (title, design)
        Designs that a reader wants first: the best in each objective, and the balanced one.
    sensitivity : dict of axis to dict of objective to share of variance
    """

    title: str
    networks: tuple[str, ...]
    aims: tuple[Aim, ...]
    axes: Mapping[str, tuple[str, ...]]
    candidates: tuple[Candidate, ...]
    claim: str
    method: str
    space_size: int
    met: int
    evaluated: int
    simulated: int
    complete: bool
    margin: float
    seconds: float
    hypervolume: float
    infeasible: tuple[Group, ...]
    failed: tuple[Group, ...]
    agreements: tuple[Agreement, ...]
    sensitivity: Mapping[str, Mapping[str, float]]
    picks: tuple[tuple[str, str], ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    space_toml: str = ""
    notes: tuple[str, ...] = ()

    @property
    def front(self) -> tuple[Candidate, ...]:
        """The front, best in the first objective first."""
        sign = -1.0 if self.aims[0].maximise else 1.0
        rows = [c for c in self.candidates if c.front]
        return tuple(sorted(rows, key=lambda c: (sign * self.values(c)[0], c.number)))

    def values(self, candidate: Candidate) -> tuple[float, ...]:
        """A value an objective, of the best claim known."""
        return candidate.simulated or candidate.estimate


_NUMBER = re.compile(r"(?<![A-Za-z_.\d])[-+]?\d[\d,]*(?:\.\d+)?")


def grouped(reasons: Iterable[tuple[str, Sequence[str]]]) -> tuple[Group, ...]:
    """Reasons that differ in numbers alone as one, the most frequent first.

    Parameters
    ----------
    reasons : iterable of (design, sentences)

    >>> grouped([("a", ["needs 9 DSP, has 4"]), ("b", ["needs 8 DSP, has 4"])])[0].reason
    'needs … DSP, has 4'
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for design, sentences in reasons:
        for sentence in dict.fromkeys(sentences):
            found.setdefault(_NUMBER.sub("…", sentence), []).append((sentence, design))
    out = []
    for members in found.values():
        out.append(Group(_common([m[0] for m in members]), len(members), *members[0]))
    return tuple(sorted(out, key=lambda g: (-g.count, g.reason)))


def _common(sentences: Sequence[str]) -> str:
    """One sentence for all: numbers stay where they are the same everywhere."""
    numbers = [_NUMBER.findall(s) for s in sentences]
    same: list[Any] = [column[0] if len(set(column)) == 1 else "…" for column in zip(*numbers, strict=True)]
    parts = _NUMBER.split(sentences[0])
    return "".join(a + b for a, b in zip(parts, [*same, ""], strict=True))
