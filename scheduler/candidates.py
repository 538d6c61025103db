"""Candidates for a run of layers: strip height, loop order, residency of weights; footprint and cost of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..ir.isa import Engine
from .layers import Layer
from .strips import Strips

__all__ = ["Candidate", "Cost", "RingNeed", "Work"]


@dataclass(frozen=True, slots=True)
class RingNeed:
    """What a tensor's ring must be: columns stored, blocks, fewest rows and the rows that hide its producer.

    `fold`: words are folded, or only pixels that are read are loaded, of one in `skip` rows.
    """

    width: int
    blocks: int
    rows: int
    slack: int
    fold: bool = False
    skip: int = 1

    def words(self, rows: int) -> int:
        return rows * self.width * self.blocks


@dataclass(frozen=True, slots=True)
class Cost:
    """What a candidate takes.

    Parameters
    ----------
    busiest, engines : float
        Busy cycles of the busiest engine, and of all together.
    fill : float
        Cycles until the busiest engine has its first work, and after its last.
    dram_bytes : int
        All bytes over the DRAM port.
    weight_bytes : int
        Those that are constants.
    first_bytes : int
        Constants without which the first instruction cannot run.
    held_bytes : int
        Constants that stay in their memories until the group ends.
    """

    busiest: float = 0.0
    engines: float = 0.0
    fill: float = 0.0
    dram_bytes: int = 0
    weight_bytes: int = 0
    first_bytes: int = 0
    held_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """What a group's layers do for a strip height and a way to hold their constants, wherever its maps are.

    Parameters
    ----------
    busy : dict of tensor to float
        Cycles that each layer keeps its engine busy, by its output.
    busiest, engines : float
        Cycles of the busiest compute engine, and of all together.
    kinds : int
        Compute engines.
    weight_bytes, first_bytes, held_bytes : int
        As of `Cost`.
    passes : int
        Times that inputs are gone through.
    """

    busy: dict[str, float]
    busiest: float
    engines: float
    kinds: int
    weight_bytes: int
    first_bytes: int
    held_bytes: int
    passes: int


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to run layers i..j-1 as a group.

    Parameters
    ----------
    rows, cols : int
        Strip height and tile width of the last output.
    order : str
        "strips" or "chunks".
    resident : bool
        Weights stay for the whole group.
    chunk : dict of layer name to int
    strips : Strips
    rings : dict of tensor to RingNeed
        Rings that this group itself makes or loads.
    loads, saves : tuple of str
    in_place : dict of tensor to tensor
        Maps that take over the words of one that is not read again.
    cost : Cost
    work : Work
    moves : dict of tensor to float
        Cycles that LOAD or SAVE takes for a whole map, for each ring.
    """

    layers: tuple[Layer, ...]
    rows: int
    cols: int
    order: str
    resident: bool
    chunk: dict[str, int]
    strips: Strips
    rings: dict[str, RingNeed]
    loads: tuple[str, ...]
    saves: tuple[str, ...]
    in_place: dict[str, str]
    cost: Cost
    work: Work
    moves: dict[str, float]

    @property
    def dram_bytes(self) -> int:
        return self.cost.dram_bytes

    @cached_property
    def most_words(self) -> int:
        """Map words with rings that let every producer run a strip ahead."""
        return sum(r.words(r.slack) for t, r in self.rings.items() if t not in self.in_place)

    def _ends(self, tensor: str) -> tuple[Engine, list[Layer]]:
        """The engine that makes a map here, and the layers that read it."""
        maker = next((layer.engine for layer in self.layers if layer.output == tensor), None)
        return maker or Engine.LOAD, [layer for layer in self.layers if tensor in layer.inputs]

    def gain(self, tensor: str) -> float:
        """Cycles that a map's producer and its readers, on other engines, work at once if its ring has slack."""
        maker, readers = self._ends(tensor)
        reading = sum(self.work.busy[layer.output] for layer in readers if layer.engine != maker)
        return min(self.work.busy.get(tensor, self.moves[tensor]), reading)

    @cached_property
    def sharing(self) -> tuple[tuple[int, float], ...]:
        """What wants map groups of its own, because other engines use the rest: words, and the cycles that it is used,
        most first."""
        kinds: dict[tuple[Engine, Engine | None], tuple[int, float]] = {}
        for t, ring in self.rings.items():
            if t in self.in_place:
                continue
            maker, readers = self._ends(t)
            reading = max((self.work.busy[layer.output] for layer in readers), default=0.0)
            kind = maker, readers[0].engine if readers else None
            words, cycles = kinds.get(kind, (0, 0.0))
            made = self.work.busy.get(t, self.moves[t])
            kinds[kind] = words + ring.words(ring.slack), cycles + max(made, reading)
        return tuple(sorted(kinds.values(), key=lambda kind: -kind[1]))

    @cached_property
    def least_words(self) -> int:
        """Map words with the smallest rings, beside maps that are on chip already."""
        return sum(r.words(r.rows) for t, r in self.rings.items() if t not in self.in_place)
