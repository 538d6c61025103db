"""What candidates cost, counted with the simulator's own timing functions on their strips."""

from __future__ import annotations

import math
from collections.abc import Set

from ..hwsim.timing import conv_busy, dwc_busy, machine, read_ways, vec_busy
from ..ir.arch import Arch
from ..ir.depthwise import record_words
from ..ir.graph import Add, Graph, Mul, Pool, PRelu, Resize, Table
from ..ir.isa import Engine, VecOp
from ..ir.layout import blocks
from .candidates import Candidate, Cost, RingNeed, Work
from .layers import Layer, Part
from .strips import StripGroup, Strips, may_replace, plan_strips
from .weights import fold_of, parameter_words

__all__ = ["DRAM_SHARE", "Costing"]

DRAM_SHARE = 0.85
"""Share of the DMA's peak that a stream of strips sustains (UG585: 87-97 % by access pattern; see docs/memory.md)."""


_STEP = 40.0
"""Cycles that a step of a group costs beside its busiest engine: starts, tails and tokens between engines (`ir.latency`)."""
_PIECES = 8
"""Constants of a group that hardly fit are cut into pieces of at most this part of their memory."""
_CHUNKS_HELD = 2
"""Chunks of a map that goes to DRAM chunk by chunk: one is made while the one before is saved."""


