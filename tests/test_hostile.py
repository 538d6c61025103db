"""Broken, hostile and oversized models: one paragraph that names the node and what would help, soon, in little memory."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tilewright import frontend
from tilewright.frontend import Calibration, zoo
from tilewright.ir.errors import ModelError

SECONDS = 20.0
"""No refusal takes longer, even on a loaded machine; most take milliseconds."""
MEBIBYTES = 1024
"""No refusal lifts the process's peak memory by more."""
FLOAT = TensorProto.FLOAT


@contextmanager
def bounded() -> Iterator[None]:
    """Fail where the body takes too long or raises the peak of resident memory too far."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - start < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEBIBYTES


def import_and_quantise(source: Any, **options: Any) -> None:
    """All that happens to a model before anything is scheduled."""
    network = frontend.load(source, **options)
    frontend.check(network)
    frontend.quantize(network, Calibration.synthetic(network, seed=0, samples=1))


def refusal(source: Any, *words: str, **options: Any) -> str:
    """Import and quantise as a user would; the message of the ModelError that must come of it."""
    with bounded(), pytest.raises(ModelError) as caught:
        import_and_quantise(source, **options)
    message = str(caught.value)
    assert_one_paragraph(message)
    for word in words:
        assert word in message, message
    return message


def assert_one_paragraph(message: str) -> None:
    """Short, no traceback, and with a second half that says what would help."""
    assert "\n" not in message.strip(), message
    assert "Traceback" not in message, message
    assert len(message) < 1200, message
    assert ";" in message, f"says not what would help: {message}"


def graph_model(
    nodes: list[Any],
    *,
    shape: list[Any] | None = None,
    weights: dict[str, NDArray[Any]] | None = None,
    output: str = "y",
    opset: int = 17,
    domains: tuple[str, ...] = (),
) -> Any:
    """An unchecked model with input ``x`` and one output."""
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("x", FLOAT, [1, 3, 8, 8] if shape is None else shape)],
        [helper.make_tensor_value_info(output, FLOAT, None)],
        initializer=[numpy_helper.from_array(v, k) for k, v in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets)


def conv_model(weight: NDArray[Any] | None = None, **attributes: Any) -> Any:
    """One convolution, named ``culprit``, with these attributes."""
    weight = np.ones((4, 3, 3, 3), np.float32) if weight is None else weight
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="culprit", **attributes)
    return graph_model([node], weights={"w": weight})


def qdq_model(scale: Any, weight_scale: Any = 0.01, zero: Any = 0, weight: NDArray[Any] | None = None) -> Any:
    """Quantised input and weights around one convolution."""
    weight = np.ones((4, 3, 3, 3), np.int8) if weight is None else weight
    weights = {
        "xs": np.asarray(scale, np.float32),
        "xz": np.asarray(zero, np.int8),
        "wq": weight,
        "ws": np.asarray(weight_scale, np.float32),
        "wz": np.zeros(np.shape(weight_scale), np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], name="quantize_x"),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], name="dequantize_x"),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], name="dequantize_w", axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"], name="culprit"),
        helper.make_node("QuantizeLinear", ["c", "xs", "xz"], ["cq"], name="quantize_y"),
        helper.make_node("DequantizeLinear", ["cq", "xs", "xz"], ["y"], name="dequantize_y"),
    ]
    return graph_model(nodes, weights=weights, shape=[1, weight.shape[1], 8, 8])


def int64(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def added(bomb: Any, weights: dict[str, NDArray[Any]]) -> Any:
    """A model that adds the bomb's output to its input, so that nothing removes it as unused."""
    return graph_model([bomb, helper.make_node("Add", ["x", "b"], ["y"], name="sum")], weights=weights)


def chain(op: str, count: int, second: Callable[[str], str]) -> list[Any]:
    """``count`` nodes, each reading the one before and a second tensor."""
    names = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
    return [
        helper.make_node(op, [a, second(a)], [b], name=f"{op}_{i}", **({"axis": 3} if op == "Concat" else {}))
        for i, (a, b) in enumerate(pairwise(names))
    ]


# ---------------------------------------------------------------- files that are no model


