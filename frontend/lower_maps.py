"""Operators without weights: pools, concatenation, slices, padding, resizing, and views that cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from math import floor, prod

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Shape, Window
from .layers import Average, Cut, Fill, Join, Linear, Maximum, Sample, Sum
from .lower import Groups, Lowering, groups_of
from .lower_linear import window_of
from .network import Node
from .views import Unmapped, View, channels_first

__all__ = ["MAPS", "identity"]


def _ints(lo: Lowering, node: Node, key: str, slot: int) -> list[int] | None:
    """A list that is an attribute in old opsets and an input in new ones."""
    if key in node.attributes:
        value = node.attributes[key]
        return [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    if slot < len(node.inputs) and node.inputs[slot]:
        constant = lo.constant(node.inputs[slot])
        if constant is None:
            raise Unmapped(f"its {key} are computed by the network", "export with constant sizes")
        return [int(v) for v in constant.reshape(-1)]
    return None


# -- views -------------------------------------------------------------------------------------------


def identity(lo: Lowering, node: Node) -> str:
    """The same tensor under another name."""
    if len(node.outputs) > 1 and any(o in lo.network.consumers for o in node.outputs[1:] if o):
        raise Unmapped("its second output is used", "export for inference")
    lo.alias(node.outputs[0], node.inputs[0], lo.view(node.inputs[0]))
    return "nothing"


def _cast(lo: Lowering, node: Node) -> str:
    kinds = {lo.network.types.get(node.inputs[0], 1), lo.network.types.get(node.outputs[0], 1)}
    if not kinds <= {1, 10, 11}:
        raise Unmapped("casts between integers and floats", "cast before the network")
    return identity(lo, node)


def _reshape(lo: Lowering, node: Node) -> str:
    lo.alias(node.outputs[0], node.inputs[0], lo.view(node.inputs[0]).reshape(lo.shape(node.outputs[0])))
    return "a view"


def _transpose(lo: Lowering, node: Node) -> str:
    view = lo.view(node.inputs[0])
    perm = node.attributes.get("perm") or list(range(len(view.axes)))[::-1]
    lo.alias(node.outputs[0], node.inputs[0], view.transpose([int(p) for p in perm]))
    return "a view"


def _depth_to_space(lo: Lowering, node: Node) -> str:
    n, c, h, w = lo.shape(node.inputs[0])
    b = int(node.attributes["blocksize"])
    view = lo.view(node.inputs[0])
    if node.attributes.get("mode", "DCR") == "DCR":
        split = view.reshape((n, b, b, c // (b * b), h, w)).transpose((0, 3, 4, 1, 5, 2))
    else:
        split = view.reshape((n, c // (b * b), b, b, h, w)).transpose((0, 1, 4, 2, 5, 3))
    joined = (split.axes[0], split.axes[1], split.axes[2] + split.axes[3], split.axes[4] + split.axes[5])
    lo.alias(node.outputs[0], node.inputs[0], View(split.storage, joined))
    return "a view, moved where it is read"


def _space_to_depth(lo: Lowering, node: Node) -> str:
    n, c, h, w = lo.shape(node.inputs[0])
    b = int(node.attributes["blocksize"])
    split = lo.view(node.inputs[0]).reshape((n, c, h // b, b, w // b, b)).transpose((0, 3, 5, 1, 2, 4))
    joined = (split.axes[0], split.axes[1] + split.axes[2] + split.axes[3], split.axes[4], split.axes[5])
    lo.alias(node.outputs[0], node.inputs[0], View(split.storage, joined))
    return "a view, moved where it is read"


# -- pools -------------------------------------------------------------------------------------------


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
    axes = _ints(lo, node, "axes", 1) or list(range(len(logical)))
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
    lo.place(out, out, _renumber(groups, position))
    return "a pool"


def _renumber(groups: Groups, position: dict[int, int]) -> Groups:
    h, w, c = (tuple(position[a] for a in group if a in position) for group in groups)
    return h, w, c


# -- boxes -------------------------------------------------------------------------------------------


def _which(groups: Groups, axis: int, logical: tuple[int, ...]) -> int:
    """Whether a logical axis is the map's H, W or C (0, 1, 2)."""
    for i, group in enumerate(groups):
        if axis in group and all(logical[a] == 1 for a in group if a != axis):
            return i
    raise Unmapped(
        f"works along axis {axis} of {list(logical)}", "keep to one frame, channels, rows or columns"
    )


