"""Runs of layers and the loops around them, wherever their maps are: what candidates of one loop nest share.

A run of layers is asked for with many sets of maps on chip around it. Strips, cycles and rings follow from the loops
alone, so they are made once a nest; a `Candidate` adds which of the rings are there, and what goes over the DRAM port.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ..ir.isa import Engine
from .layers import Layer
from .strips import Strips

__all__ = ["Homes", "Nest", "RingNeed", "Room", "Run", "Work"]


@dataclass(frozen=True, slots=True)
class RingNeed:
    """What a tensor's ring must be: columns stored, blocks, fewest rows and the rows that hide its producer."""

    width: int
    blocks: int
    rows: int
    slack: int
    fold: bool = False

    def words(self, rows: int) -> int:
        return rows * self.width * self.blocks


class Room(NamedTuple):
    """A row of a map on chip: columns stored, blocks, whether kernel columns are folded into words, or only pixels that are
    read are loaded; rows of the map from one that is loaded to the next."""

    width: int
    blocks: int
    fold: bool = False
    skip: int = 1

    def rows(self, height: int) -> int:
        """Rows that are loaded of so many."""
        return -(-height // self.skip)


class Homes(NamedTuple):
    """Where the maps of a run of layers are.

    Parameters
    ----------
    outputs : set of tensor
        Made here and wanted afterwards.
    kept : set of tensor
        Those of them that stay on chip.
    on_chip : set of tensor
        These, and sources that are on chip before.
    loads, saves : tuple of tensor
        Sources that come from DRAM, and outputs that go there.
    dying : set of tensor
        Sources on chip that are not read again.
    """

    outputs: Set[str]
    kept: Set[str]
    on_chip: Set[str]
    loads: tuple[str, ...]
    saves: tuple[str, ...]
    dying: Set[str]


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
class Run:
    """Layers that run together, and their maps: sources in the order of their readers, then outputs.

    Parameters
    ----------
    sources : tuple of tensor
    rows : dict of tensor to Room
        Whole rows, as they are loaded or made.
    row_words : dict of tensor to int
        Words of such a row.
    whole : dict of tensor to RingNeed
        Outputs that stay on chip.
    moves : dict of tensor to float
        Cycles that LOAD or SAVE takes for a whole map.
    size : dict of tensor to int
        Bytes in DRAM.
    """

    layers: tuple[Layer, ...]
    sources: tuple[str, ...]
    rows: dict[str, Room]
    row_words: dict[str, int]
    whole: dict[str, RingNeed]
    moves: dict[str, float]
    size: dict[str, int]

    @cached_property
    def ends(self) -> dict[str, tuple[Engine, tuple[Layer, ...]]]:
        """The engine that makes each map, and the layers that read it here."""
        made = {layer.output: layer.engine or Engine.LOAD for layer in self.layers}
        return {
            t: (made.get(t, Engine.LOAD), tuple(layer for layer in self.layers if t in layer.inputs))
            for t in self.rows
        }


@dataclass(frozen=True, eq=False, slots=True)
class Nest:
    """The loops around a run of layers: all of a candidate that does not depend on where maps are.

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
    room : dict of tensor to Room
    row_words : dict of tensor to int
        Words of such a row.
    words : dict of tensor to int
        Map words of the smallest ring of each map; `total` of all.
    wide : set of tensor
        Maps whose rings are larger than an operand may be.
    moves : dict of tensor to float
        Cycles that LOAD or SAVE takes for a whole map.
    loaded : dict of tensor to int
        Bytes that each map takes over the DRAM port if it is loaded.
    work : Work
    fill : float
        As of `Cost`.
    part : bool
        Output channels are made chunk by chunk, and rings hold a part of them.
    """

    run: Run
    rows: int
    cols: int
    order: str
    resident: bool
    chunk: dict[str, int]
    strips: Strips
    room: Mapping[str, Room]
    row_words: Mapping[str, int]
    words: Mapping[str, int]
    total: int
    wide: Set[str]
    moves: Mapping[str, float]
    loaded: Mapping[str, int]
    work: Work
    fill: float
    part: bool = False

    def ahead(self, tensor: str) -> int:
        """Map words of the ring of a map that does not stay, with room for its producer to run a strip ahead."""
        return self.room[tensor].rows(self.strips.slack[tensor]) * self.row_words[tensor]

    def ring(self, tensor: str) -> RingNeed:
        """The ring of a map that is loaded or made, and does not stay."""
        room, strips = self.room[tensor], self.strips
        rows, slack = room.rows(strips.ring[tensor]), room.rows(strips.slack[tensor])
        return RingNeed(room.width, room.blocks, rows, slack, room.fold)