@pytest.mark.parametrize("part", range(16))
def test_a_truncated_file_is_refused_wherever_it_ends(part: int, tmp_path: Path) -> None:
    data = zoo.build("tiny").SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: len(data) * part // 16])
    refusal(path, "cut.onnx" if part == 0 else "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        b"hello, this is text",
        b"\xff" * 4096,
        b"PK\x03\x04" + bytes(100),
    ],
    ids=["empty", "png", "text", "ones", "zip"],
)
def test_bytes_of_another_format_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    refusal(tmp_path / "model.onnx", "model.onnx")
    refusal(data)


def test_a_path_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    refusal(tmp_path / "absent.onnx", "absent.onnx")
    refusal(tmp_path, str(tmp_path))


def test_a_model_with_flipped_bytes_is_read_or_refused_and_never_crashes() -> None:
    """Sixty seeded mutations of a small network: a `ModelError` or a network, nothing else."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["y"], name="pool"),
    ]
    data = graph_model(nodes, weights={"w": np.ones((4, 3, 3, 3), np.float32)}).SerializeToString()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        mutant = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            mutant[position] = int(rng.integers(0, 256))
        with bounded():
            try:
                import_and_quantise(bytes(mutant))
            except ModelError:
                refused += 1
    assert 0 < refused < 60


# ---------------------------------------------------------------- graphs that make no sense


def test_a_cycle_is_refused_with_a_node_on_it() -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
        helper.make_node("Relu", ["b"], ["y"], name="third"),
    ]
    message = refusal(graph_model(nodes), "cycl")
    assert "first" in message or "second" in message


def test_a_node_that_reads_itself_is_a_cycle() -> None:
    refusal(graph_model([helper.make_node("Add", ["x", "y"], ["y"], name="culprit")]), "culprit")


def test_a_tensor_that_nothing_produces_is_named_with_its_reader() -> None:
    refusal(graph_model([helper.make_node("Add", ["x", "ghost"], ["y"], name="culprit")]), "culprit", "ghost")


def test_a_tensor_produced_twice_is_named_with_its_producer() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name=n) for n in ("first", "culprit")]
    refusal(graph_model(nodes), "culprit", "y")


def test_an_output_that_nothing_produces_is_named() -> None:
    refusal(graph_model([helper.make_node("Relu", ["x"], ["y"], name="relu")], output="ghost"), "ghost")


def test_an_unknown_operator_is_named() -> None:
    refusal(
        graph_model([helper.make_node("Frobnicate", ["x"], ["y"], name="culprit")]), "culprit", "Frobnicate"
    )


def test_an_unknown_domain_is_named() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="culprit", domain="corp.custom")
    refusal(graph_model([node], domains=("corp.custom",)), "culprit", "corp.custom")


@pytest.mark.parametrize("opset", [0, 1, 999, -5, 2**40])
def test_an_opset_outside_the_known_range_is_refused(opset: int) -> None:
    model = graph_model([helper.make_node("Relu", ["x"], ["y"], name="relu")])
    model.opset_import[0].version = opset
    refusal(model, "opset", str(opset))


def test_no_opset_at_all_is_refused() -> None:
    model = graph_model([helper.make_node("Relu", ["x"], ["y"], name="relu")])
    del model.opset_import[:]
    refusal(model, "opset")


def test_subgraphs_nested_a_hundred_deep_are_refused() -> None:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["out"])],
        "leaf",
        [],
        [helper.make_tensor_value_info("out", FLOAT, None)],
    )
    for depth in range(100):
        node = helper.make_node(
            "If", ["cond"], ["out"], name=f"if{depth}", then_branch=inner, else_branch=inner
        )
        inner = helper.make_graph(
            [node], f"g{depth}", [], [helper.make_tensor_value_info("out", FLOAT, None)]
        )
        if inner.ByteSize() > 1 << 17:
            break  # both branches hold the whole subgraph, so size doubles with depth
    for attribute in inner.node[0].attribute:
        if attribute.name == "else_branch":
            attribute.g.node[0].op_type = "Frobnicate"
    model = graph_model(list(inner.node), weights={"cond": np.array(True)}, output="out")
    refusal(model)


# ---------------------------------------------------------------- attributes


@pytest.mark.parametrize(
    ("attributes", "number"),
    [
        ({"group": 0}, "0"),
        ({"group": -1}, "-1"),
        ({"group": 2}, "2"),
        ({"group": 2**40}, str(2**40)),
        ({"dilations": [2**40, 1]}, str(2**40)),
        ({"dilations": [0, 1]}, "0"),
        ({"strides": [0, 0]}, "0"),
        ({"strides": [1, 2**62]}, str(2**62)),
        ({"pads": [0, 0, 2**40, 0]}, str(2**40)),
        ({"kernel_shape": [5, 5]}, "5"),
        ({"kernel_shape": [-3, 3]}, "-3"),
        ({"strides": [1]}, ""),
        ({"pads": [1, 1, 1]}, ""),
        ({"auto_pad": "SIDEWAYS"}, "SIDEWAYS"),
    ],
    ids=str,
)
def test_an_impossible_convolution_is_refused_with_name_and_number(
    attributes: dict[str, Any], number: str
) -> None:
    refusal(conv_model(**attributes), "culprit", number)


def test_weights_for_another_number_of_channels_are_refused() -> None:
    refusal(conv_model(np.ones((4, 5, 3, 3), np.float32)), "culprit")


def test_a_kernel_larger_than_the_padded_map_is_refused() -> None:
    refusal(conv_model(np.ones((4, 3, 9, 9), np.float32)), "culprit")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    weight = np.ones((4, 3, 3, 3), np.float32)
    weight[2, 1, 0, 0] = value
    message = refusal(conv_model(weight))
    assert "culprit" in message or "w" in message.split()


# ---------------------------------------------------------------- quantisation


@pytest.mark.parametrize("scale", [0.0, np.nan, -0.5, np.inf])
def test_a_scale_that_is_not_positive_and_finite_is_refused(scale: float) -> None:
    message = refusal(qdq_model(scale), "scale")
    assert "quantize_x" in message or "xs" in message


@pytest.mark.parametrize("scale", [0.0, np.nan, -0.5])
def test_one_bad_scale_among_the_channels_of_a_weight_is_refused(scale: float) -> None:
    message = refusal(qdq_model(0.1, weight_scale=[0.01, 0.02, scale, 0.01]), "scale")
    assert "dequantize_w" in message or "ws" in message


def test_scales_for_another_number_of_channels_are_refused() -> None:
    refusal(qdq_model(0.1, weight_scale=[0.01, 0.02, 0.03]))


def test_an_accumulator_that_could_overflow_is_refused_with_the_layer() -> None:
    """2^18 products of 127 × 255 exceed 2^31."""
    weight = np.full((1, 1 << 12, 8, 8), 127, np.int8)
    refusal(qdq_model(0.1, weight=weight, zero=-128), "culprit")


def test_a_float_network_without_calibration_is_told_both_ways_out() -> None:
    network = frontend.load(conv_model())
    with bounded(), pytest.raises(ModelError, match="calibration") as caught:
        frontend.quantize(network, None)
    assert "synthetic" in str(caught.value)
    assert_one_paragraph(str(caught.value))


# ---------------------------------------------------------------- sizes


BOMBS = {
    "ConstantOfShape": (
        helper.make_node("ConstantOfShape", ["s"], ["b"], name="culprit"),
        {"s": int64(1 << 20, 1 << 20)},
    ),
    "ConstantOfShape just under an overflow": (
        helper.make_node("ConstantOfShape", ["s"], ["b"], name="culprit"),
        {"s": int64(1 << 31, 1 << 31, 1 << 31)},
    ),
    "Expand": (
        helper.make_node("Expand", ["v", "s"], ["b"], name="culprit"),
        {"v": np.ones(1, np.float32), "s": int64(1 << 18, 1 << 18)},
    ),
    "Tile": (
        helper.make_node("Tile", ["v", "s"], ["b"], name="culprit"),
        {"v": np.ones(8, np.float32), "s": int64(1 << 36)},
    ),
    "Range": (
        helper.make_node("Range", ["v", "e", "s"], ["b"], name="culprit"),
        {"v": np.array(0, np.float32), "e": np.array(1e13, np.float32), "s": np.array(1, np.float32)},
    ),
    "Pad": (
        helper.make_node("Pad", ["x", "s"], ["b"], name="culprit"),
        {"s": int64(0, 0, 1 << 20, 1 << 20, 0, 0, 0, 0)},
    ),
    "Resize": (
        helper.make_node("Resize", ["x", "", "s"], ["b"], name="culprit", mode="nearest"),
        {"s": np.array([1, 1, 1e6, 1e6], np.float32)},
    ),
    "RandomNormal": (
        helper.make_node("RandomNormal", [], ["b"], name="culprit", shape=[1 << 20, 1 << 20]),
        {},
    ),
    "negative size": (helper.make_node("ConstantOfShape", ["s"], ["b"], name="culprit"), {"s": int64(-4, 4)}),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_node_that_asks_for_terabytes_is_refused_before_it_runs(kind: str) -> None:
    node, weights = BOMBS[kind]
    refusal(added(node, weights), "culprit")


def test_sizes_that_multiply_along_a_chain_are_refused() -> None:
    """Forty Concats of a tensor with itself: 2^40 columns out of eight."""
    refusal(graph_model(chain("Concat", 40, lambda before: before)), "Concat")


def test_a_chain_of_tiles_of_a_constant_is_refused() -> None:
    nodes = [
        helper.make_node("Tile", ["v" if i == 0 else f"b{i - 1}", "s"], [f"b{i}"], name=f"tile{i}")
        for i in range(5)
    ]
    nodes.append(helper.make_node("Add", ["x", "b4"], ["y"], name="sum"))
    refusal(graph_model(nodes, weights={"v": np.ones(4, np.float32), "s": int64(1 << 10)}), "tile")


def test_a_transposed_convolution_with_a_huge_stride_is_refused() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="culprit", strides=[1 << 19, 1 << 19])
    refusal(graph_model([node], weights={"w": np.ones((3, 4, 3, 3), np.float32)}), "culprit")


def test_a_weight_that_declares_more_than_it_holds_is_refused() -> None:
    model = conv_model()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([1 << 20, 3, 1 << 20, 3])
    refusal(model, "w")


def test_a_weight_with_a_negative_dimension_is_refused() -> None:
    model = conv_model()
    model.graph.initializer[0].dims[0] = -4
    refusal(model, "w")


@pytest.mark.parametrize("shape", [[1, 3, 0, 8], [0, 3, 8, 8], [1, 0, 8, 8]])
def test_an_input_without_elements_is_refused(shape: list[int]) -> None:
    refusal(graph_model([helper.make_node("Relu", ["x"], ["y"], name="relu")], shape=shape))


def test_an_input_of_a_million_by_a_million_pixels_is_refused() -> None:
    refusal(
        graph_model([helper.make_node("Relu", ["x"], ["y"], name="relu")], shape=[1, 3, 1_000_000, 1_000_000])
    )


def test_open_sizes_are_asked_for_by_name() -> None:
    model = graph_model(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")], shape=["batch", 3, "height", "width"]
    )
    refusal(model, "height", "width", "--input-shape")


@pytest.mark.parametrize(
    "given",
    [{"z": (1, 3, 8, 8)}, (1, 3, 8), (1, 3, -8, 8), (1, 3, 0, 8), (1, 3, 1 << 20, 1 << 20)],
    ids=["another input", "rank", "negative", "zero", "huge"],
)
def test_an_input_shape_that_cannot_be_is_refused(given: Any) -> None:
    model = graph_model(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")], shape=["batch", 3, "height", "width"]
    )
    refusal(model, input_shape=given)


def test_open_sizes_and_a_batch_are_taken_from_the_user_and_set_to_one() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    opened = frontend.load(graph_model([node], shape=["n", 3, "h", "w"]), input_shape=(1, 3, 8, 8))
    batched = frontend.load(graph_model([node], shape=[10, 3, 8, 8]))
    for network in (opened, batched):
        model = frontend.quantize(network, Calibration.synthetic(network, seed=0, samples=1))
        out = model.run({"x": np.ones((1, 3, 8, 8), np.float32)})
        assert next(iter(out.values())).shape == (1, 3, 8, 8)


def test_a_chain_of_three_thousand_nodes_takes_bounded_time() -> None:
    """Long is not hostile: it must load, and the time must not grow with the square."""
    names = ["x", *(f"t{i}" for i in range(2999)), "y"]
    nodes = [
        helper.make_node("Relu" if i % 2 else "Tanh", [a], [b], name=f"n{i}")
        for i, (a, b) in enumerate(pairwise(names))
    ]
    with bounded():
        frontend.check(frontend.load(graph_model(nodes)))


# ---------------------------------------------------------------- data outside the file


def external_model(folder: Path, location: str, **entries: int) -> Path:
    """A convolution whose weights are said to lie at `location`."""
    model = conv_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def weight_bytes() -> bytes:
    return np.ones((4, 3, 3, 3), np.float32).tobytes()


def test_external_data_above_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(weight_bytes())
    refusal(external_model(tmp_path / "model", "../secret.bin"), "w", "../secret.bin")


def test_external_data_at_an_absolute_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(weight_bytes())
    refusal(external_model(tmp_path / "model", str(tmp_path / "secret.bin")), "w")


def test_external_data_behind_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(weight_bytes())
    path = external_model(tmp_path / "model", "weights.bin")
    os.symlink(tmp_path / "secret.bin", path.parent / "weights.bin")
    refusal(path, "weights.bin")


@pytest.mark.parametrize(
    ("entries", "size"),
    [({}, 8), ({"offset": 400}, 432), ({"offset": -16}, 432), ({"length": 1 << 50}, 432)],
    ids=["short", "offset", "negative offset", "length"],
)
def test_external_data_shorter_than_declared_is_refused(
    entries: dict[str, int], size: int, tmp_path: Path
) -> None:
    path = external_model(tmp_path / "model", "weights.bin", **entries)
    (path.parent / "weights.bin").write_bytes(weight_bytes()[:size])
    refusal(path, "w")


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    refusal(external_model(tmp_path / "model", "weights.bin"), "weights.bin")


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    path = external_model(tmp_path / "model", "weights.bin")
    (path.parent / "weights.bin").write_bytes(weight_bytes())
    assert frontend.load(path).name == "model"


# ---------------------------------------------------------------- calibration data


def calibrate(path: Path) -> str:
    network = frontend.load(conv_model())
    with bounded(), pytest.raises(ModelError) as caught:
        frontend.quantize(network, Calibration.from_path(path, network))
    assert_one_paragraph(str(caught.value))
    return str(caught.value)


def test_calibration_from_nowhere_or_nothing_is_refused(tmp_path: Path) -> None:
    assert "absent" in calibrate(tmp_path / "absent")
    assert str(tmp_path) in calibrate(tmp_path)


@pytest.mark.parametrize(
    "array",
    [
        np.full((2, 3, 8, 8), np.nan, np.float32),
        np.zeros((0, 3, 8, 8), np.float32),
        np.zeros((2, 5, 8, 8), np.float32),
        np.zeros(7, np.float32),
    ],
    ids=["nan", "no samples", "channels", "rank"],
)
def test_calibration_arrays_that_do_not_fit_are_refused(array: NDArray[Any], tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", array)
    calibrate(tmp_path / "data.npy")


def test_a_pickled_calibration_array_is_never_unpickled(tmp_path: Path) -> None:
    """The pickle would write a file; a refusal leaves none."""
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    np.save(tmp_path / "data.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    calibrate(tmp_path / "data.npy")
    assert not marker.exists()


def test_a_calibration_file_that_is_no_array_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.npy").write_bytes(b"not an array")
    assert "data.npy" in calibrate(tmp_path / "data.npy")


def test_a_broken_image_in_the_calibration_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(32))
    assert "broken.png" in calibrate(tmp_path)


def test_nothing_here_rests_on_the_checker_of_onnx() -> None:
    """The hostile models are really broken: onnx's own checker refuses the plainest of them too."""
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(graph_model([helper.make_node("Frobnicate", ["x"], ["y"], name="culprit")]))
