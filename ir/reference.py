"""The integer reference: what every operator computes, to the bit, in plain numpy.

This page is the specification of values. The emulator and the RTL equal it on every byte; onnxruntime
judges the frontend against it. Inputs and outputs are int8 arrays (H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError
from .graph import (
    Add,
    Concat,
    Conv,
    ConvTranspose,
    Graph,
    Mul,
    Op,
    Pad,
    Pool,
    PRelu,
    Quant,
    Reshape,
    Resize,
    Slice,
    Table,
    Window,
)
from .requant import requantise, round_shift

__all__ = ["accumulate", "evaluate", "run"]

Map = NDArray[np.int8]
Acc = NDArray[np.int64]


def run(
    graph: Graph, inputs: dict[str, Map], observe: Callable[[str, Map], None] | None = None
) -> dict[str, Map]:
    """Evaluate a graph.

    Parameters
    ----------
    inputs : dict of name to int8 (H, W, C)
        Frames of a batch below each other.
    observe : callable, optional
        Called with each tensor's name and value as it is produced.

    Returns
    -------
    dict of name to int8 (H, W, C)
        The graph's outputs.

    Raises
    ------
    ModelError
        An input is missing or has another shape or type.
    """
    for name in graph.inputs:
        value, want = inputs.get(name), graph.tensors[name].shape
        if value is None or value.shape != want or value.dtype != np.int8:
            got = "nothing" if value is None else f"{value.dtype}{list(value.shape)}"
            raise ModelError(f"input {name}: got {got}, the graph takes int8{list(want)}", tensor=name)
    if graph.frames == 1:
        return _run_frame(graph, inputs, observe)
    made: dict[str, list[Map]] = {}
    keep = (lambda name, value: made.setdefault(name, []).append(value)) if observe is not None else None
    parts = {name: np.split(inputs[name], graph.frames) for name in graph.inputs}
    frames = [_run_frame(graph.frame, {n: p[f] for n, p in parts.items()}, keep) for f in range(graph.frames)]
    if observe is not None:
        for name, values in made.items():
            observe(name, np.concatenate(values))
    return {name: np.concatenate([out[name] for out in frames]) for name in graph.outputs}


def _run_frame(
    graph: Graph, inputs: dict[str, Map], observe: Callable[[str, Map], None] | None
) -> dict[str, Map]:
    values = {name: inputs[name] for name in graph.inputs}
    last_use = {name: i for i, op in enumerate(graph.ops) for name in op.inputs}
    for i, op in enumerate(graph.ops):
        quants = tuple(graph.tensors[n].quant for n in op.inputs)
        values[op.output] = evaluate(
            op, tuple(values[n] for n in op.inputs), quants, graph.tensors[op.output].quant
        )
        if observe is not None:
            observe(op.output, values[op.output])
        for name in op.inputs:
            if last_use[name] == i and name not in graph.outputs:
                values.pop(name, None)
    return {name: values[name] for name in graph.outputs}


@singledispatch
def evaluate(op: Op, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    """One operator on its inputs; `qs` and `out` are the quantisations of inputs and output."""
    raise NotImplementedError(type(op))


def _centred(x: Map, q: Quant) -> Acc:
    """Values without their zero point."""
    return x.astype(np.int64) - q.zero_point


def _windows(x: Acc, window: Window, fill: int) -> Acc:
    """All windows of a map: (OH, OW, KH, KW, C), padding filled."""
    top, left, bottom, right = window.pad
    padded = np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=fill)
    (sh, sw), (dy, dx) = window.span, window.dilation
    view = np.lib.stride_tricks.sliding_window_view(padded, (sh, sw), axis=(0, 1))
    view = view[:: window.stride[0], :: window.stride[1], :, ::dy, ::dx]
    return view.transpose(0, 1, 3, 4, 2)


def accumulate(x: Acc, weight: NDArray[np.int8], window: Window, groups: int) -> Acc:
    """Sum of products (OH, OW, O) of a centred map with weights (O, KH, KW, I); exact.

    Float64 carries the products: |sum| <= 255 * 128 * taps is far below 2^53 for any layer that fits int32.
    """
    o, kh, kw, i = weight.shape
    win = _windows(x, window, 0)
    oh, ow = win.shape[:2]
    if i == 1 and groups > 1:
        multiplier = o // groups
        acc = np.zeros((oh, ow, o), np.int64)
        w = weight.astype(np.int64)
        for ky in range(kh):
            for kx in range(kw):
                acc += np.repeat(win[:, :, ky, kx, :], multiplier, axis=2) * w[:, ky, kx, 0]
        return acc
    parts = []
    for g in range(groups):
        w = weight[g * (o // groups) : (g + 1) * (o // groups)].reshape(o // groups, -1).astype(np.float64)
        rows = []
        step = max(1, (1 << 24) // max(1, ow * kh * kw * i))  # 128 MB of float64 at a time
        for y in range(0, oh, step):
            block = win[y : y + step, :, :, :, g * i : (g + 1) * i].astype(np.float64)
            rows.append((block.reshape(-1, kh * kw * i) @ w.T).reshape(block.shape[0], ow, -1))
        parts.append(np.concatenate(rows))
    return np.rint(np.concatenate(parts, axis=2)).astype(np.int64)


@evaluate.register
def _conv(op: Conv, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    acc = accumulate(_centred(xs[0], qs[0]), op.weight, op.window, op.groups) + op.bias
    return requantise(acc, op.scale_word, op.mode, zero_point=out.zero_point, low=op.low, high=op.high)


@evaluate.register
def _conv_transpose(op: ConvTranspose, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    x = _centred(xs[0], qs[0])
    (h, w, c), (sy, sx), (kh, kw) = x.shape, op.window.stride, op.window.kernel
    dy, dx = op.window.dilation
    oh, ow, o = op.infer((xs[0].shape,))
    top, left = op.window.pad[:2]
    full = np.zeros(
        (
            (h - 1) * sy + op.window.span[0] + op.output_pad[0],
            (w - 1) * sx + op.window.span[1] + op.output_pad[1],
            o,
        ),
        np.int64,
    )
    per_in, per_out = c // op.groups, o // op.groups
    for g in range(op.groups):
        xg = x[:, :, g * per_in : (g + 1) * per_in].astype(np.float64)
        for ky in range(kh):
            for kx in range(kw):
                wk = op.weight[g * per_out : (g + 1) * per_out, ky, kx, :].astype(np.float64)
                rows, cols = (
                    slice(ky * dy, ky * dy + (h - 1) * sy + 1, sy),
                    slice(kx * dx, kx * dx + (w - 1) * sx + 1, sx),
                )
                full[rows, cols, g * per_out : (g + 1) * per_out] += np.rint(xg @ wk.T).astype(np.int64)
    acc = full[top : top + oh, left : left + ow] + op.bias
    return requantise(acc, op.scale_word, op.mode, zero_point=out.zero_point, low=op.low, high=op.high)


@evaluate.register
def _add(op: Add, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    total = _centred(xs[0], qs[0]) * op.multiplier[0] + _centred(xs[1], qs[1]) * op.multiplier[1]
    y = round_shift(total, op.shift, half_even=op.mode != "shift") + out.zero_point
    return np.clip(y, op.low, op.high).astype(np.int8)


@evaluate.register
def _mul(op: Mul, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    acc = _centred(xs[0], qs[0]) * _centred(xs[1], qs[1])
    return requantise(
        acc, np.uint32(op.scale_word), op.mode, zero_point=out.zero_point, low=op.low, high=op.high
    )


@evaluate.register
def _pool(op: Pool, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    if op.kind == "max":
        best: Acc = _windows(xs[0].astype(np.int64), op.window, -128).max(axis=(2, 3))
        return np.asarray(np.clip(best, op.low, op.high), np.int8)
    total = _windows(_centred(xs[0], qs[0]), op.window, 0).sum(axis=(2, 3))
    valid = _windows(np.ones((*xs[0].shape[:2], 1), np.int64), op.window, 0).sum(axis=(2, 3))
    words = np.asarray(op.scale_words, np.uint32)[valid]
    return requantise(total, words, op.mode, zero_point=out.zero_point, low=op.low, high=op.high)


@evaluate.register
def _table(op: Table, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    del qs, out
    return np.asarray(op.values, np.int8)[xs[0].astype(np.int64) + 128]


@evaluate.register
def _prelu(op: PRelu, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    a = _centred(xs[0], qs[0])
    limits = {"zero_point": out.zero_point, "low": op.low, "high": op.high}
    positive = requantise(a, np.uint32(op.positive), op.mode, **limits)
    negative = requantise(np.where(op.negative, -a, a), op.slope, op.mode, **limits)
    return np.where(a >= 0, positive, negative)


@evaluate.register
def _concat(op: Concat, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    del op, qs, out
    return np.concatenate(xs, axis=2)


@evaluate.register
def _slice(op: Slice, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    del qs, out
    (a, b, c), (d, e, f), (g, h, i) = op.start, op.stop, op.step
    return np.ascontiguousarray(xs[0][a:d:g, b:e:h, c:f:i])


@evaluate.register
def _pad(op: Pad, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    del qs, out
    return np.pad(xs[0], tuple(zip(op.before, op.after, strict=True)), constant_values=op.value)


@evaluate.register
def _resize(op: Resize, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    a = _centred(xs[0], qs[0])
    h, w = a.shape[:2]
    acc: Acc = np.zeros((len(op.rows), len(op.cols), a.shape[2]), np.int64)
    for dy in (0, 1):
        y = np.minimum(op.rows[:, 0] + dy, h - 1)
        wy = (op.rows[:, 1] if dy else 2048 - op.rows[:, 1]).astype(np.int64)
        for dx in (0, 1):
            x = np.minimum(op.cols[:, 0] + dx, w - 1)
            wx = (op.cols[:, 1] if dx else 2048 - op.cols[:, 1]).astype(np.int64)
            acc = acc + a[np.ix_(y, x)] * (wy[:, None] * wx[None, :])[:, :, None]
    return requantise(acc, np.uint32(op.scale_word), op.mode, zero_point=out.zero_point, low=-128, high=127)


@evaluate.register
def _reshape(op: Reshape, xs: tuple[Map, ...], qs: tuple[Quant, ...], out: Quant) -> Map:
    del qs, out
    return xs[0].reshape(op.shape)
