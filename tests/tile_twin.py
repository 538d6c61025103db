"""The slow twin of `scheduler.search` for single layers: every tile that the machine's language has, priced one by one.

Strip heights 1..H, rows at once or not, every chunk of output channels that the weight memory holds twice, both loop
orders, weights resident or streamed, the output whole or saved chunk by chunk; and column tiles
as wide as the array's pixels or wider, or of any width where nothing else fits half
of the map memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from graphs import GraphBuilder
from tilewright.ir.arch import Arch
from tilewright.ir.depthwise import record_words
from tilewright.ir.graph import Graph, Window
from tilewright.ir.isa import Engine
from tilewright.ir.layout import blocks
from tilewright.scheduler import Options
from tilewright.scheduler.candidates import Candidate
from tilewright.scheduler.layers import Layer, make_layers
from tilewright.scheduler.search import Objective, Search
from tilewright.scheduler.strips import strip_driver

__all__ = [
    "LAYERS",
    "MACHINES",
    "Compared",
    "Shape",
    "compare_tiles",
    "exhaustive",
    "layer_graph",
    "random_shape",
]

BYTES_PER_CYCLE = 32.0
"""9.6 GB/s at 300 MHz."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A layer with square maps and kernels, and "same" padding."""

    kind: str
    side: int
    channels: int
    out: int = 0
    kernel: int = 1
    stride: int = 1

    def __str__(self) -> str:
        return f"{self.kind} {self.side}x{self.side}x{self.channels} -> {self.out or self.channels} k{self.kernel} s{self.stride}"


def _table(kind: str, text: str) -> tuple[Shape, ...]:
    return tuple(Shape(kind, *map(int, words.split())) for words in text.split(","))


LAYERS: dict[str, tuple[Shape, ...]] = {
    "ResNet-50": (
        *_table("conv", "224 3 64 7 2, 56 64 64, 56 64 256, 56 64 64 3, 56 256 64, 56 256 128, 56 256 512 1 2, 56 128 128 3 2"),
        *_table("conv", "28 128 512, 28 512 128, 28 128 128 3, 28 512 256, 28 512 1024 1 2, 28 256 256 3 2, 14 256 1024"),
        *_table("conv", "14 1024 256, 14 256 256 3, 14 1024 512, 14 1024 2048 1 2, 14 512 512 3 2, 7 512 2048, 7 2048 512"),
        *_table("conv", "7 512 512 3, 1 2048 1000"),
        *_table("add", "56 256, 28 512, 14 1024, 7 2048"),
        *_table("max", "112 64 64 3 2"),
    ),
    "MobileNetV2": (
        *_table("conv", "224 3 32 3 2, 112 32 16, 112 16 96, 56 96 24, 56 24 144, 56 144 24, 28 144 32, 28 32 192, 28 192 32"),
        *_table("conv", "14 192 64, 14 64 384, 14 384 64, 14 384 96, 14 96 576, 14 576 96, 7 576 160, 7 160 960, 7 960 160"),
        *_table("conv", "7 960 320, 7 320 1280, 1 1280 1000"),
        *_table("depthwise", "112 32 32 3, 112 96 96 3 2, 56 144 144 3, 56 144 144 3 2, 28 192 192 3, 28 192 192 3 2"),
        *_table("depthwise", "14 384 384 3, 14 576 576 3, 14 576 576 3 2, 7 960 960 3"),
        *_table("add", "56 24, 28 32, 14 64, 14 96, 7 160"),
    ),
    "EfficientNet-B0": (
        *_table("conv", "1 32 8, 1 1152 48, 28 144 40, 28 40 240, 28 240 40, 14 240 80, 14 80 480, 14 480 80, 14 480 112"),
        *_table("conv", "14 112 672, 14 672 112, 7 672 192, 7 192 1152, 7 1152 192, 7 1152 320"),
        *_table("depthwise", "56 144 144 5 2, 28 240 240 5, 28 240 240 3 2, 14 480 480 5, 14 672 672 5, 14 672 672 5 2"),
        *_table("depthwise", "7 1152 1152 5, 7 1152 1152 3"),
        *_table("table", "112 32, 112 96, 56 144, 28 240, 14 672, 7 1280"),
        *_table("mul", "112 32, 56 144, 28 240, 14 672, 7 1152"),
        *_table("mean", "112 32, 56 144, 14 672, 7 1152"),
    ),
}  # fmt: skip
"""The distinct layers of three networks, 224x224."""

MACHINES: dict[str, tuple[int, int, int, int]] = {
    "64 KiB": (32, 4, 28, 4),
    "128 KiB": (64, 4, 56, 8),
    "256 KiB": (128, 4, 112, 16),
    "512 KiB": (256, 4, 224, 32),
    "1 MiB": (512, 4, 448, 64),
}
"""On-chip memory of a b4096: KiB of maps, map groups, KiB of weights and of depthwise weights."""


def machine(name: str) -> Arch:
    """One of `MACHINES`."""
    maps, groups, weights, depthwise = MACHINES[name]
    split = {"maps.kib": maps, "maps.groups": groups, "weights.kib": weights}
    return Arch.preset("b4096").override({**split, "weights.depthwise_kib": depthwise})


