"""Sizes of LOAD's byte stream, derived from the machine in one place.

Bytes come in *chunks*, pass through a ring of byte *lanes* (byte n of the stream lies in lane n % lanes), and leave as
*groups*: neighbouring map words, or a word of another memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..ir.arch import Arch
from ..ir.isa import FORMATS, Opcode

__all__ = ["StreamShape"]

_FOLD_MOST = next(f for f in FORMATS[Opcode.LOAD, None] if f.name == "fold").high


def _power(n: int) -> int:
    """The power of two at or above `n`."""
    return 1 << (n - 1).bit_length()


@dataclass(frozen=True)
class StreamShape:
    """Sizes of the stream of `arch`, in bytes where not said otherwise.

    >>> shape = StreamShape(Arch.preset("b4096"))
    >>> shape.chunk, shape.chunk_lanes, shape.lanes, shape.ring, shape.words, shape.group
    (32, 32, 64, 1024, 2, 256)
    """

    arch: Arch

    @property
    def chunk(self) -> int:
        """Most bytes taken out of a burst in a cycle."""
        return self.arch.stream_bytes

    @property
    def chunk_lanes(self) -> int:
        """Lanes that a chunk is rotated among."""
        return _power(self.chunk)

    @cached_property
    def lanes(self) -> int:
        """Lanes of the ring: all of a map word, or of what is left of a chunk and all of the next, can be read at once."""
        return _power(max(2 * self.chunk - 1, self.arch.lanes))

    @cached_property
    def ring(self) -> int:
        """Bytes of the stream that are kept: folded words reach back by as much as `fold` words."""
        back = max(_FOLD_MOST * self.arch.lanes, self.chunk)
        return _power(back + self.chunk + self.chunk_lanes)

    @property
    def words(self) -> int:
        """Most map words that are written in a cycle."""
        return min(self.arch.banks, -(-self.chunk // self.arch.lanes))

    @property
    def word_lanes(self) -> int:
        """Words that a group of map words is rotated among."""
        return _power(self.words)

    @property
    def map_group(self) -> int:
        """Bytes of a group of map words."""
        return self.words * self.arch.lanes

    @property
    def weight_word(self) -> int:
        return self.arch.conv.oc * self.arch.lanes

    @property
    def depthwise_word(self) -> int:
        """Bytes of a depthwise word; 0 without the engine."""
        return self.arch.dwc.taps * self.arch.lanes if self.arch.has_dwc else 0

    @property
    def group(self) -> int:
        """Bytes of the largest group."""
        return max(self.map_group, self.weight_word, self.depthwise_word, 4)
