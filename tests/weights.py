"""Read trained weights without the frameworks that wrote them: torch's legacy .pth and Keras' .h5, to ONNX."""

from __future__ import annotations

import io
import json
import math
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["GraphWriter", "keras_to_onnx", "mobilenet_v2_from_torch", "read_torch_legacy"]

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of a legacy torch file (torch/serialization.py, MAGIC_NUMBER)."""
STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ByteStorage": np.uint8,
}


class GraphWriter:
    """Nodes, initializers and NCHW shapes of an ONNX graph being translated."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.shapes: dict[str, tuple[int, ...]] = {}

    def add(
        self, op: str, inputs: Sequence[str], output: str, shape: Sequence[int], **attributes: Any
    ) -> str:
        """Add a node with one output of this shape; return the output."""
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        self.shapes[output] = tuple(shape)
        return output

    def weight(self, name: str, array: NDArray[Any]) -> str:
        self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def window(
        self,
        x: str,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: str,
        dilation: Sequence[int] = (1, 1),
    ) -> tuple[list[int], list[int]]:
        """ONNX pads and output extent of TensorFlow's ``same`` or ``valid`` padding; the odd one goes last."""
        before, after, extent = [], [], []
        for size, k, s, d in zip(self.shapes[x][2:], kernel, stride, dilation, strict=True):
            span = (k - 1) * d + 1
            total = 0
            if padding.lower() == "same":
                total = max(0, (math.ceil(size / s) - 1) * s + span - size)
            before.append(total // 2)
            after.append(total - total // 2)
            extent.append((size + total - span) // s + 1)
        return [*before, *after], extent

    def flatten(self, x: str, output: str) -> str:
        """Flatten in TensorFlow's order: channels last."""
        count, channels, height, width = self.shapes[x]
        if height * width > 1:
            shape = (count, height, width, channels)
            x = self.add("Transpose", (x,), f"{output}.hwc", shape, perm=(0, 2, 3, 1))
        return self.add("Flatten", (x,), output, (count, channels * height * width), axis=1)

    def model(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        """Serialised opset 17 model; inputs and outputs are float."""
        declared = [
            [helper.make_tensor_value_info(t, TensorProto.FLOAT, self.shapes[t]) for t in names]
            for names in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, name, *declared, initializer=self.initializers)
        made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        return bytes(made.SerializeToString())


def read_torch_legacy(data: bytes) -> dict[str, NDArray[Any]]:
    """State dict of a legacy torch file: four pickles, then each storage's int64 count and raw elements.

    Nothing but tensors, ordered dicts and storages is ever constructed.

    Raises
    ------
    ValueError
        Not a legacy torch file.
    pickle.UnpicklingError
        The pickle asks for another class.
    """
    stream = io.BytesIO(data)
    if _Restricted(stream).load() != TORCH_MAGIC:
        raise ValueError("not a legacy torch file: its first pickle is not the magic number")
    for _ in ("protocol version", "system"):
        _Restricted(stream).load()
    unpickler = _Restricted(stream)
    state = unpickler.load()
    arrays = {}
    for key in _Restricted(stream).load():
        (count,) = np.frombuffer(stream.read(8), "<i8")
        dtype = unpickler.storages[key]
        arrays[key] = np.frombuffer(stream.read(int(count) * np.dtype(dtype).itemsize), dtype)
    return {name: tensor.resolve(arrays) for name, tensor in state.items()}


class _Lazy:
    """A tensor whose storage is read later."""

    def __init__(
        self, storage: str, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
    ) -> None:
        self.key, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)

    def resolve(self, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
        flat = arrays[self.key][self.offset :]
        steps = tuple(s * flat.itemsize for s in self.stride)
        return np.lib.stride_tricks.as_strided(flat, self.size, steps, writeable=False).copy()


class _Restricted(pickle.Unpickler):
    """An unpickler that constructs nothing but what a state dict holds."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Lazy
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a state dict")

    def persistent_load(self, pid: Any) -> str:
        kind, dtype, key, *_ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"persistent id of kind {kind!r}")
        self.storages[key] = dtype
        return str(key)


def mobilenet_v2_from_torch(data: bytes) -> bytes:
    """torchvision's trained MobileNetV2 as ONNX.

    The built-in network has torchvision's layers in torchvision's order, so its weights are replaced one by one.
    """
    from tilewright.frontend import zoo

    trained = [v for k, v in read_torch_legacy(data).items() if not k.endswith("num_batches_tracked")]
    model = zoo.build("mobilenet_v2", batch_norm=True)
    slots = [t for t in model.graph.initializer if t.dims]
    if len(slots) != len(trained):
        raise ValueError(f"{len(trained)} trained tensors for {len(slots)} of MobileNetV2")
    for slot, value in zip(slots, trained, strict=True):
        if tuple(slot.dims) != value.shape:
            raise ValueError(
                f"{slot.name}: trained weights are {value.shape}, the layer has {tuple(slot.dims)}"
            )
        slot.CopyFrom(numpy_helper.from_array(value, slot.name))
    return bytes(model.SerializeToString())


def keras_to_onnx(data: bytes, name: str) -> bytes:
    """A functional Keras 2 model (.h5) as ONNX; maps are NCHW, weights are transposed once.

    Raises
    ------
    ValueError
        A layer that the networks of the working set do not have.
    """
    import h5py

    with h5py.File(io.BytesIO(data)) as file:
        config = json.loads(file.attrs["model_config"])["config"]
        groups = file["model_weights"]
        weights = {
            layer: [np.asarray(groups[layer][path]) for path in groups[layer].attrs["weight_names"]]
            for layer in groups
        }
    out = GraphWriter()
    for layer in config["layers"]:
        sources = [source[0] for source in layer["inbound_nodes"][0]] if layer["inbound_nodes"] else []
        _keras_layer(out, layer["class_name"], layer["config"], sources, weights.get(layer["name"], []))
    inputs, outputs = ([entry[0] for entry in config[key]] for key in ("input_layers", "output_layers"))
    return out.model(name, inputs, outputs)


def _keras_layer(
    out: GraphWriter, kind: str, config: dict[str, Any], sources: list[str], weights: list[NDArray[Any]]
) -> None:
    name = config["name"]
    x = sources[0] if sources else ""
    shape = out.shapes.get(x, ())
    if kind == "InputLayer":
        _, height, width, channels = config["batch_input_shape"]
        out.shapes[name] = (1, channels, height, width)
    elif kind in {"Conv2D", "DepthwiseConv2D"}:
        depthwise = kind == "DepthwiseConv2D"
        kernel = weights[0].transpose(2, 3, 0, 1) if depthwise else weights[0].transpose(3, 2, 0, 1)
        if depthwise:
            kernel = kernel.reshape(-1, 1, *kernel.shape[2:])
        stride, dilation = config["strides"], config["dilation_rate"]
        pads, extent = out.window(x, kernel.shape[2:], stride, config["padding"], dilation)
        names = [out.weight(f"{name}.{i}", w) for i, w in enumerate([kernel, *weights[1:]])]
        attributes = {
            "strides": stride,
            "dilations": dilation,
            "pads": pads,
            "group": shape[1] if depthwise else 1,
        }
        activation = config["activation"]
        inner = name if activation == "linear" else f"{name}.linear"
        out.add("Conv", (x, *names), inner, (1, len(kernel), *extent), **attributes)
        _keras_activation(out, activation, inner, name)
    elif kind == "Dense":
        names = [out.weight(f"{name}.{i}", w) for i, w in enumerate([weights[0].T, *weights[1:]])]
        activation = config["activation"]
        inner = name if activation == "linear" else f"{name}.linear"
        out.add("Gemm", (x, *names), inner, (1, weights[0].shape[1]), transB=1)
        _keras_activation(out, activation, inner, name)
    elif kind == "BatchNormalization":
        names = [out.weight(f"{name}.{i}", w) for i, w in enumerate(weights)]
        out.add("BatchNormalization", (x, *names), name, shape, epsilon=config["epsilon"])
    elif kind == "Activation":
        _keras_activation(out, config["activation"], x, name)
    elif kind == "ReLU":
        _keras_activation(
            out, "relu" if config["max_value"] is None else f"relu{config['max_value']:g}", x, name
        )
    elif kind == "Add":
        out.add("Add", sources, name, shape)
    elif kind == "ZeroPadding2D":
        (top, bottom), (left, right) = config["padding"]
        pads = out.weight(f"{name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        out.add("Pad", (x, pads), name, (*shape[:2], shape[2] + top + bottom, shape[3] + left + right))
    elif kind == "AveragePooling2D":
        kernel, stride = config["pool_size"], config["strides"]
        pads, extent = out.window(x, kernel, stride, config["padding"])
        out.add(
            "AveragePool", (x,), name, (*shape[:2], *extent), kernel_shape=kernel, strides=stride, pads=pads
        )
    elif kind == "GlobalAveragePooling2D":
        out.add("ReduceMean", (x,), name, shape[:2], axes=(2, 3), keepdims=0)
    elif kind == "Flatten":
        out.flatten(x, name)
    elif kind == "Dropout":
        out.add("Identity", (x,), name, shape)
    else:
        raise ValueError(f"{name}: Keras layer {kind} is not translated")


def _keras_activation(out: GraphWriter, activation: str, x: str, name: str) -> None:
    if activation == "linear":
        return
    if activation in {"relu", "softmax"}:
        op, attributes = ("Relu", {}) if activation == "relu" else ("Softmax", {"axis": 1})
        out.add(op, (x,), name, out.shapes[x], **attributes)
    elif activation == "relu6":
        bounds = [out.weight(f"{name}.{v}", np.array(v, np.float32)) for v in (0, 6)]
        out.add("Clip", (x, *bounds), name, out.shapes[x])
    else:
        raise ValueError(f"{name}: Keras activation {activation} is not translated")
