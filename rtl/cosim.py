"""Programs on the verilated core: DRAM in arrays, registers written as a driver would, one call for the whole job."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hwsim.answers import Answers
from ..hwsim.dram import DRAM_RESPONSE, DramSpec, parse
from ..hwsim.dram_callback import answers_callback, dram_callback
from ..hwsim.events import region_bases, region_starts
from ..ir.arch import Arch
from ..ir.errors import SimulationError
from ..ir.isa import Engine, Program, Region
from ..ir.latency import SAVE_SEND
from .axi import BOUNDARY
from .faults import Cause
from .model import Model, Pattern
from .register_map import BLOCK_BYTES, REGISTERS, register
from .verilate import CosimulationError, Wave, library

__all__ = ["CosimCore", "CosimRun"]


@dataclass(frozen=True, slots=True, eq=False)
class CosimRun:
    """What a job on the core left behind.

    Parameters
    ----------
    maps : uint8 (maps_bytes,)
        The DRAM maps region afterwards.
    cycles : int
        The core's own count, from its first fetch.
    starts, dones : tuple of int64 arrays, by `Engine`
        Cycles of each engine's instructions, counted from the first fetch as the simulator counts.
    bursts : array of `model.BURST`
    beats : array of `model.BEAT`
        Of write data; on a bus at random only.
    beat_bytes : int
    late : int
        Beats that the core kept waiting.
    finished : bool
        The interrupt came and the status tells no error.
    trouble : str
        Why not, or the rule of the bus that the core broke.
    seconds : float
        Host time of the job.
    """

    maps: NDArray[np.uint8]
    cycles: int
    starts: tuple[NDArray[np.int64], ...]
    dones: tuple[NDArray[np.int64], ...]
    bursts: NDArray[Any]
    beats: NDArray[Any]
    beat_bytes: int
    late: int
    finished: bool
    trouble: str
    mac: str
    seconds: float


class CosimCore:
    """A core of an Arch, verilated (built once, then taken from the cache), powered up and reset.

    Parameters
    ----------
    mac : str
        MAC style, as `rtl.core.Core` takes it.
    core : int
        Which of a design's cores runs the jobs; the others stand idle.
    wave : Path, optional
        Write a wave file, ``.vcd`` or ``.fst`` by its name, of all jobs.
    wave_cycles : (from, to)
        Cycles of a job that the wave file holds.

    Raises
    ------
    CosimulationError
        A tool is missing; the message says which.
    """

    def __init__(
        self,
        arch: Arch,
        mac: str = "plain",
        *,
        core: int = 0,
        wave: Path | None = None,
        wave_cycles: tuple[int, int] = (0, 1 << 62),
        cache: Path | None = None,
        on_stage: Callable[[str], None] = lambda stage: None,
    ) -> None:
        self.arch, self.mac, self.core = arch, mac, core
        self.model = Model(library(arch, mac, wave=_kind(wave), cache=cache, on_stage=on_stage))
        if wave is not None:
            self.model.wave(wave, wave_cycles)
        self.model.reset()

    def close(self) -> None:
        """Finish the wave file and free the model."""
        self.model.wave_close()
        self.model.close()

    def __enter__(self) -> CosimCore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        program: Program,
        maps: NDArray[np.int8] | NDArray[np.uint8],
        memory: DramSpec | Pattern | Answers | str,
        *,
        limit: int,
        reset: bool = True,
        prepare: Callable[[Model], None] = lambda model: None,
    ) -> CosimRun:
        """One job.

        Parameters
        ----------
        maps : int8 or uint8 (maps_bytes,)
            The DRAM maps region with the graph's inputs in place; it is copied.
        memory : DramSpec, str, Pattern or Answers
            A memory as the simulator has it (exact in every cycle), a bus at random, or what was answered to a core that
            shared its memory: `CosimRun.trouble` names the first burst that is asked for otherwise.
        limit : int
            Cycles after which the job is given up.
        reset : bool
            Reset the core if it is; else it goes on.
        prepare : callable
            Called with the model before the start, to inject faults.

        Raises
        ------
        SimulationError
            `maps` has another size.
        CosimulationError
            A memory that no bus can follow.
        """
        model, bases = self.model, region_bases(program)
        memory_bytes = np.zeros(_pages(bases[Region.MAPS] + program.maps_bytes), np.uint8)
        _fill(memory_bytes, program, maps)
        model.disconnect()
        model.connect(0, memory_bytes)
        state = self._behave(memory)
        self._prepare(program, bases)
        model.arm()
        prepare(model)
        begin = time.perf_counter()
        self.write("CONTROL", register("CONTROL").field("START").mask)
        came = model.run(limit)
        seconds = time.perf_counter() - begin
        trouble = self._verdict() if came else f"no interrupt in {limit:,} cycles"
        if isinstance(memory, Answers) and not trouble:
            trouble = memory.difference(state)
        run = self._left(memory_bytes[bases[Region.MAPS] :][: program.maps_bytes], came, trouble, seconds)
        if not came and reset:
            model.reset()
        return run

    def run_all(
        self,
        program: Program,
        maps: Sequence[NDArray[np.int8] | NDArray[np.uint8]],
        memory: DramSpec | str,
        *,
        limit: int,
        gap: int = 0,
    ) -> tuple[tuple[int, CosimRun], ...]:
        """A job on every core of the design, all on one memory; `core` does not matter.

        Parameters
        ----------
        maps : sequence of int8 or uint8 (maps_bytes,), by core
        gap : int
            Cycles between two cores' starts, beside those of the register writes.

        Returns
        -------
        tuple, by core, of (start, run)
            Cycle of the first core's clock in which a core's first fetch was on the bus; the run counts from there, but for
            `CosimRun.bursts`, which are of all cores on the first one's clock.
        """
        model, chosen = self.model, self.core
        bases, starts = region_bases(program), region_starts((program,), self.arch.cores)[:, 0].tolist()
        each = _pages(bases[Region.MAPS] + program.maps_bytes)
        memory_bytes = np.zeros(starts[-1] + each, np.uint8)
        model.disconnect()
        model.connect(0, memory_bytes)
        self._behave(memory)
        for c, start in enumerate(starts):
            self.core = c
            _fill(memory_bytes[start : start + each], program, maps[c])
            self._prepare(program, {region: base + start for region, base in bases.items()})
        model.arm()
        begin = time.perf_counter()
        for c in range(self.arch.cores):
            self.core = c
            self.write("CONTROL", register("CONTROL").field("START").mask)
            model.step(gap)
        came = model.run(limit, self.arch.cores)
        seconds = time.perf_counter() - begin
        out = []
        for c, start in enumerate(starts):
            self.core = c
            trouble = self._verdict() if came else f"not all {self.arch.cores} interrupts in {limit:,} cycles"
            left = memory_bytes[start + bases[Region.MAPS] :][: program.maps_bytes]
            run = self._left(left, came, trouble, seconds)
            mine = run.bursts[(run.bursts["channel"] == 0) & (run.bursts["port"] == c)]
            zero = int(mine["asked"][0]) if len(mine) else 0
            run = replace(
                run, starts=tuple(t - zero for t in run.starts), dones=tuple(t - zero for t in run.dones)
            )
            out.append((zero, run))
            self.write("IRQ_STATUS", register("IRQ_STATUS").mask)  # another job may be one core's alone
        self.core = chosen
        if not came:
            model.reset()
        return tuple(out)

    def _left(self, maps: NDArray[np.uint8], came: bool, trouble: str, seconds: float) -> CosimRun:
        """What a job left behind."""
        model = self.model
        return CosimRun(
            maps=maps.copy(),
            cycles=self.read("CYCLES"),
            starts=tuple(model.events(e, done=False, core=self.core) for e in Engine),
            dones=tuple(model.events(e, done=True, core=self.core) for e in Engine),
            bursts=model.bursts(),
            beats=model.beats(),
            beat_bytes=self.arch.beat_bytes,
            late=model.late,
            finished=came and not trouble,
            trouble=trouble or model.violation,
            mac=self.mac,
            seconds=seconds,
        )

    # -- registers -----------------------------------------------------------------------------------------------------
    def write(self, name: str, value: int) -> None:
        """Write a register by its name; ``NAME`` of a pair ``NAME_LO``, ``NAME_HI`` writes both."""
        for part, shift in _parts(name):
            self.model.poke(self.core * BLOCK_BYTES + part, value >> shift)

    def read(self, name: str) -> int:
        """Read a register by its name, or a pair."""
        return sum(self.model.peek(self.core * BLOCK_BYTES + part) << shift for part, shift in _parts(name))

    def _prepare(self, program: Program, bases: dict[Region, int]) -> None:
        """All that stands before a start."""
        for region, base in bases.items():
            self.write(f"{region.name}_BASE", base)
        self.write("PROGRAM_WORDS", len(program))
        self.write("PROGRAM_HASH", int(program.design, 16))
        self.write("WATCHDOG", 0)
        self.write("IRQ_STATUS", register("IRQ_STATUS").mask)
        self.write("IRQ_ENABLE", register("IRQ_ENABLE").mask)

    def _verdict(self) -> str:
        """Why the run was stopped; "" where it was not."""
        if not self.read("STATUS") & register("STATUS").field("ERROR").mask:
            return ""
        cause = self.read("ERROR_CAUSE")
        return (
            f"stopped: {Cause(cause & 0xFF).name}, response {cause >> 8 & 3}, instruction {self.read('ERROR_INSTRUCTION')}, "
            f"address 0x{self.read('ERROR_ADDRESS'):x}"
        )

    def _behave(self, memory: DramSpec | Pattern | Answers | str) -> NDArray[np.int64]:
        """Put the memory behind the ports; its state."""
        if isinstance(memory, Pattern):
            self.model.pattern(memory)
            return np.zeros(0, np.int64)
        if isinstance(memory, Answers):
            state = memory.state()
            self.model.exact(answers_callback(), state, response=memory.response, send=SAVE_SEND)
            return state
        clock = self.arch.clock_mhz
        spec = parse(memory, clock) if isinstance(memory, str) else replace(memory, clock_mhz=clock)
        state = spec.state()
        response = int(state[DRAM_RESPONSE])
        if response < 1:
            raise CosimulationError(
                f"memory {spec.text}: it answers in the cycle in which it is asked, latency {response}; "
                "a bus takes at least 1: fixed:RATE,1",
                latency=response,
            )
        self.model.exact(dram_callback(), state, response=response, send=SAVE_SEND)
        return state


def _fill(memory: NDArray[np.uint8], program: Program, maps: NDArray[np.int8] | NDArray[np.uint8]) -> None:
    """Write a program's regions into DRAM."""
    if maps.shape != (program.maps_bytes,):
        raise SimulationError(f"maps has {maps.shape} bytes, the program's maps region {program.maps_bytes}")
    bases = region_bases(program)
    for region, content in (
        (Region.PROGRAM, np.frombuffer(program.words, np.uint8)),
        (Region.WEIGHTS, np.ascontiguousarray(program.weights).view(np.uint8)),
        (Region.MAPS, maps.view(np.uint8)),
    ):
        memory[bases[region] :][: len(content)] = content


def _parts(name: str) -> tuple[tuple[int, int], ...]:
    """Offset and shift of each 32-bit half of a register."""
    if f"{name}_LO" in _NAMES:
        return (register(f"{name}_LO").offset, 0), (register(f"{name}_HI").offset, 32)
    return ((register(name).offset, 0),)


_NAMES = frozenset(r.name for r in REGISTERS)


def _pages(size: int) -> int:
    """Whole 4 KB pages: beats may reach beyond the last byte."""
    return -(-size // BOUNDARY) * BOUNDARY


def _kind(wave: Path | None) -> Wave:
    """Kind of a wave file, by its name."""
    if wave is None:
        return ""
    if wave.suffix == ".vcd":
        return "vcd"
    if wave.suffix == ".fst":
        return "fst"
    raise CosimulationError(f"{wave}: wave files are .vcd or .fst")
