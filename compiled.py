"""A network compiled for a machine: its programs, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .ir.arch import Arch
from .ir.board import Board
from .ir.errors import ModelError
from .ir.graph import Graph

if TYPE_CHECKING:
    from .frontend import Model, Network
    from .reports.result import Exact, Result
    from .scheduler import Objective, Options, Plan

__all__ = ["Compiled", "Source", "counted", "plan_segments", "silent"]

Map = NDArray[np.int8]
Feeds = Mapping[str, NDArray[Any]]


def silent(stage: str) -> None:
    """The observer of stages that says nothing."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the network came from, so that the float original can be found again.

    Parameters
    ----------
    where : str
        Path of the file, ``zoo:NAME``, or "" for a network given as a value.
    sha256 : str
        Of the file.
    input_shape : dict of str to sizes
    """

    where: str = ""
    sha256: str = ""
    input_shape: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network's programs for one machine.

    Parameters
    ----------
    model : Model
        The int8 network; its DPU segments are what `plans` schedule, in order.
    plans : tuple of Plan
    dram : str
        As `hwsim.dram.parse` reads it.
    objective : str
        latency, energy or edp.
    source : Source
    """

    model: Model
    arch: Arch
    board: Board
    dram: str
    plans: tuple[Plan, ...]
    objective: Objective = "latency"
    seed: int = 0
    source: Source = Source()

    def _plan(self, graph: Graph) -> Plan:
        return next(p for p in self.plans if p.graph is graph)

    # -- values --------------------------------------------------------------------------------------------------------
    def execute(self, graph: Graph, inputs: Mapping[str, Map]) -> dict[str, Map]:
        """A segment's outputs as its instruction words compute them, on the emulated machine.

        Parameters
        ----------
        graph : Graph
            Of one of `plans`.
        inputs : dict of name to int8 (H, W, C)
        """
        return self._emulated(self._plan(graph), inputs, tuple(graph.outputs))

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """The network's outputs for one frame, the DPU segments emulated to the bit.

        Parameters
        ----------
        feeds : dict of input name to array
            As the ONNX model takes them.
        """
        return self.model.run(dict(feeds), execute=self.execute)

    def verify_values(
        self, feeds: Feeds | None = None, *, seed: int | None = None, every: bool = False
    ) -> Exact:
        """Emulate one frame and compare with the integer reference, byte by byte.

        Parameters
        ----------
        feeds : dict of input name to array, optional
            Default: seeded noise.
        seed : int, optional
            Of the noise; default is the seed of the compilation.
        every : bool
            The programs bring some maps to DRAM, the outputs among them, and those are compared. With `every`, a second
            program that brings each layer's map there is emulated as well: the same schedule with more saves.
        """
        from .ir import reference
        from .reports.result import Exact

        told = self._saving_all() if every else self
        counts: list[tuple[int, int]] = []

        def compare(graph: Graph, inputs: Mapping[str, Map]) -> dict[str, Map]:
            plans = [c._plan(graph) for c in dict.fromkeys((self, told))]
            spilled = {name for plan in plans for name in plan.places if name not in graph.inputs}
            want: dict[str, Map] = {}

            def keep(name: str, value: Map) -> None:
                if name in spilled:
                    want[name] = value

            outputs = reference.run(graph, dict(inputs), keep)
            for plan in plans:
                names = tuple(name for name in plan.places if name in want)
                got = self._emulated(plan, inputs, names)
                counts.extend((want[n].size, int(np.count_nonzero(want[n] != got[n]))) for n in names)
            return outputs

        chosen = self.noise(self.seed if seed is None else seed) if feeds is None else dict(feeds)
        self.model.run(chosen, execute=compare)
        return Exact(sum(c for c, _ in counts), sum(d for _, d in counts))

    def _saving_all(self) -> Compiled:
        """The same network and machine, every layer's map written to DRAM."""
        from .scheduler import saving_all

        return replace(self, plans=tuple(map(saving_all, self.plans)))

    def noise(self, seed: int = 0) -> dict[str, NDArray[Any]]:
        """Seeded inputs: normal numbers for float inputs, zeros to 255 for integers."""
        random = np.random.default_rng(seed)
        return {p.name: _noise(random, p) for p in self.model.inputs}

    def _emulated(self, plan: Plan, inputs: Mapping[str, Map], wanted: tuple[str, ...]) -> dict[str, Map]:
        from .hwsim.emulate import emulate
        from .ir.layout import pack_map, unpack_map

        maps = np.zeros(plan.program.maps_bytes, np.uint8)
        for name in plan.graph.inputs:
            place, value = plan.places[name], pack_map(inputs[name], self.arch.lanes)
            maps[place.offset : place.offset + len(value)] = value
        after = emulate(plan.program, self.arch, maps).maps.view(np.uint8)
        out = {}
        for name in wanted:
            place = plan.places[name]
            size = int(np.prod(place.shape))
            out[name] = unpack_map(after[place.offset : place.offset + size], place.shape, self.arch.lanes)
        return out

    def original(self) -> Network:
        """The network as its file says it, for comparison.

        Raises
        ------
        ModelError
            It was given as a value, its file is gone, or has changed since.
        """
        import hashlib

        from .api import find

        where = self.source.where
        if not where or where.endswith(".npz"):
            raise ModelError(
                f"{self.model.name}: the float network is not known any more (it was given as a value); compile from its file"
            )
        if self.source.sha256:
            try:
                digest = hashlib.sha256(Path(where).read_bytes()).hexdigest()
            except OSError as error:
                raise ModelError(
                    f"{where}: the model that was compiled cannot be read: {error.strerror}"
                ) from None
            if digest != self.source.sha256:
                raise ModelError(f"{where}: the file has changed since it was compiled; compile it again")
        return find(where, input_shape=self.source.input_shape or None, seed=self.seed)[0]

    # -- time, traffic, energy -----------------------------------------------------------------------------------------
    def simulate(
        self,
        *,
        dram: str | None = None,
        exact: Exact | None = None,
        beside: Compiled | None = None,
        cores: int | None = None,
        frames: int = 3,
        stagger: bool = False,
        on_stage: Callable[[str], None] = silent,
    ) -> Result:
        """Cycles, traffic and energy of one frame; of several cores, also how they fare on one DRAM (`Result.shared`).

        Parameters
        ----------
        dram : str, optional
            Another memory: ``fixed:BYTES_PER_CYCLE[,LATENCY]`` or ``banked:PART``.
        cores : int, optional
            Of this design, each on frames of its own, sharing the memory; default: the machine's.
        frames : int
            Of each of several cores, back to back; the first warms up.
        stagger : bool
            Several cores start spread over a frame; else all in one cycle.
        exact : Exact, optional
            What `verify_values` found; shown in the result.
        beside : Compiled, optional
            The same network without the depthwise engine (`without_dwc`), to be shown beside it.
        """
        from .simulated import result_of

        compiled = self.with_dram(dram) if dram else self
        return result_of(
            compiled if cores is None else compiled.with_cores(cores),
            exact=exact,
            beside=beside,
            frames=frames,
            stagger=stagger,
            on_stage=on_stage,
        )

    def without_dwc(self, on_stage: Callable[[str], None] = silent) -> Compiled:
        """The same network on the same machine without its depthwise engine, scheduled anew."""
        if not self.arch.has_dwc:
            return self
        bare = self.arch.override({"dwc.pixels": 0, "dwc.channels": 0})
        return self.on(bare.override({"name": f"{self.arch.name}-nodw"}), on_stage=on_stage)

    def on(
        self,
        arch: Arch,
        *,
        board: Board | None = None,
        dram: str | None = None,
        objective: Objective | None = None,
        options: Options | None = None,
        on_stage: Callable[[str], None] = silent,
    ) -> Compiled:
        """The same int8 network scheduled for another machine; a new board brings its memory unless `dram` is given."""
        board = board or self.board
        memory = dram or (self.dram if board == self.board else f"banked:{board.dram}")
        aim = objective or self.objective
        plans = plan_segments(
            self.model, arch, dram=memory, objective=aim, options=options, on_stage=on_stage
        )
        return replace(self, arch=arch, board=board, dram=memory, objective=aim, plans=plans)

    def with_dram(self, dram: str) -> Compiled:
        """The same programs with another memory behind them.

        Raises
        ------
        SimulationError
            The text names no memory.
        """
        from .hwsim.dram import parse

        parse(dram)
        return replace(self, dram=dram)

    def with_cores(self, cores: int) -> Compiled:
        """The same programs for a design of so many of these cores.

        Raises
        ------
        ArchError
            A number of cores that cannot be.
        """
        arch = self.arch.override({"cores": cores})
        design = arch.design_hash
        plans = (
            replace(
                p,
                arch=arch,
                tiling=replace(p.tiling, design=design),
                program=replace(p.program, design=design),
            )
            for p in self.plans
        )
        return replace(self, arch=arch, plans=tuple(plans))

    # -- in and out ----------------------------------------------------------------------------------------------------
    def save(self, folder: str | Path) -> tuple[str, ...]:
        """Write into an existing folder what `load` reads; names of the files."""
        from .stored import save

        return save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Compiled:
        """Open a folder that `save` wrote; an edited ``tiling.txt`` is lowered again.

        Raises
        ------
        ReportError
            Not such a folder, one of another version, or a damaged file in it.
        ProgramError
            An edited tiling is not legal.
        """
        from .stored import load

        return load(Path(folder))

    def __str__(self) -> str:
        n = sum(len(p.program) for p in self.plans)
        return f"{self.model.name} for {self.arch.name}, {self.board.name}: {len(self.plans)} programs, {n:,} instructions"

    def _repr_html_(self) -> str:
        from html import escape

        tilings = "".join(f"<pre>{escape(str(p.tiling))}</pre>" for p in self.plans)
        return f"<details><summary>{escape(str(self))}</summary>{tilings}</details>"


