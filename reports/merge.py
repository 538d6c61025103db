"""Simulations that run one after the other, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..hwsim.results import Bounds, Energy, EngineResult, LayerResult, Simulation, Timeline

__all__ = ["aligned", "merge"]

_Number = TypeVar("_Number", int, float)


def merge(simulations: Sequence[Simulation]) -> Simulation:
    """Simulations that run one after the other, as one: cycles, bytes, energies, stalls and bounds add up.

    Layers keep their order and move by the cycles before them; in the timeline, a layer's number is its place in
    `Simulation.layers` (see `aligned`).
    """
    first = simulations[0]
    if len(simulations) == 1:
        return replace(first, timeline=aligned(first))
    starts = np.cumsum([0, *(s.cycles for s in simulations)])[:-1].tolist()
    layers: list[LayerResult] = []
    for simulation, start in zip(simulations, starts, strict=True):
        layers += [
            replace(layer, first_cycle=layer.first_cycle + start, last_cycle=layer.last_cycle + start)
            for layer in simulation.layers
        ]
    names = dict.fromkeys(n for s in simulations for n in s.engines)
    total_mj = sum(s.energy.total_mj for s in simulations)
    spread = sum(s.energy.total_mj * s.energy.relative_uncertainty for s in simulations)
    return replace(
        first,
        cycles=sum(s.cycles for s in simulations),
        macs=sum(s.macs for s in simulations),
        dram_bytes=_sum([s.dram_bytes for s in simulations]),
        energy=Energy(
            components=_sum([s.energy.components for s in simulations]),
            table=first.energy.table,
            estimated=any(s.energy.estimated for s in simulations),
            sources=first.energy.sources,
            relative_uncertainty=spread / total_mj if total_mj else 0.0,
        ),
        engines={
            name: EngineResult(
                busy=sum(s.engines[name].busy for s in simulations if name in s.engines),
                stalls=_sum([s.engines[name].stalls for s in simulations if name in s.engines]),
                idle=sum(s.engines[name].idle if name in s.engines else s.cycles for s in simulations),
                instructions=sum(s.engines[name].instructions for s in simulations if name in s.engines),
            )
            for name in names
        },
        layers=tuple(layers),
        bounds=Bounds(
            compute_cycles=sum(s.bounds.compute_cycles for s in simulations),
            dram_cycles=sum(s.bounds.dram_cycles for s in simulations),
            onchip_cycles=sum(s.bounds.onchip_cycles for s in simulations),
            compulsory_bytes=sum(s.bounds.compulsory_bytes for s in simulations),
        ),
        estimate_cycles=sum(s.estimate_cycles for s in simulations),
        timeline=_timelines(simulations, starts),
    )


def aligned(simulation: Simulation) -> Timeline | None:
    """The timeline with each layer's place in `Simulation.layers` instead of its number in the program.

    A program has no instruction for some layers (a reshape, a concatenation in place); a simulation leaves those out,
    and keeps the order of the rest.
    """
    timeline = simulation.timeline
    if timeline is None:
        return None
    numbers = np.unique(timeline.layer[timeline.layer >= 0])
    places = np.searchsorted(numbers, timeline.layer)
    return replace(timeline, layer=np.where(timeline.layer >= 0, places, -1).astype(np.int32))


def _sum(parts: Sequence[dict[str, _Number]]) -> dict[str, _Number]:
    """Key by key, keys in order of appearance."""
    out: dict[str, _Number] = {}
    for part in parts:
        for key, value in part.items():
            out[key] = out[key] + value if key in out else value
    return out


def _timelines(simulations: Sequence[Simulation], starts: Sequence[int]) -> Timeline | None:
    lines = [t for s in simulations if (t := aligned(s)) is not None]
    if len(lines) != len(simulations):
        return None
    counts = np.cumsum([0, *(len(s.layers) for s in simulations)])[:-1]
    layers = [np.where(t.layer >= 0, t.layer + n, -1) for t, n in zip(lines, counts, strict=True)]

    def shifted(name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.concatenate([getattr(t, name) + s for t, s in zip(lines, starts, strict=True)])

    return Timeline(
        index=np.concatenate([t.index for t in lines]),
        engine=np.concatenate([t.engine for t in lines]),
        layer=np.concatenate(layers).astype(np.int32),
        queued=shifted("queued"),
        start=shifted("start"),
        busy_end=shifted("busy_end"),
        done=shifted("done"),
        cause=np.concatenate([t.cause for t in lines]),
    )
