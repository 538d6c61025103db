"""Options that several verbs share, and how their words become values."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from .ir.errors import ArchError, ModelError

__all__ = [
    "Common",
    "COMMON",
    "Cores",
    "DATA",
    "Data",
    "MACHINE",
    "Machine",
    "parse_settings",
    "parse_shapes",
    "SHARING",
    "Settings",
    "Shapes",
    "Sharing",
]


Settings = Annotated[
    tuple[str, ...],
    Parameter(
        help="Change a field of the machine, as `--set conv.pixels=4`; repeatable.",
        negative="",
        show_default=False,
        consume_multiple=False,
    ),
]
Cores = Annotated[
    int | None,
    Parameter(
        help="Cores of the design, each on frames of its own, sharing the memory.  [default: the machine's]"
    ),
]
Shapes = Annotated[
    tuple[str, ...],
    Parameter(
        help="Sizes of an input that the model leaves open: `1x3x224x224` or `NAME=1x3x224x224`; repeatable.",
        negative="",
        show_default=False,
        consume_multiple=False,
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Every verb has these."""

    json: Annotated[
        bool,
        Parameter(
            help="Print one JSON object on standard output, nothing else.", negative="", show_default=False
        ),
    ] = False
    quiet: Annotated[
        bool,
        Parameter(name=("--quiet", "-q"), help="Print nothing but errors.", negative="", show_default=False),
    ] = False
    seed: Annotated[
        int, Parameter(help="Of everything random: synthetic data, weights of built-in networks.")
    ] = 0
    traceback: Annotated[
        bool,
        Parameter(
            help="On an internal error print the traceback instead of writing it to a file.",
            negative="",
            show_default=False,
        ),
    ] = False


@Parameter(name="*")
@dataclass(frozen=True)
class Machine:
    """The machine and its memory."""

    arch: Annotated[
        str | None,
        Parameter(help="Preset (`tilewright arch list`) or TOML file.  [default: the core of the board]"),
    ] = None
    set: Settings = ()
    board: Annotated[
        str | None, Parameter(help="Board (`tilewright board list`) or TOML file.  [default: kv260]")
    ] = None
    dram: Annotated[
        str | None,
        Parameter(help="Memory: `fixed:BYTES_PER_CYCLE[,LATENCY]` or `banked:PART`.  [default: the board's]"),
    ] = None
    objective: Annotated[
        Literal["latency", "energy", "edp"] | None,
        Parameter(help="What the schedule minimises.  [default: latency]"),
    ] = None

    cores: Cores = None
    dram_limit: Annotated[
        float | None,
        Parameter(
            help="GB/s of DRAM traffic, on average, that the schedule is planned for.  [default: the memory's]"
        ),
    ] = None

    batch: Annotated[
        int | None,
        Parameter(help="Frames that a run takes: weights are loaded for all of them at once.  [default: 1]"),
    ] = None

    tries: Annotated[
        int | None,
        Parameter(
            help="Programs to simulate in search of a better one; each takes about as long as scheduling.  [default: 0]"
        ),
    ] = None

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of the machine to change."""
        return parse_settings(self.set, self.cores)

    @property
    def names_another(self) -> bool:
        """A machine, a board, an objective, a limit, a batch or tries were given: programs have to be made anew."""
        limits = self.dram_limit, self.batch, self.tries
        named = self.arch or self.set or self.board or self.objective
        return bool(named) or any(limit is not None for limit in limits)


@Parameter(name="*")
@dataclass(frozen=True)
class Data:
    """How a float network becomes int8."""

    calibration: Annotated[
        Path | None, Parameter(help="Calibration data: folder of images, `.npy` or `.npz`.")
    ] = None
    synthetic_calibration: Annotated[
        bool,
        Parameter(
            help="Calibrate on seeded synthetic data; the report says so.", negative="", show_default=False
        ),
    ] = False
    input_shape: Shapes = ()


@Parameter(name="*")
@dataclass(frozen=True)
class Sharing:
    """How several cores are simulated."""

    frames: Annotated[
        int, Parameter(help="With several cores: frames of each, back to back; the first warms up.")
    ] = 3
    stagger: Annotated[
        bool,
        Parameter(
            help="With several cores: start them spread over a frame instead of in one cycle.",
            negative="",
            show_default=False,
        ),
    ] = False


COMMON, MACHINE, DATA, SHARING = Common(), Machine(), Data(), Sharing()
"""Nothing given."""


def parse_shapes(words: tuple[str, ...]) -> dict[str, tuple[int, ...]] | tuple[int, ...] | None:
    """Input shapes from the command line.

    >>> parse_shapes(("1x3x32x32",))
    (1, 3, 32, 32)
    >>> parse_shapes(("image=1,3,32,32",))
    {'image': (1, 3, 32, 32)}
    """
    named: dict[str, tuple[int, ...]] = {}
    plain: list[tuple[int, ...]] = []
    for word in words:
        name, _, sizes = word.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.replace(",", "x").split("x"))
        except ValueError:
            shape = ()
        if not shape or min(shape) < 1:
            raise ModelError(
                f"--input-shape {word}: not a shape; write positive sizes with x between, as 1x3x224x224, "
                "or with the input's name, as image=1x3x224x224"
            )
        if name:
            named[name] = shape
        else:
            plain.append(shape)
    if plain and (named or len(plain) > 1):
        raise ModelError("--input-shape: with several inputs each shape needs its name, as image=1x3x224x224")
    return named or (plain[0] if plain else None)


def parse_settings(words: tuple[str, ...], cores: int | None = None) -> dict[str, Any]:
    """``--set FIELD=VALUE``: the value is read as TOML, and as plain text where it is none; ``--cores`` is one of them.

    >>> parse_settings(("conv.pixels=4", "name=mine"), 2)
    {'conv.pixels': 4, 'name': 'mine', 'cores': 2}
    """
    out: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name.strip():
            raise ArchError(f"--set {word}: want FIELD=VALUE, as --set conv.pixels=4")
        try:
            value: Any = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        out[name.strip()] = value
    if cores is None:
        return out
    if out.get("cores", cores) != cores:
        raise ArchError(f"--cores {cores} and --set cores={out['cores']}: leave one of them out")
    return {**out, "cores": cores}
