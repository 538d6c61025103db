"""Random small programs, and buses at random to run them on."""

from __future__ import annotations

import numpy as np
from graphs import MODES, _random_graph
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ScheduleError
from tilewright.rtl.model import Pattern
from tilewright.scheduler import Plan, saving_all, schedule

__all__ = ["random_pattern", "random_plan"]


def random_plan(seed: int, arch: Arch, largest: int = 14, steps: int = 4) -> Plan | None:
    """A random program that saves every map; None where a layer does not fit."""
    rng = np.random.default_rng([seed, 7])
    modes = [m for m in MODES if m in arch.rounding]
    height, width, channels = (int(v) for v in rng.integers(1, (largest, largest, largest + 6)))
    graph = _random_graph(seed, modes[seed % len(modes)], height, width, channels, 1 + seed % steps)
    try:
        return saving_all(schedule(graph, arch))
    except ScheduleError:
        return None


def random_pattern(seed: int) -> Pattern:
    """A bus: never, seldom, often or nearly always busy; quick, slow, or of any speed."""
    rng = np.random.default_rng([seed, 8])
    address, data = (float(rng.choice([0, 0.1, 0.4, 0.8])) for _ in range(2))
    return Pattern(
        seed,
        address_stall=address,
        data_stall=data,
        latency=(1, int(rng.choice([1, 5, 30, 200]))),
        response=int(rng.choice([1, 8, 60])),
    )
