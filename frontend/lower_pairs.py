"""Operators on two operands: sums and products of maps, and of a map with a constant a channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layers import Linear, Product, Slopes, Sum
from .lower import Groups, Lowering, groups_of
from .lower_linear import weights_of
from .lower_views import identity
from .network import Node
from .views import Unmapped, channels_first, channels_last

__all__ = ["PAIRS"]

Array = NDArray[Any]


def _batch_norm(lo: Lowering, node: Node) -> str:
    gamma, beta, mean, variance = (weights_of(lo, n).astype(np.float64) for n in node.inputs[1:5])
    scale = gamma / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
    return lo.affine(node, node.inputs[0], scale, beta - mean * scale, 1)


def _channel_constant(lo: Lowering, value: Array, logical: tuple[int, ...]) -> tuple[Array, int]:
    """A constant that varies along one axis: its values and that axis."""
    if value.size == 1:
        return value.reshape(-1).astype(np.float64), 1 if len(logical) > 1 else 0
    padded = (1,) * (len(logical) - value.ndim) + value.shape
    varying = [i for i, e in enumerate(padded) if e > 1]
    if len(padded) > len(logical) or len(varying) != 1 or padded[varying[0]] != logical[varying[0]]:
        raise Unmapped(
            f"its constant of shape {list(value.shape)} varies along more than the channels",
            "use one constant a channel",
        )
    axis = varying[0]
    if axis not in {1, len(logical) - 1} or len(logical) > 4:
        raise Unmapped(
            f"its constant varies along axis {axis}, which is no channel axis", "use one constant a channel"
        )
    return value.reshape(-1).astype(np.float64), axis


def _binary(lo: Lowering, node: Node) -> str:
    names = [i for i in node.inputs if i]
    if len(names) > 2:
        return _many(lo, node, names)
    if len(names) == 1:
        return identity(lo, node)
    a, b = names
    out, logical = node.outputs[0], lo.shape(node.outputs[0])
    for i, name in enumerate(names):
        value = lo.constant(name)
        if value is None:
            continue
        tensor = names[1 - i]
        if lo.shape(tensor) != logical:
            raise Unmapped("its constant has more elements than its tensor", "use one constant a channel")
        k, axis = _channel_constant(lo, value, logical)
        match node.op, i:
            case "Mul", _:
                return lo.affine(node, tensor, k, np.zeros(1), axis)
            case "Div", 1 if np.all(k):
                return lo.affine(node, tensor, 1.0 / k, np.zeros(1), axis)
            case "Add" | "Sum", _:
                return lo.affine(node, tensor, np.ones(1), k, axis)
            case "Sub", 1:
                return lo.affine(node, tensor, np.ones(1), -k, axis)
            case "Sub", 0:
                return lo.affine(node, tensor, -np.ones(1), k, axis)
        raise Unmapped(f"{node.op} of a constant per channel", "it runs on the host, in onnxruntime")
    if node.op not in {"Add", "Sub", "Sum", "Mul"}:
        raise Unmapped(
            f"{node.op} of two computed tensors", "multiply by a reciprocal, or leave it to the host"
        )
    factors = (1.0, -1.0 if node.op == "Sub" else 1.0)
    sa, sb = lo.shape(a), lo.shape(b)
    if sa != logical and sb == logical:
        a, b, sa, sb, factors = b, a, sb, sa, (factors[1], factors[0])
    first, second, groups = _operands(lo, (a, sa), (b, sb), logical)
    if node.op == "Mul":
        lo.emit(Product(node.name, (first, second), out, (node.name,)), lo.shapes[first])
    else:
        lo.emit(Sum(node.name, (first, second), out, (node.name,), factors), lo.shapes[first])
    lo.place(out, out, groups)
    return "a product" if node.op == "Mul" else "a sum"


def _operands(
    lo: Lowering,
    wide: tuple[str, tuple[int, ...]],
    narrow: tuple[str, tuple[int, ...]],
    logical: tuple[int, ...],
) -> tuple[str, str, Groups]:
    """Maps of both operands in one order; a single value a pixel is spread over the channels."""
    (a, sa), (b, sb) = wide, narrow
    if sa != logical:
        raise Unmapped(f"broadcasts both operands, {list(sa)} and {list(sb)}", "broadcast one of them only")
    order = channels_last if groups_of(channels_last, logical) == lo.layout(a) else channels_first
    if len(logical) > 4 or (len(logical) > 1 and logical[0] != 1):
        raise Unmapped(f"a tensor of shape {list(logical)} is not one frame", "export with batch 1")
    groups = groups_of(order, logical)
    padded = (1,) * (len(logical) - len(sb)) + sb
    first = lo.dense(a, groups)
    view = lo.view(b)
    if padded != sb:  # fewer axes: seen with leading ones
        seen = f"{b}/as{len(logical)}"
        lo.network.shapes[seen] = padded  # type: ignore[index]
        lo.views[seen] = replace(view, axes=((),) * (len(logical) - len(sb)) + view.axes)
        b = seen
    second = lo.dense(b, groups)
    (h, w, c), have = lo.shapes[first], lo.shapes[second]
    if have[2] == 1 and c > 1 and have[:2] in {(h, w), (1, 1)}:
        spread = f"{b}/spread{c}"
        if spread not in lo.shapes:
            ones = np.ones((c, 1, 1, 1), np.float32)
            lo.emit(Linear(spread, (second,), spread, (), ones, np.zeros(c), moves=True), (*have[:2], c))
            lo._inherit(spread, second)
        second, have = spread, lo.shapes[spread]
    if have not in {(h, w, c), (1, 1, c)}:
        raise Unmapped(
            f"broadcasts {list(sb)} over {list(sa)}", "broadcast one value a channel, or one a pixel"
        )
    return first, second, groups


def _many(lo: Lowering, node: Node, names: list[str]) -> str:
    """A sum of many maps as a chain of sums of two."""
    if node.op != "Sum":
        raise Unmapped(f"{node.op} of {len(names)} operands", "use two operands")
    logical, out = lo.shape(node.outputs[0]), node.outputs[0]
    if any(n in lo.network.constants or lo.shape(n) != logical for n in names):
        raise Unmapped("sums maps of different shapes or constants", "use Add")
    groups = lo.layout(names[0])
    total = lo.dense(names[0], groups)
    for i, name in enumerate(names[1:], 1):
        last = i == len(names) - 1
        result = out if last else f"{out}/sum{i}"
        lo.emit(
            Sum(
                node.name if last else f"{node.name}/{i}",
                (total, lo.dense(name, groups)),
                result,
                (node.name,),
            ),
            lo.shapes[total],
        )
        total = result
    lo.place(out, out, groups)
    return "a chain of sums"


def _prelu(lo: Lowering, node: Node) -> str:
    x, out = node.inputs[0], node.outputs[0]
    logical = lo.shape(x)
    slope, axis = _channel_constant(lo, weights_of(lo, node.inputs[1]), logical)
    groups = groups_of(channels_first if axis == 1 else channels_last, logical)
    storage = lo.dense(x, groups)
    values = np.broadcast_to(slope, (lo.shapes[storage][2],)).astype(np.float64)
    lo.emit(Slopes(node.name, (storage,), out, (node.name,), values), lo.shapes[storage])
    lo.place(out, out, groups)
    return "a PRelu"


PAIRS: Mapping[str, Callable[[Lowering, Node], str]] = {
    "Add": _binary,
    "BatchNormalization": _batch_norm,
    "Div": _binary,
    "Mul": _binary,
    "PRelu": _prelu,
    "Sub": _binary,
    "Sum": _binary,
}
"""What each operator on two operands becomes."""
