"""Emission: layers and scales become the integer operators of `ir.graph`.

Weights are per channel, symmetric, in -127..127; biases int32 at the product of input and weight scale. Multipliers are
formed in float32 in the order onnxruntime forms them, so that mode f32 equals it on every byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from math import ceil, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import ModelError
from ..ir.graph import (
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
    Shape,
    Slice,
    Table,
    Tensor,
)
from ..ir.requant import RoundingMode, encode_pair, encode_scale
from .elementwise import evaluate
from .layers import (
    Average,
    Clamp,
    Cut,
    Fill,
    Join,
    Layer,
    Linear,
    Maximum,
    Product,
    Recast,
    Sample,
    Slopes,
    Sum,
    Unary,
)

__all__ = ["Emission", "quantise_weights"]

ACCUMULATOR_LIMIT = 1 << 31
"""An int32 accumulator holds |sum| below this."""
SMALLEST_MULTIPLIER = 2.0**-40
"""Below it every int32 accumulator rounds to zero; a weight scale is not made smaller than that."""
BLOCK_ELEMENTS = 1 << 20
"""Weights that are quantised at a time (8 MiB of float64)."""
BIAS_BITS = 24
"""A weight scale is widened until its bias fits so many bits: float32 holds the bias exactly then."""


def quantise_weights(
    weight: NDArray[Any], bias: NDArray[np.float64], x_scale: float, y_scale: float, mode: RoundingMode
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Per-channel symmetric int8 weights (O, ...) and their scales (O,).

    >>> w, s = quantise_weights(np.array([[1.27, -0.5]]), np.zeros(1), 1.0, 1.0, "f32")
    >>> w.tolist(), round(float(s[0]), 6)
    ([[127, -50]], 0.01)
    """
    flat = weight.reshape(weight.shape[0], -1)
    floor = np.maximum(np.abs(bias) / (x_scale * 2.0**BIAS_BITS), SMALLEST_MULTIPLIER * y_scale / x_scale)
    peak = np.maximum(flat.max(axis=1), -flat.min(axis=1)).astype(np.float64)
    scale = np.maximum(peak / 127, floor).astype(np.float32)
    if mode == "shift":
        scale = np.array([2.0 ** ceil(log2(s)) for s in scale.astype(np.float64)], np.float32)
    codes = np.empty(flat.shape, np.int8)
    for rows in _blocks(*flat.shape):
        steps = flat[rows] / scale[rows].astype(np.float64)[:, None]
        codes[rows] = np.clip(np.rint(steps), -127, 127)
    return codes.reshape(weight.shape), scale


