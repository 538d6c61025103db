"""What the slow twin's ports talk to: a DRAM that answers by rules, or what was recorded of a bus."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.latency import SAVE_SEND
from .dram import DRAM_RESPONSE, dram_access
from .replay import Replay

__all__ = ["SlowMemory", "SlowRecording"]


class SlowMemory:
    """The DRAM model behind ports that take an address at once, and a beat in every cycle."""

    def __init__(self, state: NDArray[np.int64], arch: Arch, start: int = 0, base: int = 0) -> None:
        """`start`: cycle of the DRAM's clock that is the core's cycle 0; `base`: where its regions are."""
        self.state, self.beat, self.start, self.base = state, arch.beat_bytes, start, base
        self.response = int(self.state[DRAM_RESPONSE])
        self.read_port: dict[tuple[str, int], int] = {}
        self.sent = [0] * arch.dma.ports
        self.answered = [-1] * arch.dma.ports

    def read(self, channel: str, port: int, t: int, at: int, size: int) -> tuple[int, int]:
        """A burst whose address is on the bus at `t`: when that is taken, and the cycle after the last beat."""
        first, last = self._ask(t, at, size, 0)
        beats = -(-(at % self.beat + size) // self.beat)
        end = max(last, max(first, self.read_port.get((channel, port), 0)) + beats)
        self.read_port[channel, port] = end
        return t, end

    def _ask(self, t: int, at: int, size: int, write: int) -> tuple[int, int]:
        first, last = dram_access(self.state, t + self.start, at + self.base, size, write)
        return first - self.start, last - self.start

    def write(self, port: int, t: int, at: int, size: int) -> int:
        """The cycle after the response of a burst that is gathered at `t`."""
        _, last = self._ask(t, at, size, 1)
        self.sent[port] = max(t + SAVE_SEND, self.sent[port]) + -(-(at % self.beat + size) // self.beat)
        self.answered[port] = max(max(last, self.sent[port]) + self.response, self.answered[port] + 1)
        return self.answered[port]


class SlowRecording(SlowMemory):
    """A recorded bus."""

    def __init__(self, replay: Replay, arch: Arch) -> None:
        self.beat, self.ports = arch.beat_bytes, arch.dma.ports
        self.waits = {"fetch": iter(replay.fetch.tolist()), "load": iter(replay.load.tolist())}
        self.save, self.beats = iter(replay.save.tolist()), [w.tolist() for w in replay.beats]
        self.gathered: list[list[tuple[int, int]]] = [[] for _ in range(self.ports)]
        self.address_free = [0] * self.ports
        self.answered = [-1] * self.ports

    def read(self, channel: str, port: int, t: int, at: int, size: int) -> tuple[int, int]:
        address, data = next(self.waits[channel])
        return t + address, t + address + data

    def write(self, port: int, t: int, at: int, size: int) -> int:
        address, response = next(self.save)
        taken = max(t, self.address_free[port]) + address
        self.address_free[port] = taken + 1
        self.gathered[port].append((t, -(-(at % self.beat + size) // self.beat)))
        done = max(taken, self._last_beat(port)) + response
        self.answered[port] = max(done, self.answered[port] + 1)
        return self.answered[port]

    def _last_beat(self, port: int) -> int:
        """Cycle in which the last beat so far is taken: the way of all beats to the bus, again, cycle for cycle."""
        way: list[int | None] = [None] * 6  # beats on their way; the last may enter one of the two places
        coming, entering = deque(self.gathered[port]), 0
        out: int | None = None  # on the bus, since
        spare: int | None = None
        waits, since, number, total = self.beats[port], 0, 0, sum(n for _, n in self.gathered[port])
        for t in range(coming[0][0], 1 << 40):
            moves = spare is None
            takes = out is not None and t >= since + waits[out]
            if takes and out == total - 1:
                return t
            shown = way[-1] if moves else None
            if takes or out is None:
                out, spare, since = (shown if spare is None else spare), None, t + 1
            elif shown is not None:
                spare = shown
            if moves:
                if not entering and coming and t >= coming[0][0] + SAVE_SEND - 7:
                    entering = coming.popleft()[1]
                way = [number if entering else None, *way[:-1]]
                number, entering = number + (entering > 0), max(0, entering - 1)
        raise AssertionError
