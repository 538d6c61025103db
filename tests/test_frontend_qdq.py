"""Models that come quantised: the integer reference against onnxruntime, byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tilewright.frontend import load, quantize
from tilewright.ir.errors import ModelError

Array = NDArray[Any]
POWER_OF_TWO, DECIMAL = 2.0**-5, 0.0371
"""Scales with many ties, and with none."""


class Builder:
    """A QDQ network under construction: each verb returns the name of a dequantised tensor."""

    def __init__(self, kind: type[np.generic], shape: tuple[int, ...] = (1, 8, 9, 7)) -> None:
        self.kind, self.shape = kind, shape
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.count = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def const(self, value: Any) -> str:
        name = self.name("k")
        self.constants[name] = np.asarray(value)
        return name

    def zero(self, zero: int) -> Array:
        return np.asarray(zero + (128 if self.kind is np.uint8 else 0), self.kind)

    def pair(self, tensor: str, scale: float, zero: int) -> str:
        s, z = self.const(np.float32(scale)), self.const(self.zero(zero))
        q, d = self.name("q"), self.name("d")
        self.nodes.append(helper.make_node("QuantizeLinear", [tensor, s, z], [q], name=self.name("quantise")))
        self.nodes.append(helper.make_node("DequantizeLinear", [q, s, z], [d], name=self.name("dequantise")))
        return d

    def weight(self, values: Array, scale: Any, axis: int | None) -> str:
        scale = np.asarray(scale, np.float32)
        d = self.name("w")
        extra = {} if axis is None else {"axis": axis}
        inputs = [
            self.const(values.astype(np.int8)),
            self.const(scale),
            self.const(np.zeros(scale.shape, np.int8)),
        ]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [d], name=d, **extra))
        return d

    def bias(self, values: Array, scale: Any) -> str:
        scale = np.asarray(scale, np.float32)
        d = self.name("b")
        inputs = [self.const(values.astype(np.int32)), self.const(scale)]
        extra = {"axis": 0} if scale.ndim else {}
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [d], name=d, **extra))
        return d

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        out = self.name("t")
        self.nodes.append(
            helper.make_node(kind, list(inputs), [out], name=self.name(kind.lower()), **attributes)
        )
        return out

    def build(self, *outputs: str) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "quantised",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.shape))],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
            [numpy_helper.from_array(v, n) for n, v in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def judge(model: ModelProto, feeds: dict[str, Array], *, fused: bool) -> list[Array]:
    """onnxruntime, with its integer kernels or with every pair left as it is."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not fused:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def conv(b: Builder, scale: float, *, per_channel: bool, groups: int, relu: bool) -> str:
    rng = np.random.default_rng(5)
    w = rng.integers(-127, 128, (12 if groups == 1 else 8, 8 // groups, 3, 3))
    ws = rng.uniform(0.5, 2, len(w)) * 2.0**-6 if scale == DECIMAL else 2.0 ** rng.integers(-8, -5, len(w))
    if not per_channel:
        ws = ws[:1].reshape(())
    x = b.pair("x", scale, 3)
    steps = np.float32(scale) * np.asarray(ws, np.float32)
    t = b.op(
        "Conv",
        x,
        b.weight(w, ws, 0 if per_channel else None),
        b.bias(rng.integers(-999, 999, len(w)), steps),
        group=groups,
        pads=[1, 1, 1, 1],
    )
    if relu:
        t = b.op("Relu", t)
    return b.pair(t, scale * 8, -128 if relu else 5)  # fmt: skip


def network(kind: str, b: Builder, scale: float) -> str:
    """The output of one small network."""
    x = ""
    match kind:
        case "conv":
            return conv(b, scale, per_channel=True, groups=1, relu=False)
        case "conv per tensor, relu":
            return conv(b, scale, per_channel=False, groups=1, relu=True)
        case "depthwise":
            return conv(b, scale, per_channel=True, groups=8, relu=False)
        case "fully connected":
            x = b.pair("x", scale, 3)
            rng = np.random.default_rng(6)
            w = rng.integers(-127, 128, (8 * 63, 10))
            flat = b.op("Flatten", x)
            flat = b.pair(flat, scale, 3)
            steps = b.bias(rng.integers(-999, 999, 10), np.float32(scale) * np.float32(2.0**-8))
            return b.pair(b.op("Gemm", flat, b.weight(w, 2.0**-8, None), steps), scale * 16, -7)
        case "concat of two scales":
            a, c = b.pair("x", scale, 3), b.pair("x", scale * 1.7, -20)
            return b.pair(b.op("Concat", a, c, axis=1), scale * 1.9, 1)
        case "max pool":
            return b.pair(
                b.op(
                    "MaxPool", b.pair("x", scale, 3), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
                ),
                scale,
                3,
            )
        case "sigmoid":
            return b.pair(b.op("Sigmoid", b.pair("x", scale, 3)), 1 / 256, -128)
        case "leaky relu":
            return b.pair(b.op("LeakyRelu", b.pair("x", scale, 3), alpha=0.1), scale * 0.9, -60)
        case "add":
            c = b.pair(b.op("Sigmoid", b.pair("x", scale, 3)), 1 / 256, -128)
            return b.pair(b.op("Add", b.pair("x", scale * 1.3, 0), c), scale * 1.5, 0)
        case "global average":
            return b.pair(b.op("GlobalAveragePool", b.pair("x", scale, 0)), scale / 3, 0)
        case "mul":
            c = b.pair(b.op("Sigmoid", b.pair("x", scale, 3)), 1 / 256, -128)
            return b.pair(b.op("Mul", b.pair("x", scale, 3), c), scale * 0.8, -4)
    raise AssertionError(kind)


EXACT = [
    "conv",
    "conv per tensor, relu",
    "depthwise",
    "fully connected",
    "concat of two scales",
    "max pool",
    "sigmoid",
    "leaky relu",
]
CLOSE = ["add", "global average", "mul"]


def codes(values: Array, scale: float) -> Array:
    return np.rint(values / np.float32(scale)).astype(np.int64)


def output_scale(model: ModelProto) -> float:
    """Scale of the last quantise node."""
    last = [x for x in model.graph.node if x.op_type == "QuantizeLinear"][-1]
    return float(numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == last.input[1])))


