"""Operators with weights: convolutions, transposed convolutions, and matrix products with constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Shape, Window
from .layers import Exact, Fill, Linear
from .lower import Groups, Lowering, groups_of
from .network import Node
from .views import Unmapped, channels_first

__all__ = ["LINEAR", "weights_of", "window_of"]

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


def weights_of(lo: Lowering, name: str) -> Array:
    """A constant operand; Unmapped where the network computes it."""
    value = lo.constant(name)
    if value is None:
        raise Unmapped("its weights are computed by the network", "it runs on the host, in onnxruntime")
    return value


def _bias(lo: Lowering, node: Node, slot: int, outputs: int) -> tuple[Array, NDArray[np.int64] | None]:
    """Real bias, and the integers the model brought for it."""
    if len(node.inputs) <= slot or not node.inputs[slot]:
        return np.zeros(outputs), None
    value = weights_of(lo, node.inputs[slot])
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
    raw = weights_of(lo, node.inputs[1])
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
    raw = weights_of(lo, node.inputs[1])
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
    raw = weights_of(lo, weights)
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
        given = weights_of(lo, node.inputs[2])
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
    weights = weights_of(lo, node.inputs[1])
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


LINEAR: Mapping[str, Callable[[Lowering, Node], str]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
"""What each operator with weights becomes."""