def _concat(lo: Lowering, node: Node) -> str:
    out, logical = node.outputs[0], lo.shape(node.outputs[0])
    names = [n for n in node.inputs if n]
    axis = int(node.attributes["axis"]) % len(logical)
    decided = next(
        (n for n in names if n not in lo.network.constants and not lo.view(n).storage.startswith("@")),
        names[0],
    )
    groups = lo.layout(decided)
    which = _which(groups, axis, logical)
    maps = tuple(lo.dense(n, groups) for n in names)
    if which == 2:
        h, w, _ = lo.shapes[maps[0]]
        lo.emit(Join(node.name, maps, out, (node.name,)), (h, w, sum(lo.shapes[m][2] for m in maps)))
        lo.place(out, out, groups)
        return "a concatenation"
    # Along rows or columns: pad each with zeros to the whole extent, and add.
    whole, offset, total = sum(lo.shapes[m][which] for m in maps), 0, ""
    for i, m in enumerate(maps):
        shape = list(lo.shapes[m])
        before, after = [0, 0, 0], [0, 0, 0]
        before[which], after[which] = offset, whole - offset - shape[which]
        offset += shape[which]
        shape[which] = whole
        size = (shape[0], shape[1], shape[2])
        low, high = (before[0], before[1], before[2]), (after[0], after[1], after[2])
        wide = lo.emit(Fill(f"{node.name}/pad{i}", (m,), f"{out}/pad{i}", (node.name,), low, high), size)
        if total:
            result = out if i == len(maps) - 1 else f"{out}/sum{i}"
            lo.emit(
                Sum(
                    node.name if result == out else f"{node.name}/{i}",
                    (total, wide),
                    result,
                    (node.name,),
                    joins=True,
                ),
                size,
            )
            total = result
        else:
            total = wide
    if len(maps) == 1:
        lo.alias(out, names[0], lo.view(names[0]))
    else:
        lo.place(out, out, groups)
    return "padding and sums"


