"""Multiplexers as binary trees that leave out what never differs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from amaranth.hdl import Mux, Value

__all__ = ["choose"]

K = TypeVar("K", bound=Hashable)


def choose(keys: Sequence[K], sources: Mapping[K, Value], index: Value) -> Value:
    """The source of ``keys[index]``; no multiplexer stands where all keys are equal.

    `index` has as many bits as the number of keys needs; numbers beyond the last key choose any.
    """
    if len(set(keys)) == 1:
        return sources[keys[0]]
    top = (len(keys) - 1).bit_length() - 1
    low, high = keys[: 1 << top], keys[1 << top :]
    high = [*high, *low[len(high) :]]
    if list(low) == high:
        return choose(low, sources, index)
    return Mux(index[top], choose(high, sources, index), choose(low, sources, index))
