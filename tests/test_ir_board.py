"""Boards: data with sources, files beside them, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomlkit
from tilewright.hwsim.resources import fits
from tilewright.ir.arch import Arch
from tilewright.ir.board import Board, board_names
from tilewright.ir.errors import ArchError

ROW = Board.named("kv260").model_dump(exclude={"name", "core"})


def _toml(**changes: object) -> str:
    row = {**ROW, **changes}
    return tomlkit.dumps({"mine": {k: v for k, v in row.items() if v is not None}})


def test_the_six_boards_are_there_with_sources() -> None:
    """Every row says where its numbers are printed, and Zynq boards have four ports."""
    assert board_names() == ("pynq-z2", "arty-a7-100", "ultra96v2", "zcu104", "zcu102", "kv260")
    for name in board_names():
        board = Board.named(name)
        assert "DS" in board.source
        assert "UG" in board.source
        assert board.clock_mhz < board.clock_max_mhz
        assert board.ports == (1 if name == "arty-a7-100" else 4)
        assert board.name in str(board)


def test_every_board_says_what_stands_around_the_core() -> None:
    """A port to the DRAM for each that the DPU may use, addresses that do not overlap, pins where no processor has them."""
    for name in board_names():
        board = Board.named(name)
        system = board.system
        assert system is not None
        assert len(system.memory) == board.ports
        assert not set(system.memory) & {system.fetch}
        assert system.source
        assert system.board_part
        end = system.dram + (system.dram_mb << 20)
        low = min(end, 1 << 31) if system.processor != "none" else end  # a processor has the rest above 4 GB
        assert not system.dram <= system.registers < low if system.dram else system.registers >= 1 << 30
        assert (
            bool(system.pins)
            == (system.processor == "none")
            == (system.clock_mhz > 0)
            == (not system.control)
        )


def test_an_unknown_name_gets_a_suggestion() -> None:
    """The nearest name, the list, and the way out."""
    with pytest.raises(
        ArchError, match=r"no board 'zcu-104': did you mean zcu104\? boards are pynq-z2, .*TOML"
    ):
        Board.named("zcu-104")
    with pytest.raises(ArchError, match="no board 'x'"):
        Board.load("x")


def test_a_toml_file_adds_a_board(tmp_path: Path) -> None:
    """A file with one table is a board of that name; a name still is a name."""
    path = tmp_path / "mine.toml"
    path.write_text(_toml(dsp=999), encoding="utf-8")
    board = Board.load(path)
    assert board == Board.named("kv260").model_copy(
        update={"name": "mine", "dsp": 999, "core": {"base": "b1024"}}
    )
    assert board.default_arch == Arch.preset("b1024")
    assert Board.load("kv260") is Board.named("kv260")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (_toml(dsp=None, lut=0), r"board mine: lut: .*got 0.*dsp: Field required \(got nothing\)"),
        (_toml(family="spartan"), "family: .*'7series' or 'ultrascale\\+' \\(got 'spartan'\\)"),
        (_toml(colour="red"), "colour: Extra inputs"),
        ("x = 1", "x stands outside a table"),
        ("[a", "not TOML"),
        (_toml() + _toml().replace("mine", "other"), "has 2 board tables, want 1"),
    ],
)
def test_a_broken_board_file_is_refused(tmp_path: Path, text: str, match: str) -> None:
    """All errors of a row at once, with file and board."""
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ArchError, match=match):
        Board.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The path stands in the message."""
    with pytest.raises(ArchError, match=r"gone\.toml: cannot be read as a board file"):
        Board.load(tmp_path / "gone.toml")


@pytest.mark.parametrize("name", board_names())
def test_the_core_of_a_board_fits_it(name: str) -> None:
    """What is built where no machine is named: it has a depthwise engine, and every resource is there."""
    board = Board.named(name)
    assert board.default_arch.has_dwc
    assert fits(board.default_arch, board) == ()


def test_a_core_that_is_no_machine_names_the_board() -> None:
    board = Board.named("kv260").model_copy(update={"core": {"base": "b2304", "conv": {"pixels": 0}}})
    with pytest.raises(ArchError, match=r"board kv260, core: conv\.pixels"):
        _ = board.default_arch
