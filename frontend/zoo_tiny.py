"""A small network in which every operator the DPU knows occurs once, for tests of seconds."""

from __future__ import annotations

import math

import numpy as np

from .zoo_blocks import NetworkBuilder

__all__ = ["tiny"]


def tiny(net: NetworkBuilder, width: float, classes: int) -> str:
    """Stem, mobile block, residual shapes, data movement, decoder, pools and a head with Softmax.

    Each section ends in a map that the next one reads, so that no operator's result is lost.
    """
    channels = max(8, int(16 * width + 4) // 8 * 8)
    x = _stem(net, channels)
    x = _mobile(net, x, channels)
    x = _elementwise(net, x)
    x = _movement(net, x, channels)
    x = _decoder(net, x, channels)
    return _head(net, x, channels, classes)


def _stem(net: NetworkBuilder, channels: int) -> str:
    """Asymmetric padding, stride 2; BatchNormalization before the activation, apart from any convolution."""
    x = net.conv(net.input, channels, 3, name="stem", stride=2, pads=(0, 0, 1, 1), act="relu6")
    rng = np.random.default_rng(7)
    parts = [
        net.constant(f"affine.{name}", rng.uniform(low, high, channels).astype(np.float32))
        for name, low, high in [
            ("gamma", 0.5, 1.5),
            ("beta", -0.5, 0.5),
            ("mean", 0, 1),
            ("variance", 0.5, 2),
        ]
    ]
    x = net.node("BatchNormalization", (x, *parts), "affine")
    return net.activation(x, "relu", "affine")


def _mobile(net: NetworkBuilder, x: str, channels: int) -> str:
    """Depthwise with a channel multiplier, 5×5 depthwise, squeeze-excite, residual add."""
    y = net.conv(x, 2 * channels, 3, name="multiplied", groups=channels, act="hardswish")
    y = net.depthwise(y, 5, name="depthwise5", act="silu")
    y = net.squeeze_excite(y, 8, name="se")
    y = net.conv(y, channels, name="project", gain=0.5)
    return net.add(x, y, name="residual")


def _elementwise(net: NetworkBuilder, x: str) -> str:
    """Grouped and dilated convolutions, LeakyRelu, PRelu, Tanh, GELU, Sub and Mul of two maps."""
    channels = net.shape(x)[1]
    a = net.conv(x, channels, 3, name="grouped", groups=2)
    a = net.node("LeakyRelu", (a,), "grouped.leaky", alpha=0.1)
    b = net.conv(x, channels, (3, 1), name="dilated", dilation=2)
    slope = np.linspace(-0.1, 0.4, channels, dtype=np.float32).reshape(channels, 1, 1)
    b = net.node("PRelu", (b, net.constant("dilated.slope", slope)), "dilated.prelu")
    gate = net.node("Tanh", (net.conv(x, channels, name="gate"),), "gate.tanh")
    gated = net.node("Mul", (net.node("Sub", (a, b), "difference"), gate), "gated")
    root, one, half = (
        net.constant(f"gelu.{v:.2f}", np.array(v, np.float32)) for v in (math.sqrt(2), 1.0, 0.5)
    )
    inner = net.node("Erf", (net.node("Div", (gated, root), "gelu.div"),), "gelu.erf")
    scaled = net.node("Mul", (gated, net.node("Add", (inner, one), "gelu.add")), "gelu.mul")
    return net.node("Mul", (scaled, half), "gelu")


def _movement(net: NetworkBuilder, x: str, channels: int) -> str:
    """Channel shuffle, Split, Slice, Pad, space to depth and back, Concat."""
    x = net.channel_shuffle(x, 2, name="shuffle")
    left, right = net.nodes("Split", (x,), "split", ("split.left", "split.right"), axis=1)
    height, width = net.shape(x)[2:]
    bounds = {"starts": [1, 1], "ends": [height - 1, width - 1], "axes": [2, 3]}
    names = [net.constant(f"crop.{k}", np.array(v, np.int64)) for k, v in bounds.items()]
    left = net.node("Slice", (left, *names), "crop")
    pads = net.constant("frame.pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    left = net.node("Pad", (left, pads), "frame", mode="constant")
    right = net.node("SpaceToDepth", (right,), "space_to_depth", blocksize=2)
    right = net.node("DepthToSpace", (right,), "depth_to_space", blocksize=2, mode="DCR")
    return net.conv(net.concat((left, right), name="rejoin"), channels, name="mix", act="relu")


def _decoder(net: NetworkBuilder, x: str, channels: int) -> str:
    """Max and average pools (padding counted or not), ConvTranspose, nearest and bilinear Resize."""
    small = net.max_pool(x, 3, 2, name="max_pool", pad=1)
    window = {"kernel_shape": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1)}
    inside = net.node("AveragePool", (small,), "average_inside", count_include_pad=0, **window)
    counted = net.node("AveragePool", (small,), "average_counted", count_include_pad=1, **window)
    up = net.conv_transpose(small, channels, 4, name="enlarge", stride=2, pad=1, act="relu")
    factor = net.constant("resize.scales", np.array([1, 1, 2, 2], np.float32))
    nearest = net.node(
        "Resize",
        (counted, "", factor),
        "resize_nearest",
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    linear = net.node(
        "Resize",
        (inside, "", factor),
        "resize_linear",
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    return net.node("Sum", (x, up, nearest, linear), "sum")


def _head(net: NetworkBuilder, x: str, channels: int, classes: int) -> str:
    """Global average and maximum, mean over H and W, Gemm, MatMul, Softmax."""
    x = net.conv(x, 2 * channels, 3, name="head", stride=2, act="relu")
    mean = net.node("GlobalAveragePool", (x,), "head.mean")
    peak = net.node("GlobalMaxPool", (x,), "head.peak")
    both = net.node("Flatten", (net.concat((mean, peak), name="head.both"),), "head.flatten", axis=1)
    hidden = net.linear(both, 4 * channels, name="hidden", act="relu")
    other = net.linear(
        net.node("ReduceMean", (x,), "head.reduce", axes=(2, 3), keepdims=0), 4 * channels, name="other"
    )
    weight = np.random.default_rng(11).standard_normal((4 * channels, classes)).astype(np.float32)
    weight *= np.float32(1.0 / math.sqrt(channels))
    joined = net.add(hidden, other, name="joined")
    logits = net.node("MatMul", (joined, net.constant("logits.weight", weight)), "logits")
    return net.node("Softmax", (logits,), "probabilities", axis=1)
