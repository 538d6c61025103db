"""Spaces of designs as data: axes with choices or ranges, fields that follow, constraints; TOML in, checked at once.

>>> space = Space.parse('''
... [arch]
... base = "b1024"
... [space]
... "conv.pixels" = [4, 8]
... "clock_mhz" = { from = 100, to = 300, step = 100 }
... [constraints]
... require = ["dsp <= 600"]
... ''')
>>> space.axes["clock_mhz"], space.size
((100, 200, 300), 6)
"""

from __future__ import annotations

import math
import tomllib
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from .explore_expression import Expression, parse
from .explore_objectives import DESIGN, MEASURED_QUANTITIES
from .ir.arch import PRESETS, Arch
from .ir.board import Board
from .ir.errors import ArchError
from .ir.requant import MODES

__all__ = ["BESIDE", "MODEL_AXES", "Constraints", "Range", "Search", "Space", "preset_spaces", "schema"]

_FROZEN = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
MOST_CHOICES = 10_000
"""Of one axis."""

BESIDE = {
    "base": "preset that the other fields change",
    "board": "board: its resources, memory and process",
    "dram": "memory: fixed:BYTES_PER_CYCLE[,LATENCY] or banked:PART",
    "objective": "what the scheduler minimises: latency, energy or edp",
    "mode": "rounding mode of the network, and the only one of the hardware unless `rounding` is given",
    "model.width": "width multiplier of zoo: networks",
    "model.resolution": "input pixels a side",
    "model.variant": "a network (ONNX file or zoo:NAME) that joins the others",
}
"""Axes that are no field of the machine."""
MODEL_AXES = ("model.width", "model.resolution", "model.variant")
DERIVED = ("macs_per_cycle", "depthwise_macs_per_cycle", "lanes", "banks", "stream_bytes")
"""Derived quantities of the machine that an expression may name."""
BOARD_QUANTITIES = (
    "lut",
    "ff",
    "dsp",
    "bram36",
    "uram",
    "ports",
    "port_bits",
    "dram_gb_s",
    "clock_mhz",
    "clock_max_mhz",
)
RESULTS = (*MEASURED_QUANTITIES, "cycles", "utilization", "sqnr_db")
"""Quantities that are known once a design was evaluated."""

Choice = bool | int | float | str | list[Any] | dict[str, Any]


class Range(BaseModel):
    """Values from one end to the other, both inside.

    >>> Range.model_validate({"from": 128, "to": 1024, "factor": 2}).values
    (128, 256, 512, 1024)
    """

    model_config = _FROZEN
    first: int | float = Field(alias="from", description="first value")
    last: int | float = Field(alias="to", description="last value, where the steps meet it")
    step: int | float | None = Field(None, gt=0, description="distance of neighbours")
    factor: int | float | None = Field(None, gt=1, description="ratio of neighbours")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.step is None) == (self.factor is None):
            raise ValueError("a range needs either step or factor, as { from = 100, to = 300, step = 50 }")
        if self.last < self.first:
            raise ValueError(f"a range goes upwards, but from {self.first} is above to {self.last}")
        if self.factor is not None and self.first <= 0:
            raise ValueError(f"a range by factor starts above 0, not at {self.first}")
        count = (
            (self.last - self.first) / self.step
            if self.step is not None
            else math.log(self.last / self.first) / math.log(self.factor or 2)
        )
        if count > MOST_CHOICES:
            raise ValueError(f"a range of {count:,.0f} values, at most {MOST_CHOICES:,}: take larger steps")
        return self

    @property
    def values(self) -> tuple[int | float, ...]:
        out: list[int | float] = []
        at, n = self.first, 0
        while at <= self.last * (1 + 1e-12):
            out.append(at if isinstance(at, int) else round(at, 9))
            n += 1
            at = self.first + n * self.step if self.step is not None else self.first * (self.factor or 2) ** n
        return tuple(out)


class Constraints(BaseModel):
    """What a design must keep."""

    model_config = _FROZEN
    fits: str | bool = Field(
        False, description="name of a board that it must fit, or true for the design's own board"
    )
    require: tuple[str, ...] = Field((), description="expressions over named quantities that must be true")


class Search(BaseModel):
    """How the space is searched."""

    model_config = _FROZEN
    method: Literal["auto", "exhaustive", "nsga2"] = Field(
        "auto", description="auto: exhaustive where the space has at most `exhaustive_up_to` designs"
    )
    exhaustive_up_to: int = Field(20_000, ge=1, description="designs")
    evaluations: int = Field(2000, ge=1, description="designs that nsga2 evaluates at most")
    population: int = Field(64, ge=4, le=1024, description="designs a generation of nsga2")


