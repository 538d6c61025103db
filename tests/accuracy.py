"""Score every network of the working set before and after int8, and write docs/accuracy.md.

    python tests/accuracy.py                     all networks whose package is in the cache
    python tests/accuracy.py vww resnet8         these; the other rows stay as they are
    python tests/accuracy.py --samples 20 ...    fewer scored samples (said in the table)

The int8 columns are the integer reference. One frame of each network also goes through the emulator, and every byte of
every layer is compared.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # the tasks are neighbours of this script

import tilewright as tw
from models import NETWORKS, available, load
from pages import write_table
from tasks import TASKS, Outputs
from tilewright import frontend
from tilewright.frontend import Calibration, HostSegment
from tilewright.ir.errors import ModelError

PAGE = Path(__file__).parent.parent / "docs" / "accuracy.md"
ARCH = "b1024"
HEAD = f"""# Accuracy before and after int8

Written by `python tests/accuracy.py`; the data come out of packages (`python tests/models.py list`), calibration
samples from other photographs, fonts or seeds than the scored ones. *float* is onnxruntime on the network as it
was found; *int8* is our integer reference, with 24-bit requantisation (`f32`) and with power-of-two scales (`shift`).
For networks that came quantised, *float* is the network before its vendor quantised it and *as found* is onnxruntime
on the vendor's int8. A score is 1 at best, save where it is in dB. With 200 samples, differences under five points
are noise; with fewer, larger ones. *Emulated*: bytes of one scored frame, every layer of it, that the instruction words for `{ARCH}` computed and
the integer reference did too; and how many of them differ.

A low SQNR need not cost the task: the lowest of `ocr_det` is the bottleneck of a squeeze-and-excite block, six values
of which most are 0.
"""
COLUMNS = (
    "network",
    "score (samples)",
    "float",
    "as found",
    "int8",
    "int8, shift",
    "same class",
    "lowest SQNR, dB",
    "emulated, differing",
    "on the host",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One network's line of the table."""

    network: str
    metric: str
    samples: int
    scores: dict[str, float]
    agreement: float | None
    """Share of samples whose class in int8 (`f32`) is that of onnxruntime's run; None where there are no classes."""
    lowest_sqnr: tuple[str, float] | None
    emulated: tuple[int, int]
    """Bytes of one frame compared with the emulator's, and those that differ."""
    host: tuple[str, ...]

    def cells(self) -> list[str]:
        """The line of the table, without the name."""
        decimals = 1 if "dB" in self.metric else 3
        scores = [
            f"{self.scores[k]:.{decimals}f}" if k in self.scores else "–"
            for k in ("float", "as found", "f32", "shift")
        ]
        if "dB" in self.metric:
            scores[0] = "–"
        return [
            f"{self.metric.split(',')[0]} ({self.samples})",
            *scores,
            "–" if self.agreement is None else f"{self.agreement:.3f}",
            f"{self.lowest_sqnr[1]:.1f} ({self.lowest_sqnr[0]})" if self.lowest_sqnr else "–",
            f"{self.emulated[0]:,}, {self.emulated[1]:,}",
            ", ".join(self.host) or "none",
        ]


def int8_run(name: str, mode: Any, inputs: Any) -> tuple[Any, Outputs]:
    """Quantise with the task's calibration data and run the integer reference on each input."""
    network = frontend.load(load(name), input_shape=NETWORKS[name].input_shape)
    port = network.inputs[0].name
    calibration = Calibration.from_arrays({port: TASKS[name].calibration()}, network)
    model = frontend.quantize(network, calibration, mode=mode)
    return model, [list(model.run({port: x[None]}).values()) for x in inputs]


def found_run(name: str, inputs: Any) -> Outputs:
    """onnxruntime on the network as it was found."""
    network = frontend.load(load(name), input_shape=NETWORKS[name].input_shape)
    port = network.inputs[0].name
    return [list(network.float_run({port: x[None]}).values()) for x in inputs]


def measure(name: str, most: int) -> Row:
    """Score one network in all its versions."""
    task = TASKS[name]
    whole = task.inputs()
    # A stride keeps every class where the samples are ordered by class.
    chosen = np.unique(np.linspace(0, len(whole) - 1, min(most, len(whole))).astype(int))
    inputs = whole[chosen]
    base = name.removesuffix("_int8")
    reference = found_run(base, inputs)
    grade = partial(score, name, chosen, reference)
    scores = {"float": grade(reference)}
    judge = reference
    modes = ("f32", "shift") if base == name else ("f32",)
    if base != name:
        judge = found_run(name, inputs)
        scores["as found"] = grade(judge)
    models = {}
    outputs: dict[str, Outputs] = {}
    for mode in modes:
        try:
            models[mode], outputs[mode] = int8_run(name, mode, inputs)
        except ModelError as error:
            if mode == "f32":
                raise
            print(f"{name}, mode {mode}: {error}")
            continue
        scores[mode] = grade(outputs[mode])
    compiled = tw.compile(models["f32"], ARCH)
    exact = compiled.verify_values({compiled.model.inputs[0].name: inputs[:1]}, every=True)
    classes = judge[0][0].ndim == 2
    same = [a[0].argmax() == b[0].argmax() for a, b in zip(outputs["f32"], judge, strict=True)]
    ratios = models["f32"].sqnr_db
    lowest = min(ratios.items(), key=lambda item: item[1]) if ratios else None
    host = [op for s in models["f32"].segments if isinstance(s, HostSegment) for _, op in s.nodes]
    counted = tuple(f"{host.count(op)} {op}" for op in dict.fromkeys(host))
    return Row(
        name,
        task.metric,
        len(inputs),
        scores,
        float(np.mean(same)) if classes else None,
        lowest,
        (exact.bytes_compared, exact.bytes_differing),
        counted,
    )


def score(name: str, chosen: Any, reference: Outputs, outputs: Outputs) -> float:
    """The task's score of the chosen samples."""
    return TASKS[name].score(outputs, reference, chosen)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Score networks before and after int8; write docs/accuracy.md."
    )
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="networks (default: all at hand)")
    parser.add_argument("--samples", type=int, default=200, help="most samples scored a network")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in TASKS]
    if unknown:
        parser.error(f"no network is called {unknown[0]}; there are {', '.join(TASKS)}")
    failed = 0
    for name in chosen.names or list(TASKS):
        if not available(name):
            print(f"{name}: not in the cache; run: python tests/models.py fetch")
            continue
        start = time.perf_counter()
        try:
            row = measure(name, chosen.samples)
        except ModelError as error:
            print(f"{name}: {error}")
            failed += 1
            continue
        failed += bool(row.emulated[1])
        print(f"{' | '.join((name, *row.cells()))} ({time.perf_counter() - start:.0f} s)", flush=True)
        write_table(PAGE, HEAD, COLUMNS, {name: row.cells()}, TASKS)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
