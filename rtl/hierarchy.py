"""How a component is put into its parent."""

from __future__ import annotations

from typing import TypeVar

from amaranth.hdl import Module
from amaranth.lib.wiring import Component

__all__ = ["place"]

C = TypeVar("C", bound=Component)


def place(m: Module, name: str, component: C) -> C:
    """Add `component` to `m` under `name`, and return it."""
    m.submodules[name] = component
    return component
