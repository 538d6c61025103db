"""A verilated core under Python: `harness.cpp` behind ctypes.

Nothing here knows the core's registers or programs (`rtl.cosim` does): memory on the bus, the clock, AXI4-Lite accesses,
faults to inject, and what was seen.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.isa import Engine
from .verilate import CosimulationError

__all__ = ["BEAT", "BURST", "CHANNELS", "Model", "Pattern"]

CHANNELS = ("fetch", "load", "save")
"""Streams of bursts, in the order in which the DRAM serves those of one cycle."""
BURST = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("channel", "port", "at", "address", "size", "first", "last", "response", "asked", "ended"),
        )
    ]
)
"""A burst as the memory saw it: index into `CHANNELS`, port, cycle in which its address was taken, bytes, what
`dram_access` answered, its response (0 OKAY, 2 SLVERR, 3 DECERR), cycle in which its address was on the bus first, and
cycle after its last beat (read) or its response (write) went over, -1 for never."""
BEAT = np.dtype([(name, np.int64) for name in ("port", "asked", "at")])
"""A beat of write data on a bus at random: cycle in which it was on the bus first, and in which it was taken."""

_LITE_LIMIT = 1000
"""Cycles; an AXI4-Lite access of the core takes a few."""

_NUMBER, _POINTER, _INT = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "dpu_new": (_POINTER, ()),
    "dpu_delete": (None, (_POINTER,)),
    "dpu_map": (None, (_POINTER, ctypes.c_uint64, ctypes.c_uint64, _POINTER)),
    "dpu_unmap": (None, (_POINTER,)),
    "dpu_exact": (None, (_POINTER, _POINTER, _POINTER, _NUMBER, _NUMBER, _NUMBER)),
    "dpu_pattern": (None, (_POINTER, ctypes.c_uint64, _INT, _INT, _NUMBER, _NUMBER, _NUMBER)),
    "dpu_inject": (None, (_POINTER, _INT, _NUMBER, _INT)),
    "dpu_arm": (None, (_POINTER,)),
    "dpu_reset": (None, (_POINTER, _NUMBER)),
    "dpu_step": (None, (_POINTER, _NUMBER)),
    "dpu_run": (_NUMBER, (_POINTER, _NUMBER, _INT)),
    "dpu_poke": (_INT, (_POINTER, ctypes.c_uint32, ctypes.c_uint32, _NUMBER)),
    "dpu_peek": (_INT, (_POINTER, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32), _NUMBER)),
    "dpu_irq": (_INT, (_POINTER,)),
    "dpu_cycle": (_NUMBER, (_POINTER,)),
    "dpu_late": (_NUMBER, (_POINTER,)),
    "dpu_violation": (ctypes.c_char_p, (_POINTER,)),
    "dpu_events": (_NUMBER, (_POINTER, _INT, _INT, _POINTER, _NUMBER)),
    "dpu_records": (_NUMBER, (_POINTER, _POINTER, _NUMBER)),
    "dpu_beats": (_NUMBER, (_POINTER, _POINTER, _NUMBER)),
    "dpu_wave": (_INT, (_POINTER, ctypes.c_char_p, _NUMBER, _NUMBER)),
    "dpu_wave_close": (None, (_POINTER,)),
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A bus that behaves at random, each channel of each port for itself, the same for the same seed.

    Parameters
    ----------
    address_stall, data_stall : float
        Chance that an address channel, or the data of a read or write, waits in a cycle.
    latency : (low, high)
        Cycles from an address to its first beat, or to the earliest response of a write.
    response : int
        Most cycles from the last beat of a write to its response, at least 1.
    """

    seed: int = 0
    address_stall: float = 0.25
    data_stall: float = 0.25
    latency: tuple[int, int] = (1, 60)
    response: int = 8


