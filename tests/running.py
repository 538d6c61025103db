"""Run a compiled graph on the emulator and hold it against the integer reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from graphs import inputs_of
from numpy.typing import NDArray
from tilewright.hwsim.emulate import Emulation, emulate
from tilewright.ir import reference
from tilewright.ir.graph import Graph
from tilewright.ir.layout import pack_map, unpack_map
from tilewright.scheduler import Plan

__all__ = ["Comparison", "compare", "dram_image"]


@dataclass(frozen=True)
class Comparison:
    """Bytes that reached DRAM, and those of them that differ from the reference."""

    compared: int
    differing: dict[str, int]
    emulation: Emulation
    values: dict[str, NDArray[np.int8]]


def dram_image(plan: Plan, inputs: dict[str, NDArray[np.int8]]) -> NDArray[np.uint8]:
    """The DRAM maps region with the inputs in place and a pattern everywhere else."""
    maps = np.full(plan.program.maps_bytes, 0xA5, np.uint8)
    for name, value in inputs.items():
        data = pack_map(value, plan.arch.lanes)
        maps[plan.places[name].offset :][: len(data)] = data
    return maps


def compare(plan: Plan, graph: Graph, seed: int = 0, *, order: str = "stream") -> Comparison:
    """Emulate one random frame; every map that the program put in DRAM is compared byte for byte."""
    inputs = inputs_of(graph, seed)
    emulation = emulate(
        plan.program, plan.arch, dram_image(plan, inputs), order=order, seed=seed, checked=True
    )  # type: ignore[arg-type]
    expected: dict[str, NDArray[np.int8]] = {}
    reference.run(graph, inputs, expected.__setitem__)
    compared, differing, values = 0, {}, {}
    for name, place in plan.places.items():
        if name in inputs:
            continue
        size = int(np.prod(place.shape))
        values[name] = unpack_map(
            emulation.maps[place.offset :][:size].view(np.uint8), place.shape, plan.arch.lanes
        )
        compared += size
        wrong = int(np.count_nonzero(values[name] != expected[name]))
        if wrong:
            differing[name] = wrong
    return Comparison(compared, differing, emulation, values)
