"""How long the tool itself takes: compile, simulate and emulate seconds of networks, cold and warm.

    python tests/benchmarks/compile.py                      # the smaller networks of the zoo
    python tests/benchmarks/compile.py mobilenet_v2 vgg16 --arch b1024 --emulate
    python tests/benchmarks/compile.py --cold               # each network first in a process with no compiled kernels

Seconds depend on the host; the columns to compare are the ratios at the right: simulated cycles a second of host time,
instructions a second of simulator and emulator, and cold over warm.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Row", "main", "measure", "table"]

DEFAULT = ("tiny", "mobilenet_v1", "mobilenet_v2", "squeezenet", "resnet18")


@dataclass(frozen=True)
class Row:
    """One network; seconds of wall clock.

    Parameters
    ----------
    quantise, schedule, simulate : float
        Reading, calibrating and quantising; scheduling and lowering with all checks; event simulation.
    emulate : float or None
        One frame on the emulator.
    cold : float or None
        Quantise, schedule and simulate in a process without compiled kernels.
    """

    network: str
    instructions: int
    cycles: int
    quantise: float
    schedule: float
    simulate: float
    emulate: float | None = None
    cold: float | None = None

    @property
    def warm(self) -> float:
        """What `cold` did, with compiled kernels."""
        return self.quantise + self.schedule + self.simulate


def _timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Least seconds of several runs, and the result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def measure(network: str, arch: str, *, emulate: bool = False, repeats: int = 2) -> Row:
    """Compile and simulate a network of the zoo, several times, after one run that compiles the kernels."""
    import tilewright as tw
    from tilewright.hwsim import simulate
    from tilewright.segments import plan_segments

    def quantised() -> Any:
        loaded = tw.load(tw.zoo.build(network), name=network)
        return tw.quantize(loaded, tw.Calibration.synthetic(loaded, samples=2))

    quantise_s, model = _timed(quantised, 1)
    machine, board = tw.Arch.load(arch), tw.Board("kv260")
    dram = f"banked:{board.dram}"
    compiled = tw.compile(model, machine, board)

    def scheduled() -> Any:
        return plan_segments(model, machine, dram=dram)

    def simulated() -> Any:
        return [simulate(p.program, machine, dram, board=board, graph=p.graph) for p in compiled.plans]

    simulated()
    schedule_s, _ = _timed(scheduled, repeats)
    simulate_s, results = _timed(simulated, repeats)
    emulate_s = None
    if emulate:
        feeds = compiled.noise()
        compiled.run(feeds)
        emulate_s, _ = _timed(lambda: compiled.run(feeds), repeats)
    count = sum(len(p.program) for p in compiled.plans)
    cycles = sum(r.cycles for r in results)
    return Row(network, count, cycles, quantise_s, schedule_s, simulate_s, emulate_s)


def _first(network: str, arch: str) -> float:
    """Seconds of quantise, schedule and simulate in a process that has no compiled kernels, imports included."""
    code = (
        "import time; start = time.perf_counter(); import sys, tilewright as tw; "
        "tw.compile('zoo:' + sys.argv[1], sys.argv[2], synthetic_calibration=True).simulate(); "
        "print(time.perf_counter() - start)"
    )
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-c", code, network, arch],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "NUMBA_CACHE_DIR": empty},
        )
    return float(done.stdout.split()[-1])


def table(rows: Sequence[Row]) -> str:
    """Seconds and ratios as text."""
    head = (
        *("network", "instructions", "cycles", "quantise s", "schedule s", "simulate s", "emulate s"),
        *("cycles/s", "instr/s sim", "instr/s emu", "schedule/simulate", "cold/warm"),
    )
    lines = [head]
    for r in rows:
        lines.append(
            (
                r.network,
                f"{r.instructions:,}",
                f"{r.cycles:,}",
                f"{r.quantise:.2f}",
                f"{r.schedule:.2f}",
                f"{r.simulate:.3f}",
                "-" if r.emulate is None else f"{r.emulate:.2f}",
                f"{r.cycles / r.simulate:.3g}",
                f"{r.instructions / r.simulate:.3g}",
                "-" if r.emulate is None else f"{r.instructions / r.emulate:.3g}",
                f"{r.schedule / r.simulate:.1f}",
                "-" if r.cold is None else f"{r.cold / r.warm:.1f}",
            )
        )
    widths = [max(len(row[i]) for row in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the networks named, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("networks", nargs="*", default=DEFAULT, help="names of the zoo")
    parser.add_argument("--arch", default="b4096", help="preset or TOML file")
    parser.add_argument("--emulate", action="store_true", help="also execute a frame on the emulator")
    parser.add_argument("--cold", action="store_true", help="also from a process without compiled kernels")
    parser.add_argument("--repeats", type=int, default=2, help="runs, of which the fastest counts")
    parser.add_argument("--json", action="store_true", help="one JSON object a network instead of the table")
    chosen = parser.parse_args(arguments)
    rows = []
    for network in chosen.networks:
        cold = _first(network, chosen.arch) if chosen.cold else None
        row = measure(network, chosen.arch, emulate=chosen.emulate, repeats=chosen.repeats)
        rows.append(Row(**{**asdict(row), "cold": cold}))
        if chosen.json:
            print(json.dumps(asdict(rows[-1])), flush=True)
        elif sys.stderr.isatty():
            print(f"{network}: {row.warm:.1f} s", file=sys.stderr)
    if not chosen.json:
        print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
