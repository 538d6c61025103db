"""What a driver on a board must know beside the program: where the maps lie, and which tensors they are.

The notes of a program file (docs/isa.md): a table of maps that C reads without a parser, then JSON for the tensors. A
tensor's ``axes`` are those of `frontend.views.View`: for each axis the (extent, stride) factors over the map.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from .ir.errors import ModelError

if TYPE_CHECKING:
    from .compiled import Compiled
    from .frontend.model import Border, DpuSegment, Model
    from .scheduler import Plan

__all__ = ["NOTES_VERSION", "driver_notes"]

NOTES_VERSION = 1
"""Raised whenever a driver would have to change."""
_NAME_BYTES = 96
_MAP = f"<QIIIfiI{_NAME_BYTES}s"
"""Offset, height, width, channels, scale, zero point, input or output, name."""
_INPUT, _OUTPUT = 1, 2


def driver_notes(compiled: Compiled) -> tuple[bytes, ...]:
    """Notes for each program of a network, in order."""
    from .frontend.model import DpuSegment

    segments = [s for s in compiled.model.segments if isinstance(s, DpuSegment)]
    return tuple(
        _notes(compiled.model, segment, plan) for segment, plan in zip(segments, compiled.plans, strict=True)
    )


def _notes(model: Model, segment: DpuSegment, plan: Plan) -> bytes:
    graph, arch = plan.graph, plan.arch
    maps = [*((name, _INPUT) for name in graph.inputs), *((name, _OUTPUT) for name in graph.outputs)]
    records = []
    for name, kind in maps:
        tensor, place = graph.tensors[name], plan.places[name]
        quant = tensor.quant
        records.append(
            struct.pack(_MAP, place.offset, *place.shape, quant.scale, quant.zero_point, kind, _short(name))
        )
    ports = {p.name: p for p in model.inputs}
    text: dict[str, Any] = {
        "network": model.name,
        "arch": arch.name,
        "clock_mhz": arch.clock_mhz,
        "batch": graph.frames,
        "inputs": [_input(model, b, maps.index((b.map, _INPUT)), ports) for b in segment.reads],
        "outputs": [_tensor(b, maps.index((b.map, _OUTPUT))) for b in segment.writes],
        # Maps that no tensor fills or becomes: they go from one program of the network to the next, as int8 (H, W, C).
        "raw": [
            {"name": name, "map": i}
            for i, (name, kind) in enumerate(maps)
            if name not in {b.map for b in (segment.reads if kind == _INPUT else segment.writes)}
        ],
    }
    head = struct.pack("<IIII", NOTES_VERSION, arch.lanes, len(maps), 0)
    return head + b"".join(records) + json.dumps(text, separators=(",", ":"), sort_keys=True).encode()


def _tensor(border: Border, index: int) -> dict[str, Any]:
    return {
        "name": border.tensor,
        "map": index,
        "shape": list(border.shape),
        "axes": [[list(f) for f in axis] for axis in border.view.axes],
    }


def _input(model: Model, border: Border, index: int, ports: dict[str, Any]) -> dict[str, Any]:
    """An input tensor; integer inputs of an int8 model carry the real value of their codes."""
    entry = _tensor(border, index)
    port = ports.get(border.tensor)
    if port is not None:
        entry["dtype"] = str(port.dtype)
        quant = model.network.quants.get(port.name)
        if quant is not None and str(port.dtype) in {"uint8", "int8"}:
            shift = 128 if str(port.dtype) == "uint8" else 0
            entry["code"] = {"scale": quant.scale, "zero_point": quant.zero_point + shift}
    return entry


def _short(name: str) -> bytes:
    """A name in its field, cut where it is too long; the last byte stays zero for C."""
    if "\0" in name:
        raise ModelError(
            f"map {name!r}: a name with a zero byte cannot be written into a program file", map=name
        )
    return name.encode()[: _NAME_BYTES - 1]
