"""`explore` and `compare` from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tilewright.cli import main

SPACE = """
title = "Small arrays"
models = ["zoo:tiny"]
objectives = ["latency", "dsp"]
[arch]
base = "b512-nodw"
dma = { bits = 64, burst = 16 }
[space]
"conv.oc" = [4, 8, 64]
"clock_mhz" = [100, 125]
[constraints]
fits = "pynq-z2"
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "S.toml"
    path.write_text(SPACE)
    return path


def test_one_json_object_with_everything_a_script_was_promised(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    words = [
        "explore",
        "--space",
        str(space),
        "--jobs",
        "0",
        "--levels",
        "estimate",
        "-o",
        str(folder),
        "--json",
    ]
    assert main([*words, "--parquet"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["points_evaluated"] == 4
    assert value["points_infeasible"] == 2
    assert value["estimate_error"] is None
    assert all(set(p["objectives"]) == {"latency", "dsp"} for p in value["pareto"])
    for name in ("report.html", "study.json", "designs.csv", "pareto.svg", "designs.parquet", "study.sqlite"):
        assert (folder / name).stat().st_size, name
    assert main(words) == 2
    assert "--resume goes on with it" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {**again, "seconds": 0} == {**value, "seconds": 0}
    assert main(["compare", str(folder), str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shared"] == len(value["pareto"])
    assert main(["compare", str(folder), str(folder)]) == 0
    assert "equal" in capsys.readouterr().out


def test_a_reader_gets_the_front_and_where_it_is_written(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "explore",
        "zoo:tiny",
        "--space",
        str(space),
        "--jobs",
        "0",
        "-o",
        str(tmp_path / "s"),
        "--no-figures",
    ]
    assert main([*words, "--objectives", "fps,energy,dsp", "--sample", "1"]) == 0
    out = capsys.readouterr().out
    assert "simulated front" in out
    assert "2 infeasible: b512-nodw+ needs" in out
    assert "report.html" in out
    assert not (tmp_path / "s" / "pareto.svg").exists()


def test_a_chosen_design_goes_straight_to_verilog(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "explore",
        "--space",
        str(space),
        "--jobs",
        "0",
        "--levels",
        "estimate",
        "-o",
        str(tmp_path / "s"),
    ]
    assert main([*words, "--then", "build", "--pick", "dsp", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    package = Path(value["built"]["package"])
    manifest = json.loads((package / "manifest.json").read_text())
    assert manifest["design"] == value["built"]["design_hash"]
    assert list(package.rglob("*.v"))
    least = min(value["pareto"], key=lambda p: p["objectives"]["dsp"])
    assert value["built"]["design"] == least["design"]


def test_schema_and_presets_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "--schema"]) == 0
    assert "conv.pixels" in json.loads(capsys.readouterr().out)["properties"]["space"]["properties"]
    assert main(["explore", "--spaces"]) == 0
    assert "pynq-z2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--space", "nowhere.toml"], "cannot be read as a space"),
        (["--objectives", "speed"], "objective 'speed': not known"),
        (["--weight", "tiny"], "want NAME=NUMBER"),
        (["--weight", "big=2"], "no network is called 'big'"),
        (["--margin", "2"], "outside [0, 1)"),
    ],
)
def test_a_mistake_is_said_and_leaves_nothing(
    words: list[str],
    message: str,
    space: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    base = [] if "--space" in words else ["--space", str(space)]
    assert main(["explore", "zoo:tiny", *base, *words, "-o", "out", "--jobs", "0"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_ctrl_c_says_what_is_kept(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilewright import explore_evaluate

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(explore_evaluate, "_estimated", interrupted)
    assert main(["explore", "--space", str(space), "--jobs", "0", "-o", str(tmp_path / "s")]) == 130
    assert "with --resume goes on" in capsys.readouterr().err


def test_a_terminal_sees_live_progress(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Designs a second, hypervolume and the best so far; on standard error."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    assert (
        main(
            [
                "explore",
                "--space",
                str(space),
                "--jobs",
                "0",
                "--levels",
                "estimate",
                "-o",
                str(tmp_path / "s"),
            ]
        )
        == 0
    )
    err = capsys.readouterr().err
    assert "hv " in err
    assert "best: latency" in err
