"""Tilings from the compiled decisions against those of the scheduler in Python, letter by letter."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import tilewright as tw
from graphs import GraphBuilder
from tilewright import explore_evaluate
from tilewright.hwsim import simulate
from tilewright.hwsim.dram import parse
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ScheduleError
from tilewright.ir.graph import Graph
from tilewright.scheduler import Options, quick_network, schedule
from tilewright.scheduler.decided import plan_decided
from tilewright.scheduler.plan import plan_tiling


@pytest.fixture(scope="module")
def tiny() -> Graph:
    return tw.compile("zoo:tiny", "b512", synthetic_calibration=True).model.graphs[0]


@pytest.fixture(scope="module")
def network() -> Graph:
    """Residual blocks, a concatenation, a table, a view in the middle, and a classifier."""
    g = GraphBuilder(11, "f32")
    x = g.conv(g.input((40, 36, 3)), 16, (3, 3), (2, 2), (1, 1, 1, 1))
    x = g.inverted_residuals(x)
    left, right = (g.conv(x, 16, (k, k), (1, 1), (k // 2,) * 4) for k in (1, 3))
    x = g.table(g.concat([left, right]))
    x = g.conv(g.reshape(x), 32, (1, 1), (1, 1), (0, 0, 0, 0))
    return g.classified(x)


@pytest.fixture(scope="module")
def deep() -> Graph:
    """Small maps of many channels: weights of one block of output channels beyond a small memory."""
    g = GraphBuilder(3, "f32")
    x = g.input((7, 7, 64))
    for channels in (512, 512, 512, 64):
        x = g.conv(x, channels, (3, 3), (1, 1), (1, 1, 1, 1))
    return g.graph()


MACHINES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("b512", {}),
    ("b1024", {}),
    ("b4096", {}),
    ("b4096-nodw", {}),
    ("b512", {"maps.kib": 32}),
    ("b1024", {"maps.kib": 16}),
    ("b4096", {"maps.kib": 160, "maps.groups": 5, "weights.kib": 88}),
)


@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
@pytest.mark.parametrize(("name", "changes"), MACHINES, ids=str)
def test_the_tiling_is_the_scheduler_s(
    tiny: Graph, network: Graph, name: str, changes: dict[str, Any], objective: Any
) -> None:
    """Groups, strips, chunks, column tiles, rings and what holds weights: the same text."""
    arch = Arch.preset(name).override(changes)
    for graph in (tiny, network):
        found = plan_decided(graph, arch, objective=objective, dram_bytes_per_cycle=16.0)
        assert found is not None
        want, _ = plan_tiling(graph, arch, objective=objective, dram_bytes_per_cycle=16.0)
        assert str(found[0]) == str(want)


def test_small_maps_leave_where_the_next_layer_needs_column_tiles(deep: Graph) -> None:
    """A layer whose weights come in pieces computes few pixels at once, so its small output goes to DRAM in column tiles."""
    arch = Arch.preset("b512").override({"weights.kib": 32})
    want, _ = plan_tiling(deep, arch)
    assert any(group.tiles > 1 for group in want.groups)
    found = plan_decided(deep, arch)
    assert found is not None
    assert str(found[0]) == str(want)


def test_what_the_kernels_do_not_know_is_left_to_the_scheduler(
    network: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More maps at once than bits, and options of its own: the plan is the same with either planner."""
    arch = Arch.preset("b512")
    want = schedule(network, arch)
    alone = schedule(network, arch, options=Options(fuse=1))
    assert str(alone.tiling) != str(want.tiling)
    again = schedule(network, arch, options=Options(fuse=1), planner="compiled")
    assert str(again.tiling) == str(alone.tiling)
    monkeypatch.setattr(quick_network, "_BITS", 1)
    quick_network._KNOWN.clear()
    assert plan_decided(network, arch) is None
    assert str(schedule(network, arch, planner="compiled").tiling) == str(want.tiling)
    quick_network._KNOWN.clear()


def test_a_planner_or_an_objective_that_is_none_is_refused(tiny: Graph) -> None:
    arch = Arch.preset("b512")
    with pytest.raises(ScheduleError, match="planner 'fast' is not one of python, compiled"):
        schedule(tiny, arch, planner="fast")  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match="objective 'speed' is not one of"):
        schedule(tiny, arch, objective="speed", planner="compiled")  # type: ignore[arg-type]


def test_a_layer_that_does_not_fit_is_told_in_the_same_words(tiny: Graph) -> None:
    arch = Arch.preset("b4096").override({"weights.kib": 4, "conv.ic": 64, "conv.oc": 64, "maps.kib": 1024})
    with pytest.raises(ScheduleError) as slow:
        schedule(tiny, arch)
    with pytest.raises(ScheduleError) as fast:
        schedule(tiny, arch, planner="compiled")
    assert str(fast.value) == str(slow.value)


def test_an_exploration_simulates_the_plans_of_compile(tiny: Graph) -> None:
    arch, board, memory = Arch.preset("b1024"), tw.Board("kv260"), "banked:DDR4-2400x64"
    task = explore_evaluate.Task("k", arch, board, memory, "latency", (), "simulated")
    cost = explore_evaluate._simulated((tiny,), task)
    peak = parse(memory, arch.clock_mhz).peak_bytes_per_cycle
    plan = schedule(tiny, arch, dram_bytes_per_cycle=peak)
    run = simulate(plan.program, arch, memory, board=board, graph=tiny)
    assert (cost.cycles, cost.dram_bytes) == (run.cycles, run.dram_bytes["total"])


def test_a_plain_compilation_leaves_the_kernels_alone() -> None:
    """They take a minute to compile on a fresh machine, and one network is scheduled without them in a second."""
    code = (
        "import sys, tilewright as tw; tw.compile('zoo:tiny', 'b512', synthetic_calibration=True); "
        "print([name for name in sys.modules if 'scheduler.quick' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
