"""Candidates for a run of layers: strip height, loop order, residency of weights; footprint and cost of each.

The cost of a candidate is counted with the simulator's own timing functions on its strips.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass, replace
from functools import cached_property

from ..hwsim.timing import conv_busy, dwc_busy, machine, read_ways, vec_busy
from ..ir.arch import Arch
from ..ir.depthwise import record_words
from ..ir.graph import Add, Graph, Mul, Pool, PRelu, Resize, Table
from ..ir.isa import Engine, VecOp
from ..ir.layout import blocks
from .layers import Layer, Part
from .strips import Strips, may_replace, plan_strips
from .weights import fold_of, parameter_words

__all__ = ["Candidate", "Costing", "RingNeed"]

_DRAM_SHARE = 0.85
"""Share of the DMA's peak that a stream of strips sustains (UG585: 87-97 % by access pattern; see docs/memory.md)."""


_PIECES = 8
"""Constants of a group that hardly fit are cut into pieces of at most this part of their memory."""
_CHUNKS_HELD = 2
"""Chunks of a map that goes to DRAM chunk by chunk: one is made while the one before is saved."""


@dataclass(frozen=True, slots=True)
class RingNeed:
    """What a tensor's ring must be: columns stored, blocks, fewest rows and the rows that hide its producer.

    Parameters
    ----------
    gain : float
        Cycles that its producer and its readers, on other engines, work at once if it has the slack.
    """

    width: int
    blocks: int
    rows: int
    slack: int
    fold: bool = False
    gain: float = 0.0

    def words(self, rows: int) -> int:
        return rows * self.width * self.blocks


