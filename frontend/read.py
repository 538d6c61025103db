"""Reading an ONNX file that may be broken or hostile: bounded, with errors that name the node.

Nothing here executes the model. Declared sizes are bounded before onnxruntime may fold anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import ModelError

__all__ = [
    "MAX_BYTES",
    "MAX_TENSOR_BYTES",
    "attributes",
    "check_structure",
    "check_values",
    "order_nodes",
    "read_model",
]

MAX_BYTES = (1 << 31) - 1
"""Largest serialised protobuf message (protobuf encoding guide: 2 GiB)."""
MAX_TENSOR_BYTES = 1 << 30
"""Largest tensor a network may declare or compute at import: no int8 feature map or weight of a network this
machine could hold comes near it, and an onnxruntime fold stays within an ordinary host's memory."""
MAX_ATTRIBUTE = 1 << 20
"""Largest stride, dilation, kernel extent or pad: above any image extent the ISA holds (2^14), small enough that
no product of two overflows."""
DOMAINS = frozenset({"", "ai.onnx", "com.microsoft", "ai.onnx.ml"})
OLDEST_OPSET = 7
"""Before opset 7, broadcasting was an attribute (ONNX changelog, Add-7); onnx's converter starts there too."""


def read_model(source: Any) -> tuple[Any, str]:
    """Parse a path, bytes or ModelProto.

    Returns
    -------
    (model, name)
        An own copy of the ModelProto with external data loaded, and the file's stem or the graph's name.

    Raises
    ------
    ModelError
        Not a readable ONNX model; the message says what it is instead.
    """
    import onnx

    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        _refuse_external(model)
        return model, model.graph.name or "network"
    if isinstance(source, bytes | bytearray | memoryview):
        model = _parse(bytes(source), "the given bytes")
        _refuse_external(model)
        return model, model.graph.name or "network"
    path = Path(source)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise ModelError(f"{path}: {what}; give the path of an .onnx file", path=str(path))
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ModelError(
            f"{path}: {size} bytes, and one ONNX file holds at most {MAX_BYTES}; save its weights as external data",
            bytes=size,
        )
    model = _parse(path.read_bytes(), str(path))
    _load_external(model, path.parent)
    return model, path.stem


def _parse(data: bytes, where: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not data:
        raise ModelError(f"{where}: empty; give an ONNX model")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError):
        raise ModelError(
            f"{where}: {len(data)} bytes that are no ONNX model (the protobuf does not parse: truncated, or another format); "
            "download or export it again",
            bytes=len(data),
        ) from None
    if not model.graph.node:
        raise ModelError(
            f"{where}: no ONNX graph inside (0 nodes in {len(data)} bytes); export the model again",
            bytes=len(data),
        )
    return model


def tensors(graph: Any) -> Iterator[Any]:
    """Every TensorProto of a graph and its subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for a in node.attribute:
            if a.HasField("t"):
                yield a.t
            yield from a.tensors
            if a.HasField("g"):
                yield from tensors(a.g)
            for g in a.graphs:
                yield from tensors(g)


def _external(model: Any) -> list[Any]:
    from onnx import TensorProto

    return [t for t in tensors(model.graph) if t.data_location == TensorProto.EXTERNAL]


def _refuse_external(model: Any) -> None:
    found = _external(model)
    if found:
        raise ModelError(
            f"tensor {found[0].name}: its data is in an external file, and a model given as bytes has no folder; "
            "give the path of the .onnx file instead",
            tensor=found[0].name,
        )


def _load_external(model: Any, folder: Path) -> None:
    """Load external tensors whose file lies inside the model's own folder, without following links out of it."""
    from onnx import TensorProto

    root, total = folder.resolve(), 0
    for tensor in _external(model):
        entry = {e.key: e.value for e in tensor.external_data}
        location = entry.get("location", "")
        target = folder / location
        if (
            not location
            or os.path.isabs(location)
            or ".." in Path(location).parts
            or not target.resolve().is_relative_to(root)
        ):
            raise ModelError(
                f"tensor {tensor.name}: external data at {location!r} is outside the model's folder; move the file beside "
                "the model and save its relative location",
                tensor=tensor.name,
            )
        if not target.is_file():
            raise ModelError(
                f"tensor {tensor.name}: external data file {location!r} is missing; copy it beside the model",
                tensor=tensor.name,
            )
        try:
            offset, length = (
                int(entry.get("offset", 0)),
                int(entry.get("length", target.stat().st_size - int(entry.get("offset", 0)))),
            )
        except ValueError:
            raise ModelError(
                f"tensor {tensor.name}: external data offset or length is no number", tensor=tensor.name
            ) from None
        size = target.stat().st_size
        total += max(length, 0)
        if offset < 0 or length < 0 or offset + length > size or total > MAX_BYTES:
            raise ModelError(
                f"tensor {tensor.name}: external data wants bytes {offset}..{offset + length} and {location!r} has {size}; "
                "copy the complete file beside the model",
                tensor=tensor.name,
            )
        with target.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


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


