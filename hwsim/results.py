"""What a simulation says, as frozen values: JSON in and out, a short table in a notebook.

Every number carries its claim (`Simulation.claim`); cycles, bytes and counts are integers, energies are mJ.
Breakdowns sum to totals: an engine's ``busy + stalls + idle`` is the program's cycles, layers' DRAM bytes and
the instruction stream sum to `Simulation.dram_bytes`, components sum to `Energy.total_mj`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import ReportError

__all__ = [
    "Bounds",
    "CAUSES",
    "EngineResult",
    "Energy",
    "LayerResult",
    "SCHEMA",
    "Simulation",
    "Timeline",
]

SCHEMA = "tilewright.simulation/1"
"""Raised whenever a field changes its meaning."""

CAUSES = ("none", "load", "conv", "dwc", "vec", "save", "port", "fetch", "queue", "dram")
"""Why an instruction, or an engine, waits: a token of the named engine (load ... save), a map port that
another engine owns, the instruction is still on its way from DRAM (fetch), it stood behind another engine's
full queue (queue), or data on their way from or to DRAM (dram). Index into it: `Timeline.cause`."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of one frame.

    Parameters
    ----------
    components : dict of str to float
        mJ of dram, maps, weights, mac, depthwise, vector, control, static.
    table : str
        Name of the coefficient table.
    estimated : bool
        No coefficient of it was measured on this kind of device.
    sources : tuple of str
        One line a coefficient: value, unit, node, source, uncertainty.
    relative_uncertainty : float
        Of the total, from the coefficients' own.
    """

    components: dict[str, float]
    table: str = ""
    estimated: bool = True
    sources: tuple[str, ...] = ()
    relative_uncertainty: float = 0.0

    @property
    def total_mj(self) -> float:
        return math.fsum(self.components.values())  # the same in whatever order they are read back


@dataclass(frozen=True, slots=True)
class Bounds:
    """What no schedule on this machine can beat.

    Parameters
    ----------
    compute_cycles : int
        Every MAC at the peak of the engines that can do it, perfectly overlapped.
    dram_cycles : int
        `compulsory_bytes` at the smaller of the ports' and the DRAM's peak.
    onchip_cycles : int
        Every map word read or written once through all ports of all groups.
    compulsory_bytes : int
        Weights and biases once, graph inputs, graph outputs.
    """

    compute_cycles: int
    dram_cycles: int
    onchip_cycles: int
    compulsory_bytes: int

    @property
    def bound_cycles(self) -> int:
        return max(self.compute_cycles, self.dram_cycles, self.onchip_cycles)

    @property
    def limited_by(self) -> str:
        """compute, dram or onchip: the largest of the three."""
        pairs = (("compute", self.compute_cycles), ("dram", self.dram_cycles), ("onchip", self.onchip_cycles))
        return max(pairs, key=lambda p: p[1])[0]


@dataclass(frozen=True, slots=True)
class EngineResult:
    """One engine over the whole program: ``busy + sum(stalls.values()) + idle == cycles``.

    Parameters
    ----------
    busy : int
        Cycles in which it works (LOAD, SAVE: moves data).
    stalls : dict of str to int
        Cycles without work before its last instruction ends, by cause (`CAUSES`).
    idle : int
        Cycles after its last instruction.
    instructions : int
    """

    busy: int
    stalls: dict[str, int]
    idle: int
    instructions: int


@dataclass(frozen=True, slots=True)
class LayerResult:
    """One layer of the program.

    Parameters
    ----------
    name, op : str
        Of the graph's operator (``layer3`` and ``""`` without a graph).
    engine : str
        The compute engine that works longest on it, lower case.
    busy : dict of str to int
        Busy cycles of each engine that works for it.
    first_cycle, last_cycle : int
        First start and last completion; layers of one fused group overlap.
    macs : int
        As a user counts them.
    bound_cycles : int
        Its MACs at the peak of its engine.
    dram_bytes : dict of str to int
        ifmap, weights, ofmap.
    onchip_read_bytes, onchip_write_bytes : int
        Map memory.
    energy_mj : dict of str to float
        By component, as in `Energy`, without static and background energy.
    limited_by : str
        compute, or the cause (`CAUSES`) that its engines waited for longest.
    """

    name: str
    op: str
    engine: str
    busy: dict[str, int]
    first_cycle: int
    last_cycle: int
    macs: int
    bound_cycles: int
    dram_bytes: dict[str, int]
    onchip_read_bytes: int
    onchip_write_bytes: int
    energy_mj: dict[str, float] = field(default_factory=dict)
    limited_by: str = "compute"

    @property
    def cycles(self) -> int:
        """From its first start to its last completion."""
        return self.last_cycle - self.first_cycle


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Each instruction's times, in stream order (END left out).

    Parameters
    ----------
    index : int32
        Position in the program.
    engine : int8
        `ir.isa.Engine`.
    layer : int32
        Layer, -1 for none.
    queued, start, busy_end, done : int64
        Cycle it entered its queue; it started; its engine was free for the next; its token was given.
    cause : int8
        What it waited for before it started (`CAUSES`).
    """

    index: NDArray[np.int32]
    engine: NDArray[np.int8]
    layer: NDArray[np.int32]
    queued: NDArray[np.int64]
    start: NDArray[np.int64]
    busy_end: NDArray[np.int64]
    done: NDArray[np.int64]
    cause: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.index)


