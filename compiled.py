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
from .segments import plan_segments, silent

if TYPE_CHECKING:
    from .frontend import Model, Network
    from .reports.result import Exact, Result
    from .scheduler import Objective, Options, Plan

__all__ = ["Compiled", "Source"]

Map = NDArray[np.int8]
Feeds = Mapping[str, NDArray[Any]]


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
    options : scheduler.Options, optional
        What the schedule was asked for beside the objective.
    tries : int
        Programs that were simulated in search of a better one (`scheduler.refine`).
    """

    model: Model
    arch: Arch
    board: Board
    dram: str
    plans: tuple[Plan, ...]
    objective: Objective = "latency"
    seed: int = 0
    source: Source = Source()
    options: Options | None = None
    tries: int = 0

    @property
    def batch(self) -> int:
        """Frames that a run of the programs takes."""
        return self.plans[0].graph.frames

    def plan_of(self, graph: Graph) -> Plan:
        """The program of one of the network's DPU segments."""
        return next(p for g, p in zip(self.model.graphs, self.plans, strict=True) if g is graph)

    # -- values --------------------------------------------------------------------------------------------------------
    def execute(self, graph: Graph, inputs: Mapping[str, Map]) -> dict[str, Map]:
        """A segment's outputs as its instruction words compute them, on the emulated machine.

        Parameters
        ----------
        graph : Graph
            Of one of the network's DPU segments.
        inputs : dict of name to int8 (H, W, C)
            The frames of a batch below each other.
        """
        return self._emulated(self.plan_of(graph), inputs, tuple(graph.outputs))

    def run(
        self, feeds: Feeds, execute: Callable[[Graph, Mapping[str, Map]], dict[str, Map]] | None = None
    ) -> dict[str, NDArray[Any]]:
        """The network's outputs, the DPU segments emulated to the bit.

        Parameters
        ----------
        feeds : dict of input name to array
            As the ONNX model takes them; of a batch, the frames one after the other along the first axis.
        execute : callable, optional
            Runs a segment in place of `Compiled.execute`.

        Raises
        ------
        ModelError
            An input is missing, or of another shape.
        """
        outputs = self.model.run_batch(self.frames_of(feeds), execute or self.execute)
        return {name: np.concatenate([out[name] for out in outputs]) for name in outputs[0]}

    def frames_of(self, feeds: Feeds) -> list[dict[str, NDArray[Any]]]:
        """The inputs of each frame of a batch."""
        if self.batch == 1:
            return [dict(feeds)]
        apart: dict[str, list[NDArray[Any]]] = {}
        for port in self.model.inputs:
            if port.name not in feeds:
                continue  # whoever runs it says so
            value, want = np.asarray(feeds[port.name]), self.shape_of(port)
            if value.shape != want:
                raise ModelError(
                    f"input {port.name}: value has shape {list(value.shape)}, the programs take {self.batch} frames a run: "
                    f"{list(want)}, frames one after the other along the first axis",
                    tensor=port.name,
                )
            apart[port.name] = np.split(value, self.batch)
        return [{name: values[f] for name, values in apart.items()} for f in range(self.batch)]

    def shape_of(self, port: Any) -> tuple[int, ...]:
        """Shape of an input of the programs: the frames of a batch one after the other along the first axis."""
        return (port.shape[0] * self.batch, *port.shape[1:]) if self.batch > 1 else tuple(port.shape)

    def verify_values(
        self, feeds: Feeds | None = None, *, seed: int | None = None, every: bool = False
    ) -> Exact:
        """Emulate a frame, or a batch, and compare with the integer reference, byte by byte.

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
            plans = [c.plan_of(graph) for c in dict.fromkeys((self, told))]
            spilled = {name for plan in plans for name in plan.places if name not in graph.inputs}
            want: dict[str, Map] = {}

            def keep(name: str, value: Map) -> None:
                if name in spilled:
                    want[name] = value

            outputs = reference.run(plans[0].graph, dict(inputs), keep)
            for plan in plans:
                names = tuple(name for name in plan.places if name in want)
                got = self._emulated(plan, inputs, names)
                counts.extend((want[n].size, int(np.count_nonzero(want[n] != got[n]))) for n in names)
            return outputs

        chosen = self.noise(self.seed if seed is None else seed) if feeds is None else dict(feeds)
        self.run(chosen, compare)
        return Exact(sum(c for c, _ in counts), sum(d for _, d in counts))

    def _saving_all(self) -> Compiled:
        """The same network and machine, every layer's map written to DRAM."""
        from .scheduler import saving_all

        return replace(self, plans=tuple(map(saving_all, self.plans)))

    def noise(self, seed: int = 0) -> dict[str, NDArray[Any]]:
        """Seeded inputs: normal numbers for float inputs, zeros to 255 for integers."""
        random = np.random.default_rng(seed)
        return {p.name: _noise(random, p.dtype, self.shape_of(p)) for p in self.model.inputs}

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
        """Cycles, traffic and energy of one frame or batch; of several cores, also how they fare on one DRAM (`Result.shared`).

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
        batch: int | None = None,
        tries: int | None = None,
        on_stage: Callable[[str], None] = silent,
    ) -> Compiled:
        """The same int8 network scheduled for another machine; a new board brings its memory unless `dram` is given.

        What is not given stays as it is.
        """
        board = board or self.board
        memory = dram or (self.dram if board == self.board else f"banked:{board.dram}")
        new = replace(
            self,
            arch=arch,
            board=board,
            dram=memory,
            objective=objective or self.objective,
            options=options or self.options,
            tries=self.tries if tries is None else tries,
        )
        plans = plan_segments(
            self.model,
            arch,
            dram=memory,
            objective=new.objective,
            options=new.options,
            batch=self.batch if batch is None else batch,
            tries=new.tries,
            on_stage=on_stage,
        )
        return replace(new, plans=plans)

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
        """The same programs for a design of so many of these cores; ArchError where it cannot have them."""
        from .simulated import of_design

        arch = self.arch.override({"cores": cores})
        return replace(self, arch=arch, plans=tuple(of_design(plan, arch) for plan in self.plans))

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
        frames = f", batches of {self.batch} frames" if self.batch > 1 else ""
        n = sum(len(p.program) for p in self.plans)
        return f"{self.model.name} for {self.arch.name}, {self.board.name}: {len(self.plans)} programs, {n:,} instructions{frames}"

    def _repr_html_(self) -> str:
        from html import escape

        tilings = "".join(f"<pre>{escape(str(p.tiling))}</pre>" for p in self.plans)
        return f"<details><summary>{escape(str(self))}</summary>{tilings}</details>"


def _noise(random: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    kind = np.dtype(dtype).kind
    values: NDArray[Any] = random.standard_normal(shape) if kind == "f" else random.integers(0, 256, shape)
    return (values > 127 if kind == "b" else values).astype(dtype)
