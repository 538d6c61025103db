"""Simulation results: derived numbers, JSON there and back, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tilewright.hwsim.results import SCHEMA, Bounds, Energy, EngineResult, LayerResult, Simulation, Timeline
from tilewright.ir.errors import ReportError

LAYER = LayerResult(
    "conv1", "Conv", "conv", {"conv": 900, "load": 100}, 10, 1000, 1 << 20, 512,
    {"ifmap": 100, "weights": 200, "ofmap": 0}, 4096, 2048, {"mac": 0.1}, "load",
)  # fmt: skip
RESULT = Simulation(
    cycles=2000,
    clock_mhz=250.0,
    macs=1 << 21,
    macs_per_cycle=2048,
    dram_bytes={"ifmap": 100, "weights": 200, "ofmap": 50, "instructions": 1024, "total": 1374, "compulsory": 300},
    energy=Energy({"dram": 0.5, "mac": 0.25}, "test", sources=("a: 1 pJ",)),
    engines={"conv": EngineResult(900, {"load": 600}, 500, 3)},
    layers=(LAYER,),
    bounds=Bounds(1024, 700, 12, 300),
    estimate_cycles=1100,
    dram="fixed",
    network="net",
    arch="b4096",
    timeline=Timeline(
        np.array([0], np.int32), np.array([1], np.int8), np.array([0], np.int32),
        *(np.array([v], np.int64) for v in (5, 10, 20, 30)), np.array([1], np.int8),
    ),
)  # fmt: skip


def test_derived_numbers_follow_from_the_fields() -> None:
    """2000 cycles at 250 MHz are 8 us; 2^21 MACs in 2000 cycles of 2048 are 51.2 %."""
    assert RESULT.latency_ms == pytest.approx(0.008)
    assert RESULT.fps == pytest.approx(125_000)
    assert RESULT.utilization == pytest.approx(0.512)
    assert RESULT.gops == pytest.approx(2 * (1 << 21) / 8e-6 / 1e9)
    assert RESULT.energy.total_mj == 0.75
    assert RESULT.power_mw == pytest.approx(93_750)
    assert (RESULT.bounds.bound_cycles, RESULT.bounds.limited_by) == (1024, "compute")
    assert LAYER.cycles == 990


def test_json_is_read_back_equal_with_and_without_timeline() -> None:
    """A round trip is the identity; derived numbers are written for other readers."""
    assert Simulation.from_json(RESULT.to_json()) == RESULT
    full = Simulation.from_json(RESULT.to_json(timeline=True))
    assert full.timeline is not None
    assert RESULT.timeline is not None
    assert (full.timeline.start, full.timeline.engine.dtype) == (RESULT.timeline.start, np.dtype(np.int8))
    data = json.loads(RESULT.to_json())
    assert (data["schema"], data["fps"], "timeline" in data) == (SCHEMA, RESULT.fps, False)
    assert data["energy"]["total_mj"] == 0.75


def test_text_and_html_say_what_is_claimed() -> None:
    """Simulated, estimate and bound stand beside each other; names are escaped."""
    text = str(RESULT)
    assert "2,000 (simulated; estimate 1,100, bound 1,024)" in text
    assert "0.75 mJ (estimated)" in text
    html = Simulation.from_json(RESULT.to_json().replace('"net"', '"<net>"'))._repr_html_()
    assert "&lt;net&gt; on b4096" in html
    assert "<net>" not in html


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "r.json: not JSON"),
        ("[]", "schema is None, this version reads"),
        ('{"schema": "tilewright.simulation/0"}', "simulation/0', this version reads .*simulate again"),
        (RESULT.to_json().replace('"cycles"', '"cycle"'), "lacks or distorts 'cycles'"),
        (RESULT.to_json().replace('"compute_cycles"', '"x"'), "lacks or distorts 'compute_cycles'"),
    ],
)
def test_a_result_that_cannot_be_read_is_refused(text: str, match: str) -> None:
    """The message names the file and the field."""
    with pytest.raises(ReportError, match=match):
        Simulation.from_json(text, where="r.json")
