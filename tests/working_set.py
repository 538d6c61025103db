"""Send every network of the working set through the whole tool, and write docs/working_set.md.

    python tests/working_set.py                     all networks whose package is in the cache
    python tests/working_set.py vww resnet8         these; the other rows stay as they are
    python tests/working_set.py --dry-run vww       print the table only

Each network is checked, quantised on its task's calibration data, and compiled and simulated for two machines. One
frame of its task goes through the emulator; every layer's bytes are held against the integer reference, and the
outputs against onnxruntime. The script fails where a byte differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parent))  # the tasks are neighbours of this script

import tilewright as tw
from judging import Agreement, Stored, agreement, differing
from models import NETWORKS, available, load
from pages import write_table
from tasks import TASKS
from tilewright.frontend import Calibration, HostSegment
from tilewright.ir.errors import TilewrightError

PAGE = Path(__file__).parent.parent / "docs" / "working_set.md"
ARCHES = ("b1024", "b4096")
BOARD = "kv260"
CALIBRATION_SAMPLES = 16
HEAD = f"""# The working set, end to end

Written by `python tests/working_set.py`: real networks out of packages (`python tests/models.py list`), each checked,
quantised on {CALIBRATION_SAMPLES} samples of its task, compiled and *simulated* for two machines on a {BOARD}.
Cycles and DRAM traffic are of one frame, host work apart. *Bytes compared*: the emulator, executing the instruction words
of both machines' programs, against the integer reference on a frame of the task, in every map of every layer; *differing*
must be 0. *onnxruntime*: for a float network its outputs on the same frame, as signal to noise and largest
difference in steps of the output's scale, which is what quantisation costs ([accuracy.md](accuracy.md) says what that means
for the task; `light_…` have random weights); for a network that came quantised, every stored byte, which must be the same.
"""
COLUMNS = (
    "network",
    "nodes DPU + host",
    "segments DPU + host",
    "MMAC",
    *(f"{a} {what}" for a in ARCHES for what in ("cycles", "of bound", "DRAM MB")),
    "bytes compared",
    "differing",
    "onnxruntime",
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one machine does with a frame."""

    cycles: int
    bound_cycles: int
    dram_bytes: int
    bytes_compared: int
    bytes_differing: int


@dataclass(frozen=True, slots=True)
class Row:
    """One network on all machines."""

    network: str
    nodes_dpu: int
    nodes_host: int
    segments_dpu: int
    segments_host: int
    macs: int
    runs: dict[str, Run]
    judged: Agreement | Stored
    """Outputs beside onnxruntime's of the float network; or stored bytes, where the network came quantised."""

    @property
    def bytes_differing(self) -> int:
        return sum(r.bytes_differing for r in self.runs.values())

    def cells(self) -> list[str]:
        """The line of the table, without the name."""
        machines = [
            cell
            for r in self.runs.values()
            for cell in (f"{r.cycles:,}", f"{r.cycles / r.bound_cycles:.2f}", f"{r.dram_bytes / 1e6:.2f}")
        ]
        return [
            f"{self.nodes_dpu} + {self.nodes_host}",
            f"{self.segments_dpu} + {self.segments_host}",
            f"{self.macs / 1e6:,.1f}",
            *machines,
            f"{sum(r.bytes_compared for r in self.runs.values()):,}",
            f"{self.bytes_differing:,}",
            str(self.judged),
        ]


def measure(name: str, arches: tuple[str, ...] = ARCHES) -> Row:
    """Send one network through the tool.

    Raises
    ------
    TilewrightError
        A stage refused it.
    AssertionError
        The emulated outputs are not the integer reference's.
    """
    network = tw.load(load(name), input_shape=NETWORKS[name].input_shape)
    coverage = tw.check(network)
    port = network.inputs[0].name
    task = TASKS[name]
    model = tw.quantize(
        network, Calibration.from_arrays({port: task.calibration()[:CALIBRATION_SAMPLES]}, network)
    )
    feeds = {port: task.inputs()[:1]}
    runs = {}
    outputs = model.run(feeds)
    for arch in arches:
        compiled = tw.compile(model, arch, BOARD)
        total = compiled.simulate().total
        emulated = compiled.run(feeds)
        for output, value in outputs.items():
            np.testing.assert_array_equal(emulated[output], value, err_msg=f"{name}, {arch}: {output}")
        exact = compiled.verify_values(feeds, every=True)
        runs[arch] = Run(
            total.cycles,
            total.bounds.bound_cycles,
            total.dram_bytes["total"],
            exact.bytes_compared,
            exact.bytes_differing,
        )
    judged: Agreement | Stored
    if network.quantised:
        judged = Stored(*differing(onnx.load(load(name)), feeds[port]))
    else:
        judged = agreement(model, outputs, network.float_run(feeds))
    return Row(
        name,
        sum(n.where == "dpu" for n in coverage.nodes),
        sum(n.where != "dpu" for n in coverage.nodes),
        len(model.graphs),
        sum(isinstance(s, HostSegment) for s in model.segments),
        model.macs,
        runs,
        judged,
    )


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The working set end to end; writes docs/working_set.md.")
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="networks (default: all at hand)")
    parser.add_argument("--dry-run", action="store_true", help="write no page")
    chosen: Any = parser.parse_args(words)
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
            row = measure(name)
        except (TilewrightError, AssertionError) as error:
            print(f"{name}: {error}")
            failed += 1
            continue
        failed += bool(row.bytes_differing)
        print(f"{' | '.join((name, *row.cells()))} ({time.perf_counter() - start:.0f} s)", flush=True)
        if not chosen.dry_run:
            write_table(PAGE, HEAD, COLUMNS, {name: row.cells()}, TASKS)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
