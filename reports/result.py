"""What a report is about: one network on one machine, with everything a reader needs to judge the numbers.

A network may be several DPU segments with host work between them. `Result.total` is their sum; host segments stand
apart and are in no total.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np

from ..hwsim.resources import ResourceUse
from ..hwsim.results import Bounds, Energy, EngineResult, LayerResult, Simulation, Timeline
from ..ir.arch import Arch
from ..ir.errors import ReportError
from ..ir.isa import Program

__all__ = [
    "Exact",
    "HostSegment",
    "ModelFacts",
    "Result",
    "SCHEMA",
    "Segment",
    "aligned",
    "merge",
]

_Number = TypeVar("_Number", int, float)

SCHEMA = "tilewright.summary/1"
"""Of `summary.json`; raised whenever a key changes its meaning."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The network as its user knows it.

    Parameters
    ----------
    macs : int
        Multiply-accumulates of one frame, as a user counts them.
    parameters : int
        Trained parameters.
    inputs : tuple of str
        Name and shape of each input, for the reader.
    sha256 : str
        Of the model file; "" for a network built in code.
    """

    name: str
    macs: int
    parameters: int
    inputs: tuple[str, ...] = ()
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the network that the DPU runs in one go; the program is what the bytes of a trace come from."""

    simulation: Simulation
    program: Program | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class HostSegment:
    """A part that the host runs.

    Parameters
    ----------
    nodes : tuple of (name, op)
    reason : str
        Why the DPU does not run it.
    milliseconds : float or None
        Measured on the host, where somebody did.
    """

    name: str
    nodes: tuple[tuple[str, str], ...]
    reason: str
    milliseconds: float | None = None


@dataclass(frozen=True, slots=True)
class Exact:
    """Emulated instruction words against the integer reference."""

    bytes_compared: int
    bytes_differing: int


@dataclass(frozen=True)
class Result:
    """One network on one machine.

    Parameters
    ----------
    board : str
        Name, or "" where only a memory was given.
    segments : tuple of Segment
        In order of execution, at least one.
    dram_peak : float
        Bytes a core cycle that DRAM and ports can move at best; 0 derives it from the bounds.
    calibration : str
        "user" data, "synthetic" data, or "model": it came quantised.
    misfits : tuple of str
        Why the machine does not fit the board; empty where it does.
    provenance : dict of str to str
        Versions, seed, hashes: what makes the numbers repeatable.
    sqnr_db : dict of str to float
        Signal to quantisation noise of each layer, in dB.
    without_dwc : Result or None
        The same network on the same machine without the depthwise engine.

    Raises
    ------
    ReportError
        No segment runs on the DPU.
    """

    model: ModelFacts
    arch: Arch
    segments: tuple[Segment, ...]
    board: str = ""
    dram_peak: float = 0.0
    host_segments: tuple[HostSegment, ...] = ()
    exact: Exact | None = None
    calibration: Literal["user", "synthetic", "model"] = "model"
    resources: tuple[ResourceUse, ...] = ()
    misfits: tuple[str, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)
    sqnr_db: dict[str, float] = field(default_factory=dict, repr=False)
    without_dwc: Result | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.segments:
            raise ReportError(
                f"{self.model.name}: all {len(self.host_segments)} segments run on the host, so there is nothing to report "
                "about the DPU; `tilewright check` names each operator's reason"
            )

    @cached_property
    def total(self) -> Simulation:
        """All segments as one simulation, one after the other."""
        return merge([s.simulation for s in self.segments])

    @property
    def dram_bytes_per_cycle(self) -> float:
        """The DRAM roof: `dram_peak`, or else compulsory bytes over their bound, never above the ports."""
        bounds = self.total.bounds
        derived = (
            bounds.compulsory_bytes / bounds.dram_cycles
            if bounds.dram_cycles
            else float(self.arch.stream_bytes)
        )
        return self.dram_peak or derived

    @property
    def onchip_bytes_per_cycle(self) -> int:
        """The on-chip roof: every bank of every map group reads and writes a word each cycle."""
        return 2 * self.arch.maps.groups * self.arch.banks * self.arch.lanes

    def summary(self, files: Sequence[str] = ()) -> dict[str, Any]:
        """The object of `summary.json`.

        Parameters
        ----------
        files : sequence of str
            Names of the files beside it.
        """
        from .verdict import verdict

        total, judged = self.total, verdict(self)
        twin = self.without_dwc
        return {
            "schema": SCHEMA,
            "model": {"name": self.model.name, "macs": self.model.macs, "parameters": self.model.parameters},
            "arch": {
                "name": self.arch.name,
                "macs_per_cycle": self.arch.macs_per_cycle,
                "depthwise_macs_per_cycle": self.arch.depthwise_macs_per_cycle,
                "design_hash": self.arch.design_hash,
            },
            "board": self.board,
            "clock_mhz": total.clock_mhz,
            "claim": total.claim,
            "cycles": total.cycles,
            "latency_ms": total.latency_ms,
            "fps": total.fps,
            "gops": total.gops,
            "utilization": total.utilization,
            "dram": total.dram,
            "dram_bytes": total.dram_bytes,
            "dram_gb_per_s": total.dram_bytes["total"] / total.latency_ms / 1e6,
            "energy_mj": {**total.energy.components, "total": total.energy.total_mj},
            "energy_estimated": total.energy.estimated,
            "estimate_cycles": total.estimate_cycles,
            "bound_cycles": total.bounds.bound_cycles,
            "limited_by": judged.limited_by,
            "verdict": judged.sentence,
            "exact": None
            if self.exact is None
            else {
                "bytes_compared": self.exact.bytes_compared,
                "bytes_differing": self.exact.bytes_differing,
            },
            "calibration": self.calibration,
            "segments": [s.simulation.cycles for s in self.segments],
            "host_segments": [
                {
                    "name": h.name,
                    "nodes": [{"name": name, "op": op} for name, op in h.nodes],
                    "reason": h.reason,
                    "milliseconds": h.milliseconds,
                }
                for h in self.host_segments
            ],
            "without_dwc": None
            if twin is None
            else {
                "arch": twin.arch.name,
                "cycles": twin.total.cycles,
                "latency_ms": twin.total.latency_ms,
                "fps": twin.total.fps,
                "dram_bytes": twin.total.dram_bytes["total"],
                "energy_mj": twin.total.energy.total_mj,
            },
            "provenance": self.provenance,
            "files": list(files),
        }

    def to_json(self, files: Sequence[str] = ()) -> str:
        """`summary` as text; the same result gives the same bytes."""
        return json.dumps(self.summary(files), indent=2) + "\n"

    def _repr_html_(self) -> str:
        return self.total._repr_html_()


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
