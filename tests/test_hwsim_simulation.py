"""Event simulation against its cycle-by-cycle twin, and the laws that every simulation obeys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from random_programs import ARCHES, MEMORIES, WAITS, random_program
from tilewright.hwsim import simulate
from tilewright.hwsim.dram import parse
from tilewright.hwsim.oracle import busy_and_tail, oracle_times
from tilewright.hwsim.replay import Replay
from tilewright.hwsim.results import CAUSES, Simulation
from tilewright.hwsim.simulation import trace
from tilewright.hwsim.timing import costs
from tilewright.ir.arch import Arch
from tilewright.ir.board import Board
from tilewright.ir.errors import SimulationError
from tilewright.ir.isa import COLUMNS, Opcode, Program, VecOp, instruction
from tilewright.ir.latency import BURST_INTERVAL, TOKEN


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES.keys())
def test_busy_and_tail_equal_a_walk_through_the_loops(arch: Arch) -> None:
    """The closed forms count what nested loops count, for every engine and odd shapes."""
    for seed in range(4):
        program = random_program(arch, seed, 150)
        cost = costs(program.fields, arch)
        for i, fields in enumerate(program.fields):
            row = {name: int(v) for name, v in zip(COLUMNS, fields, strict=True)}
            if row["opcode"] in {Opcode.CONV, Opcode.DWC, Opcode.VEC}:
                assert (int(cost["busy"][i]), int(cost["tail"][i])) == busy_and_tail(row, arch), row


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES.keys())
def test_every_instruction_has_the_times_of_the_slow_twin(arch: Arch, memory: str) -> None:
    """Queued, start, busy end and token of each instruction, and the total, cycle for cycle."""
    spec = parse(memory, arch.clock_mhz)
    for seed in range(2):
        program = random_program(arch, 10 + seed, 40)
        found = trace(program, arch, spec)
        cycles, times = oracle_times(program, arch, spec)
        np.testing.assert_array_equal(found.times, np.array(times), err_msg=f"seed {seed}")
        assert found.cycles == cycles


def _bus_at_random(arch: Arch, seed: int) -> Replay:
    """Waits for more bursts and beats than a program has: mostly none, some long."""
    rng = np.random.default_rng(seed)

    def waits(count: int, most: int) -> NDArray[np.int64]:
        return np.where(rng.random(count) < 0.5, 0, rng.integers(0, most + 1, count))

    def bursts(count: int) -> NDArray[np.int64]:
        return np.stack([waits(count, 9), 1 + waits(count, 60)], axis=1)

    # Half of the ports take beats one after the other, others hold up every third.
    beats = tuple(waits(20_000, (1, 12)[p % 2]) * (rng.random(20_000) < 0.3) for p in range(arch.dma.ports))
    return Replay(bursts(200), bursts(4000), bursts(4000), beats)


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES.keys())
def test_a_recorded_bus_gives_the_same_times_in_both(arch: Arch) -> None:
    """Also where beats of a write are held up one by one."""
    for seed in range(3):
        program, replay = random_program(arch, 70 + seed, 40), _bus_at_random(arch, seed)
        found = trace(program, arch, replay)
        cycles, times = oracle_times(program, arch, replay)
        np.testing.assert_array_equal(found.times, np.array(times), err_msg=f"seed {seed}")
        assert found.cycles == cycles
        assert found.requests is not None
        assert found.requests.differing(found.requests) == 0
        assert (np.diff(found.requests.load[:, 0]) >= BURST_INTERVAL).all()


def test_a_recording_that_ends_early_is_told() -> None:
    """What is asked for beyond it has no answer to compare with, and counts as a difference."""
    arch = ARCHES["b512"]
    program, whole = random_program(arch, 70, 40), _bus_at_random(arch, 0)
    full = trace(program, arch, whole).requests
    cut = trace(program, arch, replace(whole, load=whole.load[:3])).requests
    assert full is not None
    assert cut is not None
    assert len(cut.load) == len(full.load)
    assert full.differing(cut) >= len(full.load) - 3
    assert cut.first_difference(full).count("load burst 3") == 1
    with pytest.raises(SimulationError, match=r"the recording has 1 ports, b512 has 2"):
        trace(program, arch, replace(whole, beats=whole.beats[:1]))
    with pytest.raises(SimulationError, match=r"replay of save: .* answers after 1 and more"):
        replace(whole, save=whole.save * 0)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES.keys())
def test_bound_is_below_estimate_is_below_simulated(arch: Arch, memory: str) -> None:
    """The claims stay in order, and breakdowns sum to totals."""
    for seed in range(5):
        program = random_program(arch, 30 + seed, 100)
        r = simulate(program, arch, memory)
        assert r.bounds.bound_cycles <= r.estimate_cycles <= r.cycles
        for engine in r.engines.values():
            assert engine.busy + sum(engine.stalls.values()) + engine.idle == r.cycles
            assert min(engine.busy, engine.idle, *engine.stalls.values(), 0) >= 0
            assert engine.stalls.keys() <= set(CAUSES)
        for name in ("ifmap", "weights", "ofmap"):
            assert sum(layer.dram_bytes[name] for layer in r.layers) == r.dram_bytes[name]
        assert (
            sum(r.dram_bytes[k] for k in ("ifmap", "weights", "ofmap", "instructions"))
            == r.dram_bytes["total"]
        )
        assert sum(r.energy.components.values()) == pytest.approx(r.energy.total_mj)


def test_more_bandwidth_is_never_slower_for_a_stream() -> None:
    """A fixed memory twice as fast does not cost a cycle where LOAD alone works (with engines that take turns at ports,
    a faster memory may change the turns)."""
    arch = ARCHES["b512"]
    for seed in range(10):
        program = random_program(arch, 60 + seed, 80)
        rows = program.fields[
            np.isin(program.fields[:, COLUMNS["opcode"]], (Opcode.LOAD, Opcode.FILL, Opcode.END))
        ]
        rows[:, [COLUMNS[w] for w in WAITS.values()]] = 0
        n = len(rows)
        program = Program(
            rows, program.weights, program.maps_bytes, program.design, program.layer[:n], program.traffic[:n]
        )
        cycles = [simulate(program, arch, f"fixed:{rate},40").cycles for rate in (1, 2, 4, 8, 16, 64)]
        assert cycles == sorted(cycles, reverse=True), cycles


def test_the_same_program_gives_the_same_json_twice() -> None:
    """Results are deterministic, and JSON is read back to an equal value."""
    arch = ARCHES["b4096"]
    program = random_program(arch, 5)
    texts = [simulate(program, arch, MEMORIES[2], board=Board.named("kv260")).to_json() for _ in range(2)]
    assert texts[0] == texts[1]
    assert Simulation.from_json(texts[0]).to_json() == texts[0]


def test_tokens_wrap_round_at_2_to_the_16() -> None:
    """A wait of 3 behind 65,540 instructions means the 65,539th, and costs nothing else."""
    arch = ARCHES["b512"]
    one = instruction(Opcode.VEC, VecOp.ADD, out_h=1, out_w=1, blocks=1, d_group=1)
    last = instruction(
        Opcode.CONV, out_h=1, out_w=1, blocks=1, out_c=1, kh=1, kw=1, ways=1, wait_vec=3, d_group=2
    )
    rows = np.concatenate([np.repeat(one[None], 65_540, 0), last[None], instruction(Opcode.END)[None]])
    n = len(rows)
    program = Program(
        rows, np.zeros(0, np.uint8), 0, arch.design_hash, np.zeros(n, np.int32), np.zeros(n, np.int8)
    )
    found = trace(program, arch, "fixed:1024,0")
    assert found.times[n - 2, 1] == found.times[65_538, 3] + TOKEN


def test_a_port_that_another_engine_owns_is_waited_for() -> None:
    """CONV reads group 0 and so does VEC: CONV goes first in the same cycle, VEC starts when the port is free."""
    arch = ARCHES["b512"]
    conv = instruction(
        Opcode.CONV, out_h=4, out_w=4, blocks=1, out_c=8, kh=3, kw=3, ways=1, d_group=1, a_group=0
    )
    vec = instruction(Opcode.VEC, VecOp.PRELU, out_h=4, out_w=4, blocks=1, d_group=2, a_group=0)
    rows = np.stack([conv, vec, instruction(Opcode.END)])
    program = Program(
        rows, np.zeros(0, np.uint8), 0, arch.design_hash, np.zeros(3, np.int32), np.zeros(3, np.int8)
    )
    r = simulate(program, arch, "fixed:64,0")
    assert r.timeline is not None
    assert r.timeline.start[1] == r.timeline.busy_end[0]
    assert CAUSES[r.timeline.cause[1]] == "port"
    assert r.engines["vec"].stalls["port"] == r.timeline.busy_end[0] - r.timeline.start[0] - 1


def test_a_program_for_another_design_is_refused() -> None:
    """The message names both designs."""
    program = random_program(ARCHES["b512"], 1)
    with pytest.raises(
        SimulationError, match=f"for design {program.design}, b4096 is design .*compile it again"
    ):
        simulate(program, ARCHES["b4096"], "fixed:16")
