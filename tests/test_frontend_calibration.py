"""Calibration data from files, ranges, equalisation, bias correction, and the quantiser's options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image
from tilewright.frontend import Calibration, Network, load, quantize
from tilewright.frontend.calibration import measure
from tilewright.ir.errors import ModelError

Array = NDArray[Any]


def two_convolutions(spread: float = 1.0) -> ModelProto:
    """3x3 convolution, ReLU, 1x1 convolution; the first one's channels differ by up to `spread` in range."""
    rng = np.random.default_rng(0)
    w1 = rng.standard_normal((16, 3, 3, 3)).astype(np.float32) / 5
    w1 *= np.geomspace(1 / spread, 1, 16, dtype=np.float32)[:, None, None, None]
    w2 = rng.standard_normal((8, 16, 1, 1)).astype(np.float32) / 4
    w2 /= np.geomspace(1 / spread, 1, 16, dtype=np.float32)[None, :, None, None]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w2"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w1, "w1"), numpy_helper.from_array(w2, "w2")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def output_sqnr(network: Network, calibration: Calibration, **options: Any) -> float:
    model = quantize(network, calibration, **options)
    noise = signal = 0.0
    for sample in calibration.samples:
        want, got = network.float_run(sample)["y"].astype(np.float64), model.run(sample)["y"]
        noise, signal = noise + float(np.sum((want - got) ** 2)), signal + float(np.sum(want**2))
    return float(10 * np.log10(signal / noise))


def test_a_float_network_without_calibration_is_refused_with_both_ways_out() -> None:
    with pytest.raises(ModelError, match=r"calibration data.*--calibration PATH.*--synthetic-calibration"):
        quantize(load(two_convolutions()), None)


def test_synthetic_data_is_seeded_and_marked() -> None:
    """Same seed, same bytes; another seed, others; the model says where its ranges come from."""
    network = load(two_convolutions())
    first, again, other = (Calibration.synthetic(network, seed=s) for s in (1, 1, 2))
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(first.samples, again.samples, strict=True))
    assert not np.array_equal(first.samples[0]["x"], other.samples[0]["x"])
    assert quantize(network, first).calibration == first.kind == "synthetic"


def test_quantising_twice_gives_the_same_bytes() -> None:
    network = load(two_convolutions())
    calibration = Calibration.synthetic(network)
    (a,), (b,) = (quantize(network, calibration).graphs for _ in range(2))
    assert str(a) == str(b)
    assert all(np.array_equal(p.weight, q.weight) for p, q in zip(a, b, strict=True))  # type: ignore[attr-defined]


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (3, 16, 16), (5, 3, 16, 16), (5, 1, 3, 16, 16)])
def test_arrays_are_taken_as_one_frame_or_as_frames(tmp_path: Path, shape: tuple[int, ...]) -> None:
    network = load(two_convolutions())
    np.save(tmp_path / "x.npy", np.ones(shape, np.float32))
    np.savez(tmp_path / "x.npz", x=np.ones(shape, np.float32))
    for file in ("x.npy", "x.npz"):
        calibration = Calibration.from_path(tmp_path / file, network, limit=3)
        assert len(calibration.samples) == (3 if shape[0] == 5 else 1)
        assert {s["x"].shape for s in calibration.samples} == {(1, 3, 16, 16)}


def test_images_are_resized_and_normalised(tmp_path: Path) -> None:
    """A white image is (1 - mean) / std in every pixel of a channel."""
    network = load(two_convolutions())
    Image.new("RGB", (40, 30), (255, 255, 255)).save(tmp_path / "white.png")
    (tmp_path / "notes.txt").write_text("no image")
    (sample,) = Calibration.from_path(tmp_path, network, mean=(0.5, 0.5, 0.25), std=(0.5, 0.25, 0.25)).samples
    assert sample["x"].shape == (1, 3, 16, 16)
    assert np.allclose(sample["x"][0, :, 3, 4], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_ranges_nest(method: Any) -> None:
    """Percentile and MSE ranges lie inside the range of all values; min-max is that range."""
    network = load(two_convolutions())
    calibration = Calibration.synthetic(network)
    everything = measure(network, ["c", "r"], calibration, "minmax")
    chosen = measure(network, ["c", "r"], calibration, method)
    for name in ("c", "r", "x"):
        assert everything[name].low <= chosen[name].low <= 0 or method == "percentile"
        assert chosen[name].high <= everything[name].high
    values = np.concatenate([network.float_run(s)["y"].ravel() for s in calibration.samples])
    assert measure(network, ["y"], calibration, "minmax")["y"].high == pytest.approx(values.max())


def test_a_percentile_leaves_a_lone_outlier_out() -> None:
    """One value of 200 sigma takes six bits away from min-max; a percentile keeps them."""
    network = load(two_convolutions())
    samples = [dict(s) for s in Calibration.synthetic(network, samples=32).samples]
    samples[0]["x"] = samples[0]["x"].copy()
    samples[0]["x"][0, 0, 0, 0] = 200.0
    wild = Calibration(tuple(samples))
    assert measure(network, [], wild, "minmax")["x"].high == 200.0
    assert 3.0 < measure(network, [], wild, "percentile")["x"].high < 6.0


def test_equalisation_levels_channels_of_different_range() -> None:
    """Channels 64 times apart lose bits to the widest one; levelled, the network gains at least 3 dB."""
    network = load(two_convolutions(spread=64.0))
    calibration = Calibration.synthetic(network)
    gain = output_sqnr(network, calibration, equalise=True) - output_sqnr(
        network, calibration, equalise=False
    )
    assert gain > 3.0


def test_bias_correction_takes_the_mean_error_away() -> None:
    """The mean of each output channel comes closer to the float network's."""
    network = load(two_convolutions())
    rng = np.random.default_rng(4)
    frames = tuple({"x": (rng.standard_normal((1, 3, 16, 16)) + 2).astype(np.float32)} for _ in range(4))
    calibration = Calibration(frames)

    def drift(corrected: bool) -> float:
        model = quantize(network, calibration, bias_correction=corrected, equalise=False)
        error = np.mean([model.run(s)["y"] - network.float_run(s)["y"] for s in frames], axis=(0, 1, 3, 4))
        return float(np.abs(error).mean())

    assert drift(True) < drift(False)


def test_sqnr_is_given_for_every_layer_and_lies_in_reason() -> None:
    network = load(two_convolutions())
    sqnr = quantize(network, Calibration.synthetic(network)).sqnr_db
    assert set(sqnr) == {"first", "second"}
    assert all(25 < v < 60 for v in sqnr.values())


def test_a_tensor_that_is_not_finite_is_named() -> None:
    network = load(two_convolutions())
    bad = Calibration(({"x": np.full((1, 3, 16, 16), np.nan, np.float32)},))
    with pytest.raises(ModelError, match=r"tensor \w+ is not finite on the calibration data"):
        quantize(network, bad)


def test_an_unknown_rounding_mode_is_refused() -> None:
    network = load(two_convolutions())
    with pytest.raises(ModelError, match=r"rounding mode 'f16' is not one of f32, fix16, shift"):
        quantize(network, Calibration.synthetic(network), mode="f16")  # type: ignore[arg-type]


def test_mode_shift_has_powers_of_two_only() -> None:
    network = load(two_convolutions())
    (graph,) = quantize(network, Calibration.synthetic(network), mode="shift").graphs
    assert all(np.log2(t.quant.scale).is_integer() for t in graph.tensors.values())
