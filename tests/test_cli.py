"""The command line: answers, exit codes, what is left on disk."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tilewright import cli
from tilewright.cli import main

VERBS = (
    "demo",
    "check",
    "quantize",
    "compile",
    "simulate",
    "run",
    "report",
    "explain",
    "verify",
    "rtl",
    "build",
    "doctor",
    "arch",
    "board",
)
SUMMARY_KEYS = {
    "schema",
    "model",
    "arch",
    "board",
    "clock_mhz",
    "claim",
    "cycles",
    "latency_ms",
    "fps",
    "utilization",
    "dram_bytes",
    "energy_mj",
    "bound_cycles",
    "exact",
    "host_segments",
    "files",
}
TINY = ("zoo:tiny", "--synthetic-calibration", "--arch", "b512")
PLAIN = ("--no-twin", "--no-figures")
"""Quicker."""


def _answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The one JSON object a verb prints."""
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    captured = capsys.readouterr()
    assert captured.err == ""
    found = json.loads(captured.out)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `compile` wrote, with values compared."""
    folder = tmp_path_factory.mktemp("cli") / "tiny"
    assert main(["compile", *TINY, "--verify", "-q", "-o", str(folder)]) == 0
    return folder


# -- help, words, exit codes -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"tilewright {verb}" in text
    assert "Examples" in text or verb == "doctor"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["compil"], 'Did you mean "compile"?'),
        (["arch", "lst"], 'Did you mean "list"?'),
        (["compile", "x.onnx", "--bord", "kv260"], "Did you mean --board?"),
        (["arch", "show", "b1025"], "did you mean b1024?"),
        (["board", "show", "kv26"], "did you mean kv260?"),
        (["compile", "zoo:mobilenet_v3", *TINY[1:]], "mobilenet_v3"),
        (["compile", *TINY, "--set", "conv.pixel=4"], "did you mean conv.pixels?"),
        (["compile", *TINY, "--dram", "banked:DDR4-2400"], "did you mean"),
        (["compile", *TINY, "--objective", "speed"], '"latency", "energy", "edp"'),
        (["compile"], "--help` shows what it takes"),
    ],
)
def test_a_mistyped_word_gets_a_suggestion(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One paragraph on standard error, nothing on standard output, exit code 2."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert hint in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compile", "missing.onnx"], "missing.onnx"),
        (["compile", "zoo:tiny"], "calibration"),
        (["compile", *TINY, "--calibration", "photos"], "both"),
        (["compile", *TINY, "--input-shape", "1x3xHxW"], "not a shape"),
        (["compile", *TINY, "--set", "conv.pixels"], "want FIELD=VALUE"),
        (["compile", *TINY, "--set", "maps.kib=0"], "maps.kib"),
        (["compile", *TINY, "--dram", "fixed:0"], "fixed:BYTES_PER_CYCLE"),
        (["compile", *TINY, "--cores", "9"], "cores"),
        (["compile", *TINY, "--cores", "2", "--set", "cores=3"], "leave one of them out"),
        (["compile", *TINY, "--cores", "2", "--frames", "65"], "frames is 65: want 1..64"),
        (["simulate", "."], "not a compiled network"),
        (["run", *TINY, "--input", "missing.npy"], "missing.npy"),
        (
            ["quantize", "zoo:tiny", "--synthetic-calibration", "-o", "no/such/folder/x.npz"],
            "cannot be written",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_paragraph(
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 2, no traceback, and nothing half-written."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tilewright: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_bug_of_ours_is_short_and_leaves_its_traceback_in_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 70."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "app", lambda *a, **k: 1 // 0)
    assert main(["demo"]) == 70
    text = capsys.readouterr().err
    assert "ZeroDivisionError" in text
    assert "Traceback" not in text
    (file,) = tmp_path.iterdir()
    assert str(file) in text
    assert "Traceback" in file.read_text()
    assert main(["demo", "--traceback"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    """Wherever the work is when the signal comes."""
    out = tmp_path / "out"
    words = [
        sys.executable,
        "-m",
        "tilewright",
        "compile",
        "zoo:resnet50",
        "--synthetic-calibration",
        "-o",
        str(out),
    ]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    time.sleep(2)
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    assert "nothing half-written" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert list(tmp_path.iterdir()) == []


# -- looking around ----------------------------------------------------------------------------------------------------
def test_arch_list_and_show_speak_json_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    archs = {a["name"]: a for a in _answer(capsys, "arch", "list")["archs"]}
    assert archs["b4096"]["macs_per_cycle"] == 2048
    assert archs["b4096-nodw"]["depthwise_macs_per_cycle"] == 0
    shown = _answer(capsys, "arch", "show", "b1024", "--set", "dwc.taps=1")
    assert (shown["dwc"]["taps"], shown["name"]) == (1, "b1024+")
    assert _answer(capsys, "arch", "schema")["type"] == "object"


def test_the_text_of_arch_show_is_a_file_that_compile_takes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["arch", "show", "b512"]) == 0
    file = tmp_path / "mine.toml"
    file.write_text(capsys.readouterr().out)
    assert _answer(capsys, "arch", "show", str(file)) == _answer(capsys, "arch", "show", "b512")


def test_boards_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    names = [b["name"] for b in _answer(capsys, "board", "list")["boards"]]
    assert {"pynq-z2", "arty-a7-100", "ultra96v2", "zcu104", "zcu102", "kv260"} <= set(names)
    assert _answer(capsys, "board", "show", "kv260")["name"] == "kv260"


def test_doctor_finds_what_the_tests_run_on(capsys: pytest.CaptureFixture[str]) -> None:
    found = _answer(capsys, "doctor")
    assert found["ok"] is True
    assert {"python", "numpy", "onnxruntime", "verilator", "kernel cache"} <= {
        c["name"] for c in found["checks"]
    }


# -- the main job ------------------------------------------------------------------------------------------------------
def test_check_names_every_node(capsys: pytest.CaptureFixture[str]) -> None:
    found = _answer(capsys, "check", "zoo:tiny")
    assert found["nodes"]
    for node in found["nodes"]:
        assert {"name", "op", "where", "reason", "help"} <= node.keys()
        assert node["where"] in {"dpu", "host", "unsupported"}


def test_compile_writes_a_whole_folder(compiled: Path) -> None:
    names = {p.name for p in compiled.iterdir()}
    assert {
        "compiled.json",
        "arch.toml",
        "model.npz",
        "net.tw",
        "tiling.txt",
        "summary.json",
        "layers.csv",
    } <= names
    assert {"trace.json", "report.html"} <= names
    assert [p for p in compiled.parent.iterdir() if p != compiled] == []


def test_the_summary_is_the_contract(compiled: Path) -> None:
    """The keys scripts rely on, and the order of claims."""
    found = json.loads((compiled / "summary.json").read_text())
    assert found.keys() >= SUMMARY_KEYS
    assert {"name", "macs", "parameters"} <= found["model"].keys()
    assert {"name", "macs_per_cycle"} <= found["arch"].keys()
    assert {"total", "ifmap", "weights", "ofmap", "instructions", "compulsory"} <= found["dram_bytes"].keys()
    assert found["claim"] == "simulated"
    assert found["bound_cycles"] <= found["estimate_cycles"] <= found["cycles"]
    assert found["energy_mj"]["total"] == pytest.approx(
        sum(v for k, v in found["energy_mj"].items() if k != "total")
    )
    assert found["exact"]["bytes_compared"] > 0
    assert found["exact"]["bytes_differing"] == 0
    for name in found["files"]:
        assert (compiled / name).is_file()


def test_json_on_the_screen_is_the_summary_on_disk(
    capsys: pytest.CaptureFixture[str], compiled: Path, tmp_path: Path
) -> None:
    """And another memory changes cycles, not bytes."""
    before = json.loads((compiled / "summary.json").read_text())
    after = _answer(
        capsys, "simulate", str(compiled), "--dram", "fixed:1,200", *PLAIN, "-o", str(tmp_path / "slow")
    )
    assert after == json.loads((tmp_path / "slow" / "summary.json").read_text())
    assert after["cycles"] > before["cycles"]
    assert after["dram_bytes"] == before["dram_bytes"]
    assert after["exact"] is None


def test_another_machine_schedules_the_same_network_anew(
    capsys: pytest.CaptureFixture[str], compiled: Path, tmp_path: Path
) -> None:
    found = _answer(
        capsys,
        "simulate",
        str(compiled),
        "--arch",
        "b1024-nodw",
        "--verify",
        "--no-figures",
        "-o",
        str(tmp_path / "other"),
    )
    assert found["arch"]["name"] == "b1024-nodw"
    assert found["exact"]["bytes_differing"] == 0


def test_a_folder_that_is_not_ours_is_left_alone(
    capsys: pytest.CaptureFixture[str], compiled: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["simulate", str(compiled), *PLAIN, "-o", str(tmp_path)]) == 2
    assert "not ours" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_report_writes_the_folder_again_with_the_same_bytes(compiled: Path, tmp_path: Path) -> None:
    """Same input, same bytes: in `model.npz`, program and page alike."""
    assert main(["report", str(compiled), "--verify", "-q", "-o", str(tmp_path / "again")]) == 0
    for path in sorted((tmp_path / "again").iterdir()):
        assert path.read_bytes() == (compiled / path.name).read_bytes(), path.name


def test_an_edited_tiling_is_lowered_again(
    capsys: pytest.CaptureFixture[str], compiled: Path, tmp_path: Path
) -> None:
    """And one that makes no sense is refused with its line."""
    import shutil

    folder = tmp_path / "edited"
    shutil.copytree(compiled, folder)
    text = (folder / "tiling.txt").read_text()
    (folder / "tiling.txt").write_text("# a remark\n" + text)
    assert main(["simulate", str(folder), *PLAIN, "--verify", "-q"]) == 0
    (folder / "tiling.txt").write_text(text.replace("group", "gruop", 1))
    assert main(["simulate", str(folder), "-q"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_quantize_once_compile_often(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "tiny.npz"
    found = _answer(capsys, "quantize", "zoo:tiny", "--synthetic-calibration", "-o", str(file))
    assert found["calibration"] == "synthetic"
    assert found["sqnr_db"]
    again = _answer(capsys, "compile", str(file), "--arch", "b512", *PLAIN, "-o", str(tmp_path / "out"))
    assert again["model"]["macs"] == found["model"]["macs"]


def test_run_compares_with_the_reference_and_with_onnxruntime(
    capsys: pytest.CaptureFixture[str], compiled: Path, tmp_path: Path
) -> None:
    frame, out = tmp_path / "x.npy", tmp_path / "y.npz"
    np.save(frame, np.random.default_rng(3).standard_normal((1, 3, 32, 32)).astype(np.float32))
    found = _answer(capsys, "run", str(compiled), "--input", str(frame), "--compare", "-o", str(out))
    assert found["exact"]["bytes_compared"] > 0
    assert found["exact"]["bytes_differing"] == 0
    assert all(j["sqnr_db"] > 0 for j in found["onnxruntime"].values())
    with np.load(out) as outputs:
        assert {n: list(outputs[n].shape) for n in outputs.files} == {
            n: v["shape"] for n, v in found["outputs"].items()
        }


def test_run_refuses_an_input_of_another_shape(
    capsys: pytest.CaptureFixture[str], compiled: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    assert main(["run", str(compiled), "--input", str(tmp_path / "x.npy")]) == 2
    assert "[1, 3, 16, 16]" in capsys.readouterr().err


def test_a_damaged_folder_is_refused_file_by_file(
    capsys: pytest.CaptureFixture[str], compiled: Path, tmp_path: Path
) -> None:
    """Each file cut in half is named."""
    import shutil

    for name in ("compiled.json", "arch.toml", "model.npz", "net.tw"):
        folder = tmp_path / name
        shutil.copytree(compiled, folder)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        assert main(["run", str(folder)]) == 2, name
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1, captured.err


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str], compiled: Path, tmp_path: Path) -> None:
    assert main(["simulate", str(compiled), *PLAIN, "-q", "-o", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_progress_shows_on_a_terminal_and_nowhere_else(compiled: Path, tmp_path: Path) -> None:
    """Standard error as a pipe stays empty; as a terminal it names the stages."""
    words = [
        sys.executable,
        "-m",
        "tilewright",
        "simulate",
        str(compiled),
        "--no-twin",
        "-o",
        str(tmp_path / "out"),
    ]
    piped = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert piped.stderr == ""
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=follower, cwd=tmp_path, env={**os.environ, "TERM": "xterm"}
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert child.wait() == 0
    assert b"simulate on b512" in shown


# -- several cores -----------------------------------------------------------------------------------------------------
def test_cores_share_a_memory(compiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Simulated again without scheduling; the folder is then one of that many cores, and its programs run on it."""
    folder = tmp_path / "two"
    told = ["--cores", "2", "--frames", "2", "--stagger", "--dram", "fixed:4,40"]
    summary = _answer(capsys, "simulate", str(compiled), *told, *PLAIN, "-o", str(folder))
    cores = summary["cores"]
    assert (cores["cores"], cores["frames"], cores["claim"]) == (2, 2, "simulated")
    assert cores["starts"] == [0, summary["cycles"] // 2]
    assert cores["alone_cycles"] == summary["cycles"] < cores["frame_cycles"]
    assert summary["fps"] < cores["fps"] < 2 * summary["fps"]
    assert "2 cores, one DRAM" in (folder / "report.html").read_text(encoding="utf-8")
    assert main(["report", str(folder), *PLAIN]) == 0
    shown = capsys.readouterr().out
    assert "2 cores, 1 DRAM" in shown
    assert "3 frames each, back to back, started in one cycle" in shown
    assert (folder / "net.tw").read_bytes() != (compiled / "net.tw").read_bytes()
    assert (folder / "tiling.txt").read_text().split("\n")[1:] == (compiled / "tiling.txt").read_text().split(
        "\n"
    )[1:]
    assert main(["run", str(folder), "-q"]) == 0
