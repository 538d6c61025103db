"""`quantize`: a network and calibration data become a `Model` of int8 graphs and host segments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import ModelError
from ..ir.graph import Quant
from ..ir.requant import MODES, RoundingMode
from .calibration import Calibration, RangeMethod, Statistics, measure, real_feeds
from .emit import Emission
from .layers import Layer, Linear
from .lower import Lowered
from .model import Border, DpuSegment, HostSegment, Model, dequantise
from .network import Network, Node, new_session, run_session
from .partition import Plan, partition
from .saturation import end_where_flat
from .scales import choose_scales

__all__ = ["quantize"]


def quantize(
    network: Network,
    calibration: Calibration | None = None,
    *,
    mode: RoundingMode = "f32",
    ranges: RangeMethod = "minmax",
    equalise: bool = True,
    bias_correction: bool = True,
    seed: int = 0,
) -> Model:
    """Post-training int8 quantisation, per-channel weights.

    Parameters
    ----------
    calibration : Calibration, optional
        Needed by float networks; a network that brings its scales ignores it.
    mode : {"f32", "fix16", "shift"}
        Requantisation of the target hardware.
    ranges : {"minmax", "percentile", "mse"}
        How an activation's range is chosen from the samples.
    equalise : bool
        Level the channel ranges of neighbouring convolutions first (scale-invariant pairs only).
    bias_correction : bool
        Take the mean error of rounded weights out of the bias.
    seed : int
        Reserved for methods that draw samples; today's are deterministic.

    Raises
    ------
    ModelError
        No calibration for a float network, or a layer that int8 cannot hold.
    """
    del seed
    if mode not in MODES:
        raise ModelError(f"rounding mode {mode!r} is not one of {', '.join(MODES)}")
    if not network.quantised and calibration is None:
        raise ModelError(
            f"{network.name}: a float network needs calibration data to choose its int8 ranges; give images or arrays "
            "(--calibration PATH), or ask for seeded noise where accuracy does not matter (--synthetic-calibration)",
            network=network.name,
        )
    plan = partition(network, calibrated=calibration is not None)
    layers = tuple(x for p in plan.pieces for x in p.layers)
    statistics = _statistics(plan, layers, calibration, ranges)
    divisors: Mapping[str, NDArray[np.float64]] = {}
    if equalise and not network.quantised:
        from .equalise import equalise_layers

        plan, layers, statistics, divisors = equalise_layers(plan, layers, statistics)
    lowered = plan.lowered
    measured = {n: (s.low, s.high) for n, s in statistics.items()}
    needed = measured if network.quantised else end_where_flat(layers, measured, plan.seen_outside)
    shortened = {n for n in measured if needed[n] != measured[n]}
    quants = choose_scales(lowered, layers, needed, mode)
    means = _means(lowered, layers, statistics) if bias_correction and not network.quantised else {}
    segments = _segments(plan, quants, mode, means)
    kind: Literal["user", "synthetic", "model"] = (
        "model" if network.quantised else calibration.kind if calibration else "user"
    )
    sample = (
        calibration.samples[0]
        if calibration is not None
        else Calibration.synthetic(network, samples=1).samples[0]
    )

    def sqnr(model: Model) -> dict[str, float]:
        return _sqnr(model, lowered, layers, shortened, sample)

    return Model(network.name, segments, network.inputs, network.outputs, kind, mode, network, sqnr, divisors)


def _tensor_of(lowered: Lowered, name: str) -> str | None:
    """The ONNX tensor whose values a map holds."""
    if name in lowered.sources:
        return lowered.sources[name].tensor
    return name if name in lowered.views else None


def _statistics(
    plan: Plan, layers: tuple[Layer, ...], calibration: Calibration | None, ranges: RangeMethod
) -> dict[str, Statistics]:
    """Statistics by map; nothing is run where the model says every scale."""
    if calibration is None:
        return {}
    lowered, network = plan.lowered, plan.network
    maps = dict.fromkeys(n for x in layers for n in (*x.inputs, x.output))
    if network.quantised and all(n in lowered.quants for n in maps):
        return {}
    tensors = {n: t for n in maps if (t := _tensor_of(lowered, n)) is not None}
    measured = measure(network, tensors.values(), calibration, ranges)
    return {n: measured[t] for n, t in tensors.items()}


def _means(
    lowered: Lowered, layers: tuple[Layer, ...], statistics: Mapping[str, Statistics]
) -> dict[str, NDArray[np.float64]]:
    """Mean of each channel of the maps that linear layers read, where axis 1 of the ONNX tensor is the channel."""
    means = {}
    for layer in layers:
        if not isinstance(layer, Linear) or layer.moves:
            continue
        name = layer.inputs[0]
        shape = lowered.shapes[name]
        known = statistics.get(name)
        if known is not None and np.shape(known.mean) == (shape[2],):
            means[name] = np.asarray(known.mean, np.float64)
    return means


def _segments(
    plan: Plan, quants: Mapping[str, Quant], mode: RoundingMode, means: Mapping[str, NDArray[np.float64]]
) -> tuple[DpuSegment | HostSegment, ...]:
    network, lowered = plan.network, plan.lowered
    made_by: dict[str, int] = {x.output: i for i, p in enumerate(plan.pieces) for x in p.layers}
    host_reads = {t for p in plan.pieces for n in p.nodes for t in n.reads}
    wanted = [
        t
        for t in dict.fromkeys([*sorted(host_reads), *(p.name for p in network.outputs)])
        if t in lowered.views
    ]
    segments: list[DpuSegment | HostSegment] = []
    for i, piece in enumerate(plan.pieces):
        if piece.layers:
            inputs = list(dict.fromkeys(n for x in piece.layers for n in x.inputs if made_by.get(n) != i))
            mine = {x.output for x in piece.layers}
            writes = [t for t in wanted if lowered.views[t].storage in mine]
            later = {
                n
                for j, p in enumerate(plan.pieces)
                if j != i
                for x in p.layers
                for n in x.inputs
                if n in mine
            }
            outputs = list(dict.fromkeys([lowered.views[t].storage for t in writes] + sorted(later)))
            name = (
                network.name
                if sum(bool(p.layers) for p in plan.pieces) == 1
                else f"{network.name}_{len(segments)}"
            )
            emission = Emission(mode, quants, lowered.shapes, network.quantised and mode != "shift", means)
            graph = emission.graph(name, piece.layers, inputs, outputs)
            reads = tuple(
                Border(
                    n,
                    lowered.sources[n].tensor,
                    network.shapes[lowered.sources[n].tensor],
                    lowered.sources[n].view,
                )
                for n in inputs
                if n in lowered.sources
            )
            borders = tuple(
                Border(lowered.views[t].storage, t, network.shapes[t], lowered.views[t]) for t in writes
            )
            segments.append(DpuSegment(graph, reads, borders))
        if piece.nodes:
            segments.append(_host(network, lowered, plan, piece.nodes))
    return tuple(segments)


def _host(network: Network, lowered: Lowered, plan: Plan, nodes: tuple[Node, ...]) -> HostSegment:
    made = {t for n in nodes for t in n.outputs if t}
    inputs = list(
        dict.fromkeys(t for n in nodes for t in n.reads if t not in made and t not in network.constants)
    )
    mine = {n.name for n in nodes}
    others = {t for p in plan.pieces for n in p.nodes if n.name not in mine for t in n.reads}
    sources = {s.tensor for s in lowered.sources.values()}
    outputs = [
        t
        for n in nodes
        for t in n.outputs
        if t and (t in network.output_names or t in others or t in sources)
    ]
    reasons = dict.fromkeys(lowered.host[n.name][0] for n in nodes)
    own = [r for r in reasons if not r.startswith("a view")] or list(reasons)
    return HostSegment(
        network.extract(nodes, inputs, outputs, quantise=network.quantised),
        tuple(inputs),
        tuple(outputs),
        tuple((n.name, n.op) for n in nodes),
        "; ".join(own[:3]),
    )


def _sqnr(
    model: Model,
    lowered: Lowered,
    layers: tuple[Layer, ...],
    shortened: Collection[str],
    sample: Mapping[str, NDArray[Any]],
) -> dict[str, float]:
    """SQNR of each layer whose output an ONNX tensor names, in dB.

    Levelled maps count at their original level; in shortened maps, only what the tables behind them see.
    """
    network = model.network
    named = {x.output: x.name for x in layers if x.output in lowered.views and x.output in network.producer}
    quants = {n: t.quant for g in model.graphs for n, t in g.tensors.items()}
    kept: dict[str, NDArray[Any]] = {}
    model.run(sample, observe=lambda name, value: kept.__setitem__(name, value) if name in named else None)
    names = [n for n in named if n in kept]
    session = new_session(network.extract(network.nodes, [p.name for p in network.inputs], names))
    feeds = real_feeds(network, {p.name: network.feed(p, sample) for p in network.inputs})
    out = {}
    for name, value in run_session(session, names, feeds).items():
        ends = dequantise(np.array([-128, 127], np.int8), quants[name])
        want = np.clip(value, *ends) if name in shortened else value
        real = dequantise(kept[name], quants[name]) * model.divisors.get(name, np.ones(1))
        noise = float(np.sum((lowered.views[name].take(real).reshape(want.shape) - want) ** 2))
        signal = float(np.sum(want.astype(np.float64) ** 2))
        out[named[name]] = float(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))
    return out