@pytest.mark.parametrize("scale", [POWER_OF_TWO, DECIMAL])
@pytest.mark.parametrize("kind", EXACT)
def test_an_int8_operator_equals_onnxruntime_on_every_byte(kind: str, scale: float) -> None:
    """int8 × int8, onnxruntime's integer kernels: 0 differing bytes."""
    b = Builder(np.int8)
    model = b.build(network(kind, b, scale))
    feeds = {"x": (np.random.default_rng(1).standard_normal(b.shape) * 60 * scale).astype(np.float32)}
    (want,) = judge(model, feeds, fused=True)
    (got,) = quantize(load(model)).run(feeds).values()
    assert np.array_equal(codes(got, output_scale(model)), codes(want, output_scale(model)))


@pytest.mark.parametrize("scale", [POWER_OF_TWO, DECIMAL])
@pytest.mark.parametrize("kind", [*EXACT, *CLOSE])
def test_a_uint8_model_becomes_int8_and_stays_within_one_step(kind: str, scale: float) -> None:
    """Subtracting 128 changes no real value; onnxruntime unfused computes in float, so a tie may fall either way."""
    b = Builder(np.uint8)
    model = b.build(network(kind, b, scale))
    feeds = {"x": (np.random.default_rng(2).standard_normal(b.shape) * 60 * scale).astype(np.float32)}
    (want,) = judge(model, feeds, fused=False)
    (got,) = quantize(load(model)).run(feeds).values()
    difference = np.abs(codes(got, output_scale(model)) - codes(want, output_scale(model)))
    assert difference.max() <= 1
    # A fused sum rounds after its zero point, an unfused one before: ties at powers of two (docs/numerics.md).
    assert np.mean(difference > 0) < (0.05 if kind == "add" and scale == POWER_OF_TWO else 0.005)


@pytest.mark.parametrize("kind", CLOSE)
def test_sums_and_means_differ_rarely_and_by_one(kind: str) -> None:
    b = Builder(np.int8)
    model = b.build(network(kind, b, DECIMAL))
    feeds = {"x": (np.random.default_rng(3).standard_normal(b.shape) * 2).astype(np.float32)}
    (want,) = judge(model, feeds, fused=True)
    (got,) = quantize(load(model)).run(feeds).values()
    difference = np.abs(codes(got, output_scale(model)) - codes(want, output_scale(model)))
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.01


