"""Pools and reductions over height and width."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod

from ..ir.graph import Shape, Window
from .layers import Average, Fill, Maximum
from .lower import Lowering, groups_of, renumber
from .lower_linear import window_of
from .network import Node
from .views import Unmapped, channels_first

__all__ = ["POOLS"]


def _pool_window(node: Node, shape: Shape, out: tuple[int, ...]) -> tuple[Window, tuple[int, int]]:
    """Window with the declared pads, and the rows and columns that ceil_mode adds at the end."""
    kernel = [int(k) for k in node.attributes["kernel_shape"]]
    rank = len(kernel) + 2
    window = window_of(node, (1, kernel[0]) if rank == 3 else (kernel[0], kernel[1]), shape, rank)
    want = (1, out[2]) if rank == 3 else (out[2], out[3])
    extra = []
    for i in (0, 1):
        need = (want[i] - 1) * window.stride[i] + window.span[i]
        extra.append(max(0, need - shape[i] - window.pad[i] - window.pad[i + 2]))
    return window, (extra[0], extra[1])


def _padded(window: Window, extra: tuple[int, int]) -> Window:
    top, left, bottom, right = window.pad
    window = replace(window, pad=(top, left, bottom + extra[0], right + extra[1]))
    sh, sw = window.span
    if max(window.pad[0], window.pad[2]) >= sh or max(window.pad[1], window.pad[3]) >= sw:
        raise Unmapped(
            f"padding {window.pad} is not smaller than the window {window.span}", "pad with Pad before it"
        )
    return window


def _max_pool(lo: Lowering, node: Node) -> str:
    x, out = node.inputs[0], node.outputs[0]
    if len(node.outputs) > 1 and node.outputs[1] in lo.network.consumers:
        raise Unmapped("its index output is used", "it runs on the host, in onnxruntime")
    storage = lo.dense(x)
    window, extra = _pool_window(node, lo.shapes[storage], lo.shape(out))
    window = _padded(window, extra)
    h, w, c = lo.shapes[storage]
    lo.emit(Maximum(node.name, (storage,), out, (node.name,), window), (*window.output(h, w), c))
    lo.place(out, out, groups_of(channels_first, lo.shape(out)))
    return "a max pool"


def _average_pool(lo: Lowering, node: Node) -> str:
    x, out = node.inputs[0], node.outputs[0]
    storage = lo.dense(x)
    window, extra = _pool_window(node, lo.shapes[storage], lo.shape(out))
    counts = bool(node.attributes.get("count_include_pad", 0))
    if counts and any(extra) and any(window.pad):
        # The declared pads count, what ceil_mode adds does not: pad for real, then count valid taps.
        h, w, c = lo.shapes[storage]
        top, left, bottom, right = window.pad
        storage = lo.emit(
            Fill(
                f"{node.name}/pad", (storage,), f"{out}/pad", (node.name,), (top, left, 0), (bottom, right, 0)
            ),
            (h + top + bottom, w + left + right, c),
        )
        window, counts = replace(window, pad=(0, 0, 0, 0)), False
    divisor = window.taps if counts and not any(extra) else 0
    window = _padded(window, extra)
    h, w, c = lo.shapes[storage]
    lo.emit(Average(node.name, (storage,), out, (node.name,), window, divisor), (*window.output(h, w), c))
    lo.place(out, out, groups_of(channels_first, lo.shape(out)))
    return "an average pool"


def _global_pool(lo: Lowering, node: Node) -> str:
    x, out = node.inputs[0], node.outputs[0]
    storage = lo.dense(x)
    h, w, c = lo.shapes[storage]
    window = Window((h, w), (1, 1))
    if node.op == "GlobalMaxPool":
        lo.emit(Maximum(node.name, (storage,), out, (node.name,), window), (1, 1, c))
    else:
        lo.emit(Average(node.name, (storage,), out, (node.name,), window), (1, 1, c))
    lo.place(out, out, groups_of(channels_first, lo.shape(out)))
    return "a global pool"


def _reduce(lo: Lowering, node: Node) -> str:
    x, out = node.inputs[0], node.outputs[0]
    logical = lo.shape(x)
    axes = lo.ints(node, "axes", 1) or list(range(len(logical)))
    axes = sorted(a % len(logical) for a in axes)
    groups = lo.layout(x)
    reduced = [a for a in axes if logical[a] > 1]
    if any(a in groups[2] for a in reduced):
        raise Unmapped("reduces over the channels", "reduce over height and width")
    spans = []
    for group in groups[:2]:
        inside = [a for a in group if logical[a] > 1]
        if not set(reduced) >= set(inside) and set(reduced) & set(inside):
            raise Unmapped("reduces over a part of an axis", "reduce over whole axes")
        spans.append(prod(logical[a] for a in inside) if inside and set(inside) <= set(reduced) else 1)
    storage = lo.dense(x, groups)
    h, w, c = lo.shapes[storage]
    window = Window((spans[0], spans[1]))
    shape = (*window.output(h, w), c)
    if node.op == "ReduceMax":
        lo.emit(Maximum(node.name, (storage,), out, (node.name,), window), shape)
    else:
        lo.emit(
            Average(node.name, (storage,), out, (node.name,), window, 1 if node.op == "ReduceSum" else 0),
            shape,
        )
    keep = bool(node.attributes.get("keepdims", 1))
    position, left = {}, 0
    for a in range(len(logical)):
        if keep or a not in axes:
            position[a] = left
            left += 1
    lo.place(out, out, renumber(groups, position))
    return "a pool"


POOLS: Mapping[str, Callable[[Lowering, Node], str]] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MaxPool": _max_pool,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
}
"""What each pool becomes."""
