"""Refining by simulation: never worse, the same tries give the same plan, every byte as before."""

from __future__ import annotations

import pytest
import tilewright as tw
from running import compare
from tilewright.hwsim import simulate
from tilewright.hwsim.dram import parse
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ModelError
from tilewright.ir.graph import Graph
from tilewright.scheduler import Objective, Options, Plan, refine, schedule

MEMORY = "banked:DDR4-2400x64"


@pytest.fixture(scope="module")
def tiny() -> Graph:
    (graph,) = tw.compile("zoo:tiny", "b512", synthetic_calibration=True).model.graphs
    return graph


def _planned(
    graph: Graph, arch: Arch, objective: Objective = "latency", options: Options | None = None
) -> Plan:
    peak = parse(MEMORY, arch.clock_mhz).peak_bytes_per_cycle
    return schedule(graph, arch, objective=objective, dram_bytes_per_cycle=peak, options=options)


@pytest.mark.parametrize(("preset", "objective"), [("b512", "latency"), ("b1024", "energy"), ("b512", "edp")])
def test_refined_is_never_worse(tiny: Graph, preset: str, objective: Objective) -> None:
    """By the objective's own measure, simulated; and no byte changes."""
    arch = Arch.preset(preset)
    memory = parse(MEMORY, arch.clock_mhz)
    plan = _planned(tiny, arch, objective)
    shares: list[tuple[int, float]] = []
    better = refine(
        plan, memory, objective=objective, tries=25, on_try=lambda n, share: shares.append((n, share))
    )
    a, b = (simulate(p.program, arch, memory, graph=tiny) for p in (plan, better))
    moved = b.dram_bytes["total"] / a.dram_bytes["total"]
    assert {"latency": b.cycles / a.cycles, "energy": moved, "edp": max(moved, b.cycles / a.cycles)}[
        objective
    ] <= 1.02
    assert [n for n, _ in shares] == list(range(1, len(shares) + 1))
    assert 0 < len(shares) <= 25
    falling = [share for _, share in shares]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] <= 1
    assert not compare(better, tiny, 3).differing


def test_a_bad_plan_gets_better(tiny: Graph) -> None:
    """A plan that fuses nothing and keeps nothing on chip, refined with all freedom, is left far behind."""
    arch = Arch.preset("b512")
    memory = parse(MEMORY, arch.clock_mhz)
    poor = _planned(tiny, arch, options=Options(fuse=1, keep_maps=False))
    better = refine(poor, memory, tries=30)
    a, b = (simulate(p.program, arch, memory, graph=tiny) for p in (poor, better))
    assert b.cycles < 0.9 * a.cycles


def test_the_same_tries_give_the_same_plan(tiny: Graph) -> None:
    arch = Arch.preset("b512")
    plan, memory = _planned(tiny, arch), parse(MEMORY, arch.clock_mhz)
    first, again = (refine(plan, memory, tries=12) for _ in range(2))
    assert first.tiling == again.tiling
    assert first.program.save() == again.program.save()
    assert refine(plan, memory, tries=0) is plan


def test_compile_refines_and_remembers() -> None:
    """Tries below zero are refused; another machine is refined as well."""
    stages: list[str] = []
    compiled = tw.compile("zoo:tiny", "b512", synthetic_calibration=True, tries=8, on_stage=stages.append)
    assert compiled.tries == 8
    assert sum("simulate others" in stage for stage in stages) == 8
    other = compiled.on(Arch.preset("b1024"), on_stage=stages.append)
    assert other.tries == 8
    assert sum("simulate others" in stage for stage in stages) == 16
    with pytest.raises(ModelError, match="-1 tries"):
        compiled.on(compiled.arch, tries=-1)
