"""`report.html`: one file that needs nothing else, opens from a disk, and runs no code but its own.

The content security policy names the page's one script and one style sheet by their hashes and forbids all the rest,
so a layer's name that holds markup stays a name. Without scripts the page still says everything but the timeline.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.isa import Engine
from . import drawing
from .accounts import ENGINE_TITLES, accounts
from .inline import json_block, part, policy
from .palette import CLASSES, COMPONENTS, count, plain, short, si
from .result import Result
from .trace import moved_bytes, rate, windows
from .verdict import verdict

__all__ = ["SLICES", "page", "timeline_data"]

SLICES = 12_000
"""Slices in the page's timeline; more would be finer than its highest zoom shows and make the file slow to open."""
RATE_POINTS = 1500


def page(result: Result, names: Sequence[str] = ()) -> str:
    """The page as text.

    Parameters
    ----------
    names : sequence of str
        Of the files beside it, for the summary inside.
    """
    from jinja2 import Environment, StrictUndefined

    style, script = part("report.css"), part("report.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "si": si,
        "short": short,
        "count": count,
        "plain": plain,
        "pct": lambda v, d=1: f"{v:.{d}%}",
    }
    layers = accounts(result)
    total = result.total
    stacks = {result.arch.name: _ordered(total.dram_bytes, CLASSES)}
    energies = {result.arch.name: _ordered(total.energy.components, COMPONENTS, 1e-3)}
    if result.without_dwc is not None:
        twin = result.without_dwc
        stacks[twin.arch.name] = _ordered(twin.total.dram_bytes, CLASSES)
        energies[twin.arch.name] = _ordered(twin.total.energy.components, COMPONENTS, 1e-3)
    return environment.from_string(part("report.html.j2")).render(
        result=result,
        total=total,
        layers=layers,
        verdict=verdict(result),
        twin_rows=_twin_rows(result),
        engine_titles=ENGINE_TITLES,
        classes=[c for c in CLASSES if c in total.dram_bytes],
        components=[c for c in COMPONENTS if c in total.energy.components],
        power_mw=total.power_mw,
        longest=max((x.share for x in layers), default=0.0) or 1.0,
        policy=policy(style, script),
        style=style,
        script=script,
        arch_toml=result.arch.toml(),
        summary=json_block(json.loads(result.to_json(names))),
        data=json_block(timeline_data(result)),
        roofline=drawing.roofline(result, layers),
        energy_roofline=drawing.energy_roofline(result, layers),
        ladder=drawing.ladder(result),
        engines=drawing.engines(result),
        traffic=drawing.bars(
            stacks, "B", f"DRAM bytes of a {total.unit} by class", float(total.dram_bytes["compulsory"])
        ),
        energies=drawing.bars(energies, "J", f"Energy of a {total.unit} by component"),
    )


def timeline_data(result: Result) -> dict[str, Any]:
    """Slices of each engine for the page's timeline, in integers.

    Neighbouring slices of a layer that stand closer than a gap become one, with their busy cycles kept; the gap is the
    smallest power of two that leaves at most `SLICES`.
    """
    total = result.total
    out: dict[str, Any] = {
        "cycles": total.cycles,
        "clock_mhz": total.clock_mhz,
        "layers": [plain(x.name) for x in total.layers],
        "tracks": [],
        "gap": 0,
        "rate": None,
    }
    timeline = total.timeline
    if timeline is None or not len(timeline):
        return out
    exact = []
    for engine in Engine:
        rows, start, end = windows(timeline, engine)
        if len(rows):
            exact.append((engine, start, end, timeline.layer[rows].astype(np.int64)))
    gap = 0
    while True:
        tracks = [(engine, *_joined(start, end, layer, gap)) for engine, start, end, layer in exact]
        if sum(len(t[1]) for t in tracks) <= SLICES or gap > total.cycles:
            break
        gap = max(1, 2 * gap)
    out["gap"] = gap
    out["tracks"] = [
        {
            "engine": engine.name.lower(),
            "start": start.tolist(),
            "length": (end - start).tolist(),
            "busy": busy.tolist(),
            "layer": layer.tolist(),
            "count": number.tolist(),
        }
        for engine, start, end, layer, busy, number in tracks
    ]
    out["rate"] = _rates(result)
    return out


