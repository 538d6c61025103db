"""Row strips: which rows of every tensor each step of a group of layers makes, and the ring each tensor needs.

A group of layers runs depth first. Its last output is made in strips of `rows` rows; going back through the
layers, each strip asks every tensor for the rows up to some row. Step t makes, for each layer, the rows that strip
``t - stage`` adds to those made before: nothing is computed twice, the halo stays in the ring. Stages delay a
layer of the array that consumes what another engine made by one step, so that in the steady state the array works
on one strip while the depthwise engine works on the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Graph
from ..ir.isa import Engine
from .layers import Layer

__all__ = ["Strips", "plan_strips", "strip_driver"]


@dataclass(frozen=True, eq=False)
class Strips:
    """Row schedule of one group.

    Parameters
    ----------
    rows : int
        Rows of the last layer's output that a strip makes.
    count : int
        Strips.
    need : dict of tensor to int array (count + 1,)
        Rows of the tensor that exist after strip s is at index s + 1; index 0 is zero.
    stage : dict of tensor to int
        Steps that the tensor's production lags behind the strips.
    ring, slack : dict of tensor to int
        Fewest rows that its ring must hold, and the rows that let its producer run one strip ahead.
    """

    rows: int
    count: int
    need: dict[str, NDArray[np.int64]]
    stage: dict[str, int]
    ring: dict[str, int]
    slack: dict[str, int]

    @property
    def steps(self) -> int:
        """Steps of the loop, the ramp of the stages included."""
        return self.count + max(self.stage.values(), default=0)

    def span(self, tensor: str, step: int, stage: int | None = None) -> tuple[int, int]:
        """Rows low..high-1 of the tensor that a step makes (equal: none)."""
        strip = step - (self.stage[tensor] if stage is None else stage)
        if not 0 <= strip < self.count:
            return 0, 0
        need = self.need[tensor]
        return int(need[strip]), int(need[strip + 1])


def plan_strips(layers: tuple[Layer, ...], graph: Graph, outputs: set[str], rows: int) -> Strips:
    """Row schedule of `layers`, whose `outputs` are wanted afterwards, in strips of `rows` rows of the last output."""
    made = {layer.output for layer in layers}
    height = {t: graph.tensors[t].shape[0] for layer in layers for t in (*layer.inputs, layer.output)}
    driver = strip_driver(layers)
    count = -(-height[driver] // rows)
    need = {t: np.zeros(count + 1, np.int64) for t in height}
    readers: dict[str, list[Layer]] = {t: [] for t in height}
    for layer in layers:
        for t in dict.fromkeys(layer.inputs):
            readers[t].append(layer)

    for layer in reversed(layers):
        t = layer.output
        if t == driver and layer is layers[-1]:
            need[t][1:] = np.minimum(np.arange(1, count + 1) * rows, height[t])
        elif layer.reduces:
            need[t][count] = height[t]
        elif not readers[t]:
            need[t][1:] = -(-height[t] * np.arange(1, count + 1) // count)
        if t in outputs:
            need[t][count] = height[t]
        for s in range(count):
            low, high = int(need[t][s]), int(need[t][s + 1])
            if layer.reduces:
                need[layer.inputs[0]][s + 1] = max(need[layer.inputs[0]][s + 1], min((s + 1) * rows, height[layer.inputs[0]]))
            elif high > low:
                for k, source in enumerate(layer.inputs):
                    need[source][s + 1] = max(need[source][s + 1], layer.needs(k, low, high)[1])
        for source in layer.inputs:
            np.maximum.accumulate(need[source], out=need[source])

    stage: dict[str, int] = {}
    engine: dict[str, Engine | None] = {}
    for layer in layers:
        late = 0
        for source in layer.inputs:
            if source in made:
                crossing = layer.engine == Engine.CONV and engine[source] in {Engine.DWC, Engine.VEC}
                late = max(late, stage[source] + (1 if crossing and count > 1 else 0))
        stage[layer.output], engine[layer.output] = late, layer.engine
    for t in height:
        if t not in made:
            stage[t] = min(stage[layer.output] for layer in readers[t])

    ring, slack = {}, {}
    for t in height:
        fewest = most = 1
        for step in range(count + max(stage.values(), default=0)):
            have = int(need[t][min(max(step - stage[t] + 1, 0), count)])
            ahead = int(need[t][min(max(step - stage[t] + 2, 0), count)])
            low = have
            for layer in readers[t]:
                strip = step - stage[layer.output]
                if layer.reduces:
                    first = int(need[t][min(max(strip, 0), count)])
                else:
                    first = _first_row(layer, t, need[layer.output], max(strip, 0), count)
                low = min(low, first)
            if t in made:  # what this very step makes is in the ring too
                low = min(low, int(need[t][min(max(step - stage[t], 0), count)]))
            fewest, most = max(fewest, have - low), max(most, ahead - low)
        ring[t], slack[t] = min(fewest, height[t]), min(max(most, fewest), height[t])
    return Strips(rows, count, need, stage, ring, slack)


def strip_driver(layers: tuple[Layer, ...]) -> str:
    """The map whose rows are cut into strips: the last output, or what the last layer reduces to one pixel."""
    return layers[-1].inputs[0] if layers[-1].reduces else layers[-1].output


def _first_row(layer: Layer, tensor: str, need: NDArray[np.int64], strip: int, count: int) -> int:
    """First row of `tensor` that the layer still reads at this strip or later; beyond the map when none."""
    for s in range(strip, count):
        low, high = int(need[s]), int(need[s + 1])
        if high > low:
            return min(layer.needs(k, low, high)[0] for k, source in enumerate(layer.inputs) if source == tensor)
    return 1 << 30
