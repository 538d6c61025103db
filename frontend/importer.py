"""`load`: an ONNX model becomes a `Network`."""

from __future__ import annotations

from math import prod
from typing import Any

from ..ir.errors import ModelError
from .network import Network, Node, Port
from .qdq import spell_qoperators, strip
from .read import MAX_TENSOR_BYTES, attributes, captured, read_model
from .simplify import InputShapes, bound_sizes, convert_opset, fix_shapes, fold, infer_shapes
from .validity import check_structure, check_values, check_windows

__all__ = ["load"]


def load(source: Any, *, input_shape: InputShapes = None, name: str | None = None) -> Network:
    """Read a float, QDQ or QOperator ONNX model.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
    input_shape : dict of input name to sizes, or sizes, optional
        Needed where the model leaves sizes open; batch is always 1.
    name : str, optional
        Name in reports; default the file's stem or the graph's name.

    Raises
    ------
    ModelError
        Broken, hostile, or beyond what can be read; one paragraph with the node's name and what would help.
    """
    import onnx
    from onnx import numpy_helper

    model, stem = read_model(source)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    check_structure(model)
    check_values(model)
    fix_shapes(model, input_shape)
    model = convert_opset(model)
    shaped = infer_shapes(model)
    check_windows(shaped)
    bound_sizes(shaped)
    executed = model.SerializeToString()
    model = fold(model)
    check_structure(model)
    check_values(model)
    del model.graph.value_info[:]
    for v in model.graph.output:
        if v.type.HasField("tensor_type"):
            v.type.tensor_type.ClearField("shape")
    shaped = infer_shapes(model)
    graph = model.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    total = sum(c.nbytes for c in constants.values())
    if total > 2 * MAX_TENSOR_BYTES:
        raise ModelError(
            f"the constants need {total} bytes, the most is {2 * MAX_TENSOR_BYTES}; export a smaller network",
            bytes=total,
        )
    shapes, types = _declared(shaped.graph)
    found = strip(
        spell_qoperators(list(graph.node)),
        constants,
        {v.name for v in graph.input},
        {v.name for v in graph.output},
    )
    nodes = tuple(
        Node(p.name, p.op_type, tuple(p.input), tuple(p.output), attributes(p), p, captured(p))
        for p in found.nodes
    )
    opsets = {
        o.domain: o.version for o in model.opset_import if o.domain in {"", "com.microsoft", "ai.onnx.ml"}
    }
    if found.quants:
        shapes, types = _again(nodes, found.constants, graph, opsets, found.integer_inputs)
    shapes.update({n: tuple(c.shape) for n, c in found.constants.items()})
    types.update(dict.fromkeys(found.integer_inputs, onnx.TensorProto.FLOAT))
    return Network(
        name=name or stem,
        nodes=nodes,
        constants=found.constants,
        shapes={n: s for n, s in shapes.items() if prod(s) >= 0},
        inputs=tuple(_port(v) for v in graph.input),
        outputs=tuple(_port(v, shapes) for v in graph.output),
        quants=found.quants,
        weights=found.weights,
        types=types,
        source=executed,
        opsets=opsets,
    )


def _declared(graph: Any) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Static shapes and element types that shape inference declared."""
    shapes, types = {}, {}
    for v in (*graph.input, *graph.value_info, *graph.output):
        tensor = v.type.tensor_type
        types[v.name] = tensor.elem_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[v.name] = tuple(d.dim_value for d in tensor.shape.dim)
    return shapes, types


def _again(
    nodes: tuple[Node, ...], constants: dict[str, Any], graph: Any, opsets: dict[str, int], integer: set[str]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Shapes of the stripped network: its tensors are float now, and some are new."""
    from onnx import TensorProto, helper, numpy_helper

    inputs = []
    for v in graph.input:
        shape = [d.dim_value for d in v.type.tensor_type.shape.dim]
        kind = TensorProto.FLOAT if v.name in integer else v.type.tensor_type.elem_type
        inputs.append(helper.make_tensor_value_info(v.name, kind, shape))
    outputs = [helper.make_empty_tensor_value_info(v.name) for v in graph.output]
    # Only constants that decide shapes are needed; weights are declared by shape.
    inits = []
    for n, c in constants.items():
        if c.dtype.kind == "i" and c.size <= 64:
            inits.append(numpy_helper.from_array(c, n))
        elif c.dtype.kind == "f":
            inputs.append(helper.make_tensor_value_info(n, TensorProto.FLOAT, c.shape))
    copied = helper.make_graph([n.proto for n in nodes], "shapes", inputs, outputs, inits)
    model = helper.make_model(copied, opset_imports=[helper.make_opsetid(d, v) for d, v in opsets.items()])
    return _declared(infer_shapes(model).graph)


def _port(value: Any, shapes: dict[str, tuple[int, ...]] | None = None) -> Port:
    from onnx import helper

    tensor = value.type.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    if shapes is not None and value.name in shapes:
        dims = shapes[value.name]
    return Port(value.name, dims, str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
