"""The scripts under tests/benchmarks run; what they measure is for people to read."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


def test_the_compile_benchmark_measures_a_small_network(capsys: pytest.CaptureFixture[str]) -> None:
    """Every figure is there and positive, and the cycles are those of the simulator."""
    import tilewright as tw

    script = runpy.run_path(str(BENCHMARKS / "compile.py"))
    assert script["main"](["tiny", "--arch", "b512", "--emulate", "--repeats", "1", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert min(row[k] for k in ("instructions", "quantise", "schedule", "simulate", "emulate")) > 0
    compiled = tw.compile("zoo:tiny", "b512", synthetic_calibration=True)
    assert row["cycles"] == compiled.simulate().total.cycles
    assert row["instructions"] == sum(len(p.program) for p in compiled.plans)


def test_the_benchmark_table_has_a_line_a_network() -> None:
    """Figures that were not measured are dashes; ratios are of the columns before them."""
    script = runpy.run_path(str(BENCHMARKS / "compile.py"))
    row = script["Row"]("net", 1000, 50_000, 1.0, 2.0, 0.5, None, 7.0)
    head, line = script["table"]([row]).splitlines()
    assert len(head) == len(line)
    assert line.split()[-5:] == ["1e+05", "2e+03", "-", "4.0", "2.0"]


def test_the_exploration_benchmark_measures_a_few_designs() -> None:
    """Rates are positive, and sleeping designs are no faster than their sleep. A process: workers import the script."""
    path = BENCHMARKS / "explore.py"
    words = ["--workers", "1", "--designs", "8", "--networks", "zoo:tiny", "--simulate", "1", "--json"]
    done = subprocess.run([sys.executable, str(path), *words], capture_output=True, text=True, check=True)
    row = json.loads(done.stdout)
    script = runpy.run_path(str(path))
    assert min(row["designs_per_second_1"], row["networks_simulated_per_minute_and_core"]) > 0
    assert 0 < row["asleep_per_second_1"] <= 1 / script["SLEEP_SECONDS"]
    from tilewright.explore_points import numbered
    from tilewright.explore_space import Space

    assert sum(1 for _ in numbered(Space.build(script["SPACE"]))) >= 10_000


def test_the_schedule_benchmark_measures_layers_and_a_small_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A row for each table of layers and for the network; medians are below maxima, maxima below totals."""
    script = runpy.run_path(str(BENCHMARKS / "schedule.py"))
    assert script["main"](["tiny", "--arch", "b512", "--json"]) == 0
    *layers, net = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(layers) == 3
    assert all(0 < row["median"] <= row["maximum"] <= row["total"] for row in layers)
    assert net["network"] == "tiny"
    assert min(net[k] for k in ("quantise", "schedule", "simulate")) > 0
