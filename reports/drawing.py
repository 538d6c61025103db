"""The drawings inside `report.html`: SVG made of classes, so that the style sheet colours them for day and night.

No drawing has a style attribute (the page's content security policy allows none) and each carries its numbers as
text, a title for every mark, and ``data-layer`` where a mark is a layer, from which the page's script links it to the
table's row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import atan2, degrees, isfinite, sqrt

from .accounts import ENGINE_TITLES, LayerAccount, peak_macs
from .energy import energy_line
from .palette import plain, short, shorten, si
from .result import Result
from .svg import Log, svg, tag, words

__all__ = ["bars", "energy_roofline", "engines", "ladder", "roofline"]


def _axes(x: Log, y: Log, title: str, x_label: str, *, y_ticks: bool) -> list[str]:
    out = []
    for v in x.ticks():
        out.append(tag("line", x1=x(v), x2=x(v), y1=y.start, y2=y.stop, class_="grid"))
        out.append(tag("text", f"{v:,.6g}", x=x(v), y=y.start + 16, class_="tick middle"))
    for v in y.ticks():
        out.append(tag("line", x1=x.start, x2=x.stop, y1=y(v), y2=y(v), class_="grid"))
        if y_ticks:
            out.append(tag("text", f"{v:,.6g}", x=x.start - 8, y=y(v) + 4, class_="tick end"))
    out.append(tag("line", x1=x.start, x2=x.stop, y1=y.start, y2=y.start, class_="axis"))
    out.append(tag("text", words(title), x=x.start, y=y.stop - 12, class_="title"))
    out.append(tag("text", words(x_label), x=(x.start + x.stop) / 2, y=y.start + 36, class_="label middle"))
    return out


def _star(x: float, y: float, title: str) -> str:
    points = "0,-9 2.3,-2.8 8.6,-2.8 3.5,1.1 5.3,7.3 0,3.7 -5.3,7.3 -3.5,1.1 -8.6,-2.8 -2.3,-2.8"
    moved = " ".join(
        f"{x + float(a):.2f},{y + float(b):.2f}" for a, b in (p.split(",") for p in points.split())
    )
    return tag("polygon", tag("title", words(title)), points=moved, class_="star")


def _radius(share: float) -> float:
    """Area in proportion to time, and never too small to point at."""
    return 3.0 + 22.0 * sqrt(share)


def roofline(result: Result, layers: Sequence[LayerAccount]) -> str:
    """Both rooflines side by side; layers without any DRAM byte stand in the right margin of the first."""
    width, height, top, bottom = 1080, 440, 34, 388
    total = result.total
    points = [x for x in layers if x.ops and x.gops]
    roofs = {
        e: 2e-3 * peak_macs(result, e) * total.clock_mhz for e in ("conv", "dwc") if peak_macs(result, e)
    }
    peak = max(roofs.values())
    floor_ = min([x.gops for x in points] + [total.gops or peak])
    y = Log(max(floor_ / 2, peak / 1e5), peak * 1.9, bottom, top)
    onchip = sum(x.onchip_total for x in points)
    panels = (
        (
            "DRAM",
            62.0,
            548.0,
            result.dram_bytes_per_cycle,
            [p.dram_intensity for p in points],
            total.dram_bytes["total"],
        ),
        (
            "on-chip",
            590.0,
            1076.0,
            float(result.onchip_bytes_per_cycle),
            [p.onchip_intensity for p in points],
            onchip,
        ),
    )
    out = []
    for memory, left, right, bytes_per_cycle, intensities, moved in panels:
        rate = bytes_per_cycle * total.clock_mhz / 1e3
        away = [i for i in intensities if not isfinite(i)]
        finite = [i for i in intensities if isfinite(i) and i > 0] + [peak / rate]
        x = Log(min(finite) / 2.5, max(finite) * 3, left, right - (34 if away else 0))
        part = _axes(
            x,
            y,
            f"Against {memory} traffic",
            f"operations per {memory} byte (a MAC = 2)",
            y_ticks=memory == "DRAM",
        )
        part += _roofs(x, y, roofs, (memory, rate), right)
        if away:
            part.append(tag("text", "∞", x=right - 12, y=bottom + 16, class_="tick middle"))
            part.append(tag("line", x1=right - 28, x2=right - 28, y1=bottom, y2=top, class_="away"))
        order = sorted(range(len(points)), key=lambda i: (-points[i].share, i))
        part += [
            _mark(
                points[i],
                x(intensities[i]) if isfinite(intensities[i]) else right - 12,
                y(points[i].gops),
                memory,
            )
            for i in order
        ]
        if moved and total.macs:
            intensity = 2 * total.macs / moved
            sx, sy = x(intensity), y(total.gops)
            part.append(_star(sx, sy, f"whole network: {total.gops:,.1f} GOP/s at {intensity:,.3g} op/B"))
            part.append(tag("text", "whole network", x=sx + 12, y=sy + 4, class_="note strong halo"))
        out.append(tag("g", *part))
    label = "10⁹ operations a second"
    out.append(
        tag("text", label, transform=f"translate(14 {(top + bottom) / 2}) rotate(-90)", class_="label middle")
    )
    return svg(width, height, "Rooflines of DRAM and on-chip memory", *out, class_="drawing roofline")


def _roofs(x: Log, y: Log, roofs: dict[str, float], memory: tuple[str, float], right: float) -> list[str]:
    """A memory's name and GB/s as the slanted roof, and the level roofs from where they meet it."""
    (name, rate), peak = memory, max(roofs.values())
    low = max(x.low, y.low / rate)
    x1, y1, x2, y2 = x(low), y(low * rate), x(peak / rate), y(peak)
    out = [tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="roof")]
    turn = degrees(atan2(y2 - y1, x2 - x1)) if x2 > x1 else 0.0
    if x2 - x1 > 90:
        out.append(
            tag(
                "text",
                f"{name} {short(rate)} GB/s",
                class_="note halo middle",
                transform=f"translate({(x1 + x2) / 2 - 4:.1f} {(y1 + y2) / 2 - 6:.1f}) rotate({turn:.2f})",
            )
        )
    else:
        out.append(tag("text", f"{name} {short(rate)} GB/s", x=x1 + 4, y=y.start - 8, class_="note halo"))
    for engine, roof in roofs.items():
        out.append(tag("line", x1=x(roof / rate), x2=right, y1=y(roof), y2=y(roof), class_=f"roof {engine}"))
        said = f"{ENGINE_TITLES[engine].split(' · ')[1]} {short(roof)} GOP/s"
        out.append(tag("text", words(said), x=right, y=y(roof) - 6, class_=f"note end halo {engine}"))
    return out


