"""Search over candidates: strip heights, orders, chunks and column tiles of a run of layers, best first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..ir.arch import Arch
from ..ir.errors import ScheduleError
from ..ir.graph import Graph
from ..ir.isa import Engine
from ..ir.layout import blocks
from .candidates import Candidate
from .costing import Costing
from .layers import Layer, make_layers
from .nests import Homes, Nest
from .strips import strip_driver
from .weights import parameter_words

__all__ = ["Objective", "Options", "Search", "check_objective", "find_misfits", "weigh"]

Objective = Literal["latency", "energy", "edp"]

_CHUNKS = 4
"""Output chunks of a layer whose weights stream: the next chunk loads, and a depthwise layer starts, behind the first."""
_TILES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Column tiles tried for maps whose rows are too wide."""
_COUNTS = (2, 3, 4, 5, 7, 9, 12, 14, 19, 28, 38, 56, 75, 112, 150, 224, 448, 1024)
"""Strips tried for groups of several layers: a third apart, and those that divide usual maps."""
_HOPELESS = 1.5
"""Strip heights are tried from high to low until a candidate is this much worse than the best and takes few words."""
_BESIDE_LATENCY, _BESIDE_ENERGY = 0.3, 0.01
"""What a cycle of DRAM traffic counts beside the latency, and a cycle of time beside the DRAM traffic: of two schedules that
are nearly as fast, the one with less traffic."""
_LEAST_BUSY = 256
"""Cycles below which an instruction is not cut further: start-up and drain are about 30."""


@dataclass(frozen=True, slots=True)
class Options:
    """How far the scheduler goes.

    Parameters
    ----------
    fuse : int
        Most layers in a depth-first group; 1 turns fusion off.
    keep_maps : bool
        Keep maps on chip between groups.
    save_all : bool
        Write every layer's map to DRAM as well, so that every byte can be compared.
    fold_tables : bool
        Look tables up in the drain of the convolution before them.
    strip_rows : int
        Strip height of multi-layer groups; 0 lets the scheduler choose.
    dram_gbps : float
        DRAM traffic that the latency is planned for, in 1e9 bytes a second on average over the frame; what a memory gives
        to others is not ours. Unlimited by default.
    """

    fuse: int = 16
    keep_maps: bool = True
    save_all: bool = False
    fold_tables: bool = True
    strip_rows: int = 0
    dram_gbps: float = math.inf

    def slower(self, bytes_per_cycle: float, clock_mhz: float) -> float:
        """Cycles that a cycle of DRAM traffic at this rate counts for where its average is limited."""
        return max(1.0, bytes_per_cycle / (self.dram_gbps * 1e3 / clock_mhz))


def check_objective(objective: str) -> None:
    """Raises ScheduleError where there is no such objective."""
    if objective not in get_args(Objective):
        raise ScheduleError(f"objective {objective!r} is not one of {', '.join(get_args(Objective))}")


def weigh(objective: Objective, cycles: float, dram: float, slower: float = 1.0) -> float:
    """One number for an objective, from cycles of time and cycles that the DRAM port is in use.

    Parameters
    ----------
    slower : float
        Cycles that a cycle of DRAM traffic counts for where its average is limited.
    """
    if objective == "latency":
        return max(cycles, slower * dram) + _BESIDE_LATENCY * dram
    if objective == "energy":
        return dram + _BESIDE_ENERGY * cycles
    return cycles + dram


def find_misfits(graph: Graph, arch: Arch) -> tuple[ScheduleError, ...]:
    """Every layer that fits the machine in no tile: resource, demand, bound and lever; nothing is scheduled."""
    layers = make_layers(graph, arch)
    return Search(graph, arch, layers, "latency", float("inf"), Options()).misfits()


