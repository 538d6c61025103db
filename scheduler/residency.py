"""Constants that stay on chip while a group of layers runs: whether they fit at once, and in which pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..ir.arch import Arch
from ..ir.graph import Table
from .layers import Layer, Part

__all__ = ["resident_pieces", "tables_fit"]

_PIECES = 8
"""Constants of a group that hardly fit are cut into pieces of at most this part of their memory."""

Record = Callable[[Layer, Part], int]
"""Weight words of one output block of a part."""


def tables_fit(layers: tuple[Layer, ...], arch: Arch) -> bool:
    """All lookup tables of the layers at once, and the next one."""
    tables = sum(1 for layer in layers if layer.table is not None or isinstance(layer.op, Table))
    return tables < arch.weights.tables


def resident_pieces(
    layers: tuple[Layer, ...], words: Sequence[tuple[int, int]], record: Record, arch: Arch
) -> dict[str, int] | None:
    """Output blocks an instruction for layers whose constants are better cut, so that a wrap of the circular memories wastes
    less; None where the constants do not fit at once in any case.

    Parameters
    ----------
    words : sequence of (int, int)
        Words of the array's and of the depthwise engine's memory that each layer's constants take.
    """
    if not tables_fit(layers, arch):
        return None
    chunks: dict[str, int] = {}
    for axis, size in ((0, arch.weight_words), (1, arch.depthwise_words)):
        column = [w[axis] for w in words]
        if max(column) == 0 or sum(column) + max(column) <= size:
            continue
        largest = 0
        for layer, whole in zip(layers, column, strict=True):
            piece, count = _piece(layer, whole, size // _PIECES, record, arch)
            largest = max(largest, piece)
            if piece < whole:
                chunks[layer.name] = count
        if sum(column) + largest > size:
            return None
    return chunks


def _piece(layer: Layer, words: int, most: int, record: Record, arch: Arch) -> tuple[int, int]:
    """Words of a piece of a layer's constants, and its output blocks: whole map blocks, no more words than `most` if that can
    be."""
    if words <= most or len(layer.parts) != 1 or layer.parts[0].depthwise:
        return words, 0
    block = record(layer, layer.parts[0])
    step = arch.lanes // math.gcd(arch.lanes, arch.conv.oc)
    count = max(1, most // block // step) * step
    return min(words, count * block), count
