"""``tilewright build``: a whole package from the real Verilog, and Vivado started on it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tilewright.rtl.board_package
from test_rtl_driver import SMALL
from tilewright.cli import main
from tilewright.rtl.top_ports import top_ports
from tilewright.rtl.verilog import verilog
from top_text import top_text


@pytest.fixture(scope="module")
def source() -> str:
    return verilog(SMALL, mac="dsp48e2")


@pytest.fixture
def build(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """The verb for the small machine, whose Verilog is made once; code, answer, what it says on standard error."""

    def known(arch: Any, *, mac: str, **_: Any) -> str:
        assert (arch, mac) == (SMALL, "dsp48e2")
        return source

    monkeypatch.setattr(tilewright.rtl.board_package, "verilog", known)
    (tmp_path / "small.toml").write_text(SMALL.toml())

    def run(*words: str, board: str = "kv260") -> tuple[int, Any, str]:
        where = ("--arch", str(tmp_path / "small.toml"), "--board", board, "-o", str(tmp_path / "p"))
        code = main(["build", *where, *words, "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if captured.out else None, captured.err

    return run


def _vivado(folder: Path, body: str) -> None:
    """A program of that name at the front of PATH."""
    folder.mkdir()
    script = folder / "vivado"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)


def test_a_package_is_written_whole(build: Callable[..., Any], source: str, tmp_path: Path) -> None:
    """All files, the design's hash in them; ports of the real Verilog are those that the other tests assume."""
    code, told, err = build()
    assert (code, err) == (0, "")
    folder = tmp_path / "p"
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == told["files"]
    assert (folder / "ip" / "dpu_top.v").read_text() == source
    assert told["manifest"]["design"] == SMALL.design_hash
    key = lambda p: p.name  # noqa: E731
    assert sorted(top_ports(source).ports, key=key) == sorted(top_ports(top_text(SMALL)).ports, key=key)
    assert build()[0] == 0  # again: nothing changes


def test_a_folder_with_something_else_or_a_bitstream_is_left_alone(
    build: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    assert build()[0] == 2
    (folder / "thesis.tex").unlink()
    assert build()[0] == 0
    (folder / "out").mkdir()
    (folder / "out" / "dpu.bit").write_bytes(b"bits")
    code, told, _ = build()  # the same package: it stays
    assert code == 0
    assert told["made"] == [str(folder / "out" / "dpu.bit")]
    code, _, err = build(board="zcu104")
    assert code == 2
    assert "belongs to another package" in err
    assert (folder / "out" / "dpu.bit").read_bytes() == b"bits"


def test_a_machine_that_does_not_fit_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "--board", "pynq-z2", "--arch", "b4096", "-o", str(tmp_path / "p")]) == 2
    assert "DSP, pynq-z2 has 220" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_vivado_is_run_where_it_is_there(
    build: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the script; its results are told; its first error is the message."""
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    code, _, err = build("--run")
    assert code == 2
    assert "vivado is not on PATH" in err
    assert not (tmp_path / "p").exists()

    path = os.defpath
    _vivado(tmp_path / "good", 'echo "$@" > arguments; touch dpu.bit dpu.hwh dpu.xsa')
    monkeypatch.setenv("PATH", f"{tmp_path / 'good'}:{path}")
    code, told, _ = build("--run", "--jobs", "7")
    assert code == 0
    assert [Path(m).name for m in told["made"]] == ["dpu.bit", "dpu.hwh", "dpu.xsa"]
    words = (tmp_path / "p" / "out" / "arguments").read_text().split()
    script = tmp_path / "p" / "out" / words[words.index("-source") + 1]
    assert script.resolve() == (tmp_path / "p" / "vivado" / "build.tcl").resolve()
    assert words[-2:] == ["-tclargs", "7"]

    _vivado(tmp_path / "bad", 'echo "ERROR: [Place 30] no room"; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bad'}:{path}")
    code, _, err = build("--run")
    assert code == 2
    assert "vivado ended with code 1: ERROR: [Place 30] no room" in err


@pytest.mark.parametrize("words", [("--board", "nothing"), ("--arch", "b9"), ("--mac", "dsp99")])
def test_wrong_words_are_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *words]) == 2
    assert capsys.readouterr().err.startswith("tilewright: ")
