"""Where maps live: in the map memory, without leaving gaps that nothing fits, away from ports that others use.

Maps that stay on chip between groups of layers are placed first, all of them, since it is known when each begins and
ends: the largest first, where the least is lost of the longest gap at any time. Then each group of layers places its
rings in what is left, in map groups whose ports no other engine wants at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..ir.arch import Arch
from ..ir.isa import Engine
from ..ir.tile import Ring
from .nests import RingNeed

__all__ = ["Floor", "Users", "Wanted"]

_SWEEPS = 3
"""Times that every ring of a group may move to a better place."""


@dataclass(frozen=True, slots=True)
class Users:
    """Engines that write and that read a map while its group runs, each with the cycles that it does so."""

    writes: tuple[tuple[Engine, float], ...]
    reads: tuple[tuple[Engine, float], ...]

    def clashes(self, other: Users) -> float:
        """Cycles that engines would wait for each other if both maps were in one map group, at most."""
        pairs = ((self.writes, other.writes), (self.reads, other.reads))
        return sum(min(s, t) for mine, theirs in pairs for a, s in mine for b, t in theirs if a != b)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A ring to be placed.

    Parameters
    ----------
    need : RingNeed
    users : Users
    first, last : int
        Groups of layers during which it lives.
    gain : float
        Cycles that its producer and its readers work at once if it has slack.
    """

    tensor: str
    need: RingNeed
    users: Users
    first: int
    last: int
    gain: float = 0.0


@dataclass(frozen=True, slots=True)
class _Place:
    """Words base..stop-1, counted from the first map group, during groups of layers first..last."""

    base: int
    stop: int
    first: int
    last: int
    users: Users
    tensor: str


Words = tuple[int, int]