def plan_segments(
    model: Model,
    arch: Arch,
    *,
    dram: str,
    objective: Objective = "latency",
    options: Options | None = None,
    on_stage: Callable[[str], None] = silent,
) -> tuple[Plan, ...]:
    """A program for each DPU segment of a network.

    Parameters
    ----------
    objective : str
        latency, energy or edp.
    options : scheduler.Options, optional

    Raises
    ------
    ModelError
        No operator of the network runs on the DPU.
    ScheduleError
        A layer does not fit the machine.
    """
    from .hwsim.dram import parse
    from .scheduler import schedule

    if not model.graphs:
        raise ModelError(
            f"{model.name}: no operator runs on the DPU, so there is no program; `tilewright check` names each one's reason"
        )
    peak = parse(dram, arch.clock_mhz).peak_bytes_per_cycle
    plans = []
    for i, graph in enumerate(model.graphs):
        on_stage(f"schedule for {arch.name}{counted(i, len(model.graphs))}")
        plans.append(schedule(graph, arch, objective=objective, dram_bytes_per_cycle=peak, options=options))
    return tuple(plans)


def counted(i: int, n: int) -> str:
    """Which of several segments a stage is about; "" for the only one.

    >>> counted(0, 3)
    ', segment 1 of 3'
    """
    return f", segment {i + 1} of {n}" if n > 1 else ""


def _noise(random: np.random.Generator, port: Any) -> NDArray[Any]:
    kind = np.dtype(port.dtype).kind
    values: NDArray[Any] = (
        random.standard_normal(port.shape) if kind == "f" else random.integers(0, 256, port.shape)
    )
    return (values > 127 if kind == "b" else values).astype(port.dtype)
