"""What a report derives from a simulation: sums, shares, roofs and the verdict keep their laws on a real program."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tilewright as tw
from tilewright.frontend import zoo
from tilewright.hwsim.results import EngineResult
from tilewright.ir.errors import ReportError
from tilewright.reports import Result, merge, verdict
from tilewright.reports.accounts import COMPUTE, accounts, peak_macs
from tilewright.reports.energy import energy_line
from tilewright.reports.merge import aligned
from tilewright.reports.trace import moved_bytes

NETWORK = zoo.build("mobilenet_v2", resolution=64, width=0.35, classes=10)


@pytest.fixture(scope="module")
def real() -> Result:
    return tw.compile(NETWORK, "b512", synthetic_calibration=True).simulate()


@pytest.fixture(scope="module")
def bare() -> Result:
    return tw.compile(NETWORK, "b512-nodw", synthetic_calibration=True).simulate()


def test_engine_cycles_of_layers_fit_into_the_frame_and_hold_their_busy_cycles(real: Result) -> None:
    layers = accounts(real)
    for engine in COMPUTE:
        mine = [x for x in layers if x.layer.engine == engine]
        assert sum(x.engine_cycles for x in mine) <= real.total.cycles
        for x in mine:
            assert x.engine_cycles >= x.layer.busy[engine]


def test_no_layer_beats_its_engine(real: Result) -> None:
    for x in accounts(real):
        if x.ops:
            assert 0 < x.efficiency <= 1
            assert x.gops <= 2e-3 * peak_macs(real, x.layer.engine) * real.total.clock_mhz


def test_depthwise_layers_are_known_on_either_machine(real: Result, bare: Result) -> None:
    on_engine = {x.layer.name for x in accounts(real) if x.depthwise}
    on_array = {x.layer.name for x in accounts(bare) if x.depthwise}
    assert on_engine == on_array != set()
    assert all(x.layer.engine == "conv" for x in accounts(bare) if x.depthwise)


def test_a_machine_without_the_engine_is_told_what_it_would_give(bare: Result) -> None:
    levers = verdict(bare).levers
    assert any("depthwise PE" in x.help for x in levers)
    assert all(0 < x.cycles <= bare.total.cycles for x in levers)
    assert [x.cycles for x in levers] == sorted((x.cycles for x in levers), reverse=True)


def _with_engines(result: Result, **busy: float) -> Result:
    """The result with each engine busy for a share of the frame and waiting for loads otherwise."""
    simulation = result.segments[0].simulation
    engines = {
        name: EngineResult(
            int(share * simulation.cycles), {"load": int((1 - share) * simulation.cycles)}, 0, 1
        )
        for name, share in {"load": 0.0, "conv": 0.0, "dwc": 0.0, "vec": 0.0, "save": 0.0, **busy}.items()
    }
    segment = replace(result.segments[0], simulation=replace(simulation, engines=engines))
    return replace(result, segments=(segment,))


@pytest.mark.parametrize(
    ("busy", "limited", "said"),
    [
        ({"conv": 0.9, "load": 0.3}, "conv", "MAC array sets the pace: it works in 90% of the cycles"),
        ({"dwc": 0.8, "conv": 0.4}, "dwc", "depthwise PE sets the pace"),
        ({"conv": 0.5, "load": 0.95}, "dram", "DRAM sets the pace: LOAD moves data in 95% of the cycles"),
        ({"conv": 0.5, "load": 0.4}, "load", "its longest wait (50%) is for loads from DRAM"),
        ({"conv": 0.72, "load": 0.9}, "dram", "DRAM sets the pace"),
    ],
)
def test_verdict_names_what_sets_the_pace(
    real: Result, busy: dict[str, float], limited: str, said: str
) -> None:
    judged = verdict(_with_engines(real, **busy))
    assert judged.limited_by == limited
    assert said in judged.sentence


def test_merging_adds_up_and_keeps_every_breakdown(real: Result) -> None:
    one = real.segments[0].simulation
    two = merge([one, one])
    assert two.cycles == 2 * one.cycles
    assert two.dram_bytes == {k: 2 * v for k, v in one.dram_bytes.items()}
    assert two.energy.total_mj == pytest.approx(2 * one.energy.total_mj)
    assert two.energy.relative_uncertainty == pytest.approx(one.energy.relative_uncertainty)
    assert two.bounds.bound_cycles <= two.estimate_cycles <= two.cycles
    for engine in two.engines.values():
        assert engine.busy + sum(engine.stalls.values()) + engine.idle == two.cycles
    assert len(two.layers) == 2 * len(one.layers)
    assert two.layers[-1].last_cycle == one.layers[-1].last_cycle + one.cycles
    assert two.utilization == pytest.approx(one.utilization)
    first, both = aligned(one), two.timeline
    assert first is not None
    assert both is not None
    assert len(both) == 2 * len(first)
    assert np.array_equal(both.start[len(first) :], first.start + one.cycles)
    assert np.array_equal(
        both.layer[len(first) :], np.where(first.layer >= 0, first.layer + len(one.layers), -1)
    )


def test_timeline_numbers_name_the_layer_that_has_the_busy_cycles(real: Result) -> None:
    timeline = real.total.timeline
    assert timeline is not None
    for place, layer in enumerate(real.total.layers):
        for engine, name in ((1, "conv"), (2, "dwc"), (3, "vec")):
            rows = (timeline.layer == place) & (timeline.engine == engine)
            spent = int((timeline.busy_end[rows] - timeline.start[rows]).sum())
            assert spent == layer.busy.get(name, 0)


def test_bytes_of_the_program_are_the_bytes_of_the_simulation(real: Result) -> None:
    program = real.segments[0].program
    assert program is not None
    moved = moved_bytes(program)
    for i, kind in enumerate(("ifmap", "weights", "ofmap"), 1):
        assert moved[program.traffic == i].sum() == real.total.dram_bytes[kind]


def test_energy_line_goes_through_the_network_and_balances(real: Result) -> None:
    line = energy_line(real)
    total = real.total
    assert line.at(line.intensity) * 2 * total.macs == pytest.approx(1e9 * total.energy.total_mj)
    assert line.at(line.balance) == pytest.approx(2 * line.op_pj)


def test_a_network_wholly_on_the_host_has_no_report(real: Result) -> None:
    with pytest.raises(ReportError, match=r"run on the host.*tilewright check"):
        replace(real, segments=())


def test_a_result_without_a_fit_says_which_resource_runs_out(real: Result) -> None:
    dsp = replace(real.resources[0], used=10.0, available=5.0)
    assert replace(real, misfits=(), resources=(dsp,)).shortfalls == (f"{dsp.resource}: 10 used, 5 there",)
    assert replace(real, misfits=("too small",), resources=(dsp,)).shortfalls == ("too small",)
