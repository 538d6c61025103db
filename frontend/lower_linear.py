"""Operators with weights: convolutions, matrix products with constants, normalisation, sums and products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Shape, Window
from .layers import Exact, Fill, Linear, Product, Slopes, Sum
from .lower import Groups, Lowering, groups_of
from .network import Node
from .views import Unmapped, channels_first, channels_last

__all__ = ["LINEAR", "window_of"]

Array = NDArray[Any]


def window_of(node: Node, kernel: tuple[int, int], shape: Shape, rank: int) -> Window:
    """Window of a convolution or pool node on a map of this shape; one spatial axis becomes W."""
    a = node.attributes

    def pair(key: str) -> tuple[int, int]:
        values = [int(v) for v in a.get(key, ())]
        return (1, values[0]) if len(values) == 1 else (values[0], values[1]) if values else (1, 1)

    stride, dilation = pair("strides"), pair("dilations")
    span = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    auto = a.get("auto_pad", "NOTSET")
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        low, high = [], []
        for extent, s, k in zip(shape[:2], stride, span, strict=True):
            total = max(0, (-(-extent // s) - 1) * s + k - extent)
            small, big = total // 2, total - total // 2
            low.append(small if auto == "SAME_UPPER" else big)
            high.append(big if auto == "SAME_UPPER" else small)
        pad = (low[0], low[1], high[0], high[1])
    elif auto == "VALID":
        pad = (0, 0, 0, 0)
    else:
        p = [int(v) for v in a.get("pads", ())]
        pad = (0, p[0], 0, p[1]) if rank == 3 and p else (p[0], p[1], p[2], p[3]) if p else (0, 0, 0, 0)
    if min(pad) < 0:
        raise Unmapped("negative padding", "crop with Slice instead")
    return Window(kernel, stride, dilation, pad)


def _weights(lo: Lowering, name: str) -> Array:
    value = lo.constant(name)
    if value is None:
        raise Unmapped("its weights are computed by the network", "it runs on the host, in onnxruntime")
    return value


def _bias(lo: Lowering, node: Node, slot: int, outputs: int) -> tuple[Array, NDArray[np.int64] | None]:
    """Real bias, and the integers the model brought for it."""
    if len(node.inputs) <= slot or not node.inputs[slot]:
        return np.zeros(outputs), None
    value = _weights(lo, node.inputs[slot])
    known = lo.network.weights.get(node.inputs[slot])
    flat = np.broadcast_to(value.reshape(-1).astype(np.float64), (outputs,))
    exact = np.broadcast_to(known.values.reshape(-1), (outputs,)) if known is not None else None
    return flat, exact


def _exact(
    lo: Lowering,
    name: str,
    out_axis: int,
    bias: NDArray[np.int64] | None,
    rearrange: Callable[[Array], Array],
) -> Exact | None:
    """The model's own int8 weights in our order, if it has them and they fit."""
    known = lo.network.weights.get(name)
    if (
        known is None
        or known.axis not in {None, out_axis}
        or known.values.min() < -128
        or known.values.max() > 127
    ):
        return None
    weight = rearrange(known.values).astype(np.int8)
    scale = np.broadcast_to(known.scale, (weight.shape[0],)).astype(np.float32)
    return Exact(weight, scale, None if bias is None else bias.astype(np.int32))


def _conv(lo: Lowering, node: Node) -> str:
    x, out = node.inputs[0], node.outputs[0]
    raw = _weights(lo, node.inputs[1])
    rank = len(lo.shape(x))
    if rank not in {3, 4} or raw.ndim != rank:
        raise Unmapped(f"a convolution over {rank - 2} spatial axes", "the DPU convolves over one or two")

    def rearrange(w: Array) -> Array:
        return (w[:, :, None, :] if rank == 3 else w).transpose(0, 2, 3, 1)

    weight = rearrange(raw)
    groups = int(node.attributes.get("group", 1))
    storage = lo.dense(x)
    nodes: tuple[str, ...] = (node.name,)
    window = window_of(node, weight.shape[1:3], lo.shapes[storage], rank)
    producer = lo.layers.get(storage)
    if (
        isinstance(producer, Fill)
        and producer.value == 0.0
        and producer.before[2] == producer.after[2] == 0
        and lo.sole(x)
        and producer.output == x
        and node.attributes.get("auto_pad", "NOTSET") == "NOTSET"
    ):
        top, left, bottom, right = window.pad
        extra = (*producer.before[:2], *producer.after[:2])
        window = replace(window, pad=(top + extra[0], left + extra[1], bottom + extra[2], right + extra[3]))
        nodes, storage = (*producer.nodes, node.name), producer.inputs[0]
        del lo.layers[producer.output]
        lo.shapes.pop(producer.output)
        lo.views.pop(x)
    if lo.shapes[storage][2] != groups * weight.shape[3]:
        raise Unmapped(f"{lo.shapes[storage][2]} input channels and weights for {groups} x {weight.shape[3]}")
    bias, integers = _bias(lo, node, 2, weight.shape[0])
    layer = Linear(
        node.name,
        (storage,),
        out,
        nodes,
        weight,
        bias,
        window,
        groups,
        exact=_exact(lo, node.inputs[1], 0, integers, rearrange),
    )
    oh, ow = window.output(*lo.shapes[storage][:2])
    lo.emit(layer, (oh, ow, weight.shape[0]))
    lo.place(out, out, groups_of(channels_first, lo.shape(out)))
    return "a depthwise convolution" if groups > 1 and weight.shape[3] == 1 else "a convolution"


