"""What no schedule on this machine can beat: bound <= estimate <= simulated, always."""

from __future__ import annotations

import math

import numpy as np

from ..ir.arch import Arch
from ..ir.graph import Conv, ConvTranspose, Graph, Pool, Reshape, Resize, Slice, Window
from ..ir.isa import Engine, Program
from .dram import DramSpec
from .results import Bounds
from .timing import costs

__all__ = ["bounds", "program_bounds", "touched", "weight_bytes"]


def weight_bytes(graph: Graph) -> int:
    """Weights (a byte each) and biases (four) once; data movement written as a convolution has none."""
    return sum(
        op.weight.size + 4 * op.bias.size
        for op in graph
        if isinstance(op, Conv | ConvTranspose) and not op.moves
    )


def bounds(graph: Graph, arch: Arch, dram: DramSpec) -> Bounds:
    """Absolute bounds of a graph on a machine and a memory.

    Compute: MACs that only the array can do take their time there; depthwise MACs are dealt to array and depthwise
    engine so that both end together. DRAM: weights and biases once, graph inputs, graph outputs. On chip: every
    operator with MACs writes its output once, and a convolution reads as many pixels as it has or makes, whichever
    is less, through the ports of all groups at once.
    """
    array_only = shared = 0
    written = read = 0  # bytes of maps
    frame, frames = graph.frame, graph.frames
    for op in graph:
        out = frame.tensors[op.output].shape
        macs = graph.macs_of(op)
        if not macs:
            continue
        if arch.has_dwc and isinstance(op, Conv) and op.depthwise:
            shared += macs
        else:
            array_only += macs
        written += graph.tensors[op.output].bytes
        if isinstance(op, Conv):
            h, w, c = frame.tensors[op.inputs[0]].shape
            read += min(h * w, out[0] * out[1]) * c * frames
    a, d = arch.macs_per_cycle, arch.depthwise_macs_per_cycle
    maps_in = frames * sum(_bytes_read(frame, name) for name in dict.fromkeys(graph.inputs))
    homes = {_home(graph, name) for name in graph.outputs} - set(graph.inputs)
    maps_out = sum(graph.tensors[name].bytes for name in homes)
    weights = weight_bytes(graph)
    return Bounds(
        compute_cycles=math.floor(max(array_only / a, (array_only + shared) / (a + d))),
        dram_cycles=math.floor(_transfer(maps_in + weights, maps_out, arch, dram)),
        onchip_cycles=max(written, read) // (arch.maps.groups * arch.banks * arch.lanes),
        compulsory_bytes=maps_in + weights + maps_out,
    )


def _home(graph: Graph, name: str) -> str:
    """The map whose bytes in DRAM a view shows."""
    while isinstance(op := graph.producer.get(name), Reshape):
        name = op.inputs[0]
    return name


def _bytes_read(graph: Graph, name: str) -> int:
    """Bytes of a map that its readers touch: strided windows and slices may leave rows, columns or channels out."""
    h, w, c = graph.tensors[name].shape
    most = 0
    for op in graph.consumers[name]:
        if isinstance(op, Reshape):
            most = max(most, _bytes_read(graph, op.output))
        elif isinstance(op, Conv | Pool):
            oh, ow, _ = graph.tensors[op.output].shape
            most = max(most, touched(op.window, 0, oh, h) * touched(op.window, 1, ow, w) * c)
        elif isinstance(op, Slice):
            most = max(most, math.prod(graph.tensors[op.output].shape))
        elif isinstance(op, Resize):
            rows, cols = (len(np.unique(index[:, 0])) for index in (op.rows, op.cols))
            most = max(most, rows * cols * c)
        else:
            most = h * w * c
    return most


def touched(window: Window, axis: int, outputs: int, size: int) -> int:
    """Rows (axis 0) or columns of the input that any tap of any output touches."""
    taps = np.arange(window.kernel[axis]) * window.dilation[axis] - window.pad[axis]
    at = (np.arange(outputs) * window.stride[axis])[:, None] + taps
    return len(np.unique(at[(at >= 0) & (at < size)]))


def _transfer(read: int, written: int, arch: Arch, dram: DramSpec) -> float:
    """Cycles of these bytes at the peak: the ports have a channel each way, the memory has one bus."""
    return max(max(read, written) / arch.stream_bytes, (read + written) / dram.peak_bytes_per_cycle)


def program_bounds(program: Program, arch: Arch, dram: DramSpec) -> Bounds:
    """The same from a program alone, where no graph is at hand: what its instructions do, perfectly overlapped."""
    cost = costs(program.fields, arch)
    d = arch.depthwise_macs_per_cycle
    compute = [int(cost["products"].sum()) / arch.macs_per_cycle]
    if d:
        compute.append(int(cost["depthwise_products"].sum()) / d)
    words = max(int(cost["map_writes"].sum()), int(cost["map_reads"].sum()))
    moved = cost["dram_bytes"]
    saved = int(moved[program.engine == Engine.SAVE].sum())
    total = int(moved.sum())
    return Bounds(
        compute_cycles=math.floor(max(compute)),
        dram_cycles=math.floor(_transfer(total - saved, saved, arch, dram)),
        onchip_cycles=words // (len(Engine) * arch.banks),
        compulsory_bytes=total,
    )
