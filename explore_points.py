"""From choices to designs: each point of a space as a machine, a board, a memory and a network, with its hash.

Two points that come out as the same design are one: the hash is over what is built and run, not over the choices.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from .explore_expression import Expression
from .explore_space import BOARD_QUANTITIES, DERIVED, Space
from .hwsim.dram import parse as parse_dram
from .hwsim.resources import fits, resources
from .ir.arch import Arch, Conv, Dwc, Maps, Vec
from .ir.board import Board
from .ir.errors import ArchError, TilewrightError
from .ir.requant import RoundingMode
from .scheduler import Objective

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NetworkChoice", "Point", "choices_at", "make_point", "misses", "numbered"]


@dataclass(frozen=True, slots=True)
class NetworkChoice:
    """The model side of a point; None: as the network is."""

    width: float | None = None
    resolution: int | None = None
    variant: str | None = None
    mode: RoundingMode = "f32"


@dataclass(frozen=True, slots=True)
class Point:
    """One design of a space.

    Parameters
    ----------
    number : int
        Of its first appearance.
    choices : dict of axis to value
    arch : Arch or None
        None: the choices make no legal machine, see `reasons`.
    key : str
        20 hex digits of SHA-256 over everything that is built and run, without networks.
    reasons : tuple of str
        Why it is infeasible, before anything was evaluated; empty where it is not.
    notes : tuple of str
        What `Space.adapt` changed.
    quantities : dict
        What expressions may read of it.
    """

    number: int
    choices: dict[str, Any]
    arch: Arch | None
    board: Board
    dram: str
    objective: Objective
    network: NetworkChoice
    key: str
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    quantities: dict[str, Any] = field(default_factory=dict, repr=False)


def choices_at(space: Space, index: int) -> dict[str, Any]:
    """Choices of the point with this index; the last axis turns fastest.

    >>> space = Space.build({"space": {"conv.ic": [8, 16], "conv.oc": [4, 8]}})
    >>> choices_at(space, 2)
    {'conv.ic': 16, 'conv.oc': 4}
    """
    out: dict[str, Any] = {}
    for name in reversed(space.axes):
        values = space.axes[name]
        index, at = divmod(index, len(values))
        out[name] = values[at]
    return {name: out[name] for name in space.axes}


def numbered(space: Space) -> Iterator[Point]:
    """Every design of the space once, in order."""
    seen: set[str] = set()
    for index in range(space.size):
        point = make_point(space, choices_at(space, index), index)
        if point.key not in seen:
            seen.add(point.key)
            yield point


def make_point(space: Space, choices: Mapping[str, Any], number: int) -> Point:
    """The design that some choices stand for, and whether it can be built and fits.

    >>> space = Space.build({"space": {"dwc.channels": [0]}, "constraints": {"fits": "pynq-z2"}})
    >>> make_point(space, {"dwc.channels": 0}, 0).arch.has_dwc
    False
    """
    place = choices.get("board") or space.board or _named(space.constraints.fits) or "kv260"
    board = _board(place)
    dram = choices.get("dram") or space.dram or f"banked:{board.dram}"
    objective: Objective = choices.get("objective", space.objective)
    chosen = dict(choices)
    notes: list[str] = []
    arch: Arch | None = None
    reasons: list[str] = []
    settings: dict[str, Any] = {}
    try:
        settings = _settings(space, chosen, board)
        if space.adapt:
            notes = _adapt(settings, space)
        arch = Arch.build(settings, where="illegal machine")
        parse_dram(dram, arch.clock_mhz)
    except ArchError as error:
        reasons.append(str(error))
    except TilewrightError as error:
        arch = None
        reasons.append(f"illegal memory: {error}")
    modes: tuple[RoundingMode, ...] = arch.rounding if arch is not None else ("f32",)
    mode: RoundingMode = chosen.get("mode", modes[0])
    if arch is not None and mode not in modes:
        reasons.append(f"rounding mode {mode}: the hardware has {', '.join(modes)}; add it to `rounding`")
    network = NetworkChoice(
        chosen.get("model.width"), chosen.get("model.resolution"), chosen.get("model.variant"), mode
    )
    what = [
        arch.design_hash if arch is not None else sorted(chosen.items()),
        _digest(place),
        dram,
        objective,
        [network.width, network.resolution, network.variant, network.mode],
    ]
    key = hashlib.sha256(json.dumps(what, default=str).encode()).hexdigest()[:20]
    quantities: dict[str, Any] = {}
    if arch is not None:
        quantities = _quantities(arch, board, dram, objective, chosen, mode)
        if space.constraints.fits:
            wanted = board if space.constraints.fits is True else _board(str(space.constraints.fits))
            reasons += fits(arch, wanted)
        static = [e for e in space.requirements if not set(e.names) - quantities.keys()]
        reasons += misses(static, quantities)
    return Point(
        number, chosen, arch, board, dram, objective, network, key, tuple(reasons), tuple(notes), quantities
    )


def misses(requirements: Sequence[Expression], quantities: Mapping[str, Any], claim: str = "") -> list[str]:
    """A sentence for each requirement that does not hold.

    Parameters
    ----------
    claim : str
        Of the results among the quantities; said in the sentence.
    """
    out = []
    said = f" ({claim})" if claim else ""
    for requirement in requirements:
        try:
            held = bool(requirement.value(quantities))
        except ArchError as error:
            out.append(f"constraint {error}")
            continue
        if not held:
            out.append(f"misses `{requirement.text}`{said}: {requirement.told(quantities)}")
    return out


@cache
def _board(name: str) -> Board:
    return Board.load(name)


@cache
def _digest(name: str) -> str:
    """Of the board's numbers, so that an edited file makes other designs."""
    return hashlib.sha256(_board(name).model_dump_json().encode()).hexdigest()[:16]


