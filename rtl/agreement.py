"""One program on the verilated core, on the emulator and on the simulator: do they agree, in every byte and cycle?

Bytes: the DRAM maps region that the core leaves, against the one that the emulator leaves, all of it. Cycles: start and
done of every instruction and the total, against the event simulation with the same memory. On a bus at random the
simulator replays what the bus answered, and every burst and beat must have been asked for in the same cycle too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..hwsim.dram import DramSpec
from ..hwsim.emulate import emulate
from ..hwsim.replay import Requests
from ..hwsim.shared import trace_shared
from ..hwsim.simulation import Trace, trace
from ..ir.arch import Arch
from ..ir.graph import Graph, Shape
from ..ir.isa import Engine, Program, render
from .model import Pattern

if TYPE_CHECKING:
    from .cosim import CosimCore, CosimRun

__all__ = [
    "Agreement",
    "ByteDifference",
    "CycleDifference",
    "LayerAgreement",
    "Planned",
    "agree",
    "agree_all",
    "judge",
]

SCHEMA = "tilewright.agreement/1"
_ELSEWHERE = "(between maps)"
"""The layer of bytes that belong to no map: nobody may write there."""


class _Place(Protocol):
    @property
    def offset(self) -> int: ...
    @property
    def shape(self) -> Shape: ...


class Planned(Protocol):
    """A program, and what its maps and layers are called; `scheduler.Plan` is one."""

    @property
    def program(self) -> Program: ...
    @property
    def arch(self) -> Arch: ...
    @property
    def graph(self) -> Graph: ...
    @property
    def places(self) -> Mapping[str, _Place]: ...


@dataclass(frozen=True, slots=True)
class ByteDifference:
    """A byte of the maps region that differs: the first one in layer order."""

    layer: str
    byte: int
    """Within the layer's map, as it lies in DRAM."""
    rtl: int
    emulated: int


@dataclass(frozen=True, slots=True)
class CycleDifference:
    """An instruction that starts or ends at another cycle: the first one in time."""

    instruction: int
    text: str
    layer: str
    event: str
    """``start`` or ``done``."""
    rtl: int | None
    """None: it never came."""
    simulated: int | None
    """None: there is no such instruction."""


