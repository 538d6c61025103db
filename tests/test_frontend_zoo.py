"""The built-in networks: published sizes, healthy activations, reproducible bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, shape_inference
from tilewright import frontend
from tilewright.frontend import zoo
from tilewright.frontend.zoo_blocks import synthetic_images
from tilewright.ir.errors import ModelError

PUBLISHED = {
    # million MACs, trained parameters; torchvision.models: `_ops` and `num_params` of the weights' metadata
    "mobilenet_v1": (569, 4_231_976),  # Howard et al. 2017, table 8; parameters: Keras' summary, trainable
    "mobilenet_v2": (301, 3_504_872),
    "mobilenet_v3_large": (217, 5_483_032),
    "mobilenet_v3_small": (57, 2_542_856),
    "efficientnet_b0": (386, 5_288_548),
    "resnet18": (1_814, 11_689_512),
    "resnet50": (4_089, 25_557_032),
    "vgg16": (15_470, 138_357_544),
    "squeezenet": (349, 1_235_496),
    "shufflenet_v2": (145, 2_278_604),
    "googlenet": (1_498, 6_624_904),
}
SMALL = [name for name in zoo.NAMES if name != "vgg16"]


def count_macs(model: Any) -> int:
    """Multiply-accumulates of convolutions and fully connected layers, from onnx's own shape inference."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    weights = {t.name: list(t.dims) for t in inferred.initializer}
    total = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            total += math.prod(shapes[node.output[0]]) * math.prod(weights[node.input[1]][1:])
        elif node.op_type in {"Gemm", "MatMul"}:
            total += math.prod(weights[node.input[1]])
    return total


def count_parameters(model: Any) -> int:
    """Elements of the trained weights; running statistics and scalar constants are not trained."""
    return sum(
        math.prod(t.dims)
        for t in model.graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and t.dims and not t.name.endswith((".mean", ".variance"))
    )


def every_tensor(model: Any, image: Any) -> dict[str, Any]:
    """All tensors that onnxruntime computes for an image."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    names = [output for node in model.graph.node for output in node.output]
    del probed.graph.output[:]
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        probed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(None, {"input": image}), strict=True))


@pytest.mark.parametrize("name", PUBLISHED)
def test_macs_and_parameters_are_the_published_ones(name: str) -> None:
    """With batch-norm nodes kept, every trained parameter is counted; MACs agree to the published digits."""
    model = zoo.build(name, batch_norm=True)
    macs, parameters = PUBLISHED[name]
    assert count_parameters(model) == parameters
    assert round(count_macs(model) / 1e6) == macs


@pytest.mark.parametrize("name", SMALL)
def test_every_network_passes_the_checker_at_another_size(name: str) -> None:
    """Half the width, 64 pixels and seven classes give a valid model with the asked output."""
    model = zoo.build(name, width=0.5, resolution=64, classes=7)
    onnx.checker.check_model(model, full_check=True)
    dims = [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]
    assert dims == ([1, 7, 64, 64] if name == "unet" else [1, 7])


@pytest.mark.parametrize("name", SMALL)
def test_no_channel_is_dead_and_none_explodes_on_an_unseen_image(name: str) -> None:
    """Feature maps keep a spread between 0.05 and 10, and at least half of a map's channels vary."""
    model = zoo.build(name, resolution=None if name == "tiny" else 128)
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    for tensor, value in every_tensor(model, synthetic_images((1, 3, size, size), seed=5)).items():
        assert np.isfinite(value).all(), tensor
        if value.ndim == 4 and value.shape[2] > 2:
            assert 0.05 < value.std() < 10, tensor
            alive = value.reshape(value.shape[1], -1).std(axis=1) > 1e-2 * value.std()
            assert alive.mean() > 0.5, tensor


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "shufflenet_v2"])
def test_int8_keeps_what_a_layer_says(name: str) -> None:
    """Noise does not grow with depth until nothing is left: every layer keeps 10 dB, half of them 20 dB."""
    network = frontend.load(zoo.build(name, resolution=96))
    images = synthetic_images((4, 3, 96, 96), seed=9)
    model = frontend.quantize(network, frontend.Calibration.from_arrays({"input": images}, network))
    ratios = list(model.sqnr_db.values())
    assert min(ratios) > 10
    assert np.median(ratios) > 20


def test_folding_the_batch_norms_does_not_change_the_output() -> None:
    image = synthetic_images((1, 3, 64, 64), seed=3)
    folded, kept = (zoo.build("mobilenet_v2", resolution=64, batch_norm=b) for b in (False, True))
    ours, theirs = (every_tensor(m, image)["classifier"] for m in (folded, kept))
    assert not any(node.op_type == "BatchNormalization" for node in folded.graph.node)
    assert sum(node.op_type == "BatchNormalization" for node in kept.graph.node) == 52
    np.testing.assert_allclose(ours, theirs, atol=0.01 * float(np.std(theirs)))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = (zoo.build("tiny", seed=s).SerializeToString(deterministic=True) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_tiny_network_has_every_operator_of_the_data_path() -> None:
    linear = {"Conv", "ConvTranspose", "BatchNormalization", "Gemm", "MatMul"}
    binary = {"Add", "Sub", "Mul", "Sum", "Div"}
    pools = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"}
    unary = {
        "Relu",
        "Clip",
        "LeakyRelu",
        "PRelu",
        "HardSwish",
        "HardSigmoid",
        "Sigmoid",
        "Tanh",
        "Erf",
        "Softmax",
    }
    moves = {"Concat", "Split", "Slice", "Pad", "Resize", "Reshape", "Transpose", "Flatten"}
    moves |= {"SpaceToDepth", "DepthToSpace"}
    wanted = linear | binary | pools | unary | moves
    assert wanted == {node.op_type for node in zoo.build("tiny").graph.node}


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean mobilenet_v2"):
        zoo.build("mobilenetv2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"resolution": 225}, "resolution 225 is not a multiple of 32 of at least 32; try 224"),
        ({"resolution": 0}, "try 32"),
        ({"width": 0.0}, "width multiplier 0.0 is outside"),
        ({"classes": 0}, "0 classes"),
        ({"seed": -1}, "seed -1 is negative"),
    ],
)
def test_a_size_the_network_cannot_have_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        zoo.build("resnet18", **arguments)
