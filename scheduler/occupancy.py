"""What a tiling says about the map memory: which maps are on chip around a group of layers, and the words they take."""

from __future__ import annotations

from collections.abc import Iterable

from ..ir.tile import Group, Ring, TileProgram

__all__ = ["passing_words", "read_on_chip", "staying", "touched_words"]


def read_on_chip(group: Group) -> set[str]:
    """Maps that a group reads where an earlier one left them."""
    here = {s.tensor for s in group.statements if s.kind != "save"}
    views = {t for s in group.statements if s.kind == "view" for t in s.sources}
    return {t for s in group.statements for t in s.sources} - here - views


def staying(tiling: TileProgram, number: int) -> set[str]:
    """Maps of a group that are on chip before it, or behind it."""
    group = tiling.groups[number]
    made = {s.tensor for s in group.statements if s.layer and s.kind != "view"}
    later = {t for g in tiling.groups[number + 1 :] for t in read_on_chip(g)}
    return read_on_chip(group) | (made & later)


def _rings(tiling: TileProgram, number: int) -> tuple[dict[str, Ring], dict[str, Ring]]:
    """Rings of a group's own maps, and those that only wait for later groups meanwhile."""
    whole: dict[str, Ring] = {}
    for g in tiling.groups[:number]:
        whole |= {s.tensor: s.ring for s in g.statements if s.ring is not None and s.layer}
    group = tiling.groups[number]
    mine = {s.tensor: s.ring for s in group.statements if s.ring is not None}
    mine |= {t: whole[t] for t in read_on_chip(group)}
    later = {t for g in tiling.groups[number + 1 :] for t in read_on_chip(g)}
    return mine, {t: ring for t, ring in whole.items() if t in later and t not in mine}


def touched_words(tiling: TileProgram, number: int, group_words: int) -> int:
    """Map words that hold the maps a group touches; two maps that follow each other in the same words count once."""
    return _union(_rings(tiling, number)[0].values(), group_words)


def passing_words(tiling: TileProgram, number: int, group_words: int) -> int:
    """Map words that hold maps for later groups while a group runs that does not touch them."""
    return _union(_rings(tiling, number)[1].values(), group_words)


def _union(rings: Iterable[Ring], group_words: int) -> int:
    total, at = 0, 0
    for low, high in sorted(
        (r.group * group_words + r.base, r.group * group_words + r.base + r.words) for r in rings
    ):
        total += max(0, high - max(low, at))
        at = max(at, high)
    return total