@dataclass(frozen=True, slots=True)
class LayerAgreement:
    """A layer of the graph.

    Parameters
    ----------
    bytes_compared : int
        0 where its map does not leave the chip.
    instructions_differing : int
        Those whose start or done differs.
    cycles_rtl, cycles_simulated : int
        From its first start to its last done; 0 without instructions.
    """

    name: str
    op: str
    bytes_compared: int
    bytes_differing: int
    instructions: int
    instructions_differing: int
    cycles_rtl: int
    cycles_simulated: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was compared, and what differs.

    Parameters
    ----------
    cycles_rtl, cycles_simulated : int
        Of the whole program.
    instructions_differing : int
        Instructions whose start or done differs by a cycle or more.
    finished : bool
        The core raised its interrupt, without an error.
    trouble : str
        Why not, or what rule of the bus it broke; "" for nothing.
    late_beats : int
        Beats that the core kept waiting.
    requests_compared, requests_differing : int
        On a bus at random: bursts and beats of write data, and those that the core asked for in another cycle, or at
        another address, than simulated.
    first_request : str
        The first of those.
    """

    name: str
    arch: str
    design: str
    mac: str
    dram: str
    bytes_compared: int
    bytes_differing: int
    cycles_rtl: int
    cycles_simulated: int
    instructions: int
    instructions_differing: int
    late_beats: int
    finished: bool
    trouble: str
    seconds: float
    """Of the co-simulation itself."""
    layers: tuple[LayerAgreement, ...]
    first_byte: ByteDifference | None = None
    first_cycle: CycleDifference | None = None
    requests_compared: int = 0
    requests_differing: int = 0
    first_request: str = ""

    @property
    def exact(self) -> bool:
        """Nothing differs, in bytes and cycles."""
        return (
            self.finished
            and not self.trouble
            and not self.bytes_differing
            and not self.instructions_differing
            and not self.requests_differing
            and self.cycles_rtl == self.cycles_simulated
        )

    @property
    def same_bytes(self) -> bool:
        """No byte differs, whatever the cycles."""
        return self.finished and not self.trouble and not self.bytes_differing

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": SCHEMA, "exact": self.exact, **asdict(self)}


def agree(
    core: CosimCore,
    plan: Planned,
    maps: NDArray[np.uint8],
    memory: DramSpec | Pattern | str,
    *,
    name: str = "",
) -> Agreement:
    """Run a program three ways and compare.

    Parameters
    ----------
    maps : uint8 (maps_bytes,)
        The DRAM maps region with the graph's inputs in place.
    memory : DramSpec, str or Pattern
        What is behind core and simulator. Of a bus at random, the simulator gets the answers that the core got.

    Raises
    ------
    SimulationError
        The program is illegal, or for another design.
    """
    program, arch = plan.program, plan.arch
    emulated = emulate(program, arch, maps).maps
    if isinstance(memory, Pattern):
        slow = trace(program, arch, f"fixed:1,{memory.latency[1]}")
        run = core.run(program, maps, memory, limit=10 * slow.cycles + 20_000)
        if not run.finished:
            return judge(run, plan, emulated, None, dram=str(memory), name=name)
        from .recorded import recorded

        replay, asked = recorded(run, arch.dma.ports, core.core)
        simulated = trace(program, arch, replay)
        return judge(run, plan, emulated, simulated, asked, dram=str(memory), name=name)
    simulated = trace(program, arch, memory)
    run = core.run(program, maps, memory, limit=2 * simulated.cycles + 20_000)
    return judge(run, plan, emulated, simulated, dram=str(memory), name=name)


def agree_all(
    core: CosimCore, plan: Planned, maps: NDArray[np.uint8], memory: DramSpec | str, *, name: str = ""
) -> tuple[Agreement, ...]:
    """Run a program on all cores of a design at once, behind one DRAM, and compare each core.

    Parameters
    ----------
    maps : uint8 (maps_bytes,)
        As `agree` takes it; every core gets its own copy.
    """
    program, arch = plan.program, plan.arch
    emulated = emulate(program, arch, maps).maps
    # Never longer than the cores one after the other, and a good deal of waiting for rows and turns.
    limit = 4 * arch.cores * trace(program, arch, memory).cycles + 20_000
    runs = core.run_all(program, [maps] * arch.cores, memory, limit=limit)
    found = trace_shared((program,), arch, memory, starts=[start for start, _ in runs], steady=False)
    return tuple(
        judge(
            run,
            plan,
            emulated,
            mine[0][0],
            dram=str(memory),
            name=f"{name or plan.graph.name}, core {c} of {arch.cores} at once",
        )
        for c, ((_, run), mine) in enumerate(zip(runs, found.traces, strict=True))
    )


def judge(
    run: CosimRun,
    plan: Planned,
    emulated: NDArray[np.int8],
    simulated: Trace | None,
    asked: Requests | None = None,
    *,
    dram: str = "",
    name: str = "",
) -> Agreement:
    """Compare what a co-simulation left with what the emulator and the simulator say.

    Parameters
    ----------
    simulated : Trace or None
        None: cycles are not compared (a run that did not come to its end has no whole recording).
    asked : Requests, optional
        What the core asked of a bus whose recording was simulated.
    """
    program, graph = plan.program, plan.graph
    ops = [(op.name, type(op).__name__, op.output) for op in graph.ops]
    differs = np.asarray(run.maps.view(np.uint8) != emulated.view(np.uint8))
    compared, differing, first_byte = _by_map(
        plan, run.maps.view(np.uint8), emulated.view(np.uint8), differs, ops
    )

    n = len(program)
    rtl, wanted = _events(run, program), np.full((n, 2), -1, np.int64)
    wrong = np.zeros(n, bool)
    first_cycle = None
    if simulated is not None:
        wanted = simulated.times[:, [1, 3]].copy()
        wrong = (rtl != wanted).any(axis=1) & (program.engine >= 0)
        first_cycle = _first_cycle(rtl, wanted, wrong, program, ops) or _too_many(run, program)
    requests = (0, 0, "")
    if asked is not None and simulated is not None and simulated.requests is not None:
        told = simulated.requests
        requests = len(asked), asked.differing(told), asked.first_difference(told)
    layers = []
    for i, (layer, op, output) in enumerate(ops):
        mine = program.layer == i
        layers.append(
            LayerAgreement(
                name=layer,
                op=op,
                bytes_compared=compared.get(output, 0),
                bytes_differing=differing.get(output, 0),
                instructions=int(mine.sum()),
                instructions_differing=int(wrong[mine].sum()),
                cycles_rtl=_span(rtl[mine]),
                cycles_simulated=_span(wanted[mine]),
            )
        )
    return Agreement(
        name=name or graph.name,
        arch=plan.arch.name,
        design=plan.arch.design_hash,
        mac=run.mac,
        dram=dram,
        bytes_compared=sum(compared.values()),
        bytes_differing=int(np.count_nonzero(differs)),
        cycles_rtl=run.cycles,
        cycles_simulated=simulated.cycles if simulated is not None else run.cycles,
        instructions=n,
        instructions_differing=int(wrong.sum()) + (first_cycle is not None and not wrong.any()),
        late_beats=run.late,
        finished=run.finished,
        trouble=run.trouble,
        seconds=run.seconds,
        layers=tuple(layers),
        first_byte=first_byte,
        first_cycle=first_cycle,
        requests_compared=requests[0],
        requests_differing=requests[1],
        first_request=requests[2],
    )


def _by_map(
    plan: Planned,
    rtl: NDArray[np.uint8],
    emulated: NDArray[np.uint8],
    differs: NDArray[np.bool_],
    ops: list[tuple[str, str, str]],
) -> tuple[dict[str, int], dict[str, int], ByteDifference | None]:
    """Bytes compared and differing of each map that a layer writes to DRAM, and the first difference."""
    compared: dict[str, int] = {}
    differing: dict[str, int] = {}
    first, rest = None, differs.copy()
    for layer, _, output in ops:
        if output not in plan.places:
            continue
        place = plan.places[output]
        at, size = place.offset, int(np.prod(place.shape))
        mine = differs[at : at + size]
        compared[output], differing[output] = size, int(np.count_nonzero(mine))
        rest[at : at + size] = False
        if first is None and differing[output]:
            byte = int(mine.argmax())
            first = ByteDifference(layer, byte, _signed(rtl[at + byte]), _signed(emulated[at + byte]))
    if first is None and rest.any():
        byte = int(rest.argmax())
        first = ByteDifference(_ELSEWHERE, byte, _signed(rtl[byte]), _signed(emulated[byte]))
    return compared, differing, first


def _signed(byte: np.uint8) -> int:
    return int(np.int8(byte.view(np.int8)))


def _events(run: CosimRun, program: Program) -> NDArray[np.int64]:
    """Start and done of each instruction as the core had them, -1 where there was none."""
    out = np.full((len(program), 2), -1, np.int64)
    for engine in Engine:
        mine = np.flatnonzero(program.engine == engine)
        for column, seen in enumerate((run.starts[engine], run.dones[engine])):
            some = min(len(mine), len(seen))
            out[mine[:some], column] = seen[:some]
    return out


def _span(events: NDArray[np.int64]) -> int:
    """Cycles from the first start to the last done."""
    return int(events[:, 1].max() - events[:, 0].min()) if len(events) else 0


def _first_cycle(
    rtl: NDArray[np.int64],
    wanted: NDArray[np.int64],
    wrong: NDArray[np.bool_],
    program: Program,
    ops: list[tuple[str, str, str]],
) -> CycleDifference | None:
    """The earliest event that differs, by the simulator's time."""
    if not wrong.any():
        return None
    differs = rtl != wanted
    differs[program.engine < 0] = False
    late = np.where(differs, wanted, np.iinfo(np.int64).max)
    index, event = divmod(int(late.argmin()), 2)
    layer = int(program.layer[index])
    seen = int(rtl[index, event])
    return CycleDifference(
        instruction=index,
        text=render(program.fields[index]),
        layer=ops[layer][0] if 0 <= layer < len(ops) else "",
        event=("start", "done")[event],
        rtl=seen if seen >= 0 else None,
        simulated=int(wanted[index, event]),
    )


def _too_many(run: CosimRun, program: Program) -> CycleDifference | None:
    """An engine that started or finished more instructions than the program has."""
    for engine in Engine:
        count = int((program.engine == engine).sum())
        for event, seen in (("start", run.starts[engine]), ("done", run.dones[engine])):
            if len(seen) > count:
                return CycleDifference(-1, engine.name, "", event, int(seen[count]), None)
    return None
