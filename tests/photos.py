"""Photographs and rendered text for calibration and scoring, out of cached packages; the two sets never overlap."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from models import member
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["WORDS", "crop", "font", "foolbox", "page", "photo", "rendered_line", "spectrogram"]

Bytes = NDArray[np.uint8]
WHERE = {
    # photo: package, path
    **{n: ("scikit-image", f"skimage/data/{n}") for n in ("astronaut.png", "camera.png", "chelsea.png")},
    **{n: ("scikit-image", f"skimage/data/{n}") for n in ("coffee.png", "rocket.jpg", "motorcycle_left.png")},
    **{n: ("scikit-image", f"skimage/data/{n}") for n in ("motorcycle_right.png", "color.png", "ihc.png")},
    **{n: ("scikit-learn", f"sklearn/datasets/images/{n}") for n in ("china.jpg", "flower.jpg")},
}
IMAGENET = [
    "00_243",
    "01_559",
    "02_438",
    "03_990",
    "04_949",
    "05_853",
    "06_609",
    "07_609",
    "08_915",
    "09_455",
    "10_541",
    "11_630",
    "12_741",
    "13_471",
    "14_129",
    "15_99",
    "16_251",
    "17_22",
    "18_317",
    "19_305",
]
CIFAR10 = [
    "00_3",
    "01_8",
    "02_8",
    "03_0",
    "04_6",
    "05_6",
    "06_1",
    "07_6",
    "08_3",
    "09_1",
    "10_0",
    "11_9",
    "12_5",
    "13_7",
    "14_9",
    "15_8",
    "16_5",
    "17_7",
    "18_8",
    "19_6",
]
CIFAR100 = [
    "00_49",
    "01_33",
    "02_72",
    "03_51",
    "04_71",
    "05_92",
    "06_15",
    "07_14",
    "08_23",
    "09_0",
    "10_71",
    "11_75",
    "12_81",
    "13_69",
    "14_40",
    "15_43",
    "16_92",
    "17_97",
    "18_70",
    "19_53",
]
FILES = {"imagenet": (IMAGENET, "jpg"), "cifar10": (CIFAR10, "png"), "cifar100": (CIFAR100, "png")}
WORDS = [
    "array",
    "bank",
    "burst",
    "cache",
    "channel",
    "clock",
    "cycle",
    "depth",
    "drain",
    "edge",
    "engine",
    "fetch",
    "fill",
    "frame",
    "group",
    "halo",
    "image",
    "kernel",
    "latency",
    "layer",
    "logic",
    "memory",
    "model",
    "network",
    "order",
    "output",
    "pixel",
    "port",
    "queue",
    "refresh",
    "report",
    "roofline",
    "scale",
    "shift",
    "signal",
    "stall",
    "stride",
    "tensor",
    "tile",
    "timing",
    "token",
    "traffic",
    "vector",
    "weight",
    "window",
    "2024",
    "4096",
    "1280",
    "37.5",
    "0.25",
    "page",
    "12",
]


@cache
def photo(name: str) -> Bytes:
    """An unlabelled photograph, (H, W, 3)."""
    if name == "grace_hopper.jpg":
        import matplotlib

        data = (Path(matplotlib.get_data_path()) / "sample_data" / name).read_bytes()
    else:
        data = member(*WHERE[name])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@cache
def foolbox(kind: str) -> tuple[tuple[Bytes, int], ...]:
    """Twenty labelled photographs of a data set: (pixels, class)."""
    names, suffix = FILES[kind]
    out = []
    for name in names:
        data = member("foolbox", f"foolbox/data/{kind}_{name}.{suffix}")
        out.append((np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), int(name.split("_")[1])))
    return tuple(out)


def crop(image: Bytes, size: int, rng: np.random.Generator, low: float = 0.6, high: float = 1.0) -> Bytes:
    """A square of `low` to `high` of the shorter side at a random place, perhaps mirrored, resized to `size`."""
    height, width = image.shape[:2]
    side = int(min(height, width) * rng.uniform(low, high))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    cut = Image.fromarray(image[top : top + side, left : left + side])
    pixels = np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(pixels[:, ::-1]) if rng.random() < 0.5 else pixels


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of matplotlib's package, such as ``DejaVuSans``."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def rendered_line(text: str, typeface: str, width: int, *, upside_down: bool = False) -> NDArray[np.float32]:
    """Text as PP-OCR's recogniser takes it: 48 pixels high, padded to `width` with zeros, range -1 to 1."""
    face = font(typeface, 34)
    left, top, right, bottom = face.getbbox(text)
    image = Image.new("RGB", (int(right - left) + 16, int(bottom - top) + 12), (245, 243, 238))
    ImageDraw.Draw(image).text((8 - left, 6 - top), text, font=face, fill=(25, 25, 40))
    if upside_down:
        image = image.rotate(180)
    resized = image.resize(
        (min(width, max(1, round(image.width * 48 / image.height))), 48), Image.Resampling.BILINEAR
    )
    out = np.zeros((3, 48, width), np.float32)
    out[:, :, : resized.width] = np.asarray(resized, np.float32).transpose(2, 0, 1) / 127.5 - 1.0
    return out


def page(rng: np.random.Generator, typeface: str, size: int = 640) -> tuple[NDArray[np.float32], Any]:
    """A page of text lines as PP-OCR's detector takes it, and the lines' boxes (left, top, right, bottom)."""
    image = Image.new("RGB", (size, size), (250, 248, 244))
    draw = ImageDraw.Draw(image)
    boxes, top = [], 24
    while top < size - 64:
        face = font(typeface, int(rng.integers(18, 36)))
        text = " ".join(rng.choice(WORDS, int(rng.integers(1, 4))))
        left = int(rng.integers(16, 120))
        box = draw.textbbox((left, top), text, font=face)
        if box[2] > size - 12:
            continue
        draw.text((left, top), text, font=face, fill=tuple(int(v) for v in rng.integers(0, 90, 3)))
        boxes.append([float(v) for v in box])
        top = int(box[3]) + int(rng.integers(18, 44))
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1.0, boxes


def spectrogram(rng: np.random.Generator, frames: int = 59, bands: int = 49) -> NDArray[np.float32]:
    """A made-up word for the keyword network: two gliding formants over noise, -128 (silence) to 127."""
    time, band = np.arange(frames)[:, None], np.arange(bands)[None, :]
    start, length = rng.uniform(8, 25), rng.uniform(12, 28)
    envelope = np.exp(-(((time - start - length / 2) / (length / 2)) ** 4))
    energy = np.zeros((frames, bands))
    for low, high in ((2, 16), (14, 40)):
        centre = rng.uniform(low, high) + (time - start) * rng.uniform(-0.35, 0.35)
        energy += rng.uniform(0.5, 1.0) * np.exp(-(((band - centre) / rng.uniform(1.5, 4.0)) ** 2))
    burst = (band > bands * 0.6) * np.exp(-(((time - start) / rng.uniform(1, 4)) ** 2)) * rng.uniform(0, 0.8)
    values = 255 * np.clip(envelope * energy + burst + rng.uniform(0, 0.05, (frames, bands)), 0, 1) - 128
    return np.round(values)[None].astype(np.float32)
