"""What Yosys makes of the Verilog: DSP, block RAM, UltraRAM, LUT and FF for a Xilinx family.

Counts of DSP, BRAM and URAM are what a part needs. LUT and FF are upper bounds on UltraScale+: this Yosys packs no
registers into the DSP48E2 and no multiplexers beside carry chains, which the vendor's tool does.

A large core is synthesised part by part: each engine flattened, but for modules that occur many times and share no logic
(dot products, accumulators, map banks), which are synthesised once and counted as often as they occur. On a core of 32
products this gives the DSP, BRAM and URAM of the flattened whole, 0.8 % more LUT and 2.7 % more FF (`tests/synthesis.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ir.errors import RtlError

__all__ = ["FAMILIES", "Part", "Synthesis", "check", "parts", "synthesise", "synthesise_part"]

FAMILIES = {"7series": "xc7", "ultrascale+": "xcup"}
"""Families of `Board`, as Yosys calls them."""

_ENGINES = re.compile(
    r"(dpu_core|conv(_dsp48e[12])?|dwc_engine|vec_engine|load_engine|save_engine|map_memory)$"
)
_REPEATED = re.compile(r"(map_bank|memory|paired_dot|paired_operand|shared_operand|accumulate)_.*$")
"""Modules that are synthesised on their own: engines, and what they hold many of."""
_MODULE = re.compile(r"^(?=module )", re.MULTILINE)
_INSTANCE = re.compile(r"^  (\w+) (?:\\\S+|\w+) +\(", re.MULTILINE)
_PORT = re.compile(r"^  (?:input|output) .*;$", re.MULTILINE)

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


def synthesise(verilog: str, family: str, *, top: str = "dpu_top", logic: bool = True) -> Synthesis:
    """Synthesise for a family of `Board`: minutes for a small core, an hour for 2,048 products.

    Parameters
    ----------
    logic : bool
        Also map what is neither DSP nor memory; without, `lut` and `ff` mean nothing, and it takes a fraction of the time.

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
            f"synth_xilinx -family {FAMILIES[family]} -top {top} -flatten -noiopad -noclkbuf"
            + ("" if logic else " -run begin:map_ffram"),
            "tee -q -o {report} stat -json",
        ),
    )
    found = json.loads(report[report.index("{") :])
    cells = found["modules"][f"\\{top}"]["num_cells_by_type"]
    return Synthesis.of_cells({kind: _count(n) for kind, n in cells.items()})


@dataclass(frozen=True, slots=True)
class Part:
    """Modules that are synthesised together.

    Parameters
    ----------
    top : str
    owner : str
        The engine it stands in, as its module is called; an engine is its own.
    times : int
        How often it stands there.
    text : str
        Verilog of its modules; of parts inside it, the ports only.
    """

    top: str
    owner: str
    times: int
    text: str


def parts(verilog: str, *, top: str = "dpu_top") -> tuple[Part, ...]:
    """Cut a design at its engines, and at modules that occur many times."""
    text = {
        head[1]: body
        for body in _MODULE.split(verilog)
        if (head := re.match(r"module (\w+)\b", body)) is not None
    }
    inside = {name: Counter(i for i in _INSTANCE.findall(body) if i in text) for name, body in text.items()}

    def walk(name: str, times: int) -> Iterator[tuple[str, int]]:
        """Modules below `name` down to the next cut, this included."""
        for child, n in inside[name].items():
            yield child, n * times
            if not (_ENGINES.match(child) or _REPEATED.match(child)):
                yield from walk(child, n * times)

    found: Counter[tuple[str, str]] = Counter()

    def count(name: str, owner: str, times: int) -> None:
        found[owner, name] += times
        for child, n in walk(name, 1):
            if _ENGINES.match(child) or _REPEATED.match(child):
                count(child, child if _ENGINES.match(child) else owner, times * n)

    count(top, top, 1)
    out = []
    for (owner, name), times in found.items():
        below = {child for child, _ in walk(name, 1)}
        cut = {c for c in below if _ENGINES.match(c) or _REPEATED.match(c)}
        whole = sorted((below - cut) | {name})
        own = "".join(text[n] for n in whole) + "".join(_ports_only(text[n]) for n in sorted(cut))
        out.append(Part(name, owner, times, own))
    return tuple(out)


def synthesise_part(part: Part, family: str) -> Synthesis:
    """Synthesise a part: its counts, once.

    What was synthesised before is read from ``$XDG_CACHE_HOME/tilewright/synthesis``, by the text's hash.

    Raises
    ------
    RtlError
        As `synthesise`.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tilewright" / "synthesis"
    key = hashlib.sha256((FAMILIES.get(family, family) + part.top + part.text).encode()).hexdigest()[:20]
    kept = root / f"{key}.json"
    if kept.exists():
        return Synthesis.of_cells(json.loads(kept.read_text(encoding="utf-8")))
    one = synthesise(part.text, family, top=part.top)
    root.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(one.cells), encoding="utf-8")
    partial.replace(kept)
    return one


def _ports_only(module: str) -> str:
    head = module[: module.index(");") + 2]
    return (
        f"(* blackbox *)\n{head}\n" + "".join(f"{line}\n" for line in _PORT.findall(module)) + "endmodule\n"
    )


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
