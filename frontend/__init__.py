"""From ONNX to int8: reading, simplifying, lowering, partition between DPU and host, quantisation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calibration import Calibration
    from .importer import load
    from .model import DpuSegment, HostSegment, Model
    from .network import Network
    from .partition import Coverage, check
    from .quantiser import quantize

__all__ = [
    "Calibration",
    "Coverage",
    "DpuSegment",
    "HostSegment",
    "Model",
    "Network",
    "check",
    "load",
    "quantize",
]

_HOME = {
    "Calibration": "calibration",
    "Coverage": "partition",
    "DpuSegment": "model",
    "HostSegment": "model",
    "Model": "model",
    "Network": "network",
    "check": "partition",
    "load": "importer",
    "quantize": "quantiser",
}


def __getattr__(name: str) -> Any:
    """Public names, imported when first asked for: onnx and onnxruntime are heavy."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