_Ints = NDArray[np.int64]


def _joined(start: _Ints, end: _Ints, layer: _Ints, gap: int) -> tuple[_Ints, _Ints, _Ints, _Ints, _Ints]:
    fresh = np.ones(len(start), bool)
    fresh[1:] = (layer[1:] != layer[:-1]) | (start[1:] - end[:-1] > gap)
    first = np.flatnonzero(fresh)
    last = np.append(first[1:], len(start)) - 1
    busy = np.add.reduceat(end - start, first)
    return start[first], end[last], layer[first], busy, last - first + 1


def _rates(result: Result) -> dict[str, Any] | None:
    """DRAM bytes a cycle of LOAD and SAVE at `RATE_POINTS` places, where the programs are known."""
    total = result.total
    step = max(1, -(-total.cycles // RATE_POINTS))
    edges = np.arange(0, total.cycles + step, step)
    tracks = {Engine.LOAD: np.zeros(len(edges) - 1), Engine.SAVE: np.zeros(len(edges) - 1)}
    offset = 0
    for segment in result.segments:
        timeline = segment.simulation.timeline
        if timeline is None or segment.program is None:
            return None
        moved = moved_bytes(segment.program)
        for engine in tracks:
            tracks[engine] += rate(timeline, moved, engine, edges - offset)
        offset += segment.simulation.cycles
    return {
        "step": step,
        "peak": round(result.dram_bytes_per_cycle, 3),
        **{e.name.lower(): [round(v, 2) for v in track.tolist()] for e, track in tracks.items()},
    }


def _twin_rows(result: Result) -> list[dict[str, Any]]:
    """The table of the machine beside its twin without the depthwise engine; `better` says which way is good."""
    twin = result.without_dwc
    if twin is None:
        return []
    a, b = result.total, twin.total

    def busy(s: Any, engine: str) -> float:
        return (
            sum(e.busy for n, e in s.engines.items() if n.lower() == engine) / s.cycles if s.cycles else 0.0
        )

    def row(name: str, ours: float, theirs: float, text: Any, *, more: bool | None) -> dict[str, Any]:
        ratio = (ours / theirs if more else theirs / ours) if ours and theirs and more is not None else None
        return {
            "name": name,
            "ours": text(ours),
            "theirs": text(theirs),
            "ratio": ratio,
            "value": ours,
            "other": theirs,
        }

    return [
        row("latency", a.latency_ms, b.latency_ms, lambda v: f"{v:.4g} ms", more=False),
        row("frames a second", a.fps, b.fps, short, more=True),
        row("cycles", a.cycles, b.cycles, lambda v: f"{v:,}", more=False),
        row("of the array's peak", a.utilization, b.utilization, lambda v: f"{v:.1%}", more=True),
        row(
            f"DRAM a {a.unit}",
            a.dram_bytes["total"],
            b.dram_bytes["total"],
            lambda v: f"{v / 1e6:.4g} MB",
            more=False,
        ),
        row(f"energy a {a.unit}", a.energy.total_mj, b.energy.total_mj, lambda v: f"{v:.4g} mJ", more=False),
        row("MAC array busy", busy(a, "conv"), busy(b, "conv"), lambda v: f"{v:.1%}", more=None),
        row(
            "depthwise PE busy",
            busy(a, "dwc"),
            busy(b, "dwc"),
            lambda v: f"{v:.1%}" if v else "none",
            more=None,
        ),
    ]


def _ordered(values: dict[str, Any], order: dict[str, str], scale: float = 1.0) -> dict[str, float]:
    known = {k: values[k] * scale for k in order if k in values}
    return known | {
        k: v * scale for k, v in values.items() if k not in known and k not in {"total", "compulsory"}
    }
