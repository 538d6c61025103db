"""The quantised model: segments in execution order, and how to run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import ModelError
from ..ir.graph import Graph, Quant
from ..ir.reference import run as reference_run
from .calibration import real_feeds
from .network import Network, Port, new_session, run_session
from .views import View

__all__ = ["Border", "DpuSegment", "HostSegment", "Model", "dequantise", "quantise"]

Array = NDArray[Any]
Execute = Callable[[Graph, dict[str, NDArray[np.int8]]], dict[str, NDArray[np.int8]]]


def quantise(real: Array, quant: Quant) -> NDArray[np.int8]:
    """Real values as int8, in float32 as onnxruntime's QuantizeLinear.

    >>> quantise(np.array([0.25, 100.0]), Quant(0.5)).tolist()
    [0, 127]
    """
    scaled = np.rint(np.asarray(real, np.float32) / np.float32(quant.scale)) + np.float32(quant.zero_point)
    codes: NDArray[np.int8] = np.clip(scaled, -128, 127).astype(np.int8)
    return codes


def dequantise(values: NDArray[np.int8], quant: Quant) -> NDArray[np.float32]:
    """int8 as real values."""
    real: NDArray[np.float32] = (values.astype(np.float32) - np.float32(quant.zero_point)) * np.float32(
        quant.scale
    )
    return real


@dataclass(frozen=True, eq=False)
class Border:
    """A map of a DPU segment and the ONNX tensor it is filled from, or becomes."""

    map: str
    tensor: str
    shape: tuple[int, ...]
    view: View = field(repr=False)


@dataclass(frozen=True, eq=False)
class DpuSegment:
    """A graph for the DPU.

    Parameters
    ----------
    graph : Graph
        Inputs that no border fills are outputs of an earlier DPU segment.
    reads, writes : tuple of Border
        Maps quantised from ONNX tensors, and ONNX tensors dequantised from maps.
    """

    graph: Graph
    reads: tuple[Border, ...] = ()
    writes: tuple[Border, ...] = ()

    def encode(self, tensors: Mapping[str, Array]) -> dict[str, NDArray[np.int8]]:
        """The maps filled at the border, from real ONNX tensors."""
        maps = {}
        for border in self.reads:
            tensor = self.graph.tensors[border.map]
            flat = quantise(tensors[border.tensor], tensor.quant).reshape(-1)
            maps[border.map] = np.ascontiguousarray(flat[border.view.index()]).reshape(tensor.shape)
        return maps

    def decode(self, maps: Mapping[str, NDArray[np.int8]]) -> dict[str, Array]:
        """Real ONNX tensors from the maps at the border."""
        return {
            b.tensor: dequantise(
                b.view.take(maps[b.map]).astype(np.int8), self.graph.tensors[b.map].quant
            ).reshape(b.shape)
            for b in self.writes
        }


@dataclass(frozen=True, eq=False)
class HostSegment:
    """Float operators that onnxruntime runs between DPU segments.

    Parameters
    ----------
    onnx : bytes
        Serialised model of just these nodes.
    inputs, outputs : tuple of ONNX tensor names
    nodes : tuple of (name, op)
    reason : str
        Why the DPU does not run them.
    """

    onnx: bytes = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[tuple[str, str], ...]
    reason: str

    def run(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Evaluate the segment on real ONNX tensors."""
        return run_session(self._session, self.outputs, {n: tensors[n] for n in self.inputs})

    @cached_property
    def _session(self) -> Any:
        return new_session(self.onnx, exact=True)


@dataclass(frozen=True, eq=False)
class Model:
    """A network as int8 graphs and host segments, in execution order.

    Parameters
    ----------
    name : str
    segments : tuple of DpuSegment or HostSegment
    inputs, outputs : tuple of Port
        As in the ONNX model (NCHW).
    calibration : {"user", "synthetic", "model"}
        Where the scales come from; "model" was quantised before it came here.
    mode : rounding mode of its requantisation
    divisors : dict of map name to array (C,)
        Channel factors by which equalisation made a map smaller than the ONNX tensor of its name.
    """

    name: str
    segments: tuple[DpuSegment | HostSegment, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    calibration: Literal["user", "synthetic", "model"]
    mode: str
    network: Network = field(repr=False)
    measure_sqnr: Callable[[Model], dict[str, float]] = field(repr=False)
    divisors: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The DPU's graphs, in order."""
        return tuple(s.graph for s in self.segments if isinstance(s, DpuSegment))

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one frame on the DPU."""
        return sum(g.macs for g in self.graphs)

    @cached_property
    def parameters(self) -> int:
        """Trained parameters on the DPU."""
        return sum(g.parameters for g in self.graphs)

    @cached_property
    def sqnr_db(self) -> dict[str, float]:
        """Signal to quantisation noise of each layer's output in dB, int8 against float, on one calibration frame.

        Computed on first use with the integer reference.
        """
        return self.measure_sqnr(self)

    def run(
        self,
        feeds: Mapping[str, Array],
        execute: Execute | None = None,
        observe: Callable[[str, Array], None] | None = None,
    ) -> dict[str, Array]:
        """Run one frame.

        Parameters
        ----------
        feeds : dict of input name to array in ONNX layout
        execute : callable, optional
            Runs a graph on int8 maps; default the integer reference. The emulator fits here.
        observe : callable, optional
            With the default executor: called with each map's name and its int8 value.

        Returns
        -------
        dict of output name to float array in ONNX layout
        """
        return self.run_batch([feeds], execute, observe)[0]

    def run_batch(
        self,
        batch: Sequence[Mapping[str, Array]],
        execute: Execute | None = None,
        observe: Callable[[str, Array], None] | None = None,
    ) -> list[dict[str, Array]]:
        """Run frames together: `execute` is given the maps of all, frames below each other.

        Parameters and results are as of `run`, one of each a frame.
        """
        each: list[dict[str, Array]] = [
            real_feeds(self.network, {p.name: self.network.feed(p, feeds) for p in self.inputs})
            for feeds in batch
        ]
        maps: dict[str, NDArray[np.int8]] = {}
        for segment in self.segments:
            if isinstance(segment, HostSegment):
                for tensors in each:
                    tensors.update(segment.run(tensors))
                continue
            encoded = [segment.encode(tensors) for tensors in each]
            maps.update({name: np.concatenate([e[name] for e in encoded]) for name in encoded[0]})
            graph = segment.graph
            fed = {n: maps[n] for n in graph.inputs}
            if execute is None:
                maps.update(reference_run(graph.stacked(len(batch)), fed, observe))
            else:
                maps.update(execute(graph, fed))
            apart = {b.map: np.split(maps[b.map], len(batch)) for b in segment.writes}
            for f, tensors in enumerate(each):
                tensors.update(segment.decode({name: values[f] for name, values in apart.items()}))
        missing = [p.name for p in self.outputs if p.name not in each[0]]
        if missing:
            raise ModelError(f"output {missing[0]} is computed by no segment", tensor=missing[0])
        return [{p.name: tensors[p.name] for p in self.outputs} for tensors in each]
