"""What a report is about: one network on one machine, with everything a reader needs to judge the numbers.

A network may be several DPU segments with host work between them. `Result.total` is their sum; host segments stand
apart and are in no total.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ..hwsim.resources import ResourceUse
from ..hwsim.results import Simulation
from ..hwsim.shared import Shared
from ..ir.arch import Arch
from ..ir.errors import ReportError
from ..ir.isa import Program
from .merge import merge

__all__ = [
    "Exact",
    "HostSegment",
    "ModelFacts",
    "Result",
    "SCHEMA",
    "Segment",
]

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
    shared : Shared or None
        How all cores of the design fare, each on frames of its own, on one DRAM; None for a single core. Everything else
        here is of one core that has the memory to itself.

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
    shared: Shared | None = None

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

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """Why the machine does not fit the board: `misfits`, or else the resources that run out."""
        return self.misfits or tuple(
            f"{r.resource}: {r.used:,.10g} used, {r.available:,.10g} there{'' if r.exact else ' (estimated)'}"
            for r in self.resources
            if r.available is not None and r.used > r.available
        )

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
            "frames": total.frames,
            "gops": total.gops,
            "utilization": total.utilization,
            "dram": total.dram,
            "dram_bytes": total.dram_bytes,
            "dram_gb_per_s": total.dram_bytes["total"] / total.latency_ms / 1e6,
            "energy_mj": {**total.energy.components, "total": total.energy.total_mj},
            "energy_estimated": total.energy.estimated,
            "estimate_cycles": total.estimate_cycles,
            "bound_cycles": total.bounds.bound_cycles,
            "cores": None if self.shared is None else self.shared.to_dict(),
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
                "cores": None if twin.shared is None else twin.shared.to_dict(),
                "dram_bytes": twin.total.dram_bytes["total"],
                "energy_mj": twin.total.energy.total_mj,
            },
            "misfits": list(self.shortfalls),
            "provenance": self.provenance,
            "files": list(files),
        }

    def to_json(self, files: Sequence[str] = ()) -> str:
        """`summary` as text; the same result gives the same bytes."""
        return json.dumps(self.summary(files), indent=2) + "\n"

    def _repr_html_(self) -> str:
        return self.total._repr_html_() + ("" if self.shared is None else f"<p>{self.shared}</p>")