class Space(BaseModel):
    """A space of designs and what is asked of it."""

    model_config = _FROZEN
    title: str = Field("", description="for the report")
    arch: dict[str, Any] = Field(
        {}, description="the machine that the axes change: keys of an Arch file, `base` names a preset"
    )
    board: str = Field(
        "", description="board, or TOML file of one  [default: that of constraints.fits, or kv260]"
    )
    dram: str = Field("", description="memory  [default: the board's]")
    objective: Literal["latency", "energy", "edp"] = Field(
        "latency", description="what the scheduler minimises"
    )
    space: dict[str, list[Choice] | Range] = Field(
        min_length=1, description="axes: Arch field paths and a few names, each with choices or a range"
    )
    follow: dict[str, str] = Field({}, description="Arch fields that follow the others, as expressions")
    adapt: bool = Field(
        True,
        description="round memory sizes to ones that divide into banks, cut drains at the pixels, and take dwc.pixels = 0 "
        "or dwc.channels = 0 for no depthwise engine; false: such designs are illegal",
    )
    constraints: Constraints = Constraints()
    models: tuple[str, ...] = Field(
        (), description="networks, where the command line names none: ONNX files or zoo:NAME"
    )
    weights: dict[str, float] = Field({}, description="frames of each network in the mix, by its name")
    combine: Literal["weighted", "worst"] = Field(
        "weighted", description="several networks: their weighted mean, or the worst in each quantity"
    )
    objectives: tuple[str, ...] = Field((), description="where the command line names none")
    search: Search = Search()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._bad_axes(), *self._bad_follows(), *self._bad_words()]
        if not problems:
            for what, texts in self._texts().items():
                try:
                    for i, text in enumerate(texts):
                        parse(text, self.quantities, where=f"{what}[{i}]")
                except ArchError as error:
                    problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    # -- checks ------------------------------------------------------------------------------------------------------
    def _bad_axes(self) -> list[str]:
        out = []
        fields = _choices_of_fields()
        for name, given in self.space.items():
            values = given.values if isinstance(given, Range) else tuple(given)
            if not values:
                out.append(f"{name}: no choices; leave the axis out, or give some")
                continue
            if len(values) > MOST_CHOICES:
                out.append(f"{name}: {len(values):,} choices, at most {MOST_CHOICES:,}")
                continue
            if len({repr(v) for v in values}) < len(values):
                out.append(f"{name}: a choice stands there twice")
            kind = fields.get(name) or _BESIDE_KINDS.get(name)
            if kind is None:
                from difflib import get_close_matches

                near = get_close_matches(name, [*fields, *BESIDE], 1)
                out.append(
                    f"{name}: no such axis{f'; did you mean {near[0]}?' if near else ''}; axes are fields of an Arch file "
                    f"(`tilewright arch schema`) and {', '.join(BESIDE)}"
                )
                continue
            for value in values:
                try:
                    kind.validate_python(value)
                except ValidationError as error:
                    out.append(f"{name} = {value!r}: {error.errors()[0]['msg']}")
                    break
        return out

    def _bad_follows(self) -> list[str]:
        fields = _choices_of_fields()
        out = []
        for name in self.follow:
            if name not in fields or name == "name":
                out.append(f"follow, {name}: no field of an Arch file; `tilewright arch schema` lists them")
            elif name in self.space:
                out.append(f"follow, {name}: is an axis as well; it can be chosen or follow, not both")
        return out

    def _bad_words(self) -> list[str]:
        out = []
        for board in [self.board, self.constraints.fits]:
            if isinstance(board, str) and board:
                try:
                    Board.load(board)
                except ArchError as error:
                    out.append(str(error))
        if self.constraints.fits == "":
            out.append("constraints.fits is empty: name a board, or write true for the design's own")
        out += [f"weights, {n}: {w} is not above 0" for n, w in self.weights.items() if not w > 0]
        return out

    def _texts(self) -> dict[str, tuple[str, ...]]:
        return {
            "constraints.require": self.constraints.require,
            **{f"follow, {n}": (t,) for n, t in self.follow.items()},
        }

    # -- what it says --------------------------------------------------------------------------------------------------
    @cached_property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Axes and their choices, in the order of the file."""
        return {n: g.values if isinstance(g, Range) else tuple(g) for n, g in self.space.items()}

    @property
    def size(self) -> int:
        """Combinations of choices."""
        return math.prod(len(values) for values in self.axes.values())

    @cached_property
    def quantities(self) -> frozenset[str]:
        """Names that an expression may read."""
        board = {f"board.{n}" for n in BOARD_QUANTITIES}
        leaves = {n for n, _ in _leaves()}
        return frozenset({*leaves, *BESIDE, *DERIVED, *DESIGN, *board, *RESULTS} - {"name", "rounding"})

    @cached_property
    def requirements(self) -> tuple[Expression, ...]:
        """The constraints, read."""
        return tuple(parse(t, self.quantities) for t in self.constraints.require)

    @cached_property
    def followers(self) -> dict[str, Expression]:
        """What follows, read; a field may follow one above it."""
        return {n: parse(t, self.quantities) for n, t in self.follow.items()}

    @classmethod
    def parse(cls, text: str, *, where: str = "space") -> Space:
        """From TOML.

        Raises
        ------
        ArchError
            Everything that is wrong with it, at once.
        """
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ArchError(f"{where}: not TOML: {error}") from None
        return cls.build(data, where=where)

    @classmethod
    def build(cls, data: dict[str, Any], *, where: str = "space") -> Space:
        """From nested settings, as `parse` reads them."""
        try:
            made = cls.model_validate(data)
        except ValidationError as error:
            raise ArchError(f"{where}: {_problems(error)}") from None
        Arch.build({k: v for k, v in made.arch.items() if k != "base"} | _base(made), where=f"{where}, arch")
        return made

    @classmethod
    def load(cls, spec: str | Path) -> Space:
        """A preset's name, or the path of a TOML file."""
        path = Path(spec)
        known = preset_spaces()
        if str(spec) in known:
            return cls.parse(_preset_text(str(spec)), where=str(spec))
        if path.suffix != ".toml" and not path.exists():
            from difflib import get_close_matches

            near = get_close_matches(str(spec), known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ArchError(
                f"no space {str(spec)!r}: {hint}there are {', '.join(known)}; a TOML file is another"
            )
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ArchError(f"{path}: cannot be read as a space: {error}") from None
        return cls.parse(text, where=str(path))

    def toml(self) -> str:
        """TOML text that `parse` reads back to an equal value."""
        import tomlkit

        return tomlkit.dumps(self.model_dump(mode="json", by_alias=True, exclude_defaults=True))


def _base(space: Space) -> dict[str, Any]:
    """The preset that a space starts from, where it names one."""
    return {"base": space.arch["base"]} if "base" in space.arch else {}


def _checker(kind: Any) -> TypeAdapter[Any]:
    """What checks a value of a type that is made at run time."""
    return TypeAdapter(kind)


def _leaves() -> list[tuple[str, TypeAdapter[Any]]]:
    out: list[tuple[str, TypeAdapter[Any]]] = []
    for name, info in Arch.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            out += [
                (f"{name}.{k}", _checker(Annotated[f.annotation, f])) for k, f in inner.model_fields.items()
            ]
        else:
            out.append((name, _checker(Annotated[inner, info])))
    return out


def _choices_of_fields() -> dict[str, TypeAdapter[Any]]:
    """Fields and whole tables of an Arch file, and what checks a choice of each."""
    tables = {n: TypeAdapter(dict[str, int]) for n, i in Arch.model_fields.items() if _is_table(i.annotation)}
    return {**dict(_leaves()), **tables}


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


_BESIDE_KINDS: dict[str, TypeAdapter[Any]] = {
    "base": _checker(Literal[tuple(PRESETS)]),
    "board": TypeAdapter(str),
    "dram": TypeAdapter(str),
    "objective": TypeAdapter(Literal["latency", "energy", "edp"]),
    "mode": _checker(Literal[tuple(MODES)]),
    "model.width": TypeAdapter(Annotated[float, Field(gt=0, le=8)]),
    "model.resolution": TypeAdapter(Annotated[int, Field(ge=1, le=16384)]),
    "model.variant": TypeAdapter(Annotated[str, Field(min_length=1)]),
}


def _problems(error: ValidationError) -> str:
    lines = []
    for e in error.errors():
        if e["type"] in {"list_type", "model_type"} and e["loc"][:1] == ("space",):
            if isinstance(e["input"], dict | list):
                continue  # it is the other of the two forms, whose own message follows
            e["msg"] = (
                f"choices are a list, as [{e['input']!r}], or a range, as {{ from = 1, to = 8, step = 1 }}"
            )
        place = ".".join(str(p) for p in e["loc"] if not str(p).startswith(("list[", "Range", "function-")))
        text = e["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {text}" if place else text)
    return "; ".join(dict.fromkeys(lines))


def preset_spaces() -> tuple[str, ...]:
    """Names of the spaces that come with the package, one or more a board.

    >>> "kv260" in preset_spaces()
    True
    """
    folder = files(__package__).joinpath("spaces")
    return tuple(sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")))


def _preset_text(name: str) -> str:
    return files(__package__).joinpath("spaces", f"{name}.toml").read_text(encoding="utf-8")


def schema() -> dict[str, Any]:
    """JSON Schema of a space, for editors: every axis with its meaning and the values it takes."""
    out = Space.model_json_schema(by_alias=True)
    told = Arch.fields() | BESIDE
    span = {"$ref": "#/$defs/Range"}
    properties = {}
    for name, kind in [*_choices_of_fields().items(), *_BESIDE_KINDS.items()]:
        if name == "name":
            continue
        properties[name] = {
            "description": told.get(name, f"the whole table `{name}`, fields that belong together"),
            "anyOf": [{"type": "array", "minItems": 1, "items": kind.json_schema()}, span],
        }
    axes = {"type": "object", "minProperties": 1, "additionalProperties": False, "properties": properties}
    out["properties"]["space"] = {**axes, "description": Space.model_fields["space"].description}
    out["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    out["title"] = "A space of designs for tilewright explore"
    return out
