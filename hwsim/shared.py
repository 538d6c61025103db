"""Several cores of one design on one DRAM: each runs the same programs on frames of its own, frame after frame.

What is simulated: every burst of every core, in the order in which they are asked for, of two in one cycle the lower
core's first. Each core has its own copy of program, weights and maps, one behind the other in the DRAM. A core
begins its next frame in the cycle in which it ends one: what a host needs between frames is in no number. A core that
is ready earlier goes on until all have their frames, so that none has the memory to itself at the end.

With two frames or more a core, the first is warming up: `Shared` counts from its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.errors import SimulationError
from ..ir.isa import Program
from .answers import Answers
from .dram import DRAM_RESPONSE, DramCounts, DramSpec, dram_counts, parse
from .events import events, region_starts
from .simulation import Trace, check_design
from .timing import costs

__all__ = ["MOST_CORES", "MOST_FRAMES", "Shared", "SharedTrace", "simulate_shared", "trace_shared"]

MOST_CORES = 8
"""As `Arch.cores`."""
MOST_FRAMES = 64
"""More would say the same: after some frames their times repeat."""

_Matrix = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SharedTrace:
    """What the event kernel found.

    Parameters
    ----------
    traces : tuple, by core, of tuple, by frame, of tuple, by program, of Trace
        On clocks that begin with their program; `Trace.dram` is what the memory did for all cores.
    spans : int64 (cores, frames, programs, 2)
        Start and end of each program, on the memory's clock.
    bursts : int64 (cores, n, len(kernel.LOG))
        The first bursts of each core, -1 where there was none.
    base : tuple of int, by core
        Where its regions start in the DRAM.
    response : int
        Cycles from the acceptance of a write to its response.
    """

    traces: tuple[tuple[tuple[Trace, ...], ...], ...]
    spans: _Matrix
    bursts: _Matrix
    base: tuple[int, ...]
    dram: DramCounts
    response: int

    def answers(self, core: int) -> Answers:
        """What the memory answered a core in its first frame of one program, as far as bursts were written down.

        Raises
        ------
        SimulationError
            A frame is several programs.
        """
        if self.spans.shape[2] > 1:
            raise SimulationError(f"a frame is {self.spans.shape[2]} programs: answers are of one")
        begin, mine = int(self.spans[core, 0, 0, 0]), self.bursts[core]
        mine = mine[mine[:, 0] >= 0]
        again = np.flatnonzero((mine[:, 0] == 0) & (mine[:, 2] == self.base[core]))[
            1:2
        ]  # the next frame's first
        mine = mine[: int(again[0])] if len(again) else mine
        return Answers(mine - [0, begin, self.base[core], 0, begin, begin], self.response)

    @property
    def frames(self) -> _Matrix:
        """(cores, frames, 2) Start and end of each frame."""
        return np.stack([self.spans[:, :, 0, 0], self.spans[:, :, -1, 1]], axis=2)


def trace_shared(
    programs: Sequence[Program],
    arch: Arch,
    dram: DramSpec | str,
    *,
    starts: Sequence[int],
    frames: int = 1,
    steady: bool = True,
    bursts: int = 0,
) -> SharedTrace:
    """Times of every instruction of cores that share a memory.

    Parameters
    ----------
    programs : sequence of Program
        Of one frame, in order.
    starts : sequence of int
        Cycle in which each core starts its first frame.
    frames : int
        Of each core.
    steady : bool
        A core that has its frames goes on with others until all have theirs; else it rests.
    bursts : int
        How many of each core are written down.

    Raises
    ------
    SimulationError
        A program for another design, an unknown memory, a number of cores or frames, or a start, that cannot be.
    """
    for program in programs:
        check_design(program, arch)
    _check(len(starts), frames)
    if min(starts) < 0:
        raise SimulationError(
            f"starts {list(starts)}: a core starts in cycle 0 or later", starts=list(starts)
        )
    spec = parse(dram, arch.clock_mhz) if isinstance(dram, str) else replace(dram, clock_mhz=arch.clock_mhz)
    state = spec.state()
    found = events(programs, arch, state, starts=starts, frames=frames, steady=steady, bursts=bursts)
    counts = dram_counts(state)
    ends = np.cumsum([0, *map(len, programs)])

    def one(core: int, frame: int, job: int) -> Trace:
        mine = slice(ends[job], ends[job + 1])
        begin, end = (int(v) for v in found.spans[core, frame, job])
        return Trace(
            end - begin, found.times[core, frame, mine], found.cause[core, frame, mine],
            found.stalls[core, frame, job], found.totals[core, frame, job], counts,
        )  # fmt: skip

    traces = tuple(
        tuple(tuple(one(c, f, j) for j in range(len(programs))) for f in range(frames))
        for c in range(len(starts))
    )
    bases = tuple(int(v) for v in region_starts(programs, len(starts))[:, 0])
    return SharedTrace(traces, found.spans[:, :frames], found.log, bases, counts, int(state[DRAM_RESPONSE]))


@dataclass(frozen=True, slots=True)
class Shared:
    """Frames a second of cores that share a DRAM.

    Parameters
    ----------
    cores, frames : int
        Frames of each core that were simulated, back to back.
    starts : tuple of int
        Cycle in which each core started.
    cycles : tuple of tuple of int, by core
        Of each frame.
    frame_cycles : float
        Mean over all cores of the cycles from the end of a frame to the end of the next, after the first frame; with one
        frame, its own.
    alone_cycles : int
        A frame of one core that has the memory to itself.
    dram_bytes : int
        Of a frame.
    dram_peak_bytes_per_cycle : float
    batch : int
        Of programs for batches of frames: a frame above is then a batch, but frames a second count each.
    """

    cores: int
    frames: int
    starts: tuple[int, ...]
    cycles: tuple[tuple[int, ...], ...]
    frame_cycles: float
    frames_per_cycle: float
    alone_cycles: int
    dram_bytes: int
    dram_peak_bytes_per_cycle: float
    clock_mhz: float
    claim: str = "simulated"
    batch: int = 1

    @property
    def fps(self) -> float:
        """Frames a second of all cores."""
        return self.batch * self.frames_per_cycle * self.clock_mhz * 1e6

    @property
    def unit(self) -> str:
        """What a core takes at once."""
        return "frame" if self.batch == 1 else f"batch of {self.batch} frames"

    @property
    def latency_ms(self) -> float:
        """Of a frame, mean over the cores."""
        return self.frame_cycles / self.clock_mhz / 1e3

    @property
    def slowdown(self) -> float:
        """Cycles of a frame over those of one core alone."""
        return self.frame_cycles / self.alone_cycles

    @property
    def speedup(self) -> float:
        """Frames a second over those of one core alone; as many as there are cores at best."""
        return self.frames_per_cycle * self.alone_cycles

    @property
    def dram_utilization(self) -> float:
        """Bytes that cross the memory's port over what it could move at its peak."""
        return self.frames_per_cycle * self.dram_bytes / self.dram_peak_bytes_per_cycle

    def to_dict(self) -> dict[str, Any]:
        """For JSON: fields and derived numbers."""
        derived = ("fps", "latency_ms", "slowdown", "speedup", "dram_utilization")
        plain = {**asdict(self), "starts": list(self.starts), "cycles": [list(c) for c in self.cycles]}
        return {**plain, **{name: getattr(self, name) for name in derived}}

    def __str__(self) -> str:
        return (
            f"{self.cores} cores: {self.fps:.4g} frames/s ({self.claim}), {self.frame_cycles:,.0f} cycles a {self.unit}, "
            f"{self.slowdown:.3g} x one alone, DRAM {self.dram_utilization:.1%} of its peak"
        )


