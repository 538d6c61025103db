"""Score every network of the working set before and after int8, and write docs/accuracy.md.

    python tests/accuracy.py                     all networks whose package is in the cache
    python tests/accuracy.py vww resnet8         these; the other rows stay as they are
    python tests/accuracy.py --samples 20 ...    fewer scored samples (said in the table)

Rows are kept in docs/accuracy.json, from which the table is written. The int8 columns are the integer reference,
byte for byte what the emulator and the hardware compute.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # the tasks are neighbours of this script

from models import NETWORKS, available, load
from tasks import TASKS, Outputs
from tilewright import frontend
from tilewright.frontend import Calibration, HostSegment
from tilewright.ir.errors import ModelError

DOCS = Path(__file__).parent.parent / "docs"
HEAD = """# Accuracy before and after int8

Written by `python tests/accuracy.py`; the data come out of packages (`python tests/models.py list`), calibration
samples from other photographs, fonts or seeds than the scored ones. *float* is onnxruntime on the network as it
was found; *int8* is our integer reference, which the emulator and the hardware equal byte for byte, with 24-bit
requantisation (`f32`) and with power-of-two scales (`shift`). For networks that came quantised, *float* is the
network before its vendor quantised it and *as found* is onnxruntime on the vendor's int8. A score is 1 at best,
save where it is in dB. With 200 samples, differences under five points are noise.

"""


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
    host: tuple[str, ...]
    seconds_a_frame: float


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
    start = time.perf_counter()
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
    spent = time.perf_counter() - start
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
        counted,
        spent / len(inputs) / len(models),
    )


def score(name: str, chosen: Any, reference: Outputs, outputs: Outputs) -> float:
    """The task's score of the chosen samples."""
    return TASKS[name].score(outputs, reference, chosen)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | score (samples) | float | as found | int8 | int8, shift | same class | lowest SQNR, dB | on the host |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        decimals = 1 if "dB" in row.metric else 3
        cells = [
            f"{row.scores[k]:.{decimals}f}" if k in row.scores else "–"
            for k in ("float", "as found", "f32", "shift")
        ]
        if "dB" in row.metric:
            cells[0] = "–"
        same = "–" if row.agreement is None else f"{row.agreement:.3f}"
        lowest = f"{row.lowest_sqnr[1]:.1f} ({row.lowest_sqnr[0]})" if row.lowest_sqnr else "–"
        host = ", ".join(row.host) or "none"
        metric = f"{row.metric.split(', n =')[0]} ({row.samples})"
        lines.append(f"| {row.network} | {metric} | {' | '.join(cells)} | {same} | {lowest} | {host} |")
    return "\n".join(lines) + "\n"


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
    store = DOCS / "accuracy.json"
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
        rows = json.loads(store.read_text()) if store.exists() else {}
        rows[name] = asdict(row)
        shown = ", ".join(f"{k} {v:.3f}" for k, v in row.scores.items())
        print(
            f"{name}: {shown}; lowest SQNR {row.lowest_sqnr} ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
        store.write_text(json.dumps({n: rows[n] for n in TASKS if n in rows}, indent=1) + "\n")
        (DOCS / "accuracy.md").write_text(HEAD + table([Row(**rows[n]) for n in TASKS if n in rows]))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
