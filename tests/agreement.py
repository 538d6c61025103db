"""Run whole networks on the verilated core, hold them against emulator and simulator, and write docs/agreement.md.

    python tests/agreement.py                          every network on every machine and memory
    python tests/agreement.py vww resnet8 -a dpu64     these networks, this machine; other rows stay as they are
    python tests/agreement.py --dry-run vww            print the rows only

A network is quantised on its task's calibration data and compiled; one frame of the task runs on the Verilog. Then the same
network once more with every layer's map saved. The script fails where a byte or a cycle differs.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # the tasks are neighbours of this script

import tilewright as tw
from models import NETWORKS, available, load
from pages import write_table
from tasks import TASKS
from tilewright.frontend import Calibration, Model
from tilewright.verified import Verified, verify_rtl

PAGE = Path(__file__).parent.parent / "docs" / "agreement.md"
ARCHES: dict[str, dict[str, Any]] = {
    "dpu64": {
        "base": "b512", "name": "dpu64", "conv": {"pixels": 2, "ic": 8, "oc": 4, "drain": 1},
        "dwc": {"pixels": 2, "channels": 8, "taps": 3, "drain": 1}, "dma": {"ports": 1, "bits": 64, "burst": 16},
    },
    "b512": {"base": "b512"},
    "b1600": {"base": "b1600"},
    "b2304-nodw": {"base": "b2304-nodw"},
}  # fmt: skip
"""Machines: 64, 256, 800 and 1,152 products a cycle; lanes of 8, 10 and 12; the last one has no depthwise engine."""
MEMORIES = ("fixed:16,40", "banked:DDR4-2400x64")
MOBILENET = "mobilenet_v2_imagenet"
DEFAULT = (MOBILENET, "vww", "resnet8", "kws")
SAMPLES = 16
COLUMNS = (
    "network, machine, memory",
    "products a cycle",
    "instructions",
    "bytes compared",
    "bytes differing",
    "cycles, Verilog",
    "cycles, simulated",
    "instructions at another cycle",
    "kilocycles/s",
)
HEAD = """# The Verilog against emulator and simulator

Written by `python tests/agreement.py`. Each row is one frame of the network's task on the Verilated core, with the simulator's
DRAM model behind its AXI ports: the program as compiled, and then its twin that saves the map of every layer. *Bytes* are those of
all maps that left the chip, against the emulator; *cycles* are of the program as compiled, from the first fetch to the last
token; *instructions at another cycle*: those of both programs that start or give their token in another cycle than simulated.
`dpu64` is a machine of 2 × 8 × 4 products with one 64-bit port; the others are presets. Networks are trained ones
out of packages (`python tests/models.py list`); MobileNetV2 is 224 × 224.
"""


@cache
def prepared(name: str) -> tuple[Model, str]:
    """The network, quantised on its task, and the name of its input."""
    network = tw.load(load(name), input_shape=NETWORKS[name].input_shape)
    port, samples = network.inputs[0].name, TASKS[name].calibration()[:SAMPLES]
    return tw.quantize(network, Calibration.from_arrays({port: samples}, network)), port


def measure(name: str, arch: str, memory: str) -> Verified:
    """One frame on one machine with one memory."""
    quantised, port = prepared(name)
    compiled = tw.compile(quantised, tw.Arch.build(ARCHES[arch], where=arch), dram=memory)
    return verify_rtl(compiled, {port: TASKS[name].inputs()[:1]}, every=True)


def cells(found: Verified, arch: str) -> list[str]:
    """The line of the table, without its name."""
    plain = [run for run in found.runs if not run.name.endswith("every map saved")]
    seconds = sum(run.seconds for run in found.runs)
    return [
        f"{tw.Arch.build(ARCHES[arch]).macs_per_cycle:,}",
        f"{sum(run.instructions for run in plain):,}",
        f"{found.bytes_compared:,}",
        f"{found.bytes_differing:,}",
        f"{sum(run.cycles_rtl for run in plain):,}",
        f"{sum(run.cycles_simulated for run in plain):,}",
        f"{found.instructions_differing:,}",
        f"{found.cycles_rtl / seconds / 1e3:,.0f}",
    ]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Networks on the Verilated core; writes docs/agreement.md.")
    parser.add_argument(
        "names", nargs="*", metavar="NETWORK", help=f"networks (default: {', '.join(DEFAULT)})"
    )
    parser.add_argument("-a", "--arch", action="append", choices=ARCHES, help="machines (default: all)")
    parser.add_argument("-m", "--memory", action="append", help="memories (default: one fixed, one banked)")
    parser.add_argument("--dry-run", action="store_true", help="write no page")
    chosen: Any = parser.parse_args(words)
    unknown = [name for name in chosen.names if name not in TASKS]
    if unknown:
        parser.error(f"no network is called {unknown[0]}; there are {', '.join(TASKS)}")
    arches, memories = chosen.arch or list(ARCHES), chosen.memory or list(MEMORIES)
    order = [f"{n}, {a}, {m}" for n in TASKS for a in ARCHES for m in dict.fromkeys((*MEMORIES, *memories))]
    failed = 0
    for arch in arches:
        for name in chosen.names or DEFAULT:
            if not available(name):
                print(f"{name}: not in the cache; run: python tests/models.py fetch")
                continue
            for memory in memories:
                found = measure(name, arch, memory)
                failed += not found.exact
                key, row = f"{name}, {arch}, {memory}", cells(found, arch)
                print(" | ".join((key, *row)), flush=True)
                for run in found.runs:
                    if not run.exact:
                        print(f"  {run.name}: {run.trouble or run.first_byte or run.first_cycle}")
                if not chosen.dry_run:
                    write_table(PAGE, HEAD, COLUMNS, {key: row}, order)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
