"""Static shapes, opset conversion and constant folding: the steps before a model is a `Network`.

Folding is onnxruntime's basic level: standard operators only, and the most robust of the simplifiers we tried.
Sizes are bounded by shape inference *before* onnxruntime may allocate anything.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Mapping
from math import prod
from typing import Any

from ..ir.errors import ModelError
from .read import MAX_TENSOR_BYTES

__all__ = ["bound_sizes", "convert_opset", "fix_shapes", "fold", "infer_shapes"]

MODERN_OPSET = 17
"""What older models are converted to: per-channel QuantizeLinear (13), Split and Squeeze with inputs (13)."""
CONVERT_BELOW = 13
MODERN_IR = 8
"""ONNX file format of opset 17 (ONNX versioning table). Up to version 3 every weight had to be an input too."""
SMALL_CONSTANT = 1024
"""Elements of a constant that may be a shape, a scale or an index; larger ones are weights."""
InputShapes = Mapping[str, tuple[int, ...]] | tuple[int, ...] | None


def fix_shapes(model: Any, input_shape: InputShapes) -> None:
    """Give every graph input a static shape, batch 1; drop stale declared shapes.

    Raises
    ------
    ModelError
        A dimension is dynamic and no size was given: names it, with the option that gives one.
    """
    graph = model.graph
    constants = {t.name for t in graph.initializer}
    real = [v for v in graph.input if v.name not in constants]
    del graph.input[:]
    graph.input.extend(real)
    real = list(graph.input)
    del graph.value_info[:]
    if input_shape is None:
        given: dict[str, tuple[int, ...]] = {}
    elif isinstance(input_shape, Mapping):
        given = {k: tuple(v) for k, v in input_shape.items()}
    elif len(real) == 1:
        given = {real[0].name: tuple(input_shape)}
    else:
        raise ModelError(
            f"one shape was given and the network has {len(real)} inputs ({', '.join(v.name for v in real)}); name them: {_hint(real)}"
        )
    unknown = set(given) - {v.name for v in real}
    if unknown:
        raise ModelError(f"the network has no input {sorted(unknown)[0]!r}; its inputs are: {_hint(real)}")
    for value in real:
        dims = value.type.tensor_type.shape.dim
        if not value.type.HasField("tensor_type"):
            raise ModelError(
                f"input {value.name} is no tensor (a sequence, map or optional); export with tensor inputs",
                tensor=value.name,
            )
        if value.name in given:
            shape = given[value.name]
            if not value.type.tensor_type.HasField("shape"):
                value.type.tensor_type.shape.SetInParent()
            elif len(shape) != len(dims):
                raise ModelError(
                    f"input {value.name}: {len(shape)} sizes given, it has {len(dims)} dimensions; write {_hint([value])}",
                    tensor=value.name,
                )
            del dims[:]
            for d in shape:
                dims.add().dim_value = int(d)
        elif not value.type.tensor_type.HasField("shape"):
            raise ModelError(
                f"input {value.name} declares no shape; give one, for example --input-shape {value.name}=1x3x224x224",
                tensor=value.name,
            )
        dynamic = [str(d.dim_param or "?") for i, d in enumerate(dims) if not d.HasField("dim_value") and i]
        declared = dims[0].dim_value if dims and dims[0].HasField("dim_value") else None
        batch = declared is None or (declared > 1 and len(dims) > 2 and value.name not in given)
        if len(dims) > 1 and batch:
            dims[0].dim_value = 1  # one frame at a time
        elif dims and len(dims) == 1 and not dims[0].HasField("dim_value"):
            dynamic.append(str(dims[0].dim_param or "?"))
        if dynamic:
            raise ModelError(
                f"input {value.name}: the size of {', '.join(dynamic)} is left open by the model, and a schedule needs one; "
                f"give it with {_hint([value])}",
                tensor=value.name,
                dims=dynamic,
            )
        shape = tuple(d.dim_value for d in dims)
        if any(d < 1 for d in shape):
            raise ModelError(
                f"input {value.name}: shape {list(shape)} has an extent below 1; give one with {_hint([value])}",
                tensor=value.name,
            )
        if prod(shape) * 4 > MAX_TENSOR_BYTES:
            raise ModelError(
                f"input {value.name}: shape {list(shape)} needs {prod(shape) * 4} bytes, the most is {MAX_TENSOR_BYTES}; give a smaller one",
                tensor=value.name,
            )
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def _hint(values: list[Any]) -> str:
    """The exact option text for these inputs, open dimensions as a likely size."""
    parts = []
    for v in values:
        dims = v.type.tensor_type.shape.dim
        sizes = [
            str(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else ("1" if i == 0 else "224")
            for i, d in enumerate(dims)
        ]
        if len(sizes) > 1:
            sizes[0] = "1"
        parts.append(f"--input-shape {v.name}={'x'.join(sizes) or '1x3x224x224'}")
    return " ".join(parts)


def without_weights(model: Any) -> Any:
    """The model with its large constants declared as inputs: what shape inference and conversion need of them.

    Serialising a network's weights back and forth is most of the time that an import takes.
    """
    import onnx
    from onnx import helper

    light = onnx.ModelProto(ir_version=max(model.ir_version, MODERN_IR), producer_name=model.producer_name)
    light.opset_import.extend(model.opset_import)
    light.graph.name = model.graph.name or "network"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(model.graph.value_info)
    light.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    for t in model.graph.initializer:
        if prod(t.dims) <= SMALL_CONSTANT:
            light.graph.initializer.append(t)
        else:
            light.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
    return light


def with_weights(light: Any, model: Any) -> Any:
    """The inverse of `without_weights`: `light` with the large constants of `model`."""
    large = {t.name: t for t in model.graph.initializer if prod(t.dims) > SMALL_CONSTANT}
    inputs = [v for v in light.graph.input if v.name not in large]
    del light.graph.input[:]
    light.graph.input.extend(inputs)
    light.graph.initializer.extend(large.values())
    return light


def convert_opset(model: Any) -> Any:
    """The model at opset 17 where it is older than 13."""
    from onnx import version_converter

    version = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 0)
    if version >= CONVERT_BELOW:
        return model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = version_converter.convert_version(without_weights(model), MODERN_OPSET)
    except Exception as cause:  # the converter raises RuntimeError, ValueError and its own classes
        raise ModelError(
            f"opset {version} cannot be converted to {MODERN_OPSET}: {_line(cause)}; export the model with opset 13 or newer",
            opset=version,
        ) from None
    return with_weights(converted, model)


def infer_shapes(model: Any) -> Any:
    """The model without its weights and with inferred shapes; constant shapes are propagated."""
    from onnx import shape_inference

    try:
        return shape_inference.infer_shapes(
            without_weights(model), check_type=False, strict_mode=False, data_prop=True
        )
    except Exception as cause:
        raise ModelError(
            f"the shapes of the network do not fit together: {_line(cause)}; check the model with onnx.checker"
        ) from None


def bound_sizes(model: Any) -> None:
    """Refuse a model in which a tensor is declared larger than `MAX_TENSOR_BYTES`, naming the node."""
    makers = {name: node for node in model.graph.node for name in node.output}
    for value in (*model.graph.value_info, *model.graph.output):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        node = makers.get(value.name)
        if any(d < 0 for d in shape) or prod(shape) * 4 > MAX_TENSOR_BYTES:
            where = f"{node.name} ({node.op_type})" if node is not None else value.name
            raise ModelError(
                f"{where}: its output {value.name} has shape {shape}, {prod(shape) * 4} bytes; the most is {MAX_TENSOR_BYTES}. "
                "Export with smaller constants or a smaller --input-shape",
                node=node.name if node is not None else None,
            )
        if (
            node is not None
            and node.op_type != "Constant"
            and any(d.HasField("dim_value") and d.dim_value == 0 for d in value.type.tensor_type.shape.dim)
        ):
            raise ModelError(
                f"{node.name} ({node.op_type}): its output {value.name} has shape {shape}, with an extent of 0; correct the model",
                node=node.name,
            )


def fold(model: Any) -> Any:
    """Constant folding and basic fusions by onnxruntime (ORT_ENABLE_BASIC); standard operators in and out.

    Raises
    ------
    ModelError
        onnxruntime cannot load the network; carries its first line.
    """
    import onnx
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="tilewright-") as folder:
        path = os.path.join(folder, "folded.onnx")
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = path
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as cause:
            raise ModelError(
                f"onnxruntime refuses the network: {_line(cause)}; check the model with onnx.checker"
            ) from None
        with contextlib.suppress(OSError):
            folded = onnx.load(path)
            return folded
    raise ModelError("onnxruntime wrote no simplified network; is the temporary folder full?")


def _line(cause: Exception) -> str:
    text = " ".join(str(cause).split())
    return text[:300] if text else type(cause).__name__