def test_qoperator_nodes_equal_onnxruntime() -> None:
    """QLinearConv, QLinearAdd, QLinearConcat and QLinearGlobalAveragePool on int8."""
    rng = np.random.default_rng(4)
    constants = {
        "s": np.float32(0.05), "z": np.int8(4), "w": rng.integers(-127, 128, (8, 8, 1, 1)).astype(np.int8),
        "ws": rng.uniform(0.002, 0.01, 8).astype(np.float32), "wz": np.zeros(8, np.int8), "cs": np.float32(0.11), "cz": np.int8(-3),
        "b": rng.integers(-500, 500, 8).astype(np.int32), "as": np.float32(0.15), "az": np.int8(0),
    }  # fmt: skip
    ms = {"domain": "com.microsoft"}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="q"),
        helper.make_node(
            "QLinearConv", ["xq", "s", "z", "w", "ws", "wz", "cs", "cz", "b"], ["c"], name="conv"
        ),
        helper.make_node(
            "QLinearAdd", ["xq", "s", "z", "c", "cs", "cz", "as", "az"], ["a"], name="add", **ms
        ),
        helper.make_node(
            "QLinearConcat", ["as", "az", "a", "as", "az", "c", "cs", "cz"], ["j"], name="join", axis=1, **ms
        ),
        helper.make_node("QLinearGlobalAveragePool", ["j", "as", "az", "s", "z"], ["g"], name="mean", **ms),
        helper.make_node("DequantizeLinear", ["g", "s", "z"], ["y"], name="dq"),
    ]
    b = Builder(np.int8)
    b.nodes, b.constants = nodes, constants
    model = b.build("y")
    feeds = {"x": rng.standard_normal(b.shape).astype(np.float32) * 2}
    (want,) = judge(model, feeds, fused=True)
    (got,) = quantize(load(model)).run(feeds).values()
    assert np.abs(codes(got, 0.05) - codes(want, 0.05)).max() <= 1


def test_what_the_model_leaves_in_float_stays_with_the_host() -> None:
    """Without calibration nothing can be said about a tensor that has no scale; the result is then the model's own."""
    b = Builder(np.int8)
    x = b.pair("x", 0.05, 0)
    y = b.pair(b.op("Sqrt", b.op("Softmax", b.op("MaxPool", x, kernel_shape=[1, 1]), axis=1)), 0.004, -128)
    model = b.build(y)
    feeds = {"x": np.random.default_rng(1).standard_normal(b.shape).astype(np.float32)}
    quantised = quantize(load(model))
    (want,) = judge(model, feeds, fused=False)
    (got,) = quantised.run(feeds).values()
    assert quantised.calibration == "model"
    assert np.abs(codes(got, 0.004) - codes(want, 0.004)).max() <= 1


def test_activations_with_a_scale_a_channel_are_refused() -> None:
    b = Builder(np.int8)
    s, z = b.const(np.full(8, 0.1, np.float32)), b.const(np.zeros(8, np.int8))
    b.nodes.append(helper.make_node("QuantizeLinear", ["x", s, z], ["q"], name="by_channel", axis=1))
    b.nodes.append(helper.make_node("DequantizeLinear", ["q", s, z], ["d"], name="back", axis=1))
    with pytest.raises(
        ModelError, match=r"by_channel.*8 scales for an activation.*quantise activations per tensor"
    ):
        load(b.build(b.op("Relu", "d")))


def test_an_accumulator_that_may_overflow_is_refused_by_name() -> None:
    """131,072 products of 127 * 128 are just beyond int32."""
    b = Builder(np.int8, (1, 56, 50, 50))
    x = b.pair(b.op("MaxPool", b.pair("x", 0.05, 0), kernel_shape=[1, 1]), 0.05, 0)
    flat = b.pair(b.op("Flatten", x), 0.05, 0)
    w = b.weight(np.full((140_000, 2), 127), 0.01, None)
    model = b.build(b.pair(b.op("Gemm", flat, w), 1.0, 0))
    network = load(model)
    with pytest.raises(
        ModelError, match=r"gemm\d+: an accumulator may reach .*int32 holds less than 2147483648"
    ):
        quantize(network)