_TIMELINE_TYPES = {"index": np.int32, "layer": np.int32, "engine": np.int8, "cause": np.int8}


@dataclass(frozen=True, slots=True)
class Simulation:
    """One run of one program on one core: a frame, or a batch of frames.

    Parameters
    ----------
    claim : str
        "simulated": bound <= estimate <= simulated = RTL.
    network, arch, board : str
        Names; board is "" where only a DRAM was given.
    design : str
        `Arch.design_hash`.
    cycles : int
        From the start command to the last byte written.
    clock_mhz : float
    macs : int
        Of the network as a user counts them (0 without a graph).
    macs_per_cycle : int
        `Arch.macs_per_cycle`: the array alone, so that depthwise overlap can push `utilization` up.
    dram_bytes : dict of str to int
        ifmap, weights, ofmap, instructions, total, and compulsory (a bound, no part of the total).
    estimate_cycles : int
        `timing.estimate`: the busiest engine if nothing ever waited.
    dram : str
        The memory's description.
    frames : int
        Frames of the batch; cycles, bytes, energies and MACs are of all of them.
    timeline : Timeline or None
        Not written to JSON unless asked.
    """

    cycles: int
    clock_mhz: float
    macs: int
    macs_per_cycle: int
    dram_bytes: dict[str, int]
    energy: Energy
    engines: dict[str, EngineResult]
    layers: tuple[LayerResult, ...]
    bounds: Bounds
    estimate_cycles: int
    dram: str
    network: str = ""
    arch: str = ""
    board: str = ""
    design: str = ""
    claim: str = "simulated"
    frames: int = 1
    timeline: Timeline | None = field(default=None, repr=False, compare=False)

    @property
    def latency_ms(self) -> float:
        return self.cycles / self.clock_mhz / 1e3

    @property
    def fps(self) -> float:
        """Frames a second of one core, one run after the other."""
        return self.frames * 1e3 / self.latency_ms

    @property
    def unit(self) -> str:
        """What the numbers are of, for a reader."""
        return "frame" if self.frames == 1 else f"batch of {self.frames} frames"

    @property
    def utilization(self) -> float:
        """MACs of the network over what the array could do in its cycles."""
        return self.macs / (self.cycles * self.macs_per_cycle)

    @property
    def gops(self) -> float:
        """10^9 operations a second; a MAC counts 2."""
        return 2 * self.macs / self.latency_ms / 1e6

    @property
    def power_mw(self) -> float:
        """Energy over time; as estimated as the energy is."""
        return self.energy.total_mj / self.latency_ms * 1e3

    def to_dict(self, *, timeline: bool = False) -> dict[str, Any]:
        """Plain data with a ``schema`` key and the derived numbers beside the fields."""
        out: dict[str, Any] = {"schema": SCHEMA}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "timeline":
                if timeline and value is not None:
                    out["timeline"] = {t.name: getattr(value, t.name).tolist() for t in fields(Timeline)}
            elif f.name == "layers":
                out["layers"] = [asdict(layer) for layer in value]
            elif f.name == "engines":
                out["engines"] = {name: asdict(engine) for name, engine in value.items()}
            elif f.name == "energy":
                out["energy"] = {**asdict(value), "sources": list(value.sources), "total_mj": value.total_mj}
            elif f.name == "bounds":
                out["bounds"] = {
                    **asdict(value),
                    "bound_cycles": value.bound_cycles,
                    "limited_by": value.limited_by,
                }
            else:
                out[f.name] = value
        for name in ("latency_ms", "fps", "utilization", "gops"):
            out[name] = getattr(self, name)
        return out

    def to_json(self, *, timeline: bool = False) -> str:
        """JSON text; the same result gives the same bytes."""
        return json.dumps(self.to_dict(timeline=timeline), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "result") -> Simulation:
        """The inverse of `to_json`.

        Raises
        ------
        ReportError
            The text is no JSON, has another schema, or lacks a field.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ReportError(f"{where}: not JSON: {error}") from None
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise ReportError(
                f"{where}: schema is {schema!r}, this version reads {SCHEMA!r}; simulate again to refresh it",
                schema=schema,
            )
        try:
            known = {f.name: data[f.name] for f in fields(cls) if f.name != "timeline"}
            known["energy"] = Energy(**_only(Energy, data["energy"]))
            known["bounds"] = Bounds(**_only(Bounds, data["bounds"]))
            known["engines"] = {k: EngineResult(**_only(EngineResult, v)) for k, v in data["engines"].items()}
            known["layers"] = tuple(LayerResult(**_only(LayerResult, v)) for v in data["layers"])
            if "timeline" in data:
                known["timeline"] = Timeline(
                    **{k: np.array(v, _TIMELINE_TYPES.get(k, np.int64)) for k, v in data["timeline"].items()}
                )
            return cls(**known)
        except (KeyError, TypeError, AttributeError) as error:
            raise ReportError(f"{where}: a simulation result lacks or distorts {error}") from None

    def _rows(self) -> list[tuple[str, str]]:
        bound, total = self.bounds.bound_cycles, self.dram_bytes
        mark = " (estimated)" if self.energy.estimated else ""
        return [
            (
                "cycles",
                f"{self.cycles:,} ({self.claim}; estimate {self.estimate_cycles:,}, bound {bound:,})",
            ),
            ("latency", f"{self.latency_ms:.4g} ms at {self.clock_mhz:g} MHz, {self.fps:.4g} frames/s"),
            ("utilisation", f"{self.utilization:.1%} of {self.macs_per_cycle} MACs a cycle"),
            (
                "DRAM",
                f"{total['total'] / 1e6:.4g} MB (compulsory {total['compulsory'] / 1e6:.4g} MB), {self.dram}",
            ),
            (
                "energy",
                f"{self.energy.total_mj:.4g} mJ{mark}, table {self.energy.table}",
            ),
        ]

    def __str__(self) -> str:
        head = " on ".join(filter(None, (self.network, self.arch, self.board))) or "simulation"
        return "\n".join([head, *(f"  {k:<12}{v}" for k, v in self._rows())])

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in self._rows())
        head = " on ".join(filter(None, (self.network, self.arch, self.board))) or "simulation"
        return f"<table><caption>{escape(head)}</caption>{rows}</table>"


def _only(kind: type[Any], data: dict[str, Any]) -> dict[str, Any]:
    """The keys of `data` that `kind` declares (derived numbers are written too), lists as tuples."""
    return {f.name: tuple(v) if isinstance(v := data[f.name], list) else v for f in fields(kind)}