def _named(fits_: str | bool) -> str:
    return fits_ if isinstance(fits_, str) else ""


@cache
def _preset(name: str) -> str:
    return json.dumps(Arch.preset(name).model_dump(mode="json"))


def _settings(space: Space, chosen: Mapping[str, Any], board: Board) -> dict[str, Any]:
    """Nested settings of the machine: base, what the space fixes, axes, then what follows."""
    base = chosen.get("base", space.arch.get("base"))
    out: dict[str, Any] = (
        json.loads(_preset(base)) if base is not None else board.default_arch.model_dump(mode="json")
    )
    for key, value in space.arch.items():
        if key != "base":
            _set(out, key, value)
    if "mode" in chosen and "rounding" not in chosen and "rounding" not in space.arch:
        out["rounding"] = [chosen["mode"]]
    for path, value in chosen.items():
        if path.split(".")[0] in out:
            _set(out, path, value)
    if space.followers:
        known = {**_flat(out), **{f"board.{n}": getattr(board, n) for n in BOARD_QUANTITIES}}
        known |= {k: v for k, v in chosen.items() if v is not None}
        for path, expression in space.followers.items():
            missing = [n for n in expression.names if n not in known]
            if missing:
                raise ArchError(
                    f"follow, {path}: {missing[0]} is not known before the machine is; follow fields and axes"
                )
            value = expression.value(known)
            value = int(value) if isinstance(value, float) and value.is_integer() else value
            _set(out, path, value)
            known[path] = value
    if out.get("name") and not str(out["name"]).endswith("+"):
        out["name"] = f"{out['name']}+"
    return out


def _set(out: dict[str, Any], path: str, value: Any) -> None:
    node = out
    *parents, leaf = path.split(".")
    for parent in parents:
        node = node[parent]
    if isinstance(value, dict) and isinstance(node.get(leaf), dict):
        node[leaf] = {**node[leaf], **value}
    else:
        node[leaf] = value


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            out |= {f"{key}.{k}": v for k, v in value.items()}
        elif key not in {"name", "rounding"}:
            out[key] = value
    return out


def _adapt(settings: dict[str, Any], space: Space) -> list[str]:
    """Make sizes that were not meant to the unit legal, in place; what was changed.

    Choices of an axis keep their meaning: a memory has the nearest size that divides into its banks.
    """
    notes = []
    dwc = settings["dwc"]
    if not dwc.get("pixels") or not dwc.get("channels"):
        settings["dwc"] = dwc = {"pixels": 0, "channels": 0}  # its other fields mean nothing then
    for engine in (settings["conv"], dwc):
        if engine.get("pixels") and engine.get("drain", 0) > engine["pixels"]:
            name = "conv.drain" if engine is settings["conv"] else "dwc.drain"
            notes.append(f"{name} {engine['drain']} -> {engine['pixels']}, the pixels")
            engine["drain"] = engine["pixels"]
    try:
        shape = Arch.model_construct(
            conv=Conv(**settings["conv"]),
            dwc=Dwc(**dwc),
            vec=Vec(**settings["vec"]),
            maps=Maps(**settings["maps"]),
        )
    except ValueError:
        return notes  # Arch.build says what is wrong, with all else that is
    for table, row in (
        ("maps", shape.maps.groups * shape.banks * shape.lanes),
        ("weights", shape.lanes * shape.conv.oc),
    ):
        step = row // math.gcd(row, 1024)
        kib = settings[table]["kib"]
        nearest = max(1, math.floor(kib / step + 0.5)) * step
        if nearest != kib:
            notes.append(f"{table}.kib {kib:g} -> {nearest}, which divides into its banks")
            settings[table]["kib"] = nearest
    return notes


def _quantities(
    arch: Arch, board: Board, dram: str, objective: str, chosen: Mapping[str, Any], mode: str
) -> dict[str, Any]:
    """Everything about a design that an expression may read before it is evaluated."""
    uses = {r.resource: r.used for r in resources(arch, board)}
    out = _flat(arch.model_dump(mode="json"))
    out |= {name: getattr(arch, name) for name in DERIVED}
    out |= {f"board.{name}": getattr(board, name) for name in BOARD_QUANTITIES}
    out |= {
        "dsp": uses["DSP"],
        "bram": uses["BRAM36"],
        "uram": uses["URAM"],
        "lut": uses["LUT"],
        "ff": uses["FF"],
        "base": chosen.get("base", ""),
        "board": board.name,
        "dram": dram,
        "objective": objective,
        "mode": mode,
    }
    return out | {k: chosen[k] for k in ("model.width", "model.resolution", "model.variant") if k in chosen}
