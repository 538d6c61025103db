"""Lowering: ONNX nodes become layers on maps, or stay with the host for a stated reason.

Three ideas carry it. A tensor is a *view* of a stored map, so that reshapes and transposes are free until an operator
needs another order (`views`). A *chain* of elementwise nodes with one root is one table, or a clamp in its producer
(`elementwise`). What the host makes, or the user feeds, is stored in whatever order its first reader wants, since the
border copies it anyway.

What each ONNX operator becomes is in the tables of the `lower_*` files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import MAX_CHANNELS, MAX_EXTENT, Quant, Shape
from .chains import REAL_TYPES, Chains, find_chains
from .elementwise import affine_clamp
from .fold import fold_clamp, scale_linear
from .layers import OPEN, Layer, Linear, Recast, Unary
from .moves import move
from .network import Network, Node
from .views import Unmapped, View, channels_first, channels_last

__all__ = ["Handler", "Lowered", "Lowering", "Reason", "Source", "axis_of", "groups_of", "renumber"]

Groups = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
Reason = tuple[str, str]
Handler = Callable[["Lowering", Node], str]
"""Lowers one node, and returns a note of what it became."""


@dataclass(frozen=True, slots=True)
class Source:
    """A map filled at the border: the ONNX tensor it comes from, and the order it is read in."""

    tensor: str
    view: View


@dataclass(frozen=True, eq=False)
class Lowered:
    """Layers in topological order, and everything the host keeps.

    Parameters
    ----------
    layers : tuple of Layer
    shapes : dict of map name to (H, W, C)
    views : dict of ONNX tensor name to View
        Of tensors that live in a map.
    sources : dict of map name to Source
        Maps that are filled from network inputs or host results.
    host : dict of node name to (reason, help)
    notes : dict of node name to what it became
    quants : dict of map name to Quant
        What an already quantised model says.
    """

    layers: tuple[Layer, ...]
    shapes: Mapping[str, Shape]
    views: Mapping[str, View]
    sources: Mapping[str, Source]
    host: Mapping[str, Reason]
    notes: Mapping[str, str]
    quants: Mapping[str, Quant]


@dataclass(eq=False)
class Lowering:
    """One pass; the verbs that operators use are `dense`, `emit`, `place`, `affine` and `sole`."""

    network: Network
    host: Mapping[str, Reason]
    memo: dict[Any, Any] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    failed: dict[str, Reason] = field(default_factory=dict)
    quants: dict[str, Quant] = field(default_factory=dict)
    chains: Chains = field(init=False)
    moved: dict[Any, str] = field(default_factory=dict)

    # -- the pass ---------------------------------------------------------------------------------

    def run(self, handlers: Mapping[str, Handler]) -> Lowered:
        """Lower the nodes in order; `handlers` says by operator what a node becomes."""
        self.chains = find_chains(self.network, self.host)
        for node in self.network.nodes:
            if node.name in self.host:
                continue
            try:
                self._lower_node(node, handlers)
            except Unmapped as why:
                self.failed[node.name] = (why.reason, why.help)
                for name in node.outputs:
                    self.views.pop(name, None)
        self._claim_border_views()
        host = {**self.host, **self.failed}
        quants = {**{n: q for n, q in self.network.quants.items() if n in self.shapes}, **self.quants}
        for name, source in self.sources.items():
            if source.tensor in self.network.quants:
                quants[name] = self.network.quants[source.tensor]
        return Lowered(
            tuple(self.layers.values()), self.shapes, self.views, self.sources, host, self.notes, quants
        )

    def _lower_node(self, node: Node, handlers: Mapping[str, Handler]) -> None:
        out = node.outputs[0] if node.outputs else ""
        if out in self.chains:
            self.notes[node.name] = "a step of a table"
            if out in self.chains.stored:
                self._materialise(out, node)
            return
        handler = handlers.get(node.op)
        if handler is None or node.captured:
            raise Unmapped(
                *HOST_ONLY.get(node.op, (f"the DPU has no {node.op}", "it runs on the host, in onnxruntime"))
            )
        for name in (n for n in (*node.inputs, *node.outputs) if n and n not in self.network.constants):
            shape = self.network.shapes.get(name)
            if shape is None:
                raise Unmapped(
                    f"the shape of {name} is known only when the network runs", "export with static shapes"
                )
            if min(shape, default=1) < 1:
                raise Unmapped(f"{name} is empty")
        kind = self.network.types.get(out, 1)
        if kind not in REAL_TYPES:
            raise Unmapped("computes on integers", "it runs on the host")
        self.notes[node.name] = handler(self, node)

    def _claim_border_views(self) -> None:
        """View nodes whose data never enters a map belong to the host where the host reads them."""
        for node in self.network.nodes:
            out = node.outputs[0] if node.outputs else ""
            if (
                node.name in self.host
                or node.name in self.failed
                or out not in self.views
                or not self._virtual(self.views[out])
            ):
                continue
            readers = self.network.consumers.get(out, ())
            if out in self.network.output_names or any(
                r.name in self.host or r.name in self.failed for r in readers
            ):
                self.failed[node.name] = ("a view of what the host makes", "it costs nothing")

    # -- chains of elementwise nodes --------------------------------------------------------------------

    def _materialise(self, name: str, node: Node) -> None:
        """Store the end of a chain: a clamp of its producer where that is the same, else a table."""
        root = self.chains.root(name)
        steps, nodes = self.chains.steps(name)
        view = self.view(root)
        names = tuple(n.name for n in nodes)
        folded = affine_clamp(steps, root)
        producer = self.layers.get(view.storage)
        if folded and self.chains.sole(name) and producer is not None and producer.output == root:
            layer = fold_clamp(producer, folded)
            if layer is not None:
                self.replace(producer, replace(layer, output=name, nodes=(*producer.nodes, *names)), name)
                self.views[name] = View(name, view.axes)
                self.notes.update(dict.fromkeys(names, f"folded into {producer.name}"))
                return
        if self._virtual(view):
            storage, view = self._settle(root, view)
        else:
            storage = view.storage
        self.emit(Unary(node.name, (storage,), name, names, root, steps), self.shapes[storage])
        self.views[name] = View(name, view.axes)
        self.notes.update(dict.fromkeys(names, "a table"))

    # -- verbs for operators --------------------------------------------------------------------------

    def constant(self, name: str) -> NDArray[Any] | None:
        return self.network.constants.get(name)

    def ints(self, node: Node, key: str, slot: int) -> list[int] | None:
        """A list that is an attribute in old opsets and an input in new ones."""
        if key in node.attributes:
            value = node.attributes[key]
            return [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
        if slot < len(node.inputs) and node.inputs[slot]:
            constant = self.constant(node.inputs[slot])
            if constant is None:
                raise Unmapped(f"its {key} are computed by the network", "export with constant sizes")
            return [int(v) for v in constant.reshape(-1)]
        return None

    def shape(self, name: str) -> tuple[int, ...]:
        return self.network.shapes[name]

    def sole(self, name: str) -> bool:
        """Whether a tensor has one reader, so that its producer may change what it stores."""
        return (
            len(self.network.consumers.get(name, ())) == 1
            and name not in self.network.output_names
            and name not in self.network.quants
        )

    def view(self, name: str) -> View:
        """Where a tensor lives; what no layer made is virtual until its first reader decides its order."""
        if name not in self.views:
            if name in self.network.constants:
                raise Unmapped(
                    f"{name} is a constant map", "fold it into the weights, or leave it to the host"
                )
            shape, axes, stride = self.shape(name), [], prod(self.shape(name))
            for extent in shape:
                stride //= extent
                axes.append(((extent, stride),) if extent > 1 else ())
            self.views[name] = View("@" + name, tuple(axes))
        return self.views[name]

    def _virtual(self, view: View) -> bool:
        return view.storage.startswith("@")

    def emit(self, layer: Layer, shape: Shape) -> str:
        """Add a layer; returns its map."""
        if max(shape[:2]) > MAX_EXTENT or shape[2] > MAX_CHANNELS or min(shape) < 1:
            raise Unmapped(
                f"a map of {shape} is beyond the DPU's {MAX_EXTENT} x {MAX_EXTENT} x {MAX_CHANNELS}"
            )
        self.layers[layer.output] = layer
        self.shapes[layer.output] = shape
        return layer.output

    def replace(self, old: Layer, new: Layer, tensor: str) -> None:
        """Put a layer in another's place, in order; its output is now `tensor`."""
        shape = self.shapes.pop(old.output)
        self.layers = {
            (tensor if k == old.output else k): (new if k == old.output else v)
            for k, v in self.layers.items()
        }
        self.shapes[tensor] = shape
        self.views.pop(old.output, None)

    def place(self, tensor: str, storage: str, groups: Groups) -> None:
        """Say that an ONNX tensor is stored in a map: logical axes `groups` make up H, W and C."""
        logical, shape = self.shape(tensor), self.shapes[storage]
        placed: list[tuple[tuple[int, int], ...]] = [()] * len(logical)
        for group, pitch in zip(groups, (shape[1] * shape[2], shape[2], 1), strict=True):
            stride = pitch
            for a in reversed(group):
                placed[a] = ((logical[a], stride),) if logical[a] > 1 else ()
                stride *= logical[a]
        view = View(storage, tuple(placed))
        mine, asked = self.network.quants.get(storage), self.network.quants.get(tensor)
        if asked is not None and tensor != storage and mine != asked and mine is None:
            self.quants[storage] = asked
        self.views[tensor] = view

    def alias(self, tensor: str, source: str, view: View) -> None:
        """A view node: the same map, another logical shape; a rescale where the model wants another scale."""
        asked = self.network.quants.get(tensor)
        if (
            asked is not None
            and self._virtual(view)
            and self.network.quants.get(view.storage[1:], asked) != asked
        ):
            raise Unmapped("quantises what the border fills in a second way", "it costs the host one pass")
        if asked is not None and not self._virtual(view):
            have = self.quants.get(view.storage, self.network.quants.get(view.storage))
            if have is None and self.sole(source) and view.storage in self.layers:
                self.quants[view.storage] = asked
            elif have != asked:
                node = self.network.producer[tensor]
                self.emit(
                    Unary(node.name, (view.storage,), tensor, (node.name,), view.storage, ()),
                    self.shapes[view.storage],
                )
                view = View(tensor, view.axes)
        self.views[tensor] = view

    def layout(self, tensor: str) -> Groups:
        """The map order in which a tensor needs no movement: channels first, else last, else first."""
        view = self.view(tensor)
        if self._virtual(view):
            return groups_of(self._wanted(tensor), self.shape(tensor))
        for order in (channels_first, channels_last):
            groups = groups_of(order, self.shape(tensor))
            if _regroup(view, groups).order in {((prod(self.shape(tensor)), 1),), ()}:
                shape = _extents(self.shape(tensor), groups)
                if shape[2] == self.shapes[view.storage][2]:
                    return groups
        return groups_of(channels_first, self.shape(tensor))

    def _wanted(self, tensor: str) -> Any:
        """Order that the readers of a border tensor will want: matrix products want the last axis as channels."""
        frontier, seen = [tensor], 0
        while frontier and seen < 16:
            seen += 1
            for reader in self.network.consumers.get(frontier.pop(0), ()):
                if reader.op in {"MatMul", "LayerNormalization"}:
                    return channels_last
                if reader.op in {
                    "Conv",
                    "ConvTranspose",
                    "MaxPool",
                    "AveragePool",
                    "Transpose",
                    "BatchNormalization",
                }:
                    return channels_first
                frontier += [o for o in reader.outputs if o]
        return channels_first

    def _settle(self, tensor: str, view: View) -> tuple[str, View]:
        """Give a virtual tensor a map in the order its readers want."""
        groups = groups_of(self._wanted(tensor), self.shape(tensor))
        storage = self.dense(tensor, groups)
        del view
        self.place(tensor, storage, groups)
        return storage, self.views[tensor]

    def dense(self, tensor: str, groups: Groups | None = None) -> str:
        """The map that stores a tensor with these logical axes as H, W and C, moving data where it must."""
        logical = self.shape(tensor)
        if groups is None:
            groups = groups_of(channels_first, logical)
        view, shape = self.view(tensor), _extents(logical, groups)
        if max(shape[:2]) > MAX_EXTENT or shape[2] > MAX_CHANNELS:
            raise Unmapped(
                f"a map of {shape} is beyond the DPU's {MAX_EXTENT} x {MAX_EXTENT} x {MAX_CHANNELS}"
            )
        hwc = _regroup(view, groups)
        key = (view.storage, hwc.order, shape)
        if key in self.moved:
            return self.moved[key]
        if self._virtual(view):
            base = view.storage[1:]
            name = (
                base
                if base not in self.shapes
                else f"{base}/{sum(s.tensor == base for s in self.sources.values())}"
            )
            self.sources[name] = Source(base, hwc)
            self.shapes[name] = shape
        elif hwc.order in {((prod(shape), 1),), ()} and shape[2] == self.shapes[view.storage][2]:
            name = view.storage
            if shape != self.shapes[name]:
                name = self.emit(Recast(f"{tensor}/recast", (name,), f"{tensor}/recast", (), shape), shape)
                self._inherit(name, view.storage)
        else:
            layer = move(self._free(f"{tensor}/move"), view.storage, self.shapes[view.storage], hwc, shape)
            name = self.emit(layer, shape)
            self._inherit(name, view.storage)
        self.moved[key] = name
        return name

    def _inherit(self, name: str, source: str) -> None:
        quant = self.quants.get(source, self.network.quants.get(source))
        if quant is not None:
            self.quants[name] = quant

    def _free(self, name: str) -> str:
        """A map name that is not taken yet."""
        free, n = name, 1
        while free in self.shapes:
            free, n = f"{name}{n}", n + 1
        return free

    def affine(self, node: Node, tensor: str, scale: NDArray[Any], shift: NDArray[Any], channel: int) -> str:
        """``tensor * scale + shift`` per channel (logical axis `channel`): folded into the producer, or a 1x1 depthwise layer."""
        out, logical = node.outputs[0], self.shape(tensor)
        order = channels_first if channel == 1 or channel != len(logical) - 1 else channels_last
        groups = groups_of(order, logical)
        view = self.view(tensor)
        producer = self.layers.get(view.storage)
        ready = not self._virtual(view) and self.dense(tensor, groups) == view.storage
        if (
            isinstance(producer, Linear)
            and ready
            and self.sole(tensor)
            and producer.output == tensor
            and producer.clamp == OPEN
            and not producer.moves
        ):
            folded = scale_linear(producer, scale, shift)
            self.replace(producer, replace(folded, output=out, nodes=(*producer.nodes, node.name)), out)
            self.views[out] = View(out, view.axes)
            return f"folded into {producer.name}"
        storage = self.dense(tensor, groups)
        channels = self.shapes[storage][2]
        weight = np.broadcast_to(scale, (channels,)).astype(np.float64).reshape(channels, 1, 1, 1)
        bias = np.broadcast_to(shift, (channels,)).astype(np.float64)
        self.emit(
            Linear(node.name, (storage,), out, (node.name,), weight, bias, groups=channels),
            self.shapes[storage],
        )
        self.place(out, out, groups)
        return "a 1x1 depthwise convolution"


