"""Maps of which a convolution reads every other pixel: LOAD brings those alone.

A 1 x 1 convolution of stride 2, as on a residual shortcut, reads a quarter of its input. Where that input comes from DRAM
for it alone, rows that it skips stay there, and columns that it skips are dropped on the way: the ring holds the map as the
output sees it.
"""

from __future__ import annotations

from ..ir.graph import Conv, Graph
from ..ir.isa import Engine
from .layers import Layer

__all__ = ["loaded_skipping", "skips"]


def skips(layer: Layer, graph: Graph) -> tuple[int, int]:
    """Rows and columns of the layer's input from one that it reads to the next; (1, 1) where it reads them all."""
    op = layer.op
    if not isinstance(op, Conv) or layer.engine != Engine.CONV or op.groups > 1 or graph.frames > 1:
        return 1, 1
    return op.window.stride if op.window.kernel == (1, 1) and not any(op.window.pad) else (1, 1)


def loaded_skipping(layers: tuple[Layer, ...], tensor: str, graph: Graph) -> tuple[int, int]:
    """The same for a map that is loaded for these layers: (1, 1) where others read it, too."""
    readers = [layer for layer in layers if tensor in layer.inputs]
    return skips(readers[0], graph) if len(readers) == 1 else (1, 1)
