"""A study's ``report.html``: all designs in linked drawings, the front, what matters, and what did not fit.

One file under the same policy as a network's report: one script, one style sheet, nothing from outside. Without
scripts the front, the sensitivities, the estimate's errors and the reasons are there all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from .inline import json_block, part, policy
from .palette import count, plain, short
from .study import Agreement, Aim, Candidate, StudyFacts
from .study_drawing import agreement_drawing, effects_drawing, share_bar

__all__ = ["DRAWN", "sentence", "shown", "study_page"]

DRAWN = 1500
"""Designs in the page's drawings: more is a cloud either way, and makes the file slow to open."""
ROWS = 150
"""Of the front in the page's table."""


def study_page(facts: StudyFacts) -> str:
    """The page as text."""
    from jinja2 import Environment, StrictUndefined

    style, script = part("report.css") + part("study.css"), part("study.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "short": short,
        "count": count,
        "plain": plain,
        "plainlines": lambda text: "\n".join(plain(line) for line in text.splitlines()),
        "pct": lambda v, d=1: f"{v:.{d}%}",
    }
    drawn = _drawn(facts)
    by_design = {c.design: c for c in facts.candidates}
    axes = list(facts.axes)

    def choice(candidate: Candidate, axis: str) -> str:
        return facts.axes[axis][candidate.choices[axes.index(axis)]]

    varied = [a for a in axes if len(facts.axes[a]) > 1]
    return environment.from_string(part("study.html.j2")).render(
        facts=facts,
        sentence=sentence(facts),
        method={"exhaustive": "every one looked at", "nsga2": "searched by NSGA-II"}[facts.method],
        picks=[(title, by_design[d]) for title, d in facts.picks],
        aims_of=lambda c: list(zip(facts.aims, facts.values(c), strict=True)),
        choices_of=lambda c: ", ".join(f"{a} {choice(c, a)}" for a in varied),
        choice=choice,
        varied=varied,
        shown=shown,
        number=_number,
        infeasible=facts.met - len(facts.candidates) - sum(g.count for g in facts.failed),
        failed=sum(g.count for g in facts.failed),
        latency=_headline(facts.agreements),
        front=facts.front[:ROWS],
        front_hidden=max(0, len(facts.front) - ROWS),
        hidden=len(facts.candidates) - len(drawn),
        ranked=sorted(facts.sensitivity, key=lambda a: -max(facts.sensitivity[a].values(), default=0.0)),
        share_bar=share_bar,
        effects=effects_drawing(facts),
        agreement=agreement_drawing(facts),
        policy=policy(style, script),
        style=style,
        script=script,
        data=json_block(_data(facts, drawn)),
    )


def sentence(facts: StudyFacts) -> str:
    """What was found, in a sentence."""
    feasible = len(facts.candidates)
    if not feasible:
        return f"None of {facts.met:,} designs keeps every constraint."
    front = len(facts.front)
    part_ = f"{front:,} {'is' if front == 1 else 'are'} on the {facts.claim} front"
    return f"Of {facts.met:,} designs, {feasible:,} keep{'s' if feasible == 1 else ''} every constraint and {part_}."


def shown(aim: Aim, value: float) -> str:
    """A value with its unit."""
    return f"{_number(value)} {aim.unit}".rstrip()


def _number(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.4g} M"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _headline(agreements: Sequence[Agreement]) -> Agreement | None:
    """Of latency, on the random sample where there is one that says something."""
    latency = [a for a in agreements if a.quantity == "latency"]
    random = [a for a in latency if a.designs == "random sample" and a.points >= 3]
    return next(iter(random or latency), None)


def _drawn(facts: StudyFacts) -> list[Candidate]:
    """Front and simulated designs, and the others evenly."""
    must = [c for c in facts.candidates if c.front or c.simulated]
    rest = [c for c in facts.candidates if not (c.front or c.simulated)]
    room = max(0, DRAWN - len(must))
    if len(rest) > room:
        rest = [rest[i * len(rest) // room] for i in range(room)] if room else []
    return sorted([*must, *rest], key=lambda c: c.number)


def _data(facts: StudyFacts, drawn: Sequence[Candidate]) -> dict[str, Any]:
    return {
        "aims": [
            {"name": a.name, "title": a.title, "unit": a.unit, "maximise": a.maximise} for a in facts.aims
        ],
        "axes": [
            {"name": plain(n), "index": i, "labels": [plain(v) for v in labels]}
            for i, (n, labels) in enumerate(facts.axes.items())
        ],
        # number, 1 simulated + 2 on the front, places on the axes, values
        "points": [
            [
                c.number,
                bool(c.simulated) + 2 * c.front,
                list(c.choices),
                [float(f"{v:.5g}") if isfinite(v) else 0.0 for v in facts.values(c)],
            ]
            for c in drawn
        ],
    }
