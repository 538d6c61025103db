"""What each network of the working set is for, and how well it does it: inputs, calibration data and a score.

A task's calibration samples come from other photographs, fonts or seeds than its scored ones. Where no package
ships labels, the score says how far the quantised network agrees with the float one on the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from models import load, member
from numpy.typing import NDArray
from photos import WORDS, crop, foolbox, page, photo, rendered_line, spectrogram
from PIL import Image

__all__ = ["TASKS", "Task"]

Array = NDArray[Any]
Outputs = list[list[Array]]
"""Per sample, the network's outputs in order."""
Boxes = NDArray[np.float64]
"""Rows of left, top, right, bottom, score, class."""


@dataclass(frozen=True, slots=True)
class Task:
    """Inputs and score of a network.

    Parameters
    ----------
    metric : str
        What the score is, with the number of samples.
    calibration, inputs : callable
        Batches of inputs in ONNX layout; the first axis counts samples.
    score : callable
        Of a run's outputs, the float network's outputs on the same inputs, and which of `inputs` they are;
        1 is perfect, save where the metric says dB.
    """

    metric: str
    calibration: Callable[[], Array]
    inputs: Callable[[], Array]
    score: Callable[[Outputs, Outputs, Sequence[int]], float]


def _chw(pixels: Array) -> Array:
    return np.ascontiguousarray(np.asarray(pixels, np.float32).transpose(2, 0, 1))


def _imagenet(pixels: Array) -> Array:
    """torchvision's normalisation: mean and deviation of ImageNet."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return _chw((np.asarray(pixels) / 255 - mean) / deviation)


def _accuracy(labels: Callable[[], list[int]]) -> Callable[[Outputs, Outputs, Sequence[int]], float]:
    def score(outputs: Outputs, _: Outputs, chosen: Sequence[int]) -> float:
        wanted = np.array(labels())[list(chosen)]
        return float(np.mean([int(o[0].argmax()) == w for o, w in zip(outputs, wanted, strict=True)]))

    return score


def _agreement(outputs: Outputs, reference: Outputs, _: Sequence[int]) -> float:
    return float(np.mean([o[0].argmax() == r[0].argmax() for o, r in zip(outputs, reference, strict=True)]))


def _output_sqnr(outputs: Outputs, reference: Outputs, _: Sequence[int]) -> float:
    """Signal to quantisation noise over all outputs, in dB."""
    ours, theirs = (
        np.concatenate([o[0].ravel() for o in side]).astype(np.float64) for side in (outputs, reference)
    )
    noise = float(np.sum((ours - theirs) ** 2))
    return 99.0 if noise == 0 else float(10 * np.log10(np.sum(theirs**2) / noise))


# ---------------------------------------------------------------- classes

CALIBRATION_PHOTOS = (
    "china.jpg", "flower.jpg", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "color.png",
    "astronaut.png", "camera.png", "grace_hopper.jpg", "motorcycle_right.png", "ihc.png",
)  # fmt: skip


@cache
def _imagenet_calibration() -> Array:
    """48 crops of photographs that are never scored."""
    rng = np.random.default_rng(100)
    return np.stack([_imagenet(crop(photo(n), 224, rng)) for n in CALIBRATION_PHOTOS for _ in range(4)])


@cache
def _imagenet_inputs() -> Array:
    """Ten crops of each of twenty labelled photographs."""
    rng = np.random.default_rng(101)
    return np.stack([_imagenet(crop(p, 224, rng, 0.75)) for p, _ in foolbox("imagenet") for _ in range(10)])


def _shifted(pixels: Array, rng: np.random.Generator) -> Array:
    """CIFAR's usual augmentation: up to 2 pixels of shift, perhaps mirrored."""
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="edge")
    top, left = rng.integers(0, 5, 2)
    cut = padded[top : top + 32, left : left + 32]
    return cut[:, ::-1] if rng.random() < 0.5 else cut


