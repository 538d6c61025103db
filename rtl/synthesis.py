"""What Yosys makes of the Verilog: DSP, block RAM, UltraRAM, LUT and FF for a Xilinx family.

Counts of DSP, BRAM and URAM are what a part needs. LUT and FF are upper bounds on UltraScale+: this Yosys packs no
registers into the DSP48E2 and no multiplexers beside carry chains, which the vendor's tool does.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ir.errors import RtlError

__all__ = ["FAMILIES", "Synthesis", "check", "synthesise"]

FAMILIES = {"7series": "xc7", "ultrascale+": "xcup"}
"""Families of `Board`, as Yosys calls them."""

_LUT = re.compile(r"^LUT[1-6]$")
_FF = re.compile(r"^FD[RSCP]E(_1)?$")
_LUT_RAM = {
    "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM256X1D": 8,
    "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "SRL16E": 1, "SRLC32E": 1, "RAM512X1S": 8,
}  # fmt: skip
"""LUTs of a cell: UG474 table 2-3 and UG574 table 2-3."""


@dataclass(frozen=True, slots=True)
class Synthesis:
    """Resources that Yosys counted.

    Parameters
    ----------
    dsp, uram, lut, ff : int
        `lut` includes LUTs used as memory and shift registers.
    bram36 : float
        A half block RAM is 0.5.
    cells : dict of str to int
        Every kind of cell.
    """

    dsp: int
    bram36: float
    uram: int
    lut: int
    ff: int
    cells: dict[str, int]

    @classmethod
    def of_cells(cls, cells: dict[str, int]) -> Synthesis:
        """From numbers of cells by kind."""
        half = sum(n for kind, n in cells.items() if kind.startswith("RAMB18"))
        return cls(
            dsp=sum(n for kind, n in cells.items() if kind.startswith("DSP48")),
            bram36=sum(n for kind, n in cells.items() if kind.startswith("RAMB36")) + half / 2,
            uram=sum(n for kind, n in cells.items() if kind.startswith("URAM")),
            lut=sum(n for kind, n in cells.items() if _LUT.match(kind))
            + sum(n * _LUT_RAM.get(kind, 0) for kind, n in cells.items()),
            ff=sum(n for kind, n in cells.items() if _FF.match(kind)),
            cells=cells,
        )


def synthesise(verilog: str, family: str, *, top: str = "dpu_top") -> Synthesis:
    """Synthesise for a family of `Board`: seconds for a small core, minutes for 2,048 products.

    Raises
    ------
    RtlError
        An unknown family, no Yosys, or Verilog that Yosys refuses.
    """
    if family not in FAMILIES:
        raise RtlError(f"no family {family!r}; Yosys is asked for {', '.join(FAMILIES)}", family=family)
    report = _yosys(
        verilog,
        (
            f"synth_xilinx -family {FAMILIES[family]} -top {top} -flatten -noiopad -noclkbuf",
            "tee -q -o {report} stat -json",
        ),
    )
    found = json.loads(report[report.index("{") :])
    cells = found["design"]["num_cells_by_type"]
    return Synthesis.of_cells({kind: _count(n) for kind, n in cells.items()})


def check(verilog: str, *, top: str = "dpu_top") -> None:
    """Raise where Yosys finds an undriven or doubly driven wire, a loop or a missing module.

    Raises
    ------
    RtlError
    """
    _yosys(verilog, (f"hierarchy -check -top {top}", "proc", "check -assert"))


def _count(value: Any) -> int:
    """Yosys prints a number, or an object with one, from version to version."""
    return int(value["count"] if isinstance(value, dict) else value)


def _yosys(verilog: str, commands: Iterable[str]) -> str:
    """Run commands on the text in a process of their own (Yosys ends its process on errors); returns the report."""
    with tempfile.TemporaryDirectory() as folder:
        source, report = Path(folder, "design.v"), Path(folder, "report.txt")
        source.write_text(verilog, encoding="utf-8")
        lines = [f"read_verilog {source}", *(c.format(report=report) for c in commands)]
        script = "from pyosys import libyosys as y\nd = y.Design()\n" + "".join(
            f"y.run_pass({line!r}, d)\n" for line in lines
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        if "No module named 'pyosys'" in done.stderr:
            raise RtlError("synthesis counts need Yosys: pip install 'tilewright[rtl]'")
        if done.returncode:
            errors = [
                line
                for line in (done.stdout + done.stderr).splitlines()
                if "ERROR" in line or "Warning" in line
            ]
            raise RtlError(
                "Yosys refused the Verilog: " + "; ".join(errors[-5:] or done.stderr.splitlines()[-3:])
            )
        return report.read_text(encoding="utf-8") if report.exists() else done.stdout
