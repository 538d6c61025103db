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
    """Output channels are made chunk by chunk, and rings hold a part of them."""

    @classmethod
    def of_group(cls, group: Group, lanes: int) -> Way:
        array = [s for s in group.statements if s.kind in {"conv", "dwc"}]
        resident = group.strips > 1 and any(s.weights == "resident" for s in array)
        chunks = _chunks({s.layer: s.chunk for s in array})
        made = [(s.ring, s.shape) for s in group.statements if s.layer and s.ring is not None]
        part = any(ring.blocks < blocks(shape[2], lanes) for ring, shape in made)
        return cls(group.rows, group.cols, group.order, resident, chunks, part)

    @classmethod
    def of_candidate(cls, c: Candidate, graph: Graph, lanes: int) -> Way:
        array = {layer.name for layer in c.layers if layer.parts}
        resident = c.resident and c.strips.count > 1 and bool(array)
        chunks = _chunks({name: n for name, n in c.chunk.items() if name in array})
        made = [layer.output for layer in c.layers]
        part = any(c.rings[t].blocks < blocks(graph.tensors[t].shape[2], lanes) for t in made)
        return cls(c.rows, c.cols, c.order, resident, chunks, part)


def _chunks(chunk: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, n) for name, n in chunk.items() if n))
