"""Simulate a program: its words through the event kernel, with the memory behind the ports; then counts and energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.errors import InvariantError, SimulationError
from ..ir.isa import Engine, Program
from .bounds import bounds, program_bounds
from .dram import DramCounts, DramSpec, dram_counts, parse
from .energy import action_counts, energy
from .events import events
from .replay import Replay, Requests
from .results import CAUSES, EngineResult, LayerResult, Simulation, Timeline
from .timing import costs, estimate

if TYPE_CHECKING:
    from ..ir.board import Board
    from ..ir.graph import Graph

__all__ = ["Trace", "check_design", "simulate", "trace"]

_Matrix = NDArray[np.int64]
_ENGINES = tuple(e.name.lower() for e in Engine)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What the event kernel found.

    Parameters
    ----------
    cycles : int
    times : int64 (n, 4)
        queued, start, busy_end, done of each instruction (END: queued only).
    cause : int64 (n,)
    stalls : int64 (5, len(CAUSES))
    totals : int64 (5, 2)
        Busy cycles of each engine, and when it had nothing left to do.
    dram : DramCounts
    requests : Requests, optional
        What was asked of a replayed bus.
    """

    cycles: int
    times: _Matrix
    cause: _Matrix
    stalls: _Matrix
    totals: _Matrix
    dram: DramCounts
    requests: Requests | None = None


def check_design(program: Program, arch: Arch) -> None:
    """Refuse a program for another design."""
    if program.design != arch.design_hash:
        raise SimulationError(
            f"the program is for design {program.design}, {arch.name} is design {arch.design_hash}; compile it again",
            program=program.design,
            arch=arch.design_hash,
        )


def trace(program: Program, arch: Arch, dram: DramSpec | Replay | str) -> Trace:
    """Times of every instruction.

    Parameters
    ----------
    dram : DramSpec, Replay or str
        A memory, text for `dram.parse`, or a recorded bus.

    Raises
    ------
    SimulationError
        The program is for another design, or a recording of another number of ports.
    """
    check_design(program, arch)
    if isinstance(dram, Replay):
        if len(dram.beats) != arch.dma.ports:
            raise SimulationError(
                f"the recording has {len(dram.beats)} ports, {arch.name} has {arch.dma.ports}"
            )
        state = dram.state()
    else:
        spec = (
            parse(dram, arch.clock_mhz) if isinstance(dram, str) else replace(dram, clock_mhz=arch.clock_mhz)
        )
        state = spec.state()
    found = events((program,), arch, state)
    requests = dram.requests(state) if isinstance(dram, Replay) else None
    return Trace(
        int(found.spans[0, 0, 0, 1]), found.times[0, 0], found.cause[0, 0], found.stalls[0, 0, 0],
        found.totals[0, 0, 0], dram_counts(state), requests,
    )  # fmt: skip


def simulate(
    program: Program,
    arch: Arch,
    dram: DramSpec | str,
    *,
    board: Board | None = None,
    graph: Graph | None = None,
    energy_table: str | None = None,
) -> Simulation:
    """Cycles, traffic and energy of a program on one core: one frame, or the batch that it was compiled for.

    Parameters
    ----------
    dram : DramSpec or str
        A memory, or text for `dram.parse`.
    board : Board, optional
        Gives the process node of the energy, and its name to the result.
    graph : Graph, optional
        What `Program.layer` counts: names layers, their MACs and the bounds.
    energy_table : str, optional
        ``fpga16`` (with a board, the default) or ``asic45``.

    Raises
    ------
    SimulationError
        As `trace`, or an unknown memory or energy table.
    """
    spec = parse(dram, arch.clock_mhz) if isinstance(dram, str) else replace(dram, clock_mhz=arch.clock_mhz)
    found = trace(program, arch, spec)
    cost = costs(program.fields, arch)
    limits = bounds(graph, arch, spec) if graph is not None else program_bounds(program, arch, spec)
    used, coefficients = energy(
        action_counts(cost, arch, len(program)), found.dram, found.cycles, arch, spec, board, energy_table
    )
    moved = {
        name: int(cost["dram_bytes"][program.traffic == i].sum())
        for i, name in enumerate(("ifmap", "weights", "ofmap"), 1)
    }
    moved["instructions"] = program.fetch_bytes
    moved["total"] = sum(moved.values())
    moved["compulsory"] = limits.compulsory_bytes
    engines = {
        name: EngineResult(
            busy=int(found.totals[e, 0]),
            stalls={c: int(v) for c, v in zip(CAUSES, found.stalls[e], strict=True) if v},
            idle=found.cycles - int(found.totals[e, 1]),
            instructions=int((program.engine == e).sum()),
        )
        for e, name in enumerate(_ENGINES)
    }
    for name, result in engines.items():
        if result.busy + sum(result.stalls.values()) + result.idle != found.cycles:
            raise InvariantError(f"{name}: {result} does not add up to {found.cycles} cycles")
    index = np.flatnonzero(program.engine >= 0)
    return Simulation(
        cycles=found.cycles,
        clock_mhz=arch.clock_mhz,
        macs=graph.macs if graph is not None else 0,
        macs_per_cycle=arch.macs_per_cycle,
        frames=graph.frames if graph is not None else 1,
        dram_bytes=moved,
        energy=used,
        engines=engines,
        layers=_layers(program, arch, found, cost, coefficients, graph),
        bounds=limits,
        estimate_cycles=estimate(program, arch, spec),
        dram=str(spec),
        network=graph.name if graph is not None else "",
        arch=arch.name,
        board=board.name if board is not None else "",
        design=program.design,
        timeline=Timeline(
            index=index.astype(np.int32),
            engine=program.engine[index],
            layer=program.layer[index],
            queued=found.times[index, 0],
            start=found.times[index, 1],
            busy_end=found.times[index, 2],
            done=found.times[index, 3],
            cause=found.cause[index].astype(np.int8),
        ),
    )


