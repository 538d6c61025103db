"""Scales: one int8 quantisation for every map.

Operators that only move data (max pool, concatenation, slice, padding, resize) want the same scale on both sides; maps
are grouped so, and a group's range covers all its members. An already quantised model says its own scales, and only
what it leaves out is filled in from neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, inf, log2

import numpy as np

from ..ir.errors import InvariantError
from ..ir.graph import Quant
from ..ir.requant import RoundingMode
from .layers import Cut, Fill, Join, Layer, Linear, Maximum, Recast, Sample, Sum
from .lower import Lowered

__all__ = ["choose_scales", "known_scales", "quant_of", "same_scale"]

Range = tuple[float, float]
JOIN_RATIO = 2.0
"""A map that others read too keeps its own scale beside a concatenation more than this much wider: sharing would
cost it a whole bit."""


def quant_of(low: float, high: float, mode: RoundingMode) -> Quant:
    """Asymmetric int8 quantisation whose codes cover a range and hold zero exactly; in mode shift a power of two.

    >>> quant_of(0.0, 2.55, "f32").zero_point
    -128
    >>> quant_of(-1.0, 1.0, "shift").scale
    0.0078125
    """
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    if step < 1e-30:  # a constant zero: any scale will do
        step = 1 / 128
    scale = float(np.float32(step))
    if mode == "shift":
        # Rounded up unless that would waste nearly a bit for the last percent of the range.
        scale = float(2.0 ** ceil(log2(step) - 0.02))
    zero = int(np.clip(np.rint(-128 - low / scale), -128, 127))
    return Quant(scale, zero)


def same_scale(layer: Layer) -> bool:
    """Whether a layer only moves codes, so that its inputs and output share a scale."""
    match layer:
        case Maximum() | Join() | Cut() | Fill() | Recast() | Sample():
            return True
        case Linear():
            return layer.moves
        case Sum():
            return layer.joins
    return False


def choose_scales(
    lowered: Lowered, layers: Sequence[Layer], ranges: Mapping[str, Range], mode: RoundingMode
) -> dict[str, Quant]:
    """Quantisation of every map.

    Parameters
    ----------
    layers : sequence of Layer
        Those that run on the DPU, in order.
    ranges : dict of map name to (low, high)
        Measured; may lack maps that no ONNX tensor names.
    """
    known = dict(ranges)
    for layer in layers:
        if layer.output not in known:
            found = _interval(layer, known)
            if found is not None:
                known[layer.output] = found
    if lowered.quants:
        return _completed(lowered, layers, known, mode)
    parent = {n: n for layer in layers for n in (*layer.inputs, layer.output)}

    def find(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    readers: dict[str, int] = {}
    for layer in layers:
        for name in dict.fromkeys(layer.inputs):
            readers[name] = readers.get(name, 0) + 1
    for layer in layers:
        if not same_scale(layer):
            continue
        width = _width(known.get(layer.output))
        for name in layer.inputs:
            wide = (
                width > JOIN_RATIO * _width(known.get(name)) and isinstance(layer, Join) and readers[name] > 1
            )
            if not wide:
                parent[find(name)] = find(layer.output)
    groups: dict[str, Range] = {}
    for name in parent:
        low, high = known.get(name, (0.0, 0.0))
        before = groups.get(find(name), (0.0, 0.0))
        groups[find(name)] = (min(low, before[0]), max(high, before[1]))
    return {name: quant_of(*groups[find(name)], mode) for name in parent}


def known_scales(lowered: Lowered, layers: Sequence[Layer]) -> dict[str, Quant]:
    """What a quantised model says, and what follows from it through layers that only move codes."""
    quants = dict(lowered.quants)
    changed = True
    while changed:
        changed = False
        for layer in (*layers, *reversed(layers)):
            if not same_scale(layer):
                continue
            names = (*layer.inputs, layer.output)
            have = next((quants[n] for n in reversed(names) if n in quants), None)
            for name in names:
                if have is not None and name not in quants:
                    quants[name] = have
                    changed = True
    return quants


def _width(interval: Range | None) -> float:
    return 0.0 if interval is None else max(interval[1], 0.0) - min(interval[0], 0.0)


def _interval(layer: Layer, known: Mapping[str, Range]) -> Range | None:
    """Range of a map that no ONNX tensor names, from its inputs."""
    inputs = [known[n] for n in layer.inputs if n in known]
    if len(inputs) < len(layer.inputs) or not inputs:
        return None
    if isinstance(layer, Sum) and not layer.joins:
        ends = [sorted((f * low, f * high)) for f, (low, high) in zip(layer.factors, inputs, strict=True)]
        low, high = sum(e[0] for e in ends), sum(e[1] for e in ends)
        return max(low, layer.clamp[0]), min(high, layer.clamp[1])
    if same_scale(layer):
        value = layer.value if isinstance(layer, Fill) else inputs[0][0]
        return min(value, *(r[0] for r in inputs), inf), max(value, *(r[1] for r in inputs), -inf)
    return None


def _completed(
    lowered: Lowered, layers: Sequence[Layer], known: Mapping[str, Range], mode: RoundingMode
) -> dict[str, Quant]:
    """The model's own scales, and those of its neighbours for what it leaves out."""
    quants = known_scales(lowered, layers)
    for layer in layers:
        for name in (*layer.inputs, layer.output):
            if name not in quants and name in known:
                quants[name] = quant_of(*known[name], "f32")
            if name not in quants:
                raise InvariantError(f"{layer.name}: tensor {name} has no scale after the partition")
    if mode != "shift":
        return quants
    return {
        n: quant_of((-128 - q.zero_point) * q.scale, (127 - q.zero_point) * q.scale, mode)
        for n, q in quants.items()
    }
