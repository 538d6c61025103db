"""What a run's bus did, as a memory for the simulator, and what the core asked of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hwsim.replay import Replay, Requests
from .cosim import CosimRun
from .model import CHANNELS
from .verilate import CosimulationError

__all__ = ["recorded"]


def recorded(run: CosimRun, ports: int, core: int = 0) -> tuple[Replay, Requests]:
    """The waits of a bus at random, and the cycles of the core's requests.

    Parameters
    ----------
    ports : int
        Read+write ports of a core.
    core : int
        Which core of the design ran.

    Raises
    ------
    CosimulationError
        A burst was never answered.
    """
    bursts, beats = run.bursts, run.beats
    if (bursts["ended"] < 0).any():
        k = int(np.argmax(bursts["ended"] < 0))
        raise CosimulationError(
            f"{CHANNELS[bursts['channel'][k]]} burst at cycle {bursts['asked'][k]}: never answered"
        )
    of = {name: bursts[bursts["channel"] == i] for i, name in enumerate(CHANNELS)}
    by_port = [beats[beats["port"] == core * ports + p] for p in range(ports)]
    save = _in_turn(of["save"], ports, core)
    # The last beat of each write: beats go to their bursts in order.
    sent = np.zeros(len(save), np.int64)
    for p in range(ports):
        last = np.cumsum(_beats(save[p::ports], run.beat_bytes)) - 1
        sent[p::ports] = by_port[p]["at"][last]
    after = np.maximum(save["at"], sent)
    replay = Replay(
        fetch=_waits(of["fetch"], of["fetch"]["at"]),
        load=_waits(of["load"], of["load"]["at"]),
        save=_waits(save, after),
        beats=tuple(b["at"] - b["asked"] for b in by_port),
    )
    asked = Requests(
        fetch=_asked(of["fetch"]),
        load=_asked(of["load"]),
        save=_asked(save),
        beats=tuple(b["asked"].copy() for b in by_port),
    )
    return replay, asked


def _in_turn(bursts: NDArray[Any], ports: int, core: int) -> NDArray[Any]:
    """Bursts in the order in which the core began them: to the ports in turn, whatever the order of their addresses."""
    mine = [np.flatnonzero(bursts["port"] == core * ports + p) for p in range(ports)]
    return bursts[[mine[k % ports][k // ports] for k in range(len(bursts))]]


def _beats(bursts: NDArray[Any], beat: int) -> NDArray[np.int64]:
    return np.asarray(-(-(bursts["address"] % beat + bursts["size"]) // beat), np.int64)


def _waits(bursts: NDArray[Any], after: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of an address, and from `after` to the end."""
    return np.stack([bursts["at"] - bursts["asked"], bursts["ended"] - after], axis=1)


def _asked(bursts: NDArray[Any]) -> NDArray[np.int64]:
    return np.stack([bursts["asked"], bursts["address"], bursts["size"]], axis=1)
