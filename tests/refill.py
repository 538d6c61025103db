"""Give the `onnx` wheel's light models weights: theirs are constant fills, which no quantiser or cache can tell apart.

Each node runs once on a synthetic image, as the built-in networks are made: kernels are He-normal and scaled so
that their output has variance 1, and batch norms take the statistics of what they really see.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tilewright.frontend.zoo_blocks import synthetic_images

__all__ = ["refill"]

Values = dict[str, NDArray[Any]]


def refill(data: bytes, name: str) -> bytes:
    """Replace every ConstantOfShape by a seeded initializer of its own; all other nodes stay as they are."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    constants: Values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    (entry,) = (v for v in graph.input if v.name not in constants)
    filled = {n.output[0]: tuple(int(v) for v in constants[n.input[0]]) for n in graph.node if _fills(n)}
    roles = _roles(graph)
    weights: Values = {}
    for tensor, shape in filled.items():
        rng = np.random.default_rng(zlib.crc32(f"{name}/{tensor}".encode()))
        role = roles.get(tensor, "kernel")
        if role == "kernel":
            value = rng.standard_normal(shape) * math.sqrt(2.0 / math.prod(shape[1:]))
        else:
            low, high = {"scale": (0.8, 1.2), "lift": (0.7, 1.3), "shift": (-0.3, 0.3)}[role]
            value = rng.uniform(low, high, shape)
        weights[tensor] = value.astype(np.float32)
    kept = [n for n in graph.node if not _fills(n)]
    image = synthetic_images([d.dim_value for d in entry.type.tensor_type.shape.dim], seed=1)
    opset = next(o.version for o in model.opset_import if o.domain == "")
    _settle(kept, weights, {**constants, entry.name: image}, opset)
    used = {i for node in kept for i in node.input}
    initializers = [t for t in graph.initializer if t.name in used]
    initializers += [numpy_helper.from_array(v, k) for k, v in weights.items()]
    # Before IR version 4 every initializer is a graph input too (onnx/docs/IR.md).
    inputs = [entry]
    inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in initializers]
    for field, chosen in ((graph.node, kept), (graph.initializer, initializers), (graph.input, inputs)):
        copies = [type(v).FromString(v.SerializeToString()) for v in chosen]
        del field[:]
        field.extend(copies)
    return bytes(model.SerializeToString())


def _fills(node: Any) -> bool:
    return bool(node.op_type == "ConstantOfShape")


def _roles(graph: Any) -> dict[str, str]:
    """Which filled tensors are scales, shifts or lifts; the others are kernels.

    A lift is the shift before a rectifier: `zoo_blocks.SHIFT` says why it is 1 and not 0.
    """
    roles: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            shift = "lift" if _rectified(graph, node.output[0]) else "shift"
            roles.update(zip(node.input[1:], ("scale", shift, "shift", "scale"), strict=True))
        if node.op_type in {"Conv", "Gemm"} and len(node.input) > 2:
            roles[node.input[2]] = "shift"
        if node.op_type == "Unsqueeze":  # Caffe's scale layer: Unsqueeze, then Mul or Add
            reader = next(n for n in graph.node if node.output[0] in n.input)
            shift = "lift" if _rectified(graph, reader.output[0]) else "shift"
            roles[node.input[0]] = "scale" if reader.op_type == "Mul" else shift
    return roles


def _rectified(graph: Any, tensor: str) -> bool:
    return any(n.op_type == "Relu" and tensor in n.input for n in graph.node)


def _settle(nodes: list[Any], weights: Values, values: Values, opset: int) -> None:
    """Run the nodes in order, adjusting kernels and batch-norm statistics in `weights` on the way."""
    for node in nodes:
        if node.op_type == "BatchNormalization":
            x, mean, variance = values[node.input[0]], *node.input[3:5]
            seen = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
            if mean in weights:
                weights[mean] = seen.mean(axis=1)
            shifted = seen - (weights[mean] if mean in weights else values[mean])[:, None]
            power = np.mean(shifted**2, axis=1)
            if variance in weights:
                weights[variance] = np.maximum(power, 0.01 * np.median(power)).astype(np.float32)
        if node.op_type in {"Conv", "Gemm"} and node.input[1] in weights:
            (raw,) = _run(node, weights, values, opset)
            weights[node.input[1]] /= np.float32(raw.std())
        for output, value in zip(node.output, _run(node, weights, values, opset), strict=True):
            values[output] = value


def _run(node: Any, weights: Values, values: Values, opset: int) -> list[NDArray[Any]]:
    feeds = {i: weights[i] if i in weights else values[i] for i in node.input if i}
    declared = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in feeds.items()
    ]
    graph = helper.make_graph(
        [node], "node", declared, [helper.make_empty_tensor_value_info(o) for o in node.output]
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))
