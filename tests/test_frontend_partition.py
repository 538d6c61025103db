"""Where nodes run: segments, their order and their reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tilewright.frontend import Calibration, DpuSegment, HostSegment, check, load, quantize, zoo
from tilewright.ir.errors import ModelError


def model_of(
    nodes: list[Any], weights: dict[str, Any], outputs: list[str], shape: tuple[int, ...] = (1, 8, 6, 6)
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "parts",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def conv(name: str, x: str, y: str, w: str) -> Any:
    return helper.make_node("Conv", [x, w], [y], name=name, pads=[1, 1, 1, 1])


W = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32) / 8


def kinds(model: Any) -> list[str]:
    return ["dpu" if isinstance(s, DpuSegment) else "host" for s in model.segments]


def test_branches_on_both_sides_of_the_border_run_in_two_segments() -> None:
    """A convolution beside the host's work does not wait for it: one DPU segment, one host segment, one more."""
    nodes = [
        conv("a", "x", "t", "w"),
        helper.make_node("LRN", ["t"], ["l"], name="lrn", size=3),
        conv("b", "t", "u", "w"),
        conv("c", "l", "v", "w"),
        helper.make_node("Add", ["u", "v"], ["y"], name="join"),
    ]
    network = load(model_of(nodes, {"w": W}, ["y"]))
    model = quantize(network, Calibration.synthetic(network))
    assert kinds(model) == ["dpu", "host", "dpu"]
    assert {op.name for op in model.graphs[0]} == {"a", "b"}
    sample = Calibration.synthetic(network, seed=3).samples[0]
    want, got = network.float_run(sample)["y"], model.run(sample)["y"]
    assert np.sum((want - got) ** 2) < 1e-2 * np.sum(want**2)


def test_a_convolution_too_small_for_two_borders_joins_the_host() -> None:
    """Between two host operators, a hundredth of the work is not worth it; the reason has both numbers."""
    small = np.random.default_rng(1).standard_normal((1, 8, 1, 1)).astype(np.float32)
    nodes = [
        conv("big", "x", "t", "w"),
        helper.make_node("LRN", ["t"], ["l"], name="lrn", size=3),
        helper.make_node("Conv", ["l", "s"], ["u"], name="small"),
        helper.make_node("Softmax", ["u"], ["y"], name="soft", axis=2),
    ]
    network = load(model_of(nodes, {"w": W, "s": small}, ["y"]))
    coverage = {n.name: n for n in check(network).nodes}
    assert coverage["small"].where == "host"
    assert "288 of 21,024 MACs" in coverage["small"].reason
    model = quantize(network, Calibration.synthetic(network))
    assert kinds(model) == ["dpu", "host"]
    host = model.segments[1]
    assert isinstance(host, HostSegment)
    assert [op for _, op in host.nodes] == ["LRN", "Conv", "Softmax"]


def test_coverage_comes_before_quantisation_and_says_why() -> None:
    """Every node is there once; what stays with the host has a reason and what would help."""
    network = load(zoo.build("tiny"))
    coverage = check(network)
    assert [n.name for n in coverage.nodes] == [n.name for n in network.nodes]
    assert all(n.reason for n in coverage.nodes)
    assert all(n.help for n in coverage.nodes if n.where == "host")
    written = coverage.to_json()
    assert written["schema"] == "tilewright.coverage/1"
    assert {tuple(sorted(n)) for n in written["nodes"]} == {("help", "name", "op", "reason", "where")}


def test_several_outputs_and_a_shared_map_come_back_in_order() -> None:
    nodes = [
        conv("a", "x", "t", "w"),
        helper.make_node("Relu", ["t"], ["y"], name="relu"),
        helper.make_node("Sigmoid", ["t"], ["z"], name="sigmoid"),
    ]
    network = load(model_of(nodes, {"w": W}, ["z", "y", "t"]))
    model = quantize(network, Calibration.synthetic(network))
    sample = Calibration.synthetic(network).samples[0]
    want, got = network.float_run(sample), model.run(sample)
    assert list(got) == ["z", "y", "t"]
    for name in want:
        assert np.sum((want[name] - got[name]) ** 2) < 1e-2 * np.sum(want[name] ** 2)


def test_another_executor_gets_the_graphs_and_their_maps() -> None:
    """`Model.run` hands each DPU graph to the executor and takes its maps back."""
    network = load(zoo.build("tiny"))
    calibration = Calibration.synthetic(network)
    model = quantize(network, calibration)
    seen = []

    def execute(graph: Any, maps: Any) -> Any:
        from tilewright.ir.reference import run

        seen.append((graph.name, tuple(maps)))
        return run(graph, maps)

    own, other = model.run(calibration.samples[0]), model.run(calibration.samples[0], execute)
    assert len(seen) == len(model.graphs)
    assert all(np.array_equal(own[k], other[k]) for k in own)


def test_a_feed_that_does_not_fit_is_refused_by_name() -> None:
    network = load(zoo.build("tiny"))
    model = quantize(network, Calibration.synthetic(network))
    name = network.inputs[0].name
    with pytest.raises(ModelError, match=rf"input {name}: no value given"):
        model.run({})
    with pytest.raises(ModelError, match=rf"input {name}: value has shape \[1, 2\]"):
        model.run({name: np.zeros((1, 2), np.float32)})


def test_control_flow_and_recurrence_run_on_the_host() -> None:
    """An LSTM over the rows that a convolution makes."""
    rng = np.random.default_rng(2)
    weights = {
        "w": W,
        "s": np.array([4, 1, 72], np.int64),
        "lw": rng.standard_normal((1, 16, 72)).astype(np.float32) / 8,
        "lr": rng.standard_normal((1, 16, 4)).astype(np.float32) / 2,
    }
    nodes = [
        conv("a", "x", "t", "w"),
        helper.make_node("Reshape", ["t", "s"], ["r"], name="rows"),
        helper.make_node("LSTM", ["r", "lw", "lr"], ["y"], name="lstm", hidden_size=4),
    ]
    network = load(model_of(nodes, weights, ["y"]))
    assert {n.name: n.where for n in check(network).nodes} == {"a": "dpu", "rows": "dpu", "lstm": "host"}
    model = quantize(network, Calibration.synthetic(network))
    sample = Calibration.synthetic(network).samples[0]
    assert np.allclose(model.run(sample)["y"], network.float_run(sample)["y"], atol=0.03)
