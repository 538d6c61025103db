"""The register map as SystemRDL 2.0: what register tools of the field read (documents, UVM models, software headers)."""

from __future__ import annotations

from .register_map import BLOCK_BYTES, REGISTERS, Access, Bits, Register

__all__ = ["systemrdl"]

_SOFTWARE = {
    Access.READ: "sw = r; hw = w;",
    Access.WRITE: "sw = rw; hw = r;",
    Access.PULSE: "sw = w; hw = r; singlepulse;",
    Access.CLEAR: "sw = rw; hw = rw; hwset; onwrite = woclr;",
}
"""Properties of a field for each way of access (SystemRDL 2.0 tables 10 to 14)."""
_CONSTANT = "sw = r; hw = na;"


def systemrdl(cores: int = 1, *, name: str = "dpu_top") -> str:
    """The registers of a design as SystemRDL; core c has its own at c times `BLOCK_BYTES`.

    >>> print(systemrdl().splitlines()[-2])
        dpu core[1] @ 0x0 += 0x1000;
    """
    lines = [
        "// Registers of a Tilewright DPU.",
        "addrmap dpu {",
        '    name = "Tilewright DPU core";',
        "    default regwidth = 32;",
        "    default accesswidth = 32;",
        *(line for r in REGISTERS for line in _register(r)),
        "};",
        f"addrmap {name} {{",
        '    name = "Cores of the design";',
        f"    dpu core[{cores}] @ 0x0 += 0x{BLOCK_BYTES:X};",
        "};",
    ]
    return "\n".join(lines) + "\n"


def _register(r: Register) -> list[str]:
    fields = r.fields or (Bits("VALUE", 0, 32, ""),)
    return [
        "    reg {",
        f'        name = "{r.name}"; desc = "{_quoted(r.meaning)}";',
        *(_field(r, f) for f in fields),
        f"    }} {r.name} @ 0x{r.offset:03X};",
    ]


def _field(r: Register, f: Bits) -> str:
    constant = r.access == Access.READ and r.reset
    properties = _CONSTANT if constant else _SOFTWARE[r.access]
    desc = f' desc = "{_quoted(f.meaning)}";' if f.meaning else ""
    reset = (r.reset & f.mask) >> f.low
    # A read-only value that the core drives has no reset of its own.
    value = "" if r.access == Access.READ and not constant else f" = {reset:#x}"
    return f"        field {{ {properties}{desc} }} {f.name}[{f.low + f.width - 1}:{f.low}]{value};"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
