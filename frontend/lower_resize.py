"""Resize and Upsample: source index and fraction of every output row and column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import floor

import numpy as np
from numpy.typing import NDArray

from .layers import Sample
from .lower import Lowering, axis_of
from .network import Node
from .views import Unmapped

__all__ = ["RESIZES"]


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
        which = axis_of(groups, axis, logical)
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


RESIZES: Mapping[str, Callable[[Lowering, Node], str]] = {
    "Resize": _resize,
    "Upsample": _resize,
}
"""What each resizing operator becomes."""
