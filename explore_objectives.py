"""What a design is judged by: the quantities, their units, which way is better, and how several networks become one.

>>> OBJECTIVES["latency"].column, OBJECTIVES["fps"].maximise
('latency_ms', True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from .ir.errors import ArchError

__all__ = [
    "DESIGN",
    "MEASURED_QUANTITIES",
    "OBJECTIVES",
    "Combine",
    "Objective",
    "combined",
    "measures",
    "named",
]

Combine = Literal["weighted", "worst"]


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective.

    Parameters
    ----------
    column : str
        Name of the quantity, with its unit.
    maximise : bool
    exact : bool
        Counted from the design itself: the same at every level. Otherwise estimated, or simulated.
    """

    name: str
    column: str
    title: str
    unit: str = ""
    maximise: bool = False
    exact: bool = False

    @property
    def sign(self) -> float:
        """Times this, less is better."""
        return -1.0 if self.maximise else 1.0


OBJECTIVES: dict[str, Objective] = {
    o.name: o
    for o in (
        Objective("latency", "latency_ms", "latency", "ms"),
        Objective("fps", "fps", "frames a second", "1/s", maximise=True),
        Objective("energy", "energy_mj", "energy a frame", "mJ"),
        Objective("edp", "edp_mj_ms", "energy × delay", "mJ·ms"),
        Objective("dram_bytes", "dram_bytes", "DRAM a frame", "B"),
        Objective("dsp", "dsp", "DSP", exact=True),
        Objective("bram", "bram", "BRAM36", exact=True),
        Objective("uram", "uram", "URAM", exact=True),
        Objective("lut", "lut", "LUT", exact=True),
        Objective("fps_per_dsp", "fps_per_dsp", "frames a second and DSP", "1/s", maximise=True),
        Objective("sqnr", "sqnr_db", "SQNR, int8 against float", "dB", maximise=True, exact=True),
    )
}
MEASURED_QUANTITIES = tuple(o.column for o in OBJECTIVES.values() if not o.exact)
"""Columns that have an estimate and a simulated value."""
DESIGN = ("dsp", "bram", "uram", "lut", "ff")
"""Columns that the design alone decides; LUT and FF are `hwsim.resources`'s estimates."""
_ALIASES = {"accuracy": "sqnr", "dram": "dram_bytes", "bram36": "bram", "fps/dsp": "fps_per_dsp"}


def named(names: Sequence[str]) -> tuple[Objective, ...]:
    """Objectives by name, in order.

    Raises
    ------
    ArchError
        An unknown name, none at all, or one twice.
    """
    out: dict[str, Objective] = {}
    for word in names:
        name = _ALIASES.get(word, word)
        if name not in OBJECTIVES:
            near = get_close_matches(name, OBJECTIVES, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ArchError(f"objective {word!r}: not known; {hint}there are {', '.join(OBJECTIVES)}")
        if name in out:
            raise ArchError(f"objective {word!r}: given twice; once is enough")
        out[name] = OBJECTIVES[name]
    if not out:
        raise ArchError(f"no objective was given; choose some of {', '.join(OBJECTIVES)}")
    return tuple(out.values())


def measures(
    cost: Sequence[float], *, clock_mhz: float, cores: int, macs_per_cycle: int, dram_gb_s: float
) -> dict[str, float]:
    """Quantities of one network on one design.

    Latency and energy are of one core that has the memory to itself. `fps` counts all cores: as they were simulated on one
    memory, or else estimated, cores times one and never more than the board's DRAM could feed at its peak.

    Parameters
    ----------
    cost : sequence of number
        Cycles, DRAM bytes, energy in pJ, MACs of a frame; frames a cycle of all cores where they were simulated.

    >>> measures((300_000, 0, 2e9, 0), clock_mhz=300, cores=2, macs_per_cycle=512, dram_gb_s=19.2)["fps"]
    2000.0
    """
    cycles, dram_bytes, energy_pj, macs, *together = cost
    latency_ms = cycles / clock_mhz / 1e3
    energy_mj = energy_pj * 1e-9
    fps = cores * 1e3 / latency_ms
    if cores > 1 and together:
        fps = together[0] * clock_mhz * 1e6
    elif cores > 1 and dram_bytes:
        fps = max(1e3 / latency_ms, min(fps, dram_gb_s * 1e9 / dram_bytes))
    return {
        "cycles": float(cycles),
        "latency_ms": latency_ms,
        "fps": fps,
        "energy_mj": energy_mj,
        "edp_mj_ms": energy_mj * latency_ms,
        "dram_bytes": float(dram_bytes),
        "utilization": macs / (cycles * macs_per_cycle),
    }


def combined(
    each: Mapping[str, Mapping[str, float]], weights: Mapping[str, float], how: Combine, dsp: float
) -> dict[str, float]:
    """Several networks as one.

    Parameters
    ----------
    each : dict of network to its `measures`
    weights : dict of network to frames of it in the mix
    how : str
        weighted: the mean frame of the mix (fps is frames of the mix a second); worst: the worst network in each
        quantity.

    >>> two = {"a": {"latency_ms": 1.0, "fps": 1000.0}, "b": {"latency_ms": 3.0, "fps": 500.0}}
    >>> combined(two, {"a": 1.0, "b": 1.0}, "weighted", 100)["latency_ms"]
    2.0
    >>> combined(two, {"a": 1.0, "b": 1.0}, "worst", 100)["fps"]
    500.0
    """
    columns = list(next(iter(each.values())))
    more = {"fps", "utilization"}
    total = sum(weights[n] for n in each)
    out = {}
    for column in columns:
        values = {n: m[column] for n, m in each.items()}
        if how == "worst":
            out[column] = min(values.values()) if column in more else max(values.values())
        elif column == "fps":
            out[column] = total / sum(weights[n] / v for n, v in values.items())
        else:
            out[column] = sum(weights[n] * v for n, v in values.items()) / total
    if "fps" in out:
        out["fps_per_dsp"] = out["fps"] / dsp if dsp else 0.0
    return out
