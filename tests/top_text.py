"""The head of a design's Verilog, from the signature of its top: ports without the minutes that the whole text takes."""

from __future__ import annotations

import warnings

from amaranth.hdl import Shape
from amaranth.lib.wiring import In
from tilewright.ir.arch import Arch
from tilewright.rtl.core import DpuTop

__all__ = ["top_text"]


def top_text(arch: Arch) -> str:
    """``module dpu_top`` with its ports, empty; `test_cli_build` holds it against the real text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a component that is only looked at
        top = DpuTop(arch)
        top._MustUse__used = True
        ports = {
            n: ("input" if m.flow == In else "output", Shape.cast(m.shape).width)
            for n, m in top.signature.members.items()
        }
    ports = {"clk": ("input", 1), "rst": ("input", 1), **ports}
    lines = [f"module dpu_top({', '.join(ports)});"]
    lines += [f"  {d} {f'[{w - 1}:0] ' if w > 1 else ''}{n};" for n, (d, w) in ports.items()]
    return "\n".join([*lines, "endmodule", ""])