class Model:
    """One instance of a verilated core, powered up; `reset` it first.

    Parameters
    ----------
    library : Path
        As `verilate.library` or `verilate.build` gives it.
    """

    def __init__(self, library: Path) -> None:
        code = ctypes.CDLL(str(library))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(code, name)
            function.restype, function.argtypes = result, arguments
        self._code, self._core = code, code.dpu_new()
        self._kept: list[Any] = []
        """Arrays that the C++ side points to."""

    def close(self) -> None:
        """Free the model; nothing else may be called afterwards."""
        if self._core:
            self._code.dpu_delete(self._core)
            self._core = None

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    # -- the bus -------------------------------------------------------------------------------------------------------
    def connect(self, base: int, memory: NDArray[Any]) -> None:
        """Put an array on the bus, at addresses from `base` on; the core reads and writes the array itself."""
        if not (memory.flags.c_contiguous and memory.flags.writeable):
            raise CosimulationError("memory on the bus must be a contiguous, writable array")
        self._kept.append(memory)
        self._code.dpu_map(self._core, base, memory.nbytes, memory.ctypes.data)

    def disconnect(self) -> None:
        """Take all memory off the bus; whatever is read there now answers DECERR."""
        self._code.dpu_unmap(self._core)
        self._kept.clear()

    def exact(self, answer: int, state: NDArray[np.int64], *, response: int, send: int) -> None:
        """Bus and DRAM as the simulator has them.

        Parameters
        ----------
        answer : int
            Address of the C function of the DRAM model (`hwsim.dram_callback`), 0 for none.
        state : int64 array
            Its state; it changes as the model is asked.
        response : int
            Cycles from a write's acceptance to its response.
        send : int
            Cycles from a write's address to its first beat.
        """
        self._kept.append(state)
        self._code.dpu_exact(self._core, answer, state.ctypes.data, len(state), response, send)

    def pattern(self, pattern: Pattern) -> None:
        """Bus at random."""
        low, high = pattern.latency
        if not (1 <= low <= high and pattern.response >= 1):
            raise CosimulationError(f"{pattern}: latencies are at least 1 cycle, the lower one first")
        stalls = (min(255, round(256 * p)) for p in (pattern.address_stall, pattern.data_stall))
        self._code.dpu_pattern(self._core, pattern.seed, *stalls, low, high, pattern.response)

    def inject(self, channel: str, nth: int, response: int) -> None:
        """Answer beat `nth` (from 1) of ``fetch`` or ``load``, or write `nth` of ``save``, with 2 SLVERR or 3 DECERR."""
        self._code.dpu_inject(self._core, CHANNELS.index(channel), nth, response)

    # -- clock and registers -------------------------------------------------------------------------------------------
    def arm(self) -> None:
        """Forget what was recorded and injected; the next fetch is cycle 0."""
        self._code.dpu_arm(self._core)

    def reset(self, cycles: int = 4) -> None:
        """Hold ``rst``, and forget what is under way on the bus."""
        self._code.dpu_reset(self._core, cycles)

    def step(self, cycles: int = 1) -> None:
        """Let the clock run."""
        self._code.dpu_step(self._core, cycles)

    def run(self, limit: int, cores: int = 1) -> bool:
        """Let the clock run until so many cores interrupt, at most `limit` cycles; whether they did."""
        self._code.dpu_run(self._core, limit, cores)
        return int(self._code.dpu_irq(self._core)).bit_count() >= cores

    def poke(self, address: int, value: int) -> int:
        """Write a 32-bit register; the response."""
        got = int(self._code.dpu_poke(self._core, address, value & 0xFFFFFFFF, _LITE_LIMIT))
        return self._answered(got, address)

    def peek(self, address: int) -> int:
        """Read a 32-bit register.

        Raises
        ------
        CosimulationError
            The core answers with an error, or not at all.
        """
        value = ctypes.c_uint32()
        got = int(self._code.dpu_peek(self._core, address, ctypes.byref(value), _LITE_LIMIT))
        if self._answered(got, address):
            raise CosimulationError(f"register 0x{address:x}: read answered with {got}", address=address)
        return value.value

    def _answered(self, response: int, address: int) -> int:
        if response < 0:
            raise CosimulationError(
                f"register 0x{address:x}: no answer in {_LITE_LIMIT} cycles", address=address
            )
        return response

    @property
    def irq(self) -> bool:
        return bool(self._code.dpu_irq(self._core))

    # -- what was seen -------------------------------------------------------------------------------------------------
    @property
    def cycle(self) -> int:
        """Cycles since the first fetch; -1 before it."""
        return int(self._code.dpu_cycle(self._core))

    @property
    def late(self) -> int:
        """Beats that the core kept waiting, or that the DRAM wanted earlier than a bus can: 0 in a run that is exact."""
        return int(self._code.dpu_late(self._core))

    @property
    def violation(self) -> str:
        """The first breach of the AXI4 rules that the core committed; "" for none."""
        return str(self._code.dpu_violation(self._core).decode())

    def events(self, engine: Engine, *, done: bool, core: int = 0) -> NDArray[np.int64]:
        """Cycles of the starts, or dones, of an engine's instructions."""
        return self._array(
            np.dtype(np.int64), self._code.dpu_events, core * len(Engine) + int(engine), int(done)
        )

    def bursts(self) -> NDArray[Any]:
        """All bursts, as their addresses were taken (`BURST`)."""
        return self._array(BURST, self._code.dpu_records)

    def beats(self) -> NDArray[Any]:
        """All beats of write data on a bus at random, as they were taken (`BEAT`)."""
        return self._array(BEAT, self._code.dpu_beats)

    def _array(self, dtype: np.dtype[Any], function: Any, *arguments: int) -> NDArray[Any]:
        count = int(function(self._core, *arguments, None, 0))
        out = np.zeros(count, dtype)
        function(self._core, *arguments, out.ctypes.data, count)
        return out

    # -- waves ---------------------------------------------------------------------------------------------------------
    def wave(self, path: Path, cycles: tuple[int, int] = (0, 1 << 62)) -> None:
        """Write a wave file of these cycles of the job, two time units each, until `wave_close`."""
        if not self._code.dpu_wave(self._core, str(path).encode(), *cycles):
            raise CosimulationError(f"{path}: the wave file cannot be written, or the model has no waves")

    def wave_close(self) -> None:
        """Finish the wave file."""
        self._code.dpu_wave_close(self._core)
