"""Logic between registers: what the walk counts, and that no path of a core is longer than it was designed to be."""

from __future__ import annotations

import pytest
from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from cores import CORES
from tilewright.rtl import paths
from tilewright.rtl.hierarchy import place
from tilewright.rtl.paths import LONGEST_CARRY, LogicPath, logic_paths

DSP_ADDERS = ("requantise", "paired_dot")
"""Modules with a sum behind a multiplier's registers, in the DSP slice's own adder of 48 bits."""
ADDRESSES = 40
"""Bits of a DRAM address that the burst walker adds up (`rtl/bursts.py`)."""


class _Inner(Component):
    """A sum from its input to its output, and one that ends in a register."""

    def __init__(self) -> None:
        super().__init__({"a": In(8), "late": Out(9), "kept": Out(10)})

    @property
    def module_name(self) -> str:
        return "inner"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = Signal(10, name="inside")
        m.d.comb += [self.late.eq(self.a + 1), self.kept.eq(kept)]
        m.d.sync += kept.eq(self.a + 3)
        return m


class _Outer(Component):
    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__({"x": In(8), "y": In(8), "out": Out(24)})

    @property
    def module_name(self) -> str:
        return "outer"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p, q = Signal(8, name="p"), Signal(8, name="q")
        result = Signal(24, name="result")
        m.d.sync += [p.eq(self.x), q.eq(self.y)]
        m.d.comb += self.out.eq(result)
        match self.kind:
            case "product":
                m.d.sync += result.eq(p * q)
            case "product and sum":
                m.d.sync += result.eq(p * q + result)
            case "two sums":
                m.d.sync += result.eq((p + q)[:8] + p)
            case "sign":
                m.d.sync += result.eq(Mux(p.as_signed() < 0, q, 0))
            case "comparison":
                m.d.sync += result.eq(Mux(p < q, q, 0))
            case "small factor":
                m.d.sync += result.eq(p * q[:3])
            case "memory":
                m.submodules.ram = ram = Memory(shape=8, depth=16, init=[])
                read = ram.read_port(domain="comb")
                m.d.comb += read.addr.eq((p + q)[:4])
                m.d.sync += result.eq(read.data)
            case "inner":
                part = place(m, "part", _Inner())
                m.d.comb += part.a.eq((p + q)[:8])
                m.d.sync += result.eq(part.late + part.kept)
            case "constant":
                m.d.sync += result.eq(Const(3, signed(8)))
        return m


def _worst(kind: str, monkeypatch: pytest.MonkeyPatch, module: str = "outer") -> LogicPath:
    monkeypatch.setattr(paths, "DpuTop", lambda arch, mac, uram: _Outer(kind))
    found = logic_paths(CORES["small"])
    renamed = {"outer": "dpu_top"}.get(module, module)
    return next(p for p in found if p.module == renamed)


@pytest.mark.parametrize(
    ("kind", "multipliers", "carry"),
    [
        ("product", 1, 0), ("product and sum", 1, 23), ("two sums", 0, 8), ("sign", 0, 0), ("comparison", 0, 7),
        ("small factor", 0, 11), ("memory", 0, 3),
    ],
)  # fmt: skip
def test_what_is_on_a_path(kind: str, multipliers: int, carry: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second adder costs a carry more, not its width; a sign costs nothing; a sum waits for the lowest bit."""
    found = _worst(kind, monkeypatch)
    assert (found.multipliers, found.carry) == (multipliers, carry)
    assert found.end == "out"


def test_a_path_goes_through_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a register outside through a sum inside, back out, and through another sum."""
    found = _worst("inner", monkeypatch)
    assert found.start in {"p", "q"}
    assert found.end in {"out", "part.kept"}
    assert found.levels == 3.6  # three adders, and the reset before the register
    assert 16 <= found.carry <= 30
    inner = _worst("inner", monkeypatch, "inner")
    assert (inner.start, inner.end) in {("a", "kept"), ("a", "inside")}


def test_no_path_of_a_core_has_more_than_a_multiplier_or_a_carry_chain() -> None:
    """A multiplier counts as a chain; a second adder behind a chain adds a bit or two."""
    found = logic_paths(CORES["small"])
    assert {"dpu_core", "load_engine", "save_engine", "conv", "dwc_engine", "vec_engine"} <= {
        p.module for p in found
    }
    assert any(p.multipliers for p in found)
    for p in found:
        most = LONGEST_CARRY + 2
        if p.module.startswith(DSP_ADDERS) or p.module == "burst_walker":
            most = ADDRESSES
        assert p.weight <= most, p
        assert p.multipliers <= 1, p
        assert p.levels < 12, p