def layer_graph(shape: Shape) -> Graph:
    """A graph of this layer alone."""
    g = GraphBuilder(1, "f32")
    x = g.input((shape.side, shape.side, shape.channels))
    edge = (shape.kernel - 1) // 2
    kernel, stride, pad = (shape.kernel,) * 2, (shape.stride,) * 2, (edge,) * 4
    match shape.kind:
        case "conv":
            g.conv(x, shape.out, kernel, stride, pad)
        case "depthwise":
            g.conv(x, shape.out, kernel, stride, pad, groups=shape.channels)
        case "add":
            g.add(x, g.input((shape.side, shape.side, shape.channels)))
        case "mul":
            g.mul(x, g.input((1, 1, shape.channels)))
        case "table":
            g.table(x)
        case "max":
            g.pool(x, "max", Window(kernel, stride, (1, 1), pad), counted=False)
        case _:
            g.pool(x, "avg", Window((shape.side, shape.side)), counted=False)
    return g.graph()


def random_shape(rng: np.random.Generator) -> Shape:
    """A convolution or depthwise layer of an odd size."""
    kernel, stride = int(rng.choice([1, 3, 5, 7])), int(rng.integers(1, 3))
    side = int(rng.integers(max(4, kernel), 57))
    channels = int(rng.integers(1, 300))
    if rng.random() < 0.3:
        return Shape("depthwise", side, channels, channels, kernel, stride)
    return Shape("conv", side, channels, int(rng.integers(1, 400)), kernel, stride)


@dataclass(frozen=True, slots=True)
class Compared:
    """A layer on a machine: the values that twin and search find, infinite where nothing fits."""

    shape: Shape
    machine: str
    twin: float
    search: float
    best: Candidate | None

    @property
    def ratio(self) -> float:
        return self.search / self.twin if self.twin < float("inf") else 1.0


def compare_tiles(shape: Shape, name: str, objective: Objective = "latency") -> Compared:
    """Search a layer on a machine both ways."""
    graph, arch = layer_graph(shape), machine(name)
    layers = make_layers(graph, arch)
    search = Search(graph, arch, layers, objective, BYTES_PER_CYCLE, Options())
    found = search.best(0, 1, frozenset(), arch.map_words)
    best = min(exhaustive(search, 0), key=search.value, default=None)
    values = (float("inf") if c is None else search.value(c) for c in (best, found))
    return Compared(shape, name, *values, best)


def exhaustive(search: Search, number: int) -> Iterator[Candidate]:
    """Every tile of a layer that fits, with its maps in DRAM."""
    layer, arch, tensors = search.layers[number], search.arch, search.graph.tensors
    layers, outputs, saves = (layer,), {layer.output}, (layer.output,)
    height, width = tensors[strip_driver(layers)].shape[0], tensors[layer.output].shape[1]
    sums = not layer.reduces or blocks(tensors[layer.output].shape[2], arch.lanes) <= arch.vec.sums
    fits = False
    for rows in range(1, height + 1):
        if -(-height // rows) > 1 and not sums:
            continue
        for way in _ways(search, layer, -(-height // rows)):
            c = search.costing.candidate(layers, outputs, set(), saves, rows, **way)
            if c is not None and c.least_words <= arch.map_words:
                fits |= c.least_words <= arch.map_words // 2
                yield c
    for cols in range(width - 1, 0, -1):  # narrower than the array only where nothing else fits half
        if layer.reduces or (cols < arch.conv.pixels and fits):
            return
        for rows in range(1, height + 1):
            for way in _plain_ways(layer, -(-height // rows)):
                c = search.costing.candidate(layers, outputs, set(), saves, rows, cols=cols, **way)
                if c is not None and c.least_words <= arch.map_words:
                    fits |= c.least_words <= arch.map_words // 2
                    yield c


def _plain_ways(layer: Layer, strips: int) -> list[dict[str, Any]]:
    """Weights for all strips at once, or again for each."""
    return (
        [{"resident": True}, {"resident": False}]
        if strips > 1 and layer.parts
        else [{"resident": strips > 1}]
    )


def _ways(search: Search, layer: Layer, strips: int) -> Iterator[dict[str, Any]]:
    """Residency, order and chunks: all that the lowering takes."""
    yield from _plain_ways(layer, strips)
    for size, whole in _chunks(search, layer):
        chunk = {layer.name: size}
        yield {"resident": False, "chunk": chunk}
        if layer.engine == Engine.CONV and whole:
            yield {"resident": False, "chunk": chunk, "part": True}
            for part in (False, True):
                yield {"resident": strips > 1, "order": "chunks", "chunk": chunk, "part": part}


def _chunks(search: Search, layer: Layer) -> Iterator[tuple[int, bool]]:
    """Chunks of output blocks of which the memory holds two, and whether they are whole map blocks of one part."""
    if not layer.parts:
        return
    arch = search.arch
    widest = max(len(part.bias) for part in layer.parts)
    if layer.engine == Engine.DWC:
        record = max(record_words(arch, *part.weight.shape[1:3]) for part in layer.parts)
        unit, memory = arch.lanes, arch.depthwise_words
    else:
        record = max(search.costing.record_words(layer, part) for part in layer.parts)
        unit, memory = arch.conv.oc, arch.weight_words
    for size in range(1, blocks(widest, unit)):
        whole = len(layer.parts) == 1 and size * unit % arch.lanes == 0
        if size > 1 and size * record > memory // 2:
            break
        yield size, whole
