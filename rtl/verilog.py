"""Verilog of a whole design: deterministic, readable, one module for each distinct component."""

from __future__ import annotations

import re

from amaranth._toolchain.yosys import find_yosys

from ..ir.arch import Arch
from ..ir.errors import RtlError
from .core import DpuTop
from .hierarchy import modules

__all__ = ["verilog"]

MACS = ("plain", "dsp48e2", "dsp48e1")
_START = re.compile(r"\\\$auto\$verilog_backend\.cc:\d+:dump_module\$\d+ ")
_SCRIPT = """\
read_rtlil <<rtlil
{text}
rtlil
proc -nomux -norom
memory_collect
attrmap -remove generator -remove top -remove src -remove amaranth.hierarchy -remove amaranth.decoding
attrmap -modattr -remove generator -remove top -remove src -remove amaranth.hierarchy -remove amaranth.decoding
write_verilog -norename
"""


def verilog(arch: Arch, *, mac: str = "plain", name: str = "dpu_top") -> str:
    """The design as one text.

    Parameters
    ----------
    mac : str
        How products are built: ``plain`` leaves it to synthesis; ``dsp48e2`` and ``dsp48e1`` put two into a DSP block.
    name : str
        The top module.

    Raises
    ------
    RtlError
        An unknown `mac`, or a machine that no bus can serve.
    """
    if mac not in MACS:
        raise RtlError(f"no MAC style {mac!r}; there are {', '.join(MACS)}", mac=mac)
    with modules() as found:
        found.add(name, DpuTop(arch, mac))
    text = find_yosys(lambda version: version >= (0, 40)).run(
        ["-q", "-"], _SCRIPT.format(text="\n".join(found.text.values())), ignore_warnings=True
    )
    body = text[text.index("module ") :]  # without the tool's own comment
    body = body[body.index("module ") :]
    return _header(arch, mac, len(found.text)) + _START.sub("at_start ", body)


def _header(arch: Arch, mac: str, count: int) -> str:
    from importlib.metadata import version

    lines = (
        f"Tilewright {version('tilewright')}: DPU {arch.name}, design {arch.design_hash}",
        str(arch),
        f"{count} modules; products: {mac}; written with Amaranth {version('amaranth')}.",
        "Registers and bus names: docs/hardware.md. Clock clk, synchronous reset rst, active high.",
    )
    return "".join(f"// {line}\n" for line in lines) + "\n"
