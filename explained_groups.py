"""What a compiled network's groups of layers do: where their maps are, what they cost in a simulation, and what binds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .hwsim.dram import DramSpec
from .hwsim.results import CAUSES, Simulation
from .hwsim.timing import costs
from .ir.arch import Arch
from .ir.isa import COLUMNS, Engine
from .reports.accounts import COMPUTE
from .reports.verdict import SATURATED
from .scheduler import Plan
from .scheduler.alternatives import Alternatives
from .scheduler.occupancy import passing_words, read_on_chip, staying, touched_words

__all__ = ["BINDS", "GroupFacts", "Span", "group_facts", "spans"]

BINDS = {
    "MACs": "products of the array or the depthwise engine, or lanes of the elementwise one",
    "bank": "reads of map words that lie in the same bank",
    "port": "a read or write port of a map group that another engine owns",
    "DRAM": "bytes to or from DRAM",
    "map words": "room in the map memory for a producer to run ahead of its readers",
    "other engine": "results of another engine",
    "instructions": "instructions: their fetch, or a full queue",
}
"""What can bind a group, and what is meant."""

_BY_CAUSE = {
    "load": "DRAM",
    "save": "DRAM",
    "dram": "DRAM",
    "port": "port",
    "fetch": "instructions",
    "queue": "instructions",
}
_BANKED = 0.2
"""Share of an engine's work above which reads in the same bank are said to bind."""


@dataclass(frozen=True, slots=True)
class Span:
    """Simulated cost of a run of layers.

    Parameters
    ----------
    cycles : int
        From the end of all layers before to the end of these; spans that follow each other add up.
    dram_bytes : int
        Bytes of their maps and constants.
    """

    cycles: int
    dram_bytes: int
    claim: str = "simulated"


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """One group of layers as it was scheduled and simulated.

    Parameters
    ----------
    number : int
        From 1, through all segments.
    segment : int
        DPU segment, from 0.
    height, rows, strips, cols, order
        As of `ir.tile.Group`.
    weights : str
        resident, stream, or "" where one strip or no weights leave no choice.
    loads, saves : tuple of str
        Maps that come from DRAM, and that go there.
    reads, keeps : tuple of str
        Maps that were left on chip by earlier groups, and that are left there for later ones.
    map_words, held_words : int
        Words with maps that it touches, and with others that only wait for later groups.
    span : Span
    dram_bytes : dict of str to int
        ifmap, weights, ofmap.
    engine : str
        The engine that works longest.
    busy : dict of str to int
        Cycles of each engine.
    waits : dict of str to int
        Cycles that the busiest compute engine waited before the group's instructions, by cause (`CAUSES`).
    bank_cycles : int
        Part of the array's cycles that is for reads in the same bank.
    peak_cycles : int
        What the products of that engine's layers take at its peak.
    cramped : tuple of str
        Maps whose rings have no room for their producer to run a strip ahead.
    binds, because : str
        Key of `BINDS`, and the numbers behind it.
    """

    number: int
    segment: int
    name: str
    layers: tuple[str, ...]
    height: int
    rows: int
    strips: int
    cols: int
    order: str
    weights: str
    loads: tuple[str, ...]
    saves: tuple[str, ...]
    reads: tuple[str, ...]
    keeps: tuple[str, ...]
    map_words: int
    held_words: int
    span: Span
    dram_bytes: dict[str, int]
    engine: str
    busy: dict[str, int]
    waits: dict[str, int]
    bank_cycles: int
    peak_cycles: int
    cramped: tuple[str, ...]
    binds: str
    because: str


def spans(plan: Plan, simulation: Simulation, runs: Sequence[Sequence[str]]) -> tuple[Span, ...]:
    """Cost of runs of layers, one behind the other: all layers, in order.

    Parameters
    ----------
    runs : sequence of layer names
    """
    at = {op.name: n for n, op in enumerate(plan.graph.ops)}
    line = simulation.timeline
    assert line is not None
    moved = {x.name: sum(x.dram_bytes.values()) for x in simulation.layers}
    out, end = [], 0
    for n, names in enumerate(runs):
        mine = np.isin(line.layer, [at[name] for name in names])
        stop = max(end, int(line.done[mine].max())) if mine.any() else end
        if n == len(runs) - 1:
            stop = simulation.cycles
        out.append(Span(stop - end, sum(moved.get(name, 0) for name in names)))
        end = stop
    return tuple(out)


def group_facts(
    plan: Plan,
    simulation: Simulation,
    memory: DramSpec,
    others: Alternatives | None = None,
    *,
    segment: int = 0,
    before: int = 0,
) -> tuple[GroupFacts, ...]:
    """Facts of each group of a plan.

    Parameters
    ----------
    memory : DramSpec
        What it was simulated with.
    others : Alternatives, optional
        Of the plan; None where it was edited so that there are none. It knows which rings are cramped.
    segment, before : int
        Its number, and groups in the segments before it.
    """
    groups = plan.tiling.groups
    names = [tuple(s.layer for s in g.statements if s.layer) for g in groups]
    parts = spans(plan, simulation, names)
    cramped = [others.cramped(n) if others is not None else () for n in range(len(groups))]
    return tuple(
        _facts(plan, simulation, memory, n, names[n], parts[n], segment, before + n + 1, cramped[n])
        for n in range(len(groups))
    )