def simulate_shared(
    programs: Sequence[Program],
    arch: Arch,
    dram: DramSpec | str,
    *,
    cores: int,
    alone_cycles: int,
    frames: int = 3,
    stagger: bool = False,
    batch: int = 1,
) -> Shared:
    """Simulate cores on frames of their own, and sum up.

    Parameters
    ----------
    cores : int
    alone_cycles : int
        What `simulation.simulate` says of all programs, one after the other.
    frames : int
        Of each core, back to back.
    stagger : bool
        Start the cores spread evenly over the cycles of a frame; else all in one cycle.
    batch : int
        Frames that the programs take a run.

    Raises
    ------
    SimulationError
        As `trace_shared`.
    """
    _check(cores, frames)
    spec = parse(dram, arch.clock_mhz) if isinstance(dram, str) else replace(dram, clock_mhz=arch.clock_mhz)
    starts = tuple(c * alone_cycles // cores if stagger else 0 for c in range(cores))
    for program in programs:
        check_design(program, arch)
    spans = events(programs, arch, spec.state(), starts=starts, frames=frames, details=False).spans[
        :, :frames
    ]
    began, ended = spans[:, :, 0, 0], spans[:, :, -1, 1]
    counted = max(1, frames - 1)
    window = ended[:, -1] - (ended[:, 0] if frames > 1 else began[:, 0])
    return Shared(
        cores=cores,
        frames=frames,
        starts=starts,
        cycles=tuple(tuple(int(v) for v in row) for row in ended - began),
        frame_cycles=float(window.mean()) / counted,
        frames_per_cycle=float((counted / window).sum()),
        alone_cycles=alone_cycles,
        dram_bytes=sum(int(costs(p.fields, arch)["dram_bytes"].sum()) + p.fetch_bytes for p in programs),
        dram_peak_bytes_per_cycle=spec.peak_bytes_per_cycle,
        clock_mhz=arch.clock_mhz,
        batch=batch,
    )


def _check(cores: int, frames: int) -> None:
    for what, value, most in (("cores", cores, MOST_CORES), ("frames", frames, MOST_FRAMES)):
        if not 1 <= value <= most:
            raise SimulationError(f"{what} is {value}: want 1..{most}", **{what: value})
