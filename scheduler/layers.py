"""Layers: what the engines execute, made from the graph's operators.

A layer belongs to one engine. Layers of the array (and of the depthwise engine) carry one or more `Part`s, each a
plain convolution of a channel range of an input into a channel range of the output:

- a grouped convolution has a part for each cluster of groups, block-diagonal inside the cluster;
- a transposed convolution of stride s has a part for each of its s x s phases, writing every s-th row and column;
- a concatenation, a channel slice or a pad that no cheaper engine can do is a part with 0/1 weights.

An operator that follows as a pure table is folded into the drain of the convolution before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.depthwise import fits
from ..ir.errors import ScheduleError
from ..ir.graph import (
    Concat,
    Conv,
    ConvTranspose,
    Graph,
    Op,
    Pad,
    Pool,
    Reshape,
    Shape,
    Slice,
    Table,
    Window,
)
from ..ir.isa import Engine
from ..ir.requant import RoundingMode, encode_scale
from .reach import Needs, needs_of, of_frames, rowwise

__all__ = ["Layer", "Part", "make_layers"]


_POINTWISE = Window()


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One convolution of a layer.

    Parameters
    ----------
    source : int
        Which input of the layer.
    channels : (first, stop)
        Channel range of the input that `weight` covers.
    offset : int
        First output channel.
    weight : int8 (O, KH, KW, I)
        I is the length of `channels`, or 1 where the part is depthwise (O channels, one input each).
    window : Window
        `pad` may be negative at the top or left (transposed convolution): the first tap lies inside the map.
    origin, step : (rows, columns)
        Output pixel (r, c) of the part is pixel ``origin + step * (r, c)`` of the layer.
    pad_value : int or None
        Padding holds this instead of the input's zero point.
    """

    source: int
    channels: tuple[int, int]
    offset: int
    weight: NDArray[np.int8] = field(repr=False)
    bias: NDArray[np.int32] = field(repr=False)
    scale: NDArray[np.uint32] = field(repr=False)
    window: Window = _POINTWISE
    origin: tuple[int, int] = (0, 0)
    step: tuple[int, int] = (1, 1)
    depthwise: bool = False
    pad_value: int | None = None
    raw: bool = False
    """Values are moved as they are: no zero point on either side."""

    def extent(self, axis: int, size: int) -> int:
        """Rows (axis 0) or columns (1) of the part for a layer output of `size`."""
        return max(0, -(-(size - self.origin[axis]) // self.step[axis]))

    def clip(self, axis: int, low: int, high: int) -> tuple[int, int]:
        """Part rows or columns that fall into rows low..high-1 of the layer's output."""
        o, s = self.origin[axis], self.step[axis]
        return max(0, -(-(low - o) // s)), max(0, -(-(high - o) // s))


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What one engine computes of one output tensor.

    ``needs(k, low, high, axis)`` gives the rows (axis 0) or columns (1) of input k behind output rows low..high-1,
    inside the map and never empty. Rows count through all frames of a batch.

    Parameters
    ----------
    height : int
        Rows of the output of one frame (of the input, where it `reduces`).
    rowwise : bool
        Each output row takes the same row of every input and nothing else: rows of several frames are as rows of one.
    """

    name: str
    op: Op
    engine: Engine | None
    inputs: tuple[str, ...]
    output: str
    needs: Needs = field(repr=False)
    parts: tuple[Part, ...] = ()
    table: tuple[int, ...] | None = None
    low: int = -128
    high: int = 127
    mode: RoundingMode = "f32"
    height: int = 1
    rowwise: bool = False
    reduces: bool = False
    """Global pooling: takes its input strip by strip and has its one output pixel after the last."""
    memo: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = field(
        default_factory=dict, repr=False
    )

    def reach(self, k: int, height: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of input `k` behind each of `height` output rows, as two rising arrays.

        The first row that output rows y, y + 1, ... still read, and the row after the last that rows 0..y read.
        """
        if (k, height) not in self.memo:
            spans = np.array([self.needs(k, y, y + 1) for y in range(height)], np.int64).reshape(-1, 2)
            first = np.minimum.accumulate(spans[::-1, 0])[::-1]
            self.memo[k, height] = (first, np.maximum.accumulate(spans[:, 1]))
        return self.memo[k, height]


def make_layers(graph: Graph, arch: Arch, *, fold_tables: bool = True) -> tuple[Layer, ...]:
    """Layers of a graph in its order.

    Raises
    ------
    ScheduleError
        An operator rounds in a mode that the machine does not have.
    """
    layers: list[Layer] = []
    skip: set[str] = set()
    for op in graph.ops:
        mode = getattr(op, "mode", None)
        if mode is not None and mode not in arch.rounding:
            raise ScheduleError(
                f"{op.name}: rounds in mode {mode}, {arch.name} has {', '.join(arch.rounding)}; quantise the model for "
                f"one of them, or add {mode} to the machine's rounding",
                node=op.name,
            )
        if op.output in skip:
            continue
        layer = _layer(op, graph, arch)
        users = graph.consumers[op.output]
        if (
            fold_tables
            and layer.parts
            and len(users) == 1
            and isinstance(users[0], Table)
            and op.output not in graph.outputs
        ):
            layer = replace(layer, output=users[0].output, table=users[0].values)
            skip.add(users[0].output)
        layers.append(layer)
    return tuple(layers)


def _layer(op: Op, graph: Graph, arch: Arch) -> Layer:
    shapes, out = tuple(map(graph.frame_shape, op.inputs)), graph.frame_shape(op.output)
    parts: tuple[Part, ...] = ()
    engine: Engine | None = Engine.VEC
    clamp: dict[str, Any] = {k: getattr(op, k) for k in ("low", "high", "mode") if hasattr(op, k)}
    if isinstance(op, Conv):
        parts, engine = _conv_parts(op, arch)
    elif isinstance(op, ConvTranspose):
        parts, engine = _transposed_parts(op, out, arch), Engine.CONV
    elif isinstance(op, Pad):
        parts = _pad_parts(op, shapes[0], arch.rounding[0])
        engine = _depthwise_engine(parts[0], arch)
    elif isinstance(op, Concat):
        parts = _concat_parts(shapes, arch)
        engine = Engine.CONV if parts else Engine.VEC
    elif isinstance(op, Slice) and (op.start[2] % arch.lanes or op.step[2] != 1):
        parts, engine = _slice_parts(op, arch.rounding[0]), Engine.CONV
    elif isinstance(op, Reshape):
        engine = None
    if parts and parts[0].raw:
        clamp = {"mode": arch.rounding[0]}
    needs = of_frames(needs_of(op, shapes, parts), tuple(s[0] for s in shapes), out[0], graph.frames)
    whole = (
        isinstance(op, Pool)
        and op.window == Window(shapes[0][:2], op.window.stride, (1, 1))
        and shapes[0][0] > 1
    )
    height = shapes[0][0] if whole else out[0]
    alone = rowwise(op, shapes, out, parts)
    return Layer(
        op.name,
        op,
        engine,
        op.inputs,
        op.output,
        needs,
        parts,
        **clamp,
        height=height,
        rowwise=alone,
        reduces=whole,
    )


# -- convolution parts -----------------------------------------------------------------------------------------------
def _conv_parts(op: Conv, arch: Arch) -> tuple[tuple[Part, ...], Engine]:
    o, _, _, i = op.weight.shape
    if op.depthwise and o == op.groups:
        part = Part(0, (0, o), 0, op.weight, op.bias, op.scale_word, op.window, depthwise=True)
        return (part,), _depthwise_engine(part, arch)
    per = o // op.groups
    cluster = op.groups if op.groups == 1 else max(1, arch.conv.oc // per)
    parts = []
    for g in range(0, op.groups, cluster):
        stop = min(g + cluster, op.groups)
        parts.append(
            Part(
                0,
                (g * i, stop * i),
                g * per,
                _block_diagonal(op.weight[g * per : stop * per], stop - g),
                op.bias[g * per : stop * per],
                op.scale_word[g * per : stop * per],
                op.window,
            )
        )
    return tuple(parts), Engine.CONV


def _depthwise_engine(part: Part, arch: Arch) -> Engine:
    """The depthwise engine where there is one and its window holds the kernel; else the array."""
    win = part.window
    own = arch.has_dwc and part.depthwise and fits(arch, win.kernel, win.stride, win.dilation)
    return Engine.DWC if own else Engine.CONV


def _block_diagonal(weight: NDArray[np.int8], groups: int) -> NDArray[np.int8]:
    """Grouped weights (O, KH, KW, I) as dense ones (O, KH, KW, groups * I), zero outside the groups."""
    if groups == 1:
        return weight
    o, kh, kw, i = weight.shape
    dense = np.zeros((o, kh, kw, groups * i), np.int8)
    per = o // groups
    for g in range(groups):
        dense[g * per : (g + 1) * per, :, :, g * i : (g + 1) * i] = weight[g * per : (g + 1) * per]
    return dense


def _transposed_parts(op: ConvTranspose, out: tuple[int, int, int], arch: Arch) -> tuple[Part, ...]:
    """One part for each phase: output row y takes the taps k with ``(y + pad - k*dilation) % stride == 0``."""
    o, _, _, i = op.weight.shape
    per = o // op.groups
    cluster = op.groups if op.groups == 1 else max(1, arch.conv.oc // per)
    phases = [
        [
            _phase(op.window, axis, p)
            for p in range(op.window.stride[axis])
            if _phase(op.window, axis, p)[0] < out[axis]
        ]
        for axis in (0, 1)
    ]
    parts = []
    for y_origin, y_taps, y_dilation, y_pad in phases[0]:
        for x_origin, x_taps, x_dilation, x_pad in phases[1]:
            empty = not y_taps or not x_taps
            weight = np.zeros((o, 1, 1, i), np.int8) if empty else op.weight[:, y_taps][:, :, x_taps]
            window = (
                Window()
                if empty
                else Window(
                    (len(y_taps), len(x_taps)), (1, 1), (y_dilation, x_dilation), (y_pad, x_pad, 0, 0)
                )
            )
            for g in range(0, op.groups, cluster):
                stop = min(g + cluster, op.groups)
                lo, hi = g * per, stop * per
                parts.append(
                    Part(
                        0, (g * i, stop * i), lo, _block_diagonal(weight[lo:hi], stop - g), op.bias[lo:hi],
                        op.scale_word[lo:hi], window, (y_origin, x_origin), op.window.stride,
                    )
                )  # fmt: skip
    return tuple(parts)


def _phase(window: Window, axis: int, phase: int) -> tuple[int, list[int], int, int]:
    """First output row, taps (in the order of rising input rows), dilation and padding of a phase along an axis."""
    s, d, k, pad = window.stride[axis], window.dilation[axis], window.kernel[axis], window.pad[axis]
    origin = (phase - pad) % s
    taps = [t for t in range(k) if (t * d) % s == phase][::-1]
    if not taps:
        return origin, [], 1, 0
    first = (origin + pad - taps[0] * d) // s  # input row of the first tap for the phase's first output row
    dilation = (taps[0] - taps[1]) * d // s if len(taps) > 1 else 1
    return origin, taps, dilation, -first


# -- data movement as convolution ------------------------------------------------------------------------------------
def _unit(n: int, mode: RoundingMode) -> NDArray[np.uint32]:
    """Scale words of 1.0, which move int8 values exactly in every mode."""
    return np.full(n, encode_scale(1.0, mode), np.uint32)


def _move(
    source: int,
    channels: tuple[int, int],
    offset: int,
    picks: NDArray[np.int64],
    mode: RoundingMode,
    **more: object,
) -> Part:
    """Output channel j takes channel picks[j] of the range; -1 takes nothing."""
    weight = np.zeros((len(picks), 1, 1, channels[1] - channels[0]), np.int8)
    rows = np.flatnonzero(picks >= 0)
    weight[rows, 0, 0, picks[rows]] = 1
    zeros = np.zeros(len(picks), np.int32)
    return Part(source, channels, offset, weight, zeros, _unit(len(picks), mode), raw=True, **more)  # type: ignore[arg-type]


def _concat_parts(shapes: tuple[tuple[int, int, int], ...], arch: Arch) -> tuple[Part, ...]:
    """Nothing where every piece starts at a block (the VEC engine copies whole words), else 0/1 weights."""
    offsets = np.cumsum([0, *(s[2] for s in shapes)])
    if all(int(o) % arch.lanes == 0 for o in offsets[:-1]):
        return ()
    step = arch.conv.oc * 4
    parts = []
    for k, shape in enumerate(shapes):
        for c in range(0, shape[2], step):
            stop = min(c + step, shape[2])
            parts.append(_move(k, (c, stop), int(offsets[k]) + c, np.arange(stop - c), arch.rounding[0]))
    return tuple(parts)


def _slice_parts(op: Slice, mode: RoundingMode) -> tuple[Part, ...]:
    picks = np.arange(op.start[2], op.stop[2], op.step[2])
    window = Window((1, 1), op.step[:2], pad=(-op.start[0], -op.start[1], 0, 0))
    parts = []
    for first in range(0, len(picks), 64):
        chosen = picks[first : first + 64]
        low, high = int(chosen[0]), int(chosen[-1]) + 1
        parts.append(_move(0, (low, high), first, chosen - low, mode, window=window))
    return tuple(parts)


def _pad_parts(op: Pad, shape: Shape, mode: RoundingMode) -> tuple[Part, ...]:
    """Spatial padding is a depthwise 1x1 whose padding holds the value; channel padding comes from the bias."""
    window = Window((1, 1), (1, 1), pad=(op.before[0], op.before[1], op.after[0], op.after[1]))
    if not op.before[2] and not op.after[2]:
        ones = np.ones((shape[2], 1, 1, 1), np.int8)
        zeros = np.zeros(shape[2], np.int32)
        return (
            Part(
                0,
                (0, shape[2]),
                0,
                ones,
                zeros,
                _unit(shape[2], mode),
                window,
                depthwise=True,
                pad_value=op.value,
                raw=True,
            ),
        )
    total = op.before[2] + shape[2] + op.after[2]
    picks = np.full(total, -1, np.int64)
    picks[op.before[2] : op.before[2] + shape[2]] = np.arange(shape[2])
    part = _move(0, (0, shape[2]), 0, picks, mode, window=window, pad_value=op.value)
    bias = np.where(picks < 0, op.value, 0).astype(np.int32)
    return (replace(part, bias=bias),)