class Search:
    """Candidates of one graph on one machine, priced for an objective.

    Parameters
    ----------
    bandwidth : float
        Peak of the DRAM, bytes a core cycle.
    """

    def __init__(
        self,
        graph: Graph,
        arch: Arch,
        layers: tuple[Layer, ...],
        objective: Objective,
        bandwidth: float,
        options: Options,
    ) -> None:
        self.graph, self.arch, self.layers = graph, arch, layers
        self.objective, self.options = objective, options
        self.costing = Costing(graph, arch, layers, bandwidth)
        self.readers: dict[str, list[int]] = {t: [] for t in graph.tensors}
        for i, layer in enumerate(layers):
            for t in dict.fromkeys(layer.inputs):
                self.readers[t].append(i)
        self._slower = options.slower(self.costing.bandwidth, arch.clock_mhz)
        """Cycles that a cycle of DRAM traffic counts for where its average is limited."""
        self._memo: dict[tuple[object, ...], list[Candidate]] = {}
        self._last = {t: max(numbers, default=-1) for t, numbers in self.readers.items()}
        self._outside: dict[tuple[int, int], Set[str]] = {}
        self._loops: dict[tuple[int, int, int, int], list[Nest]] = {}
        self._chunks: dict[str, int] = {}

    def value(self, c: Candidate) -> float:
        dram = c.cost.dram_bytes / self.costing.bandwidth
        return self.weigh(max(c.cost.busiest, dram) + c.cost.fill, dram)

    def weigh(self, cycles: float, dram: float) -> float:
        """One number for the objective, from cycles of time and cycles that the DRAM port is in use."""
        return weigh(self.objective, cycles, dram, self._slower)

    def last_reader(self, tensor: str) -> int:
        """Number of the last layer that reads a map; -1 if none does."""
        return self._last[tensor]

    def outside(self, i: int, j: int) -> Set[str]:
        """Maps of layers i..j-1 that are wanted afterwards."""
        if (i, j) not in self._outside:
            self._outside[i, j] = frozenset(
                layer.output
                for layer in self.layers[i:j]
                if layer.output in self.graph.outputs
                or self.last_reader(layer.output) >= j
                or self.options.save_all
            )
        return self._outside[i, j]

    def homes(self, i: int, j: int, stay: Set[str]) -> Homes:
        """Where the maps of layers i..j-1 are if those in `stay` are on chip."""
        layers = self.layers[i:j]
        made = {layer.output for layer in layers}
        outputs = self.outside(i, j)
        kept, before = stay & outputs, stay - made
        saves = tuple(
            layer.output
            for layer in layers
            if layer.output in outputs
            and (layer.output in self.graph.outputs or layer.output not in stay or self.options.save_all)
        )
        sources = dict.fromkeys(t for layer in layers for t in layer.inputs)
        loads = tuple(t for t in sources if t not in made and t not in stay)
        dying = frozenset(t for t in before if t not in self.graph.outputs and self.last_reader(t) < j)
        return Homes(outputs, kept, kept | before, loads, saves, dying)

    def best(
        self, i: int, j: int, stay: Set[str], room: int, in_place: Mapping[str, str] | None = None
    ) -> Candidate | None:
        """The best candidate for layers i..j-1 if the maps in `stay` are on chip.

        Parameters
        ----------
        room : int
            Map words to be had.
        in_place : dict of tensor to tensor, optional
            Which maps take over the words of others; any by default.
        """
        return next(self.fitting(i, j, stay, room, in_place), None)

    def fitting(
        self, i: int, j: int, stay: Set[str], room: int, in_place: Mapping[str, str] | None = None
    ) -> Iterator[Candidate]:
        """The candidates for layers i..j-1 that fit, best first; parameters as of `best`."""
        touched = frozenset(
            t for layer in self.layers[i:j] for t in (*layer.inputs, layer.output) if t in stay
        )
        key = (i, j, touched)
        if key not in self._memo:
            self._memo[key] = self._search(i, j, set(touched))
        for c in self._memo[key]:
            if c.least_words <= room and (in_place is None or c.in_place == in_place):
                yield c

    def _search(self, i: int, j: int, stay: Set[str]) -> list[Candidate]:
        """All candidates for layers i..j-1, best first; column tiles only where nothing else is possible."""
        layers, costing = self.layers[i:j], self.costing
        homes = self.homes(i, j, stay)
        height = self.graph.tensors[strip_driver(layers)].shape[0]
        width = self.graph.tensors[layers[-1].output].shape[1]
        found: list[tuple[float, Candidate]] = []
        best = math.inf
        for rows in self._heights(layers, height, width):
            least, fewest = math.inf, math.inf
            for nest in self._nests(i, j, homes.outputs, rows, height):
                c = costing.placed(nest, homes)
                if c is not None:
                    value = self.value(c)
                    found.append((value, c))
                    least, fewest = min(least, value), min(fewest, c.least_words)
            if math.inf > least > _HOPELESS * best and fewest < self.arch.map_words // 16:
                break  # lower strips only cost more, and need no less than this
            best = min(best, least)
        if (
            layers[-1].reduces
            and blocks(self.graph.tensors[layers[-1].output].shape[2], self.arch.lanes) > self.arch.vec.sums
        ):
            found = [(value, c) for value, c in found if c.strips.count == 1]
        if j - i == 1 and not homes.kept:
            found += [(self.value(c), c) for c in self._tiled(i, homes, height, width, [c for _, c in found])]
        return [c for _, c in sorted(found, key=lambda valued: valued[0])]

    def _nests(self, i: int, j: int, outputs: Set[str], rows: int, height: int, cols: int = 0) -> list[Nest]:
        """The loops of layers i..j-1 worth trying for this strip height and tile width (0: whole rows), wherever their maps
        are."""
        key = i, j, rows, cols
        if key not in self._loops:
            layers = self.layers[i:j]
            settings = self._settings(layers, rows, height)
            made = (self.costing.nest(layers, outputs, rows, cols or None, **way) for way in settings)
            self._loops[key] = [nest for nest in made if nest is not None]
        return self._loops[key]

    def _heights(self, layers: tuple[Layer, ...], height: int, width: int) -> list[int]:
        """Strip heights worth trying, high to low; for the array also those whose pixels make whole blocks."""
        if len(layers) > 1 and self.options.strip_rows:
            return [min(self.options.strip_rows, height)]
        if len(layers) > 1:
            fewest = 1 if self.costing.goes_by_chunks(layers) else 2
            return sorted({-(-height // n) for n in (1, *_COUNTS) if fewest <= n <= height}, reverse=True)
        rows = self.costing.heights(height)
        if layers[0].engine != Engine.CONV:
            return rows
        step = self.arch.conv.pixels // math.gcd(self.arch.conv.pixels, width)
        return sorted({*rows, *(h for r in rows if (h := -(-r // step) * step) < height)}, reverse=True)

    def _settings(self, layers: tuple[Layer, ...], rows: int, height: int) -> list[dict[str, Any]]:
        """Residency, order and chunks worth trying for this strip height."""
        single, strips = len(layers) == 1, -(-height // rows)
        chunk = {layer.name: self._chunk(layer) for layer in layers}
        settings: list[dict[str, Any]] = []
        if strips > 1:
            settings.append({"resident": True})
        if (strips == 1 and (single or self.options.strip_rows)) or (single and layers[0].parts):
            settings.append({"resident": False, "chunk": chunk})
        return settings + self._by_chunks(layers, strips)

    def _by_chunks(self, layers: tuple[Layer, ...], strips: int) -> list[dict[str, Any]]:
        """Chunk by chunk over output channels, with the layers that follow."""
        convs = [layer for layer in layers if layer.engine == Engine.CONV]
        if layers[0] not in convs or (len(layers) > 1 and not self.costing.goes_by_chunks(layers)):
            return []
        usual = min(filter(None, map(self._chunk, convs)), default=0)
        largest = self._largest_chunk(convs)
        least = self.arch.lanes // math.gcd(self.arch.lanes, self.arch.conv.oc)
        # The smallest chunks: their rings leave the most room to the input.
        thin = least if blocks(len(convs[0].parts[0].bias), self.arch.conv.oc) > least else 0
        tried: list[tuple[int, bool, str]]
        if strips == 1:
            sizes = dict.fromkeys((usual, largest, largest // 2))
            tried = [*((size, False, "chunks") for size in sizes), (thin, False, "strips")]
        else:
            tried = [(usual, False, "strips"), (thin, False, "strips")]
            tried += [(size, True, "chunks") for size in dict.fromkeys((usual, largest))]
        deep = [layer for layer in layers if layer.engine == Engine.DWC]
        most = min(map(self._deep_chunk, deep), default=1 << 30) // least * least
        oc, lanes = self.arch.conv.oc, self.arch.lanes
        return [
            {
                "resident": stay,
                "order": order,
                "chunk": {
                    layer.name: size * oc // lanes if layer in deep else size for layer in convs + deep
                },
                "part": True,
            }
            for size, stay, order in ((min(size, most), stay, order) for size, stay, order in tried)
            if all(self._aligned(layer, size) for layer in convs)
        ]

    def _deep_chunk(self, layer: Layer) -> int:
        """The array's output blocks whose depthwise weights fit half of their memory."""
        taken = self.costing.weight_words(layer)[1] // blocks(len(layer.parts[0].bias), self.arch.lanes)
        return self.arch.depthwise_words // 2 // taken * self.arch.lanes // self.arch.conv.oc

    def _aligned(self, layer: Layer, chunk: int) -> bool:
        """Chunks of output channels that are whole map blocks and one part: they can be saved one by one."""
        return bool(chunk) and len(layer.parts) == 1 and chunk * self.arch.conv.oc % self.arch.lanes == 0

    def _chunk(self, layer: Layer) -> int:
        """Output blocks a chunk, for weights that stream: a fraction of the memory, and of the layer."""
        if layer.name not in self._chunks:
            self._chunks[layer.name] = self._new_chunk(layer) if layer.parts else 0
        return self._chunks[layer.name]

    def _new_chunk(self, layer: Layer) -> int:
        shape = self.graph.tensors[layer.output].shape
        widest = max(len(part.bias) for part in layer.parts)
        if layer.engine == Engine.DWC:
            record = max(1 + -(-part.window.taps // 8) for part in layer.parts)
            total, memory = blocks(widest, self.arch.lanes), self.arch.depthwise_words
        else:
            record = max(self.costing.record_words(layer, part) for part in layer.parts)
            total, memory = blocks(widest, self.arch.conv.oc), self.arch.weight_words
        fits = max(1, memory // 4 // record)
        busy = self.costing.busy(layer, shape[0], shape[1])
        pieces = max(1, min(_CHUNKS, busy // _LEAST_BUSY))
        chunk = min(fits, -(-total // pieces))
        step = self.arch.lanes // math.gcd(self.arch.lanes, self.arch.conv.oc)
        diagonal = layer.engine == Engine.CONV and any(part.depthwise for part in layer.parts)
        if layer.engine == Engine.CONV and (chunk > step or diagonal):
            chunk = max(1, chunk // step) * step  # whole map blocks
        return 0 if chunk >= total else chunk

    def _largest_chunk(self, layers: list[Layer]) -> int:
        """Output blocks that fit half of the weight memory, in whole map blocks: the fewest passes over the input."""
        record = max(self.costing.record_words(layer, part) for layer in layers for part in layer.parts)
        total = blocks(max(len(part.bias) for part in layers[0].parts), self.arch.conv.oc)
        step = self.arch.lanes // math.gcd(self.arch.lanes, self.arch.conv.oc)
        chunk = self.arch.weight_words // 2 // record // step * step
        return 0 if chunk >= total else chunk

    def _tiled(
        self, i: int, homes: Homes, height: int, width: int, whole: list[Candidate]
    ) -> list[Candidate]:
        """Column tiles, where no candidate of whole rows takes less than half of the map memory."""
        half, layers = self.arch.map_words // 2, self.layers[i : i + 1]
        if any(c.least_words <= half for c in whole) or layers[0].reduces:
            return []
        homes = homes._replace(saves=(layers[0].output,))
        found: list[Candidate] = []
        pixels = self.arch.conv.pixels
        even = [-(-width // parts) for parts in _TILES if parts <= width]
        wide = [-(-cols // pixels) * pixels for cols in even]
        narrow = [min(pixels, width - 1) >> n for n in range(pixels.bit_length())]
        for cols in sorted({*even, *wide, *narrow}, reverse=True):
            if not 0 < cols < width:
                continue
            found += [
                c
                for rows in self._heights(layers, height, cols)
                for nest in self._nests(i, i + 1, homes.outputs, rows, height, cols)
                if nest.order != "chunks" and (c := self.costing.placed(nest, homes)) is not None
            ]
            if any(c.least_words <= half // 4 for c in found):
                break
        return found

    def misfits(self) -> tuple[ScheduleError, ...]:
        """An error for every layer that fits in no tile, even alone with its maps in DRAM."""
        capacity = self.arch.map_words
        return tuple(
            self.does_not_fit(layer)
            for i, layer in enumerate(self.layers)
            if layer.engine is not None and self.best(i, i + 1, set(), capacity) is None
        )

    def does_not_fit(self, layer: Layer) -> ScheduleError:
        """Which of the memories it is, both numbers, and what would help."""
        arch, tensors = self.arch, self.graph.tensors
        for part in layer.parts if layer.engine == Engine.CONV else ():
            least = parameter_words(arch.lanes) + self.costing.record_taps(layer, part)
            if not part.depthwise and 2 * least > arch.weight_words:
                kib = -(-2 * least * arch.lanes * arch.conv.oc // 1024)
                return ScheduleError(
                    f"{layer.name}: its {part.window.taps} taps need {2 * least} weight words for one block of channels, {arch.name} has "
                    f"{arch.weight_words}; raise weights.kib to {kib}, or split the kernel",
                    node=layer.name, demand=2 * least, bound=arch.weight_words,
                )  # fmt: skip
        if layer.reduces and blocks(tensors[layer.output].shape[2], arch.lanes) > arch.vec.sums:
            channels = tensors[layer.output].shape[2]
            return ScheduleError(
                f"{layer.name}: pools {channels} channels at once, {arch.name} keeps sums for {arch.vec.sums * arch.lanes}; raise vec.sums to "
                f"{blocks(channels, arch.lanes)}",
                node=layer.name, demand=channels, bound=arch.vec.sums * arch.lanes,
            )  # fmt: skip
        widest = max(
            (*layer.inputs, layer.output), key=lambda t: self.costing.map_words(t) // tensors[t].shape[0]
        )
        row = self.costing.map_words(widest) // tensors[widest].shape[0]
        return ScheduleError(
            f"{layer.name}: no tile fits {arch.name}: a row of %{widest} takes {row} map words, operands lie in at most {arch.span * arch.group_words} and the "
            f"window more than one row; raise maps.kib, or take fewer map groups",
            node=layer.name, demand=row, bound=arch.span * arch.group_words,
        )  # fmt: skip