@dataclass(frozen=True, slots=True)
class Cost:
    """What a candidate takes.

    Parameters
    ----------
    busiest, engines : float
        Busy cycles of the busiest engine, and of all together.
    fill : float
        Cycles until the busiest engine has its first work, and after its last.
    dram_bytes : int
        All bytes over the DRAM port.
    weight_bytes : int
        Those that are constants.
    first_bytes : int
        Constants without which the first instruction cannot run.
    held_bytes : int
        Constants that stay in their memories until the group ends.
    """

    busiest: float = 0.0
    engines: float = 0.0
    fill: float = 0.0
    dram_bytes: int = 0
    weight_bytes: int = 0
    first_bytes: int = 0
    held_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to run layers i..j-1 as a group.

    Parameters
    ----------
    rows, cols : int
        Strip height and tile width of the last output.
    order : str
        "strips" or "chunks".
    resident : bool
        Weights stay for the whole group.
    chunk : dict of layer name to int
    strips : Strips
    rings : dict of tensor to RingNeed
        Rings that this group itself makes or loads.
    loads, saves : tuple of str
    in_place : dict of tensor to tensor
        Maps that take over the words of one that is not read again.
    cost : Cost
    busy : dict of tensor to float
        Cycles that each layer keeps its engine busy, by its output.
    sharing : tuple of (words, cycles)
        What wants map groups of its own, because other engines use the rest: by the cycles it would lose there.
    """

    layers: tuple[Layer, ...]
    rows: int
    cols: int
    order: str
    resident: bool
    chunk: dict[str, int]
    strips: Strips
    rings: dict[str, RingNeed]
    loads: tuple[str, ...]
    saves: tuple[str, ...]
    in_place: dict[str, str]
    cost: Cost
    busy: dict[str, float]
    sharing: tuple[tuple[int, float], ...] = ()

    @property
    def dram_bytes(self) -> int:
        return self.cost.dram_bytes

    @cached_property
    def most_words(self) -> int:
        """Map words with rings that let every producer run a strip ahead."""
        return sum(r.words(r.slack) for t, r in self.rings.items() if t not in self.in_place)

    @cached_property
    def least_words(self) -> int:
        """Map words with the smallest rings, beside maps that are on chip already."""
        return sum(r.words(r.rows) for t, r in self.rings.items() if t not in self.in_place)


class Costing:
    """Evaluates candidates on one graph and machine."""

    def __init__(
        self, graph: Graph, arch: Arch, layers: tuple[Layer, ...], dram_bytes_per_cycle: float
    ) -> None:
        self.graph, self.arch, self.layers = graph, arch, layers
        self.m = machine(arch)
        self.bandwidth = min(float(arch.stream_bytes), dram_bytes_per_cycle) * _DRAM_SHARE
        self._busy: dict[tuple[str, int, int], int] = {}
        self._strips: dict[tuple[str, int, int], Strips] = {}
        self._words: dict[str, tuple[int, int]] = {}

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
        self, layers: tuple[Layer, ...], outputs: set[str], resident_maps: set[str], saves: tuple[str, ...], rows: int, *,
        dying: Set[str] = frozenset(), cols: int | None = None, order: str = "strips", resident: bool = True,
        chunk: dict[str, int] | None = None,
    ) -> Candidate | None:  # fmt: skip
        """A candidate, or None where a ring or the weights cannot fit; `dying`: resident maps that are not read after it."""
        arch, graph = self.arch, self.graph
        made = {layer.output for layer in layers}
        last = graph.tensors[layers[-1].output].shape
        cols = cols or last[1]
        if cols < last[1] and not made.isdisjoint(resident_maps):
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
        if not all(self._reduction_fits(layer, rows, cols) for layer in layers):
            return None
        rings: dict[str, RingNeed] = {}
        for t in (*loads, *(layer.output for layer in layers)):
            h, w, c = graph.tensors[t].shape
            need, slack, nb, fold = strips.ring[t], strips.slack[t], blocks(c, arch.lanes), False
            if t in loads and self.folds(t):
                layer = self._fold_layer(t)
                assert layer is not None
                part = layer.parts[0]
                found = fold_of(part, c, arch.lanes)
                assert found is not None
                w, nb, fold = graph.tensors[layer.output].shape[1], found.words, True
                if cols < last[1]:
                    w = cols
            elif cols < last[1]:
                w = cols if t in made else self._tile_width(layers[0], t, cols, last[1])
            if order == "chunks" and t == layers[-1].output and t not in resident_maps:
                nb = min(nb, _CHUNKS_HELD * (chunk or {})[layers[-1].name] * arch.conv.oc // arch.lanes)
            if t in resident_maps and t in made:
                need = slack = h
                w = graph.tensors[t].shape[1]
            rings[t] = RingNeed(w, nb, need, slack, fold)
            if rings[t].words(need) > arch.span * arch.group_words:
                return None
        chunk = chunk or {}
        replaced: dict[str, str] = {}
        if cols == last[1] and order == "strips":
            for layer in layers:
                if layer.output in resident_maps and (source := self._replaced(layers, layer, dying, strips)):
                    replaced[layer.output] = source
        return self._priced(
            Candidate(
                layers, rows, cols, order, resident, chunk, strips, rings, loads, saves, replaced, Cost(), {}
            )
        )

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

    def _strips_of(self, layers: tuple[Layer, ...], outputs: set[str], rows: int) -> Strips:
        """Row schedule of a group; it does not depend on what stays on chip."""
        key = (layers[0].name, len(layers), rows)
        if key not in self._strips:
            self._strips[key] = plan_strips(layers, self.graph, outputs, rows)
        return self._strips[key]

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

    def _priced(self, c: Candidate) -> Candidate:
        graph, arch = self.graph, self.arch
        time, each = dict.fromkeys(Engine, 0), dict.fromkeys((layer.output for layer in c.layers), 0)
        width = graph.tensors[c.layers[-1].output].shape[1]
        tiles = -(-width // c.cols)
        traffic, engines, constants, first = 0, set(), 0, 0
        passes = 1
        for layer in c.layers:
            if layer.engine is None:
                continue
            engines.add(layer.engine)
            need = c.strips.need[layer.output]
            w = graph.tensors[layer.output].shape[1] if tiles == 1 else c.cols
            if layer.reduces:
                time[layer.engine] += self.busy(layer, 1, 1)
                continue
            heights = need[1:] - need[:-1]
            for h in set(heights.tolist()):
                if h:
                    each[layer.output] += self.busy(layer, int(h), w) * int((heights == h).sum()) * tiles
            time[layer.engine] += each[layer.output]
            again = 1 if c.resident or c.order == "chunks" else c.strips.count * tiles
            constants += self.weight_bytes(layer) * again
            if not first:
                first = self.weight_bytes(layer) // (1 if c.resident else self._pieces(layer, c))
            if c.order == "chunks" and c.chunk.get(layer.name):
                passes = -(-blocks(graph.tensors[layer.output].shape[2], arch.conv.oc) // c.chunk[layer.name])
        for t in c.loads:
            whole = c.rings[t].rows >= graph.tensors[t].shape[0] and tiles == 1
            halo = 1.0 if tiles == 1 else c.rings[t].width * tiles / max(1, graph.tensors[t].shape[1])
            traffic += int(
                graph.tensors[t].bytes * (1 if whole else passes) * (halo if not c.rings[t].fold else 1)
            )
        traffic += constants + sum(graph.tensors[t].bytes for t in c.saves)
        moved = {t: self.move_cycles(t, c.rings[t]) for t in dict.fromkeys((*c.loads, *c.saves))}
        compute, together = max(time.values()), sum(time.values())
        busiest = max(compute, sum(moved[t] for t in c.loads), sum(moved[t] for t in c.saves))
        ramp = (together - compute) / max(1, c.strips.count) if len(engines) > 1 else 0.0
        cost = Cost(
            busiest, max(busiest, together), ramp + 40 * c.strips.steps / max(1, c.strips.count), traffic, constants, first,
            constants if c.resident and c.strips.count > 1 and c.order == "strips" else first,
        )  # fmt: skip
        busy = {t: float(cycles) for t, cycles in each.items()}
        rings = {t: replace(r, gain=self._gain(c, t, busy)) for t, r in c.rings.items()}
        c = replace(c, cost=cost, busy=busy, rings=rings)
        return replace(c, sharing=self._sharing(c))

    def _sharing(self, c: Candidate) -> tuple[tuple[int, float], ...]:
        """Rings by the engines that write and read them: words, and cycles that the busier of these is at them."""
        kinds: dict[tuple[Engine, Engine | None], tuple[int, float]] = {}
        for t, ring in c.rings.items():
            if t in c.in_place:
                continue
            maker = next((layer.engine for layer in c.layers if layer.output == t), Engine.LOAD)
            readers = [layer for layer in c.layers if t in layer.inputs]
            reading = max((c.busy[layer.output] for layer in readers), default=0.0)
            first = readers[0].engine if readers else None
            made = c.busy.get(t, 0.0) or self.move_cycles(t, ring)
            words, cycles = kinds.get((maker or Engine.LOAD, first), (0, 0.0))
            kinds[maker or Engine.LOAD, first] = (words + ring.words(ring.slack), cycles + max(made, reading))
        return tuple(sorted(kinds.values(), key=lambda kind: -kind[1]))

    def _pieces(self, layer: Layer, c: Candidate) -> int:
        """Chunks that the layer's constants come in."""
        size = c.chunk.get(layer.name)
        if not size:
            return 1
        unit = self.arch.lanes if layer.engine == Engine.DWC else self.arch.conv.oc
        return -(-blocks(self.graph.tensors[layer.output].shape[2], unit) // size)

    def move_cycles(self, tensor: str, need: RingNeed) -> float:
        """Cycles to bring a map on chip or back: its bytes, or its words where they come one by one."""
        shape = self.graph.tensors[tensor].shape
        words = shape[0] * need.width * need.blocks
        narrow = need.fold or shape[2] < self.arch.lanes
        return max(
            self.graph.tensors[tensor].bytes / self.bandwidth, words / (1 if narrow else self.arch.group_move)
        )

    def _gain(self, c: Candidate, tensor: str, busy: dict[str, float]) -> float:
        """Cycles that a map's producer and its readers can work at once."""
        maker = next((layer.engine for layer in c.layers if layer.output == tensor), Engine.LOAD)
        reading = sum(
            busy[layer.output] for layer in c.layers if tensor in layer.inputs and layer.engine != maker
        )
        making = busy[tensor] if tensor in busy else self.move_cycles(tensor, c.rings[tensor])
        return min(making, reading)

    def heights(self, height: int) -> list[int]:
        """All strip heights that matter, high to low: for each number of strips the lowest that gives it.

        A higher strip of the same count only needs more memory. There are about two times the square root of `height`.
        """
        return sorted({-(-height // n) for n in range(1, height + 1)}, reverse=True)
