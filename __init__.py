"""Tilewright: compile a network for a parameterised DPU, and know its cycles, traffic and energy.

>>> import tilewright as tw
>>> tw.Arch.preset("b4096").macs_per_cycle
2048

The names below load their module when first touched, so that ``import tilewright`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Board, compile, predict, report, simulate
    from .compiled import Compiled
    from .exploration import Study, explore
    from .frontend import Calibration, Model, check, load, quantize
    from .frontend import zoo as zoo
    from .ir.arch import Arch
    from .ir.errors import TilewrightError
    from .reports.result import Result

__version__ = "0.1.0"

__all__ = [
    "load",
    "check",
    "quantize",
    "compile",
    "simulate",
    "predict",
    "report",
    "explore",
    "zoo",
    "Arch",
    "Board",
    "Calibration",
    "Model",
    "Compiled",
    "Result",
    "Study",
    "TilewrightError",
]

_HOME = {
    "load": "frontend",
    "check": "frontend",
    "quantize": "frontend",
    "compile": "api",
    "simulate": "api",
    "predict": "api",
    "report": "api",
    "explore": "exploration",
    "zoo": "frontend.zoo",
    "Arch": "ir.arch",
    "Board": "api",
    "Calibration": "frontend",
    "Model": "frontend",
    "Compiled": "compiled",
    "Result": "reports.result",
    "Study": "exploration",
    "TilewrightError": "ir.errors",
}
"""Module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tilewright' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    module = import_module(f".{_HOME[name]}", __name__)
    value = module if name == "zoo" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
