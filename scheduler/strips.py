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

from ..ir.graph import Add, Graph, Mul, PRelu, Table
from ..ir.isa import Engine
from .layers import Layer

_NEVER = 1 << 30

__all__ = ["Strips", "may_replace", "plan_strips", "strip_driver"]


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
        Fewest rows that its ring must hold, and the rows that let its producer run one strip ahead; the same where one
        engine makes and reads it, in turn.
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

    def heights(self, tensor: str) -> list[tuple[int, int]]:
        """Rows that a step makes of a tensor, and how many steps make so many."""
        rows = np.diff(self.need[tensor])
        return [(h, n) for h, n in enumerate(np.bincount(rows).tolist()) if h and n]

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
        for k, source in enumerate(layer.inputs):
            if layer.reduces:
                want = np.minimum(np.arange(1, count + 1) * rows, height[source])
            else:
                _, stop = layer.reach(k, height[t])
                want = np.where(need[t][1:] > 0, stop[np.maximum(need[t][1:] - 1, 0)], 0)
            np.maximum(need[source][1:], want, out=need[source][1:])

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
    steps = np.arange(count + max(stage.values(), default=0))
    for t, rows_of_map in height.items():
        after = need[t][_within(steps - stage[t] + 1, count)]
        ahead = need[t][_within(steps - stage[t] + 2, count)]
        low = after.copy()
        for layer in readers[t]:
            strip = _within(steps - stage[layer.output], count)
            np.minimum(low, _first_row(layer, t, need, strip, count), out=low)
        if t in made:  # what this very step makes is in the ring too
            np.minimum(low, need[t][_within(steps - stage[t], count)], out=low)
        ring[t] = min(max(1, int((after - low).max())), rows_of_map)
        alone = t in made and all(layer.engine == engine[t] for layer in readers[t])
        slack[t] = ring[t] if alone else min(max(ring[t], int((ahead - low).max())), rows_of_map)
    return Strips(rows, count, need, stage, ring, slack)


def may_replace(layers: tuple[Layer, ...], layer: Layer, source: str, strips: Strips) -> bool:
    """Whether an elementwise layer may write its output over `source`, which was whole on chip before the group.

    Every row must have been read by the group's other layers before the layer overwrites it: their next step reads
    further down.
    """
    if (
        layer.engine != Engine.VEC
        or not isinstance(layer.op, (Add, Mul, Table, PRelu))
        or layer.op.inputs.count(source) != 1
    ):
        return False
    steps = np.arange(strips.steps)
    written = strips.need[layer.output][_within(steps - strips.stage[layer.output] + 1, strips.count)]
    done = False
    for other in layers:
        if other is layer:
            done = True
        elif source in other.inputs:
            late = int(done)  # a layer behind this one reads its rows of a step when they are overwritten
            strip = _within(steps + 1 - late - strips.stage[other.output], strips.count)
            if np.any(written > _first_row(other, source, strips.need, strip, strips.count)):
                return False
    return True


def strip_driver(layers: tuple[Layer, ...]) -> str:
    """The map whose rows are cut into strips: the last output, or what the last layer reduces to one pixel."""
    return layers[-1].inputs[0] if layers[-1].reduces else layers[-1].output


def _within(index: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return np.minimum(np.maximum(index, 0), most)


def _first_row(
    layer: Layer, tensor: str, need: dict[str, NDArray[np.int64]], strip: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """First row of `tensor` that the layer still reads from each strip on; beyond the map when none."""
    if layer.reduces:
        return need[tensor][strip]
    made = need[layer.output]
    height = int(made[count])
    first = np.full(len(strip), _NEVER)
    for k, source in enumerate(layer.inputs):
        if source == tensor and height:
            reads, _ = layer.reach(k, height)
            first = np.minimum(
                first, np.where(made[strip] < height, reads[np.minimum(made[strip], height - 1)], _NEVER)
            )
    return first
