"""How a group of layers runs, told apart from where its maps lie: what groups and candidates have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.graph import Graph
from ..ir.layout import blocks
from ..ir.tile import Group
from .candidates import Candidate

__all__ = ["Way"]


@dataclass(frozen=True, slots=True)
class Way:
    """How a group runs: strip height, tile width, loop order, weights that stay, and blocks an instruction of each layer."""

    rows: int
    cols: int
    order: str
    resident: bool
    chunks: tuple[tuple[str, int], ...]
    part: bool = False
    """The output goes to DRAM chunk by chunk, and its ring holds a part of the channels."""

    @classmethod
    def of_group(cls, group: Group, lanes: int) -> Way:
        array = [s for s in group.statements if s.kind in {"conv", "dwc"}]
        resident = group.strips > 1 and any(s.weights == "resident" for s in array)
        chunks = _chunks({s.layer: s.chunk for s in array})
        last = next(s for s in reversed(group.statements) if s.layer)
        part = last.ring is not None and last.ring.blocks < blocks(last.shape[2], lanes)
        return cls(group.rows, group.cols, group.order, resident, chunks, part)

    @classmethod
    def of_candidate(cls, c: Candidate, graph: Graph, lanes: int) -> Way:
        array = {layer.name for layer in c.layers if layer.parts}
        resident = c.resident and c.strips.count > 1 and bool(array)
        chunks = _chunks({name: n for name, n in c.chunk.items() if name in array})
        output = c.layers[-1].output
        part = c.rings[output].blocks < blocks(graph.tensors[output].shape[2], lanes)
        return cls(c.rows, c.cols, c.order, resident, chunks, part)


def _chunks(chunk: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, n) for name, n in chunk.items() if n))
