"""Why a compiled network is scheduled as it is: its groups, what each could have been, and what more of a resource buys.

Three claims, never swapped: an *estimate* is what the scheduler reckoned with when it chose; *simulated* is a program
that was planned, placed, lowered and run; a *bound* is what no schedule can beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from .compiled import Compiled
from .explained_groups import GroupFacts, Span, group_facts, spans
from .explained_steps import Step, steps
from .hwsim import simulate
from .hwsim.dram import DramSpec, parse
from .hwsim.results import Simulation
from .ir.arch import Arch
from .ir.errors import ReportError, ScheduleError, TilewrightError
from .ir.graph import Graph
from .ir.tile import TileProgram
from .ir.tile_notes import annotated
from .scheduler import Plan, lower, schedule
from .scheduler.alternatives import Alternative, Alternatives, Price
from .segments import silent

if TYPE_CHECKING:
    from .scheduler import Objective

__all__ = ["Cost", "Explanation", "Gain", "GroupExplanation", "Rival", "SCHEMA", "explain"]

SCHEMA = "tilewright.explanation/1"
"""Raised whenever a key changes its meaning."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Simulated: the network, and the layers that are compared.

    Parameters
    ----------
    cycles, dram_bytes : int
        Of the network, instructions included.
    layers : str
        First and last of the layers compared: the group, or as many around it as both schedules have cuts around.
    before, after : Span or None
        Those layers in the plan and in the other.
    """

    cycles: int
    dram_bytes: int
    layers: str = ""
    before: Span | None = None
    after: Span | None = None
    claim: str = "simulated"


@dataclass(frozen=True, slots=True)
class Rival:
    """Another way for a group, everything else as it is.

    Parameters
    ----------
    about, name, refusal
        As of `scheduler.alternatives.Alternative`.
    before, estimate : Price or None
        What the search reckons with for the plan, and for this.
    cost : Cost or None
        None where there is no such plan.
    """

    about: str
    name: str
    refusal: str
    before: Price | None
    estimate: Price | None
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class Gain:
    """What a machine gives that is one step larger in one resource; the network is scheduled anew for it.

    Parameters
    ----------
    resource, change, note
        As of `explained_steps.Step`.
    cost : Cost or None
        None where there is no such machine, or the network does not fit it.
    """

    resource: str
    change: str
    note: str
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class GroupExplanation:
    """One group.

    Parameters
    ----------
    layer : str
        What was asked for.
    number : int
        `GroupFacts.number`.
    estimate : Price or None
        What the search reckoned with; None where the text was edited to something else.
    rivals : tuple of Rival
        Those that can be, the best for the objective first; then those that cannot.
    tiling : str
        Its text in ``tiling.txt``.
    """

    layer: str
    number: int
    estimate: Price | None
    rivals: tuple[Rival, ...]
    tiling: str

    @property
    def runner_up(self) -> Rival | None:
        """The best of the others for the objective, simulated."""
        return next((r for r in self.rivals if r.cost is not None), None)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A compiled network explained.

    Parameters
    ----------
    cycles, dram_bytes : int
        Of the programs as they are, simulated.
    bound_cycles : int
        No schedule on this machine is quicker.
    fetch_bytes : int
        Part of `dram_bytes` that is instructions, in no group.
    own : Cost
        The scheduler's own schedule on the same machine: what `gains` are compared with.
    edited : bool
        The tiling is not the scheduler's own.
    """

    network: str
    arch: str
    board: str
    dram: str
    objective: str
    map_words: int
    cycles: int
    dram_bytes: int
    bound_cycles: int
    fetch_bytes: int
    groups: tuple[GroupFacts, ...]
    group: GroupExplanation | None
    own: Cost
    edited: bool
    gains: tuple[Gain, ...]
    claim: str = "simulated"

    def to_dict(self) -> dict[str, Any]:
        """Plain data with a ``schema`` key."""
        out = {"schema": SCHEMA, **asdict(self)}
        if self.group is not None:
            runner = self.group.runner_up
            out["group"]["runner_up"] = None if runner is None else runner.name
        return out


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Plans of all segments on one machine, simulated."""

    plans: tuple[Plan, ...]
    simulations: tuple[Simulation, ...]

    @property
    def cycles(self) -> int:
        return sum(s.cycles for s in self.simulations)

    @property
    def dram_bytes(self) -> int:
        return sum(s.dram_bytes["total"] for s in self.simulations)


def explain(
    compiled: Compiled,
    layer: str | None = None,
    *,
    relax: bool = True,
    on_stage: Callable[[str], None] = silent,
) -> Explanation:
    """Explain a compiled network, and the group of one layer.

    Parameters
    ----------
    layer : str, optional
        Name of a layer, or of a group.
    relax : bool
        Schedule and simulate the network on machines that are one step larger.

    Raises
    ------
    ReportError
        No layer of that name.
    """
    memory = parse(compiled.dram, compiled.arch.clock_mhz)
    on_stage(f"simulate on {compiled.arch.name}")
    base = _Run(compiled.plans, tuple(_simulated(compiled, p, memory) for p in compiled.plans))
    others = tuple(_others(compiled, plan, memory) for plan in compiled.plans)
    groups: list[GroupFacts] = []
    for i, (plan, run) in enumerate(zip(base.plans, base.simulations, strict=True)):
        groups += group_facts(plan, run, memory, others[i], segment=i, before=len(groups))
    chosen = _find(compiled, groups, layer) if layer is not None else None
    group = None
    if chosen is not None and layer is not None:
        group = _group(compiled, base, memory, layer, chosen, groups, others[chosen.segment], on_stage)
    on_stage("schedule anew, to compare with")
    mine = _scheduled(compiled, compiled.arch, memory)
    gains: tuple[Gain, ...] = ()
    if relax:
        gains = _gains(compiled, mine, memory, chosen, on_stage)
    return Explanation(
        network=compiled.model.name,
        arch=compiled.arch.name,
        board=compiled.board.name,
        dram=str(memory),
        objective=compiled.objective,
        map_words=compiled.arch.map_words,
        cycles=base.cycles,
        dram_bytes=base.dram_bytes,
        bound_cycles=sum(s.bounds.bound_cycles for s in base.simulations),
        fetch_bytes=sum(s.dram_bytes["instructions"] for s in base.simulations),
        groups=tuple(groups),
        group=group,
        own=Cost(mine.cycles, mine.dram_bytes),
        edited=any(a.tiling != b.tiling for a, b in zip(mine.plans, base.plans, strict=True)),
        gains=gains,
    )


# -- a group -----------------------------------------------------------------------------------------------------------
def _find(compiled: Compiled, groups: Sequence[GroupFacts], layer: str) -> GroupFacts:
    """The group of a layer, by the layer's name or its own; a table folded into a convolution is where that is."""
    for g in groups:
        if layer in g.layers or layer == g.name:
            return g
    for segment, plan in enumerate(compiled.plans):
        output = next((op.output for op in plan.graph.ops if op.name == layer), None)
        made = {s.tensor: s.layer for g in plan.tiling.groups for s in g.statements if s.layer}
        for g in groups:
            if output is not None and g.segment == segment and made.get(output) in g.layers:
                return g
    names = [name for g in groups for name in g.layers]
    near = get_close_matches(layer, names, 3)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise ReportError(
        f"no layer {layer!r} among the {len(names)} of {compiled.model.name} on the DPU; {hint}without a name, all groups are listed"
    )