def _cifar(kind: str, copies: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return np.stack([_chw(_shifted(p, rng)) / 255 for p, _ in foolbox(kind) for _ in range(copies)])


WITH_PERSON = ("astronaut.png", "camera.png", "grace_hopper.jpg")
UNCLEAR = (0, 2)
"""Photographs of foolbox that show a part of a person: calibration only."""


@cache
def _person_inputs() -> Array:
    """60 crops with a person, 72 without."""
    rng = np.random.default_rng(102)
    shown = [crop(photo(n), 96, rng, 0.8) for n in WITH_PERSON for _ in range(20)]
    empty = [p for i, (p, _) in enumerate(foolbox("imagenet")) if i not in UNCLEAR]
    return np.stack([_chw(p) for p in [*shown, *(crop(p, 96, rng, 0.8) for p in empty for _ in range(4))]])


@cache
def _person_calibration() -> Array:
    rng = np.random.default_rng(103)
    names = ("china.jpg", "flower.jpg", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png")
    images = [photo(n) for n in names] + [foolbox("imagenet")[i][0] for i in UNCLEAR]
    return np.stack([_chw(crop(p, 96, rng)) for p in images for _ in range(6)])


def _person_labels() -> list[int]:
    """The network's classes are person, non_person."""
    return [0] * 60 + [1] * 72


def _words(seed: int, count: int) -> Array:
    rng = np.random.default_rng(seed)
    return np.stack([spectrogram(rng) for _ in range(count)])


# ---------------------------------------------------------------- text

SCORED_FACES = ("DejaVuSans", "DejaVuSerif")
CALIBRATION_FACES = ("DejaVuSansMono", "STIXGeneral", "DejaVuSans-Oblique", "DejaVuSerif-Italic")


def _texts(seed: int, count: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 2)) for _ in range(count)]


def _lines(seed: int, count: int, faces: tuple[str, ...], width: int, turn: bool) -> Array:
    texts = enumerate(_texts(seed, count))
    return np.stack(
        [rendered_line(t, faces[i % len(faces)], width, upside_down=turn and i % 4 > 1) for i, t in texts]
    )


def _pages(seed: int, count: int, faces: tuple[str, ...]) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [page(rng, faces[i % len(faces)]) for i in range(count)]


@cache
def _alphabet() -> list[str]:
    """The recogniser's characters: blank, those in the model's metadata, space."""
    import onnx

    entries = {e.key: e.value for e in onnx.load(load("ocr_rec")).metadata_props}
    return ["", *entries["character"].splitlines(), " "]


def _spoken(probabilities: Array) -> str:
    """Greedy CTC decoding: drop repeats, then blanks."""
    best = probabilities.reshape(-1, probabilities.shape[-1]).argmax(axis=1)
    kept = [c for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1])]
    return "".join(_alphabet()[c] for c in kept)


