"""The still drawings of a study's page: SVG made of classes, with their numbers as text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from .palette import plain, short, shorten
from .study import Aim, Candidate, StudyFacts
from .svg import Log, svg, tag, words

__all__ = ["agreement_drawing", "effects_drawing", "share_bar"]

_EFFECTS = 4
"""Axes whose choices are drawn one by one: those that matter most."""


def share_bar(share: float) -> str:
    """A share as a bar.

    >>> share_bar(0.5).count("rect")
    2
    """
    back = tag("rect", x=0, y=0, width=70, height=8, rx=2, class_="bar-back")
    front = tag("rect", x=0, y=0, width=70.0 * min(1.0, max(0.0, share)), height=8, rx=2, class_="bar")
    return tag("svg", back, front, width=70, height=8, aria_hidden="true")


def effects_drawing(facts: StudyFacts) -> str:
    """Median and best of the first objective for each choice of the axes that matter most to it."""
    aim = facts.aims[0]
    axes = sorted(facts.sensitivity, key=lambda a: -facts.sensitivity[a][aim.name])
    axes = [a for a in axes if 1 < len(facts.axes[a]) <= 16][:_EFFECTS]
    if not axes or not facts.candidates:
        return ""
    width, height, gap = 1080, 230, 24
    each = (width - 60 - gap * (len(axes) - 1)) / len(axes)
    values = {c.design: facts.values(c)[0] for c in facts.candidates}
    positive = [v for v in values.values() if v > 0]
    if not positive:
        return ""
    y = Log(min(positive) / 1.1, max(positive) * 1.1, height - 44, 34)
    names = list(facts.axes)
    out: list[str] = []
    for v in y.ticks():
        out.append(tag("line", x1=56, x2=width, y1=y(v), y2=y(v), class_="grid"))
        out.append(tag("text", f"{v:,.6g}", x=48, y=y(v) + 4, class_="tick end"))
    for n, axis in enumerate(axes):
        left = 60 + n * (each + gap)
        labels, at = facts.axes[axis], names.index(axis)
        title = f"{shorten(axis, 22)} → {aim.title}"
        out.append(tag("text", words(title), x=left, y=18, class_="title"))
        for k, label in enumerate(labels):
            group = [values[c.design] for c in facts.candidates if c.choices[at] == k]
            x = left + (k + 0.5) * each / len(labels)
            if len(labels) <= 8 or k % 2 == 0:
                out.append(tag("text", words(shorten(label, 10)), x=x, y=height - 24, class_="tick middle"))
            if not group:
                continue
            best = max(group) if aim.maximise else min(group)
            text = f"{axis} {label}: median {short(median(group))}, best {short(best)} {aim.unit}, {len(group)} designs"
            out.append(tag("line", x1=x, x2=x, y1=y(min(group)), y2=y(max(group)), class_="axis"))
            out.append(
                tag("circle", tag("title", words(text)), cx=x, cy=y(median(group)), r=4, class_="marker")
            )
            out.append(tag("circle", tag("title", words(text)), cx=x, cy=y(best), r=3, class_="star"))
    out.append(
        tag(
            "text",
            words("line: all feasible designs · dot: median · small dot: best"),
            x=60,
            y=height - 4,
            class_="tick",
        )
    )
    return svg(width, height, f"{aim.title} by the choices of {', '.join(map(plain, axes))}", *out)


def agreement_drawing(facts: StudyFacts) -> str:
    """Estimated against simulated values of the objectives that differ, a mark a design."""
    panels = [(j, a) for j, a in enumerate(facts.aims) if not a.exact][:3]
    both = [c for c in facts.candidates if c.estimate and c.simulated]
    if not panels or len(both) < 2:
        return ""
    width, height, gap = 1080, 330, 60
    side = (width - 60 - gap * (len(panels) - 1)) / max(3, len(panels))
    out: list[str] = []
    for n, (j, aim) in enumerate(panels):
        out += _panel(both, j, aim, 60 + n * (side + gap), side, height)
    out.append(
        tag(
            "text",
            words("green: random sample · blue: chosen near the front"),
            x=60,
            y=height - 2,
            class_="tick",
        )
    )
    return svg(width, height, "Estimate against simulation, a mark a design", *out)


def _panel(both: Sequence[Candidate], j: int, aim: Aim, left: float, side: float, height: int) -> list[str]:
    values = [v for c in both for v in (c.estimate[j], c.simulated[j]) if v > 0]
    if not values:
        return []
    low, high = min(values) / 1.15, max(values) * 1.15
    x, y = Log(low, high, left, left + side), Log(low, high, height - 62, 30)
    out = [tag("text", words(aim.label), x=left, y=18, class_="title")]
    for v in x.ticks():
        out.append(tag("line", x1=x(v), x2=x(v), y1=y.start, y2=y.stop, class_="grid"))
        out.append(tag("line", x1=x.start, x2=x.stop, y1=y(v), y2=y(v), class_="grid"))
        out.append(tag("text", f"{v:,.6g}", x=x(v), y=y.start + 16, class_="tick middle"))
        out.append(tag("text", f"{v:,.6g}", x=left - 6, y=y(v) + 4, class_="tick end"))
    out.append(tag("line", x1=x(low), y1=y(low), x2=x(high), y2=y(high), class_="identity"))
    for c in sorted(both, key=lambda c: c.drawn):
        text = f"design {c.number}: estimate {short(c.estimate[j])}, simulated {short(c.simulated[j])} {aim.unit}"
        kind = "marker drawn" if c.drawn else "marker"
        mark = tag("title", words(text))
        out.append(tag("circle", mark, cx=x(c.simulated[j]), cy=y(c.estimate[j]), r=3.6, class_=kind))
    middle = (x.start + x.stop) / 2
    out.append(
        tag("text", words("simulated → , estimate ↑"), x=middle, y=y.start + 34, class_="label middle")
    )
    return out