def _layers(
    program: Program,
    arch: Arch,
    found: Trace,
    cost: NDArray[np.void],
    coefficients: dict[str, dict[str, float]],
    graph: Graph | None,
) -> tuple[LayerResult, ...]:
    """Every layer that has an instruction, in order."""
    out = []
    engine, layer = program.engine, program.layer
    order = np.argsort(layer, kind="stable")
    order = order[engine[order] >= 0]
    cuts = np.flatnonzero(np.diff(layer[order])) + 1
    for rows in np.split(order, cuts):
        number = int(layer[rows[0]]) if len(rows) else -1
        if number < 0:
            continue
        mine = {name: int(cost["busy"][rows[engine[rows] == e]].sum()) for e, name in enumerate(_ENGINES)}
        mine = {name: busy for name, busy in mine.items() if busy}
        computing = {name: busy for name, busy in mine.items() if name in {"conv", "dwc", "vec"}} or mine
        main = max(computing, key=lambda name: computing[name]) if computing else ""
        macs, label, kind = 0, f"layer{number}", ""
        if graph is not None and number < len(graph.ops):
            op = graph.ops[number]
            label, kind = op.name, type(op).__name__
            macs = graph.macs_of(op)
        peak = arch.depthwise_macs_per_cycle if main == "dwc" else arch.macs_per_cycle
        actions = action_counts(cost[rows], arch, len(rows))
        out.append(
            LayerResult(
                name=label,
                op=kind,
                engine=main,
                busy=mine,
                first_cycle=int(found.times[rows, 1].min()),
                last_cycle=int(found.times[rows, 3].max()),
                macs=macs,
                bound_cycles=-(-macs // max(1, peak)),
                dram_bytes={
                    name: int(cost["dram_bytes"][rows[program.traffic[rows] == i]].sum())
                    for i, name in enumerate(("ifmap", "weights", "ofmap"), 1)
                },
                onchip_read_bytes=int(cost["map_reads"][rows].sum()) * arch.lanes,
                onchip_write_bytes=int(cost["map_writes"][rows].sum()) * arch.lanes,
                energy_mj=_spent(actions, coefficients),
                limited_by=_limited(rows, program, found, main),
            )
        )
    return tuple(out)


def _spent(actions: dict[str, int], coefficients: dict[str, dict[str, float]]) -> dict[str, float]:
    """mJ by component, from pJ an action."""
    return {
        part: sum(actions[action] * pj for action, pj in table.items()) * 1e-9
        for part, table in coefficients.items()
    }


def _limited(rows: _Matrix, program: Program, found: Trace, main: str) -> str:
    """compute, unless the main engine waited longer than it worked; then the cause of most of the wait."""
    if not main:
        return "compute"
    mine: Sequence[int] = rows[program.engine[rows] == _ENGINES.index(main)]
    start, ready = found.times[mine, 1], found.times[mine, 2]
    everything = np.flatnonzero(program.engine == _ENGINES.index(main))
    at = np.searchsorted(everything, mine)
    before = np.where(at > 0, found.times[everything[np.maximum(at - 1, 0)], 2], 0)
    gaps = np.maximum(0, start - before)
    if gaps.sum() <= (ready - start).sum():
        return "compute"
    by_cause = np.bincount(found.cause[mine], weights=gaps, minlength=len(CAUSES))
    return CAUSES[int(by_cause.argmax())]
