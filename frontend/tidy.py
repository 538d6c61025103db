"""Tidying a graph: tables that compose, and tables that are a clamp, disappear; every byte stays.

1. A table that is the only reader of a table: one table.
2. A table that only clamps, the only reader of an operator that clamps: a tighter clamp there.
3. A table that changes nothing: its reader reads its input.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.graph import Add, Conv, ConvTranspose, Graph, Mul, Op, Pool, PRelu, Table

__all__ = ["tidy"]


def tidy(graph: Graph) -> Graph:
    """The same graph with fewer tables; output maps keep their names."""
    while True:
        better = _once(graph)
        if better is None:
            return graph
        graph = better


def _once(graph: Graph) -> Graph | None:
    for table in graph.ops:
        if not isinstance(table, Table):
            continue
        source = table.inputs[0]
        before = graph.producer.get(source)
        if before is None or source in graph.outputs or len(graph.consumers[source]) != 1:
            continue
        if isinstance(before, Table):  # case 1
            values = tuple(table.values[v + 128] for v in before.values)
            return _joined(graph, before, table, replace(table, inputs=before.inputs, values=values))
        limits = _clamp(table) if graph.tensors[source].quant == graph.tensors[table.output].quant else None
        if limits is None or not isinstance(before, Conv | ConvTranspose | Add | Mul | Pool | PRelu):
            continue
        low, high = max(before.low, limits[0]), min(before.high, limits[1])
        if low <= high and not getattr(before, "moves", False):  # cases 2 and 3
            return _joined(graph, before, table, replace(before, output=table.output, low=low, high=high))
    return None


def _clamp(table: Table) -> tuple[int, int] | None:
    """Limits of a table that is ``clip(x, low, high)``, else None."""
    low, high = min(table.values), max(table.values)
    exact = all(v == min(max(q, low), high) for q, v in zip(range(-128, 128), table.values, strict=True))
    return (low, high) if exact else None


def _joined(graph: Graph, first: Op, second: Op, one: Op) -> Graph:
    """The graph with two neighbours replaced by one operator, at the second's place."""
    ops = tuple(one if op is second else op for op in graph.ops if op is not first)
    tensors = {n: t for n, t in graph.tensors.items() if n != first.output}
    return Graph(graph.name, tensors, ops, graph.inputs, graph.outputs)
