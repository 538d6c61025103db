"""How good a layer's tile is: the best value found, a bound that no tile beats, and how many were looked at."""

from __future__ import annotations

from dataclasses import dataclass

from ..hwsim.bounds import touched
from ..hwsim.timing import conv_busy
from ..ir.graph import Conv, ConvTranspose, Pool
from ..ir.isa import Engine
from .candidates import Candidate
from .layers import Layer
from .search import Search
from .weights import parameter_words

__all__ = ["Certificate", "bound", "certify"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the search of a layer is worth, alone and with its maps in DRAM.

    Parameters
    ----------
    value, bound : float
        Of the best candidate, and below that of every tile, in the measure of the search's objective.
    compute_cycles : int
        Of the layer's engine with the whole map at once, its pixels packed, and no bank asked twice.
    compulsory_bytes : int
        Weights, biases and output once, and what the layer touches of its inputs.
    seen : int
        Candidates that were priced and fit.
    best : Candidate
    """

    layer: str
    value: float
    bound: float
    compute_cycles: int
    compulsory_bytes: int
    seen: int
    best: Candidate

    @property
    def gap(self) -> float:
        """How many times the bound the value is: 1 is proved to be the best."""
        return self.value / self.bound if self.bound else 1.0


def certify(search: Search, number: int) -> Certificate:
    """The certificate of layer `number`.

    Raises
    ------
    ScheduleError
        The layer fits in no tile.
    """
    layer = search.layers[number]
    found = list(search.fitting(number, number + 1, frozenset(), search.arch.map_words))
    if not found:
        raise search.does_not_fit(layer)
    cycles, moved = _compute_cycles(search, layer), _compulsory_bytes(search, layer)
    return Certificate(
        layer.name,
        search.value(found[0]),
        bound(search, cycles, moved),
        cycles,
        moved,
        len(found),
        found[0],
    )


def bound(search: Search, compute_cycles: float, dram_bytes: float) -> float:
    """The objective's measure where engine and DRAM port overlap perfectly and neither ever waits."""
    transfer = dram_bytes / search.costing.bandwidth
    return search.weigh(max(compute_cycles, transfer), transfer)


def _compute_cycles(search: Search, layer: Layer) -> int:
    """Busy cycles of the layer's engine, at the least: cutting a map only adds starts, parameters and part blocks."""
    h, w, _ = search.graph.tensors[layer.output].shape
    costing, lanes = search.costing, search.arch.lanes
    if layer.reduces:
        return costing.busy(layer, 1, 1)
    if layer.engine != Engine.CONV:
        return costing.busy(layer, h, w)
    total = 0
    for part in layer.parts:
        o, kh, kw, _ = part.weight.shape
        taps = kh * kw if part.depthwise else costing.record_words(layer, part) - parameter_words(lanes)
        rows, cols = part.extent(0, h), part.extent(1, w)
        if rows and cols:
            total += int(
                conv_busy(costing.m, rows, cols, 1, 1, taps, o, part.offset % lanes, 1, 1, 1, 1, 0)[0]
            )
    return total


def _compulsory_bytes(search: Search, layer: Layer) -> int:
    """Weights and biases, the output, and of the inputs what the layer's windows touch."""
    tensors, op = search.graph.tensors, layer.op
    out = tensors[layer.output]
    moved = out.bytes
    if isinstance(op, Conv | ConvTranspose) and not op.moves:
        moved += op.weight.size + 4 * op.bias.size
    for t in dict.fromkeys(layer.inputs):
        h, w, c = tensors[t].shape
        if isinstance(op, Conv | Pool):
            h, w = (touched(op.window, axis, out.shape[axis], size) for axis, size in enumerate((h, w)))
        moved += h * w * c
    return moved
