"""Row strips: which rows of every tensor each step of a group of layers makes, and the ring each tensor needs.

A group of layers runs depth first. Its last output is made in strips of `rows` rows; going back through the
layers, each strip asks every tensor for the rows up to some row. Step t makes, for each layer, the rows that strip
``t - stage`` adds to those made before: nothing is computed twice, the halo stays in the ring. Stages delay a
layer of the array that consumes what another engine made by one step, so that in the steady state the array works
on one strip while the depthwise engine works on the one before.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Add, Graph, Mul, PRelu, Table
from ..ir.isa import Engine
from .layers import Layer

_NEVER = 1 << 30

__all__ = ["StripGroup", "Strips", "may_replace", "plan_strips", "strip_driver"]


@dataclass(frozen=True, eq=False, slots=True)
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
    tiles : int array (n, 3)
        Tensor, in the order of `need`; rows that a step makes of it; how many steps make so many.
    """

    rows: int
    count: int
    need: dict[str, NDArray[np.int64]]
    stage: dict[str, int]
    ring: dict[str, int]
    slack: dict[str, int]
    tiles: NDArray[np.int64]

    @property
    def steps(self) -> int:
        """Steps of the loop, the ramp of the stages included."""
        return self.count + max(self.stage.values(), default=0)

    def heights(self) -> dict[str, list[tuple[int, int]]]:
        """Rows that a step makes of each tensor, and how many steps make so many."""
        names = tuple(self.need)
        found: dict[str, list[tuple[int, int]]] = {t: [] for t in names}
        for t, rows, steps in self.tiles.tolist():
            found[names[t]].append((rows, steps))
        return found

    def span(self, tensor: str, step: int, stage: int | None = None) -> tuple[int, int]:
        """Rows low..high-1 of the tensor that a step makes (equal: none)."""
        strip = step - (self.stage[tensor] if stage is None else stage)
        if not 0 <= strip < self.count:
            return 0, 0
        need = self.need[tensor]
        return int(need[strip]), int(need[strip + 1])


