"""Build a float ONNX network node by node, executing each node as it is added.

Random weights alone make a poor test network: after twenty layers every pixel of a channel holds the same
value and int8 keeps nothing of it. So each node runs at once on two synthetic images, and a convolution takes
its batch-norm statistics from what it just produced, as training would have left them: every channel varies,
none is dead, none explodes. The same run tells every shape, so no second shape rule is written here.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["BATCH_NORM_EPSILON", "OPSET", "Activation", "NetworkBuilder", "synthetic_images"]

OPSET = 17
"""ONNX operator set of the built networks (HardSwish since 14, LayerNormalization since 17)."""
IR_VERSION = 8
"""ONNX IR version that opset 17 was released with (onnx/docs/Versioning.md)."""
BATCH_NORM_EPSILON = 1e-5
"""torch.nn.BatchNorm2d's default eps."""
STATISTIC_BITS = 12
"""Significand bits kept of a running statistic: last-bit differences between float libraries vanish in it."""
MIN_POSITIONS = 32
"""Fewer samples a channel than this tell nothing about the channel; the layer's common spread is used."""

SHIFT = 1.0
"""Mean batch-norm shift before a rectifier, in standard deviations. A rectifier that cuts half of a centred map
makes a random network chaotic: relative noise power grows by ``P(z > 0) / Var(relu(z))`` a layer, 0.50 / 0.34 = 1.7 dB
at shift 0 and 0.84 / 0.75 = 0.5 dB at 1 (z standard normal; tests measure what int8 keeps)."""
RECTIFIERS = frozenset({"relu", "relu6", "hardswish", "silu"})

Activation = Literal["none", "relu", "relu6", "hardswish", "silu", "hardsigmoid", "sigmoid"]
Floats = NDArray[np.float32]


def synthetic_images(shape: Sequence[int], *, seed: int = 0) -> Floats:
    """Seeded images with a natural photograph's 1/f amplitude spectrum, mean 0 and variance 1 a channel.

    Parameters
    ----------
    shape : (N, C, H, W)

    Source of the spectrum: Field 1987, "Relations between the statistics of natural images and the response
    properties of cortical cells", fig. 7. Channels share 80 % of their amplitude, as colour planes do.
    """
    count, channels, height, width = shape
    rng = np.random.default_rng([seed, 0x1F])
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    amplitude = 1.0 / np.maximum(frequency, 1.0 / max(height, width))
    amplitude[0, 0] = 0.0 if height * width > 1 else 1.0
    shared, own = rng.standard_normal((count, 1, height, width)), rng.standard_normal(tuple(shape))
    spectrum = np.fft.rfft2(0.8 * shared + 0.6 * own) * amplitude
    image = np.fft.irfft2(spectrum, s=(height, width))
    spread = np.maximum(image.std(axis=(2, 3), keepdims=True), 1e-12)
    return np.ascontiguousarray(np.round(image / spread, 3).astype(np.float32)).reshape(
        count, channels, height, width
    )


