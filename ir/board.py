"""Boards: what the FPGA offers, the DRAM behind it, the ports between the two; one table each in `boards.toml`."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .arch import Arch
from .errors import ArchError

__all__ = ["Board", "System", "board_names"]


class System(BaseModel):
    """What stands around the core in a design for the board: processor, ports, clock; names are Vivado's."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    processor: Literal["zynq7", "zynqmp", "none"] = Field(
        description="processing system on the chip; none: the DRAM controller is in the fabric, the host is JTAG"
    )
    board_part: str = Field("", description="Vivado board part without its version")
    memory: tuple[str, ...] = Field(min_length=1, description="slave ports to the DRAM, in order of use")
    fetch: str = Field("", description="slave port for instruction fetch; empty: the first of `memory`")
    control: str = Field("", description="master port that reaches the registers")
    registers: int = Field(ge=0, multiple_of=4096, description="address of the registers")
    dram: int = Field(0, ge=0, multiple_of=4096, description="address of the DRAM on the bus")
    dram_mb: int = Field(ge=1, description="its size, 2^20 bytes")
    clock_mhz: float = Field(0, ge=0, description="oscillator, where no processor gives a clock")
    pins: dict[str, tuple[str, str]] = Field(
        {}, description="pin and I/O standard of each port of the design: clock, reset, lights"
    )
    source: str = Field(min_length=1, description="where these names and numbers are printed")


class Board(BaseModel):
    """A board that the DPU may run on.

    >>> Board.named("kv260").dsp
    1248
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(pattern=r"^[A-Za-z0-9._+-]{1,64}$")
    title: str = Field("", description="as its maker calls it")
    part: str = Field(description="device, package and speed grade")
    family: Literal["7series", "ultrascale+"]
    lut: int = Field(ge=1, description="lookup tables")
    ff: int = Field(ge=1, description="flip-flops")
    dsp: int = Field(ge=1, description="DSP48 slices")
    bram36: int = Field(ge=0, description="36 Kb block RAMs")
    uram: int = Field(0, ge=0, description="288 Kb UltraRAMs")
    dram: str = Field(description="DRAM part, as hwsim.dram knows it")
    dram_gb_s: float = Field(gt=0, description="peak of the DRAM, 10^9 bytes a second")
    ports: int = Field(ge=1, description="AXI ports to the DRAM that the DPU may use")
    port_bits: int = Field(ge=32, description="widest data of a port")
    port_burst: int = Field(ge=1, le=256, description="longest burst, in beats (AXI3: 16)")
    clock_mhz: float = Field(gt=0, description="a clock that designs of this kind close at (estimated)")
    clock_max_mhz: float = Field(gt=0, description="RAM limit of the speed grade")
    node_nm: int = Field(ge=3, description="process, for the energy table")
    core: dict[str, Any] = Field(
        {"base": "b1024"}, description="the machine to build where none is named: keys of an Arch file"
    )
    system: System | None = Field(
        None, description="what a board package is made from; absent: none can be made"
    )
    source: str = Field(min_length=1, description="where these numbers are printed")

    @property
    def default_arch(self) -> Arch:
        """The machine that is built on this board where none is named: one that fits it."""
        return Arch.build(self.core, where=f"board {self.name}, core")

    @classmethod
    def named(cls, name: str) -> Board:
        """The board of this name; ArchError lists the names and the nearest one."""
        table = _table()
        if name not in table:
            near = get_close_matches(name.lower(), table, 1, 0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ArchError(
                f"no board {name!r}: {hint}boards are {', '.join(table)}; a TOML file adds another", name=name
            )
        return table[name]

    @classmethod
    def load(cls, spec: str | Path) -> Board:
        """A board's name, or the path of a TOML file with one table as in `boards.toml`."""
        path = Path(spec)
        if str(spec) in _table() or not (path.suffix == ".toml" or path.exists()):
            return cls.named(str(spec))
        try:
            boards = _parse(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ArchError(f"{path}: cannot be read as a board file: {error}") from None
        if len(boards) != 1:
            raise ArchError(f"{path}: has {len(boards)} board tables, want 1; keep one board a file")
        return next(iter(boards.values()))

    def __str__(self) -> str:
        uram = f", {self.uram} URAM" if self.uram else ""
        return (
            f"{self.name}: {self.part}, {self.lut} LUT, {self.dsp} DSP, {self.bram36} BRAM36{uram}, "
            f"{self.dram} ({self.dram_gb_s:g} GB/s), {self.ports} x {self.port_bits} bit ports"
        )


def board_names() -> tuple[str, ...]:
    """Names that `Board.named` knows.

    >>> "pynq-z2" in board_names()
    True
    """
    return tuple(_table())


def _parse(text: str, where: str) -> dict[str, Board]:
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ArchError(f"{where}: not TOML: {error}") from None
    out = {}
    for name, row in data.items():
        if not isinstance(row, dict):
            raise ArchError(
                f"{where}: {name} stands outside a table; start the board with [its-name]", field=name
            )
        try:
            out[name] = Board.model_validate({"name": name, **row})
        except ValidationError as error:
            lines = [
                f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {_shown(e['input'])})"
                for e in error.errors()
            ]
            raise ArchError(f"{where}, board {name}: " + "; ".join(lines)) from None
    return out


def _shown(value: object) -> str:
    return "nothing" if isinstance(value, dict) else repr(value)


@cache
def _table() -> dict[str, Board]:
    source = files(__package__).joinpath("boards.toml")
    return _parse(source.read_text(encoding="utf-8"), "boards.toml")