def plan_strips(
    layers: tuple[Layer, ...], graph: Graph, outputs: Set[str], rows: int, *, group: StripGroup | None = None
) -> Strips:
    """Row schedule of `layers`, whose `outputs` are wanted afterwards, in strips of `rows` rows of the last output.

    Parameters
    ----------
    group : StripGroup, optional
        ``StripGroup(layers, graph, outputs)``, for callers that ask for many heights.
    """
    g = group or StripGroup(layers, graph, outputs)
    count = -(-g.driver_rows // rows)
    stage = g.stages if count > 1 else np.zeros_like(g.stages)
    need = np.zeros((len(g.names), count + 1), np.int64)
    ring, slack = np.zeros((2, len(g.names)), np.int64)
    _rows(rows, count, stage, *g.arrays, need, ring, slack)
    named = dict(zip(g.names, need, strict=True))
    late, least, most = (dict(zip(g.names, values.tolist(), strict=True)) for values in (stage, ring, slack))
    return Strips(rows, count, named, late, least, most, _heights(need))


class StripGroup:
    """A run of layers as the arrays that `_rows` takes: tensors by number, and an edge for each input of each layer.

    Parameters
    ----------
    outputs : set of tensor
        Wanted after the group.
    """

    def __init__(self, layers: tuple[Layer, ...], graph: Graph, outputs: Set[str]) -> None:
        self.names = tuple(dict.fromkeys(t for layer in layers for t in (*layer.inputs, layer.output)))
        number = {t: i for i, t in enumerate(self.names)}
        height = np.array([graph.tensors[t].shape[0] for t in self.names], np.int64)
        driver = number[strip_driver(layers)]
        self.driver_rows = int(height[driver])
        maker = np.full(len(self.names), -1, np.int64)
        maker[[number[layer.output] for layer in layers]] = range(len(layers))
        edges = [(i, k, t) for i, layer in enumerate(layers) for k, t in enumerate(layer.inputs)]
        reach = [
            (np.zeros(0, np.int64),) * 2 if layers[i].reduces else layers[i].reach(k, int(height[number[layers[i].output]]))
            for i, k, _ in edges
        ]  # fmt: skip
        ends = np.cumsum([0, *(len(first) for first, _ in reach)])
        self.stages = self._stages(layers, number, maker)
        self.arrays = (
            height,
            maker,
            np.array([t in outputs for t in self.names]),
            np.array([number[layer.output] for layer in layers], np.int64),
            np.array([layer.height if layer.reduces else 0 for layer in layers], np.int64),
            np.array([-1 if layer.engine is None else int(layer.engine) for layer in layers], np.int64),
            np.array([i for i, _, _ in edges], np.int64),
            np.array([number[t] for _, _, t in edges], np.int64),
            ends[:-1],
            np.concatenate([first for first, _ in reach]),
            np.concatenate([stop for _, stop in reach]),
            driver,
        )

    def _stages(
        self, layers: tuple[Layer, ...], number: dict[str, int], maker: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Steps that each tensor lags behind: an input that is loaded comes with its first reader."""
        stage = np.zeros(len(self.names), np.int64)
        for layer in layers:
            late = 0
            for source in layer.inputs:
                made = int(maker[number[source]])
                if made >= 0:
                    crossing = layer.engine == Engine.CONV and layers[made].engine in {Engine.DWC, Engine.VEC}
                    late = max(late, int(stage[number[source]]) + crossing)
            stage[number[layer.output]] = late
        for t in self.names:
            if maker[number[t]] < 0:
                stage[number[t]] = min(stage[number[layer.output]] for layer in layers if t in layer.inputs)
        return stage


@numba.njit(cache=True)
def _rows(  # type: ignore[no-untyped-def]
    rows, count, stage, height, maker, wanted, output, reduces, engine, reader, source, at, first, stop, driver, need,
    ring, slack,
):  # fmt: skip
    """Fill `need` (tensor, strip), `ring` and `slack`; edge e is an input of layer `reader[e]`, tensor `source[e]`;
    `reduces`: rows of a frame that a layer makes one of, or 0."""
    layers, edges = len(output), len(reader)
    is_read = np.zeros(len(height), np.bool_)
    for e in range(edges):
        is_read[source[e]] = True
    for i in range(layers - 1, -1, -1):
        t = output[i]
        if t == driver and i == layers - 1:
            for s in range(1, count + 1):
                need[t, s] = max(need[t, s], min(s * rows, height[t]))
        elif reduces[i]:
            need[t, count] = height[t]
        elif not is_read[t]:
            for s in range(1, count + 1):
                need[t, s] = (height[t] * s + count - 1) // count
        if wanted[t]:
            need[t, count] = height[t]
        for e in range(edges):
            if reader[e] != i:
                continue
            of = source[e]
            for s in range(1, count + 1):
                if reduces[i]:
                    want = min(s * rows, height[of])
                else:
                    want = stop[at[e] + need[t, s] - 1] if need[t, s] > 0 else 0
                need[of, s] = max(need[of, s], want)

    for e in range(edges):  # each frame's row exists when its rows are read; the last with the last strip
        i = reader[e]
        if reduces[i] and height[output[i]] > 1:
            for s in range(1, count):
                need[output[i], s] = need[source[e], s] // reduces[i]

    latest = 0
    for t in range(len(height)):
        latest = max(latest, stage[t])
    for t in range(len(height)):
        most_after = most_ahead = 1
        alone = maker[t] >= 0
        for e in range(edges):
            if source[e] == t and maker[t] >= 0 and engine[reader[e]] != engine[maker[t]]:
                alone = False
        for step in range(count + latest):
            low = after = need[t, min(max(step - stage[t] + 1, 0), count)]
            ahead = need[t, min(max(step - stage[t] + 2, 0), count)]
            for e in range(edges):
                if source[e] != t:
                    continue
                i = reader[e]
                strip = min(max(step - stage[output[i]], 0), count)
                made = need[output[i], strip]
                if reduces[i]:
                    low = min(low, need[t, strip])
                elif made < need[output[i], count]:
                    low = min(low, first[at[e] + made])
            if maker[t] >= 0:  # what this very step makes is in the ring too
                low = min(low, need[t, min(max(step - stage[t], 0), count)])
            most_after = max(most_after, after - low)
            most_ahead = max(most_ahead, ahead - low)
        ring[t] = min(most_after, height[t])
        slack[t] = ring[t] if alone else min(max(ring[t], most_ahead), height[t])


@numba.njit(cache=True)
def _heights(need):  # type: ignore[no-untyped-def]
    """Tensor, rows that a step makes of it, and how many steps make so many."""
    tensors, count = need.shape[0], need.shape[1] - 1
    found = np.empty((tensors * count, 3), np.int64)
    n = 0
    for t in range(tensors):
        first = n
        for s in range(count):
            height = need[t, s + 1] - need[t, s]
            at = first
            while at < n and found[at, 1] != height:
                at += 1
            if height == 0:
                continue
            if at == n:
                found[at, 0], found[at, 1], found[at, 2] = t, height, 0
                n += 1
            found[at, 2] += 1
    return found[:n]


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
