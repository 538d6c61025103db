"""Figures for papers and slides, by matplotlib: SVG and PNG, the same bytes for the same result.

`roofline`: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009; the on-chip roof beside it after Ilic et al.,
"Cache-aware Roofline Model", IEEE CAL 13(1), 2014. `energy_roofline`: Choi, Bedard, Fowler, Vuduc, "A Roofline Model of
Energy", IPDPS 2013. A MAC counts 2 operations on every axis.
"""

from __future__ import annotations

import io
from math import atan, degrees, isfinite
from typing import TYPE_CHECKING, Any

from .accounts import COMPUTE, ENGINE_TITLES, LayerAccount, accounts, peak_macs
from .energy import EnergyLine, energy_line
from .palette import CLASSES, COMPONENTS, ENGINES, plain, shorten
from .result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw", "energy", "energy_roofline", "roofline", "traffic"]

INK, MUTED, GRID = "#1d2330", "#667085", "#e6e8ec"
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
LABELLED = 5
"""Layers named in a roofline; the report's table has them all."""


def draw(name: str, result: Result, kind: str) -> bytes:
    """A figure's file.

    Parameters
    ----------
    name : str
        Of `FIGURES`.
    kind : str
        "svg" or "png".
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        width, height = (
            (10.4, 4.7) if name == "roofline" else (7.2, 4.2) if name == "energy_roofline" else (7.2, 2.9)
        )
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        FIGURES[name](result, figure)
        out = io.BytesIO()
        meta = {"Date": None, "Creator": "Tilewright"} if kind == "svg" else {"Software": "Tilewright"}
        figure.savefig(out, format=kind, dpi=160, metadata=meta)
    return out.getvalue()


def roofline(result: Result, figure: Figure) -> None:
    """Layers under the roofs: DRAM on the left, on-chip memory on the right; a point's area is its time."""
    layers = [x for x in accounts(result) if x.ops and x.gops]
    total = result.total
    left, right = figure.subplots(1, 2, sharey=True)
    ops = 2 * total.macs
    onchip = sum(x.onchip_total for x in layers)
    panels = (
        (
            left,
            "DRAM",
            result.dram_bytes_per_cycle,
            [x.dram_intensity for x in layers],
            total.dram_bytes["total"],
        ),
        (right, "on-chip", result.onchip_bytes_per_cycle, [x.onchip_intensity for x in layers], onchip),
    )
    for axes, memory, bandwidth, intensities, moved in panels:
        _roofs(axes, result, memory, bandwidth * total.clock_mhz / 1e3, intensities)
        edge = axes.get_xlim()[1]
        for x, intensity in zip(layers, intensities, strict=True):
            axes.scatter(
                intensity if isfinite(intensity) else edge * 0.92,
                x.gops,
                s=12 + 900 * x.share,
                color=ENGINES[x.layer.engine],
                alpha=0.75,
                linewidths=0.6,
                edgecolors="white",
                marker="o" if isfinite(intensity) else ">",
                clip_on=False,
                zorder=3,
            )
        if moved and ops:
            axes.scatter(ops / moved, total.gops, s=90, marker="*", color=INK, zorder=5)
            axes.annotate(
                "whole network",
                (ops / moved, total.gops),
                textcoords="offset points",
                xytext=(8, -11),
                fontsize=8,
                weight="bold",
            )
        axes.set_xlabel(f"operational intensity, operations per {memory} byte (a MAC = 2)")
    left.set_ylabel("10⁹ operations a second")
    figure.draw_without_rendering()  # lays the axes out, so that names can avoid one another
    for axes, _, _, intensities, _ in panels:
        _names(axes, layers, intensities)
    left.set_title("Against DRAM traffic")
    right.set_title("Against on-chip traffic")
    figure.suptitle(
        f"{_title(result, 40)} on {plain(result.arch.name)}: {total.gops:,.0f} GOP/s, {total.claim}",
        x=0.01,
        ha="left",
        weight="bold",
        fontsize=11,
    )


def _roofs(axes: Axes, result: Result, memory: str, bandwidth: float, intensities: list[float]) -> None:
    """Both axes' ranges, the slanted memory roof (GB/s) and a level roof for each multiplying engine."""
    clock = result.total.clock_mhz
    roofs = {e: 2e-3 * peak_macs(result, e) * clock for e in ("conv", "dwc") if peak_macs(result, e)}
    top = max(roofs.values())
    finite = [i for i in intensities if isfinite(i) and i > 0] + [top / bandwidth]
    low, high = min(finite) / 3, max(finite) * 4
    gops = [x.gops for x in accounts(result) if x.gops] + [result.total.gops or top]
    _logarithmic(axes)
    axes.set_xlim(low, high)
    axes.set_ylim(max(min(gops) / 2, top / 1e5), top * 2)
    axes.plot([low, top / bandwidth], [low * bandwidth, top], color=INK, linewidth=1.4, zorder=2)
    for engine, roof in roofs.items():
        axes.plot([roof / bandwidth, high], [roof, roof], color=ENGINES[engine], linewidth=1.4, zorder=2)
        axes.annotate(
            f"{ENGINE_TITLES[engine].split(' · ')[1]}  {roof:,.0f} GOP/s",
            (high, roof),
            textcoords="offset points",
            xytext=(-2, 3),
            ha="right",
            fontsize=8,
            color=ENGINES[engine],
        )
    at = max(low, axes.get_ylim()[0] / bandwidth) * 1.6
    axes.text(
        at,
        at * bandwidth * 1.15,
        f"{memory} {bandwidth:,.4g} GB/s",
        rotation=degrees(atan(bandwidth)),
        rotation_mode="anchor",
        transform_rotates_text=True,
        fontsize=8,
    )


