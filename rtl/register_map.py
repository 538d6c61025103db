"""The registers of a core, as data: what the hardware, the driver, the C header and the documents are made from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..ir.isa import Engine
from .faults import Cause

__all__ = ["Access", "BLOCK_BYTES", "Bits", "INTERFACE_VERSION", "MAGIC", "REGISTERS", "Register", "register"]

BLOCK_BYTES = 4096
"""Address space of one core's registers; core n of a design has its own at n times that."""
MAGIC = 0x54494C45
"""``TILE`` in ASCII: what `ID` reads."""
INTERFACE_VERSION = 1
"""Of this table: it grows by one whenever a driver would have to change."""


class Access(StrEnum):
    """Who changes a register, and how."""

    READ = "ro"
    """The core; writes are ignored."""
    WRITE = "rw"
    """The host."""
    PULSE = "wo"
    """A 1 written acts once; reads as 0."""
    CLEAR = "w1c"
    """The core sets bits, the host clears those that it writes as 1."""


@dataclass(frozen=True, slots=True)
class Bits:
    """A field of a register.

    Parameters
    ----------
    name : str
    low, width : int
        Lowest bit; number of bits.
    meaning : str
    """

    name: str
    low: int
    width: int
    meaning: str

    @property
    def mask(self) -> int:
        """Its bits of the register."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True, slots=True)
class Register:
    """32 bits at a byte offset.

    Parameters
    ----------
    name : str
    offset : int
    access : Access
    meaning : str
    fields : tuple of Bits
        Bits outside all of them read as 0. Without fields the whole register is one number.
    reset : int
        Value after reset.
    """

    name: str
    offset: int
    access: Access
    meaning: str
    fields: tuple[Bits, ...] = ()
    reset: int = 0

    @property
    def mask(self) -> int:
        """Bits that are there."""
        return sum(f.mask for f in self.fields) if self.fields else 0xFFFF_FFFF

    def field(self, name: str) -> Bits:
        """The field of this name."""
        return next(f for f in self.fields if f.name == name)


def _pair(
    name: str, offset: int, access: Access, meaning: str, *, aligned: int = 1
) -> tuple[Register, Register]:
    """A 64-bit number in two registers, the low half first. `aligned`: its lowest bits are 0."""
    width = 32 - (aligned - 1).bit_length()
    low = (Bits("VALUE", 32 - width, width, "bits 31 and below; the lowest are 0"),) if aligned > 1 else ()
    return (
        Register(f"{name}_LO", offset, access, f"{meaning}: bits 31 to 0", low),
        Register(f"{name}_HI", offset + 4, access, f"{meaning}: bits 63 to 32"),
    )


_RO, _RW = Access.READ, Access.WRITE
_PAGE = 4096
"""AXI4's burst boundary: regions start on it."""
_EVENTS = (("DONE", "the run ended well"), ("ERROR", "a run was stopped or refused"))

REGISTERS: tuple[Register, ...] = (
    Register("ID", 0x000, _RO, f"always 0x{MAGIC:08X}", reset=MAGIC),
    Register("VERSION", 0x004, _RO, "version of this register table", reset=INTERFACE_VERSION),
    *_pair("DESIGN_HASH", 0x008, _RO, "what the hardware was built from; programs carry the same number"),
    Register(
        "CONTROL",
        0x010,
        Access.PULSE,
        "commands",
        (
            Bits("START", 0, 1, "begin a run; ignored while one is going on"),
            Bits("ABORT", 1, 1, "stop the run that is going on"),
        ),
    ),
    Register(
        "STATUS",
        0x014,
        _RO,
        "what the core is doing",
        (
            Bits("BUSY", 0, 1, "a run is going on, or is being stopped"),
            *(Bits(name, i, 1, f"{text}; until the next start") for i, (name, text) in enumerate(_EVENTS, 1)),
        ),
    ),
    Register(
        "IRQ_ENABLE",
        0x018,
        _RW,
        "events that raise the interrupt",
        tuple(Bits(name, i, 1, text) for i, (name, text) in enumerate(_EVENTS)),
    ),
    Register(
        "IRQ_STATUS",
        0x01C,
        Access.CLEAR,
        "events that happened; the interrupt is high while one that is enabled stands here",
        tuple(Bits(name, i, 1, text) for i, (name, text) in enumerate(_EVENTS)),
    ),
    *_pair("PROGRAM_BASE", 0x020, _RW, "DRAM address of the instructions", aligned=_PAGE),
    *_pair("WEIGHTS_BASE", 0x028, _RW, "DRAM address of weights and tables", aligned=_PAGE),
    *_pair("MAPS_BASE", 0x030, _RW, "DRAM address of maps", aligned=_PAGE),
    Register("PROGRAM_WORDS", 0x038, _RW, "instructions of the program; in DRAM it fills whole groups of 16"),
    Register(
        "WATCHDOG", 0x03C, _RW, "cycles without a finished instruction after which a run is stopped; 0: never"
    ),
    *_pair(
        "PROGRAM_HASH", 0x040, _RW, "design hash of the program; a start is refused unless it is the core's"
    ),
    Register(
        "ERROR_CAUSE",
        0x048,
        _RO,
        "why the run was stopped or refused",
        (
            Bits("CAUSE", 0, 8, ", ".join(f"{c.value} {c.name}" for c in Cause)),
            Bits("RESPONSE", 8, 2, "AXI response, where the bus answered with an error: 2 SLVERR, 3 DECERR"),
        ),
    ),
    Register(
        "ERROR_INSTRUCTION",
        0x04C,
        _RO,
        "number of the instruction concerned: the bad one; the oldest unfinished one of LOAD or SAVE on a bus error, of all "
        "engines for the watchdog and an abort; else the next one to be dispatched",
    ),
    *_pair("ERROR_ADDRESS", 0x050, _RO, "DRAM address of the burst that the bus refused"),
    *_pair("CYCLES", 0x058, _RO, "cycles of the run, from the first fetch request to the last token"),
    *_pair("FETCH_BYTES", 0x060, _RO, "bytes that FETCH read over the bus"),
    *_pair("LOAD_BYTES", 0x068, _RO, "bytes that LOAD read over the bus, whole beats"),
    *_pair("SAVE_BYTES", 0x070, _RO, "bytes that SAVE wrote over the bus, whole beats"),
    *(
        r
        for e in Engine
        for r in (
            *_pair(
                f"{e.name}_BUSY",
                0x080 + 16 * e,
                _RO,
                f"cycles of {e.name} from each start until another instruction could start",
            ),
            Register(f"{e.name}_DONE", 0x088 + 16 * e, _RO, f"instructions that {e.name} finished"),
        )
    ),
)
"""In the order of their offsets. Numbers of a run stay until the next start; 64-bit ones are read while it is idle."""

_BY_NAME = {r.name: r for r in REGISTERS}


def register(name: str) -> Register:
    """The register of this name.

    >>> hex(register("CONTROL").offset)
    '0x10'
    """
    return _BY_NAME[name]
