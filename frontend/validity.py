"""Validity: what must hold before anything executes a model; every refusal names the node.

Opsets and domains, names and order, attribute ranges, constants, and windows that fit their maps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import ModelError
from .read import MAX_TENSOR_BYTES, attributes, captured

__all__ = ["check_structure", "check_values", "check_windows", "order_nodes"]

MAX_ATTRIBUTE = 1 << 20
"""Largest stride, dilation, kernel extent or pad: above any image extent the ISA holds (2^14), small enough that
no product of two overflows."""
DOMAINS = frozenset({"", "ai.onnx", "com.microsoft", "ai.onnx.ml"})
OLDEST_OPSET = 7
"""Before opset 7, broadcasting was an attribute (ONNX changelog, Add-7); onnx's converter starts there too."""


def check_structure(model: Any) -> None:
    """Opsets, domains, node names, cycles, attribute ranges; names nodes that have none.

    Raises
    ------
    ModelError
        With the node's name.
    """
    import onnx

    newest = onnx.defs.onnx_opset_version()
    versions = {o.domain or "": o.version for o in model.opset_import}
    versions = {("" if d == "ai.onnx" else d): v for d, v in versions.items()}
    version = versions.get("", 0)
    if not OLDEST_OPSET <= version <= newest:
        raise ModelError(
            f"opset {version} of the ONNX operators is not one of {OLDEST_OPSET}..{newest}; export with opset 17, or convert with "
            "onnx.version_converter",
            opset=version,
        )
    graph = model.graph
    local = {(f.domain, f.name) for f in model.functions}
    taken: set[str] = set()
    for i, node in enumerate(graph.node):
        base = node.name or (node.output[0] if node.output and node.output[0] else f"{node.op_type}_{i}")
        name, n = base, 1
        while name in taken:
            name, n = f"{base}_{n}", n + 1
        taken.add(name)
        node.name = name
        if node.domain not in DOMAINS and (node.domain, node.op_type) not in local:
            raise ModelError(
                f"{name} ({node.op_type}): domain {node.domain!r} is not known (known: ONNX, com.microsoft); "
                "export without custom operators",
                node=name,
            )
        _check_attributes(node)
    order_nodes(graph)


def order_nodes(graph: Any) -> None:
    """Put nodes in topological order; raises ModelError naming a node of a cycle or one that reads nothing known."""
    known = (
        {""}
        | {v.name for v in graph.input}
        | {t.name for t in graph.initializer}
        | {s.values.name for s in graph.sparse_initializer}
    )
    made: dict[str, str] = {}
    for node in graph.node:
        for name in node.output:
            if name and (name in made or name in known):
                raise ModelError(
                    f"{node.name} ({node.op_type}): output {name} is produced twice; export the model again",
                    node=node.name,
                )
            if name:
                made[name] = node.name
    for node in graph.node:
        for name in (*node.input, *captured(node)):
            if name not in known and name not in made:
                raise ModelError(
                    f"{node.name} ({node.op_type}): reads {name}, which nothing produces; export the model again",
                    node=node.name,
                )
    waiting: dict[str, list[int]] = {}
    missing: list[int] = []
    ready: list[int] = []
    for i, node in enumerate(graph.node):
        needs = {n for n in (*node.input, *captured(node)) if n not in known}
        missing.append(len(needs))
        for n in needs:
            waiting.setdefault(n, []).append(i)
        if not needs:
            ready.append(i)
    order: list[int] = []
    for i in ready:  # grows while it is walked
        order.append(i)
        for name in graph.node[i].output:
            for j in waiting.pop(name, ()) if name else ():
                missing[j] -= 1
                if not missing[j]:
                    ready.append(j)
    if len(order) < len(graph.node):
        stuck = next(n for i, n in enumerate(graph.node) if missing[i])
        raise ModelError(
            f"{stuck.name} ({stuck.op_type}): the graph has a cycle through this node; a network is acyclic, so export it again",
            node=stuck.name,
        )
    if order != sorted(order):
        nodes = [graph.node[i] for i in order]
        copies = [type(n).FromString(n.SerializeToString()) for n in nodes]
        del graph.node[:]
        graph.node.extend(copies)