def _blocks(outputs: int, inputs: int) -> Iterator[slice]:
    """Output channels a few megabytes at a time: a fully connected layer in float64 would not fit the cache, or memory."""
    size = max(1, BLOCK_ELEMENTS // max(1, inputs))
    for start in range(0, outputs, size):
        yield slice(start, start + size)


@dataclass(eq=False)
class Emission:
    """Operators of one segment under construction; `graph` closes it."""

    mode: RoundingMode
    quants: Mapping[str, Quant]
    shapes: Mapping[str, Shape]
    follow: bool = True
    """Use the integer weights that the model brought."""
    corrections: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Mean of each input channel, for bias correction, by map."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    rescaled: dict[tuple[str, Quant], str] = field(default_factory=dict)

    def graph(
        self, name: str, layers: Sequence[Layer], inputs: Sequence[str], outputs: Sequence[str]
    ) -> Graph:
        """The graph of some layers."""
        for i in inputs:
            self.tensors[i] = Tensor(i, self.shapes[i], self.quants[i])
        for layer in layers:
            self.emit(layer)
        used = {*inputs, *outputs} | {n for op in self.ops for n in (*op.inputs, op.output)}
        tensors = {n: t for n, t in self.tensors.items() if n in used}
        return Graph(name, tensors, tuple(self.ops), tuple(inputs), tuple(outputs))

    # -- pieces --------------------------------------------------------------------------------------

    def _declare(self, name: str, quant: Quant | None = None, shape: Shape | None = None) -> str:
        self.tensors[name] = Tensor(name, shape or self.shapes[name], quant or self.quants[name])
        return name

    def _limits(self, clamp: Clamp, quant: Quant) -> tuple[int, int]:
        """Codes of a real clamp."""
        low, high = -128, 127
        if np.isfinite(clamp[0]):
            low = int(
                np.clip(np.rint(np.float32(clamp[0]) / np.float32(quant.scale)) + quant.zero_point, -128, 127)
            )
        if np.isfinite(clamp[1]):
            high = int(
                np.clip(np.rint(np.float32(clamp[1]) / np.float32(quant.scale)) + quant.zero_point, -128, 127)
            )
        return low, high

    def _as(self, name: str, quant: Quant) -> str:
        """A map in another scale: itself where it already has it, else through a table."""
        have = self.tensors[name].quant
        if have == quant:
            return name
        key = (name, quant)
        if key not in self.rescaled:
            out, n = f"{name}/rescaled", 1
            while out in self.tensors:
                out, n = f"{name}/rescaled{n}", n + 1
            self._rescale(name, out, quant)
            self.rescaled[key] = out
        return self.rescaled[key]

    def _rescale(self, source: str, out: str, quant: Quant) -> None:
        tensor = self.tensors[source]
        codes = np.arange(-128, 128) - tensor.quant.zero_point
        real = codes.astype(np.float32) * np.float32(tensor.quant.scale)
        values = np.clip(np.rint(real / np.float32(quant.scale)) + quant.zero_point, -128, 127)
        self._declare(out, quant, tensor.shape)
        self.ops.append(Table(out, (source,), out, tuple(int(v) for v in values)))

    def _moved(self, layer: Layer, op: Op) -> None:
        """An operator that keeps codes: in its input's scale, then a rescale where its output has another."""
        have, want = self.tensors[layer.inputs[0]].quant, self.quants[layer.output]
        if have == want:
            self._declare(layer.output)
            self.ops.append(op)
            return
        name = f"{layer.output}/codes"
        self._declare(name, have, self.shapes[layer.output])
        self.ops.append(replace(op, output=name))
        self._rescale(name, layer.output, want)

    # -- one method a layer --------------------------------------------------------------------------

    @singledispatchmethod
    def emit(self, layer: Layer) -> None:
        """Append the operators of a layer."""
        raise NotImplementedError(type(layer))

    @emit.register
    def _(self, layer: Linear) -> None:
        x, y = self.tensors[layer.inputs[0]].quant, self.quants[layer.output]
        outputs = layer.weight.shape[0]
        if layer.moves:
            one = np.full(outputs, encode_scale(1.0, self.mode), np.uint32)
            self._moved(
                layer,
                self._linear(
                    layer, layer.weight.astype(np.int8), np.zeros(outputs, np.int32), one, (-128, 127)
                ),
            )
            return
        if layer.exact is not None and self.follow:
            codes, scale = layer.exact.weight, layer.exact.scale
            bias = layer.exact.bias
            integer = _bias_codes(layer.bias, x.scale, scale) if bias is None else bias.astype(np.int64)
        else:
            codes, scale = quantise_weights(layer.weight, layer.bias, x.scale, y.scale, self.mode)
            real = layer.bias - self._drift(layer, codes, scale)
            integer = _bias_codes(real, x.scale, scale)
        self._bounded(layer, codes, integer, x)
        multiplier = np.float32(x.scale) * scale / np.float32(y.scale)
        try:
            words = encode_scale(multiplier, self.mode)
        except ModelError as cause:
            raise ModelError(f"{layer.name}: {cause}", node=layer.name) from None
        self._declare(layer.output)
        self.ops.append(
            self._linear(layer, codes, integer.astype(np.int32), words, self._limits(layer.clamp, y))
        )

    def _linear(
        self,
        layer: Linear,
        weight: NDArray[np.int8],
        bias: NDArray[np.int32],
        words: NDArray[np.uint32],
        limits: tuple[int, int],
    ) -> Op:
        low, high = limits
        if layer.transposed:
            return ConvTranspose(
                layer.name, layer.inputs, layer.output, weight, bias, words, layer.window, layer.output_pad,
                layer.groups, low, high, self.mode, layer.moves,
            )  # fmt: skip
        return Conv(
            layer.name,
            layer.inputs,
            layer.output,
            weight,
            bias,
            words,
            layer.window,
            layer.groups,
            low,
            high,
            self.mode,
            layer.moves,
        )

    def _drift(
        self, layer: Linear, codes: NDArray[np.int8], scale: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Mean error that rounding the weights adds to each output channel (bias correction; Nagel 2019, sec. 4.2)."""
        mean, (outputs, _, _, inputs) = self.corrections.get(layer.inputs[0]), codes.shape
        drift = np.zeros(outputs)
        if mean is None or len(mean) != layer.groups * inputs:
            return drift
        by_group, per_out = mean.reshape(layer.groups, inputs), outputs // layer.groups
        for rows in _blocks(outputs, codes[0].size):
            error = codes[rows] * scale[rows].astype(np.float64)[:, None, None, None] - layer.weight[rows]
            channels = by_group[np.arange(outputs)[rows] // per_out]
            drift[rows] = (error.sum(axis=(1, 2)) * channels).sum(axis=1)
        return drift

    def _bounded(self, layer: Linear, codes: NDArray[np.int8], bias: NDArray[np.int64], x: Quant) -> None:
        reach = max(127 - x.zero_point, 128 + x.zero_point)
        flat = codes.reshape(len(codes), -1)
        total = np.concatenate(
            [np.abs(flat[r].astype(np.int16)).sum(axis=1, dtype=np.int64) for r in _blocks(*flat.shape)]
        )
        most = total * reach + np.abs(bias)
        if most.max() >= ACCUMULATOR_LIMIT:
            raise ModelError(
                f"{layer.name}: an accumulator may reach {int(most.max())}, int32 holds less than {ACCUMULATOR_LIMIT}; split the layer's "
                "input channels, or use weights of smaller norm",
                node=layer.name,
                bound=int(most.max()),
            )

    @emit.register
    def _(self, layer: Sum) -> None:
        y = self.quants[layer.output]
        scales = [self.tensors[n].quant.scale for n in layer.inputs]
        ratios = [f * s / y.scale for f, s in zip(layer.factors, scales, strict=True)]
        ma, mb, shift = encode_pair(ratios[0], ratios[1], self.mode)
        self._declare(layer.output)
        low, high = self._limits(layer.clamp, y)
        self.ops.append(Add(layer.name, layer.inputs, layer.output, (ma, mb), shift, low, high, self.mode))

    @emit.register
    def _(self, layer: Product) -> None:
        y = self.quants[layer.output]
        a, b = (np.float32(self.tensors[n].quant.scale) for n in layer.inputs)
        word = int(encode_scale(a * b / np.float32(y.scale), self.mode))
        self._declare(layer.output)
        low, high = self._limits(layer.clamp, y)
        self.ops.append(Mul(layer.name, layer.inputs, layer.output, word, low, high, self.mode))

    @emit.register
    def _(self, layer: Maximum) -> None:
        quant = self.tensors[layer.inputs[0]].quant
        low, high = self._limits(layer.clamp, quant)
        self._moved(
            layer, Pool(layer.name, layer.inputs, layer.output, "max", layer.window, (), low, high, self.mode)
        )

    @emit.register
    def _(self, layer: Average) -> None:
        x, y = self.tensors[layer.inputs[0]].quant, self.quants[layer.output]
        taps = layer.window.taps
        low, high = self._limits(layer.clamp, y)
        whole = not any(layer.window.pad)
        divisor = layer.divisor or (taps if whole else 0)
        if self.mode == "shift" and (divisor == 0 or divisor & (divisor - 1)):
            self._average_by_weights(layer, divisor, x, y)
            return
        counts = [divisor or n for n in range(1, taps + 1)]
        words = [
            int(encode_scale(np.float32(x.scale) / (np.float32(y.scale) * np.float32(n)), self.mode))
            for n in counts
        ]
        self._declare(layer.output)
        self.ops.append(
            Pool(
                layer.name,
                layer.inputs,
                layer.output,
                "avg",
                layer.window,
                (words[0], *words),
                low,
                high,
                self.mode,
            )
        )

    def _average_by_weights(self, layer: Average, divisor: int, x: Quant, y: Quant) -> None:
        """Shifts cannot divide by 9 or 49: a depthwise convolution with equal weights does, to 7 bits."""
        if not divisor:
            raise ModelError(
                f"{layer.name}: an average that leaves its padding out divides by changing counts, and mode shift only has powers "
                "of two; use mode fix16 or f32, or count_include_pad=1",
                node=layer.name,
            )
        channels = self.shapes[layer.output][2]
        weight = np.full((channels, *layer.window.kernel, 1), 1 / divisor)
        self.emit(
            Linear(
                layer.name,
                layer.inputs,
                layer.output,
                layer.nodes,
                weight,
                np.zeros(channels),
                layer.window,
                channels,
                clamp=layer.clamp,
            )
        )

    @emit.register
    def _(self, layer: Unary) -> None:
        x, y = self.tensors[layer.inputs[0]].quant, self.quants[layer.output]
        codes = np.arange(-128, 128) - x.zero_point
        real = (codes.astype(np.float32) * np.float32(x.scale)).astype(np.float64)
        result = evaluate(layer.steps, layer.root, real).astype(np.float32)
        values = np.clip(np.rint(result / np.float32(y.scale)) + y.zero_point, -128, 127)
        self._declare(layer.output)
        self.ops.append(Table(layer.name, layer.inputs, layer.output, tuple(int(v) for v in values)))

    @emit.register
    def _(self, layer: Slopes) -> None:
        x, y = self.tensors[layer.inputs[0]].quant, self.quants[layer.output]
        ratio = np.float32(x.scale) / np.float32(y.scale)
        slopes = np.maximum(np.abs(layer.slope) * ratio, SMALLEST_MULTIPLIER).astype(np.float32)
        low, high = self._limits(layer.clamp, y)
        self._declare(layer.output)
        self.ops.append(
            PRelu(
                layer.name, layer.inputs, layer.output, int(encode_scale(ratio, self.mode)), encode_scale(slopes, self.mode),
                layer.slope < 0, low, high, self.mode,
            )
        )  # fmt: skip

    @emit.register
    def _(self, layer: Join) -> None:
        quant = self.quants[layer.output]
        names = tuple(self._as(n, quant) for n in layer.inputs)
        self._declare(layer.output)
        self.ops.append(Concat(layer.name, names, layer.output))

    @emit.register
    def _(self, layer: Cut) -> None:
        self._moved(layer, Slice(layer.name, layer.inputs, layer.output, layer.start, layer.stop, layer.step))

    @emit.register
    def _(self, layer: Fill) -> None:
        quant = self.quants[layer.output]
        value = int(
            np.clip(np.rint(np.float32(layer.value) / np.float32(quant.scale)) + quant.zero_point, -128, 127)
        )
        source = self._as(layer.inputs[0], quant)
        self._declare(layer.output)
        self.ops.append(Pad(layer.name, (source,), layer.output, layer.before, layer.after, value))

    @emit.register
    def _(self, layer: Sample) -> None:
        x, y = self.tensors[layer.inputs[0]].quant, self.quants[layer.output]
        # The two fractions of 2048 make a factor of 2^22 (ir.graph.Resize).
        word = int(encode_scale(np.float32(x.scale) / np.float32(y.scale) * np.float32(2.0**-22), self.mode))
        self._declare(layer.output)
        self.ops.append(
            Resize(layer.name, layer.inputs, layer.output, layer.rows, layer.cols, word, self.mode)
        )

    @emit.register
    def _(self, layer: Recast) -> None:
        self._moved(layer, Reshape(layer.name, layer.inputs, layer.output, layer.shape))


def _bias_codes(bias: NDArray[np.float64], x_scale: float, scale: NDArray[np.float32]) -> NDArray[np.int64]:
    steps = x_scale * scale.astype(np.float64)
    return np.rint(np.asarray(bias, np.float64) / steps).astype(np.int64)