def _others(compiled: Compiled, plan: Plan, memory: DramSpec) -> Alternatives | None:
    """None where the tiling was edited into an order that the scheduler does not have."""
    try:
        return Alternatives(
            plan,
            objective=compiled.objective,
            dram_bytes_per_cycle=memory.peak_bytes_per_cycle,
            options=compiled.options,
        )
    except ScheduleError:
        return None


def _group(
    compiled: Compiled,
    base: _Run,
    memory: DramSpec,
    layer: str,
    facts: GroupFacts,
    groups: Sequence[GroupFacts],
    others: Alternatives | None,
    on_stage: Callable[[str], None],
) -> GroupExplanation:
    plan = compiled.plans[facts.segment]
    number = facts.number - 1 - sum(g.segment < facts.segment for g in groups)
    estimate, rivals = None, []
    if others is not None:
        on_stage("plan the alternatives")
        found = others.of(number)
        estimate = others.price(plan.tiling, *others.runs[number])
        for i, a in enumerate(found):
            on_stage(f"alternative {i + 1} of {len(found)}: {a.name}")
            rivals.append(_rival(compiled, base, memory, facts, a))
    rivals.sort(
        key=lambda r: (r.cost is None, _rank(r.cost, compiled.objective) if r.cost is not None else ())
    )
    alone = TileProgram(plan.tiling.name, plan.tiling.design, (plan.tiling.groups[number],))
    text = annotated(alone, plan.graph, plan.arch.lanes).split("\n\n", 1)[1]
    return GroupExplanation(layer, facts.number, estimate, tuple(rivals), text)