def _logarithmic(axes: Axes) -> None:
    """Both axes, with numbers a reader can say: 1, 10, 100, and 2 and 5 between them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.6g}"))
        axis.set_minor_formatter(NullFormatter())


def _names(axes: Axes, layers: list[LayerAccount], intensities: list[float]) -> None:
    from matplotlib.patheffects import withStroke

    edge = axes.get_xlim()[1]
    longest = sorted(range(len(layers)), key=lambda i: (-layers[i].share, i))[:LABELLED]
    taken: list[tuple[float, float]] = []
    for i in longest:
        x, intensity = layers[i], min(intensities[i], edge * 0.92)
        px, py = axes.transData.transform((intensity, x.gops))
        if any(abs(px - qx) < 130 and abs(py - qy) < 12 for qx, qy in taken):
            continue  # two names on one another help nobody
        taken.append((px, py))
        near = px - axes.bbox.x0 < 130
        axes.annotate(
            _latin(shorten(x.layer.name, 24)),
            (intensity, x.gops),
            textcoords="offset points",
            xytext=(7 if near else -7, 5),
            ha="left" if near else "right",
            fontsize=7,
            color=MUTED,
            zorder=6,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )


def energy_roofline(result: Result, figure: Figure) -> None:
    """Picojoules an operation against DRAM intensity, with the balance point where DRAM costs as much as the rest."""
    axes = figure.subplots()
    line = energy_line(result)
    layers = [x for x in accounts(result) if x.ops and x.energy_mj]
    points = [(x, 1e9 * x.energy_mj / x.ops) for x in layers]
    finite = [x.dram_intensity for x in layers if isfinite(x.dram_intensity)] + [
        line.balance or 1.0,
        line.intensity or 1.0,
    ]
    low, high = min(finite) / 3, max(finite) * 4
    _logarithmic(axes)
    axes.set_xlim(low, high)
    xs = [low * (high / low) ** (i / 200) for i in range(201)]
    axes.plot(xs, [line.at(x) for x in xs], color=INK, linewidth=1.6, zorder=4)
    axes.plot(xs, [line.dynamic(x) for x in xs], color=MUTED, linewidth=1, linestyle=(0, (1, 1.5)), zorder=2)
    axes.annotate(
        "without static energy, as the layers are",
        (xs[-1], line.dynamic(xs[-1])),
        textcoords="offset points",
        xytext=(-2, -11),
        ha="right",
        fontsize=8,
        color=MUTED,
    )
    for x, pj in points:
        inside = isfinite(x.dram_intensity)
        axes.scatter(
            x.dram_intensity if inside else high * 0.92,
            pj,
            s=12 + 900 * x.share,
            color=ENGINES[x.layer.engine],
            alpha=0.75,
            linewidths=0.6,
            edgecolors="white",
            marker="o" if inside else ">",
            clip_on=False,
            zorder=3,
        )
    _energy_notes(axes, line)
    axes.set_xlabel("operational intensity, operations per DRAM byte (a MAC = 2)")
    axes.set_ylabel("picojoules an operation")
    axes.set_title(f"{_title(result, 32)} on {plain(result.arch.name)}: energy, {_claim(result)}")


def _energy_notes(axes: Axes, line: EnergyLine) -> None:
    if line.balance:
        axes.axvline(line.balance, color=COMPONENTS["dram"], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"balance {line.balance:.3g} op/B:\nDRAM costs as much\nas all the rest",
            (line.balance, 0.97),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            xytext=(5, 0),
            va="top",
            fontsize=8,
            color=COMPONENTS["dram"],
        )
    if line.intensity:
        axes.scatter(line.intensity, line.at(line.intensity), s=90, marker="*", color=INK, zorder=5)
        axes.annotate(
            f"whole network {line.at(line.intensity):.2g} pJ/op",
            (line.intensity, line.at(line.intensity)),
            textcoords="offset points",
            xytext=(8, 6),
            fontsize=8,
            weight="bold",
        )


def traffic(result: Result, figure: Figure) -> None:
    """DRAM bytes of a frame by class, above the compulsory minimum."""
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
    axes.set_xlabel("MB a frame")
    axes.set_title(f"{_title(result, 32)}: DRAM traffic by class, {result.total.claim}")


def energy(result: Result, figure: Figure) -> None:
    """Energy of a frame by component."""
    rows = {plain(result.arch.name): result.total.energy.components}
    if result.without_dwc is not None:
        rows[plain(result.without_dwc.arch.name)] = result.without_dwc.total.energy.components
    axes = figure.subplots()
    _stack(axes, rows, COMPONENTS, "mJ")
    axes.set_xlabel("mJ a frame")
    axes.set_title(f"{_title(result, 32)}: energy by component, {_claim(result)}")


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


def _claim(result: Result) -> str:
    return "estimated" if result.total.energy.estimated else result.total.claim


def _title(result: Result, limit: int) -> str:
    return _latin(shorten(result.model.name, limit))


def _latin(text: str) -> str:
    """Only what the figure's font has outlines for; everything else would be an empty box."""
    return "".join(c if ord(c) < 0x250 or c == "…" else "?" for c in text)


FIGURES = {"roofline": roofline, "energy_roofline": energy_roofline, "traffic": traffic, "energy": energy}
"""Name of the file without ending, and what draws it."""

assert set(ENGINES) >= set(COMPUTE)
