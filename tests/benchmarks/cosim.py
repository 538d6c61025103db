"""How fast the Verilog runs under Verilator: kilocycles a second, and what building the model costs, by size of the core.

    python tests/benchmarks/cosim.py                      # three presets, on zoo:tiny
    python tests/benchmarks/cosim.py b4096 --network mobilenet_v2
    python tests/benchmarks/cosim.py b512 --mac dsp48e2   # two products in a DSP block: the same bits, more to simulate

Every model is built in an empty cache, so each row takes minutes. Seconds are of the processor, not of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Row", "main", "measure", "table"]

DEFAULT = ("b512", "b1024", "b2304")
IDLE_CYCLES = 20_000


@dataclass(frozen=True)
class Row:
    """One core.

    Parameters
    ----------
    macs : int
        A cycle, of the array.
    verilog, build : float
        Processor seconds of writing the Verilog, and of Verilator and the compiler.
    megabytes : float
        Of Verilog.
    idle, working : float
        Kilocycles a processor second: without a job, and during one.
    cycles : int
        Of the job.
    exact : bool
        The job agreed with emulator and simulator.
    """

    arch: str
    mac: str
    macs: int
    megabytes: float
    verilog: float
    build: float
    idle: float
    working: float
    cycles: int
    exact: bool


def _seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds, of this process and its children, and the result."""
    before = os.times()
    result = work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4]), result


def measure(arch: str, mac: str, network: str, memory: str) -> Row:
    """Build one core and run one network on it."""
    import numpy as np
    import tilewright as tw
    from tilewright.rtl.agreement import agree
    from tilewright.rtl.cosim import CosimCore
    from tilewright.rtl.verilog import verilog

    machine = tw.Arch.load(arch)
    plan = tw.compile(f"zoo:{network}", machine, synthetic_calibration=True).plans[0]
    writing, text = _seconds(lambda: verilog(machine, mac=mac))
    with tempfile.TemporaryDirectory() as empty:
        building, core = _seconds(lambda: CosimCore(machine, mac, cache=Path(empty)))
        with core:
            idle, _ = _seconds(lambda: core.model.step(IDLE_CYCLES))
            maps = np.zeros(plan.program.maps_bytes, np.uint8)
            agree(core, plan, maps, memory)  # the simulator's kernels are compiled now
            begin = time.process_time()
            run = core.run(plan.program, maps, memory, limit=1 << 40)
            working = time.process_time() - begin
            exact = agree(core, plan, maps, memory).exact
    return Row(
        arch=machine.name,
        mac=mac,
        macs=machine.macs_per_cycle,
        megabytes=len(text) / 1e6,
        verilog=writing,
        build=max(0.0, building - writing),  # it is written once more in there
        idle=IDLE_CYCLES / idle / 1e3,
        working=run.cycles / working / 1e3,
        cycles=run.cycles,
        exact=exact,
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    head = (
        "core",
        "MACs",
        "products",
        "Verilog MB",
        "written s",
        "built s",
        "idle kc/s",
        "working kc/s",
        "cycles",
        "exact",
    )
    lines = [head]
    for r in rows:
        lines.append(
            (
                *(r.arch, f"{r.macs:,}", r.mac, f"{r.megabytes:.2f}", f"{r.verilog:.1f}", f"{r.build:.0f}"),
                *(f"{r.idle:.0f}", f"{r.working:.0f}", f"{r.cycles:,}", "yes" if r.exact else "NO"),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archs", nargs="*", default=DEFAULT)
    parser.add_argument("--network", default="tiny", help="of the zoo")
    parser.add_argument("--mac", default="plain")
    parser.add_argument("--dram", default="banked:DDR4-2400x64")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    words = parser.parse_args(argv)
    rows = []
    for arch in words.archs:
        rows.append(measure(arch, words.mac, words.network, words.dram))
        if words.json:
            print(json.dumps(asdict(rows[-1])), flush=True)
    if not words.json:
        print(table(rows))
    return 0 if all(r.exact for r in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
