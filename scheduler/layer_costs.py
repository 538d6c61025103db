"""What single layers and their maps take on a machine: words of memories, and the simulator's own cycles for a tile."""

from __future__ import annotations

from ..hwsim.timing import conv_busy, dwc_busy, machine, read_ways, vec_busy
from ..ir.arch import Arch
from ..ir.depthwise import record_words
from ..ir.graph import Add, Graph, Mul, Pool, PRelu, Resize, Table
from ..ir.isa import Engine, VecOp
from ..ir.layout import blocks
from .layers import Layer, Part
from .weights import fold_of, parameter_words

__all__ = ["LayerCosts"]


class LayerCosts:
    """Sizes and times of a graph's layers on one machine."""

    def __init__(self, graph: Graph, arch: Arch, layers: tuple[Layer, ...]) -> None:
        self.graph, self.arch, self.layers = graph, arch, layers
        self.m, self.lanes = machine(arch), arch.lanes
        self._busy: dict[tuple[str, int], dict[int, int]] = {}
        self._words: dict[str, tuple[int, int]] = {}
        self._bytes: dict[str, int] = {}

    # -- sizes -------------------------------------------------------------------------------------------------------
    def map_words(self, tensor: str) -> int:
        """Words of the whole map on chip."""
        h, w, c = self.graph.tensors[tensor].shape
        return h * w * blocks(c, self.arch.lanes)

    def folds(self, tensor: str) -> bool:
        """The map is only read by one convolution that folds kernel columns, so it is loaded folded."""
        readers = self.graph.consumers[tensor]
        if tensor in self.graph.producer or len(readers) != 1:
            return False
        return self.fold_layer(tensor) is not None

    def fold_layer(self, tensor: str) -> Layer | None:
        for layer in self.layers:
            if tensor in layer.inputs and len(layer.parts) == 1:
                channels = self.graph.tensors[tensor].shape[2]
                if fold_of(layer.parts[0], channels, self.arch.lanes) is not None and layer.parts[0].step == (
                    1,
                    1,
                ):
                    return layer
        return None

    def weight_words(self, layer: Layer) -> tuple[int, int]:
        """Words of the array's and the depthwise engine's weight memory, all output channels."""
        if layer.name in self._words:
            return self._words[layer.name]
        array = deep = 0
        for part in layer.parts:
            o, kh, kw, _ = part.weight.shape
            if layer.engine == Engine.DWC:
                deep += blocks(o, self.arch.lanes) * record_words(self.arch, kh, kw)
            else:
                array += blocks(o, self.arch.conv.oc) * self.record_words(layer, part)
        self._words[layer.name] = (array, deep)
        return array, deep

    def record_words(self, layer: Layer, part: Part) -> int:
        """Weight words of one output block."""
        kh, kw = part.window.kernel
        lanes = self.arch.lanes
        if part.depthwise:
            return parameter_words(lanes) + -(-part.window.taps // lanes)
        source = layer.inputs[part.source]
        fold = fold_of(part, self.graph.tensors[source].shape[2], lanes) if self.folds(source) else None
        if fold is not None:
            return parameter_words(lanes) + kh * fold.words
        lead = part.channels[0] % lanes
        return parameter_words(lanes) + kh * kw * -(-(lead + part.channels[1] - part.channels[0]) // lanes)

    def record_taps(self, layer: Layer, part: Part) -> int:
        """Weight words of one output block and one input block: the least that an instruction takes."""
        kh, kw = part.window.kernel
        return kh if self.folds(layer.inputs[part.source]) else kh * kw

    def weight_bytes(self, layer: Layer) -> int:
        if layer.name not in self._bytes:
            array, deep = self.weight_words(layer)
            self._bytes[layer.name] = self.lanes * (array * self.arch.conv.oc + deep * self.arch.dwc.taps)
        return self._bytes[layer.name]

    # -- time --------------------------------------------------------------------------------------------------------
    def busy(self, layer: Layer, rows: int, cols: int) -> int:
        """Busy cycles of the layer's engine for a tile of its output."""
        return self.tiles_busy(layer, [(rows, 1)], cols)

    def tiles_busy(self, layer: Layer, tiles: list[tuple[int, int]], cols: int) -> int:
        """Busy cycles for tiles of so many rows, each so many times."""
        known = self._busy.setdefault((layer.name, cols), {})
        total = 0
        for rows, times in tiles:
            if rows not in known:
                known[rows] = self._layer_busy(layer, rows, cols)
            total += known[rows] * times
        return total

    def _layer_busy(self, layer: Layer, rows: int, cols: int) -> int:
        m, lanes = self.m, self.arch.lanes
        total = 0
        for part in layer.parts:
            o, kh, kw, _ = part.weight.shape
            h, w = -(-rows // part.step[0]), -(-cols // part.step[1])
            win = part.window
            if layer.engine == Engine.DWC:
                total += int(dwc_busy(m, h, w, kh, kw, blocks(o, lanes), *win.stride, *win.dilation)[0])
                continue
            per = (self.record_words(layer, part) - parameter_words(lanes)) if not part.depthwise else kh * kw
            ways = int(
                read_ways(
                    self.arch.conv.pixels,
                    1 if self.folds(layer.inputs[part.source]) else win.stride[1],
                    self.arch.banks,
                )
            )
            packed = int(h * w % self.arch.conv.pixels == 0 or w < self.arch.conv.pixels * 4)
            total += int(conv_busy(m, h, w, 1, 1, per, o, part.offset % lanes, ways, 1, packed, 1, 0)[0])
        if layer.parts or layer.engine is None:
            return total
        op = layer.op
        nb = blocks(self.graph.tensors[layer.output].shape[2], lanes)
        kh = kw = sx = dx = 1
        func, table, bilinear = VecOp.TABLE, int(isinstance(op, Table)), 0
        if isinstance(op, Pool):
            (kh, kw), sx, dx = op.window.kernel, op.window.stride[1], op.window.dilation[1]
            func = VecOp.MAX
        elif isinstance(op, (Add, Mul)):
            func = VecOp.ADD
        elif isinstance(op, PRelu):
            func = VecOp.PRELU
        elif isinstance(op, Resize):
            func, bilinear = VecOp.RESIZE, int(op.bilinear)
        return int(vec_busy(m, func, rows, cols, nb, kh, kw, sx, dx, 0, table, bilinear)[0])