def _distance(a: str, b: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def _character_accuracy(outputs: Outputs, _: Outputs, chosen: Sequence[int]) -> float:
    """1 - character error rate."""
    every = _texts(105, 60)
    texts = [every[i] for i in chosen]
    errors = sum(_distance(_spoken(o[0]), t) for o, t in zip(outputs, texts, strict=True))
    return 1 - errors / sum(map(len, texts))


# ---------------------------------------------------------------- boxes


def _overlap(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Intersection over union of each box of a with each of b."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(x[:, 2:4] - x[:, :2], axis=1) for x in (a, b)]
    union: NDArray[np.float64] = areas[0][:, None] + areas[1][None, :] - common
    return common / np.maximum(union, 1e-9)


def _suppressed(boxes: Boxes, limit: float) -> Boxes:
    """Greedy non-maximum suppression within a class."""
    boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    kept: list[int] = []
    overlap = _overlap(boxes, boxes)
    for i in range(len(boxes)):
        if all(overlap[i, j] < limit or boxes[i, 5] != boxes[j, 5] for j in kept):
            kept.append(i)
    return boxes[kept]


def _f1(found: list[Boxes], wanted: list[Boxes], limit: float) -> float:
    """F1 of boxes matched one to one, greedily, at an overlap of at least `limit` and the same class."""
    matched = 0
    for ours, theirs in zip(found, wanted, strict=True):
        overlap = _overlap(ours, theirs) * (ours[:, None, 5] == theirs[None, :, 5])
        while overlap.size and overlap.max() >= limit:
            i, j = np.unravel_index(overlap.argmax(), overlap.shape)
            overlap[i, :], overlap[:, j] = 0, 0
            matched += 1
    return 2 * matched / max(1, sum(map(len, found)) + sum(map(len, wanted)))


def _components(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Bounding boxes (left, top, right, bottom) of the 4-connected regions, by runs of rows and union-find."""
    parent: list[int] = []
    runs: list[tuple[int, int, int]] = []

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    above: list[int] = []
    for y, row in enumerate(mask):
        steps = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        here = []
        for start, stop in zip(steps[::2], steps[1::2], strict=True):
            index = len(runs)
            runs.append((y, int(start), int(stop)))
            parent.append(index)
            for other in above:
                if runs[other][1] < stop and start < runs[other][2]:
                    parent[root(other)] = root(index)
            here.append(index)
        above = here
    bounds: dict[int, list[int]] = {}
    for index, (y, start, stop) in enumerate(runs):
        box = bounds.setdefault(root(index), [start, y, stop, y + 1])
        box[0], box[1], box[2], box[3] = (
            min(box[0], start),
            min(box[1], y),
            max(box[2], stop),
            max(box[3], y + 1),
        )
    return [(b[0], b[1], b[2], b[3]) for b in bounds.values()]


def _text_boxes(outputs: list[Array]) -> Boxes:
    """PP-OCR's reading of the detector's map: threshold 0.3, box score 0.5, grown by 1.6 (its config.yaml)."""
    heat = outputs[0][0, 0]
    rows = []
    for left, top, right, bottom in _components(heat > 0.3):
        width, height = right - left, bottom - top
        score = float(heat[top:bottom, left:right].mean())
        if min(width, height) >= 3 and score >= 0.5:
            grow = width * height * 1.6 / (2 * (width + height))
            rows.append([left - grow, top - grow, right + grow, bottom + grow, score, 0])
    return np.array(rows, np.float64).reshape(-1, 6)


def _text_f1(outputs: Outputs, _: Outputs, chosen: Sequence[int]) -> float:
    pages = _pages(107, 8, SCORED_FACES)
    wanted = [np.array([[*b, 1, 0] for b in pages[i][1]]) for i in chosen]
    return _f1([_text_boxes(o) for o in outputs], wanted, 0.5)


FACES = {"astronaut.png": (178, 64, 268, 188), "grace_hopper.jpg": (178, 105, 325, 300)}
"""Faces in the photographs, marked by eye: left, top, right, bottom."""
BACKGROUNDS = ("coffee.png", "rocket.jpg", "china.jpg", "flower.jpg", "chelsea.png")


@cache
def _portraits() -> tuple[Array, list[Boxes]]:
    """24 scenes of 480×640: one or both portraits, at random size and place, over photographs without people."""
    rng = np.random.default_rng(108)
    images, boxes = [], []
    for index in range(24):
        scene = Image.fromarray(photo(BACKGROUNDS[index % len(BACKGROUNDS)])).resize((640, 480))
        found = []
        for half, name in enumerate(FACES):
            if (index + half) % 3 == 0:
                continue
            portrait = Image.fromarray(photo(name))
            scale = float(rng.uniform(120, 300)) / portrait.width
            small = portrait.resize((round(portrait.width * scale), round(portrait.height * scale)))
            left = 320 * half + int(rng.integers(0, 320 - small.width + 1))
            top = int(rng.integers(0, 480 - small.height + 1))
            scene.paste(small, (left, top))
            x1, y1, x2, y2 = (v * scale for v in FACES[name])
            found.append([left + x1, top + y1, left + x2, top + y2, 1, 0])
        images.append(_chw(np.asarray(scene)))
        boxes.append(np.array(found, np.float64).reshape(-1, 6))
    return np.stack(images), boxes


@cache
def _other_faces() -> Array:
    """16 scenes with small grey faces of another collection, for calibration."""
    import io

    faces = np.load(io.BytesIO(member("scikit-image", "skimage/data/lfw_subset.npy")))[:100]
    rng = np.random.default_rng(109)
    images = []
    for _ in range(16):
        scene = Image.fromarray(crop(photo("motorcycle_left.png"), 640, rng)).crop((0, 80, 640, 560))
        for _ in range(4):
            face = Image.fromarray((faces[rng.integers(0, 100)] * 255).astype(np.uint8)).convert("RGB")
            side = int(rng.integers(60, 200))
            scene.paste(face.resize((side, side)), (int(rng.integers(0, 440)), int(rng.integers(0, 280))))
        images.append(_chw(np.asarray(scene)))
    return np.stack(images)


def _face_boxes(outputs: list[Array]) -> Boxes:
    """CenterFace's decoding: each peak of the heat map over 0.5 gives a box (Xu et al. 2019, section 3.2)."""
    heat, scale, offset = outputs[0][0, 0], outputs[1][0], outputs[2][0]
    rows = []
    for y, x in zip(*np.nonzero(heat > 0.5), strict=True):
        height, width = np.exp(scale[:, y, x]) * 4
        cy, cx = (y + offset[0, y, x] + 0.5) * 4, (x + offset[1, y, x] + 0.5) * 4
        rows.append([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2, heat[y, x], 0])
    return _suppressed(np.array(rows, np.float64).reshape(-1, 6), 0.3)


def _face_f1(outputs: Outputs, _: Outputs, chosen: Sequence[int]) -> float:
    return _f1([_face_boxes(o) for o in outputs], [_portraits()[1][i] for i in chosen], 0.4)


@cache
def _body_inputs() -> Array:
    rng = np.random.default_rng(110)
    names = ("astronaut.png", "grace_hopper.jpg")
    return np.stack([_chw(crop(photo(n), 320, rng, 0.7)) / 255 for n in names for _ in range(20)])


@cache
def _body_calibration() -> Array:
    rng = np.random.default_rng(111)
    names = ("camera.png", "coffee.png", "chelsea.png", "rocket.jpg")
    photos = [_chw(crop(photo(n), 320, rng)) / 255 for n in names for _ in range(2)]
    faces = [s[:, 80:400, :320] / 255 for s in _other_faces()[:8]]
    return np.stack([*photos, *faces]).astype(np.float32)


def _yolo_boxes(outputs: list[Array]) -> Boxes:
    """YOLOv8's head: centre, size, class scores; kept from 0.25 on."""
    rows = outputs[0][0].T.astype(np.float64)
    score, kind = rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1)
    chosen = score > 0.25
    centre, half = rows[chosen, :2], rows[chosen, 2:4] / 2
    boxes = np.concatenate([centre - half, centre + half, score[chosen, None], kind[chosen, None]], axis=1)
    return _suppressed(boxes, 0.45)


def _yolo_f1(outputs: Outputs, reference: Outputs, _: Sequence[int]) -> float:
    return _f1([_yolo_boxes(o) for o in outputs], [_yolo_boxes(r) for r in reference], 0.5)


# ---------------------------------------------------------------- the table

_RESNET8 = Task(
    "CIFAR-10 top-1, n = 200",
    lambda: _cifar("cifar100", 3, 112),
    lambda: _cifar("cifar10", 10, 113),
    _accuracy(lambda: [label for _, label in foolbox("cifar10") for _ in range(10)]),
)
_VWW = Task("person or not, n = 132", _person_calibration, _person_inputs, _accuracy(_person_labels))
_KWS = Task(
    "top-1 agreement with float, n = 200", lambda: _words(114, 64), lambda: _words(115, 200), _agreement
)
_SEEDED = Task(
    "output SQNR in dB, n = 20",
    lambda: _imagenet_calibration()[::3],
    lambda: _imagenet_inputs()[::10],
    _output_sqnr,
)

TASKS = {
    "resnet8": _RESNET8,
    "vww": _VWW,
    "kws": _KWS,
    "mobilenet_v2_imagenet": Task(
        "ImageNet top-1, n = 200",
        _imagenet_calibration,
        _imagenet_inputs,
        _accuracy(lambda: [label for _, label in foolbox("imagenet") for _ in range(10)]),
    ),
    "ocr_det": Task(
        "text lines F1, 8 pages",
        lambda: np.stack([p for p, _ in _pages(106, 8, CALIBRATION_FACES)]),
        lambda: np.stack([p for p, _ in _pages(107, 8, SCORED_FACES)]),
        _text_f1,
    ),
    "ocr_cls": Task(
        "upright or turned, n = 60",
        lambda: _lines(104, 32, CALIBRATION_FACES, 192, turn=True),
        lambda: _lines(105, 60, SCORED_FACES, 192, turn=True),
        _accuracy(lambda: [int(i % 4 > 1) for i in range(60)]),
    ),
    "ocr_rec": Task(
        "1 - character error rate, 60 lines",
        lambda: _lines(104, 64, CALIBRATION_FACES, 320, turn=False),
        lambda: _lines(105, 60, SCORED_FACES, 320, turn=False),
        _character_accuracy,
    ),
    "centerface": Task("faces F1, 24 scenes", _other_faces, lambda: _portraits()[0], _face_f1),
    "yolov8n": Task("boxes F1 against float, n = 40", _body_calibration, _body_inputs, _yolo_f1),
    "resnet8_int8": _RESNET8,
    "vww_int8": _VWW,
    "kws_int8": _KWS,
    **{
        f"light_{n}": _SEEDED
        for n in (
            "alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet",
            "vgg19", "zfnet512",
        )
    },
}  # fmt: skip
"""By the names of `models.NETWORKS`; nothing is downloaded or computed until a task is asked."""