def _mark(x: LayerAccount, px: float, py: float, memory: str) -> str:
    intensity = x.dram_intensity if memory == "DRAM" else x.onchip_intensity
    said = f"{intensity:,.3g} op/B" if isfinite(intensity) else "no DRAM traffic"
    title = f"{x.number} {plain(x.layer.name)}\n{x.gops:,.4g} GOP/s, {said}\n{x.share:.1%} of the frame, roof {x.roof_gops:,.4g} GOP/s"
    return tag(
        "circle",
        tag("title", escape(title)),
        cx=px,
        cy=py,
        r=_radius(x.share),
        class_=f"mark {x.layer.engine}",
        data_layer=x.number,
    )


def energy_roofline(result: Result, layers: Sequence[LayerAccount]) -> str:
    """Energy an operation against DRAM intensity; the balance point is where DRAM costs as much as all the rest."""
    width, height, top, bottom = 620, 360, 34, 308
    line = energy_line(result)
    points = [(x, 1e9 * x.energy_mj / x.ops) for x in layers if x.ops and x.energy_mj > 0]
    if not line.intensity or line.op_pj + line.byte_pj <= 0:
        return ""
    finite = [x.dram_intensity for x, _ in points if isfinite(x.dram_intensity)] + [
        line.intensity,
        line.balance or line.intensity,
    ]
    x = Log(min(finite) / 2.5, max(finite) * 3, 56, 590)
    levels = [pj for _, pj in points] + [line.at(x.low), max(line.dynamic(x.high), line.at(x.high) / 1e3)]
    y = Log(min(levels) / 1.6, max(levels) * 1.6, bottom, top)
    steps = [x.low * (x.high / x.low) ** (i / 80) for i in range(81)]
    out = _axes(x, y, "Energy an operation", "operations per DRAM byte (a MAC = 2)", y_ticks=True)
    if x.low < line.balance < x.high:
        out.append(tag("line", x1=x(line.balance), x2=x(line.balance), y1=bottom, y2=top, class_="balance"))
        out.append(
            tag(
                "text",
                f"balance {line.balance:,.3g} op/B",
                x=x(line.balance) + 6,
                y=top + 12,
                class_="note halo dram",
            )
        )
    for curve, name in ((line.dynamic, "roof static"), (line.at, "roof")):
        path = " ".join(f"{x(s):.1f},{y(max(curve(s), y.low)):.1f}" for s in steps)
        out.append(tag("polyline", points=path, class_=name))
    for account, pj in points:
        at = x(account.dram_intensity) if isfinite(account.dram_intensity) else 604.0
        title = (
            f"{account.number} {plain(account.layer.name)}\n{pj:.3g} pJ an operation (without static energy)"
        )
        out.append(
            tag(
                "circle",
                tag("title", escape(title)),
                cx=at,
                cy=y(pj),
                r=_radius(account.share),
                class_=f"mark {account.layer.engine}",
                data_layer=account.number,
            )
        )
    sx, sy = x(line.intensity), y(line.at(line.intensity))
    out.append(_star(sx, sy, "whole network"))
    out.append(
        tag(
            "text",
            f"whole network {line.at(line.intensity):.3g} pJ",
            x=sx + 10,
            y=sy - 8,
            class_="note strong halo",
        )
    )
    out.append(
        tag(
            "text",
            "pJ an operation",
            transform=f"translate(12 {(top + bottom) / 2}) rotate(-90)",
            class_="label middle",
        )
    )
    return svg(width, height, "Energy an operation against operational intensity", *out)


