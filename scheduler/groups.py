"""A group of the tiling IR, from the candidate that was chosen for its layers and the places of their maps."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.graph import Graph, Pool, PRelu, Resize, Table
from ..ir.tile import Group, Ring, Statement
from .candidates import Candidate
from .layers import Layer
from .strips import strip_driver

__all__ = ["group_of", "view_group"]


def group_of(graph: Graph, c: Candidate, rings: Mapping[str, Ring]) -> Group:
    """Statements of a candidate: every map is loaded before its first reader, and saved behind its maker."""
    body: list[Statement] = []
    loaded: set[str] = set()
    for layer in c.layers:
        for t in dict.fromkeys(layer.inputs):
            if t in c.loads and t not in loaded:
                loaded.add(t)
                shape = graph.tensors[t].shape
                body.append(Statement("load", t, shape, ring=rings[t], stage=c.strips.stage[t]))
        assert layer.engine is not None
        stage = c.strips.stage[layer.output]
        body.append(
            Statement(
                layer.engine.name.lower(), layer.output, graph.tensors[layer.output].shape, layer.name, layer.inputs,
                rings[layer.output], stage, c.chunk.get(layer.name, 0), _weights(c, layer),
            )
        )  # fmt: skip
        if layer.output in c.saves:
            body.append(Statement("save", layer.output, (0, 0, 0), stage=stage))
    name = c.layers[0].name if len(c.layers) == 1 else f"{c.layers[0].name} .. {c.layers[-1].name}"
    height = graph.tensors[strip_driver(c.layers)].shape[0]
    width = graph.tensors[c.layers[-1].output].shape[1]
    return Group(name, height, c.rows, width, c.cols, c.order, tuple(body))


def _weights(c: Candidate, layer: Layer) -> str:
    """How a layer's constants are held; empty where it has none."""
    if layer.parts:
        return "resident" if c.resident and c.strips.count > 1 else "stream"
    if isinstance(layer.op, Pool):
        return "" if layer.op.kind == "max" else "resident"
    return "resident" if isinstance(layer.op, Table | PRelu | Resize) else ""


def view_group(graph: Graph, layer: Layer) -> Group:
    """A layer that only renames a map in DRAM."""
    shape = graph.tensors[layer.output].shape
    statement = Statement("view", layer.output, shape, layer.name, layer.inputs)
    return Group(layer.name, shape[0], shape[0], shape[1], shape[1], "strips", (statement,))
