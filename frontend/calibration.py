"""Calibration data, and what a network does with it: ranges and means of every tensor, by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import ModelError
from .network import Network, Port, new_session, run_session

__all__ = ["Calibration", "RangeMethod", "Statistics", "measure", "real_feeds"]

Array = NDArray[Any]
Feeds = Mapping[str, Array]
RangeMethod = Literal["minmax", "percentile", "mse"]
BINS = 2048
"""Histogram bins for percentile and MSE ranges (as many as common post-training quantisers use)."""
PERCENTILE = 99.99
"""Share of values, in percent, that the percentile range keeps on both sides together."""
IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Channel statistics of ImageNet training images, as torchvision's models take them (torchvision documentation)."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Samples that set the int8 ranges.

    Parameters
    ----------
    samples : tuple of dict of input name to array
        One frame each.
    kind : {"user", "synthetic"}
        Synthetic data measures speed and exactness, never accuracy; reports say which it was.
    """

    samples: tuple[Feeds, ...] = field(repr=False)
    kind: Literal["user", "synthetic"] = "user"

    def __post_init__(self) -> None:
        if not self.samples:
            raise ModelError("no calibration samples; give at least one image or array")

    @classmethod
    def synthetic(cls, network: Network, seed: int = 0, samples: int = 4) -> Calibration:
        """Seeded standard normal values in every input."""
        rng = np.random.default_rng(seed)
        frames = tuple({p.name: _noise(rng, p) for p in network.inputs} for _ in range(samples))
        return cls(frames, "synthetic")

    @classmethod
    def from_path(
        cls,
        path: str | Path,
        network: Network,
        limit: int = 64,
        *,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> Calibration:
        """Samples from a folder of images, a .npy or a .npz file.

        Parameters
        ----------
        path : path
            A folder of images (scaled to the input's size, ``(x / 255 - mean) / std``); a .npy array of one frame or of
            frames along its first axis; or a .npz with one array for each input name. Arrays are fed as they are.
        limit : int
            Most samples used.

        Raises
        ------
        ModelError
            Nothing usable there, or a shape that the network does not take.
        """
        where = Path(path)
        if where.is_dir():
            return cls(_images(where, network, limit, mean, std))
        if not where.is_file():
            raise ModelError(
                f"calibration {where}: no such file or folder; give a folder of images, a .npy or a .npz"
            )
        if where.suffix not in {".npy", ".npz"}:
            raise ModelError(
                f"calibration {where}: {where.suffix or 'no suffix'} is not read; give a folder of images, a .npy or a .npz"
            )
        try:
            loaded = np.load(where, allow_pickle=False)
            arrays = (
                {network.inputs[0].name: loaded}
                if isinstance(loaded, np.ndarray)
                else {k: loaded[k] for k in loaded.files}
            )
        except (OSError, ValueError, EOFError) as cause:
            raise ModelError(
                f"calibration {where}: not a numpy file of plain numbers ({_short(cause)}); save it with numpy.save"
            ) from None
        if len(arrays) == 1 and len(network.inputs) == 1:
            arrays = {network.inputs[0].name: next(iter(arrays.values()))}
        return cls.from_arrays(arrays, network, limit)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], network: Network, limit: int = 64) -> Calibration:
        """Samples from arrays of one frame or of frames along the first axis, one array an input."""
        columns: dict[str, list[Array]] = {}
        for port in network.inputs:
            if port.name not in arrays:
                raise ModelError(
                    f"calibration has no array {port.name!r}; it has {sorted(arrays)}", tensor=port.name
                )
            columns[port.name] = _frames(port, np.asarray(arrays[port.name]))[:limit]
        count = min(len(c) for c in columns.values())
        return cls(tuple({n: c[i] for n, c in columns.items()} for i in range(count)))


def _short(cause: Exception) -> str:
    return " ".join(str(cause).split())[:80]


def _noise(rng: np.random.Generator, port: Port) -> Array:
    shape = tuple(d or 1 for d in port.shape)
    if np.dtype(port.dtype).kind == "f":
        return rng.standard_normal(shape).astype(port.dtype)
    if port.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    info = np.iinfo(port.dtype)
    return rng.integers(max(info.min, -128), min(info.max, 255) + 1, shape).astype(port.dtype)


def _frames(port: Port, array: Array) -> list[Array]:
    want = tuple(d or 1 for d in port.shape)
    for shape, frames in ((want, [array]), (want[1:], [array])):
        if array.shape == shape:
            return [f.reshape(want).astype(port.dtype) for f in frames]
    if want and array.ndim == len(want) and array.shape[1:] == want[1:]:
        return [f.reshape(want).astype(port.dtype) for f in array]
    if array.shape[1:] == want:
        return [f.astype(port.dtype) for f in array]
    raise ModelError(
        f"calibration for input {port.name}: shape {list(array.shape)}, the network takes {list(want)}; give one frame of that or N frames along the first axis",
        tensor=port.name,
    )