_LISTS = {
    "strides": 1,
    "dilations": 1,
    "kernel_shape": 1,
    "pads": -MAX_ATTRIBUTE,
    "output_padding": 0,
    "output_shape": 1,
}
"""Attributes that are lists of integers, and the least each may be."""


def _check_attributes(node: Any) -> None:
    values, where = attributes(node), f"{node.name} ({node.op_type})"
    for key, floor in _LISTS.items():
        if key not in values:
            continue
        listed = values[key]
        if not isinstance(listed, list) or not all(isinstance(v, int) for v in listed):
            raise ModelError(
                f"{where}: {key} is no list of integers; correct it and export again", node=node.name
            )
        for v in listed:
            if not floor <= v <= MAX_ATTRIBUTE:
                raise ModelError(
                    f"{where}: {key} {v} is outside {floor}..{MAX_ATTRIBUTE}; correct it and export again",
                    node=node.name,
                )
    if node.op_type in _CONVOLUTIONS | {"QLinearConv"}:
        group = values.get("group", 1)
        if not isinstance(group, int) or not 1 <= group <= MAX_ATTRIBUTE:
            raise ModelError(
                f"{where}: group {group} is not a positive count that divides the channels; correct it and export again",
                node=node.name,
            )


def check_values(model: Any) -> None:
    """Constants: sizes that agree with their shape, positive quantisation scales, finite weights.

    Raises
    ------
    ModelError
        With the tensor's or the node's name.
    """
    arrays = {t.name: _array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        where = f"{node.name} ({node.op_type})"
        for slot in _SCALES.get(node.op_type, ()):
            scale = arrays.get(node.input[slot]) if slot < len(node.input) else None
            if scale is not None and not np.all(np.isfinite(scale) & (scale > 0)):
                bad = scale.reshape(-1)[~(np.isfinite(scale) & (scale > 0)).reshape(-1)][0]
                raise ModelError(
                    f"{where}: scale {bad} in {node.input[slot]} is not positive and finite; quantise the model again",
                    node=node.name,
                )
        for name in node.input:
            if name in arrays:
                _check_finite(where, node, name, arrays[name])
        weight = arrays.get(node.input[1]) if node.op_type in _CONVOLUTIONS and len(node.input) > 1 else None
        if weight is not None:
            group = attributes(node).get("group", 1)
            if weight.ndim < 3 or weight.shape[0] % group or min(weight.shape) < 1:
                raise ModelError(
                    f"{where}: group {group} does not divide the {weight.shape[0]} channels of weights "
                    f"{list(weight.shape)}; correct it and export again",
                    node=node.name,
                )


def _array(tensor: Any) -> NDArray[Any]:
    from onnx import numpy_helper

    dims, count = list(tensor.dims), 1
    for d in dims:
        count *= d
    if any(d < 0 for d in dims) or count > MAX_TENSOR_BYTES:
        raise ModelError(
            f"constant {tensor.name}: shape {dims} is negative or above {MAX_TENSOR_BYTES} elements; export again",
            tensor=tensor.name,
        )
    try:
        array: NDArray[Any] = numpy_helper.to_array(tensor)
    except Exception:  # ValueError, TypeError or KeyError, for the several ways to be inconsistent
        raise ModelError(
            f"constant {tensor.name}: its data does not have the {count} elements of its shape {dims}, or its type "
            "is unknown; the file is damaged, so export it again",
            tensor=tensor.name,
        ) from None
    return array


def _check_finite(where: str, node: Any, name: str, array: NDArray[Any]) -> None:
    """No NaN anywhere; infinities only where they are legitimate (a bound of Clip, a mask)."""
    if array.dtype.kind != "f" or not array.size or np.isfinite(np.min(array) + np.max(array)):
        return
    bad = int(np.sum(~np.isfinite(array)))
    if np.any(np.isnan(array)) or (bad and node.op_type in _WEIGHTED):
        raise ModelError(
            f"{where}: {bad} of {array.size} values of {name} are NaN or infinite; the training diverged or the "
            "file is damaged, so export it again",
            node=node.name,
            tensor=name,
        )


_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_WEIGHTED = _CONVOLUTIONS | {"Gemm", "MatMul", "BatchNormalization", "PRelu"}
_SCALES = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "QLinearAdd": (1, 4, 6),
    "QLinearMul": (1, 4, 6),
    "QLinearSigmoid": (1, 3),
    "QLinearLeakyRelu": (1, 3),
    "QLinearGlobalAveragePool": (1, 3),
    "QLinearAveragePool": (1, 3),
    "QGemm": (1, 4, 7),
}
"""Inputs that are scales (ONNX and com.microsoft operator documentation)."""