def _conv_transpose(lo: Lowering, node: Node) -> str:
    x, out = node.inputs[0], node.outputs[0]
    raw = _weights(lo, node.inputs[1])
    rank, groups = len(lo.shape(x)), int(node.attributes.get("group", 1))
    if rank not in {3, 4} or raw.ndim != rank:
        raise Unmapped(f"a transposed convolution over {rank - 2} spatial axes", "the DPU has one or two")

    def rearrange(w: Array) -> Array:
        w = w[:, :, None, :] if rank == 3 else w
        per_in, per_out = w.shape[0] // groups, w.shape[1]
        w = w.reshape(groups, per_in, per_out, *w.shape[2:]).transpose(0, 2, 3, 4, 1)
        return w.reshape(groups * per_out, *w.shape[2:])

    weight = rearrange(raw)
    storage = lo.dense(x)
    plain = {k: v for k, v in node.attributes.items() if k != "auto_pad"}
    window = window_of(replace(node, attributes=plain), weight.shape[1:3], lo.shapes[storage], rank)
    asked = [int(v) for v in node.attributes.get("output_padding", ())]
    extra = (0, asked[0]) if len(asked) == 1 else (asked[0], asked[1]) if asked else (0, 0)
    # What the model declares decides: auto_pad and output_shape only ever change the pads.
    shape_out = lo.shape(out)
    want = (1, shape_out[2]) if rank == 3 else (shape_out[2], shape_out[3])
    full = [
        (e - 1) * s + k + o
        for e, s, k, o in zip(lo.shapes[storage][:2], window.stride, window.span, extra, strict=True)
    ]
    have = [f - window.pad[i] - window.pad[i + 2] for i, f in enumerate(full)]
    if have != list(want):
        total = [f - w for f, w in zip(full, want, strict=True)]
        if min(total) < 0:
            raise Unmapped(
                f"an output of {want} from {lo.shapes[storage][:2]} needs negative padding",
                "drop output_shape",
            )
        # ONNX ConvTranspose: SAME_UPPER puts the smaller half at the start, every other case at the end.
        upper = node.attributes.get("auto_pad") == "SAME_UPPER"
        low = [t // 2 if upper else t - t // 2 for t in total]
        window = replace(window, pad=(low[0], low[1], total[0] - low[0], total[1] - low[1]))
    bias, integers = _bias(lo, node, 2, weight.shape[0])
    exact = None if groups > 1 else _exact(lo, node.inputs[1], 1, integers, rearrange)
    layer = Linear(
        node.name,
        (storage,),
        out,
        (node.name,),
        weight,
        bias,
        window,
        groups,
        transposed=True,
        output_pad=extra,
        exact=exact,
    )
    lo.emit(layer, (want[0], want[1], weight.shape[0]))
    lo.place(out, out, groups_of(channels_first, shape_out))
    return "a transposed convolution"


def _dot(
    lo: Lowering,
    node: Node,
    x: str,
    weights: str,
    *,
    transposed: bool,
    alpha: float,
    bias: Array,
    integers: Any,
) -> str:
    """Product of the last axis of x with a constant matrix (N, K), or (K, N) where not `transposed`."""
    out, logical = node.outputs[0], lo.shape(x)
    raw = _weights(lo, weights)
    matrix_shape = raw.shape[-2:]

    def rows(w: Array) -> Array:
        flat = w.reshape(matrix_shape)
        return flat if transposed else flat.T

    matrix = rows(raw)
    inner, pixels = logical[-1], int(np.prod(logical[:-1]))
    if matrix.shape[1] != inner:
        raise Unmapped(f"{inner} values and weights for {matrix.shape[1]}")
    out_axis = raw.ndim - (2 if transposed else 1)
    view = lo.view(x)
    if pixels == 1 and not view.storage.startswith("@"):
        # The whole map against each row: the weights take the map's order, so a Flatten costs nothing.
        storage, (h, w, c) = view.storage, lo.shapes[view.storage]
        index = view.index().reshape(-1)
        order: Array = np.argsort(index)

        def rearrange(values: Array) -> Array:
            return rows(values)[:, order].reshape(-1, h, w, c)

        window, shape = Window((h, w)), (1, 1, matrix.shape[0])
    else:
        groups: Groups = ((), tuple(range(len(logical) - 1)), (len(logical) - 1,))
        storage = lo.dense(x, groups)

        def rearrange(values: Array) -> Array:
            return rows(values)[:, None, None, :]

        window, shape = Window(), (1, pixels, matrix.shape[0])
    key = (node.name, view.order)
    if key not in lo.memo:
        exact = _exact(lo, weights, out_axis, integers, rearrange) if alpha == 1.0 else None
        weight = rearrange(raw)
        lo.memo[key] = (weight if alpha == 1.0 else weight * alpha, exact)
    weight, exact = lo.memo[key]
    layer = Linear(node.name, (storage,), out, (node.name,), weight, bias, window, exact=exact)
    lo.emit(layer, shape)
    rank = len(lo.shape(out))
    lo.place(out, out, ((), tuple(range(rank - 1)), (rank - 1,)))
    return "a fully connected layer" if pixels == 1 else "a 1x1 convolution"


def _gemm(lo: Lowering, node: Node) -> str:
    a = node.attributes
    if a.get("transA", 0) or node.inputs[0] in lo.network.constants:
        raise Unmapped("its first operand is transposed or constant", "put the weights second")
    shape = lo.shape(node.outputs[0])
    integers, bias = None, np.zeros(shape[-1])
    if len(node.inputs) > 2 and node.inputs[2]:
        given = _weights(lo, node.inputs[2])
        if given.size not in {1, shape[-1]} or (given.size > 1 and given.shape[-1] != shape[-1]):
            raise Unmapped("adds a bias that differs by row", "add one value a column")
        bias, integers = _bias(lo, node, 2, shape[-1])
    beta = float(a.get("beta", 1.0))
    return _dot(
        lo,
        node,
        node.inputs[0],
        node.inputs[1],
        transposed=bool(a.get("transB", 0)),
        alpha=float(a.get("alpha", 1.0)),
        bias=bias * beta,
        integers=integers if beta == 1.0 else None,
    )


def _matmul(lo: Lowering, node: Node) -> str:
    if node.inputs[1] not in lo.network.constants:
        raise Unmapped("multiplies two computed tensors (attention)", "it runs on the host, in onnxruntime")
    weights = _weights(lo, node.inputs[1])
    if (
        node.inputs[0] in lo.network.constants
        or weights.ndim < 2
        or weights.size != weights.shape[-1] * weights.shape[-2]
    ):
        raise Unmapped("its weights are no single matrix on the right", "put the weights second")
    zero = np.zeros(weights.shape[-1])
    return _dot(
        lo, node, node.inputs[0], node.inputs[1], transposed=False, alpha=1.0, bias=zero, integers=None
    )


def _batch_norm(lo: Lowering, node: Node) -> str:
    gamma, beta, mean, variance = (_weights(lo, n).astype(np.float64) for n in node.inputs[1:5])
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
        from .lower_maps import identity

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
    slope, axis = _channel_constant(lo, _weights(lo, node.inputs[1]), logical)
    groups = groups_of(channels_first if axis == 1 else channels_last, logical)
    storage = lo.dense(x, groups)
    values = np.broadcast_to(slope, (lo.shapes[storage][2],)).astype(np.float64)
    lo.emit(Slopes(node.name, (storage,), out, (node.name,), values), lo.shapes[storage])
    lo.place(out, out, groups)
    return "a PRelu"


LINEAR: Mapping[str, Callable[[Lowering, Node], str]] = {
    "Add": _binary,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _binary,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Mul": _binary,
    "PRelu": _prelu,
    "Sub": _binary,
    "Sum": _binary,
}
"""What each operator with weights or two operands becomes."""
