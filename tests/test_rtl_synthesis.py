"""Synthesis counts: how a design is cut into parts, and a core that the model's fit has never seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from tilewright.hwsim.fabric import logic
from tilewright.hwsim.resources import resources_of
from tilewright.ir.arch import Arch
from tilewright.ir.errors import RtlError
from tilewright.rtl.synthesis import Synthesis, parts, synthesise, synthesise_part
from tilewright.rtl.verilog import verilog

pytest.importorskip("pyosys", reason="pyosys counts what a part takes")

TINY = Arch.preset("b512-nodw").override(
    {
        **{"name": "tiny", "conv.pixels": 1, "conv.ic": 4, "conv.oc": 6, "conv.drain": 1, "vec.pixels": 1},
        **{"vec.sums": 32, "maps.kib": 16, "maps.groups": 2, "weights.kib": 12, "weights.tables": 2},
        **{"weights.vector_kib": 2, "dma.bits": 32, "dma.ports": 1, "dma.burst": 16, "dma.outstanding": 2},
        **{"queues.depth": 8, "queues.prefetch": 16, "rounding": ("shift",)},
    }
)
SOURCE = """
module top(clk, q);
  input clk;
  output q;
  pair \\first (.clk(clk), .q(q));
  pair second (.clk(clk));
  glue third (.clk(clk));
endmodule
module glue(clk);
  input clk;
  memory_4x4 ram (.clk(clk));
endmodule
module pair(clk, q);
  input clk;
  output q;
  memory_4x4 one (.clk(clk));
  memory_4x4 two (.clk(clk));
endmodule
module memory_4x4(clk);
  input clk;
  reg [3:0] kept;
endmodule
"""


def test_a_design_is_cut_at_what_occurs_many_times() -> None:
    """Five memories in three places: one part of its own, of which the rest sees the ports."""
    top, memory = parts(SOURCE, top="top")
    assert (top.top, top.times, memory.top, memory.times, memory.owner) == ("top", 1, "memory_4x4", 5, "top")
    assert "module pair" in top.text
    assert "module glue" in top.text
    assert "(* blackbox *)\nmodule memory_4x4(clk);\n  input clk;\nendmodule" in top.text
    assert "kept" not in top.text
    assert "kept" in memory.text


def test_cells_become_resources() -> None:
    """A half block RAM, a LUT used as memory, and cells that are none of these."""
    one = Synthesis.of_cells(
        {"LUT6": 3, "LUT2": 1, "RAM32M16": 2, "FDRE": 7, "RAMB18E2": 3, "DSP48E2": 4, "CARRY4": 9}
    )
    assert (one.dsp, one.bram36, one.uram, one.lut, one.ff) == (4, 1.5, 0, 4 + 16, 7)


def test_a_part_is_synthesised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time its counts come from the cache, by its text."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = "module top(input clk, input [7:0] a, output reg [15:0] q);\nalways @(posedge clk) q <= a * a;\nendmodule\n"
    (part,) = parts(source, top="top")
    first = synthesise_part(part, "7series")
    assert first.dsp == 1
    (kept,) = (tmp_path / "tilewright" / "synthesis").iterdir()
    kept.write_text('{"DSP48E1": 12}', encoding="utf-8")
    assert synthesise_part(part, "7series").dsp == 12


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(RtlError, match=r"no family 'spartan'; Yosys is asked for 7series, ultrascale\+"):
        synthesise("", "spartan")


def _said(family: str, uram: int) -> dict[str, float]:
    return {use.resource: use.used for use in resources_of(TINY, family, uram)}


def test_blocks_of_a_core_that_no_fit_has_seen_are_the_models() -> None:
    """7-series: DSP and block RAM of the flattened core, to the last one."""
    found, said = synthesise(verilog(TINY, mac="dsp48e1"), "7series", logic=False), _said("7series", 0)
    assert (found.dsp, found.bram36, found.uram) == (said["DSP"], said["BRAM36"], said["URAM"])


def test_engines_that_no_fit_has_seen_are_as_the_model_says() -> None:
    """UltraScale+: DSP and UltraRAM to the last one; LUT and FF of CONV, VEC and map memory within 10 %.

    A whole core takes minutes: tests/synthesis.py.
    """
    engines, text = ("conv_dsp48e2", "vec_engine", "map_memory"), verilog(TINY, mac="dsp48e2", uram=8)
    chosen = [p for p in parts(text) if p.owner in engines or p.top.startswith("memory_")]
    found = {p: synthesise_part(p, "ultrascale+") for p in chosen}
    terms, said = logic(TINY, "ultrascale+"), _said("ultrascale+", 8)
    of_load_and_save = 4 + 4
    assert sum(p.times * one.dsp for p, one in found.items()) == said["DSP"] - of_load_and_save
    assert sum(p.times * one.uram for p, one in found.items()) == said["URAM"] > 0
    for k, field in enumerate(("lut", "ff")):
        counted = sum(p.times * getattr(one, field) for p, one in found.items())
        model = sum(terms[part][k] for part in ("conv", "array", "vec", "maps", "wide memories"))
        assert model == pytest.approx(counted, rel=0.1)
