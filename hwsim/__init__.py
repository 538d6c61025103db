"""What a program costs: cycles from an event simulation, DRAM traffic, energy, bounds, FPGA resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .results import Simulation
    from .simulation import simulate

__all__ = ["Simulation", "simulate"]

_HOME = {"Simulation": "results", "simulate": "simulation"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
