"""Quantised models become float networks with notes: which tensor has which int8 scale and zero point.

QOperator nodes (QLinearConv, ...) are first spelt as dequantise, float operator, quantise; then every
quantise/dequantise pair is taken out and noted. What remains is lowered like a float network, and the notes fix its
scales. uint8 becomes int8 by subtracting 128 from values and zero point: the real values stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import ModelError
from ..ir.graph import Quant
from .network import QuantisedConstant

__all__ = ["Stripped", "spell_qoperators", "strip"]

MOVES = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Identity", "Split", "DepthToSpace",
     "SpaceToDepth", "Concat", "Resize", "Gather", "Pad"}
)  # fmt: skip
"""Operators that may stand on integer tensors between a quantise and a dequantise: values move, none is computed."""


@dataclass
class Stripped:
    """What `strip` found."""

    nodes: list[Any] = field(default_factory=list)
    quants: dict[str, Quant] = field(default_factory=dict)
    weights: dict[str, QuantisedConstant] = field(default_factory=dict)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    integer_inputs: set[str] = field(default_factory=set)


def spell_qoperators(nodes: list[Any]) -> list[Any]:
    """Each QOperator node as dequantise, operator, quantise; other nodes unchanged."""
    from onnx import helper

    out: list[Any] = []

    def dequantise(node: Any, *slots: int, tag: str, axis: int | None = None) -> str:
        name = f"{node.name}/{tag}"
        inputs = [node.input[s] for s in slots if s < len(node.input)]
        extra = {} if axis is None else {"axis": axis}
        out.append(helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}_dequantise", **extra))
        return name

    def finish(node: Any, op: str, inputs: list[str], scale: str, zero: str, **extra: Any) -> None:
        real = f"{node.name}/real"
        made = helper.make_node(op, inputs, [real], name=node.name, **extra)
        out.append(made)
        out.append(
            helper.make_node(
                "QuantizeLinear",
                [real, scale, zero] if zero else [real, scale],
                list(node.output),
                name=f"{node.name}/quantise",
            )
        )

    for node in nodes:
        keep = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "QLinearConv":
            x, w = dequantise(node, 0, 1, 2, tag="x"), dequantise(node, 3, 4, 5, tag="w", axis=0)
            inputs = [x, w]
            if len(node.input) > 8 and node.input[8]:
                bias = f"{node.name}/b"
                out.append(
                    helper.make_node(
                        "_BiasOf", [node.input[8], node.input[1], node.input[4]], [bias], name=bias
                    )
                )
                inputs.append(bias)
            finish(node, "Conv", inputs, node.input[6], node.input[7], **keep)
        elif node.op_type == "QGemm":
            x, w = (
                dequantise(node, 0, 1, 2, tag="x"),
                dequantise(node, 3, 4, 5, tag="w", axis=0 if keep.get("transB") else 1),
            )
            inputs = [x, w]
            if len(node.input) > 6 and node.input[6]:
                bias = f"{node.name}/b"
                out.append(
                    helper.make_node(
                        "_BiasOf", [node.input[6], node.input[1], node.input[4]], [bias], name=bias
                    )
                )
                inputs.append(bias)
            if len(node.input) < 9 or not node.input[7]:
                raise ModelError(
                    f"{node.name} (QGemm): has a float output; quantise it with an output scale",
                    node=node.name,
                )
            finish(node, "Gemm", inputs, node.input[7], node.input[8], **keep)
        elif node.op_type == "QLinearMatMul":
            x, w = dequantise(node, 0, 1, 2, tag="x"), dequantise(node, 3, 4, 5, tag="w", axis=1)
            finish(node, "MatMul", [x, w], node.input[6], node.input[7])
        elif node.op_type in {"QLinearAdd", "QLinearMul"}:
            a, b = dequantise(node, 0, 1, 2, tag="a"), dequantise(node, 3, 4, 5, tag="b")
            finish(
                node, node.op_type[7:], [a, b], node.input[6], node.input[7] if len(node.input) > 7 else ""
            )
        elif node.op_type in {
            "QLinearSigmoid",
            "QLinearLeakyRelu",
            "QLinearGlobalAveragePool",
            "QLinearAveragePool",
            "QLinearSoftmax",
        }:
            x = dequantise(node, 0, 1, 2, tag="x")
            last = bool(keep.pop("channels_last", 0))
            if last:
                raise ModelError(
                    f"{node.name} ({node.op_type}): channels_last is not read; quantise in QDQ format",
                    node=node.name,
                )
            keep.pop("opset", None)
            finish(
                node,
                node.op_type[7:],
                [x],
                node.input[3],
                node.input[4] if len(node.input) > 4 else "",
                **keep,
            )
        elif node.op_type == "QLinearConcat":
            names = []
            for i in range(2, len(node.input), 3):
                names.append(dequantise(node, i, i + 1, i + 2, tag=f"x{i // 3}"))
            finish(node, "Concat", names, node.input[0], node.input[1], **keep)
        else:
            out.append(node)
    return out


def _quant(node: Any, scale: NDArray[Any], zero: NDArray[Any] | None) -> Quant:
    """Per-tensor Quant of a quantise or dequantise node, uint8 shifted to int8."""
    if scale.size != 1:
        raise ModelError(
            f"{node.name} ({node.op_type}): {scale.size} scales for an activation, the DPU takes one a tensor; quantise activations per tensor",
            node=node.name,
        )
    zero = np.zeros((), np.uint8) if zero is None else zero
    if zero.dtype not in {np.dtype(np.uint8), np.dtype(np.int8)}:
        raise ModelError(
            f"{node.name} ({node.op_type}): {zero.dtype} activations, the DPU takes 8 bits; quantise to int8",
            node=node.name,
        )
    return Quant(
        float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]) - (128 if zero.dtype == np.uint8 else 0)
    )


def strip(
    nodes: list[Any], constants: dict[str, NDArray[Any]], inputs: set[str], outputs: set[str]
) -> Stripped:
    """Take quantise and dequantise nodes out.

    Parameters
    ----------
    nodes : list of NodeProto
        Topological order, QOperators already spelt.
    constants : dict of name to array
    inputs, outputs : names of the graph's inputs and outputs

    Raises
    ------
    ModelError
        A pattern that is no per-tensor int8 quantisation.
    """
    from onnx import helper

    found = Stripped(constants=dict(constants))
    alias: dict[str, str] = {}  # dequantised tensor -> the float tensor it stands for
    integer: dict[str, tuple[str, Quant]] = {}  # integer tensor -> float tensor, its quantisation

    def value(name: str) -> NDArray[Any] | None:
        return constants.get(name) if name else None

    for node in nodes:
        ins = [alias.get(i, i) for i in node.input]
        if node.op_type == "QuantizeLinear":
            scale, zero = value(node.input[1]), value(node.input[2]) if len(node.input) > 2 else None
            if scale is None or (len(node.input) > 2 and node.input[2] and zero is None):
                raise ModelError(
                    f"{node.name} (QuantizeLinear): its scale is computed by the network; quantise statically",
                    node=node.name,
                )
            quant = _quant(node, scale, zero)
            base = ins[0]
            if base in found.quants and found.quants[base] != quant:
                base = f"{node.output[0]}/rescaled"
                found.nodes.append(
                    helper.make_node("Identity", [ins[0]], [base], name=f"{node.name}/rescale")
                )
            found.quants[base] = quant
            integer[node.output[0]] = (base, quant)
        elif node.op_type == "DequantizeLinear":
            source = node.input[0]
            scale, zero = value(node.input[1]), value(node.input[2]) if len(node.input) > 2 else None
            if scale is None:
                raise ModelError(
                    f"{node.name} (DequantizeLinear): its scale is computed by the network; quantise statically",
                    node=node.name,
                )
            if source in constants:
                _constant(node, constants[source], scale, zero, found)
                continue
            if source in inputs:
                quant = _quant(node, scale, zero)
                found.quants[source] = quant
                found.integer_inputs.add(source)
                integer[source] = (source, quant)
            if source not in integer:
                raise ModelError(
                    f"{node.name} (DequantizeLinear): reads {source}, which no quantise node makes; export in QDQ format",
                    node=node.name,
                )
            base, quant = integer[source]
            same = _quant(node, scale, zero)
            if same != quant:
                raise ModelError(
                    f"{node.name} (DequantizeLinear): scale {same.scale} and zero point {same.zero_point}, its tensor was quantised with "
                    f"{quant.scale} and {quant.zero_point}; quantise the model again",
                    node=node.name,
                )
            alias[node.output[0]] = base
        elif node.op_type == "_BiasOf":
            bias, xs, ws = (constants[i] for i in node.input)
            steps = (np.float64(xs.reshape(-1)[0]) * ws.astype(np.float64)).reshape(-1)
            found.constants[node.output[0]] = (bias * steps).astype(np.float32)
            found.weights[node.output[0]] = QuantisedConstant(
                bias.astype(np.int64), steps.astype(np.float32), 0 if steps.size > 1 else None
            )
        elif any(i in integer for i in node.input if i):
            if node.op_type not in MOVES:
                raise ModelError(
                    f"{node.name} ({node.op_type}): computes on integers outside the quantised operators we read; quantise in QDQ format",
                    node=node.name,
                )
            moved = type(node).FromString(node.SerializeToString())
            quants = {integer[i][1] for i in node.input if i in integer}
            if len(quants) > 1:
                raise ModelError(
                    f"{node.name} ({node.op_type}): joins integers of different scales; quantise the model again",
                    node=node.name,
                )
            quant = quants.pop()
            for i, name in enumerate(node.input):
                if name in integer:
                    moved.input[i] = integer[name][0]
            for i, name in enumerate(node.output):
                if name:
                    moved.output[i] = f"{name}/real"
                    integer[name] = (f"{name}/real", quant)
                    found.quants[f"{name}/real"] = quant
            found.nodes.append(moved)
        else:
            plain = type(node).FromString(node.SerializeToString())
            for i, name in enumerate(ins):
                plain.input[i] = name
            found.nodes.append(plain)
    for name in outputs:  # a graph output that is a dequantised or an integer tensor keeps its name
        base = alias.get(name) or (integer[name][0] if name in integer and name not in inputs else None)
        if base is not None and base != name:
            found.nodes.append(helper.make_node("Identity", [base], [name], name=f"{name}/output"))
            if name in integer:
                found.renamed[name] = base
    return found


def _constant(
    node: Any, values: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | None, found: Stripped
) -> None:
    """Note integer weights under the name of their dequantised tensor."""
    axis: int | None = None
    if scale.size > 1:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % values.ndim
        if scale.ndim != 1 or values.shape[axis] != scale.size:
            raise ModelError(
                f"{node.name} (DequantizeLinear): {scale.size} scales for axis {axis} of {list(values.shape)}; quantise weights per channel or per tensor",
                node=node.name,
            )
    shape = [1] * values.ndim
    if axis is not None:
        shape[axis] = -1
    centred = values.astype(np.int64)
    if zero is not None:
        centred = centred - (
            zero.astype(np.int64).reshape(shape) if zero.size > 1 else int(zero.reshape(-1)[0])
        )
    name = node.output[0]
    steps = scale.astype(np.float32)
    found.weights[name] = QuantisedConstant(centred, steps.reshape(-1), axis)
    found.constants[name] = (
        centred * (steps.reshape(shape) if steps.size > 1 else steps.reshape(-1)[0])
    ).astype(np.float32)
