"""A study's figures for papers, by matplotlib: SVG and PNG, the same bytes for the same study."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from .figures import STYLE
from .palette import ENGINES, INK, MUTED, latin, plain
from .study import Candidate, StudyFacts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY_FIGURES", "draw_study"]


def draw_study(name: str, facts: StudyFacts, kinds: tuple[str, ...] = ("svg", "png")) -> dict[str, bytes]:
    """A figure's files, by ending; empty where the study has nothing to draw in it.

    Parameters
    ----------
    name : str
        Of `STUDY_FIGURES`.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not facts.candidates or (name == "agreement" and not _both(facts)):
        return {}
    out = {}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=_SIZES[name], layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        STUDY_FIGURES[name](facts, figure)
        for kind in kinds:
            file = io.BytesIO()
            meta = {"Date": None, "Creator": "Tilewright"} if kind == "svg" else {"Software": "Tilewright"}
            figure.savefig(file, format=kind, dpi=160, metadata=meta)
            out[kind] = file.getvalue()
            figure.set_layout_engine("none")
    return out


def pareto(facts: StudyFacts, figure: Figure) -> None:
    """The first objective against each other one."""
    others = list(range(1, len(facts.aims)))[:3] or [0]
    panels = figure.subplots(1, len(others), squeeze=False)[0]
    claims = (
        ("estimate", [c for c in facts.candidates if not c.simulated and not c.front]),
        ("simulated", [c for c in facts.candidates if c.simulated and not c.front]),
        (f"front, {facts.claim}", list(facts.front)),
    )
    styles = (
        {"s": 9, "facecolors": "none", "edgecolors": MUTED, "linewidths": 0.5, "alpha": 0.45},
        {"s": 14, "color": ENGINES["conv"], "alpha": 0.8, "linewidths": 0},
        {"s": 26, "color": ENGINES["dwc"], "linewidths": 0, "zorder": 3},
    )
    for axes, j in zip(panels, others, strict=True):
        for (label, group), style in zip(claims, styles, strict=True):
            if group:
                values = [facts.values(c) for c in group]
                # A cloud of thousands is a picture, not thousands of paths.
                axes.scatter(
                    [v[0] for v in values],
                    [v[j] for v in values],
                    label=label,
                    rasterized=len(group) > 300,
                    **style,
                )
        for k, scale in ((0, axes.set_xscale), (j, axes.set_yscale)):
            every = [facts.values(c)[k] for c in facts.candidates]
            if min(every) > 0 and max(every) / min(every) > 8:
                scale("log")
        axes.set_xlabel(facts.aims[0].label)
        axes.set_ylabel(facts.aims[j].label)
    panels[0].set_title(latin(plain(facts.title)))
    panels[-1].legend(frameon=False, fontsize=8)


def sensitivity(facts: StudyFacts, figure: Figure) -> None:
    """Shares of variance that each axis explains alone."""
    axes = figure.subplots()
    names = sorted(facts.sensitivity, key=lambda a: max(facts.sensitivity[a].values(), default=0.0))
    height = 0.8 / len(facts.aims)
    palette = list(ENGINES.values())
    for j, aim in enumerate(facts.aims):
        axes.barh(
            [i + 0.4 - (j + 0.5) * height for i in range(len(names))],
            [facts.sensitivity[n][aim.name] for n in names],
            height=height * 0.92,
            label=aim.title,
            color=palette[j % len(palette)],
        )
    axes.set_yticks(range(len(names)), [latin(plain(n)) for n in names])
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of variance explained alone")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.set_title(latin(plain(facts.title)))


def agreement(facts: StudyFacts, figure: Figure) -> None:
    """Estimate over simulated, against simulated."""
    axes = figure.subplots()
    aims = [(j, a) for j, a in enumerate(facts.aims) if not a.exact]
    for (j, aim), colour in zip(aims, ENGINES.values(), strict=False):
        both = [c for c in _both(facts) if c.simulated[j] > 0]
        least = min((c.simulated[j] for c in both), default=1.0)
        axes.scatter(
            [c.simulated[j] / least for c in both],
            [c.estimate[j] / c.simulated[j] for c in both],
            s=12,
            color=colour,
            alpha=0.7,
            linewidths=0,
            label=aim.title,
        )
    axes.axhline(1.0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlabel("simulated, times the least")
    axes.set_ylabel("estimate / simulated")
    axes.set_title(latin(plain(facts.title)))
    axes.legend(frameon=False, fontsize=8)


def _both(facts: StudyFacts) -> list[Candidate]:
    return [c for c in facts.candidates if c.estimate and c.simulated]


_SIZES = {"pareto": (10.4, 3.8), "sensitivity": (7.2, 3.6), "agreement": (7.2, 3.2)}
"""Inches."""
STUDY_FIGURES = {"pareto": pareto, "sensitivity": sensitivity, "agreement": agreement}
"""Name of the file without ending, and what draws it."""
