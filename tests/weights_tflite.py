"""Translate an int8 .tflite network to QDQ ONNX, keeping every scale and zero point of the vendor's file.

The flatbuffer is read without generated classes: field numbers are those of tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import encode, number_types
from numpy.typing import NDArray
from weights import GraphWriter

__all__ = ["tflite_to_onnx"]

TYPES: dict[int, Any] = {0: np.float32, 2: np.int32, 4: np.int64, 9: np.int8, 3: np.uint8}
"""TensorType: FLOAT32, INT32, INT64, INT8, UINT8."""
ADD, AVERAGE_POOL, CONV, DEPTHWISE, DEQUANTIZE, FULLY_CONNECTED, RESHAPE, SOFTMAX, PAD, MEAN, QUANTIZE = (
    0, 1, 3, 4, 6, 9, 22, 25, 34, 40, 114,
)  # fmt: skip
RELU, RELU6 = 1, 3
"""ActivationFunctionType."""


class _Table:
    """A flatbuffer table whose fields are asked for by number."""

    def __init__(self, data: bytes, position: int) -> None:
        self._table = flatbuffers.table.Table(data, position)

    def _at(self, field: int) -> int:
        return int(self._table.Offset(4 + 2 * field))

    def number(self, field: int, kind: Any, default: int = 0) -> int:
        offset = self._at(field)
        return int(self._table.Get(kind, self._table.Pos + offset)) if offset else default

    def child(self, field: int) -> _Table | None:
        offset = self._at(field)
        if not offset:
            return None
        return _Table(self._table.Bytes, self._table.Indirect(self._table.Pos + offset))

    def children(self, field: int) -> list[_Table]:
        offset = self._at(field)
        if not offset:
            return []
        start = self._table.Vector(offset)
        count = self._table.VectorLen(offset)
        return [_Table(self._table.Bytes, self._table.Indirect(start + 4 * i)) for i in range(count)]

    def array(self, field: int, dtype: Any) -> NDArray[Any]:
        offset = self._at(field)
        if not offset:
            return np.zeros(0, dtype)
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        return np.frombuffer(self._table.Bytes, dtype, count, start)

    def text(self, field: int) -> str:
        offset = self._at(field)
        return bytes(self._table.String(self._table.Pos + offset)).decode() if offset else ""


class _Tensor:
    """Name, shape, constant value if any, scales and zero points of a TFLite tensor."""

    def __init__(self, table: _Table, buffers: list[_Table], index: int) -> None:
        # The converter joins the names of all layers it fused; the first, without its scope, tells enough.
        self.name = f"{index}.{table.text(3).split(';')[0].removeprefix('model/')}"
        self.shape = tuple(int(v) for v in table.array(0, np.int32))
        dtype = TYPES[table.number(1, number_types.Int8Flags)]
        raw = buffers[table.number(2, number_types.Uint32Flags)].array(0, np.uint8)
        self.value = raw.view(dtype).reshape(self.shape) if raw.size else None
        quantisation = table.child(4)
        self.scale = quantisation.array(2, np.float32) if quantisation else np.zeros(0, np.float32)
        self.zero = quantisation.array(3, np.int64) if quantisation else np.zeros(0, np.int64)

    @property
    def nchw(self) -> tuple[int, ...]:
        return (self.shape[0], self.shape[3], *self.shape[1:3]) if len(self.shape) == 4 else self.shape


class _Translator:
    """Float operators between DequantizeLinear and QuantizeLinear pairs that carry the file's scales."""

    def __init__(self, data: bytes) -> None:
        model = _Table(data, encode.Get(number_types.UOffsetTFlags.packer_type, data, 0))
        self.codes = [
            max(c.number(0, number_types.Int8Flags), c.number(3, number_types.Int32Flags))
            for c in model.children(1)
        ]
        graph, buffers = model.children(2)[0], model.children(4)
        self.tensors = [_Tensor(t, buffers, i) for i, t in enumerate(graph.children(0))]
        self.inputs = [int(i) for i in graph.array(1, np.int32)]
        self.outputs = [int(i) for i in graph.array(2, np.int32)]
        self.operators = graph.children(3)
        self.out = GraphWriter()
        self.real: dict[int, str] = {}

    def translate(self, name: str) -> bytes:
        for index in self.inputs:
            tensor = self.tensors[index]
            self.out.shapes["input"] = tensor.nchw
            self.real[index] = self._requantised(index, "input") if tensor.scale.size else "input"
        for operator in self.operators:
            self._operator(operator)
        outputs = [self.real[i] for i in self.outputs]
        return self.out.model(name, ["input"], outputs)

    def _requantised(self, index: int, x: str) -> str:
        """Quantize to the tensor's own scale and back: what the integer kernel stores."""
        tensor, out = self.tensors[index], self.out
        scale = out.weight(f"{tensor.name}.scale", tensor.scale[0])
        zero = out.weight(f"{tensor.name}.zero", np.array(tensor.zero[0], np.int8))
        shape = out.shapes[x]
        out.add("QuantizeLinear", (x, scale, zero), f"{tensor.name}.int8", shape)
        return out.add("DequantizeLinear", (f"{tensor.name}.int8", scale, zero), f"{tensor.name}.real", shape)

    def _constant(self, index: int, arrange: Callable[[NDArray[Any]], NDArray[Any]]) -> str:
        """An integer weight or bias behind its DequantizeLinear, output channels first."""
        tensor, out = self.tensors[index], self.out
        assert tensor.value is not None
        value = arrange(tensor.value)
        scale, zero = tensor.scale, tensor.zero.astype(value.dtype)
        attributes = {"axis": 0}
        if scale.size == 1:
            scale, zero, attributes = scale[0], zero[0], {}
        names = [
            out.weight(f"{tensor.name}.{k}", np.asarray(v))
            for k, v in (("q", value), ("scale", scale), ("zero", zero))
        ]
        return out.add("DequantizeLinear", names, f"{tensor.name}.real", value.shape, **attributes)

    def _operator(self, operator: _Table) -> None:
        code = self.codes[operator.number(0, number_types.Uint32Flags)]
        sources = [int(i) for i in operator.array(1, np.int32)]
        target = int(operator.array(2, np.int32)[0])
        options = operator.child(4)
        name, out = self.tensors[target].name, self.out
        x = self.real[sources[0]]
        shape = out.shapes[x]
        fused = 0
        if code in {CONV, DEPTHWISE}:
            y, fused = self._convolution(code, sources, name, options)
        elif code == FULLY_CONNECTED:
            assert options is not None
            names = [self._constant(i, np.asarray) for i in sources[1:]]
            y = out.add("Gemm", (x, *names), name, (1, self.tensors[target].shape[-1]), transB=1)
            fused = options.number(0, number_types.Int8Flags)
        elif code == ADD:
            assert options is not None
            y = out.add("Add", [self.real[i] for i in sources], name, shape)
            fused = options.number(0, number_types.Int8Flags)
        elif code == AVERAGE_POOL:
            assert options is not None
            wide, high, kernel_w, kernel_h = (
                options.number(f, number_types.Int32Flags) for f in (1, 2, 3, 4)
            )
            padding = "valid" if options.number(0, number_types.Int8Flags) else "same"
            pads, extent = out.window(x, (kernel_h, kernel_w), (high, wide), padding)
            window = {"kernel_shape": (kernel_h, kernel_w), "strides": (high, wide), "pads": pads}
            y = out.add("AveragePool", (x,), name, (*shape[:2], *extent), **window)
        elif code == PAD:
            amounts = self.tensors[sources[1]].value
            assert amounts is not None
            before, after = amounts[[0, 3, 1, 2], 0], amounts[[0, 3, 1, 2], 1]
            pads_name = out.weight(f"{name}.pads", np.concatenate([before, after]).astype(np.int64))
            y = out.add("Pad", (x, pads_name), name, [int(v) for v in before + shape + after])
        elif code == MEAN:
            y = out.add("ReduceMean", (x,), name, shape[:2], axes=(2, 3), keepdims=0)
        elif code == RESHAPE:
            y = out.flatten(x, name) if len(shape) == 4 else out.add("Identity", (x,), name, shape)
        elif code == SOFTMAX:
            y = out.add("Softmax", (x,), name, shape, axis=1)
        elif code in {QUANTIZE, DEQUANTIZE}:
            y = x
        else:
            raise ValueError(f"{name}: TFLite operator {code} is not translated")
        if fused == RELU:
            y = out.add("Relu", (y,), f"{name}.relu", out.shapes[y])
        elif fused == RELU6:
            bounds = [out.weight(f"{name}.{v}", np.array(v, np.float32)) for v in (0, 6)]
            y = out.add("Clip", (y, *bounds), f"{name}.relu6", out.shapes[y])
        elif fused:
            raise ValueError(f"{name}: fused activation {fused} is not translated")
        self.real[target] = self._requantised(target, y) if self.tensors[target].scale.size else y

    def _convolution(
        self, code: int, sources: list[int], name: str, options: _Table | None
    ) -> tuple[str, int]:
        assert options is not None
        depthwise = code == DEPTHWISE
        first = 4 if depthwise else 3
        fused = options.number(first, number_types.Int8Flags)
        wide, high = (options.number(f, number_types.Int32Flags) for f in (1, 2))
        dilation = [options.number(f, number_types.Int32Flags, 1) for f in (first + 2, first + 1)]
        axes = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
        weight = self._constant(sources[1], lambda w: w.transpose(axes))
        channels, _, *kernel = self.out.shapes[weight]
        x = self.real[sources[0]]
        padding = "valid" if options.number(0, number_types.Int8Flags) else "same"
        pads, extent = self.out.window(x, kernel, (high, wide), padding, dilation)
        attributes = {
            "strides": (high, wide),
            "dilations": dilation,
            "pads": pads,
            "group": self.out.shapes[x][1] if depthwise else 1,
        }
        bias = self._constant(sources[2], np.asarray)
        return self.out.add("Conv", (x, weight, bias), name, (1, channels, *extent), **attributes), fused


def tflite_to_onnx(data: bytes, name: str) -> bytes:
    """An int8 TFLite network as a QDQ ONNX model with float input and output.

    Raises
    ------
    ValueError
        An operator that the networks of the working set do not have.
    """
    return _Translator(data).translate(name)
