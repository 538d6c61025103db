"""Emission: layers and scales become the integer operators of `ir.graph`.

Weights are per channel, symmetric, in -127..127; biases int32 at the product of input and weight scale. Multipliers are
formed in float32 in the order onnxruntime forms them, so that mode f32 equals it on every byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod

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
from .tidy import tidy
from .weights import SMALLEST_MULTIPLIER, bias_codes, largest_sum, quantise_weights, weight_drift

__all__ = ["Emission"]

ACCUMULATOR_LIMIT = 1 << 31
"""An int32 accumulator holds |sum| below this."""


@dataclass(eq=False)
class Emission:
    """Operators of one segment under construction; `graph` closes it."""

    mode: RoundingMode
    quants: Mapping[str, Quant]
    shapes: Mapping[str, Shape]
    follow: bool = True
    """Use the integer weights that the model brought."""
    means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
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
        return tidy(Graph(name, tensors, tuple(self.ops), tuple(inputs), tuple(outputs)))

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
            integer = bias_codes(layer.bias, x.scale, scale) if bias is None else bias.astype(np.int64)
        else:
            codes, scale = quantise_weights(layer.weight, layer.bias, x.scale, y.scale, self.mode)
            real = layer.bias - weight_drift(layer, codes, scale, self.means.get(layer.inputs[0]))
            integer = bias_codes(real, x.scale, scale)
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

    def _bounded(self, layer: Linear, codes: NDArray[np.int8], bias: NDArray[np.int64], x: Quant) -> None:
        most = largest_sum(codes, bias, x.zero_point)
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
        if self.mode == "shift":
            self._slopes_by_weights(layer, x, y)
            return
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

    def _slopes_by_weights(self, layer: Slopes, x: Quant, y: Quant) -> None:
        """Shifts cannot multiply by 0.25 a channel: ``max(x, 0)`` plus a depthwise layer over ``min(x, 0)`` does, to 7 bits."""
        source, shape, channels = layer.inputs[0], self.shapes[layer.output], self.shapes[layer.output][2]
        halves = []
        for half, clamp in (("above", (x.zero_point, 127)), ("below", (-128, x.zero_point))):
            name = self._declare(f"{layer.output}/{half}", x, shape)
            self.ops.append(
                Table(name, (source,), name, tuple(int(np.clip(q, *clamp)) for q in range(-128, 128)))
            )
            halves.append(name)
        weight, bias = layer.slope.reshape(channels, 1, 1, 1), np.zeros(channels)
        codes, scale = quantise_weights(weight, bias, x.scale, y.scale, self.mode)
        words = encode_scale(np.float32(x.scale) * scale / np.float32(y.scale), self.mode)
        name, zero = self._declare(f"{layer.output}/sloped", y, shape), np.zeros(channels, np.int32)
        self.ops.append(Conv(name, (halves[1],), name, codes, zero, words, groups=channels, mode=self.mode))
        ma, mb, shift = encode_pair(x.scale / y.scale, 1.0, self.mode)
        self._declare(layer.output)
        low, high = self._limits(layer.clamp, y)
        self.ops.append(
            Add(layer.name, (halves[0], name), layer.output, (ma, mb), shift, low, high, self.mode)
        )

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
