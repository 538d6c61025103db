"""A network as index arrays, for the kernels of `quick`: what is the graph's own, and what a machine makes of it.

Three layers of memory, so that the machines of a sweep share what they have in common: rows of windows by graph, strips by
engine of each layer, sizes by the array's shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.depthwise import record_words as depthwise_record
from ..ir.depthwise import tail_taps
from ..ir.graph import Add, Graph, Mul, Pool, PRelu, Resize, Slice, Table
from ..ir.isa import Engine, VecOp
from ..ir.layout import blocks
from .channelwise import follows
from .layers import Layer, make_layers
from .quick_strips import Chain, Runs, runs_of
from .search import _COUNTS, Options
from .skipping import skips
from .weights import fold_of, parameter_words

__all__ = ["FUSE", "LAYER", "MAP", "PART", "Network", "Sizes", "Tiled", "network"]

_Ints = NDArray[np.int64]
FUSE = Options().fuse
_BITS = 62

PART = (
    *("layer", "source", "first", "stop", "offset", "channels", "kh", "kw", "sy", "sx", "dy", "dx"),
    *("pad_top", "pad_left", "step_y", "step_x", "origin_y", "origin_x", "depthwise", "record", "inputs"),
    *("record_bytes", "blocks", "fold"),
)
"""Columns of `Sizes.parts`: `record` words and bytes of an output block, `inputs` blocks summed over (0: depthwise),
`blocks` output blocks."""

LAYER = (
    "func",
    "kh",
    "kw",
    "sx",
    "dx",
    "broadcast",
    "bilinear",
    "table",
    "lookup",
    "constants",
    "array",
    "deep",
)
"""Columns of `Sizes.layers`: VEC function and window; does it look up (`lookup`: in the drain); words of the vector memory;
words of the weight and depthwise memories."""

MAP = (
    "h",
    "w",
    "c",
    "blocks",
    "fold",
    "fold_width",
    "fold_take",
    "fold_step",
    "is_input",
    "may_stay",
    *("view", "bit"),
)
"""Columns of `Sizes.maps`: `fold` words a column where the map is loaded folded, else 0; `bit` its place in sets of maps on chip,
-1 for none."""


class Sizes(NamedTuple):
    """What the kernels need to know of layers, parts and maps on one shape of machine (columns LAYER, PART, MAP).

    Parameters
    ----------
    part_ptr : (layers + 1,)
        Where the parts of a layer begin.
    maker : (maps,)
        Layer that makes the map, -1 for none.
    """

    layers: _Ints
    parts: _Ints
    part_ptr: _Ints
    maps: _Ints
    maker: _Ints
    weight_bytes: _Ints


class Tiled(NamedTuple):
    """Column tiles of layers whose rows are too wide, wide tiles first.

    Parameters
    ----------
    at : (layers + 1,)
        Where the options of a layer begin.
    cols, rows, entry : (n,)
        Tile width, strip height, and its entry of `Runs`.
    width : (n,)
        Columns of the source that a tile reads.
    busy : (n,)
        Cycles of all strips of one tile column.
    """

    at: _Ints
    cols: _Ints
    rows: _Ints
    entry: _Ints
    width: _Ints
    busy: _Ints


@dataclass(eq=False)
class Network:
    """A graph's layers on one shape of machine.

    Parameters
    ----------
    layers : tuple of Layer
    chain : Chain
    runs : Runs
    sizes : Sizes
    pairs : (n, 2)
        Layer and tile height of every tile in `runs`.
    names : (maps,)
        Rank of each map's name.
    memo : dict
        For whoever prices this network on machines: by what it is asked for.
    room : (5,)
        Rows of a `Stream`'s arrays that were enough so far.
    """

    layers: tuple[Layer, ...]
    chain: Chain
    runs: Runs
    sizes: Sizes
    pairs: _Ints
    names: _Ints
    memo: dict[object, object] = field(default_factory=dict)
    room: _Ints = field(default_factory=lambda: np.array([256, 2048, 4096, 256, 1024]))


@dataclass(eq=False)
class _Memory:
    """What is known of one graph."""

    reach: dict[tuple[str, int], tuple[_Ints, _Ints]] = field(default_factory=dict)
    runs: dict[object, tuple[Chain, Runs, _Ints]] = field(default_factory=dict)
    networks: dict[object, Network] = field(default_factory=dict)


_KNOWN: WeakKeyDictionary[Graph, _Memory] = WeakKeyDictionary()


def network(graph: Graph, arch: Arch) -> Network:
    """The network on machines of this shape, made once.

    Raises
    ------
    ScheduleError
        An operator rounds in a mode that the machine does not have.
    """
    memory = _KNOWN.setdefault(graph, _Memory())
    dwc = (arch.dwc.pixels, arch.dwc.rows, arch.dwc.taps, arch.banks) if arch.has_dwc else (arch.dwc.taps,)
    key = (arch.lanes, arch.conv.oc, arch.conv.pixels, arch.rounding, *dwc)
    if key not in memory.networks:
        layers = make_layers(graph, arch)
        maps = {t: n for n, t in enumerate(dict.fromkeys(t for s in layers for t in (*s.inputs, s.output)))}
        engines = tuple((s.name, s.output, -1 if s.engine is None else int(s.engine)) for s in layers)
        pixels = arch.conv.pixels
        if (engines, pixels) not in memory.runs:
            chain = _chain(graph, layers, maps, memory)
            steps = [step for step in range(1, pixels + 1) if pixels % step == 0]
            runs = Runs(*runs_of(chain, FUSE, np.array([1, *_COUNTS]), np.array(steps)))
            memory.runs[engines, pixels] = (chain, runs, _pairs(runs))
        chain, runs, pairs = memory.runs[engines, pixels]
        names = np.argsort(np.argsort(np.array(list(maps))))
        memory.networks[key] = Network(
            layers, chain, runs, _sizes(graph, arch, layers, maps, chain), pairs, names
        )
    return memory.networks[key]


def _chain(graph: Graph, layers: tuple[Layer, ...], maps: dict[str, int], memory: _Memory) -> Chain:
    first: list[_Ints] = []
    stop: list[_Ints] = []
    reach_ptr, at = [], 0
    last = np.full(len(maps), -1, np.int64)
    for n, layer in enumerate(layers):
        height = graph.tensors[layer.output].shape[0]
        for k, name in enumerate(layer.inputs):
            last[maps[name]] = n
            key = (layer.name, k)
            if key not in memory.reach:
                memory.reach[key] = layer.reach(k, height)
            reach_ptr.append(at)
            at += height
            first.append(memory.reach[key][0])
            stop.append(memory.reach[key][1])
    counts = [len(s.inputs) for s in layers]
    maker = {s.output: n for n, s in enumerate(layers)}

    def ints(values: object) -> _Ints:
        return np.ascontiguousarray(np.array(values, np.int64).ravel())

    return Chain(
        ints([-1 if s.engine is None else s.engine for s in layers]),
        ints([maps[s.output] for s in layers]),
        ints([0, *np.cumsum(counts)]),
        ints([maps[t] for s in layers for t in s.inputs]),
        ints([s.reduces for s in layers]),
        ints(reach_ptr),
        np.concatenate(first),
        np.concatenate(stop),
        ints([graph.tensors[t].shape[0] for t in maps]),
        ints([maker.get(t, -1) for t in maps]),
        last,
        ints([t in graph.outputs for t in maps]),
        ints([s.engine == Engine.VEC and isinstance(s.op, Add | Mul | Table | PRelu) for s in layers]),
        ints([follows(s, s.inputs) for s in layers]),
        ints([graph.tensors[t].shape[2] for t in maps]),
        *map(ints, zip(*(skips(s, graph) for s in layers), strict=True)),
    )


def _pairs(runs: Runs) -> _Ints:
    """Every layer and tile height that some strip has."""
    entry_run = np.repeat(np.arange(len(runs.run_entries) - 1), np.diff(runs.run_entries))
    begin = np.zeros(len(runs.run_entries) - 1, np.int64)  # first layer of a run
    for j, lengths in enumerate(runs.run_at):
        for n, run in enumerate(lengths):
            if run >= 0:
                begin[run] = j - n
    slots = len(runs.tiles) - 1
    layer = begin[np.repeat(entry_run, FUSE)] + np.tile(np.arange(FUSE), slots // FUSE)
    keys = np.repeat(layer, np.diff(runs.tiles)) << 32 | runs.tile
    keys = np.unique(keys)
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], 1)


def _sizes(graph: Graph, arch: Arch, layers: tuple[Layer, ...], maps: dict[str, int], chain: Chain) -> Sizes:
    lanes, oc = arch.lanes, arch.conv.oc
    table = np.full((len(maps), len(MAP)), -1, np.int64)
    maker = np.full(len(maps), -1, np.int64)
    readers: dict[str, list[Layer]] = {t: [] for t in maps}
    for n, layer in enumerate(layers):
        maker[maps[layer.output]] = n
        for t in dict.fromkeys(layer.inputs):
            readers[t].append(layer)
    for name, m in maps.items():
        h, w, c = graph.tensors[name].shape
        viewed = any(s.engine is None for s in readers[name]) or (
            maker[m] >= 0 and layers[maker[m]].engine is None
        )
        stays = maker[m] >= 0 and bool(readers[name]) and not viewed
        fold = (0, 0, 0, 0)
        if maker[m] < 0 and len(graph.consumers[name]) == 1 and len(readers[name]) == 1:
            reader = readers[name][0]
            if len(reader.parts) == 1 and reader.parts[0].step == (1, 1):
                found = fold_of(reader.parts[0], c, lanes)
                if found is not None:
                    stride = reader.parts[0].window.stride[1]
                    fold = (
                        found.words,
                        graph.tensors[reader.output].shape[1],
                        found.columns * c,
                        stride * c,
                    )
        table[m, :-1] = (h, w, c, blocks(c, lanes), *fold, int(name in graph.inputs), int(stays), int(viewed))
    _give_bits(table, maker, chain.last_reader)
    rows, parts, part_ptr = [], [], [0]
    head = parameter_words(lanes)
    for n, layer in enumerate(layers):
        array = deep = 0
        for part in layer.parts:
            o, kh, kw, _ = part.weight.shape
            source = maps[layer.inputs[part.source]]
            folded = int(table[source, MAP.index("fold")]) if not part.depthwise else 0
            lead = part.channels[0] % lanes
            inputs = folded or blocks(lead + part.channels[1] - part.channels[0], lanes)
            if layer.engine == Engine.DWC:
                record, count = int(depthwise_record(arch, kh, kw)), blocks(o, lanes)
                steps = record - -(-8 // arch.dwc.taps)
                size = lanes * (8 + (steps - 1) * arch.dwc.taps + tail_taps(arch.dwc.taps, kh, kw))
                deep, inputs = deep + count * record, 0
            else:
                taps = kh if folded else kh * kw
                if part.depthwise:
                    record, inputs, size = head + -(-taps // lanes), 0, oc * (8 + taps)
                else:
                    record, size = head + taps * inputs, oc * (8 + taps * inputs * lanes)
                count = blocks(o, oc)
                array += count * record
            win = part.window
            parts.append(
                (n, part.source, *part.channels, part.offset, o, kh, kw, *win.stride, *win.dilation, *win.pad[:2],
                 *part.step, *part.origin, int(part.depthwise), record, inputs, size, count, folded)
            )  # fmt: skip
        part_ptr.append(len(parts))
        rows.append((*_vector(layer, graph, lanes), array, deep))
    sizes = np.array(rows, np.int64).reshape(-1, len(LAYER))
    weight = (
        sizes[:, LAYER.index("array")] * lanes * oc + sizes[:, LAYER.index("deep")] * arch.dwc.taps * lanes
    )
    return Sizes(
        sizes,
        np.array(parts, np.int64).reshape(-1, len(PART)),
        np.array(part_ptr, np.int64),
        table,
        maker,
        weight,
    )


def _give_bits(table: _Ints, maker: _Ints, last_reader: _Ints) -> None:
    """Set `bit` of the maps that may stay: different for maps that live at the same time, or in one group of layers."""
    free = np.zeros(_BITS, np.int64)  # layer from which a bit can be given again
    for m in np.argsort(maker, kind="stable"):
        if table[m, MAP.index("may_stay")]:
            usable = np.flatnonzero(free <= maker[m])
            if len(usable):
                table[m, MAP.index("bit")] = usable[0]
                free[usable[0]] = last_reader[m] + FUSE + 1


def _vector(layer: Layer, graph: Graph, lanes: int) -> tuple[int, ...]:
    """Columns of LAYER up to `constants`, as `vector` writes them into an instruction."""
    op = layer.op
    func, kh, kw, sx, dx, broadcast, bilinear, table, constants = int(VecOp.TABLE), 1, 1, 1, 1, 0, 0, 0, 0
    h, w, c = graph.tensors[layer.output].shape
    if isinstance(op, Pool):
        func = int(VecOp.MAX if op.kind == "max" else VecOp.AVG)
        (kh, kw), sx, dx = op.window.kernel, op.window.stride[1] if w > 1 else 1, op.window.dilation[1]
        if op.kind != "max" and len(set(op.scale_words[1:])) > 1 and any(op.window.pad):
            constants = len(op.scale_words)
    elif isinstance(op, Add | Mul):
        func = int(VecOp.ADD if isinstance(op, Add) else VecOp.MUL)
        first, second = (graph.tensors[name].shape for name in op.inputs)
        broadcast = int(second[:2] == (1, 1) and first[:2] != (1, 1))
    elif isinstance(op, PRelu):
        func, constants = int(VecOp.PRELU), blocks(c, lanes) * lanes
    elif isinstance(op, Resize):
        func, bilinear, constants = int(VecOp.RESIZE), int(op.bilinear), h + w
    elif isinstance(op, Table):
        table = 1
    elif isinstance(op, Slice):
        sx = op.step[1]
    return func, kh, kw, sx, dx, broadcast, bilinear, table, int(layer.table is not None), constants