def check_windows(model: Any) -> None:
    """Convolutions and pools whose weights, channels and window fit the map they read.

    Parameters
    ----------
    model : ModelProto with inferred shapes

    Raises
    ------
    ModelError
        With the node's name and both numbers.
    """
    shapes: dict[str, list[int]] = {t.name: list(t.dims) for t in model.graph.initializer}
    for v in (*model.graph.input, *model.graph.value_info):
        tensor = v.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[v.name] = [d.dim_value for d in tensor.shape.dim]
    for node in model.graph.node:
        if node.op_type in _CONVOLUTIONS | {"MaxPool", "AveragePool"} and node.input:
            weight = (
                shapes.get(node.input[1]) if node.op_type in _CONVOLUTIONS and len(node.input) > 1 else None
            )
            _check_window(node, shapes.get(node.input[0]), weight)


def _check_window(node: Any, shape: list[int] | None, weight: list[int] | None) -> None:
    values, where = attributes(node), f"{node.name} ({node.op_type})"

    def refuse(what: str) -> ModelError:
        return ModelError(f"{where}: {what}; correct it and export again", node=node.name)

    auto = values.get("auto_pad", "NOTSET")
    if auto not in {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"}:
        raise refuse(f"auto_pad {auto!r} is not one of NOTSET, SAME_UPPER, SAME_LOWER, VALID")
    kernel = values.get("kernel_shape")
    if weight is not None:
        group = values.get("group", 1)
        if kernel is not None and list(kernel) != weight[2:]:
            raise refuse(f"kernel_shape {list(kernel)} and weights of {weight[2:]}")
        kernel = weight[2:]
        if shape is not None and len(shape) > 1:
            wants = weight[1] * group if node.op_type == "Conv" else weight[0]
            if len(shape) != len(weight):
                raise refuse(f"weights of {len(weight)} axes over a map of {len(shape)}")
            if shape[1] != wants:
                raise refuse(
                    f"weights {weight} in {group} groups read {wants} channels, its input has {shape[1]}"
                )
    if kernel is None:
        return
    count = len(kernel)
    for key, length in (("strides", count), ("dilations", count), ("pads", 2 * count)):
        if key in values and len(values[key]) != length:
            raise refuse(f"{len(values[key])} {key} for a window of {count} axes")
    if shape is None or node.op_type == "ConvTranspose" or auto.startswith("SAME") or len(shape) != count + 2:
        return
    pads, dilations = values.get("pads", [0] * 2 * count), values.get("dilations", [1] * count)
    for i, (k, d) in enumerate(zip(kernel, dilations, strict=True)):
        span, extent = d * (k - 1) + 1, shape[i + 2] + pads[i] + pads[i + count]
        if span > extent:
            raise refuse(f"its window spans {span} and the padded map has {extent}")
