"""Candidates for a run of layers: strip height, loop order, residency of weights; footprint and cost of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..ir.isa import Engine
from .layers import Layer
from .nests import Homes, Nest, RingNeed, Work
from .strips import Strips

__all__ = ["Candidate", "Cost"]


class Cost(NamedTuple):
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


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """One way to run layers i..j-1 as a group: its loops, and where its maps are.

    Parameters
    ----------
    nest : Nest
    homes : Homes
    in_place : dict of tensor to tensor
        Maps that take over the words of one that is not read again.
    cost : Cost
    least_words : int
        Map words with the smallest rings, beside maps that are on chip already.
    """

    nest: Nest
    homes: Homes
    in_place: Mapping[str, str]
    cost: Cost
    least_words: int

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.nest.run.layers

    @property
    def rows(self) -> int:
        return self.nest.rows

    @property
    def cols(self) -> int:
        return self.nest.cols

    @property
    def order(self) -> str:
        return self.nest.order

    @property
    def resident(self) -> bool:
        return self.nest.resident

    @property
    def chunk(self) -> dict[str, int]:
        return self.nest.chunk

    @property
    def strips(self) -> Strips:
        return self.nest.strips

    @property
    def work(self) -> Work:
        return self.nest.work

    @property
    def loads(self) -> tuple[str, ...]:
        return self.homes.loads

    @property
    def saves(self) -> tuple[str, ...]:
        return self.homes.saves

    @property
    def dram_bytes(self) -> int:
        return self.cost.dram_bytes

    @property
    def rings(self) -> dict[str, RingNeed]:
        """Rings that this group itself makes or loads."""
        whole, kept = self.nest.run.whole, self.homes.kept
        return {t: whole[t] if t in kept else self.nest.ring(t) for t in self._maps()}

    def move(self, tensor: str) -> float:
        """Cycles that LOAD or SAVE takes for a whole map."""
        return (self.nest.run if tensor in self.homes.kept else self.nest).moves[tensor]

    @property
    def most_words(self) -> int:
        """Map words with rings that let every producer run a strip ahead."""
        return sum(self._ahead(t) for t in self._maps() if t not in self.in_place)

    def _maps(self) -> tuple[str, ...]:
        """Maps that this group itself loads or makes."""
        return (*self.loads, *self.nest.run.whole)

    def _ahead(self, tensor: str) -> int:
        """Words of a map's ring with room for its producer to run a strip ahead."""
        if tensor in self.homes.kept:
            need = self.nest.run.whole[tensor]
            return need.words(need.slack)
        return self.nest.ahead(tensor)

    def gain(self, tensor: str) -> float:
        """Cycles that a map's producer and its readers, on other engines, work at once if its ring has slack."""
        maker, readers = self.nest.run.ends[tensor]
        reading = sum(self.work.busy[layer.output] for layer in readers if layer.engine != maker)
        making = self.work.busy.get(tensor)
        return min(self.move(tensor) if making is None else making, reading)

    @property
    def sharing(self) -> tuple[tuple[int, float], ...]:
        """What wants map groups of its own, because other engines use the rest: words, and the cycles that it is used,
        most first."""
        kinds: dict[tuple[Engine, Engine | None], tuple[int, float]] = {}
        busy = self.work.busy
        for t in self._maps():
            if t in self.in_place:
                continue
            maker, readers = self.nest.run.ends[t]
            reading = max((busy[layer.output] for layer in readers), default=0.0)
            kind = maker, readers[0].engine if readers else None
            words, cycles = kinds.get(kind, (0, 0.0))
            made = busy[t] if t in busy else self.move(t)
            kinds[kind] = words + self._ahead(t), cycles + max(made, reading)
        return tuple(sorted(kinds.values(), key=lambda kind: -kind[1]))
