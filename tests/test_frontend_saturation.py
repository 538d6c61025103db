"""Ranges that end where the functions behind them are flat."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tilewright import frontend
from tilewright.frontend import Calibration
from tilewright.frontend.saturation import flat_ends


def behind_a_wide_convolution(*functions: str, expose: bool = False) -> onnx.ModelProto:
    """A 1x1 convolution whose outputs reach from about -50 to 50, read by functions."""
    rng = np.random.default_rng(5)
    weights = numpy_helper.from_array(rng.normal(0, 6, (8, 4, 1, 1)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["wide"], "conv")]
    nodes += [helper.make_node(op, ["wide"], [op.lower()], op) for op in functions]
    names = [*(op.lower() for op in functions), *(["wide"] if expose else [])]
    port = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "wide",
        [port("x", TensorProto.FLOAT, [1, 4, 16, 16])],
        [port(n, TensorProto.FLOAT, [1, 8, 16, 16]) for n in names],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def quantised(model: onnx.ModelProto) -> tuple[frontend.Model, Calibration]:
    network = frontend.load(model)
    data = Calibration.synthetic(network, samples=4)
    return frontend.quantize(network, data), data


def reach(model: frontend.Model, tensor: str) -> tuple[float, float]:
    """Real values of the least and the greatest code."""
    quant = model.graphs[0].tensors[tensor].quant
    return (-128 - quant.zero_point) * quant.scale, (127 - quant.zero_point) * quant.scale


def test_a_hard_swish_needs_no_codes_below_minus_three() -> None:
    low, high = reach(quantised(behind_a_wide_convolution("HardSwish"))[0], "wide")
    assert -3.3 < low < -2.5
    assert high > 20


def test_a_sigmoid_needs_codes_where_it_changes() -> None:
    low, high = reach(quantised(behind_a_wide_convolution("Sigmoid"))[0], "wide")
    assert -8 < low < -5
    assert 5 < high < 8


def test_a_map_that_something_else_sees_keeps_its_range() -> None:
    """Two functions: the wider of their wants. A network output: all of it. A ReLU of a clamp: nothing to tabulate."""
    alone = reach(quantised(behind_a_wide_convolution("HardSwish"))[0], "wide")
    both = reach(quantised(behind_a_wide_convolution("Sigmoid", "HardSwish"))[0], "wide")
    assert both[0] < alone[0] - 2
    assert both[1] == pytest.approx(alone[1], rel=0.1)
    assert reach(quantised(behind_a_wide_convolution("HardSwish", expose=True))[0], "wide")[0] < -20


def test_finer_steps_come_nearer_to_the_float_network() -> None:
    """A sigmoid behind a wide map: steps of a hundredth of the range where all of it had 256."""
    model, data = quantised(behind_a_wide_convolution("Sigmoid"))
    feeds = dict(data.samples[0])
    want = model.network.float_run(feeds)["sigmoid"]
    noise = float(np.sqrt(np.mean((model.run(feeds)["sigmoid"] - want) ** 2)))
    assert noise < 0.01


def test_sqnr_counts_what_the_functions_see() -> None:
    """Saturation where the function is flat is no noise."""
    model, _ = quantised(behind_a_wide_convolution("HardSwish"))
    assert min(model.sqnr_db.values()) > 25


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([0.0, 1.0, 2.0], (0, 2)),
        ([0.0, 0.0, 1.0, 1.0], (1, 2)),
        ([3.0, 3.0, 3.0], (0, 2)),  # nothing changes: nothing to choose
        ([0.0, -5.0, 0.0, 0.0, 4.0], (0, 4)),  # flat again behind a dip: the dip counts
    ],
)
def test_flat_ends_stop_before_the_first_change(values: list[float], ends: tuple[int, int]) -> None:
    assert flat_ends(np.array(values), 0.1) == ends
