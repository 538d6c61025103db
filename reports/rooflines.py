"""The two rooflines, of time and of energy, drawn by matplotlib.

`roofline`: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009; the on-chip roof beside it after Ilic et al.,
"Cache-aware Roofline Model", IEEE CAL 13(1), 2014. `energy_roofline`: Choi, Bedard, Fowler, Vuduc, "A Roofline Model of
Energy", IPDPS 2013. A MAC counts 2 operations on every axis.
"""

from __future__ import annotations

from math import atan, degrees, isfinite, sqrt
from typing import TYPE_CHECKING

from .accounts import ENGINE_TITLES, LayerAccount, accounts, peak_macs
from .energy import EnergyLine, energy_line
from .palette import COMPONENTS, ENGINES, INK, MUTED, latin, plain, short, shorten
from .result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["energy_claim", "energy_roofline", "figure_title", "roofline"]

LABELLED = 5
"""Layers named in a roofline; the report's table has them all."""


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
        _points(axes, layers, intensities, [x.gops for x in layers])
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
    left.set_title("Against DRAM traffic")
    right.set_title("Against on-chip traffic")
    figure.suptitle(
        f"{figure_title(result, 40)} on {plain(result.arch.name)}: {total.gops:,.0f} GOP/s, {total.claim}",
        x=0.01,
        ha="left",
        weight="bold",
        fontsize=11,
    )
    figure.draw_without_rendering()  # lays the axes out, so that names can avoid one another
    figure.set_layout_engine("none")
    for axes, _, _, intensities, moved in panels:
        star = [(ops / moved, total.gops)] if moved and ops else []
        _names(axes, layers, intensities, star)


def _roofs(axes: Axes, result: Result, memory: str, bandwidth: float, intensities: list[float]) -> None:
    """Both axes' ranges, the slanted memory roof (GB/s) and a level roof for each multiplying engine."""
    clock = result.total.clock_mhz
    roofs = {e: 2e-3 * peak_macs(result, e) * clock for e in ("conv", "dwc") if peak_macs(result, e)}
    top = max(roofs.values())
    finite = [i for i in intensities if isfinite(i) and i > 0] + [top / bandwidth]
    low, high = min(finite) / 3, max(finite) * 4
    gops = [x.gops for x in accounts(result) if x.gops] + [result.total.gops or top]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(max(min(gops) / 2, top / 1e5), top * 2)
    _ticks(axes)
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
    start = max(low, axes.get_ylim()[0] / bandwidth)
    at = sqrt(start * top / bandwidth) if top / bandwidth > 4 * start else start * 1.1
    axes.text(
        at,
        at * bandwidth * 1.15,
        f"{memory} {short(bandwidth)} GB/s",
        rotation=degrees(atan(bandwidth)),
        rotation_mode="anchor",
        transform_rotates_text=True,
        fontsize=8,
    )


def _points(axes: Axes, layers: list[LayerAccount], xs: list[float], ys: list[float]) -> None:
    """Layers as points whose area is their time; those at infinity are triangles at the right edge."""
    edge = axes.get_xlim()[1] * 0.92
    for engine, colour in ENGINES.items():
        for inside, marker in ((True, "o"), (False, ">")):
            mine = [i for i, x in enumerate(layers) if x.layer.engine == engine and isfinite(xs[i]) == inside]
            axes.scatter(
                [xs[i] if inside else edge for i in mine],
                [ys[i] for i in mine],
                s=[12 + 900 * layers[i].share for i in mine],
                color=colour,
                alpha=0.75,
                linewidths=0.6,
                edgecolors="white",
                marker=marker,
                clip_on=False,
                zorder=3,
            )


def _ticks(axes: Axes) -> None:
    """Numbers a reader can say: decades, and 2 and 5 between them where there is room."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,), numticks=12))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.6g}"))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())


def _names(
    axes: Axes, layers: list[LayerAccount], intensities: list[float], star: list[tuple[float, float]]
) -> None:
    """Name the longest layers, where the name covers neither another one nor the network's star."""
    from matplotlib.patheffects import withStroke

    edge = axes.get_xlim()[1]
    longest = sorted(range(len(layers)), key=lambda i: (-layers[i].share, i))[:LABELLED]
    taken: list[tuple[float, float]] = [tuple(axes.transData.transform(p)) for p in star]
    for i in longest:
        x, intensity = layers[i], min(intensities[i], edge * 0.92)
        px, py = axes.transData.transform((intensity, x.gops))
        if any(abs(px - qx) < 130 and abs(py - qy) < 14 for qx, qy in taken):
            continue  # two names on one another help nobody
        taken.append((px, py))
        near = px - axes.bbox.x0 < 130
        axes.annotate(
            latin(shorten(x.layer.name, 24)),
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
    if not line.intensity or not line.op_pj:
        axes.text(
            0.5, 0.5, "no operations, no DRAM traffic or no energy: nothing to draw", ha="center", va="center"
        )
        axes.set_axis_off()
        return
    layers = [x for x in accounts(result) if x.ops and x.energy_mj]
    points = [(x, 1e9 * x.energy_mj / x.ops) for x in layers]
    finite = [x.dram_intensity for x in layers if isfinite(x.dram_intensity)] + [
        line.balance or 1.0,
        line.intensity or 1.0,
    ]
    low, high = min(finite) / 3, max(finite) * 4
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    xs = [low * (high / low) ** (i / 200) for i in range(201)]
    axes.plot(xs, [line.at(x) for x in xs], color=INK, linewidth=1.6, zorder=4)
    axes.plot(xs, [line.dynamic(x) for x in xs], color=MUTED, linewidth=1, linestyle=(0, (1, 1.5)), zorder=2)
    axes.text(
        0.99,
        0.02,
        "dotted: without static energy, as the layers are",
        transform=axes.transAxes,
        ha="right",
        fontsize=8,
        color=MUTED,
    )
    _points(axes, layers, [x.dram_intensity for x in layers], [pj for _, pj in points])
    _ticks(axes)
    _energy_notes(axes, line)
    axes.set_xlabel("operational intensity, operations per DRAM byte (a MAC = 2)")
    axes.set_ylabel("picojoules an operation")
    axes.set_title(f"{figure_title(result, 32)} on {plain(result.arch.name)}: energy, {energy_claim(result)}")


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


def energy_claim(result: Result) -> str:
    """What an energy may call itself."""
    return "estimated" if result.total.energy.estimated else result.total.claim


def figure_title(result: Result, limit: int) -> str:
    """The network's name, as the figure's font can show it."""
    return latin(shorten(result.model.name, limit))
