"""What each layer costs, in quantities that add up.

Layers of a fused group run at the same time, so their spans overlap and say little. `LayerAccount.engine_cycles` is
the time a layer takes on *its* engine: its busy cycles, and the waits just before its instructions for DRAM and for
instructions. A wait for another engine (its result, its port) is left out: it is that engine's time, counted there.
An engine does one thing at a time, so these sum to no more than the frame, and no layer beats its engine's roof.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..hwsim.results import CAUSES, LayerResult, Simulation
from ..ir.isa import COLUMNS, Engine, Opcode
from .merge import aligned
from .result import Result

__all__ = ["COMPUTE", "ENGINE_TITLES", "LayerAccount", "accounts", "peak_macs"]

COMPUTE = ("conv", "dwc", "vec")
"""Engines that compute, as `LayerResult.engine` names them."""

_ELSEWHERE = [CAUSES.index(cause) for cause in (*COMPUTE, "queue", "port")]
"""Causes that are another engine's time: its token, its full queue in front of the instruction, its map port."""

ENGINE_TITLES = {
    "load": "LOAD",
    "conv": "CONV · MAC array",
    "dwc": "DWC · depthwise PE",
    "vec": "VEC · elementwise",
    "save": "SAVE",
}


@dataclass(frozen=True, slots=True)
class LayerAccount:
    """One layer of the report.

    Parameters
    ----------
    number : int
        From 1, in order of execution.
    engine_cycles : int
        Busy cycles of its engine and waits for memory; its span where no timeline was kept.
    share : float
        Of the frame's cycles.
    ops : int
        Two a MAC.
    dram_intensity, onchip_intensity : float
        Operations a byte; infinite where no byte moves.
    gops : float
        10^9 operations a second over `engine_cycles`.
    roof_gops : float
        The lowest of its engine's roof and the two memory roofs at its intensities. A layer whose weights came
        while earlier ones ran can be above its DRAM roof; a network cannot.
    depthwise : bool
        Channel by channel, on whichever engine; known where the program is.
    """

    number: int
    layer: LayerResult
    engine_cycles: int
    share: float
    ops: int
    dram_intensity: float
    onchip_intensity: float
    gops: float
    roof_gops: float
    depthwise: bool = False

    @property
    def dram_total(self) -> int:
        return sum(self.layer.dram_bytes.values())

    @property
    def onchip_total(self) -> int:
        return self.layer.onchip_read_bytes + self.layer.onchip_write_bytes

    @property
    def energy_mj(self) -> float:
        return sum(self.layer.energy_mj.values())

    @property
    def efficiency(self) -> float:
        """Share of its engine's peak; 0 for a layer without MACs."""
        return self.layer.bound_cycles / self.engine_cycles if self.ops and self.engine_cycles else 0.0


def peak_macs(result: Result, engine: str) -> int:
    """MACs a cycle at an engine's peak; 0 for one that multiplies nothing."""
    return {"conv": result.arch.macs_per_cycle, "dwc": result.arch.depthwise_macs_per_cycle}.get(engine, 0)


def accounts(result: Result) -> tuple[LayerAccount, ...]:
    """The layers of all segments, in order."""
    total = result.total
    cycles = _engine_cycles(total)
    channelwise = _depthwise(result)
    to_gops = 2e-3 * total.clock_mhz  # MACs a cycle -> 10^9 op/s
    out = []
    for i, (layer, taken) in enumerate(zip(total.layers, cycles, strict=True)):
        ops = 2 * layer.macs
        dram = _ratio(ops, sum(layer.dram_bytes.values()))
        onchip = _ratio(ops, layer.onchip_read_bytes + layer.onchip_write_bytes)
        roof = min(
            peak_macs(result, layer.engine) * to_gops,
            dram * result.dram_bytes_per_cycle * total.clock_mhz / 1e3,
            onchip * result.onchip_bytes_per_cycle * total.clock_mhz / 1e3,
        )
        out.append(
            LayerAccount(
                number=i + 1,
                layer=layer,
                engine_cycles=taken,
                share=taken / total.cycles if total.cycles else 0.0,
                ops=ops,
                dram_intensity=dram,
                onchip_intensity=onchip,
                gops=layer.macs / taken * to_gops if taken else 0.0,
                roof_gops=roof,
                depthwise=i in channelwise,
            )
        )
    return tuple(out)


def _ratio(ops: int, moved: int) -> float:
    if not ops:
        return 0.0
    return ops / moved if moved else float("inf")


def _engine_cycles(simulation: Simulation) -> list[int]:
    timeline = simulation.timeline
    if timeline is None:
        return [layer.cycles for layer in simulation.layers]
    out = [0] * len(simulation.layers)
    for engine in Engine:
        mine = np.flatnonzero(timeline.engine == engine)
        ends = np.maximum.accumulate(timeline.busy_end[mine]) if len(mine) else timeline.busy_end[mine]
        spent = np.diff(ends, prepend=0)
        working = np.minimum(ends - timeline.start[mine], spent)
        spent = np.where(np.isin(timeline.cause[mine], _ELSEWHERE), working, spent)
        layers = timeline.layer[mine]
        sums = np.bincount(layers[layers >= 0], weights=spent[layers >= 0], minlength=len(out))
        for i, layer in enumerate(simulation.layers):
            if layer.engine == engine.name.lower():
                out[i] = int(sums[i])
    return out


def _depthwise(result: Result) -> set[int]:
    """Places of the layers that run on the depthwise engine, or on the array with its diagonal flag."""
    out: set[int] = set()
    before = 0
    for segment in result.segments:
        program, timeline = segment.program, aligned(segment.simulation)
        if program is not None and timeline is not None:
            rows = program.fields[timeline.index]
            mine = (rows[:, COLUMNS["opcode"]] == Opcode.DWC) | (rows[:, COLUMNS["diagonal"]] == 1)
            out |= {before + int(n) for n in np.unique(timeline.layer[mine]) if n >= 0}
        before += len(segment.simulation.layers)
    return out