def _few_bits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values with their significands rounded to `STATISTIC_BITS`."""
    significand, exponent = np.frexp(values)
    rounded: NDArray[np.float64] = np.ldexp(
        np.round(np.ldexp(significand, STATISTIC_BITS)), exponent - STATISTIC_BITS
    )
    return rounded


class NetworkBuilder:
    """An ONNX graph under construction, with the value of every tensor for two synthetic images.

    Parameters
    ----------
    name : str
        Of the ONNX graph.
    input_shape : (C, H, W)
    seed : int
        Each layer draws from its own stream, made of the seed and the layer's name: changing one layer
        leaves the weights of the others alone.
    batch_norm : bool
        Keep BatchNormalization nodes behind the convolutions that have them in the published network;
        otherwise they are folded into weight and bias, as an inference export does.
    """

    def __init__(self, name: str, input_shape: tuple[int, int, int], *, seed: int, batch_norm: bool) -> None:
        self.name = name
        self.seed = seed
        self.batch_norm = batch_norm
        self.input = "input"
        self._input_shape = input_shape
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._values: dict[str, NDArray[Any]] = {self.input: synthetic_images((2, *input_shape), seed=seed)}

    def shape(self, tensor: str) -> tuple[int, ...]:
        """ONNX shape of a tensor for one image: (1, C, H, W) or (1, C)."""
        return (1, *self._values[tensor].shape[1:])

    def value(self, tensor: str) -> NDArray[Any]:
        """What the tensor holds for the two synthetic images."""
        return self._values[tensor]

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add an initializer; return its name."""
        from onnx import numpy_helper

        self._initializers.append(numpy_helper.from_array(array, name))
        self._values[name] = array
        return name

    def node(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output, which is named as the node, and execute it."""
        return self.nodes(op, inputs, name, (name,), **attributes)[0]

    def nodes(
        self, op: str, inputs: Sequence[str], name: str, outputs: Sequence[str], **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node with these outputs and execute it."""
        from onnx import helper

        proto = helper.make_node(op, list(inputs), list(outputs), name=name, **attributes)
        for output, value in zip(outputs, self._execute(proto), strict=True):
            if output in self._values:
                raise ValueError(f"tensor {output} exists already")
            self._values[output] = value
        self._nodes.append(proto)
        return tuple(outputs)

    def activation(self, x: str, kind: Activation, name: str) -> str:
        """Add the activation as an exporter writes it: ReLU6 is Clip, SiLU is Sigmoid and Mul."""
        if kind == "none":
            return x
        if kind == "relu6":
            low, high = self._scalar("zero", 0.0), self._scalar("six", 6.0)
            return self.node("Clip", (x, low, high), f"{name}.relu6")
        if kind == "silu":
            gate = self.node("Sigmoid", (x,), f"{name}.sigmoid")
            return self.node("Mul", (x, gate), f"{name}.silu")
        if kind == "hardsigmoid":
            return self.node("HardSigmoid", (x,), f"{name}.hardsigmoid", alpha=1 / 6, beta=0.5)
        op = {"relu": "Relu", "hardswish": "HardSwish", "sigmoid": "Sigmoid"}[kind]
        return self.node(op, (x,), f"{name}.{kind}")

    def conv(
        self,
        x: str,
        channels: int,
        kernel: int | tuple[int, int] = 1,
        *,
        name: str,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        pads: tuple[int, int, int, int] | None = None,
        bn: bool = True,
        act: Activation = "none",
        gain: float = 1.0,
    ) -> str:
        """Add a convolution, its normalisation and its activation.

        Parameters
        ----------
        kernel : int or (KH, KW)
        pads : (top, left, bottom, right), optional
            Half the kernel's span on each side where not given.
        bn : bool
            The published network has batch normalisation here, and therefore no bias.
        gain : float
            Standard deviation of the normalised output; below 1 where a residual is summed up.
        """
        kernel_hw = (kernel, kernel) if isinstance(kernel, int) else kernel
        half = tuple((k - 1) * dilation // 2 for k in kernel_hw)
        fan_in = self.shape(x)[1] // groups * math.prod(kernel_hw)
        weight = self._he(name, (channels, self.shape(x)[1] // groups, *kernel_hw), fan_in)
        attributes = {
            "kernel_shape": kernel_hw,
            "strides": (stride, stride),
            "dilations": (dilation, dilation),
            "pads": pads or (*half, *half),
            "group": groups,
        }
        return self._normalised(
            "Conv", x, weight, axis=0, name=name, bn=bn, act=act, gain=gain, attributes=attributes
        )

    def depthwise(
        self, x: str, kernel: int = 3, *, name: str, stride: int = 1, act: Activation = "none"
    ) -> str:
        """Add a depthwise convolution with batch normalisation and an activation."""
        channels = self.shape(x)[1]
        return self.conv(x, channels, kernel, name=name, stride=stride, groups=channels, act=act)

    def conv_transpose(
        self,
        x: str,
        channels: int,
        kernel: int,
        *,
        name: str,
        stride: int,
        pad: int = 0,
        bn: bool = True,
        act: Activation = "none",
    ) -> str:
        """Add a transposed convolution, its normalisation and its activation."""
        fan_in = self.shape(x)[1] * max(1, kernel * kernel // (stride * stride))
        weight = self._he(name, (self.shape(x)[1], channels, kernel, kernel), fan_in)
        attributes = {"kernel_shape": (kernel, kernel), "strides": (stride, stride), "pads": (pad,) * 4}
        return self._normalised(
            "ConvTranspose", x, weight, axis=1, name=name, bn=bn, act=act, gain=1.0, attributes=attributes
        )

    def linear(self, x: str, features: int, *, name: str, act: Activation = "none", gain: float = 1.0) -> str:
        """Add a fully connected layer (Gemm with a transposed weight and a bias)."""
        weight = self._he(name, (features, self.shape(x)[1]), self.shape(x)[1])
        attributes = {"transB": 1}
        return self._normalised(
            "Gemm", x, weight, axis=0, name=name, bn=False, act=act, gain=gain, attributes=attributes
        )

    def add(self, a: str, b: str, *, name: str) -> str:
        return self.node("Add", (a, b), name)

    def concat(self, parts: Sequence[str], *, name: str) -> str:
        return self.node("Concat", parts, name, axis=1)

    def max_pool(
        self, x: str, kernel: int, stride: int, *, name: str, pad: int = 0, ceil: bool = False
    ) -> str:
        return self.node(
            "MaxPool",
            (x,),
            name,
            kernel_shape=(kernel, kernel),
            strides=(stride, stride),
            pads=(pad,) * 4,
            ceil_mode=int(ceil),
        )

    def squeeze_excite(
        self, x: str, squeezed: int, *, name: str, act: Activation = "relu", gate: Activation = "hardsigmoid"
    ) -> str:
        """Scale each channel by a gate computed from the means of all channels (Hu et al. 2018, fig. 2)."""
        mean = self.node("GlobalAveragePool", (x,), f"{name}.mean")
        hidden = self.conv(mean, squeezed, name=f"{name}.reduce", bn=False, act=act)
        weights = self.conv(hidden, self.shape(x)[1], name=f"{name}.expand", bn=False, act=gate)
        return self.node("Mul", (x, weights), f"{name}.scale")

    def channel_shuffle(self, x: str, groups: int, *, name: str) -> str:
        """Interleave the groups' channels: Reshape, Transpose, Reshape (Zhang et al. 2018, section 3.1)."""
        _, channels, height, width = self.shape(x)
        apart = self.constant(
            f"{name}.apart", np.array([0, groups, channels // groups, height, width], np.int64)
        )
        whole = self.constant(f"{name}.whole", np.array([0, channels, height, width], np.int64))
        x = self.node("Reshape", (x, apart), f"{name}.split")
        x = self.node("Transpose", (x,), f"{name}.transpose", perm=(0, 2, 1, 3, 4))
        return self.node("Reshape", (x, whole), f"{name}.join")

    def classify(self, x: str, classes: int, *, name: str = "classifier") -> str:
        """Global mean, flatten, fully connected logits."""
        x = self.node("GlobalAveragePool", (x,), f"{name}.mean")
        x = self.node("Flatten", (x,), f"{name}.flatten", axis=1)
        return self.linear(x, classes, name=name, gain=2.0)

    def finish(self, outputs: Sequence[str]) -> Any:
        """The ModelProto for one image; tests put every network through onnx's checker."""
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            self._nodes,
            self.name,
            [helper.make_tensor_value_info(self.input, TensorProto.FLOAT, (1, *self._input_shape))],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, self.shape(out)) for out in outputs],
            initializer=self._initializers,
        )
        return helper.make_model(
            graph,
            producer_name="tilewright",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
            doc_string=f"{self.name}, random weights of seed {self.seed}",
        )

    def _scalar(self, name: str, value: float) -> str:
        return name if name in self._values else self.constant(name, np.array(value, np.float32))

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def _he(self, name: str, shape: tuple[int, ...], fan_in: int) -> Floats:
        """Normal weights of variance 2 / fan_in (He et al. 2015, eq. 10)."""
        weight = self._rng(name).standard_normal(shape, dtype=np.float32)
        weight *= np.float32(math.sqrt(2.0 / fan_in))
        return weight

    def _normalised(
        self,
        op: str,
        x: str,
        weight: Floats,
        *,
        axis: int,
        name: str,
        bn: bool,
        act: Activation,
        gain: float,
        attributes: dict[str, Any],
    ) -> str:
        """Add the linear node whose weight has its output channels on `axis`, then norm and activation."""
        from onnx import helper

        self._values["*weight"] = weight
        (raw,) = self._execute(helper.make_node(op, [x, "*weight"], ["*raw"], **attributes))
        del self._values["*weight"]
        channels = weight.shape[axis]
        mean, variance = _running_statistics(raw)
        rng = self._rng(f"{name}.bn")
        gamma = gain * rng.uniform(0.8, 1.2, channels)
        beta = gain * (rng.uniform(-0.4, 0.4, channels) + (SHIFT if act in RECTIFIERS else 0.0))
        if bn and self.batch_norm:
            linear = self.node(op, (x, self.constant(f"{name}.weight", weight)), name, **attributes)
            parts = {
                "gamma": gamma,
                "beta": beta,
                "mean": mean,
                "variance": variance,
            }
            names = [self.constant(f"{name}.bn.{k}", np.asarray(v, np.float32)) for k, v in parts.items()]
            y = self.node("BatchNormalization", (linear, *names), f"{name}.bn", epsilon=BATCH_NORM_EPSILON)
        else:
            scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
            along = [1] * weight.ndim
            along[axis] = channels
            weight *= scale.astype(np.float32).reshape(along)
            bias = (beta - mean * scale).astype(np.float32)
            pair = (self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias))
            y = self.node(op, (x, *pair), name, **attributes)
        return self.activation(y, act, name)

    def _execute(self, proto: Any) -> list[NDArray[Any]]:
        """Outputs of one node for the values at hand, by onnxruntime on one thread."""
        import onnxruntime
        from onnx import helper

        feeds = {name: self._values[name] for name in proto.input if name}
        graph = helper.make_graph(
            [proto],
            "node",
            [
                helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                for k, v in feeds.items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in proto.output],
        )
        model = helper.make_model(
            graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, feeds))


def _running_statistics(raw: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance a channel (axis 1), the common ones of the layer where a channel has few samples."""
    values = np.moveaxis(raw, 1, 0).reshape(raw.shape[1], -1).astype(np.float64)
    if values.shape[1] < MIN_POSITIONS:
        mean = np.zeros(len(values))
        variance = np.full(len(values), np.mean(values**2))
    else:
        mean, variance = values.mean(axis=1), values.var(axis=1)
        # A channel that hardly varies would be blown up into noise; its floor: a tenth of the layer's spread.
        variance = np.maximum(variance, 0.01 * np.median(variance))
    return _few_bits(mean), np.maximum(_few_bits(variance), 1e-6)
