"""Figures for papers and slides, by matplotlib: SVG and PNG, the same bytes for the same result."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from .palette import CLASSES, COMPONENTS, INK, MUTED, plain
from .result import Result
from .rooflines import energy_claim, energy_roofline, figure_title, roofline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw", "energy", "traffic"]

GRID = "#e6e8ec"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same outlines everywhere
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a layer's name is a "$"
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "svg.fonttype": "path",
    "svg.hashsalt": "tilewright",
    "figure.dpi": 100,
}


def draw(name: str, result: Result, kinds: tuple[str, ...] = ("svg", "png")) -> dict[str, bytes]:
    """A figure's files, by ending.

    Parameters
    ----------
    name : str
        Of `FIGURES`.
    kinds : tuple of str
        "svg", "png".
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    out = {}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZES[name], layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        FIGURES[name](result, figure)
        for kind in kinds:
            file = io.BytesIO()
            meta = {"Date": None, "Creator": "Tilewright"} if kind == "svg" else {"Software": "Tilewright"}
            figure.savefig(file, format=kind, dpi=160, metadata=meta)
            out[kind] = file.getvalue()
            figure.set_layout_engine("none")  # laid out once is enough
    return out


def traffic(result: Result, figure: Figure) -> None:
    """DRAM bytes by class, above the compulsory minimum."""
    rows = {plain(result.arch.name): result.total.dram_bytes}
    if result.without_dwc is not None:
        rows[plain(result.without_dwc.arch.name)] = result.without_dwc.total.dram_bytes
    stacks = {name: {k: v[k] / 1e6 for k in CLASSES if k in v} for name, v in rows.items()}
    axes = figure.subplots()
    _stack(axes, stacks, CLASSES, "MB")
    least = result.total.dram_bytes["compulsory"] / 1e6
    axes.axvline(least, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"minimum {least:.3g} MB",
        (least, 1),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        xytext=(-4, -2),
        ha="right",
        va="top",
        fontsize=8,
    )
    axes.set_xlabel(f"MB a {result.total.unit}")
    axes.set_title(f"{figure_title(result, 32)}: DRAM traffic by class, {result.total.claim}")


def energy(result: Result, figure: Figure) -> None:
    """Energy by component."""
    rows = {plain(result.arch.name): result.total.energy.components}
    if result.without_dwc is not None:
        rows[plain(result.without_dwc.arch.name)] = result.without_dwc.total.energy.components
    axes = figure.subplots()
    _stack(axes, rows, COMPONENTS, "mJ")
    axes.set_xlabel(f"mJ a {result.total.unit}")
    axes.set_title(f"{figure_title(result, 32)}: energy by component, {energy_claim(result)}")


def _stack(axes: Axes, rows: dict[str, dict[str, float]], colours: dict[str, str], unit: str) -> None:
    """Horizontal stacks, longest first drawn on top, shares named inside where they fit and in a legend."""
    widest = max((sum(v.values()) for v in rows.values()), default=0.0) or 1.0
    names = list(dict.fromkeys(k for v in rows.values() for k in v))
    seen = set()
    for y, (_row, parts) in enumerate(rows.items()):
        at = 0.0
        for part in names:
            value = parts.get(part, 0.0)
            colour = colours.get(part, MUTED)
            axes.barh(
                y,
                value,
                left=at,
                height=0.56,
                color=colour,
                label=None if part in seen else part,
                edgecolor="white",
            )
            if value > 0.07 * widest:
                axes.text(
                    at + value / 2,
                    y,
                    f"{value:.3g}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white",
                    weight="bold",
                )
            seen.add(part)
            at += value
        axes.text(at + 0.01 * widest, y, f"{at:.3g} {unit}", va="center", fontsize=9, weight="bold")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.9)
    axes.set_xlim(0, widest * 1.14)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    if seen:
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.24),
            ncols=8,
            frameon=False,
            fontsize=8,
            handlelength=0.9,
            handletextpad=0.4,
            columnspacing=1.2,
        )


SIZES = {"roofline": (10.4, 4.7), "energy_roofline": (7.2, 4.2), "traffic": (7.2, 2.9), "energy": (7.2, 2.9)}
"""Inches."""

FIGURES = {"roofline": roofline, "energy_roofline": energy_roofline, "traffic": traffic, "energy": energy}
"""Name of the file without ending, and what draws it."""
