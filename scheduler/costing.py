"""What candidates cost, counted with the simulator's own timing functions on their strips."""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType

from ..ir.arch import Arch
from ..ir.graph import Graph
from ..ir.isa import Engine
from ..ir.layout import blocks
from .candidates import Candidate, Cost
from .channelwise import goes_by_chunks, joins_chunks, keeps_rows_apart, maps_in_chunks
from .layer_costs import LayerCosts
from .layers import Layer
from .nests import Homes, Nest, RingNeed, Room, Run, Work
from .residency import resident_pieces, tables_fit
from .skipping import loaded_skipping
from .strips import StripGroup, Strips, may_replace, plan_strips
from .weights import fold_of, parameter_words

__all__ = ["DRAM_SHARE", "Costing"]

DRAM_SHARE = 0.85
"""Share of the DMA's peak that a stream of strips sustains (UG585: 87-97 % by access pattern; see docs/memory.md)."""


_STEP = 40.0
"""Cycles that a step of a group costs beside its busiest engine: starts, tails and tokens between engines (`ir.latency`)."""
_CHUNKS_HELD = 2
"""Chunks of a map that goes to DRAM chunk by chunk: one is made while the one before is saved."""
_NONE: Mapping[str, str] = MappingProxyType({})


class Costing(LayerCosts):
    """Evaluates candidates on one graph and machine."""

    def __init__(
        self, graph: Graph, arch: Arch, layers: tuple[Layer, ...], dram_bytes_per_cycle: float
    ) -> None:
        super().__init__(graph, arch, layers)
        self.bandwidth = min(float(arch.stream_bytes), dram_bytes_per_cycle) * DRAM_SHARE
        self._strips: dict[tuple[str, int, int], Strips] = {}
        self.move = arch.group_move
        self.largest = arch.span * arch.group_words
        self._long = {layer.name for layer in layers if self._is_long(layer)}
        self._whole = {t: self.map_words(t) for t in graph.tensors}
        self._runs: dict[tuple[str, int], Run] = {}
        self._replaces: dict[tuple[str, int, int, str, str], bool] = {}
        self._groups: dict[tuple[str, int], StripGroup] = {}
        self._chunked: dict[tuple[str, int], dict[str, int] | None] = {}
        self._joins: dict[tuple[str, int], bool] = {}
        self._apart: dict[tuple[str, int, int], bool] = {}

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
            Output channels are made chunk by chunk: rings hold a part of the channels of what goes to DRAM, or from the
            convolution to layers that follow it (`channelwise`).
        """
        made = {layer.output for layer in layers}
        sources = dict.fromkeys(t for layer in layers for t in layer.inputs if t not in made)
        loads = tuple(t for t in sources if t not in resident_maps)
        homes = Homes(outputs, resident_maps & made, resident_maps, loads, saves, dying)
        nest = self.nest(layers, outputs, rows, cols, order, resident, part, chunk)
        return None if nest is None else self.placed(nest, homes)

    def nest(
        self, layers: tuple[Layer, ...], outputs: Set[str], rows: int, cols: int | None = None, order: str = "strips",
        resident: bool = True, part: bool = False, chunk: dict[str, int] | None = None,
    ) -> Nest | None:  # fmt: skip
        """The loops of a candidate, or None where the weights cannot fit; parameters as of `candidate`."""
        width = self.graph.tensors[layers[-1].output].shape[1]
        cols = cols or width
        strips = self._strips_of(layers, outputs, rows)
        if part and len(layers) > 1 and order == "strips" and not self._rows_apart(layers, strips):
            return None
        if strips.count > 1 and resident:
            pieces = self.resident_chunks(layers)
            if pieces is None:
                return None
            chunk = chunk or pieces
        if any(layer.name in self._long for layer in layers) and not (
            len(layers) == 1 and self._reduction_fits(layers[0], rows, cols)
        ):
            return None
        chunk = chunk or {}
        run, tiles = self._run(layers), -(-width // cols)
        room, row_words, moves = run.rows, run.row_words, run.moves
        if part or tiles > 1:
            room = {t: self._room(run, t, cols, chunk if part else None) for t in run.rows}
            row_words = {t: r.width * r.blocks for t, r in room.items()}
            moves = {t: self._move_cycles(t, r, tiles) for t, r in room.items()}
        work = self._new_work(layers, strips, cols, order, resident, chunk)
        loaded = run.size
        if work.passes > 1 or tiles > 1:
            loaded = {t: self._loaded(run, t, room[t], strips, tiles, work) for t in run.sources}
        fill, times = _STEP, max(self._pieces(layer, chunk) for layer in layers) if part else 1
        if work.kinds > 1:
            hidden = work.engines - work.busiest
            fill = hidden / max(1, strips.count * times) + _STEP * strips.steps * times
        words = {t: room[t].rows(strips.ring[t]) * n for t, n in row_words.items()}
        wide = {t for t, n in words.items() if n > self.largest}
        return Nest(
            run, rows, cols, order, resident, chunk, strips, room, row_words, words, sum(words.values()), wide, moves, loaded, work, fill,
            part,
        )  # fmt: skip

    def placed(self, nest: Nest, homes: Homes) -> Candidate | None:
        """The candidate of these loops with maps in their homes, or None where a ring cannot fit."""
        run, work, moves, loaded = nest.run, nest.work, nest.moves, nest.loaded
        if not nest.wide <= homes.on_chip or (
            homes.kept and nest.cols < run.rows[run.layers[-1].output].width
        ):
            return None  # column tiles go to DRAM
        words = nest.total
        in_place = _NONE
        if homes.on_chip:
            if homes.dying and homes.kept and (nest.part or nest.order == "strips"):
                in_place = self._in_place(nest, homes)
            for t in homes.on_chip:
                words -= nest.words.get(t, 0)
                if t in homes.kept:
                    if self._whole[t] > self.largest:
                        return None
                    words += 0 if t in in_place else self._whole[t]
        traffic, loading, saving = work.weight_bytes, 0.0, 0.0
        for t in homes.saves:
            traffic += run.size[t]
            saving += (run if t in homes.kept else nest).moves[t]
        for t in homes.loads:
            traffic += loaded[t]
            loading += moves[t]
        busiest = max(work.busiest, loading, saving)
        cost = Cost(
            busiest, max(busiest, work.engines), nest.fill, traffic, work.weight_bytes, work.first_bytes, work.held_bytes
        )  # fmt: skip
        return Candidate(nest, homes, in_place, cost, words)

    def _run(self, layers: tuple[Layer, ...]) -> Run:
        """The maps of a run of layers."""
        key = layers[0].name, len(layers)
        if key not in self._runs:
            tensors = self.graph.tensors
            made = [layer.output for layer in layers]
            sources = tuple(dict.fromkeys(t for layer in layers for t in layer.inputs if t not in made))
            rows = {t: self._whole_row(layers, t, t in sources) for t in (*sources, *made)}
            self._runs[key] = Run(
                layers,
                sources,
                rows,
                {t: r.width * r.blocks for t, r in rows.items()},
                {
                    t: RingNeed(rows[t].width, rows[t].blocks, tensors[t].shape[0], tensors[t].shape[0])
                    for t in made
                },
                {t: self._move_cycles(t, r, 1) for t, r in rows.items()},
                {
                    t: r.rows(tensors[t].shape[0]) * tensors[t].bytes // tensors[t].shape[0]
                    for t, r in rows.items()
                },
            )
        return self._runs[key]

    def _whole_row(self, layers: tuple[Layer, ...], tensor: str, loaded: bool) -> Room:
        """A whole row on chip; folded or skipping pixels where it is loaded for a convolution that reads it so."""
        _, w, c = self.graph.tensors[tensor].shape
        if loaded and self.folds(tensor):
            layer = self.fold_layer(tensor)
            assert layer is not None
            found = fold_of(layer.parts[0], c, self.lanes)
            assert found is not None
            return Room(self.graph.tensors[layer.output].shape[1], found.words, True)
        skip = loaded_skipping(layers, tensor, self.graph) if loaded else (1, 1)
        return Room(-(-w // skip[1]), blocks(c, self.lanes), skip != (1, 1), skip[0])

    def _room(self, run: Run, tensor: str, cols: int, part: dict[str, int] | None) -> Room:
        """What a row takes in column tiles, or of a map that is saved chunk by chunk."""
        layers = run.layers
        whole = run.rows[tensor]
        width, count, fold, skip = whole
        last = run.rows[layers[-1].output].width
        if cols < last:
            fold, skip = fold and self.folds(tensor), 1  # tiles skip nothing
            tiled = not fold and tensor in run.sources
            width = self._tile_width(layers[0], tensor, cols, last) if tiled else cols
        if part and tensor in maps_in_chunks(layers):
            count = min(count, _CHUNKS_HELD * part[layers[0].name] * self.arch.conv.oc // self.lanes)
        return Room(width, count, fold, skip)

    def _in_place(self, nest: Nest, homes: Homes) -> Mapping[str, str]:
        """Outputs that take over the words of a source."""
        layers = nest.run.layers
        if nest.cols < nest.run.rows[layers[-1].output].width:
            return {}
        return {
            layer.output: source
            for layer in layers
            if layer.output in homes.kept and (source := self._replaced(nest, layer, homes.dying))
        }

    def _replaced(self, nest: Nest, layer: Layer, dying: Set[str]) -> str | None:
        """The resident map whose words the layer's output may take over."""
        shape = self.graph.tensors[layer.output].shape
        for source in layer.inputs:
            if source in dying and self.graph.tensors[source].shape == shape:
                layers = nest.run.layers
                key = layers[0].name, len(layers), nest.rows, layer.output, source
                if key not in self._replaces:
                    self._replaces[key] = may_replace(layers, layer, source, nest.strips)
                if self._replaces[key]:  # by chunks, another layer's come later
                    return None if nest.part and sum(source in o.inputs for o in layers) > 1 else source
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

    def is_summed_in_pieces(self, layer: Layer) -> bool:
        """Weights of one block of output channels do not fit at once: its tiles have few pixels."""
        return layer.name in self._long

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

    def joins_chunks(self, layers: tuple[Layer, ...]) -> bool:
        """Layers that go chunk by chunk, or that others may still join to do so; their tables are on chip at once."""
        key = layers[0].name, len(layers)
        if key not in self._joins:
            self._joins[key] = joins_chunks(layers, self.graph) and tables_fit(layers, self.arch)
        return self._joins[key]

    def goes_by_chunks(self, layers: tuple[Layer, ...]) -> bool:
        """Layers that can go chunk by chunk over output channels."""
        return self.joins_chunks(layers) and goes_by_chunks(layers, self.graph)

    def _rows_apart(self, layers: tuple[Layer, ...], strips: Strips) -> bool:
        key = layers[0].name, len(layers), strips.rows
        if key not in self._apart:
            self._apart[key] = keeps_rows_apart(layers, strips)
        return self._apart[key]

    def resident_chunks(self, layers: tuple[Layer, ...]) -> dict[str, int] | None:
        """Output blocks an instruction for layers whose constants are better cut, so that a wrap wastes less; None where
        they do not fit at once in any case."""
        key = layers[0].name, len(layers)
        if key not in self._chunked:
            words = [self.weight_words(layer) for layer in layers]
            self._chunked[key] = resident_pieces(layers, words, self.record_words, self.arch)
        return self._chunked[key]

    def _new_work(
        self, layers: tuple[Layer, ...], strips: Strips, cols: int, order: str, resident: bool, chunk: dict[str, int]
    ) -> Work:  # fmt: skip
        tensors = self.graph.tensors
        time: dict[Engine, float] = {}
        busy: dict[str, float] = {}
        tiles, heights = -(-tensors[layers[-1].output].shape[1] // cols), strips.heights()
        constants, first, passes = 0, 0, 1
        for layer in layers:
            busy[layer.output] = 0.0
            if layer.engine is None:
                continue
            width = tensors[layer.output].shape[1] if tiles == 1 else cols
            if layer.reduces:
                busy[layer.output] = float(self.busy(layer, tensors[layer.output].shape[0], 1))
            else:
                busy[layer.output] = float(self.tiles_busy(layer, heights[layer.output], width) * tiles)
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

    def _loaded(self, run: Run, tensor: str, room: Room, strips: Strips, tiles: int, work: Work) -> int:
        """Bytes that a source takes over the DRAM port."""
        shape, size = self.graph.tensors[tensor].shape, self.graph.tensors[tensor].bytes
        if tiles == 1:
            again = room.rows(strips.ring[tensor]) * room.skip < shape[0] and tensor not in maps_in_chunks(
                run.layers
            )
            return run.size[tensor] * (work.passes if again else 1)
        return int(size * work.passes * self._loaded_columns(tensor, room) * tiles / max(1, shape[1]))

    def _loaded_columns(self, tensor: str, room: Room) -> int:
        """Columns of the map that a column tile brings on chip."""
        layer = self.fold_layer(tensor) if room.fold else None
        if layer is None:
            return room.width
        window = layer.parts[0].window
        return (room.width - 1) * window.stride[1] + window.kernel[1]

    def _pieces(self, layer: Layer, chunk: dict[str, int]) -> int:
        """Chunks that the layer's constants come in."""
        size = chunk.get(layer.name)
        if not size:
            return 1
        unit = self.arch.lanes if layer.engine == Engine.DWC else self.arch.conv.oc
        return -(-blocks(self.graph.tensors[layer.output].shape[2], unit) // size)

    def _move_cycles(self, tensor: str, room: Room, tiles: int) -> float:
        """Cycles to bring a map on chip or back: its bytes, or its words where they come one by one."""
        shape = self.graph.tensors[tensor].shape
        words = room.rows(shape[0]) * room.width * room.blocks * tiles
        narrow = room.fold or shape[2] < self.lanes
        size = room.rows(shape[0]) * shape[1] * shape[2]
        return max(size / self.bandwidth, words / (1 if narrow else self.move))

    def heights(self, height: int) -> list[int]:
        """All strip heights that matter, high to low: for each number of strips the lowest that gives it.

        A higher strip of the same count only needs more memory. There are about two times the square root of `height`.
        """
        return sorted({-(-height // n) for n in range(1, height + 1)}, reverse=True)