class Costing:
    """Evaluates candidates on one graph and machine."""

    def __init__(
        self, graph: Graph, arch: Arch, layers: tuple[Layer, ...], dram_bytes_per_cycle: float
    ) -> None:
        self.graph, self.arch, self.layers = graph, arch, layers
        self.m = machine(arch)
        self.bandwidth = min(float(arch.stream_bytes), dram_bytes_per_cycle) * DRAM_SHARE
        self._busy: dict[tuple[str, int, int], int] = {}
        self._strips: dict[tuple[str, int, int], Strips] = {}
        self._words: dict[str, tuple[int, int]] = {}
        self.lanes, self.move = arch.lanes, arch.group_move
        self.largest = arch.span * arch.group_words
        self._long = {layer.name for layer in layers if self._is_long(layer)}
        self._rings: dict[tuple[object, ...], RingNeed] = {}
        self._moves: dict[tuple[str, RingNeed, int], float] = {}
        self._groups: dict[tuple[str, int], StripGroup] = {}
        self._works: dict[tuple[object, ...], Work] = {}
        self._chunked: dict[tuple[str, int], dict[str, int] | None] = {}

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
        return self._fold_layer(tensor) is not None

    def _fold_layer(self, tensor: str) -> Layer | None:
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
        array, deep = self.weight_words(layer)
        return array * self.arch.lanes * self.arch.conv.oc + deep * self.arch.dwc.taps * self.arch.lanes

    # -- time --------------------------------------------------------------------------------------------------------
    def busy(self, layer: Layer, rows: int, cols: int) -> int:
        """Busy cycles of the layer's engine for a tile of its output."""
        key = (layer.name, rows, cols)
        if key not in self._busy:
            self._busy[key] = self._layer_busy(layer, rows, cols)
        return self._busy[key]

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

    # -- candidates --------------------------------------------------------------------------------------------------
    def candidate(
        self, layers: tuple[Layer, ...], outputs: Set[str], resident_maps: Set[str], saves: tuple[str, ...], rows: int, *,
        dying: Set[str] = frozenset(), cols: int | None = None, order: str = "strips", resident: bool = True, part: bool = False,
        chunk: dict[str, int] | None = None,
    ) -> Candidate | None:  # fmt: skip
        """A candidate, or None where a ring or the weights cannot fit.

        Parameters
        ----------
        dying : set of tensor
            Resident maps that are not read after it.
        part : bool
            The output goes to DRAM chunk by chunk: its ring holds a part of the channels.
        """
        graph = self.graph
        made = dict.fromkeys(layer.output for layer in layers)
        last = graph.tensors[layers[-1].output].shape
        cols = cols or last[1]
        if cols < last[1] and not resident_maps.isdisjoint(made):
            return None  # column tiles go to DRAM
        strips = self._strips_of(layers, outputs, rows)
        loads = tuple(
            dict.fromkeys(
                t for layer in layers for t in layer.inputs if t not in made and t not in resident_maps
            )
        )
        if strips.count > 1 and resident:
            pieces = self.resident_chunks(layers)
            if pieces is None:
                return None
            chunk = chunk or pieces
        if any(not self._reduction_fits(layer, rows, cols) for layer in layers if layer.name in self._long):
            return None
        rings: dict[str, RingNeed] = {}
        for t in (*loads, *made):
            rings[t] = ring = self._ring(
                layers, t, strips, cols, chunk if part else None, t in loads, t in resident_maps
            )
            if ring.words(ring.rows) > self.largest:
                return None
        chunk = chunk or {}
        replaced: dict[str, str] = {}
        if cols == last[1] and order == "strips":
            for layer in layers:
                if layer.output in resident_maps and (source := self._replaced(layers, layer, dying, strips)):
                    replaced[layer.output] = source
        work = self._work(layers, strips, cols, order, resident, chunk)
        tiles = -(-last[1] // cols)
        moves = {t: self.move_cycles(t, ring, tiles) for t, ring in rings.items()}
        cost = self._cost(layers, strips, cols, work, rings, loads, saves, moves)
        return Candidate(
            layers,
            rows,
            cols,
            order,
            resident,
            chunk,
            strips,
            rings,
            loads,
            saves,
            replaced,
            cost,
            work,
            moves,
        )

    def _ring(
        self, layers: tuple[Layer, ...], tensor: str, strips: Strips, cols: int, part: dict[str, int] | None,
        loaded: bool, stays: bool,
    ) -> RingNeed:  # fmt: skip
        """What the ring of a map must be that the layers make, or that is loaded for them."""
        key = (layers[0].name, len(layers), tensor, strips.rows, cols, *(part or {}).values(), stays)
        if key not in self._rings:
            self._rings[key] = self._new_ring(layers, tensor, strips, cols, part, loaded, stays)
        return self._rings[key]

    def _new_ring(
        self, layers: tuple[Layer, ...], tensor: str, strips: Strips, cols: int, part: dict[str, int] | None,
        loaded: bool, stays: bool,
    ) -> RingNeed:  # fmt: skip
        h, w, c = self.graph.tensors[tensor].shape
        width = self.graph.tensors[layers[-1].output].shape[1]
        count = blocks(c, self.lanes)
        if stays and not loaded:
            return RingNeed(w, count, h, h)
        fold = loaded and self.folds(tensor)
        if fold:
            layer = self._fold_layer(tensor)
            assert layer is not None
            found = fold_of(layer.parts[0], c, self.lanes)
            assert found is not None
            w, count = self.graph.tensors[layer.output].shape[1] if cols >= width else cols, found.words
        elif cols < width:
            w = self._tile_width(layers[0], tensor, cols, width) if loaded else cols
        if part and tensor == layers[-1].output:
            count = min(count, _CHUNKS_HELD * part[layers[-1].name] * self.arch.conv.oc // self.lanes)
        return RingNeed(w, count, strips.ring[tensor], strips.slack[tensor], fold)

    def _replaced(
        self, layers: tuple[Layer, ...], layer: Layer, dying: Set[str], strips: Strips
    ) -> str | None:
        """The resident map whose words the layer's output may take over."""
        shape = self.graph.tensors[layer.output].shape
        for source in layer.inputs:
            if (
                source in dying
                and self.graph.tensors[source].shape == shape
                and may_replace(layers, layer, source, strips)
            ):
                return source
        return None

    def _tile_width(self, layer: Layer, tensor: str, cols: int, width: int) -> int:
        widest = 1
        for k, t in enumerate(layer.inputs):
            if t == tensor:
                for x in range(0, width, cols):
                    a, b = layer.needs(k, x, min(x + cols, width), 1)
                    widest = max(widest, b - a)
        return widest

    def _strips_of(self, layers: tuple[Layer, ...], outputs: Set[str], rows: int) -> Strips:
        """Row schedule of a group; it does not depend on what stays on chip."""
        key = (layers[0].name, len(layers), rows)
        if key not in self._strips:
            run = layers[0].name, len(layers)
            if run not in self._groups:
                self._groups[run] = StripGroup(layers, self.graph, outputs)
            self._strips[key] = plan_strips(layers, self.graph, outputs, rows, group=self._groups[run])
        return self._strips[key]

    def _is_long(self, layer: Layer) -> bool:
        """One block of output channels has more weights than their memory."""
        return layer.engine == Engine.CONV and any(
            not part.depthwise and self.record_words(layer, part) > self.arch.weight_words
            for part in layer.parts
        )

    def _reduction_fits(self, layer: Layer, rows: int, cols: int) -> bool:
        """An output block whose weights exceed their memory is summed in pieces, while its pixels wait in accumulators."""
        for part in layer.parts if layer.engine == Engine.CONV else ():
            if part.depthwise or self.record_words(layer, part) <= self.arch.weight_words:
                continue
            pixels = -(-rows // part.step[0]) * -(-cols // part.step[1])
            least = parameter_words(self.arch.lanes) + self.record_taps(layer, part)
            if pixels > self.arch.conv.pixels or least > self.arch.weight_words // 2:
                return False
        return True

    def weights_fit(self, layers: tuple[Layer, ...]) -> bool:
        """All constants of the group at once, in pieces, with room for one wrap of the circular memories."""
        return self.resident_chunks(layers) is not None

    def resident_chunks(self, layers: tuple[Layer, ...]) -> dict[str, int] | None:
        """Output blocks an instruction for layers whose constants are better cut, so that a wrap wastes less; None where
        they do not fit at once in any case."""
        key = layers[0].name, len(layers)
        if key not in self._chunked:
            self._chunked[key] = self._new_chunks(layers)
        return self._chunked[key]

    def _new_chunks(self, layers: tuple[Layer, ...]) -> dict[str, int] | None:
        tables = sum(1 for layer in layers if layer.table is not None or isinstance(layer.op, Table))
        if tables >= self.arch.weights.tables:
            return None
        words = [self.weight_words(layer) for layer in layers]
        chunks: dict[str, int] = {}
        for axis, size in ((0, self.arch.weight_words), (1, self.arch.depthwise_words)):
            column = [w[axis] for w in words]
            if max(column) == 0 or sum(column) + max(column) <= size:
                continue
            largest = 0
            for layer, whole in zip(layers, column, strict=True):
                piece, count = self._piece(layer, whole, size // _PIECES)
                largest = max(largest, piece)
                if piece < whole:
                    chunks[layer.name] = count
            if sum(column) + largest > size:
                return None
        return chunks

    def _piece(self, layer: Layer, words: int, most: int) -> tuple[int, int]:
        """Words of a piece of a layer's constants, and its output blocks: whole map blocks, no more words than `most` if
        that can be."""
        if words <= most or len(layer.parts) != 1 or layer.parts[0].depthwise:
            return words, 0
        record = self.record_words(layer, layer.parts[0])
        step = self.arch.lanes // math.gcd(self.arch.lanes, self.arch.conv.oc)
        count = max(1, most // record // step) * step
        return min(words, count * record), count

    def _work(
        self, layers: tuple[Layer, ...], strips: Strips, cols: int, order: str, resident: bool, chunk: dict[str, int]
    ) -> Work:  # fmt: skip
        key = (layers[0].name, len(layers), strips.rows, cols, order, resident, *chunk.values())
        if key not in self._works:
            self._works[key] = self._new_work(layers, strips, cols, order, resident, chunk)
        return self._works[key]

    def _new_work(
        self, layers: tuple[Layer, ...], strips: Strips, cols: int, order: str, resident: bool, chunk: dict[str, int]
    ) -> Work:  # fmt: skip
        tensors = self.graph.tensors
        time: dict[Engine, float] = {}
        busy: dict[str, float] = {}
        tiles = -(-tensors[layers[-1].output].shape[1] // cols)
        constants, first, passes = 0, 0, 1
        for layer in layers:
            busy[layer.output] = 0.0
            if layer.engine is None:
                continue
            width = tensors[layer.output].shape[1] if tiles == 1 else cols
            if layer.reduces:
                busy[layer.output] = float(self.busy(layer, 1, 1))
            else:
                parts = strips.heights(layer.output)
                busy[layer.output] = float(sum(self.busy(layer, h, width) * n for h, n in parts) * tiles)
                again = 1 if resident or order == "chunks" else strips.count * tiles
                constants += self.weight_bytes(layer) * again
                if not first:
                    first = self.weight_bytes(layer) // (1 if resident else self._pieces(layer, chunk))
                if order == "chunks" and chunk.get(layer.name):
                    passes = self._pieces(layer, chunk)
            time[layer.engine] = time.get(layer.engine, 0.0) + busy[layer.output]
        held = constants if resident and strips.count > 1 and order == "strips" else first
        busiest, together = max(time.values(), default=0.0), sum(time.values())
        return Work(busy, busiest, together, len(time), constants, first, held, passes)

    def _cost(
        self, layers: tuple[Layer, ...], strips: Strips, cols: int, work: Work, rings: dict[str, RingNeed],
        loads: tuple[str, ...], saves: tuple[str, ...], moves: dict[str, float],
    ) -> Cost:  # fmt: skip
        tensors = self.graph.tensors
        tiles = -(-tensors[layers[-1].output].shape[1] // cols)
        traffic = work.weight_bytes + sum(tensors[t].bytes for t in saves)
        for t in loads:
            shape, size = tensors[t].shape, tensors[t].bytes
            if tiles > 1:
                size = int(size * work.passes * self._loaded_columns(t, rings[t]) * tiles / max(1, shape[1]))
            elif rings[t].rows < shape[0]:
                size *= work.passes
            traffic += size
        busiest = max(work.busiest, sum(moves[t] for t in loads), sum(moves[t] for t in saves))
        fill = _STEP
        if work.kinds > 1:
            fill = (work.engines - work.busiest) / max(1, strips.count) + _STEP * strips.steps
        return Cost(
            busiest,
            max(busiest, work.engines),
            fill,
            traffic,
            work.weight_bytes,
            work.first_bytes,
            work.held_bytes,
        )

    def _loaded_columns(self, tensor: str, ring: RingNeed) -> int:
        """Columns of the map that a column tile brings on chip."""
        layer = self._fold_layer(tensor) if ring.fold else None
        if layer is None:
            return ring.width
        window = layer.parts[0].window
        return (ring.width - 1) * window.stride[1] + window.kernel[1]

    def _pieces(self, layer: Layer, chunk: dict[str, int]) -> int:
        """Chunks that the layer's constants come in."""
        size = chunk.get(layer.name)
        if not size:
            return 1
        unit = self.arch.lanes if layer.engine == Engine.DWC else self.arch.conv.oc
        return -(-blocks(self.graph.tensors[layer.output].shape[2], unit) // size)

    def move_cycles(self, tensor: str, need: RingNeed, tiles: int = 1) -> float:
        """Cycles to bring a map on chip or back: its bytes, or its words where they come one by one."""
        key = tensor, need, tiles
        if key not in self._moves:
            shape = self.graph.tensors[tensor].shape
            words = shape[0] * need.width * need.blocks * tiles
            narrow = need.fold or shape[2] < self.lanes
            self._moves[key] = max(
                self.graph.tensors[tensor].bytes / self.bandwidth, words / (1 if narrow else self.move)
            )
        return self._moves[key]

    def heights(self, height: int) -> list[int]:
        """All strip heights that matter, high to low: for each number of strips the lowest that gives it.

        A higher strip of the same count only needs more memory. There are about two times the square root of `height`.
        """
        return sorted({-(-height // n) for n in range(1, height + 1)}, reverse=True)
