"""The core as an IP-XACT component (IEEE 1685-2009, with the extensions that Vivado's IP catalogue reads)."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, register_namespace, tostring

from ..ir.arch import Arch
from .register_map import REGISTERS, Access
from .top_ports import Port, TopPorts
from .wiring import register_bytes

__all__ = ["SPIRIT", "XILINX", "component"]

SPIRIT = "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"
XILINX = "http://www.xilinx.com"
_FAMILIES = ("artix7", "kintex7", "virtex7", "spartan7", "zynq", "zynquplus", "kintexuplus", "virtexuplus")
_VIEWS = (
    ("xilinx_anylanguagesynthesis", ":vivado.xilinx.com:synthesis"),
    ("xilinx_anylanguagebehavioralsimulation", ":vivado.xilinx.com:simulation"),
)
_ACCESS = {
    Access.READ: "read-only",
    Access.WRITE: "read-write",
    Access.PULSE: "write-only",
    Access.CLEAR: "read-write",
}


def component(arch: Arch, ports: TopPorts, *, file: str = "dpu_top.v") -> str:
    """``component.xml`` for the top module with these ports, whose source is `file` beside it."""
    for prefix, uri in (("spirit", SPIRIT), ("xilinx", XILINX)):
        register_namespace(prefix, uri)
    root = _element(None, "component")
    for tag, text in (("vendor", "tilewright"), ("library", "dpu"), ("name", "dpu_top"), ("version", "1.0")):
        _element(root, tag, text)
    _bus_interfaces(_element(root, "busInterfaces"), arch, ports)
    spaces = _element(root, "addressSpaces")
    for master in (*ports.memory, *ports.fetch):
        space = _element(spaces, "addressSpace")
        _element(space, "name", master)
        _element(space, "range", str(1 << ports[f"{master}_araddr"].width), format="long")
        _element(space, "width", str(arch.dma.bits), format="long")
    _memory_map(_element(_element(root, "memoryMaps"), "memoryMap"), ports)
    _model(_element(root, "model"), ports)
    sets = _element(root, "fileSets")
    for view, _ in _VIEWS:
        file_set = _element(sets, "fileSet")
        _element(file_set, "name", f"{view}_files")
        entry = _element(file_set, "file")
        _element(entry, "name", file)
        _element(entry, "fileType", "verilogSource")
    _element(root, "description", f"Tilewright DPU {arch.name}, design {arch.design_hash}: {arch}")
    parameters = _element(root, "parameters")
    name = _element(parameters, "parameter")
    _element(name, "name", "Component_Name")
    _element(name, "value", "dpu_top_v1_0", resolve="user", id="PARAM_VALUE.Component_Name", order="1")
    _extensions(_element(root, "vendorExtensions"), arch)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _element(
    parent: Element | None, tag: str, text: str = "", space: str = SPIRIT, **attributes: str
) -> Element:
    """An element of the namespace, with attributes of the namespace."""
    named = {f"{{{space}}}{k}": v for k, v in attributes.items()}
    element = (
        Element(f"{{{space}}}{tag}", named)
        if parent is None
        else SubElement(parent, f"{{{space}}}{tag}", named)
    )
    element.text = text or None
    return element


def _interface(
    parent: Element, name: str, library: str, kind: str, mode: str, signals: dict[str, str], **parameters: str
) -> Element:
    """A bus interface; `signals` maps the bus's names to ports. The mode's element is given back."""
    bus = _element(parent, "busInterface")
    _element(bus, "name", name)
    vlnv = {"vendor": "xilinx.com", "library": library, "version": "1.0"}
    _element(bus, "busType", **vlnv, name=kind)
    _element(bus, "abstractionType", **vlnv, name=f"{kind}_rtl")
    chosen = _element(bus, mode)
    maps = _element(bus, "portMaps")
    for logical, physical in signals.items():
        pair = _element(maps, "portMap")
        _element(_element(pair, "logicalPort"), "name", logical)
        _element(_element(pair, "physicalPort"), "name", physical)
    if parameters:
        listed = _element(bus, "parameters")
        for key, value in parameters.items():
            parameter = _element(listed, "parameter")
            _element(parameter, "name", key)
            _element(parameter, "value", value, id=f"BUSIFPARAM_VALUE.{name.upper()}.{key}")
    return chosen


def _bus_interfaces(parent: Element, arch: Arch, ports: TopPorts) -> None:
    def axi(prefix: str) -> dict[str, str]:
        return {signal.upper(): port.name for signal, port in ports.of(prefix).items()}

    slave = _interface(
        parent, ports.control, "interface", "aximm", "slave", axi(ports.control), PROTOCOL="AXI4LITE"
    )
    _element(slave, "memoryMapRef", memoryMapRef=ports.control)
    for name in (*ports.memory, *ports.fetch):
        reads_only = name in ports.fetch
        master = _interface(
            parent,
            name,
            "interface",
            "aximm",
            "master",
            axi(name),
            PROTOCOL="AXI4",
            READ_WRITE_MODE="READ_ONLY" if reads_only else "READ_WRITE",
            SUPPORTS_NARROW_BURST="0",
            MAX_BURST_LENGTH=str(arch.dma.burst),
            NUM_READ_OUTSTANDING=str(arch.dma.outstanding),
            NUM_WRITE_OUTSTANDING="0" if reads_only else str(arch.dma.outstanding),
        )
        _element(master, "addressSpaceRef", addressSpaceRef=name)
    buses = ":".join((ports.control, *ports.memory, *ports.fetch))
    _interface(
        parent,
        "clk",
        "signal",
        "clock",
        "slave",
        {"CLK": "clk"},
        ASSOCIATED_BUSIF=buses,
        ASSOCIATED_RESET="rst",
    )
    _interface(parent, "rst", "signal", "reset", "slave", {"RST": "rst"}, POLARITY="ACTIVE_HIGH")
    _interface(
        parent,
        "irq",
        "signal",
        "interrupt",
        "master",
        {"INTERRUPT": "irq"},
        SENSITIVITY="LEVEL_HIGH",
        PortWidth=str(ports.cores),
    )


def _memory_map(parent: Element, ports: TopPorts) -> None:
    _element(parent, "name", ports.control)
    block = _element(parent, "addressBlock")
    _element(block, "name", "registers")
    _element(block, "baseAddress", "0", format="long")
    _element(block, "range", str(register_bytes(ports.cores)), format="long")
    _element(block, "width", "32", format="long")
    _element(block, "usage", "register")
    for r in REGISTERS:
        register = _element(block, "register")
        _element(register, "name", r.name)
        _element(register, "description", r.meaning)
        _element(register, "addressOffset", f"0x{r.offset:X}")
        _element(register, "size", "32", format="long")
        _element(register, "access", _ACCESS[r.access])
        _element(_element(register, "reset"), "value", f"0x{r.reset:X}", format="long")
        for f in r.fields:
            bits = _element(register, "field")
            _element(bits, "name", f.name)
            _element(bits, "description", f.meaning)
            _element(bits, "bitOffset", str(f.low))
            _element(bits, "bitWidth", str(f.width), format="long")


def _model(parent: Element, ports: TopPorts) -> None:
    views = _element(parent, "views")
    for view, tool in _VIEWS:
        entry = _element(views, "view")
        _element(entry, "name", view)
        _element(entry, "envIdentifier", tool)
        _element(entry, "language", "verilog")
        _element(entry, "modelName", "dpu_top")
        _element(_element(entry, "fileSetRef"), "localName", f"{view}_files")
    listed = _element(parent, "ports")
    for port in ports.ports:
        _port(_element(listed, "port"), port)


def _port(parent: Element, port: Port) -> None:
    _element(parent, "name", port.name)
    wire = _element(parent, "wire")
    _element(wire, "direction", "in" if port.direction == "input" else "out")
    if port.width > 1:
        vector = _element(wire, "vector")
        _element(vector, "left", str(port.width - 1), format="long")
        _element(vector, "right", "0", format="long")
    kind = _element(_element(wire, "wireTypeDefs"), "wireTypeDef")
    _element(kind, "typeName", "wire")
    for view, _ in _VIEWS:
        _element(kind, "viewNameRef", view)


def _extensions(parent: Element, arch: Arch) -> None:
    core = _element(parent, "coreExtensions", space=XILINX)
    families = _element(core, "supportedFamilies", space=XILINX)
    for family in _FAMILIES:
        _element(families, "family", family, space=XILINX, lifeCycle="Production")
    _element(_element(core, "taxonomies", space=XILINX), "taxonomy", "/Tilewright", space=XILINX)
    _element(core, "displayName", f"Tilewright DPU {arch.name}", space=XILINX)
    _element(core, "coreRevision", "1", space=XILINX)
