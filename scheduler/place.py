"""Where maps live: first fit into the map groups, away from ports that other engines use at the same time."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ir.arch import Arch
from ..ir.tile import Ring
from .candidates import RingNeed

__all__ = ["Floor", "Users", "Wanted", "place_group"]


@dataclass(frozen=True, slots=True)
class Users:
    """Engines that write and that read a map while its group runs (names as in `Engine`, and "save")."""

    writer: str
    readers: frozenset[str]

    def clashes(self, other: Users) -> int:
        """Pairs of engines that would want one port if both maps were in one map group."""
        reads = sum(a != b for a in self.readers for b in other.readers)
        return reads + (self.writer != other.writer)


@dataclass(slots=True)
class Wanted:
    """A ring to be placed: its need, who uses it, and the group index until which it lives."""

    tensor: str
    need: RingNeed
    users: Users
    until: int
    resident: bool


@dataclass(slots=True)
class _Live:
    base: int
    stop: int
    until: int
    users: Users
    tensor: str


@dataclass(slots=True)
class Floor:
    """Map memory as the groups go by: what is alive in each map group."""

    arch: Arch
    live: list[list[_Live]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.live = [[] for _ in range(self.arch.maps.groups)]

    def retire(self, now: int) -> None:
        """Forget maps whose last reader lies before group `now`."""
        self.live = [[a for a in group if a.until >= now] for group in self.live]

    def gap(self, group: int, words: int) -> int | None:
        """First base with `words` free words."""
        at = 0
        for a in sorted(self.live[group], key=lambda a: a.base):
            if a.base - at >= words:
                return at
            at = max(at, a.stop)
        return at if self.arch.group_words - at >= words else None

    def put(self, wanted: Wanted, rows: int) -> Ring | None:
        """Place a ring of this many rows where it clashes least; None where no group has room."""
        words = wanted.need.words(rows)
        best: tuple[int, int, int, int] | None = None
        for group in range(self.arch.maps.groups):
            base = self.gap(group, words)
            if base is None:
                continue
            clash = sum(wanted.users.clashes(a.users) for a in self.live[group])
            fill = sum(a.stop - a.base for a in self.live[group])
            key = (clash, -fill if wanted.resident else fill, group, base)
            if best is None or key < best:
                best = key
        if best is None:
            return None
        _, _, group, base = best
        self.live[group].append(_Live(base, base + words, wanted.until, wanted.users, wanted.tensor))
        n = wanted.need
        return Ring(group, base, rows, n.width, n.width, n.blocks, n.fold)


def place_group(floor: Floor, wanted: list[Wanted]) -> dict[str, Ring] | None:
    """Rings for all maps that a group makes or loads, with slack where there is room; None where they do not fit."""
    order = sorted(wanted, key=lambda w: (-w.need.words(w.need.rows), w.tensor))
    saved = [list(group) for group in floor.live]
    for generous in (len(order), *range(len(order) - 1, -1, -1)):
        # The first `generous` of the smaller rings get slack; the largest give it up first.
        rings: dict[str, Ring] = {}
        for i, w in enumerate(order):
            rows = w.need.slack if len(order) - i <= generous else w.need.rows
            ring = floor.put(w, rows)
            if ring is None:
                break
            rings[w.tensor] = ring
        if len(rings) == len(order):
            return rings
        floor.live = [list(group) for group in saved]
    return None
