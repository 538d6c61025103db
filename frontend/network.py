"""The network as read: nodes, constants, shapes and the model's own quantisation, still in ONNX terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import ModelError
from ..ir.graph import Quant

__all__ = ["Network", "Node", "Port", "QuantisedConstant", "new_session", "run_session"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One ONNX node; `proto` is what a host segment executes."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(repr=False)
    proto: Any = field(repr=False)
    captured: tuple[str, ...] = ()
    """Tensors that its subgraphs (If, Loop, Scan) read from outside."""

    @property
    def reads(self) -> tuple[str, ...]:
        """All tensors it depends on."""
        return (*(i for i in self.inputs if i), *self.captured)


@dataclass(frozen=True, slots=True, eq=False)
class QuantisedConstant:
    """Integer weights as the model holds them: real = values * scale along `axis` (None: one scale)."""

    values: NDArray[np.int64]
    scale: NDArray[np.float32]
    axis: int | None


@dataclass(frozen=True, slots=True)
class Port:
    """A network input or output: name, ONNX shape (None where data decides), ONNX element type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


@dataclass(frozen=True, eq=False)
class Network:
    """A simplified network with static shapes.

    Parameters
    ----------
    name : str
    nodes : tuple of Node
        Topological order; quantise/dequantise pairs are gone (see `quants`).
    constants : dict of name to array
    shapes : dict of tensor name to ONNX shape
        Absent where only the data decides.
    inputs, outputs : tuple of Port
    quants : dict of tensor name to Quant
        What the model itself says about a tensor's int8 quantisation; empty for a float model.
    weights : dict of constant name to QuantisedConstant
    source : bytes
        The model `float_run` executes (serialised).
    opsets : dict of domain to version
    """

    name: str
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array] = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    quants: Mapping[str, Quant] = field(repr=False)
    weights: Mapping[str, QuantisedConstant] = field(repr=False)
    types: Mapping[str, int] = field(repr=False)
    source: bytes = field(repr=False)
    opsets: Mapping[str, int] = field(repr=False)

    @property
    def quantised(self) -> bool:
        """The model brings its own int8 scales."""
        return bool(self.quants)

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """Nodes that read each tensor."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads):
                readers.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in readers.items()}

    @cached_property
    def producer(self) -> Mapping[str, Node]:
        """Node behind each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Place of each node in the order."""
        return {node.name: i for i, node in enumerate(self.nodes)}

    def scalar(self, name: str) -> float | None:
        """Value of a constant with one element."""
        value = self.constants.get(name)
        return (
            float(value.reshape(-1)[0])
            if value is not None and value.size == 1 and value.dtype.kind in "fiu"
            else None
        )

    @cached_property
    def output_names(self) -> frozenset[str]:
        return frozenset(p.name for p in self.outputs)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def extract(
        self, nodes: Iterable[Node], inputs: Iterable[str], outputs: Iterable[str], *, quantise: bool = False
    ) -> bytes:
        """A serialised ONNX model of some of the nodes.

        Parameters
        ----------
        quantise : bool
            Put the model's own quantise/dequantise pairs back behind the tensors that have them, so that a host
            segment of an already quantised model computes what the model says.
        """
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        chosen, inputs = tuple(nodes), tuple(inputs)
        needed = dict.fromkeys(name for n in chosen for name in n.reads)
        protos, extra = [], []
        for node in chosen:
            renamed = onnx.NodeProto()
            renamed.CopyFrom(node.proto)
            protos.append(renamed)
            for i, name in enumerate(node.outputs):
                if quantise and name in self.quants:
                    quant = self.quants[name]
                    renamed.output[i] = name + "/float"
                    extra += [
                        numpy_helper.from_array(np.float32(quant.scale), name + "/scale"),
                        numpy_helper.from_array(np.int8(quant.zero_point), name + "/zero"),
                    ]
                    protos.append(
                        helper.make_node(
                            "QuantizeLinear",
                            [name + "/float", name + "/scale", name + "/zero"],
                            [name + "/int8"],
                        )
                    )
                    protos.append(
                        helper.make_node(
                            "DequantizeLinear", [name + "/int8", name + "/scale", name + "/zero"], [name]
                        )
                    )
        graph = helper.make_graph(
            protos,
            self.name or "network",
            [self._value(name) for name in inputs],
            [self._value(name) for name in outputs],
            [
                numpy_helper.from_array(np.ascontiguousarray(self.constants[n]), n)
                for n in needed
                if n in self.constants and n not in inputs
            ]
            + extra,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid(d, v) for d, v in self.opsets.items()], ir_version=10
        )
        del TensorProto
        return bytes(model.SerializeToString())

    def _value(self, name: str) -> Any:
        from onnx import TensorProto, helper

        shape = self.shapes.get(name)
        return helper.make_tensor_value_info(name, self.types.get(name, TensorProto.FLOAT), shape)

    def float_run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """onnxruntime on the network as given (int8 × int8 as the model says it, where it is already quantised).

        Raises
        ------
        ModelError
            A feed is missing or has another shape.
        """
        session = self._session
        checked = {p.name: self.feed(p, feeds) for p in self.inputs}
        return run_session(session, [p.name for p in self.outputs], checked)

    def feed(self, port: Port, feeds: Mapping[str, Array]) -> Array:
        """The feed of one input, checked and cast."""
        if port.name not in feeds:
            raise ModelError(
                f"input {port.name}: no value given; the network takes {port.dtype}{list(port.shape)}",
                tensor=port.name,
            )
        value = np.asarray(feeds[port.name])
        if value.shape != port.shape:
            raise ModelError(
                f"input {port.name}: value has shape {list(value.shape)}, the network takes {list(port.shape)}; resize or reshape it",
                tensor=port.name,
            )
        return value.astype(port.dtype)

    @cached_property
    def _session(self) -> Any:
        # Without the setting, fused uint8/int8 kernels saturate on x86 without VNNI (docs/numerics.md).
        return new_session(self.source, exact=True)


def new_session(model: bytes, *, exact: bool = False, threads: int = 0) -> Any:
    """An onnxruntime CPU session; `exact` keeps quantise/dequantise pairs unfused."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if threads:
        options.intra_op_num_threads = threads
    if exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as cause:  # onnxruntime raises a dozen unrelated classes
        raise ModelError(
            f"onnxruntime refuses the network: {_first_line(cause)}; check it with onnx.checker"
        ) from None


def run_session(session: Any, outputs: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs of an onnxruntime session by name; a failure inside it is the model's."""
    try:
        values = session.run(list(outputs), dict(feeds))
    except Exception as cause:  # as above
        raise ModelError(
            f"onnxruntime cannot run the network: {_first_line(cause)}; check it with onnx.checker"
        ) from None
    return dict(zip(outputs, values, strict=True))


def _first_line(cause: Exception) -> str:
    return str(cause).strip().splitlines()[0][:300] if str(cause).strip() else type(cause).__name__
