"""Verilog of a whole design: deterministic, readable, one module for each distinct component."""

from __future__ import annotations

import re
from collections import Counter
from importlib.metadata import version

from amaranth._toolchain.yosys import _BuiltinYosys

from ..ir.arch import Arch
from ..ir.errors import InvariantError, RtlError
from .core import DpuTop
from .hierarchy import modules
from .readable import readable

__all__ = ["MACS", "verilog"]

MACS = ("plain", "dsp48e2", "dsp48e1")
"""How products are built: ``plain`` leaves it to synthesis, the others put two into a DSP block of that kind."""
_ATTRIBUTES = "-remove generator -remove top -remove src -remove amaranth.hierarchy -remove amaranth.decoding"
_SCRIPT = f"""\
read_rtlil <<rtlil
%s
rtlil
proc -nomux -norom
memory_collect
opt_expr -fine t:$lt t:$le t:$gt t:$ge
attrmap {_ATTRIBUTES}
attrmap -modattr {_ATTRIBUTES}
write_verilog -norename
"""

_START = re.compile(r"\\\$auto\$verilog_backend\.cc:\d+:dump_module\$\d+ ")
"""A register that is always 0. Reading it makes an ``always @*`` block run once at time 0 in every simulator."""
_NUMBERED = re.compile(r"\\\$(\d+) ")
_REPEATED = re.compile(r"\\([A-Za-z_]\w*)\$(\d+) ")
_PORT_WIRE = re.compile(r"^(  (?:input|output) (.+;)\n)  wire \2\n", re.MULTILINE)
_NEXT = re.compile(
    r"  always @\* begin\n    if \(at_start\) begin end\n((?:    .*\n)*?    +(?P<next>n\d+)(?:\[[^]]*\])? = .*\n(?:    .*\n)*)  end\n"
)
_FOLDED = re.compile(r"\\\$auto\$\S+ ")
"""What comparisons with a constant were folded to."""
_CONSTANT = re.compile(r"^  always @\*\n(    .* = \d+'[bdh][0-9a-f]+;\n)", re.MULTILINE)
"""A block that reads nothing never runs in an event-driven simulator."""
_CLOCKED = re.compile(r"(?:^  always @\(posedge clk\)\n    [^\n]*;\n){2,}", re.MULTILINE)
_EACH = re.compile(r"  always @\(posedge clk\)\n    ([^\n]*;\n)")


def verilog(arch: Arch, *, mac: str = "plain", uram: int = 0, name: str = "dpu_top") -> str:
    """The design as one text.

    Parameters
    ----------
    mac : str
        One of `MACS`.
    uram : int
        UltraRAM that a core may use; 0 keeps everything in block RAM.
    name : str
        The top module.

    Raises
    ------
    RtlError
        An unknown `mac`.
    """
    if mac not in MACS:
        raise RtlError(f"no MAC style {mac!r}; there are {', '.join(MACS)}", mac=mac)
    with modules() as found:
        found.add(name, DpuTop(arch, mac, uram))
    # The Yosys that comes with Amaranth, whatever else is on the machine: the same version writes the same text.
    text = _BuiltinYosys.run(["-q", "-"], _SCRIPT % "\n".join(found.text.values()), ignore_warnings=True)
    return _header(arch, mac, len(found.text)) + _tidy(text[text.index("\nmodule ") + 1 :])


def _tidy(text: str) -> str:
    """Plain names in place of escaped ones, ports declared once, one clocked block for a register."""
    text = _START.sub("at_start", text)
    taken = set(re.findall(r"\w+", text))
    if any(re.fullmatch(r"n\d+", t) for t in taken):
        raise InvariantError("a signal is called n and a number, as unnamed ones are")
    text = _NUMBERED.sub(r"n\1", text)
    folded = {name: f"folded_{i} " for i, name in enumerate(dict.fromkeys(_FOLDED.findall(text)))}
    text = _FOLDED.sub(lambda found: folded[found[0]], text)

    def plain(found: re.Match[str]) -> str:
        name = f"{found[1]}__{found[2]}"
        return found[0] if name in taken else name

    text = _CONSTANT.sub(r"  initial\n\1", text)
    text = _PORT_WIRE.sub(r"\1", _REPEATED.sub(plain, text))
    modules_of = re.split(r"^(?=module )", text, flags=re.MULTILINE)
    return "".join(readable(_clocked(module)) for module in modules_of)


def _clocked(module: str) -> str:
    """Registers whose next value has a block of its own take that block over; simple ones share a block.

    ``always @* begin n1 = a; if (b) n1 = c; end  always @(posedge clk) r <= n1;`` becomes
    ``always @(posedge clk) begin r <= a; if (b) r <= c; end``.
    """
    uses = Counter(re.findall(r"\w+", module))
    register = dict(re.findall(r"^    (\\\S+ |\w+) <= (n\d+);$", module, re.MULTILINE))
    of = {value: name for name, value in register.items()}
    gone: set[str] = set()

    def take_over(found: re.Match[str]) -> str:
        body, name = found[1], found["next"]
        assigned = set(re.findall(r"^ +(\\\S+ |\w+)(?:\[[^]]*\])? = ", body, re.MULTILINE))
        inside = len(re.findall(rf"\b{name}\b", body))
        if name not in of or assigned != {name} or uses[name] != 2 + inside:
            return found[0]
        gone.add(name)
        body = re.sub(
            rf"^( +){name}((?:\[[^]]*\])?) = ", lambda m: f"{m[1]}{of[name]}{m[2]} <= ", body, flags=re.M
        )
        body = body.removeprefix(f"    {of[name]} <= {of[name].strip()};\n")
        return f"  always @(posedge clk) begin\n{body}  end\n"

    module = _NEXT.sub(take_over, module)
    if not gone:
        return _CLOCKED.sub(_together, module)
    names = "|".join(sorted(gone))
    module = re.sub(rf"^  reg (?:\[[^]]*\] )?(?:{names});\n", "", module, flags=re.MULTILINE)
    module = re.sub(
        rf"^  always @\(posedge clk\)\n    (?:\\\S+ |\w+) <= (?:{names});\n", "", module, flags=re.MULTILINE
    )
    return _CLOCKED.sub(_together, module)


def _together(blocks: re.Match[str]) -> str:
    return "  always @(posedge clk) begin\n" + _EACH.sub(r"    \1", blocks[0]) + "  end\n"


def _header(arch: Arch, mac: str, count: int) -> str:
    lines = (
        f"Tilewright {version('tilewright')}: DPU {arch.name}, design {arch.design_hash}",
        str(arch),
        f"{count} modules; products: {mac}; written with Amaranth {version('amaranth')}",
        "clock clk, synchronous reset rst (active high); registers behind s_axi (AXI4-Lite), DRAM behind m_axi* (AXI4)",
    )
    return "".join(f"// {line}\n" for line in lines) + "\n"
