"""A board package: everything that makes a bitstream from the core, and everything that uses it on the board."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version

from ..ir.arch import Arch
from ..ir.board import Board
from .block_design import block_design
from .c_driver import c_driver, python_driver
from .constraints import board_constraints, core_constraints
from .fusesoc import core_file
from .ipxact import component
from .register_page import register_page
from .systemrdl import systemrdl
from .top_ports import top_ports
from .verilog import verilog
from .vivado import build_script, jtag_script
from .wiring import Wiring, wire

__all__ = ["MANIFEST", "SCHEMA", "board_package", "mac_style"]

SCHEMA = "tilewright.board-package/1"
"""Raised whenever a key of the manifest changes its meaning."""
MANIFEST = "manifest.json"


def mac_style(board: Board) -> str:
    """How products are built on the board's FPGA: two in a DSP slice.

    >>> mac_style(Board.named("pynq-z2")), mac_style(Board.named("kv260"))
    ('dsp48e1', 'dsp48e2')
    """
    return "dsp48e1" if board.family == "7series" else "dsp48e2"


def board_package(
    arch: Arch, board: Board, *, mac: str | None = None, text: str | None = None
) -> dict[str, bytes]:
    """Files of the package by their path in it; equal machines and boards give equal bytes.

    Parameters
    ----------
    mac : str, optional
        Default: `mac_style` of the board.
    text : str, optional
        The core's Verilog, where it is there already.

    Raises
    ------
    RtlError
        The board's table says nothing about what stands around the core, or the machine cannot be built.
    """
    style = mac or mac_style(board)
    if board.system is None:
        _refuse_unwired(board)
    source = text if text is not None else verilog(arch, mac=style, uram=board.uram // arch.cores)
    ports = top_ports(source)
    wiring = wire(board, ports)
    files = {
        "README.md": _readme(arch, board, wiring),
        "arch.toml": arch.toml(),
        "ip/dpu_top.v": source,
        "ip/component.xml": component(arch, ports),
        "constraints/board.xdc": board_constraints(board),
        "constraints/dpu_ooc.xdc": core_constraints(arch),
        "vivado/build.tcl": build_script(arch, board),
        "vivado/design.tcl": block_design(arch, board, wiring),
        "registers/dpu.rdl": systemrdl(ports.cores),
        "registers/registers.html": register_page(f"Tilewright DPU {arch.name}", ports.cores),
        "tilewright_dpu.core": core_file(arch, board),
        **{f"c/{name}": content for name, content in c_driver().items()},
    }
    if wiring.system.processor == "none":
        files["vivado/jtag.tcl"] = jtag_script(board)
    else:
        files |= {f"pynq/{name}": content for name, content in python_driver().items()}
    encoded = {name: files[name].encode() for name in sorted(files)}
    manifest = {
        "schema": SCHEMA,
        "tilewright": version("tilewright"),
        "arch": arch.name,
        "design": arch.design_hash,
        "board": board.name,
        "part": board.part,
        "mac": style,
        "clock_mhz": arch.clock_mhz,
        "cores": arch.cores,
        "registers": [f"0x{n:08X}" for n in wiring.registers],
        "memory": {slave: list(masters) for slave, masters in wiring.memory.items()},
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in encoded.items()},
    }
    return {MANIFEST: (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode(), **encoded}


def _refuse_unwired(board: Board) -> None:
    """Refuse a board without a system before the Verilog is written, which takes a while."""
    from .top_ports import TopPorts

    wire(board, TopPorts(()))


def _readme(arch: Arch, board: Board, wiring: Wiring) -> str:
    processor = wiring.system.processor
    base, size = wiring.registers
    table = "\n".join(
        f"| `{slave}` | {', '.join(f'`{m}`' for m in masters)} |" for slave, masters in wiring.memory.items()
    )
    use = (
        "Copy `out/dpu.bit`, `out/dpu.hwh`, `pynq/tilewright_dpu.py` and the compiled `net.tw` to the board:\n\n"
        "```python\nfrom tilewright_dpu import DpuOverlay\n\n"
        'net = DpuOverlay("dpu.bit").load_model("net.tw")\ny = net.run(x)\nprint(net.figures)\n```\n\n'
        "Without Linux: `c/dpu.h`, `c/dpu.c`, and `out/dpu.xsa` for Vitis."
        if processor != "none"
        else "Load `out/dpu.bit`; `vivado/jtag.tcl` reaches registers and DRAM from Vivado's hardware manager. A soft processor\n"
        "added to the design runs `c/dpu.c`."
    )
    return f"""\
# {arch.name} on {board.title or board.name}

{arch}; design `{arch.design_hash}`, {arch.clock_mhz:g} MHz, part `{board.part}`.

## Make the bitstream

    vivado -mode batch -source vivado/build.tcl -tclargs 4

writes `out/dpu.bit`{", `out/dpu.hwh`, `out/dpu.xsa`" if processor != "none" else ""} and reports of timing, resources and power. A design that does not close its timing ends with
an error that says by how much. The project is in `out/project`.

## Compile a network for it

    tilewright compile model.onnx --arch arch.toml --board {board.name} --calibration photos/ -o out-model

## Use it

{use}

## What is wired to what

Registers: 0x{base:08X}, {size} bytes{f", {wiring.cores} cores of 4096 each" if wiring.cores > 1 else ""}; `registers/registers.html`, `registers/dpu.rdl`.

| port of the board | of the core |
| --- | --- |
{table}
"""
