"""onnxruntime as the outside judge: how near the int8 network's values are to its."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper
from tilewright import frontend
from tilewright.frontend import DpuSegment, Model

__all__ = ["Agreement", "Stored", "agreement", "differing", "quiet_options", "stored_maps"]

Array = NDArray[Any]


def quiet_options() -> Any:
    """Session options without warnings about what onnxruntime does to a model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def stored_maps(model: Any, image: Any) -> dict[str, Any]:
    """Every int8 tensor that onnxruntime stores, unoptimised, under the name of the real tensor it stands for."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    pairs = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    del probed.graph.output[:]
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in pairs)
    options = quiet_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        probed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run(list(pairs), {session.get_inputs()[0].name: image})
    stored = {}
    for (quantised, real), value in zip(pairs.items(), values, strict=True):
        signed = value.astype(np.int16) - (128 if value.dtype == np.uint8 else 0)
        stored[real] = stored[quantised] = signed
    readers = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    stored.update({out: stored[q] for out, q in readers.items() if q in stored})
    return stored


def differing(model: Any, image: Any) -> tuple[int, int, int]:
    """Bytes of a quantised model compared with onnxruntime's, those that differ, and the largest difference."""
    network = frontend.load(model)
    wanted = stored_maps(model, image)
    compared, differ, largest = 0, 0, 0

    def observe(name: str, value: Any) -> None:
        nonlocal compared, differ, largest
        if name in wanted:
            theirs = wanted[name]
            theirs = theirs.reshape(theirs.shape[1], *(theirs.shape[2:] or (1, 1))).transpose(1, 2, 0)
            apart = np.abs(value.astype(np.int16) - theirs)
            compared, differ = compared + apart.size, differ + int(np.count_nonzero(apart))
            largest = max(largest, int(apart.max()))

    frontend.quantize(network, None).run({network.inputs[0].name: image}, observe=observe)
    return compared, differ, largest


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored bytes of an int8 network beside onnxruntime's."""

    compared: int
    differing: int
    largest_lsb: int

    def __str__(self) -> str:
        by = f", by {self.largest_lsb} LSB at most" if self.differing else ""
        return f"{self.differing:,} of {self.compared:,} bytes differ{by}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Outputs of an int8 network beside those of the float one.

    Parameters
    ----------
    sqnr_db : float
        Signal to quantisation noise over all outputs.
    same_largest, outputs : int
        Outputs whose largest value stands at the same place (one of them, where several are the largest), of how many.
    largest_lsb : float or None
        Largest difference in steps of the output's scale; None where the host computes every output.
    """

    sqnr_db: float
    same_largest: int
    outputs: int
    largest_lsb: float | None

    def __str__(self) -> str:
        steps = "" if self.largest_lsb is None else f", at most {self.largest_lsb:.0f} LSB"
        return f"{self.sqnr_db:.1f} dB{steps}, largest at the same place in {self.same_largest} of {self.outputs}"


def agreement(model: Model, outputs: dict[str, Array], wanted: dict[str, Array]) -> Agreement:
    """Compare a frame's outputs with onnxruntime's of the float network."""
    scales = {
        border.tensor: s.graph.tensors[border.map].quant.scale
        for s in model.segments
        if isinstance(s, DpuSegment)
        for border in s.writes
    }
    noise = signal = 0.0
    same, steps = 0, []
    for name, want in wanted.items():
        apart = outputs[name].astype(np.float64) - want
        noise, signal = noise + float(np.sum(apart**2)), signal + float(np.sum(want.astype(np.float64) ** 2))
        got = outputs[name]
        same += int(got.flat[want.argmax()] == got.max() or want.flat[got.argmax()] == want.max())
        if name in scales:
            steps.append(float(np.abs(apart).max()) / scales[name])
    ratio = 10 * np.log10(signal / noise) if noise and signal else 200.0
    return Agreement(float(ratio), same, len(wanted), max(steps) if steps else None)
