"""Explorations from end to end, on a network small enough to simulate every design."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tilewright as tw
from tilewright import explore_evaluate
from tilewright.exploration import open_study
from tilewright.explore_campaign import Progress
from tilewright.explore_compare import compare
from tilewright.explore_evaluate import Cost
from tilewright.explore_objectives import OBJECTIVES, combined, measures, named
from tilewright.ir.errors import ArchError, ModelError, ReportError, ScheduleError

SPACE: dict[str, Any] = {
    "title": "Small arrays",
    "arch": {"base": "b512", "dma": {"bits": 64, "burst": 16}},
    "space": {
        "conv.oc": [4, 8, 12],
        "dwc.channels": [0, 8],
        "clock_mhz": [100, 200],
        "conv.drain": [1, 2],
    },
    "constraints": {"fits": "pynq-z2", "require": ["latency_ms < 0.3"]},
}
AIMS = ("latency", "energy", "dsp")


@pytest.fixture(autouse=True, scope="module")
def remembered() -> Iterator[None]:
    """Each design is scheduled once for all tests of this module: what is evaluated is a function of its task."""
    known: dict[tuple[str, str], Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_estimated", "_simulated"):
            real = getattr(explore_evaluate, name)

            def once(graphs: Any, task: Any, real: Any = real, name: str = name) -> Cost:
                key = (name, task.key)
                if key not in known:
                    known[key] = real(graphs, task)
                return known[key]

            patch.setattr(explore_evaluate, name, once)
        yield


def told(study: tw.Study) -> dict[str, Any]:
    """Everything but the time it took."""
    return {k: v for k, v in study.to_dict().items() if k != "seconds"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tw.Study:
    folder = tmp_path_factory.mktemp("a") / "s"
    return tw.explore("zoo:tiny", SPACE, objectives=AIMS, jobs=0, sample=4, output=folder)


@pytest.fixture(scope="module")
def truth() -> tw.Study:
    """Every design simulated."""
    return tw.explore("zoo:tiny", SPACE, objectives=AIMS, levels="simulated", jobs=0)


def test_the_front_of_two_levels_is_the_front_of_simulating_everything(
    study: tw.Study, truth: tw.Study
) -> None:
    """With a margin as wide as the estimate is off here, nothing that belongs there is missed."""
    wide = tw.explore("zoo:tiny", SPACE, objectives=AIMS, jobs=0, sample=0, margin=0.25)
    assert [d.design for d in wide.pareto] == [d.design for d in truth.pareto]
    assert wide.complete
    assert all(d.simulated == t.simulated for d, t in zip(wide.pareto, truth.pareto, strict=True))
    assert len(study.simulated) < len(truth.simulated)


def test_the_front_is_what_no_simulated_design_beats(truth: tw.Study) -> None:
    def vector(d: Any) -> tuple[float, ...]:
        return (d.simulated["latency_ms"], d.simulated["energy_mj"], d.resources["dsp"])

    every = [vector(d) for d in truth.feasible]
    for d in truth.pareto:
        assert not any(
            all(a <= b for a, b in zip(v, vector(d), strict=True)) and v != vector(d) for v in every
        )
    best = {
        v for v in every if not any(all(a <= b for a, b in zip(w, v, strict=True)) and w != v for w in every)
    }
    assert {vector(d) for d in truth.pareto} == best


@pytest.mark.parametrize("workers", ["1 process", "2 processes", "threads"])
def test_the_number_of_workers_changes_nothing(study: tw.Study, workers: str) -> None:
    if workers == "threads":
        with ThreadPoolExecutor(3) as executor:
            other = tw.explore("zoo:tiny", SPACE, objectives=AIMS, sample=4, executor=executor)
    else:
        other = tw.explore("zoo:tiny", SPACE, objectives=AIMS, sample=4, jobs=int(workers[0]))
    assert told(other) == told(study)
    assert other.to_csv() == study.to_csv()


def test_a_simulated_design_has_the_numbers_of_the_simulator(truth: tw.Study) -> None:
    """The same as compiling and simulating it alone, board and all."""
    for d in truth.pareto[:2]:
        total = tw.compile("zoo:tiny", d.arch, "pynq-z2", synthetic_calibration=True).simulate().total
        assert d.simulated["cycles"] == total.cycles
        assert d.simulated["energy_mj"] == pytest.approx(total.energy.total_mj)
        assert d.simulated["dram_bytes"] == total.dram_bytes["total"]
        assert d.simulated["latency_ms"] == pytest.approx(total.latency_ms)


def test_claims_are_never_mixed(study: tw.Study) -> None:
    """The front has one claim; each column of the table says which it holds."""
    assert study.claim == "simulated"
    assert all(d.simulated for d in study.pareto)
    rows = list(csv.DictReader(io.StringIO(study.to_csv())))
    assert len(rows) == len(study.designs)
    for row in rows:
        assert bool(row["simulated.latency_ms"]) == (row["claim"] == "simulated")
    assert not any(c in rows[0] for c in ("latency_ms", "energy_mj"))


def test_every_design_is_accounted_for_and_every_misfit_has_its_reason(study: tw.Study) -> None:
    assert len(study.feasible) + len(study.infeasible) + len(study.failed) == len(study.designs)
    assert study.infeasible
    assert all(d.reasons for d in study.infeasible)
    reasons = " ".join(r for d in study.infeasible for r in d.reasons)
    assert "pynq-z2 has 220" in reasons
    assert "misses `latency_ms < 0.3`" in reasons


def test_the_best_of_an_objective_is_the_best_of_all(truth: tw.Study) -> None:
    least = min(d.simulated["latency_ms"] for d in truth.feasible)
    assert truth.best("latency").simulated["latency_ms"] == least
    assert truth.best("fps_per_dsp").values["fps_per_dsp"] == max(
        d.values["fps_per_dsp"] for d in truth.feasible
    )
    assert truth.best("latency", where="dwc.channels == 0").choices["dwc.channels"] == 0
    assert truth.best() in truth.pareto
    with pytest.raises(ArchError, match="`dsp < 1` leaves none"):
        truth.best("latency", where="dsp < 1")
    with pytest.raises(ArchError, match="was not measured in this study"):
        truth.best("sqnr")


def test_a_study_is_resumed_where_it_stood(
    study: tw.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle, and again: finished designs are kept, none is evaluated twice, the end is the same."""
    real, calls = explore_evaluate._estimated, [0]

    def interrupted(*args: Any) -> Cost:
        calls[0] += 1
        if calls[0] in (5, 9):
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(explore_evaluate, "_estimated", interrupted)
    for attempt in range(2):
        with pytest.raises(KeyboardInterrupt):
            tw.explore(
                "zoo:tiny",
                SPACE,
                objectives=AIMS,
                jobs=0,
                sample=4,
                output=tmp_path / "s",
                resume=attempt > 0,
            )
    again = tw.explore(
        "zoo:tiny", SPACE, objectives=AIMS, jobs=0, sample=4, output=tmp_path / "s", resume=True
    )
    assert told(again) == told(study)
    evaluated = sum(bool(d.estimate) for d in study.designs)
    assert calls[0] < evaluated + 12, "only batches that were under way are done again"
    assert told(open_study(tmp_path / "s")) == told(study)


