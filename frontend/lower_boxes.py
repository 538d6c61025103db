"""Operators on boxes of a map: concatenation, split, slice, gather, padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np

from .layers import Cut, Fill, Join, Linear, Sum
from .lower import Lowering, axis_of, renumber
from .network import Node
from .views import Unmapped

__all__ = ["BOXES"]


def _concat(lo: Lowering, node: Node) -> str:
    out, logical = node.outputs[0], lo.shape(node.outputs[0])
    names = [n for n in node.inputs if n]
    axis = int(node.attributes["axis"]) % len(logical)
    decided = next(
        (n for n in names if n not in lo.network.constants and not lo.view(n).storage.startswith("@")),
        names[0],
    )
    groups = lo.layout(decided)
    which = axis_of(groups, axis, logical)
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
        i = axis_of(groups, axis, logical)
        start[i], stop[i], step[i] = lo_, hi, st
    shape = tuple(-(-(b - a) // s) for a, b, s in zip(start, stop, step, strict=True))
    lo.emit(Cut(name, (storage,), out, (node.name,), tuple(start), tuple(stop), tuple(step)), shape)  # type: ignore[arg-type]
    position = {a: a - (dropped is not None and a > dropped) for a in range(len(logical)) if a != dropped}
    lo.place(out, out, renumber(groups, position))


def _slice(lo: Lowering, node: Node) -> str:
    logical = lo.shape(node.inputs[0])
    starts, ends = lo.ints(node, "starts", 1), lo.ints(node, "ends", 2)
    if starts is None or ends is None:
        raise Unmapped("has no bounds", "export with constant bounds")
    axes = lo.ints(node, "axes", 3) or list(range(len(starts)))
    steps = lo.ints(node, "steps", 4) or [1] * len(starts)
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
    if axis_of(groups, axis, lo.shape(x)) != 2:
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
    pads = lo.ints(node, "pads", 1)
    value = float(node.attributes.get("value", 0.0))
    if len(node.inputs) > 2 and node.inputs[2]:
        given = lo.network.scalar(node.inputs[2])
        if given is None:
            raise Unmapped("its padding value is computed by the network", "use a constant")
        value = given
    axes = (lo.ints(node, "axes", 3) if len(node.inputs) > 3 else None) or list(range(len(logical)))
    if pads is None or min(pads) < 0:
        raise Unmapped("pads by a negative or unknown amount", "crop with Slice")
    if not np.isfinite(value):
        raise Unmapped("pads with infinity", "pad inside the max pool")
    groups = lo.layout(x)
    before, after = [0, 0, 0], [0, 0, 0]
    for i, a in enumerate(axes):
        low, high = pads[i], pads[i + len(axes)]
        if low or high:
            which = axis_of(groups, a % len(logical), logical)
            before[which], after[which] = low, high
    storage = lo.dense(x, groups)
    shape = tuple(b + s + e for b, s, e in zip(before, lo.shapes[storage], after, strict=True))
    lo.emit(Fill(node.name, (storage,), out, (node.name,), tuple(before), tuple(after), value), shape)  # type: ignore[arg-type]
    lo.place(out, out, groups)
    return "padding"


BOXES: Mapping[str, Callable[[Lowering, Node], str]] = {
    "Concat": _concat,
    "Gather": _gather,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
}
"""What each operator on boxes becomes."""
