"""What sets the pace, and what would help: one sentence and a few levers, each with the most it can give.

A lever's gain is an upper limit in the manner of Amdahl: the cycles that vanish if its cause vanishes and nothing
else gets slower. Only a new simulation tells how much of it is real.
"""

from __future__ import annotations

from dataclasses import dataclass

from .accounts import COMPUTE, LayerAccount, accounts
from .palette import shorten
from .result import Result

__all__ = ["Lever", "Verdict", "verdict"]

_NAMES = {
    "conv": "the MAC array",
    "dwc": "the depthwise PE",
    "vec": "the elementwise engine",
    "load": "LOAD",
    "save": "SAVE",
}
_WAITS = {
    "load": (
        "loads from DRAM",
        "more weight or map memory to fetch ahead, wider or more DMA ports, faster DRAM",
    ),
    "save": ("saves to DRAM", "more map memory, so that fewer maps leave the chip"),
    "dram": ("data on their way from DRAM", "faster DRAM, longer bursts, more bursts in flight"),
    "fetch": ("instructions", "a deeper instruction prefetch, larger tiles"),
    "queue": ("a place in the queues", "deeper queues"),
    "port": ("a map port that another engine owns", "more map groups"),
    "conv": ("the MAC array", "a larger array, or finer tiles"),
    "dwc": ("the depthwise PE", "more pixels, channels or taps a cycle in the depthwise PE"),
    "vec": ("the elementwise engine", "more pixels a cycle in the elementwise engine"),
}
SATURATED = 0.7
"""Busy share above which an engine is said to set the pace: then its waits are less than half of its work."""


@dataclass(frozen=True, slots=True)
class Lever:
    """A change that would help.

    Parameters
    ----------
    problem, help : str
        What costs time or bytes, and what to turn.
    cycles : int
        The most it can save.
    """

    problem: str
    help: str
    cycles: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What sets the pace.

    Parameters
    ----------
    limited_by : str
        An engine's name (conv, dwc, vec), "dram", or the cause (`hwsim.results.CAUSES`) that the busiest one waits for.
    sentence : str
    levers : tuple of Lever
        Largest first, at most four.
    """

    limited_by: str
    sentence: str
    levers: tuple[Lever, ...]


def verdict(result: Result) -> Verdict:
    """Judge one result."""
    total = result.total
    busy = {name.lower(): e.busy / total.cycles for name, e in total.engines.items()} if total.cycles else {}
    engine = max(COMPUTE, key=lambda e: busy.get(e, 0.0))
    mover = max(("load", "save"), key=lambda e: busy.get(e, 0.0))
    stalls = {
        c: n
        for name, e in total.engines.items()
        if name.lower() == engine
        for c, n in e.stalls.items()
        if n and c != "none"
    }
    cause = max(stalls, key=lambda c: stalls[c]) if stalls else "none"
    rate = total.dram_bytes["total"] / total.latency_ms / 1e6
    peak = result.dram_bytes_per_cycle * total.clock_mhz / 1e3
    if busy.get(mover, 0.0) > max(SATURATED, busy.get(engine, 0.0)):
        limited = "dram"
        reason = (
            f"DRAM sets the pace: {_NAMES[mover]} moves data in {busy[mover]:.0%} of the cycles, "
            f"{rate:.1f} of at most {peak:.1f} GB/s"
        )
    elif busy.get(engine, 0.0) >= SATURATED:
        limited = engine
        reason = f"{_sentence(_NAMES[engine])} sets the pace: it works in {busy[engine]:.0%} of the cycles"
        if (used := _lanes(result, engine)) > 0:
            reason += f", at {used:.0%} of its peak while it does"
    elif cause in _WAITS:
        limited = cause
        reason = (
            f"Waiting sets the pace: {_NAMES[engine]}, the busiest engine, works in {busy.get(engine, 0.0):.0%} of the cycles, "
            f"and its longest wait ({stalls[cause] / total.cycles:.0%}) is for {_WAITS[cause][0]}"
        )
    else:
        limited = engine
        reason = (
            f"{_sentence(_NAMES[engine])} is the busiest engine, in {busy.get(engine, 0.0):.0%} of the cycles"
        )
    return Verdict(limited, reason + ".", _levers(result, engine, stalls))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lanes(result: Result, engine: str) -> float:
    """Share of an engine's peak over the cycles in which it is busy; 0 where it multiplies nothing."""
    layers = [x for x in result.total.layers if x.engine == engine]
    busy = sum(x.busy.get(engine, 0) for x in layers)
    return sum(x.bound_cycles for x in layers) / busy if busy else 0.0


def _levers(result: Result, engine: str, stalls: dict[str, int]) -> tuple[Lever, ...]:
    total = result.total
    found = [
        Lever(f"{_sentence(_NAMES[engine])} waits for {_WAITS[cause][0]}", _WAITS[cause][1], cycles)
        for cause, cycles in stalls.items()
        if cause in _WAITS
    ]
    layers = accounts(result)
    if lost := _idle_lanes(layers, "conv"):
        worst = max(lost, key=lambda x: lost[x])
        name = next(x.layer.name for x in layers if x.number == worst)
        found.append(
            Lever(
                f"Lanes of the MAC array stay empty; most in {shorten(name, 40)} ({lost[worst]:,} cycles)",
                "an array shape that divides these channels and widths, or fewer, larger layers",
                sum(lost.values()),
            )
        )
    if not result.arch.has_dwc and any(x.depthwise for x in layers):
        spent = sum(x.engine_cycles for x in layers if x.depthwise)
        found.append(
            Lever(
                "Depthwise layers run on the MAC array",
                "an arch with the depthwise PE (the same name without -nodw)",
                spent,
            )
        )
    excess = total.dram_bytes["total"] - total.dram_bytes["compulsory"]
    mover = max((e.busy for n, e in total.engines.items() if n.lower() in {"load", "save"}), default=0)
    if excess > 0 and mover > max(
        (e.busy for n, e in total.engines.items() if n.lower() in COMPUTE), default=0
    ):
        found.append(
            Lever(
                f"{excess / 1e6:.2f} MB cross the DRAM port beyond the minimum of {total.dram_bytes['compulsory'] / 1e6:.2f} MB",
                "more map memory, so that maps stay on the chip",
                min(mover, int(excess / result.dram_bytes_per_cycle)),
            )
        )
    found = [x for x in found if x.cycles >= total.cycles // 100]  # below 1 % nobody turns a knob
    return tuple(sorted(found, key=lambda x: -x.cycles)[:4])


def _idle_lanes(layers: tuple[LayerAccount, ...], engine: str) -> dict[int, int]:
    """Busy cycles beyond what the layer's MACs need at peak, by layer number."""
    lost = {
        x.number: x.layer.busy.get(engine, 0) - x.layer.bound_cycles
        for x in layers
        if x.layer.engine == engine and x.ops
    }
    return {number: cycles for number, cycles in lost.items() if cycles > 0}
