"""A bus that did what it did: the simulator lives through what was recorded of another one, most of all of the Verilog's.

A memory of `hwsim.dram` answers a burst by rules. A replayed one answers by a recording, and only with what the *bus*
decides: for how many cycles an address stays on the bus until it is taken; how long after that the data of a read are
complete; for how many cycles each beat of a write waits; how long after its last beat, or its address, the response
of a write comes. All that the *core* decides, the simulator works out as ever: when it asks, for what, when it has
the next beat ready. It notes that down (`Requests`), to be compared with what was recorded: waits count from the
simulator's own cycles, so that a request which comes too late stays too late.

Beats of a read may come with gaps: the core stores a burst whole before it takes anything out, so that the last beat
alone decides. Beats of a write matter one by one, as the way to the bus stands still while two of them wait at its
end (`kernel._send`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import SimulationError
from .kernel import DRAM_HEADER, REPLAY_BEAT, REPLAY_HEADER, REPLAY_PORT, REPLAY_ROW, REPLAYED

__all__ = ["Replay", "Requests"]

_Matrix = NDArray[np.int64]
_CHANNELS = ("fetch", "load", "save")


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """What a core asked of its bus, and when.

    Parameters
    ----------
    fetch, load, save : int64 (n, 3)
        Of each burst, in the order of the bursts: cycle in which its address was on the bus first, address, bytes.
    beats : tuple of int64 (n,), by port
        Cycle in which each beat of write data was on the bus first.
    """

    fetch: _Matrix
    load: _Matrix
    save: _Matrix
    beats: tuple[_Matrix, ...]

    def __len__(self) -> int:
        """Bursts and beats."""
        return len(self.fetch) + len(self.load) + len(self.save) + sum(map(len, self.beats))

    def differing(self, other: Requests) -> int:
        """Bursts and beats that `other` lacks, has more, or has otherwise."""
        count = 0
        for mine, theirs in self._pairs(other).values():
            some = min(len(mine), len(theirs))
            wrong = _differs(mine[:some], theirs[:some])
            count += int(wrong.sum()) + abs(len(mine) - len(theirs))
        return count

    def first_difference(self, simulated: Requests) -> str:
        """The first of each channel, in words; "" where there is none."""
        told = []
        for name, (mine, theirs) in self._pairs(simulated).items():
            some = min(len(mine), len(theirs))
            wrong = np.flatnonzero(_differs(mine[:some], theirs[:some]))
            if len(wrong):
                k = int(wrong[0])
                told.append(f"{name} {k}: {mine[k].tolist()}, simulated {theirs[k].tolist()}")
            elif len(mine) != len(theirs):
                told.append(f"{name}: {len(mine)}, simulated {len(theirs)}")
        return "; ".join(told)

    def _pairs(self, other: Requests) -> dict[str, tuple[_Matrix, _Matrix]]:
        pairs = {f"{c} burst": (getattr(self, c), getattr(other, c)) for c in _CHANNELS}
        for p, (mine, theirs) in enumerate(zip(self.beats, other.beats, strict=True)):
            pairs[f"port {p} write beat"] = mine, theirs
        return pairs


def _differs(mine: _Matrix, theirs: _Matrix) -> NDArray[np.bool_]:
    """Of each burst or beat."""
    differs = np.not_equal(mine, theirs)
    return np.asarray(differs if differs.ndim == 1 else differs.any(axis=1), np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """What a bus answered.

    Parameters
    ----------
    fetch, load : int64 (n, 2)
        Of each burst: cycles that its address waited; from there to the cycle after its last beat.
    save : int64 (n, 2)
        Of each burst: cycles that its address waited; from the address or the last beat, whichever was taken later, to
        the cycle after the response.
    beats : tuple of int64 (n,), by port
        Cycles that each beat of write data waited.
    """

    fetch: _Matrix
    load: _Matrix
    save: _Matrix
    beats: tuple[_Matrix, ...]

    def __post_init__(self) -> None:
        for channel in _CHANNELS:
            waits = getattr(self, channel)
            if waits.ndim != 2 or waits.shape[1] != 2 or (waits < [0, 1]).any():
                raise SimulationError(
                    f"replay of {channel}: {waits.shape} numbers, want (n, 2): waits of 0 and more, answers after 1 and more"
                )
        if any((waits < 0).any() for waits in self.beats):
            raise SimulationError("replay: a beat of write data waits less than 0 cycles")

    def state(self) -> _Matrix:
        """What `kernel.run` works on in place of a DRAM."""
        header = np.zeros(len(DRAM_HEADER) + REPLAY_HEADER, np.int64)
        header[0], at = REPLAYED, len(DRAM_HEADER)
        rows, place = [], len(header)
        for i, channel in enumerate(_CHANNELS):
            waits = getattr(self, channel)
            part = np.full((len(waits), REPLAY_ROW), -1, np.int64)
            part[:, :2] = waits
            header[at + 3 * i : at + 3 * i + 3] = 0, len(waits), place
            rows.append(part.ravel())
            place += part.size
        header[at + 9] = place
        ports = np.zeros((len(self.beats), REPLAY_PORT), np.int64)
        place += ports.size
        for p, waits in enumerate(self.beats):
            part = np.zeros((len(waits), REPLAY_BEAT), np.int64)
            part[:, 0], part[:, 1] = waits, -1
            ports[p, :3] = 0, len(waits), place
            rows.append(part.ravel())
            place += part.size
        return np.concatenate([header, *rows[:3], ports.ravel(), *rows[3:]])

    def requests(self, state: _Matrix) -> Requests:
        """What the simulator asked for, from the state that it left; those beyond the recording are counted too."""
        at, found = len(DRAM_HEADER), []
        for i in range(3):
            asked, known, place = state[at + 3 * i : at + 3 * i + 3]
            some = min(asked, known)
            rows = np.full((asked, 3), -1, np.int64)
            rows[:some] = state[place : place + known * REPLAY_ROW].reshape(known, REPLAY_ROW)[:some, 2:5]
            found.append(rows)
        ports, beats = int(state[at + 9]), []
        for p in range(len(self.beats)):
            asked, known, place = state[ports + p * REPLAY_PORT :][:3]
            cycles = np.full(asked, -1, np.int64)
            some = min(asked, known)
            cycles[:some] = state[place : place + known * REPLAY_BEAT].reshape(known, REPLAY_BEAT)[:some, 1]
            beats.append(cycles)
        return Requests(found[0], found[1], found[2], tuple(beats))