def _cut(
    lo: Lowering,
    node: Node,
    ranges: dict[int, tuple[int, int, int]],
    which_output: int = 0,
    dropped: int | None = None,
) -> None:
    """A box of a node's input, given per logical axis; `dropped` is an axis the output lacks (Gather of one index)."""
    x, out = node.inputs[0], node.outputs[which_output]
    name = f"{node.name}/{which_output}" if which_output else node.name
    logical, groups = lo.shape(x), lo.layout(x)
    storage = lo.dense(x, groups)
    start, stop, step = [0, 0, 0], list(lo.shapes[storage]), [1, 1, 1]
    for axis, (lo_, hi, st) in ranges.items():
        if (lo_, hi, st) == (0, logical[axis], 1):
            continue
        i = _which(groups, axis, logical)
        start[i], stop[i], step[i] = lo_, hi, st
    shape = tuple(-(-(b - a) // s) for a, b, s in zip(start, stop, step, strict=True))
    lo.emit(Cut(name, (storage,), out, (node.name,), tuple(start), tuple(stop), tuple(step)), shape)  # type: ignore[arg-type]
    position = {a: a - (dropped is not None and a > dropped) for a in range(len(logical)) if a != dropped}
    lo.place(out, out, _renumber(groups, position))


def _slice(lo: Lowering, node: Node) -> str:
    logical = lo.shape(node.inputs[0])
    starts, ends = _ints(lo, node, "starts", 1), _ints(lo, node, "ends", 2)
    if starts is None or ends is None:
        raise Unmapped("has no bounds", "export with constant bounds")
    axes = _ints(lo, node, "axes", 3) or list(range(len(starts)))
    steps = _ints(lo, node, "steps", 4) or [1] * len(starts)
    ranges = {}
    for a, s, e, st in zip(axes, starts, ends, steps, strict=True):
        if st < 1:
            raise Unmapped("slices backwards", "it runs on the host, in onnxruntime")
        lo_, hi, _ = slice(s, e, st).indices(logical[a % len(logical)])
        ranges[a % len(logical)] = (lo_, hi, st)
    _cut(lo, node, ranges)
    return "a slice"


def _split(lo: Lowering, node: Node) -> str:
    logical = lo.shape(node.inputs[0])
    axis, start = int(node.attributes.get("axis", 0)) % len(logical), 0
    for i, out in enumerate(node.outputs):
        size = lo.shape(out)[axis]
        if out in lo.network.consumers or out in lo.network.output_names:
            _cut(lo, node, {axis: (start, start + size, 1)}, i)
        start += size
    return "slices"


def _gather(lo: Lowering, node: Node) -> str:
    logical = lo.shape(node.inputs[0])
    index = lo.constant(node.inputs[1])
    if index is None:
        raise Unmapped("its indices are computed by the network", "it runs on the host, in onnxruntime")
    axis = int(node.attributes.get("axis", 0)) % len(logical)
    flat = [int(v) % logical[axis] for v in index.reshape(-1)]
    step = flat[1] - flat[0] if len(flat) > 1 else 1
    if index.ndim > 1:
        raise Unmapped("gathers into a new axis", "it runs on the host, in onnxruntime")
    if step < 1 or any(b - a != step for a, b in pairwise(flat)):
        return _select(lo, node, axis, flat)
    _cut(lo, node, {axis: (flat[0], flat[-1] + 1, step)}, dropped=None if index.ndim else axis)
    return "a slice"


def _select(lo: Lowering, node: Node, axis: int, chosen: list[int]) -> str:
    """Channels in any order: a 0/1 convolution, joined with a movement that feeds only it."""
    x, out = node.inputs[0], node.outputs[0]
    groups = lo.layout(x)
    if _which(groups, axis, lo.shape(x)) != 2:
        raise Unmapped("gathers rows or columns in no regular order", "it runs on the host, in onnxruntime")
    storage = lo.dense(x, groups)
    h, w, c = lo.shapes[storage]
    before = lo.layers.get(storage)
    if isinstance(before, Linear) and before.moves and lo.sole(x):
        weight = before.weight[chosen]
        moved = replace(
            before,
            name=node.name,
            output=out,
            nodes=(*before.nodes, node.name),
            weight=weight,
            bias=np.zeros(len(chosen)),
        )
        lo.emit(moved, (h, w, len(chosen)))
    else:
        weight = np.eye(c, dtype=np.float32)[chosen].reshape(len(chosen), 1, 1, c)
        lo.emit(
            Linear(node.name, (storage,), out, (node.name,), weight, np.zeros(len(chosen)), moves=True),
            (h, w, len(chosen)),
        )
    lo.place(out, out, groups)
    return "a data movement"


def _pad(lo: Lowering, node: Node) -> str:
    x, out, logical = node.inputs[0], node.outputs[0], lo.shape(node.inputs[0])
    if node.attributes.get("mode", "constant") != "constant":
        raise Unmapped(f"pads by {node.attributes['mode']}", "pad with a constant")
    pads = _ints(lo, node, "pads", 1)
    value = float(node.attributes.get("value", 0.0))
    if len(node.inputs) > 2 and node.inputs[2]:
        given = lo.scalar(node.inputs[2])
        if given is None:
            raise Unmapped("its padding value is computed by the network", "use a constant")
        value = given
    axes = (_ints(lo, node, "axes", 3) if len(node.inputs) > 3 else None) or list(range(len(logical)))
    if pads is None or min(pads) < 0:
        raise Unmapped("pads by a negative or unknown amount", "crop with Slice")
    if not np.isfinite(value):
        raise Unmapped("pads with infinity", "pad inside the max pool")
    groups = lo.layout(x)
    before, after = [0, 0, 0], [0, 0, 0]
    for i, a in enumerate(axes):
        low, high = pads[i], pads[i + len(axes)]
        if low or high:
            which = _which(groups, a % len(logical), logical)
            before[which], after[which] = low, high
    storage = lo.dense(x, groups)
    shape = tuple(b + s + e for b, s, e in zip(before, lo.shapes[storage], after, strict=True))
    lo.emit(Fill(node.name, (storage,), out, (node.name,), tuple(before), tuple(after), value), shape)  # type: ignore[arg-type]
    lo.place(out, out, groups)
    return "padding"


# -- resize ------------------------------------------------------------------------------------------


def _axis_sources(
    mode: str, how: str, nearest: str, *, n_in: int, n_out: int, scale: float
) -> NDArray[np.int32]:
    """Source index and fraction of 2048 of every output position (ONNX Resize, coordinate transformations)."""
    i = np.arange(n_out, dtype=np.float64)
    match how:
        case "asymmetric":
            x = i / scale
        case "align_corners":
            x = i * (n_in - 1) / (n_out - 1) if n_out > 1 else np.zeros(n_out)
        case "half_pixel":
            x = (i + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            x = (i + 0.5) / scale - 0.5 if n_out > 1 else np.zeros(n_out)
        case "half_pixel_symmetric":
            adjust = n_out / (n_in * scale)
            centre = n_in / 2
            x = centre * (1 - adjust) + (i + 0.5) / scale - 0.5
        case _:
            raise Unmapped(f"resizes with {how} coordinates", "use half_pixel, asymmetric or align_corners")
    if mode == "nearest":
        match nearest:
            case "round_prefer_floor":
                index = np.ceil(x - 0.5)
            case "round_prefer_ceil":
                index = np.floor(x + 0.5)
            case "floor":
                index = np.floor(x)
            case _:
                index = np.ceil(x)
        return np.stack([np.clip(index, 0, n_in - 1), np.zeros(n_out)], 1).astype(np.int32)
    x = np.clip(x, 0, n_in - 1)
    fixed = np.rint(x * 2048).astype(np.int64)
    return np.stack([fixed // 2048, fixed % 2048], 1).astype(np.int32)


def _resize(lo: Lowering, node: Node) -> str:
    x, out = node.inputs[0], node.outputs[0]
    logical, result, a = lo.shape(x), lo.shape(out), node.attributes
    mode = a.get("mode", "nearest")
    mode = "linear" if mode == "bilinear" else mode
    if mode not in {"nearest", "linear"} or (a.get("antialias", 0) and mode != "nearest"):
        raise Unmapped(
            f"resizes by {mode}{' with antialias' if a.get('antialias') else ''}",
            "resize by nearest or linear",
        )
    groups = lo.layout(x)
    scales = [r / n for r, n in zip(result, logical, strict=True)]
    slot = 1 if node.op == "Upsample" else 2
    given = lo.constant(node.inputs[slot]) if len(node.inputs) > slot and node.inputs[slot] else None
    axes = [int(v) for v in a.get("axes", range(len(logical)))]
    if given is not None and given.size == len(axes):
        for axis, s in zip(axes, given.reshape(-1), strict=True):
            scales[axis] = float(s)
    how = a.get("coordinate_transformation_mode", "asymmetric" if node.op == "Upsample" else "half_pixel")
    nearest = a.get("nearest_mode", "floor" if node.op == "Upsample" else "round_prefer_floor")
    tables = []
    for axis, (n_in, n_out, scale) in enumerate(zip(logical, result, scales, strict=True)):
        if n_in == n_out and floor(n_in * scale) == n_out and scale == 1.0:
            continue
        which = _which(groups, axis, logical)
        if which == 2:
            raise Unmapped("resizes the channels", "resize height and width")
        tables.append((which, _axis_sources(mode, how, nearest, n_in=n_in, n_out=n_out, scale=scale)))
    storage = lo.dense(x, groups)
    shape = list(lo.shapes[storage])
    sources = [np.stack([np.arange(e), np.zeros(e, int)], 1).astype(np.int32) for e in shape[:2]]
    for which, table in tables:
        sources[which], shape[which] = table, len(table)
    lo.emit(
        Sample(node.name, (storage,), out, (node.name,), sources[0], sources[1]),
        (shape[0], shape[1], shape[2]),
    )
    lo.place(out, out, groups)
    return "a resize"


MAPS: Mapping[str, Callable[[Lowering, Node], str]] = {
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Dropout": identity,
    "Flatten": _reshape,
    "Gather": _gather,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Identity": identity,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    "Upsample": _resize,
}
"""What each operator without weights becomes."""