def bars(rows: dict[str, dict[str, float]], unit: str, label: str, least: float | None = None) -> str:
    """Stacked bars, one a row; `least` is a minimum marked on all of them."""
    width, bar, gap, left, right = 1080, 34, 22, 130, 150
    widest = max([sum(parts.values()) for parts in rows.values()] + [least or 0.0]) or 1.0
    scale = (width - left - right) / widest
    out = []
    top = 26 if least is not None else 6
    for i, (name, parts) in enumerate(rows.items()):
        y, x = top + i * (bar + gap), float(left)
        out.append(tag("text", words(shorten(name, 18)), x=left - 12, y=y + bar / 2 + 5, class_="note end"))
        total = sum(parts.values())
        for part, value in parts.items():
            wide = value * scale
            said = f"{part} {si(value, unit)} ({value / total:.1%})" if total else part
            out.append(
                tag(
                    "rect",
                    tag("title", words(said)),
                    x=x,
                    y=y,
                    width=max(wide - 1, 0.0),
                    height=bar,
                    class_=f"part {part}",
                )
            )
            if wide > 7.2 * len(part) + 12:
                out.append(
                    tag("text", words(part), x=x + wide / 2, y=y + bar / 2 + 4, class_="inside middle")
                )
            x += wide
        out.append(tag("text", si(total, unit), x=x + 10, y=y + bar / 2 + 5, class_="note strong"))
    height = top + len(rows) * (bar + gap)
    if least is not None:
        at = left + least * scale
        out.append(tag("line", x1=at, x2=at, y1=14, y2=height - gap + 6, class_="least"))
        anchor = "end" if at > width / 2 else ""
        out.append(
            tag(
                "text",
                f"minimum {si(least, unit)}",
                x=at + (-6 if anchor else 6),
                y=14,
                class_=f"note {anchor}".strip(),
            )
        )
    return svg(width, height, label, *out)


def ladder(result: Result) -> str:
    """Bound, estimate, simulated: three bars that may never change order."""
    total = result.total
    rows = (
        ("bound", total.bounds.bound_cycles, "no schedule on this machine is faster"),
        ("estimate", total.estimate_cycles, "the busiest engine, if nothing ever waited"),
        (total.claim, total.cycles, "instruction by instruction, with DRAM"),
    )
    width, bar, gap, left = 1080, 22, 12, 130
    scale = (width - left - 170) / max(1, *(v for _, v, _ in rows))
    out = []
    for i, (name, value, meaning) in enumerate(rows):
        y = i * (bar + gap) + 4
        out.append(tag("text", words(name), x=left - 12, y=y + 16, class_="note end"))
        out.append(
            tag(
                "rect",
                tag("title", words(meaning)),
                x=left,
                y=y,
                width=max(value * scale, 1.0),
                height=bar,
                class_=f"rung r{i}",
            )
        )
        if value * scale > 330:
            out.append(tag("text", words(meaning), x=left + 10, y=y + 15, class_="inside"))
        out.append(
            tag("text", f"{value:,} cycles", x=left + value * scale + 10, y=y + 16, class_="note strong")
        )
    return svg(width, len(rows) * (bar + gap) + 6, "Bound, estimate and simulated cycles", *out)


def engines(result: Result) -> str:
    """Each engine's cycles: busy, waiting by cause, idle after its last instruction."""
    total = result.total
    width, bar, gap, left = 1080, 24, 14, 190
    scale = (width - left - 70) / max(1, total.cycles)
    out = []
    shown = [(n.lower(), e) for n, e in total.engines.items() if e.instructions]
    for i, (name, engine) in enumerate(shown):
        y, x = i * (bar + gap) + 4, float(left)
        out.append(
            tag("text", words(ENGINE_TITLES.get(name, name)), x=left - 12, y=y + 17, class_="note end")
        )
        pieces: Iterable[tuple[str, int, str]] = [
            ("busy", engine.busy, f"part {name}"),
            *((f"waits: {cause}", cycles, f"part wait w-{cause}") for cause, cycles in engine.stalls.items()),
            ("idle after its last instruction", engine.idle, "part rest"),
        ]
        for said, cycles, kind in pieces:
            wide = cycles * scale
            share = f"{cycles / total.cycles:.1%}" if total.cycles else ""
            out.append(
                tag(
                    "rect",
                    tag("title", words(f"{said}: {cycles:,} cycles, {share}")),
                    x=x,
                    y=y,
                    width=max(wide - 0.6, 0.0),
                    height=bar,
                    class_=kind,
                )
            )
            short = said.removeprefix("waits: ")
            if "wait" in kind and wide > 7 * len(short) + 10:
                out.append(tag("text", words(short), x=x + wide / 2, y=y + 16, class_="tick middle"))
            x += wide
        busy = engine.busy / total.cycles if total.cycles else 0.0
        out.append(tag("text", f"{busy:.0%}", x=width - 60, y=y + 17, class_="note strong"))
    return svg(
        width, max(1, len(shown)) * (bar + gap) + 4, "Busy, waiting and idle cycles of each engine", *out
    )