@dataclass(slots=True)
class Floor:
    """The map memory over time."""

    arch: Arch
    places: list[_Place] = field(default_factory=list)

    def settle(self, residents: Iterable[Wanted]) -> str | None:
        """Place maps that stay; the tensor that finds no place, or None."""
        order = sorted(residents, key=lambda w: (-w.need.words(w.need.rows), w.first, w.tensor))
        for w in order:
            words = w.need.words(w.need.rows)
            others = [p for p in self.places if p.first <= w.last and p.last >= w.first]
            best: tuple[tuple[float, ...], int] | None = None
            for base in self._bases(_gaps(self.arch, others), words):
                lost = 0
                for edge in sorted({w.first, *(p.first for p in others if p.first > w.first)}):
                    now = [(p.base, p.stop) for p in others if p.first <= edge <= p.last]
                    lost -= max(_longest(self.arch, [*now, (base, base + words)]), 0)
                key = (lost, *self._ports(base, words, w.users, others), base)
                if best is None or key < best[0]:
                    best = key, base
            if best is None:
                return w.tensor
            self.places.append(_Place(best[1], best[1] + words, w.first, w.last, w.users, w.tensor))
        return None

    def rings(self, now: int, wanted: Sequence[Wanted]) -> tuple[dict[str, Ring], float] | None:
        """Rings of one group of layers, with slack where there is room, and the cycles that engines may wait for what is
        missing; None where they do not fit."""
        stay = [p for p in self.places if p.first <= now <= p.last]
        order = sorted(wanted, key=lambda w: (-w.need.words(w.need.rows), w.tensor))
        worth = sorted((w for w in wanted if w.need.slack > w.need.rows), key=_worth)
        for poor in range(len(worth) + 1):
            plain = {w.tensor for w in worth[:poor]}  # those give up their slack that lose least by it
            here = list(stay)
            for w in order:
                rows = w.need.rows if w.tensor in plain else w.need.slack
                base = self._best(w, w.need.words(rows), here)
                if base is None:
                    break
                here.append(_Place(base, base + w.need.words(rows), now, now, w.users, w.tensor))
            if len(here) == len(stay) + len(order):
                mine = self._apart(now, order, here[len(stay) :], stay)
                waits = self._waits(mine, stay) + sum(w.gain for w in worth[:poor])
                return {w.tensor: self._ring(p, w.need) for w, p in zip(order, mine, strict=True)}, waits
        return None

    def _apart(
        self, now: int, order: Sequence[Wanted], mine: list[_Place], stay: list[_Place]
    ) -> list[_Place]:
        """Rings that fit, moved one by one to where they clash less."""
        for _ in range(_SWEEPS):
            before = [p.base for p in mine]
            for i, w in enumerate(order):
                words, others = mine[i].stop - mine[i].base, [*stay, *mine[:i], *mine[i + 1 :]]
                base = self._best(w, words, others)
                assert base is not None  # where it was
                mine[i] = _Place(base, base + words, now, now, w.users, w.tensor)
            if before == [p.base for p in mine]:
                break
        return mine

    def _waits(self, mine: list[_Place], stay: list[_Place]) -> float:
        """Cycles that engines may wait for ports."""
        size, total = self.arch.group_words, 0.0
        for i, p in enumerate(mine):
            for q in (*mine[:i], *stay):
                if p.base // size <= (q.stop - 1) // size and q.base // size <= (p.stop - 1) // size:
                    total += p.users.clashes(q.users)
        return total

    def ring(self, tensor: str, need: RingNeed) -> Ring:
        """Ring of a map that stays."""
        return self._ring(next(p for p in self.places if p.tensor == tensor), need)

    def free(self, now: int) -> int:
        """Words that maps which stay leave to a group of layers."""
        return self.arch.map_words - sum(p.stop - p.base for p in self.places if p.first <= now <= p.last)

    def _ring(self, place: _Place, need: RingNeed) -> Ring:
        size, rows = self.arch.group_words, (place.stop - place.base) // need.words(1)
        return Ring(
            place.base // size, place.base % size, rows, need.width, need.width, need.blocks, need.fold
        )

    def _best(self, w: Wanted, words: int, here: list[_Place]) -> int | None:
        """First word where a ring clashes least."""
        best: tuple[tuple[float, ...], int] | None = None
        for base in self._bases(_gaps(self.arch, here), words):
            key = (*self._ports(base, words, w.users, here), base)
            if best is None or key < best[0]:
                best = key, base
        return None if best is None else best[1]

    def _bases(self, gaps: list[Words], words: int) -> list[int]:
        """Places for `words` words: at either end of a gap, and at either end of a map group."""
        size = self.arch.group_words
        out: set[int] = set()
        for low, high in gaps:
            edges = range(-(-low // size) * size, high + 1, size)
            bases = (low, high - words, *edges, *(edge - words for edge in edges))
            out.update(base for base in bases if low <= base <= high - words)
        return sorted(out) if words <= self.arch.span * size else []

    def _ports(self, base: int, words: int, users: Users, others: list[_Place]) -> tuple[float, int, int]:
        """Cycles that engines may wait at a port, map groups beyond one, and words of others in the same groups."""
        size = self.arch.group_words
        first, last = base // size, (base + words - 1) // size
        here = [p for p in others if p.base // size <= last and (p.stop - 1) // size >= first]
        return sum(users.clashes(p.users) for p in here), last - first, sum(p.stop - p.base for p in here)


def _worth(w: Wanted) -> tuple[float, str]:
    """Cycles that a word of slack saves."""
    return w.gain / w.need.words(w.need.slack - w.need.rows), w.tensor


def _gaps(arch: Arch, places: Iterable[_Place]) -> list[Words]:
    """Free words, each run as long as can be; cut at map groups where an operand lies in one."""
    return _runs(arch, sorted((p.base, p.stop) for p in places))


def _longest(arch: Arch, taken: list[Words]) -> int:
    return max((high - low for low, high in _runs(arch, sorted(taken))), default=0)


def _runs(arch: Arch, taken: list[Words]) -> list[Words]:
    out, at, size = [], 0, arch.group_words
    for base, stop in [*taken, (arch.map_words, arch.map_words)]:
        while at < base:
            end = base if arch.span > 1 else min(base, (at // size + 1) * size)
            out.append((at, end))
            at = end
        at = max(at, stop)
    return out