def captured(node: Any) -> tuple[str, ...]:
    """Tensors that a node's subgraphs read from outside."""
    out: dict[str, None] = {}
    for a in node.attribute:
        for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
            inside = (
                {v.name for v in g.input}
                | {t.name for t in g.initializer}
                | {o for n in g.node for o in n.output}
            )
            reads = [i for n in g.node for i in (*n.input, *captured(n))] + [o.name for o in g.output]
            out.update(dict.fromkeys(i for i in reads if i and i not in inside))
    return tuple(out)


def attributes(node: Any) -> dict[str, Any]:
    """Attributes as plain values (bytes become text; subgraphs stay out)."""
    from onnx import helper

    values: dict[str, Any] = {}
    for a in node.attribute:
        if a.HasField("g") or a.graphs:
            continue
        value = helper.get_attribute_value(a)
        values[a.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    return values


def _check_attributes(node: Any) -> None:
    values = attributes(node)
    for key, floor in (
        ("strides", 1),
        ("dilations", 1),
        ("kernel_shape", 1),
        ("pads", -MAX_ATTRIBUTE),
        ("output_padding", 0),
    ):
        for v in values.get(key, ()) if isinstance(values.get(key), list) else ():
            if isinstance(v, int) and not floor <= v <= MAX_ATTRIBUTE:
                raise ModelError(
                    f"{node.name} ({node.op_type}): {key} {v} is outside {floor}..{MAX_ATTRIBUTE}; correct it and export again",
                    node=node.name,
                )
    if "Conv" in node.op_type and not 1 <= values.get("group", 1) <= MAX_ATTRIBUTE:
        raise ModelError(
            f"{node.name} ({node.op_type}): group {values['group']} is not a positive count that divides the channels; "
            "correct it and export again",
            node=node.name,
        )


def check_values(model: Any) -> None:
    """Constants: sizes that agree with their shape, finite weights, positive quantisation scales.

    Raises
    ------
    ModelError
        With the tensor's or the node's name.
    """
    from onnx import TensorProto, numpy_helper

    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for t in model.graph.initializer:
        count = 1
        for d in t.dims:
            count *= d
        if any(d < 0 for d in t.dims) or count * 8 > 8 * MAX_TENSOR_BYTES:
            raise ModelError(
                f"constant {t.name}: shape {list(t.dims)} is negative or above {MAX_TENSOR_BYTES} elements; export again",
                tensor=t.name,
            )
        try:
            arrays[t.name] = numpy_helper.to_array(t)
        except (
            Exception
        ):  # onnx raises ValueError, TypeError, KeyError for the several ways to be inconsistent
            raise ModelError(
                f"constant {t.name}: its data does not have the {count} elements of its shape {list(t.dims)}, or its type is unknown; "
                "the file is damaged, so export it again",
                tensor=t.name,
            ) from None
        if (
            t.data_type in floats
            and count
            and not np.isfinite(np.min(arrays[t.name]) + np.max(arrays[t.name]))
        ):
            bad = int(np.sum(~np.isfinite(arrays[t.name].astype(np.float64))))
            reader = next((n for n in model.graph.node if t.name in n.input), None)
            # An infinite bound of Clip or a mask's -inf is legitimate; NaN and infinite weights are not.
            if np.any(np.isnan(arrays[t.name].astype(np.float64))) or (
                reader is not None and reader.op_type in _WEIGHTED
            ):
                where = f"{reader.name} ({reader.op_type})" if reader is not None else "constant"
                raise ModelError(
                    f"{where}: {bad} of {count} values of {t.name} are NaN or infinite; the training diverged, or the file is damaged",
                    tensor=t.name,
                    node=reader.name if reader is not None else None,
                )
    for node in model.graph.node:
        for slot in _SCALES.get(node.op_type, ()):
            scale = arrays.get(node.input[slot]) if slot < len(node.input) else None
            if scale is not None and not np.all(np.isfinite(scale) & (scale > 0)):
                bad_scale = scale.reshape(-1)[~(np.isfinite(scale) & (scale > 0)).reshape(-1)][0]
                raise ModelError(
                    f"{node.name} ({node.op_type}): scale {bad_scale} in {node.input[slot]} is not positive and finite; quantise the model again",
                    node=node.name,
                )
        weight = (
            arrays.get(node.input[1])
            if node.op_type in {"Conv", "ConvTranspose"} and len(node.input) > 1
            else None
        )
        if weight is not None:
            group = attributes(node).get("group", 1)
            outputs = weight.shape[0]
            if weight.ndim < 3 or outputs % group or min(weight.shape) < 1:
                raise ModelError(
                    f"{node.name} ({node.op_type}): group {group} does not divide the {outputs} channels of weights {list(weight.shape)}; "
                    "correct it and export again",
                    node=node.name,
                )


_WEIGHTED = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "BatchNormalization",
        "PRelu",
        "QuantizeLinear",
        "DequantizeLinear",
    }
)
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