def _images(
    folder: Path, network: Network, limit: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Feeds, ...]:
    from PIL import Image, UnidentifiedImageError

    port = network.inputs[0]
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMAGES)[:limit]
    if not files:
        raise ModelError(
            f"calibration {folder}: no image ({', '.join(sorted(IMAGES))}) inside; give a folder with some, or a .npy file"
        )
    shape = tuple(d or 1 for d in port.shape)
    if len(network.inputs) != 1 or len(shape) != 4:
        raise ModelError(
            f"calibration {folder}: images feed one input of four axes, {port.name} is {list(shape)}; give a .npz file instead"
        )
    last = shape[1] not in {1, 3} and shape[3] in {1, 3}
    height, width, channels = shape[1:] if last else (*shape[2:], shape[1])
    if channels not in {1, 3}:
        raise ModelError(
            f"calibration {folder}: input {port.name} has {channels} channels, images have 1 or 3; give a .npy file instead"
        )
    samples = []
    for file in files:
        try:
            with Image.open(file) as image:
                pixels = np.asarray(
                    image.convert("RGB" if channels == 3 else "L").resize((width, height)), np.float32
                )
        except (OSError, UnidentifiedImageError):
            raise ModelError(f"calibration image {file} cannot be read; remove or replace it") from None
        pixels = pixels.reshape(height, width, channels)
        if port.dtype == "uint8":
            value = pixels
        else:
            centred = pixels / 255 - np.array(mean[:channels], np.float32)
            value = (centred / np.array(std[:channels], np.float32)).astype(np.float32)
        samples.append({port.name: (value if last else value.transpose(2, 0, 1))[None].astype(port.dtype)})
    return tuple(samples)


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What a tensor does on the calibration data.

    Parameters
    ----------
    low, high : float
        Range, as the method chose it.
    mean, floor, ceiling : arrays
        Mean, least and greatest value along axis 1 (the channels of an ONNX tensor).
    """

    low: float
    high: float
    mean: Array = field(repr=False)
    floor: Array = field(repr=False)
    ceiling: Array = field(repr=False)


def measure(
    network: Network, tensors: Iterable[str], calibration: Calibration, method: RangeMethod
) -> dict[str, Statistics]:
    """Statistics of tensors over all samples.

    Raises
    ------
    ModelError
        A tensor is not finite on a sample: names it.
    """
    fed = {p.name for p in network.inputs}
    names = [n for n in dict.fromkeys(tensors) if n not in fed]
    session = (
        new_session(network.extract(network.nodes, [p.name for p in network.inputs], names))
        if names
        else None
    )
    sums: dict[str, Array] = {}
    floors: dict[str, Array] = {}
    ceilings: dict[str, Array] = {}
    histograms: dict[str, Array] = {}

    def frames() -> Iterable[dict[str, Array]]:
        for sample in calibration.samples:
            feeds = real_feeds(network, {p.name: network.feed(p, sample) for p in network.inputs})
            values = run_session(session, names, feeds) if session else {}
            yield {**feeds, **values}

    for values in frames():
        for name in (*names, *fed):
            value = values[name]
            axes = tuple(a for a in range(value.ndim) if a != 1)
            floor, ceiling = value.min(axis=axes).astype(np.float64), value.max(axis=axes).astype(np.float64)
            if not np.isfinite(floor.min() + ceiling.max()):
                raise ModelError(
                    f"tensor {name} is not finite on the calibration data; check the data's scaling and the weights",
                    tensor=name,
                )
            sums[name] = sums.get(name, 0.0) + value.mean(axis=axes, dtype=np.float64)
            floors[name] = np.minimum(floors.get(name, floor), floor)
            ceilings[name] = np.maximum(ceilings.get(name, ceiling), ceiling)
    ranges = {n: (float(floors[n].min()), float(ceilings[n].max())) for n in sums}
    if method != "minmax":
        for values in frames():
            for name in (*names, *fed):
                low, high = ranges[name]
                counts, _ = np.histogram(values[name], BINS, (low, max(high, low + 1e-30)))
                histograms[name] = histograms.get(name, 0) + counts
        choose = _percentile if method == "percentile" else _mse
        ranges = {n: choose(histograms[n], *ranges[n]) for n in ranges}
    count = len(calibration.samples)
    return {n: Statistics(*ranges[n], sums[n] / count, floors[n], ceilings[n]) for n in ranges}


def real_feeds(network: Network, feeds: dict[str, Array]) -> dict[str, Array]:
    """Feeds of an integer model as the real values that its stripped network takes."""
    out = {}
    for name, value in feeds.items():
        quant = network.quants.get(name)
        if quant is None or value.dtype.kind not in "iu":
            out[name] = value
            continue
        zero = quant.zero_point + (128 if value.dtype == np.uint8 else 0)
        out[name] = (value.astype(np.float32) - np.float32(zero)) * np.float32(quant.scale)
    return out


def _percentile(counts: Array, low: float, high: float) -> tuple[float, float]:
    share = np.cumsum(counts) / max(1, counts.sum())
    edges = np.linspace(low, high, BINS + 1)
    tail = (1 - PERCENTILE / 100) / 2
    first = int(np.searchsorted(share, tail))
    last = int(np.searchsorted(share, 1 - tail))
    return float(edges[min(first, BINS - 1)]), float(edges[min(last + 1, BINS)])


def _mse(counts: Array, low: float, high: float) -> tuple[float, float]:
    """The range, shrunk from both ends by the same share, with the least squared error of 255 steps."""
    centres = np.linspace(low, high, BINS, endpoint=False) + (high - low) / BINS / 2
    weights = counts.astype(np.float64)
    best, chosen = np.inf, (low, high)
    for share in np.linspace(1.0, 0.3, 71):
        a, b = min(low * share, 0.0), max(high * share, 0.0)
        step = (b - a) / 255
        if step <= 0:
            continue
        rounded = np.clip(np.rint((centres - a) / step), 0, 255) * step + a
        # Within a bin, values spread evenly: rounding alone costs step^2 / 12 where the bin is finer than a step.
        inside = (centres >= a) & (centres <= b)
        error = float(np.sum(weights * np.where(inside, step**2 / 12, (rounded - centres) ** 2)))
        if error < best:
            best, chosen = error, (a, b)
    return chosen
