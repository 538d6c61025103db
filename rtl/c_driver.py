"""The bare-metal C driver: its source as it is, and a header with the registers of the table filled in."""

from __future__ import annotations

from importlib.resources import files

from .faults import Cause
from .register_map import BLOCK_BYTES, INTERFACE_VERSION, MAGIC, REGISTERS, Register

__all__ = ["c_driver", "python_driver"]

_FOLDER = files(__package__) / "driver"


def c_driver() -> dict[str, str]:
    """``dpu.h`` and ``dpu.c``.

    >>> "#define DPU_ERROR_CAUSE 0x048u" in c_driver()["dpu.h"]
    True
    """
    header = (_FOLDER / "dpu.h.in").read_text(encoding="utf-8")
    for mark, text in {
        "REGISTERS": "\n".join(line for r in REGISTERS for line in _defines(r)),
        "CAUSES": _causes(),
        "MAGIC": f"0x{MAGIC:08X}",
        "VERSION": str(INTERFACE_VERSION),
        "BLOCK_BYTES": f"0x{BLOCK_BYTES:X}",
    }.items():
        header = header.replace(f"@{mark}@", text)
    return {"dpu.h": header, "dpu.c": (_FOLDER / "dpu.c").read_text(encoding="utf-8")}


def python_driver() -> dict[str, str]:
    """``tilewright_dpu.py``, the PYNQ driver."""
    name = "tilewright_dpu.py"
    return {name: (_FOLDER / name).read_text(encoding="utf-8")}


def _defines(r: Register) -> list[str]:
    fields = [f for f in r.fields if f.name != "VALUE"]
    return [
        f"#define DPU_{r.name} 0x{r.offset:03X}u",
        *(f"#define DPU_{r.name}_{f.name}_MASK 0x{f.mask:08X}u" for f in fields),
        *(f"#define DPU_{r.name}_{f.name}_SHIFT {f.low}u" for f in fields),
    ]


def _causes() -> str:
    names = ", ".join(f'"{c.name}"' for c in Cause)
    return "\n".join(
        [*(f"#define DPU_CAUSE_{c.name} {c.value}u" for c in Cause), f"#define DPU_CAUSE_NAMES {{{names}}}"]
    )