def _facts(
    plan: Plan, simulation: Simulation, memory: DramSpec, n: int, names: tuple[str, ...], span: Span, segment: int,
    number: int, cramped: tuple[str, ...],
) -> GroupFacts:  # fmt: skip
    group, words = plan.tiling.groups[n], plan.arch.group_words
    layers = [x for x in simulation.layers if x.name in set(names)]
    busy = {e.name.lower(): sum(x.busy.get(e.name.lower(), 0) for x in layers) for e in Engine}
    main = max(COMPUTE, key=lambda e: busy[e])
    waits = _waits(plan, simulation, names, main)
    made = {s.tensor for s in group.statements if s.layer}
    held = staying(plan.tiling, n)
    array = {s.weights for s in group.statements if s.kind in {"conv", "dwc"}}
    banked = _bank_cycles(plan, names)
    peak = sum(x.bound_cycles for x in layers if x.engine == main)
    binds, because = _binding(
        plan.arch,
        memory,
        busy,
        main,
        waits,
        banked,
        peak,
        sum(sum(x.dram_bytes.values()) for x in layers),
        cramped,
    )
    return GroupFacts(
        number=number,
        segment=segment,
        name=group.name,
        layers=names,
        height=group.height,
        rows=group.rows,
        strips=group.strips,
        cols=group.cols,
        order=group.order,
        weights="" if group.strips == 1 or not array else "resident" if "resident" in array else "stream",
        loads=tuple(s.tensor for s in group.statements if s.kind == "load"),
        saves=tuple(s.tensor for s in group.statements if s.kind == "save"),
        reads=tuple(sorted(read_on_chip(group))),
        keeps=tuple(sorted(held & made)),
        map_words=touched_words(plan.tiling, n, words),
        held_words=passing_words(plan.tiling, n, words),
        span=span,
        dram_bytes={k: sum(x.dram_bytes[k] for x in layers) for k in ("ifmap", "weights", "ofmap")},
        engine=max(busy, key=lambda e: busy[e]) if any(busy.values()) else "",
        busy={e: cycles for e, cycles in busy.items() if cycles},
        waits=waits,
        bank_cycles=banked,
        peak_cycles=peak,
        cramped=cramped,
        binds=binds,
        because=because,
    )


def _waits(plan: Plan, simulation: Simulation, names: Sequence[str], engine: str) -> dict[str, int]:
    """Gaps before the group's instructions on an engine, by what ended them."""
    at = {op.name: n for n, op in enumerate(plan.graph.ops)}
    line = simulation.timeline
    assert line is not None
    on = np.flatnonzero(line.engine == Engine[engine.upper()])
    ends = np.maximum.accumulate(np.concatenate([[0], line.busy_end[on]]))[:-1]
    gaps = np.maximum(0, line.start[on] - ends)
    mine = np.isin(line.layer[on], [at[name] for name in names])
    sums = np.bincount(line.cause[on][mine], weights=gaps[mine], minlength=len(CAUSES))
    found = {cause: int(n) for cause, n in zip(CAUSES, sums, strict=True) if n and cause != "none"}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _bank_cycles(plan: Plan, names: Sequence[str]) -> int:
    """Cycles of the array that are only for words in the same bank."""
    at = {op.name: n for n, op in enumerate(plan.graph.ops)}
    program = plan.program
    rows = program.fields[
        np.isin(program.layer, [at[name] for name in names]) & (program.engine == Engine.CONV)
    ]
    if not len(rows):
        return 0
    alone = rows.copy()
    alone[:, [COLUMNS["ways"], COLUMNS["drain_ways"]]] = 1
    return int(costs(rows, plan.arch)["busy"].sum() - costs(alone, plan.arch)["busy"].sum())


def _binding(
    arch: Arch, memory: DramSpec, busy: dict[str, int], main: str, waits: dict[str, int], banked: int, peak: int,
    moved: int, cramped: tuple[str, ...],
) -> tuple[str, str]:  # fmt: skip
    """What binds a group, and why."""
    work, idle = busy[main], sum(waits.values())
    mover = max(("load", "save"), key=lambda e: busy[e])
    if not work and not busy[mover]:
        return "", "it only renames a map"
    rate = memory.peak_bytes_per_cycle
    narrow = (
        f"the ports move {arch.stream_bytes} bytes a cycle"
        if arch.stream_bytes <= rate
        else f"the memory moves {rate:.1f} bytes a cycle at its peak"
    )
    least = max(busy[mover], round(moved / min(rate, arch.stream_bytes)))
    if least > work:
        return "DRAM", (
            f"{moved:,} bytes take {least:,} cycles at least, {narrow}; {main.upper()} works {work:,}"
        )
    works = f"{main.upper()} works {work:,} cycles"
    if work >= SATURATED * (work + idle):
        if main == "conv" and banked > _BANKED * work:
            return "bank", f"{works}, {banked:,} of them for words that lie in the same bank"
        full = f"; its products take {peak:,} at its peak" if peak else ""
        return "MACs", f"{works} and waits {idle:,}{full}"
    cause = next(iter(waits))
    says = f"{works} and waits {idle:,}, longest for {_WAITED[cause]} ({waits[cause]:,})"
    if cause in COMPUTE:
        if cramped:
            return "map words", f"{says}; no room to run ahead: {', '.join('%' + t for t in cramped)}"
        return "other engine", says
    return _BY_CAUSE[cause], says


_WAITED = {
    "load": "LOAD",
    "save": "SAVE",
    "conv": "CONV",
    "dwc": "DWC",
    "vec": "VEC",
    "dram": "data on their way",
    "port": "a map port that another engine owns",
    "fetch": "the fetch of instructions",
    "queue": "a place in the queues",
}
