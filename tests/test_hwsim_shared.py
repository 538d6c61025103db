"""Several cores on one DRAM, against the cycle-by-cycle twin and against what must hold of any of them."""

from __future__ import annotations

import numpy as np
import pytest
from random_programs import ARCHES, MEMORIES, random_program
from tilewright.hwsim.dram import parse
from tilewright.hwsim.events import region_starts
from tilewright.hwsim.oracle import oracle_shared
from tilewright.hwsim.shared import SharedTrace, simulate_shared, trace_shared
from tilewright.hwsim.simulation import trace
from tilewright.ir.arch import Arch
from tilewright.ir.errors import SimulationError


def _equals_the_twin(
    found: SharedTrace, twin: list[list[list[tuple[int, int, list[list[int]]]]]], where: str
) -> None:
    for c, frames in enumerate(twin):
        for f, jobs in enumerate(frames):
            for j, (start, end, times) in enumerate(jobs):
                told = f"{where}, core {c}, frame {f}, program {j}"
                assert found.spans[c, f, j].tolist() == [start, end], told
                np.testing.assert_array_equal(found.traces[c][f][j].times, np.array(times), err_msg=told)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES.keys())
def test_every_core_has_the_times_of_the_slow_twin(arch: Arch, memory: str) -> None:
    """Two or three cores, started together (all their bursts tie) or not; every instruction of every frame."""
    spec = parse(memory, arch.clock_mhz)
    for seed, starts in enumerate(((0, 0), (0, 37), (5, 0, 0))):
        programs = (random_program(arch, 90 + seed, 25),)
        found = trace_shared(programs, arch, spec, starts=starts, frames=2)
        _equals_the_twin(found, oracle_shared(programs, arch, spec, starts, 2), f"starts {starts}")


def test_programs_of_a_frame_follow_one_another() -> None:
    """Two programs a frame, of different lengths, on two cores that drift apart."""
    arch = ARCHES["one narrow port, short queues"]
    spec = parse("banked:DDR3L-667x16", arch.clock_mhz)
    programs = (random_program(arch, 3, 30), random_program(arch, 4, 12))
    found = trace_shared(programs, arch, spec, starts=(0, 11), frames=2)
    _equals_the_twin(found, oracle_shared(programs, arch, spec, (0, 11), 2), "two programs")
    assert (found.spans[:, :, 1, 0] >= found.spans[:, :, 0, 1]).all()


@pytest.mark.parametrize("memory", MEMORIES)
def test_one_core_is_what_one_core_always_was(memory: str) -> None:
    """The first frame of a single core has the times, stalls and counts of `trace`."""
    arch = ARCHES["b512"]
    program = random_program(arch, 8)
    alone = trace(program, arch, memory)
    found = trace_shared((program,), arch, memory, starts=(0,))
    ((mine,),) = found.traces[0][0:1]
    assert mine.cycles == alone.cycles
    for name in ("times", "cause", "stalls", "totals"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(alone, name))
    assert found.dram == alone.dram


def test_the_memory_moves_every_cores_bytes() -> None:
    """Three cores with one frame each move three times the bytes of one, and stalls add up for each of them."""
    arch = ARCHES["b512"]
    program = random_program(arch, 9)
    one = trace(program, arch, MEMORIES[2]).dram
    found = trace_shared((program,), arch, MEMORIES[2], starts=(0, 0, 0))
    # Who is ready first goes on until the last is: at least three frames, and a part of others.
    assert found.dram.read_bytes >= 3 * one.read_bytes
    assert found.dram.write_bytes >= 3 * one.write_bytes
    for ((mine,),) in found.traces:
        spent = mine.totals[:, 0] + mine.stalls.sum(axis=1)
        assert (spent == mine.totals[:, 1]).all()


def test_bursts_are_written_down_in_time_order_at_each_cores_own_addresses() -> None:
    """Nothing is asked for out of order, and cores do not touch each other's regions."""
    arch = ARCHES["b512"]
    program = random_program(arch, 12)
    found = trace_shared((program,), arch, MEMORIES[0], starts=(0, 3), bursts=400)
    size = int(region_starts((program,), 2)[1, 0])
    for c, rows in enumerate(found.bursts):
        asked = rows[rows[:, 0] >= 0]
        assert 20 < len(asked) <= 400
        assert (np.diff(asked[:, 1]) >= 0).all()
        assert (asked[:, 5] >= asked[:, 1]).all()
        assert (asked[:, 2] // size == c).all()


def test_eight_cores_slow_one_another_down_and_the_memory_is_the_limit() -> None:
    """One core is not slowed down, eight are, and the memory's peak is the limit."""
    arch = ARCHES["b512"]
    program = random_program(arch, 15, 80)
    for memory in ("fixed:2,40", "banked:DDR3-1066x32"):
        alone = trace(program, arch, memory).cycles
        told = [
            simulate_shared((program,), arch, memory, cores=n, alone_cycles=alone, frames=4, stagger=stagger)
            for n in (1, 2, 4, 8)
            for stagger in (False, True)
        ]
        for s in told:
            assert s.dram_utilization <= 1.02  # a window of frames may begin with bytes that wait
            assert s.speedup == pytest.approx(s.cores / s.slowdown, rel=0.02)
            assert len(s.cycles) == s.cores
            assert all(len(frames) == 4 for frames in s.cycles)
        assert told[0].slowdown == pytest.approx(1, rel=0.01)
        assert told[-1].slowdown > 1.5
        assert told[-1].to_dict()["fps"] == told[-1].fps
        assert "8 cores" in str(told[-1])


def test_cores_spread_over_a_frame_start_apart() -> None:
    arch = ARCHES["b512"]
    program = random_program(arch, 16)
    apart = simulate_shared((program,), arch, MEMORIES[0], cores=3, alone_cycles=3000, stagger=True, frames=1)
    assert apart.starts == (0, 1000, 2000)
    assert apart.frame_cycles == pytest.approx(np.mean(apart.cycles))


def test_cores_that_have_their_frames_rest_where_that_is_asked_for() -> None:
    """The twin agrees, and what is left of the memory makes the last core quicker than cores that go on do."""
    arch = ARCHES["b512"]
    spec = parse("fixed:1,40", arch.clock_mhz)
    programs = (random_program(arch, 93, 30),)
    found = trace_shared(programs, arch, spec, starts=(0, 500), frames=2, steady=False)
    _equals_the_twin(found, oracle_shared(programs, arch, spec, (0, 500), 2, steady=False), "resting")
    steady = trace_shared(programs, arch, spec, starts=(0, 500), frames=2)
    assert found.frames[1, 1, 1] < steady.frames[1, 1, 1]
    assert (found.frames[0] == steady.frames[0]).all()


def test_what_cannot_be_shared_is_refused() -> None:
    arch = ARCHES["b512"]
    program = random_program(arch, 1)
    with pytest.raises(SimulationError, match=r"cores is 9: want 1\.\.8"):
        trace_shared((program,), arch, MEMORIES[0], starts=[0] * 9)
    with pytest.raises(SimulationError, match=r"frames is 0: want 1\.\.64"):
        trace_shared((program,), arch, MEMORIES[0], starts=(0, 0), frames=0)
    with pytest.raises(SimulationError, match="a core starts in cycle 0 or later"):
        trace_shared((program,), arch, MEMORIES[0], starts=(0, -1))
    with pytest.raises(SimulationError, match="compile it again"):
        trace_shared((program,), Arch.preset("b4096"), MEMORIES[0], starts=(0, 0))
