"""Instructions as text, and back: one line an instruction, as `isa.render` prints it.

    conv           [load>=3] d_group=1 out_h=4 out_w=7 …

A line may begin with its number and may end in a comment (``#``); a field that is not written is zero.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from .errors import ProgramError
from .isa import Engine, Memory, Opcode, VecOp, instruction, render

__all__ = ["assemble", "disassemble"]

_LINE = re.compile(r"(?:\d+\s+)?([a-z]+)(?:\.([a-z]+))?\s+\[([^\]]*)\]((?:\s+\w+=-?\d+)*)\s*\Z")
_WAIT = re.compile(r"([a-z]+)>=(\d+)\Z")


def disassemble(fields: NDArray[np.int64]) -> str:
    """Numbered lines, one an instruction."""
    return "".join(f"{i:6d}  {render(row)}\n" for i, row in enumerate(fields))


def assemble(text: str) -> NDArray[np.int64]:
    """Decoded instructions of a text.

    Raises
    ------
    ProgramError
        With the line's number: a mnemonic, engine or field that there is not, or a value beyond its width.

    >>> render(assemble("vec.table [conv>=2] out_h=1 out_w=7 blocks=2 sy=1 sx=1")[0]).split()[:2]
    ['vec.table', '[conv>=2]']
    """
    rows = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#")[0].strip()
        if not line:
            continue
        try:
            rows.append(_instruction(line))
        except ProgramError as error:
            raise ProgramError(f"line {number}: {error}", line=number) from None
    return np.array(rows, np.int64)


def _instruction(line: str) -> NDArray[np.int64]:
    found = _LINE.match(line)
    if found is None:
        raise ProgramError(f"want  mnemonic [waits] field=value ..., got {line!r}")
    mnemonic, function, waits, rest = found.groups()
    if mnemonic.upper() not in Opcode.__members__:
        raise ProgramError(
            f"no instruction is called {mnemonic!r}; there are {', '.join(o.name.lower() for o in Opcode)}"
        )
    opcode = Opcode[mnemonic.upper()]
    functions: dict[Opcode, type[VecOp | Memory]] = {Opcode.VEC: VecOp, Opcode.FILL: Memory}
    names = functions.get(opcode)
    if (names is None) != (function is None) or (names and (function or "").upper() not in names.__members__):
        options = ", ".join(f"{mnemonic}.{n.name.lower()}" for n in names) if names else mnemonic
        raise ProgramError(f"{mnemonic}{'.' + function if function else ''} is no function; want {options}")
    fields: dict[str, int] = {}
    for wait in waits.split():
        part = _WAIT.match(wait)
        if part is None or part[1].upper() not in Engine.__members__:
            raise ProgramError(
                f"wait {wait!r} is not engine>=tokens, with an engine of {', '.join(e.name.lower() for e in Engine)}"
            )
        fields[f"wait_{part[1]}"] = int(part[2])
    for item in rest.split():
        key, value = item.split("=")
        fields[key] = int(value)
    return instruction(opcode, names[(function or "").upper()] if names else 0, **fields)
