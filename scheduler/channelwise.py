"""Groups that go chunk by chunk over channels: convolutions, and behind them layers that keep channels apart.

Where maps and weights are both larger than their memories, a convolution makes some output channels at a time. An addition, a
pooling or a depthwise convolution behind it needs no others, so it follows at once, chunk by chunk, and the map between is
never whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..ir.arch import Arch
from ..ir.errors import ProgramError
from ..ir.graph import Add, Graph, Mul, Pool, PRelu, Table
from ..ir.isa import Engine
from ..ir.layout import blocks
from ..ir.tile import Group
from .layers import Layer
from .strips import Strips

__all__ = ["chunked_maps", "follows", "goes_by_chunks", "joins_chunks", "keeps_rows_apart", "maps_in_chunks"]


def goes_by_chunks(layers: tuple[Layer, ...], graph: Graph) -> bool:
    """Whether the layers can run chunk by chunk over the output channels of the first: whole convolutions of maps from outside,
    and layers that follow them."""
    return joins_chunks(layers, graph) and layers[-1].engine != Engine.CONV


def joins_chunks(layers: tuple[Layer, ...], graph: Graph) -> bool:
    """The same of layers that others may still join."""
    channels = graph.tensors[layers[0].output].shape[2]
    made: set[str] = set()
    for layer in layers:
        if layer.engine == Engine.CONV:
            fits = len(layer.parts) == 1 and made.isdisjoint(layer.inputs)
        else:
            fits = follows(layer, made) and all(graph.tensors[t].shape[2] == channels for t in layer.inputs)
        if not fits or graph.tensors[layer.output].shape[2] != channels:
            return False
        made.add(layer.output)
    return layers[0].engine == Engine.CONV


def follows(layer: Layer, made: Iterable[str]) -> bool:
    """Whether the layer reads one of these maps, and of every input only the channels that it makes."""
    if layer.engine == Engine.DWC:
        apart = len(layer.parts) == 1
    else:
        apart = layer.engine == Engine.VEC and isinstance(layer.op, (Add, Mul, PRelu, Pool, Table))
    return apart and not layer.reduces and not set(made).isdisjoint(layer.inputs)


def maps_in_chunks(layers: tuple[Layer, ...]) -> frozenset[str]:
    """Maps that come chunk by chunk: all that are made here, and what only layers that follow read."""
    made = {layer.output for layer in layers}
    whole = {t for layer in layers if layer.engine == Engine.CONV for t in layer.inputs}
    return frozenset(made | {t for layer in layers for t in layer.inputs} - whole)


def keeps_rows_apart(layers: tuple[Layer, ...], strips: Strips) -> bool:
    """Whether no layer that follows reads rows of a strip before its own: by then a ring has them no more.

    A chunk's place in a ring is taken by another chunk before the next strip comes.
    """
    chunked = maps_in_chunks(layers)
    for layer in layers:
        made = strips.need[layer.output]
        height = int(made[strips.count])
        for k, source in enumerate(layer.inputs):
            if source not in chunked:
                continue
            reads, _ = layer.reach(k, height)
            for strip in range(1, strips.count):
                if made[strip] < height and reads[made[strip]] < strips.need[source][strip]:
                    return False
    return True


def chunked_maps(group: Group, layers: tuple[Layer, ...], arch: Arch) -> frozenset[str]:
    """Maps of a tiling's group that come chunk by chunk, in either loop order; none where every ring holds all channels.

    Raises
    ------
    ProgramError
        Chunks differ, or a layer needs other channels than those of a chunk.
    """
    made = [s for s in group.statements if s.layer and s.ring is not None]
    cut = any(s.ring is not None and s.ring.blocks < blocks(s.shape[2], arch.lanes) for s in made)
    parts = [s for s in made if s.chunk]
    if not parts or not (cut or group.order == "chunks"):
        return frozenset()
    if len(made) > 1:
        size = parts[0].chunk
        chunk = {"conv": size, "dwc": size * arch.conv.oc // arch.lanes, "vec": 0}
        for s, layer in zip(made, layers, strict=True):
            before = {other.tensor for other in made[: made.index(s)]}
            inside = before.isdisjoint(layer.inputs) if s.kind == "conv" else follows(layer, before)
            if not inside or s.chunk != chunk.get(s.kind) or s.shape[2] != parts[0].shape[2]:
                raise ProgramError(
                    f"{group.name}: {layer.name} cannot go chunk by chunk with {parts[0].layer} (chunk {parts[0].chunk} of "
                    f"{parts[0].shape[2]} channels); give it a group of its own, or rings of all channels"
                )
    return maps_in_chunks(layers)