def _rank(cost: Cost, objective: Objective) -> tuple[int, ...]:
    """The less, the better for the objective: cycles; bytes, which energy follows; or both alike."""
    if objective == "energy":
        return cost.dram_bytes, cost.cycles
    return (cost.cycles, cost.dram_bytes) if objective == "latency" else (cost.cycles * cost.dram_bytes,)


def _rival(compiled: Compiled, base: _Run, memory: DramSpec, facts: GroupFacts, a: Alternative) -> Rival:
    if a.tiling is None:
        return Rival(a.about, a.name, a.refusal, None, None, None)
    plan = compiled.plans[facts.segment]
    try:
        other = lower(a.tiling, plan.graph, plan.arch)
        run = _simulated(compiled, other, memory)
    except TilewrightError as error:
        return Rival(a.about, a.name, str(error), a.before, a.price, None)
    plans, simulations = list(base.plans), list(base.simulations)
    plans[facts.segment], simulations[facts.segment] = other, run
    cost = _cost(base, _Run(tuple(plans), tuple(simulations)), facts)
    return Rival(a.about, a.name, "", a.before, a.price, cost)


# -- relaxed machines --------------------------------------------------------------------------------------------------
def _gains(
    compiled: Compiled,
    mine: _Run,
    memory: DramSpec,
    facts: GroupFacts | None,
    on_stage: Callable[[str], None],
) -> tuple[Gain, ...]:
    out = []
    for step in steps(compiled.arch, memory, compiled.board):
        on_stage(f"schedule and simulate: {step.resource}")
        out.append(_gain(compiled, mine, step, facts))
    return tuple(out)


def _gain(compiled: Compiled, mine: _Run, step: Step, facts: GroupFacts | None) -> Gain:
    if step.arch is None:
        return Gain(step.resource, step.change, step.note, None)
    try:
        run = _scheduled(compiled, step.arch, step.memory)
    except TilewrightError as error:
        return Gain(step.resource, step.change, str(error), None)
    return Gain(step.resource, step.change, step.note, _cost(mine, run, facts))


def _scheduled(compiled: Compiled, arch: Arch, memory: DramSpec) -> _Run:
    """The network as the scheduler does it on a machine, simulated."""
    graphs: Sequence[Graph] = [p.graph for p in compiled.plans]
    objective: Objective = compiled.objective
    plans = tuple(
        schedule(
            g,
            arch,
            objective=objective,
            dram_bytes_per_cycle=memory.peak_bytes_per_cycle,
            options=compiled.options,
        )
        for g in graphs
    )
    return _Run(plans, tuple(simulate(p.program, arch, memory, graph=p.graph) for p in plans))


def _simulated(compiled: Compiled, plan: Plan, memory: DramSpec) -> Simulation:
    return simulate(plan.program, compiled.arch, memory, board=compiled.board, graph=plan.graph)


# -- comparing ---------------------------------------------------------------------------------------------------------
def _cost(base: _Run, other: _Run, facts: GroupFacts | None) -> Cost:
    if facts is None:
        return Cost(other.cycles, other.dram_bytes)
    n = facts.segment
    common = _common(base.plans[n], other.plans[n], facts.layers)
    if common is None:
        return Cost(other.cycles, other.dram_bytes)
    runs, at = common
    before = spans(base.plans[n], base.simulations[n], runs)[at]
    after = spans(other.plans[n], other.simulations[n], runs)[at]
    first, last = runs[at][0], runs[at][-1]
    name = first if first == last else f"{first} .. {last}"
    return Cost(other.cycles, other.dram_bytes, name, before, after)


def _common(a: Plan, b: Plan, wanted: Sequence[str]) -> tuple[list[list[str]], int] | None:
    """The layers in the runs between cuts that both plans have, and which of the runs holds the wanted layers.

    None where the plans have other layers or another order of them.
    """
    one, two = _cuts(a), _cuts(b)
    names = one[0]
    if names != two[0]:
        return None
    cuts = sorted(one[1] & two[1])
    first, stop = names.index(wanted[0]), names.index(wanted[-1]) + 1
    low = max(c for c in cuts if c <= first)
    high = min(c for c in cuts if c >= stop)
    runs = [names[:low], names[low:high], names[high:]]
    kept = [r for r in runs if r]
    return kept, 1 if low else 0


def _cuts(plan: Plan) -> tuple[list[str], set[int]]:
    """Layers in order, and where groups end."""
    names: list[str] = []
    cuts = {0}
    for g in plan.tiling.groups:
        names += [s.layer for s in g.statements if s.layer]
        cuts.add(len(names))
    return names, cuts
