"""Networks of a study: each variant, width, resolution and rounding mode quantised once, named by its content."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .api import ZOO, find, load_int8
from .archive import pack
from .explore_points import NetworkChoice
from .explore_space import Space
from .ir.errors import ModelError, TilewrightError
from .ir.graph import Graph
from .segments import silent

if TYPE_CHECKING:
    from .frontend import Model, Network

__all__ = ["VARIANT", "Feed", "Networks", "Prepared"]

VARIANT = "variant"
"""What the network of the axis ``model.variant`` is called in a mix."""


@dataclass(frozen=True, slots=True)
class Feed:
    """How float networks become int8, as `compile` takes it."""

    calibration: Any = None
    synthetic_calibration: bool = False
    input_shape: Any = None
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One int8 network, ready to be scheduled.

    Parameters
    ----------
    digest : str
        SHA-256 of its int8 graphs: equal content, equal name.
    sqnr_db : float or None
        Of its last layer, int8 against float on one calibration frame; None where nobody asked.
    host : tuple of str
        Operators left to the host, in none of the numbers.
    """

    name: str
    digest: str
    graphs: tuple[Graph, ...] = field(repr=False)
    macs: int
    calibration: str
    sqnr_db: float | None = None
    host: tuple[str, ...] = ()


class Networks:
    """The networks that the points of a study need, prepared when first asked for.

    Parameters
    ----------
    models : sequence of path, ``zoo:NAME``, onnx.ModelProto, Network or Model
    variants : sequence of str
        Of the axis ``model.variant``.
    sqnr : bool
        Measure the quantisation noise too.

    Raises
    ------
    ModelError
        No network at all, or an axis that a network cannot follow.
    """

    def __init__(
        self,
        models: Sequence[Any],
        space: Space,
        feed: Feed,
        *,
        sqnr: bool = False,
        on_stage: Callable[[str], None] = silent,
    ) -> None:
        self.models = _by_name(models)
        self.space, self.feed, self.sqnr, self.on_stage = space, feed, sqnr, on_stage
        self._made: dict[tuple[str, NetworkChoice], Prepared] = {}
        self._blobs: dict[str, bytes] = {}
        self._usable = False
        variants = space.axes.get("model.variant", ())
        if not self.models and not variants:
            raise ModelError(
                "a study needs a network: name ONNX files or zoo:NAME, write `models` into the space, or give it an axis "
                "model.variant"
            )
        fixed = [n for n, m in self.models.items() if not _is_zoo(m)] + [
            v for v in variants if not _is_zoo(v)
        ]
        if fixed and "model.width" in space.axes:
            raise ModelError(
                f"model.width: {fixed[0]} is no zoo: network, its widths are in the file; give the widths as files on the "
                "axis model.variant"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the networks of every mix."""
        return (*self.models, *((VARIANT,) if "model.variant" in self.space.axes else ()))

    def of(self, choice: NetworkChoice) -> dict[str, Prepared]:
        """The networks of a point, by name."""
        out = {name: self._prepared(name, model, choice) for name, model in self.models.items()}
        if choice.variant is not None:
            out[VARIANT] = self._prepared(VARIANT, choice.variant, choice)
        return out

    def blobs(self, digests: Iterable[str]) -> dict[str, bytes]:
        """What a worker needs to know of these networks."""
        return {d: self._blobs[d] for d in digests}

    @property
    def known(self) -> dict[str, Prepared]:
        """Every network prepared so far, by content."""
        return {p.digest: p for p in self._made.values()}

    def lacking(self, choices: Iterable[NetworkChoice]) -> dict[NetworkChoice, str]:
        """Which of these the networks cannot follow, and why: a mode that an operator lacks, a size it cannot have.

        Raises
        ------
        ModelError
            None of them works, nor did any before: it is not the choice that is wrong.
        """
        out = {}
        first: TilewrightError | None = None
        for choice in dict.fromkeys(choices):
            try:
                self.of(choice)
                self._usable = True
            except TilewrightError as error:
                first = first or error
                out[choice] = str(error)
        if first is not None and not self._usable:
            raise first
        return out

    def _prepared(self, name: str, model: Any, choice: NetworkChoice) -> Prepared:
        key = (name, choice)
        if key not in self._made:
            told = " ".join(str(v) for v in (choice.width, choice.resolution, choice.mode) if v is not None)
            self.on_stage(f"quantise {choice.variant if name == VARIANT else name} {told}".rstrip())
            made = self._quantised(model, choice)
            digest = hashlib.sha256(pack(made.graphs)).hexdigest()
            noise = list(made.sqnr_db.values()) if self.sqnr else []
            host = tuple(op for s in made.segments for _, op in getattr(s, "nodes", ()))
            if not made.graphs:
                raise ModelError(f"{made.name}: no operator runs on the DPU; `tilewright check` says why")
            self._made[key] = Prepared(
                name, digest, made.graphs, made.macs, made.calibration, noise[-1] if noise else None, host
            )
            self._blobs.setdefault(digest, pickle.dumps(made.graphs, pickle.HIGHEST_PROTOCOL))
        return self._made[key]

    def _quantised(self, model: Any, choice: NetworkChoice) -> Model:
        from .frontend import Model

        if isinstance(model, Model) or str(model).endswith(".npz"):
            return self._as_it_is(model, choice)
        feed = self.feed
        return load_int8(
            self._read(model, choice),
            calibration=feed.calibration,
            synthetic_calibration=feed.synthetic_calibration,
            mode=choice.mode,
            seed=feed.seed,
        )

    def _as_it_is(self, model: Any, choice: NetworkChoice) -> Model:
        from .frontend import Model
        from .stored import load_model

        given = model if isinstance(model, Model) else load_model(Path(model))
        if choice.resolution is not None:
            raise ModelError(
                f"model.resolution: {given.name} is int8 already and its shapes are fixed; give the ONNX file"
            )
        if given.mode != choice.mode:
            raise ModelError(
                f"{given.name} is int8 with rounding mode {given.mode}, a design of the space needs {choice.mode}; "
                f'give the ONNX file, or write rounding = ["{given.mode}"] under [arch]'
            )
        return given

    def _read(self, model: Any, choice: NetworkChoice) -> Network:
        from .frontend import load, zoo

        if _is_zoo(model) and (choice.width is not None or choice.resolution is not None):
            name = str(model).removeprefix(ZOO)
            width = 1.0 if choice.width is None else choice.width
            return load(
                zoo.build(name, seed=self.feed.seed, width=width, resolution=choice.resolution), name=name
            )
        shape = self.feed.input_shape
        if choice.resolution is not None:
            shape = _resized(model, choice.resolution)
        return find(model, input_shape=shape, seed=self.feed.seed)[0]


def _is_zoo(model: Any) -> bool:
    return isinstance(model, str) and model.startswith(ZOO)


def _by_name(models: Sequence[Any]) -> dict[str, Any]:
    """Models by a short name; a number tells equal ones apart."""
    out: dict[str, Any] = {}
    for model in models:
        if isinstance(model, str | Path):
            name = str(model).removeprefix(ZOO) if _is_zoo(model) else Path(model).stem
        else:
            name = str(
                getattr(model, "name", "") or getattr(getattr(model, "graph", None), "name", "network")
            )
        n = 2
        base = name
        while name in out or name == VARIANT:
            name, n = f"{base}-{n}", n + 1
        out[name] = model
    return out


def _resized(model: Any, resolution: int) -> Mapping[str, tuple[int, ...]]:
    """Shapes of an ONNX file's image inputs with this many pixels a side."""
    import onnx

    try:
        proto = onnx.load(str(model), load_external_data=False) if isinstance(model, str | Path) else model
        inputs = list(proto.graph.input)
    except Exception as error:
        raise ModelError(f"{model}: cannot be read as an ONNX file: {error}") from None
    given = {i.name for i in proto.graph.initializer}
    out = {}
    for port in inputs:
        dims = port.type.tensor_type.shape.dim
        if port.name in given or len(dims) != 4:
            continue
        out[port.name] = (1, dims[1].dim_value or 3, resolution, resolution)
    if not out:
        raise ModelError(f"model.resolution: {model} has no input of four dimensions (NCHW)")
    return out