def test_another_study_does_not_go_on_in_the_folder(study: tw.Study) -> None:
    folder = study.folder
    with pytest.raises(ReportError, match=r"holds a study of .* designs; --resume goes on"):
        tw.explore("zoo:tiny", SPACE, jobs=0, output=folder)
    with pytest.raises(ReportError, match="is another study: its seed is 0, now it is 1"):
        tw.explore("zoo:tiny", SPACE, jobs=0, output=folder, resume=True, seed=1)
    with pytest.raises(ReportError, match="say which study"):
        tw.explore("zoo:tiny", SPACE, jobs=0, resume=True)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ReportError, match="holds files but no study"):
        tw.explore("zoo:tiny", SPACE, jobs=0, output=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_crash_of_the_model_is_one_failed_design(monkeypatch: pytest.MonkeyPatch) -> None:
    real = explore_evaluate._estimated

    def fragile(graphs: Any, task: Any) -> Cost:
        if task.arch.conv.oc == 8 and task.arch.has_dwc:
            raise ZeroDivisionError("a bug")
        return real(graphs, task)

    monkeypatch.setattr(explore_evaluate, "_estimated", fragile)
    space = {"arch": {"base": "b512"}, "space": {"conv.oc": [4, 8], "dwc.channels": [0, 8]}}
    study = tw.explore("zoo:tiny", space, jobs=0)
    (failed,) = study.failed
    assert failed.choices == {"conv.oc": 8, "dwc.channels": 8}
    assert "tiny: ZeroDivisionError: a bug (test_explore_study.py:" in failed.reasons[0]
    assert len(study.feasible) == 3


def test_a_layer_that_fits_no_tile_makes_the_design_infeasible(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule that does not exist is the design's fault, and the layer's message is its reason."""

    def narrow(graphs: Any, task: Any) -> Cost:
        raise ScheduleError("conv1: needs 9 words, maps hold 4; set maps.kib >= 8")

    monkeypatch.setattr(explore_evaluate, "_estimated", narrow)
    study = tw.explore("zoo:tiny", {"space": {"maps.kib": [64, 128]}}, jobs=0, levels="estimate")
    assert [d.status for d in study.designs] == ["infeasible"] * 2
    assert study.infeasible[0].reasons == ("tiny: conv1: needs 9 words, maps hold 4; set maps.kib >= 8",)
    assert study.pareto == ()
    with pytest.raises(ArchError, match="2 are infeasible"):
        study.best("latency")
    assert study._repr_html_()


def test_designs_that_differ_in_cores_alone_are_scheduled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their frames a second are simulated each for itself: below as many times one as there are cores."""
    real, seen = explore_evaluate._one_core, []

    def counted(graphs: Any, task: Any) -> Any:
        seen.append(task.key)
        return real(graphs, task)

    monkeypatch.setattr(explore_evaluate, "_one_core", counted)
    space = {"arch": {"base": "b512"}, "space": {"cores": [1, 2, 4]}}
    study = tw.explore("zoo:tiny", space, jobs=0, levels="simulated", objectives=("fps", "dsp"))
    assert len(seen) == 1
    one, two, four = (d.simulated["fps"] for d in study.designs)
    assert one < two < four < 4 * one
    assert len({d.simulated["latency_ms"] for d in study.designs}) == 1
    estimated = tw.explore("zoo:tiny", space, jobs=0, levels="estimate", objectives=("fps", "dsp"))
    one, _, four = (d.estimate["fps"] for d in estimated.designs)
    assert four == 4 * one


def test_many_cores_are_fed_by_one_memory() -> None:
    """Frames a second end where the DRAM's peak does."""
    cost = (300_000, 10_000_000, 1e9, 1)
    many = measures(cost, clock_mhz=300.0, cores=8, macs_per_cycle=1, dram_gb_s=19.2)
    assert many["fps"] == 19.2e9 / 10e6
    simulated = measures((*cost, 6e-6), clock_mhz=300.0, cores=8, macs_per_cycle=1, dram_gb_s=19.2)
    assert simulated["fps"] == pytest.approx(1800)
    assert many["latency_ms"] == 1.0
    assert many["edp_mj_ms"] == many["energy_mj"] * many["latency_ms"]


def test_several_networks_are_weighted_or_the_worst_counts() -> None:
    each = {"a": {"latency_ms": 1.0, "fps": 1000.0}, "b": {"latency_ms": 4.0, "fps": 250.0}}
    mean = combined(each, {"a": 3.0, "b": 1.0}, "weighted", 100)
    assert mean["latency_ms"] == pytest.approx(1.75)
    assert mean["fps"] == pytest.approx(1000 / 1.75), "frames of the mix a second"
    worst = combined(each, {"a": 3.0, "b": 1.0}, "worst", 100)
    assert (worst["latency_ms"], worst["fps"], worst["fps_per_dsp"]) == (4.0, 250.0, 2.5)
    space = {"arch": {"base": "b512"}, "space": {"conv.oc": [4, 8]}, "weights": {"tiny-2": 2}}
    both = tw.explore(["zoo:tiny", "zoo:tiny"], space, jobs=0, levels="estimate")
    assert both.networks == ("tiny", "tiny-2")
    with pytest.raises(ModelError, match="no network is called 'big'; there are tiny"):
        tw.explore("zoo:tiny", space | {"weights": {}}, weights={"big": 1}, jobs=0)


def test_the_model_side_is_an_axis_too(tmp_path: Path) -> None:
    """Width, resolution, variants from files, and what each cannot do."""
    import onnx

    onnx.save(tw.zoo.build("tiny", seed=3), tmp_path / "other.onnx")
    space = {
        "arch": {"base": "b512"},
        "space": {"model.variant": ["zoo:tiny", str(tmp_path / "other.onnx")], "clock_mhz": [100, 200]},
    }
    study = tw.explore((), space, jobs=0, levels="estimate")
    assert study.networks == ("variant",)
    assert len({d.estimate["cycles"] for d in study.designs if d.choices["clock_mhz"] == 100}) <= 2
    shapes = {"arch": {"base": "b512"}, "space": {"model.width": [0.5, 1.0], "model.resolution": [32, 64]}}
    cycles = [d.estimate["cycles"] for d in tw.explore("zoo:tiny", shapes, jobs=0, levels="estimate").designs]
    assert cycles[0] < cycles[2] < cycles[3]
    with pytest.raises(ModelError, match=r"model.width: other is no zoo: network"):
        tw.explore(tmp_path / "other.onnx", shapes, jobs=0)
    with pytest.raises(ModelError, match="a study needs a network"):
        tw.explore((), {"space": {"conv.oc": [8]}}, jobs=0)


def test_noise_is_measured_once_a_rounding_mode() -> None:
    """SQNR of the last layer, and what a network cannot do is its designs' reason, not the study's end."""
    space = {"arch": {"base": "b512"}, "space": {"mode": ["f32", "fix16", "shift"], "conv.oc": [4, 8]}}
    study = tw.explore("zoo:tiny", space, objectives=("sqnr", "dsp"), jobs=0, levels="estimate")
    noise = {d.choices["mode"]: d.resources.get("sqnr_db") for d in study.feasible}
    network = tw.load(tw.zoo.build("tiny"), name="tiny")
    model = tw.quantize(network, tw.Calibration.synthetic(network, samples=8))
    assert noise["f32"] == pytest.approx(list(model.sqnr_db.values())[-1])
    assert set(noise) == {"f32", "fix16"}
    assert [d.choices["mode"] for d in study.infeasible] == ["shift", "shift"]
    assert "mode shift only has powers of two" in study.infeasible[0].reasons[0]
    dsp = {(d.choices["mode"], d.choices["conv.oc"]): d.resources["dsp"] for d in study.designs}
    assert dsp["shift", 8] < dsp["f32", 8], "hardware has the one mode alone"
    with pytest.raises(ModelError, match="powers of two"):
        tw.explore("zoo:tiny", space | {"space": {"mode": ["shift"]}}, jobs=0)


def test_the_evolution_is_the_same_for_the_same_seed_and_is_resumed_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever works, and however often it was interrupted; it finds the exact front of a space this small."""
    pytest.importorskip("optuna", reason="optuna is not installed")
    space = SPACE | {"search": {"method": "nsga2", "population": 12, "evaluations": 30}}
    runs = [
        tw.explore(
            "zoo:tiny", space, objectives=AIMS, jobs=jobs, levels="estimate", output=tmp_path / str(jobs)
        )
        for jobs in (0, 2)
    ]
    assert told(runs[0]) == told(runs[1])
    assert (tmp_path / "0" / "journal.log").stat().st_size > 0
    real, calls = explore_evaluate._estimated, [0]

    def interrupted(*args: Any) -> Cost:
        calls[0] += 1
        if calls[0] == 7:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(explore_evaluate, "_estimated", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tw.explore("zoo:tiny", space, objectives=AIMS, jobs=0, levels="estimate", output=tmp_path / "cut")
    again = tw.explore(
        "zoo:tiny", space, objectives=AIMS, jobs=0, levels="estimate", output=tmp_path / "cut", resume=True
    )
    assert told(again) == told(runs[0])
    assert sum(bool(d.claim) for d in again.designs) <= 30
    whole = SPACE | {"search": {"method": "nsga2", "population": 24, "evaluations": 500}}
    found = tw.explore("zoo:tiny", whole, objectives=AIMS, jobs=0, levels="estimate")
    exact = tw.explore("zoo:tiny", SPACE, objectives=AIMS, jobs=0, levels="estimate")
    assert found.hypervolume >= 0.98 * exact.hypervolume


def test_a_limit_on_simulations_is_kept_and_said(study: tw.Study) -> None:
    short = tw.explore("zoo:tiny", SPACE, objectives=AIMS, jobs=0, most_simulated=2, sample=0)
    assert len(short.simulated) == 2
    assert not short.complete
    assert "the front may miss some" in str(short)
    assert study.complete


def test_the_best_in_each_objective_is_simulated_first(study: tw.Study) -> None:
    """With as many simulations as objectives, the estimate's extremes are among them."""
    short = tw.explore("zoo:tiny", SPACE, objectives=AIMS, jobs=0, most_simulated=3, sample=0)
    for column in ("latency_ms", "energy_mj"):
        best = min((d for d in short.feasible), key=lambda d: d.estimate[column])
        assert best.simulated, column


def test_the_random_sample_does_not_depend_on_promise(study: tw.Study) -> None:
    """Seeded, drawn among all feasible estimates, and judged apart."""
    assert len(study.sample) == 4
    found = study.agreement(sample_only=True)
    assert found is not None
    assert found.points == 4
    assert study.rank_correlation is not None
    assert study.estimate_error == study.agreement().mean_error  # type: ignore[union-attr]


def test_progress_tells_how_far_how_fast_and_how_good(study: tw.Study) -> None:
    heard: list[Progress] = []
    tw.explore("zoo:tiny", SPACE, objectives=AIMS, jobs=0, levels="estimate", on_progress=heard.append)
    last = heard[-1]
    assert last.done == last.total
    assert last.points_per_second > 0
    assert 0 < last.hypervolume <= 1
    estimates = [d for d in study.feasible if d.estimate]
    assert last.best["dsp"] == min(d.resources["dsp"] for d in estimates)


def test_scripts_get_what_they_were_promised(study: tw.Study) -> None:
    value = json.loads(study.to_json())
    for key in (
        "points_evaluated",
        "points_simulated",
        "points_infeasible",
        "seconds",
        "estimate_error",
        "rank_correlation",
    ):
        assert isinstance(value[key], int | float), key
    assert {"design", "choices", "objectives", "claim", "arch"} <= value["pareto"][0].keys()
    assert set(value["pareto"][0]["objectives"]) == set(AIMS)
    assert tw.Arch.build(value["pareto"][0]["arch"]) == study.pareto[0].arch


def test_parquet_holds_the_same_table(study: tw.Study, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = parquet.read_table(study.to_parquet(tmp_path / "designs.parquet"))
    columns, rows = study.table()
    assert tuple(table.column_names) == columns
    assert table.num_rows == len(rows)
    at = columns.index("estimate.latency_ms")
    got = table.column("estimate.latency_ms").to_pylist()
    assert got == [row[at] for row in rows]
    assert json.loads(table.schema.metadata[b"tilewright.study"])["schema"] == "tilewright.study/1"


def test_a_study_against_itself_is_even_and_against_a_part_of_itself_ahead(
    study: tw.Study, truth: tw.Study
) -> None:
    same = compare(study, study)
    assert same.hypervolume[0] == same.hypervolume[1]
    assert same.beaten == (0.0, 0.0)
    assert same.shared == len(study.pareto)
    part = tw.explore(
        "zoo:tiny",
        SPACE | {"space": SPACE["space"] | {"clock_mhz": [100]}},
        objectives=AIMS,
        levels="simulated",
        jobs=0,
    )
    found = compare(truth, part)
    assert found.hypervolume[0] > found.hypervolume[1]
    assert found.best["latency"][0] < found.best["latency"][1]
    assert found.together[0] == len(truth.pareto)


def test_objectives_are_named_with_their_words() -> None:
    assert [o.name for o in named(["accuracy", "dram"])] == ["sqnr", "dram_bytes"]
    with pytest.raises(ArchError, match="did you mean latency"):
        named(["latncy"])
    with pytest.raises(ArchError, match="given twice"):
        named(["accuracy", "sqnr"])
    assert all(np.sign(o.sign) == (-1 if o.maximise else 1) for o in OBJECTIVES.values())


def test_a_notebook_shows_the_front(study: tw.Study) -> None:
    html = study._repr_html_()
    assert html.count("<tr>") == 1 + len(study.pareto)
    assert "simulated" in html
