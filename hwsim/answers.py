"""What a memory answered one core, to be answered again in another place: to the Verilog, burst by burst.

`hwsim.replay` puts what the Verilog's bus did behind the simulator. This is the way back: of cores that share a memory,
each has its own answers (`hwsim.shared`); a core of Verilog that asks for the same bursts in the same cycles, and gets these
answers, must take the cycles that were simulated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .kernel import LOG

__all__ = ["Answers"]

_Matrix = NDArray[np.int64]
_HEADER = 3
"""Slots before the rows: bursts asked for, bursts known, the first that was asked for otherwise (-1: none)."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Bursts of one core and what it was answered.

    Parameters
    ----------
    bursts : int64 (n, len(kernel.LOG))
        In time order, on the core's own clock and addresses.
    response : int
        Cycles from the acceptance of a write to its response.
    """

    bursts: _Matrix
    response: int

    def __len__(self) -> int:
        return len(self.bursts)

    def state(self) -> _Matrix:
        """What `dram_callback.answers_callback` works on."""
        return np.concatenate([np.array([0, len(self.bursts), -1], np.int64), self.bursts.ravel()])

    def difference(self, state: _Matrix) -> str:
        """The first burst that was asked for otherwise than here, in words; "" where all were asked for, and as here."""
        asked, known, wrong = (int(v) for v in state[:_HEADER])
        if wrong >= known:
            return f"burst {wrong}: only {known} were simulated"
        if wrong >= 0:
            told = ", ".join(f"{n} {v}" for n, v in zip(LOG, self.bursts[wrong].tolist(), strict=True))
            return f"burst {wrong}: asked for otherwise than simulated ({told})"
        return "" if asked == known else f"{asked} bursts of {known}"
