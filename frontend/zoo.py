"""Published networks built in code as float ONNX, with seeded random weights: benchmarks without a download.

Shapes are those of torchvision (MobileNetV1: Howard et al. 2017), so MACs and parameters are the published
ones; tests hold them to that. Names of layers say what they do (``block3.expand``), since every report shows
them. ``unet`` and ``tiny`` are our own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..ir.errors import ModelError
from .zoo_blocks import Activation, NetworkBuilder
from .zoo_tiny import tiny

__all__ = ["NAMES", "build"]

Body = Callable[[NetworkBuilder, float, int], str]
"""Adds the layers for a width multiplier and a class count; returns the output tensor."""


@dataclass(frozen=True, slots=True)
class _Entry:
    body: Body
    resolution: int = 224
    classes: int = 1000
    smallest: int = 32
    """Smallest resolution whose last map still has a pixel."""


def build(
    name: str,
    *,
    seed: int = 0,
    width: float = 1.0,
    resolution: int | None = None,
    classes: int | None = None,
    batch_norm: bool = False,
) -> Any:
    """A float network as `onnx.ModelProto` (opset 17, input ``input`` of 1×3×R×R).

    Parameters
    ----------
    name : str
        One of `NAMES`.
    seed : int
        Same seed, same network.
    width : float
        Multiplier of every channel count but the classes', rounded to multiples of 8.
    resolution, classes : int, optional
        224 and 1000 where not given; ``unet`` has 2 classes, ``tiny`` 32×32 pixels and 10 classes.
    batch_norm : bool
        Keep BatchNormalization nodes instead of folding them.

    Raises
    ------
    ModelError
        An unknown name, or a size the network cannot have.
    """
    if name not in _ENTRIES:
        close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ModelError(
            f"no built-in network is called {name!r}; {hint}there are {', '.join(NAMES)}", name=name
        )
    entry = _ENTRIES[name]
    pixels = entry.resolution if resolution is None else resolution
    labels = entry.classes if classes is None else classes
    if pixels < entry.smallest or pixels % 32:
        raise ModelError(
            f"{name}: resolution {pixels} is not a multiple of 32 of at least {entry.smallest}; "
            f"try {max(entry.smallest, round(pixels / 32) * 32)}",
            resolution=pixels,
            smallest=entry.smallest,
        )
    if not 0.0 < width <= 8.0:
        raise ModelError(f"{name}: width multiplier {width} is outside (0, 8]", width=width)
    if labels < 1:
        raise ModelError(f"{name}: {labels} classes; a network needs at least 1", classes=labels)
    if seed < 0:
        raise ModelError(f"{name}: seed {seed} is negative; use 0 or more", seed=seed)
    net = NetworkBuilder(name, (3, pixels, pixels), seed=seed, batch_norm=batch_norm)
    return net.finish([entry.body(net, width, labels)])


def _scaled(channels: int, width: float) -> int:
    """Channels times width, to the nearest multiple of 8 that loses no more than 10 %.

    The rule of the MobileNets (Sandler et al. 2018, reference code ``_make_divisible``).
    """
    if width == 1.0:
        return channels
    return _divisible(channels * width)


def _divisible(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _mobilenet_v1(net: NetworkBuilder, width: float, classes: int) -> str:
    """Howard et al. 2017, table 1."""
    x = net.conv(net.input, _scaled(32, width), 3, name="stem", stride=2, act="relu")
    blocks = [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ]
    for index, (channels, stride) in enumerate(blocks):
        x = net.depthwise(x, name=f"block{index}.depthwise", stride=stride, act="relu")
        x = net.conv(x, _scaled(channels, width), name=f"block{index}.pointwise", act="relu")
    return net.classify(x, classes)


def _inverted_residual(
    net: NetworkBuilder,
    x: str,
    name: str,
    expanded: int,
    channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    act: Activation = "relu6",
    squeezed: int = 0,
    gate: Activation = "hardsigmoid",
) -> str:
    """Expand 1×1, depthwise k×k, squeeze-excite, project 1×1, residual (Sandler et al. 2018, fig. 3)."""
    before = net.shape(x)[1]
    y = x
    if expanded != before:
        y = net.conv(y, expanded, name=f"{name}.expand", act=act)
    y = net.depthwise(y, kernel, name=f"{name}.depthwise", stride=stride, act=act)
    if squeezed:
        inner: Activation = "silu" if gate == "sigmoid" else "relu"
        y = net.squeeze_excite(y, squeezed, name=f"{name}.se", act=inner, gate=gate)
    residual = stride == 1 and before == channels
    y = net.conv(y, channels, name=f"{name}.project", gain=0.5 if residual else 1.0)
    return net.add(x, y, name=f"{name}.add") if residual else y


def _mobilenet_v2(net: NetworkBuilder, width: float, classes: int) -> str:
    """Sandler et al. 2018, table 2."""
    x = net.conv(net.input, _scaled(32, width), 3, name="stem", stride=2, act="relu6")
    stages = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    index = 0
    for expansion, channels, repeats, stride in stages:
        for repeat in range(repeats):
            expanded, out = net.shape(x)[1] * expansion, _scaled(channels, width)
            x = _inverted_residual(net, x, f"block{index}", expanded, out, stride=1 if repeat else stride)
            index += 1
    x = net.conv(x, _scaled(1280, max(1.0, width)), name="head", act="relu6")
    return net.classify(x, classes)


_V3_LARGE = (
    # kernel, expanded, out, squeeze-excite, activation, stride: Howard et al. 2019, table 1
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2),
    (3, 200, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 480, 112, True, "hardswish", 1),
    (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2),
    (5, 960, 160, True, "hardswish", 1),
    (5, 960, 160, True, "hardswish", 1),
)
_V3_SMALL = (
    # Howard et al. 2019, table 2
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hardswish", 2),
    (5, 240, 40, True, "hardswish", 1),
    (5, 240, 40, True, "hardswish", 1),
    (5, 120, 48, True, "hardswish", 1),
    (5, 144, 48, True, "hardswish", 1),
    (5, 288, 96, True, "hardswish", 2),
    (5, 576, 96, True, "hardswish", 1),
    (5, 576, 96, True, "hardswish", 1),
)


def _mobilenet_v3(table: tuple[tuple[Any, ...], ...], last: int, hidden: int) -> Body:
    def body(net: NetworkBuilder, width: float, classes: int) -> str:
        x = net.conv(net.input, _scaled(16, width), 3, name="stem", stride=2, act="hardswish")
        for index, (kernel, expanded, channels, excite, act, stride) in enumerate(table):
            wide = _scaled(expanded, width)
            x = _inverted_residual(
                net,
                x,
                f"block{index}",
                wide,
                _scaled(channels, width),
                kernel=kernel,
                stride=stride,
                act=act,
                squeezed=_divisible(wide / 4) if excite else 0,
            )
        x = net.conv(x, _scaled(last, width), name="head", act="hardswish")
        x = net.node("GlobalAveragePool", (x,), "head.mean")
        x = net.node("Flatten", (x,), "head.flatten", axis=1)
        x = net.linear(x, _scaled(hidden, width), name="hidden", act="hardswish")
        return net.linear(x, classes, name="classifier", gain=2.0)

    return body


def _efficientnet_b0(net: NetworkBuilder, width: float, classes: int) -> str:
    """Tan and Le 2019, table 1."""
    x = net.conv(net.input, _scaled(32, width), 3, name="stem", stride=2, act="silu")
    stages = [
        # expansion, kernel, stride, out, repeats
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ]
    index = 0
    for expansion, kernel, stride, channels, repeats in stages:
        for repeat in range(repeats):
            before = net.shape(x)[1]
            x = _inverted_residual(
                net,
                x,
                f"block{index}",
                before * expansion,
                _scaled(channels, width),
                kernel=kernel,
                stride=1 if repeat else stride,
                act="silu",
                squeezed=max(1, before // 4),
                gate="sigmoid",
            )
            index += 1
    x = net.conv(x, _scaled(1280, width), name="head", act="silu")
    return net.classify(x, classes)


def _resnet(repeats: tuple[int, int, int, int], bottleneck: bool) -> Body:
    """He et al. 2016, table 1; in a bottleneck the 3×3 layer has the stride (torchvision, "v1.5")."""

    def body(net: NetworkBuilder, width: float, classes: int) -> str:
        x = net.conv(net.input, _scaled(64, width), 7, name="stem", stride=2, act="relu")
        x = net.max_pool(x, 3, 2, name="stem.pool", pad=1)
        for stage, count in enumerate(repeats):
            inner = _scaled(64 << stage, width)
            out = inner * 4 if bottleneck else inner
            for index in range(count):
                stride = 2 if stage and not index else 1
                name = f"stage{stage + 1}.{index}"
                if bottleneck:
                    y = net.conv(x, inner, name=f"{name}.reduce", act="relu")
                    y = net.conv(y, inner, 3, name=f"{name}.conv", stride=stride, act="relu")
                    y = net.conv(y, out, name=f"{name}.expand", gain=0.5)
                else:
                    y = net.conv(x, inner, 3, name=f"{name}.conv1", stride=stride, act="relu")
                    y = net.conv(y, out, 3, name=f"{name}.conv2", gain=0.5)
                if stride > 1 or net.shape(x)[1] != out:
                    x = net.conv(x, out, name=f"{name}.shortcut", stride=stride)
                x = net.activation(net.add(x, y, name=f"{name}.add"), "relu", name)
        return net.classify(x, classes)

    return body


def _vgg16(net: NetworkBuilder, width: float, classes: int) -> str:
    """Simonyan and Zisserman 2015, configuration D."""
    x = net.input
    for stage, (channels, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for index in range(1, count + 1):
            x = net.conv(x, _scaled(channels, width), 3, name=f"conv{stage}_{index}", bn=False, act="relu")
        x = net.max_pool(x, 2, 2, name=f"pool{stage}")
    x = net.node("Flatten", (x,), "flatten", axis=1)
    for index in (6, 7):
        x = net.linear(x, _scaled(4096, width), name=f"fc{index}", act="relu")
    return net.linear(x, classes, name="fc8", gain=2.0)


def _squeezenet(net: NetworkBuilder, width: float, classes: int) -> str:
    """SqueezeNet 1.1 (Iandola et al. 2016; pooling moved forward as in the authors' release of 1.1)."""
    x = net.conv(
        net.input, _scaled(64, width), 3, name="stem", stride=2, pads=(0, 0, 0, 0), bn=False, act="relu"
    )
    stages = [[(16, 64), (16, 64)], [(32, 128), (32, 128)], [(48, 192), (48, 192), (64, 256), (64, 256)]]
    index = 2
    for stage, fires in enumerate(stages, 1):
        x = net.max_pool(x, 3, 2, name=f"pool{stage}", ceil=True)
        for squeezed, expanded in fires:
            name, out = f"fire{index}", _scaled(expanded, width)
            squeeze = net.conv(x, _scaled(squeezed, width), name=f"{name}.squeeze", bn=False, act="relu")
            narrow = net.conv(squeeze, out, 1, name=f"{name}.expand1x1", bn=False, act="relu")
            wide = net.conv(squeeze, out, 3, name=f"{name}.expand3x3", bn=False, act="relu")
            x = net.concat((narrow, wide), name=f"{name}.concat")
            index += 1
    x = net.conv(x, classes, name="classifier", bn=False, act="relu")
    x = net.node("GlobalAveragePool", (x,), "classifier.mean")
    return net.node("Flatten", (x,), "classifier.flatten", axis=1)


def _shufflenet_v2(net: NetworkBuilder, width: float, classes: int) -> str:
    """Ma et al. 2018, table 5, 1×; channel split and shuffle as torchvision writes them."""
    x = net.conv(net.input, _scaled(24, width), 3, name="stem", stride=2, act="relu")
    x = net.max_pool(x, 3, 2, name="stem.pool", pad=1)
    for stage, (channels, repeats) in enumerate([(116, 4), (232, 8), (464, 4)], 2):
        out = _scaled(channels, width)
        for index in range(repeats):
            name, half = f"stage{stage}.{index}", out // 2
            if index:
                left, right = net.nodes(
                    "Split", (x,), f"{name}.split", (f"{name}.left", f"{name}.right"), axis=1
                )
            else:
                left = net.depthwise(x, name=f"{name}.shortcut.depthwise", stride=2)
                left = net.conv(left, half, name=f"{name}.shortcut.project", act="relu")
                right = x
            right = net.conv(right, half, name=f"{name}.expand", act="relu")
            right = net.depthwise(right, name=f"{name}.depthwise", stride=1 if index else 2)
            right = net.conv(right, half, name=f"{name}.project", act="relu")
            x = net.concat((left, right), name=f"{name}.concat")
            x = net.channel_shuffle(x, 2, name=f"{name}.shuffle")
    x = net.conv(x, _scaled(1024, width), name="head", act="relu")
    x = net.node("ReduceMean", (x,), "head.mean", axes=(2, 3), keepdims=0)
    return net.linear(x, classes, name="classifier", gain=2.0)


_INCEPTION = (
    # 1×1; reduce, 3×3; reduce, second 3×3; behind the pool. Szegedy et al. 2015, table 1
    ("3a", 64, 96, 128, 16, 32, 32),
    ("3b", 128, 128, 192, 32, 96, 64),
    ("4a", 192, 96, 208, 16, 48, 64),
    ("4b", 160, 112, 224, 24, 64, 64),
    ("4c", 128, 128, 256, 24, 64, 64),
    ("4d", 112, 144, 288, 32, 64, 64),
    ("4e", 256, 160, 320, 32, 128, 128),
    ("5a", 256, 160, 320, 32, 128, 128),
    ("5b", 384, 192, 384, 48, 128, 128),
)


def _googlenet(net: NetworkBuilder, width: float, classes: int) -> str:
    """Inception v1 with batch normalisation; its 5×5 branch is 3×3, as in torchvision's trained network."""

    def conv(x: str, channels: int, kernel: int, name: str, stride: int = 1) -> str:
        return net.conv(x, _scaled(channels, width), kernel, name=name, stride=stride, act="relu")

    x = conv(net.input, 64, 7, "conv1", 2)
    x = net.max_pool(x, 3, 2, name="pool1", ceil=True)
    x = conv(conv(x, 64, 1, "conv2.reduce"), 192, 3, "conv2")
    x = net.max_pool(x, 3, 2, name="pool2", ceil=True)
    for name, direct, reduce3, conv3, reduce5, conv5, pooled in _INCEPTION:
        if name == "4a":
            x = net.max_pool(x, 3, 2, name="pool3", ceil=True)
        if name == "5a":
            x = net.max_pool(x, 2, 2, name="pool4", ceil=True)
        pool = net.max_pool(x, 3, 1, name=f"{name}.pool", pad=1)
        branches = (
            conv(x, direct, 1, f"{name}.1x1"),
            conv(conv(x, reduce3, 1, f"{name}.3x3.reduce"), conv3, 3, f"{name}.3x3"),
            conv(conv(x, reduce5, 1, f"{name}.5x5.reduce"), conv5, 3, f"{name}.5x5"),
            conv(pool, pooled, 1, f"{name}.project"),
        )
        x = net.concat(branches, name=f"{name}.concat")
    return net.classify(x, classes)


def _unet(net: NetworkBuilder, width: float, classes: int) -> str:
    """A quarter of the channels of Ronneberger et al. 2015, fig. 1, with padded convolutions."""

    def double(x: str, channels: int, name: str) -> str:
        for index in (1, 2):
            x = net.conv(x, _scaled(channels, width), 3, name=f"{name}.conv{index}", act="relu")
        return x

    skips: list[tuple[str, int]] = []
    x = net.input
    for level, channels in enumerate((16, 32, 64, 128)):
        x = double(x, channels, f"down{level}")
        skips.append((x, channels))
        x = net.max_pool(x, 2, 2, name=f"down{level}.pool")
    x = double(x, 256, "bottom")
    for level, (skip, channels) in reversed(list(enumerate(skips))):
        x = net.conv_transpose(x, _scaled(channels, width), 2, name=f"up{level}.enlarge", stride=2, bn=False)
        x = double(net.concat((skip, x), name=f"up{level}.concat"), channels, f"up{level}")
    return net.conv(x, classes, name="classifier", bn=False, gain=2.0)


_ENTRIES = {
    "mobilenet_v1": _Entry(_mobilenet_v1),
    "mobilenet_v2": _Entry(_mobilenet_v2),
    "mobilenet_v3_large": _Entry(_mobilenet_v3(_V3_LARGE, 960, 1280)),
    "mobilenet_v3_small": _Entry(_mobilenet_v3(_V3_SMALL, 576, 1024)),
    "efficientnet_b0": _Entry(_efficientnet_b0),
    "resnet18": _Entry(_resnet((2, 2, 2, 2), bottleneck=False)),
    "resnet50": _Entry(_resnet((3, 4, 6, 3), bottleneck=True)),
    "vgg16": _Entry(_vgg16),
    "squeezenet": _Entry(_squeezenet),
    "shufflenet_v2": _Entry(_shufflenet_v2),
    "googlenet": _Entry(_googlenet),
    "unet": _Entry(_unet, classes=2),
    "tiny": _Entry(tiny, resolution=32, classes=10),
}
NAMES = tuple(_ENTRIES)
"""Every built-in network."""