def groups_of(order: Any, logical: Sequence[int]) -> Groups:
    """Logical axes of H, W and C under `channels_first` or `channels_last`; leading ones join H."""
    _, axes = order(logical)
    used = {a for a in axes if a is not None}
    rest = tuple(i for i in range(len(logical)) if i not in used)
    h, w, c = ((a,) if a is not None else () for a in axes)
    return (*(rest + h,), w, c)


def axis_of(groups: Groups, axis: int, logical: tuple[int, ...]) -> int:
    """Whether a logical axis is the map's H, W or C (0, 1, 2)."""
    for i, group in enumerate(groups):
        if axis in group and all(logical[a] == 1 for a in group if a != axis):
            return i
    raise Unmapped(
        f"works along axis {axis} of {list(logical)}", "keep to one frame, channels, rows or columns"
    )


def renumber(groups: Groups, position: Mapping[int, int]) -> Groups:
    """The groups after logical axes moved to other positions, or vanished."""
    h, w, c = (tuple(position[a] for a in group if a in position) for group in groups)
    return h, w, c


def _extents(logical: Sequence[int], groups: Groups) -> Shape:
    h, w, c = (prod(logical[a] for a in group) for group in groups)
    return h, w, c


def _regroup(view: View, groups: Groups) -> View:
    """The view with its factors grouped as H, W and C."""
    return View(view.storage, tuple(tuple(f for a in group for f in view.axes[a]) for group in groups))


_RUNS_THERE = "it runs on the host, in onnxruntime"
HOST_ONLY: Mapping[str, Reason] = {
    "Softmax": (
        "an exponential over a sum is no 8-bit operation of the DPU",
        _RUNS_THERE + "; a final Softmax can be left out: it does not change the order",
    ),
    "LayerNormalization": ("normalisation over channels needs more than 8 bits", _RUNS_THERE),
    "LRN": (
        "normalisation over neighbouring channels needs more than 8 bits",
        _RUNS_THERE + "; use batch normalisation, which folds away",
    ),
    "NonMaxSuppression": ("sorting is no DPU operation", _RUNS_THERE),
    "TopK": ("sorting is no DPU operation", _RUNS_THERE),
    "LSTM": ("recurrence is no DPU operation", _RUNS_THERE),
    "GRU": ("recurrence is no DPU operation", _RUNS_THERE),
    "If": ("control flow is no DPU operation", _RUNS_THERE),
    "Loop": ("control flow is no DPU operation", _RUNS_THERE),
}
