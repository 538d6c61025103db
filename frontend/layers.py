"""Layers: what the DPU will run, still in floating point, on maps (H, W, C).

One class for each operator of `ir.graph`; the quantiser turns a layer into its integer operator. `clamp` is the
folded activation, in real values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Shape, Window

__all__ = [
    "Average",
    "Cut",
    "Exact",
    "Fill",
    "Join",
    "Layer",
    "Linear",
    "Maximum",
    "Product",
    "Recast",
    "Sample",
    "Slopes",
    "Step",
    "Sum",
    "Unary",
]

Array = NDArray[Any]
Clamp = tuple[float, float]
OPEN: Clamp = (-inf, inf)
POINT = Window()


@dataclass(frozen=True, eq=False)
class Layer:
    """Name, input maps, output map, and the ONNX nodes it stands for."""

    name: str
    inputs: tuple[str, ...]
    output: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Exact:
    """Integer weights the model brought: (O, KH, KW, I) int8, scale (O,), int32 bias (O,) or None."""

    weight: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.int32] | None


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """Convolution, transposed convolution, fully connected layer or affine map."""

    weight: Array = field(repr=False)
    bias: Array = field(repr=False)
    window: Window = POINT
    groups: int = 1
    transposed: bool = False
    output_pad: tuple[int, int] = (0, 0)
    clamp: Clamp = OPEN
    moves: bool = False
    exact: Exact | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Sum(Layer):
    """``a * first + b * second``."""

    factors: tuple[float, float] = (1.0, 1.0)
    clamp: Clamp = OPEN
    joins: bool = False
    """The operands are zero where the other is not: a concatenation in disguise, one scale for all."""


@dataclass(frozen=True, eq=False)
class Product(Layer):
    """``first * second``."""

    clamp: Clamp = OPEN


@dataclass(frozen=True, eq=False)
class Maximum(Layer):
    """Max pooling."""

    window: Window = POINT
    clamp: Clamp = OPEN


@dataclass(frozen=True, eq=False)
class Average(Layer):
    """Average pooling; `divisor` 0 counts valid taps only."""

    window: Window = POINT
    divisor: int = 0
    clamp: Clamp = OPEN


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One elementwise operation of a table: operands are earlier results by name, or constants."""

    op: str
    operands: tuple[str | float, ...]
    result: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Unary(Layer):
    """A function of one value, tabulated; no steps: the identity (a rescale)."""

    root: str = ""
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, eq=False)
class Slopes(Layer):
    """PRelu: slope per channel below zero."""

    slope: Array = field(default_factory=lambda: np.zeros(0))
    clamp: Clamp = OPEN


@dataclass(frozen=True, eq=False)
class Join(Layer):
    """Channels side by side."""


@dataclass(frozen=True, eq=False)
class Cut(Layer):
    """A box of the map."""

    start: Shape = (0, 0, 0)
    stop: Shape = (0, 0, 0)
    step: Shape = (1, 1, 1)


@dataclass(frozen=True, eq=False)
class Fill(Layer):
    """Constant padding with a real value."""

    before: Shape = (0, 0, 0)
    after: Shape = (0, 0, 0)
    value: float = 0.0


@dataclass(frozen=True, eq=False)
class Sample(Layer):
    """Resize: source index and fraction of 2048 for each output row and column."""

    rows: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), np.int32), repr=False)
    cols: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), np.int32), repr=False)


@dataclass(frozen=True, eq=False)
class Recast(Layer):
    """The same pixels in another height and width."""

    shape: Shape = (1, 1, 1)
