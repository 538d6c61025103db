"""Functions of one value: what a 256-entry table can hold, and which of them fold into a clamp.

A *chain* is a part of the graph in which every tensor is a function of one root tensor, whatever its shape inside:
``x * sigmoid(x)``, ``x * clip(x + 3, 0, 6) / 6``, ``x / 2 * (1 + erf(x / sqrt 2))``. All of it becomes one table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import erf, inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layers import Step

__all__ = ["ELEMENTWISE", "affine_clamp", "evaluate"]

Values = NDArray[np.float64]
_erf = np.vectorize(erf, otypes=[np.float64])


def _sigmoid(x: Values) -> Values:
    y: Values = 1.0 / (1.0 + np.exp(-x))
    return y


def _softplus(x: Values) -> Values:
    y: Values = np.logaddexp(0.0, x)
    return y


def _gelu(x: Values, approximate: str = "none") -> Values:
    tanh = approximate == "tanh"
    inner = np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)) if tanh else _erf(x / np.sqrt(2.0))
    y: Values = 0.5 * x * (1.0 + inner)
    return y


def _clip(x: Values, low: Any = None, high: Any = None, **attributes: Any) -> Values:
    low = attributes.get("min", -inf) if low is None else low
    high = attributes.get("max", inf) if high is None else high
    y: Values = np.minimum(np.maximum(x, low), high)
    return y


def _elu(x: Values, alpha: float = 1.0) -> Values:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _selu(x: Values, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Values:
    return gamma * _elu(x, alpha)


# Defaults and formulas: ONNX operator specification.
ELEMENTWISE: Mapping[str, Callable[..., Values]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Celu": lambda x, alpha=1.0: np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.minimum(x, 0) / alpha)),
    "Ceil": np.ceil,
    "Clip": _clip,
    "Cos": np.cos,
    "Div": np.divide,
    "Elu": _elu,
    "Erf": _erf,
    "Exp": np.exp,
    "Floor": np.floor,
    "Gelu": _gelu,
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "LeakyRelu": lambda x, alpha=0.01: np.where(x < 0, alpha * x, x),
    "Log": np.log,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mish": lambda x: x * np.tanh(_softplus(x)),
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "QuickGelu": lambda x, alpha=1.702: x * _sigmoid(alpha * x),
    "Reciprocal": lambda x: 1.0 / x,
    "Relu": lambda x: np.maximum(x, 0),
    "Round": np.rint,
    "Selu": _selu,
    "Shrink": lambda x, lambd=0.5, bias=0.0: np.where(
        x < -lambd, x + bias, np.where(x > lambd, x - bias, 0.0)
    ),
    "Sigmoid": _sigmoid,
    "Sign": np.sign,
    "Sin": np.sin,
    "Softplus": _softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Sum": lambda *xs: sum(xs[1:], xs[0]),
    "Swish": lambda x, alpha=1.0: x * _sigmoid(alpha * x),
    "Tanh": np.tanh,
    "ThresholdedRelu": lambda x, alpha=1.0: np.where(x > alpha, x, 0.0),
}
"""Operators a table may contain, with their attributes as keywords."""


def evaluate(steps: Sequence[Step], root: str, values: Values) -> Values:
    """The chain at `values` of its root; no steps is the identity.

    >>> evaluate([Step("Relu", ("x",), "y", {})], "x", np.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    known: dict[str, Any] = {root: np.asarray(values, np.float64)}
    result = known[root]
    with np.errstate(all="ignore"):
        for step in steps:
            operands = [known[o] if isinstance(o, str) else o for o in step.operands]
            result = known[step.result] = np.asarray(
                ELEMENTWISE[step.op](*operands, **step.attributes), np.float64
            )
    most = float(np.finfo(np.float32).max)
    finite: Values = np.nan_to_num(result, nan=0.0, posinf=most, neginf=-most)
    return finite


def affine_clamp(steps: Sequence[Step], root: str) -> tuple[float, float, float, float] | None:
    """A chain as ``clamp(k * x + b, low, high)``: (k, b, low, high), or None where it is no such thing.

    >>> affine_clamp([Step("Add", ("x", 3.0), "a", {}), Step("Clip", ("a", 0.0, 6.0), "b", {})], "x")
    (1.0, 3.0, 0.0, 6.0)
    """
    k, b, low, high = 1.0, 0.0, -inf, inf
    current = root
    for step in steps:
        tensors = [o for o in step.operands if isinstance(o, str)]
        constants = [o for o in step.operands if not isinstance(o, str)]
        if tensors != [current]:
            return None
        current = step.result
        scale, shift, floor, ceiling = 1.0, 0.0, -inf, inf
        first = isinstance(step.operands[0], str)
        match step.op, constants:
            case "Relu", []:
                floor = 0.0
            case "Clip", _ if first:
                floor = constants[0] if constants else step.attributes.get("min", -inf)
                ceiling = constants[1] if len(constants) > 1 else step.attributes.get("max", inf)
            case "Max", [c]:
                floor = c
            case "Min", [c]:
                ceiling = c
            case "Add" | "Sum", [c]:
                shift = c
            case "Sub", [c]:
                scale, shift = (1.0, -c) if first else (-1.0, c)
            case "Mul", [c]:
                scale = c
            case "Div", [c] if first and c:
                scale = 1.0 / c
            case "Neg", []:
                scale = -1.0
            case "HardSigmoid", []:
                scale, shift = step.attributes.get("alpha", 0.2), step.attributes.get("beta", 0.5)
                floor, ceiling = 0.0, 1.0
            case _:
                return None
        if not scale:
            return None
        k, b = k * scale, b * scale + shift
        low, high = low * scale + shift, high * scale + shift
        if scale < 0:
            low, high = high, low
        low, high = min(max(low, floor), ceiling), min(max(high, floor), ceiling)
    return k, b, low, high
