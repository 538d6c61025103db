"""Reading an ONNX file that may be broken or hostile: bounded, with errors that name the node.

Nothing here executes the model. Declared sizes are bounded before onnxruntime may fold anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..ir.errors import ModelError

__all__ = ["MAX_BYTES", "MAX_TENSOR_BYTES", "attributes", "captured", "read_model"]

MAX_BYTES = (1 << 31) - 1
"""Largest serialised protobuf message (protobuf encoding guide: 2 GiB)."""
MAX_TENSOR_BYTES = 1 << 30
"""Largest tensor a network may declare or compute at import: no int8 feature map or weight of a network this
machine could hold comes near it, and an onnxruntime fold stays within an ordinary host's memory."""


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
        try:
            value = helper.get_attribute_value(a)
        except ValueError:
            raise ModelError(
                f"{node.name} ({node.op_type}): attribute {a.name} has no known type; the file is damaged, so export it again",
                node=node.name,
            ) from None
        values[a.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    return values
