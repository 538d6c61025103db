"""Cores that share a DRAM: frames a second simulated, beside the estimate, and what simulating them costs.

python tests/benchmarks/cores.py [NETWORK ...] [--arch ARCH] [--memory TEXT] [--frames N]
"""

from __future__ import annotations

import argparse
import time

import tilewright as tw
from tilewright.explore_objectives import measures
from tilewright.hwsim import simulate
from tilewright.hwsim.shared import simulate_shared

NETWORKS = ("mobilenet_v2", "resnet18")


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--arch", default="b4096")
    parser.add_argument("--memory", nargs="*", default=("banked:DDR4-2400x64", "banked:LPDDR4-2133x32"))
    parser.add_argument("--frames", type=int, default=4)
    asked = parser.parse_args()
    columns = (
        "network",
        "memory",
        "cores",
        "frames/s, together",
        "slowdown",
        "frames/s, apart",
        "slowdown",
        "DRAM",
    )
    print(f"| {' | '.join((*columns, 'estimate', 'seconds'))} |")
    print("|---|---|" + "---:|" * 8)
    for name in asked.networks:
        compiled = tw.compile(f"zoo:{name}", asked.arch, "zcu102", synthetic_calibration=True)
        programs = [p.program for p in compiled.plans]
        for memory in asked.memory:
            found = [simulate(p, compiled.arch, memory) for p in programs]
            cycles, moved = sum(s.cycles for s in found), sum(s.dram_bytes["total"] for s in found)
            for cores in (1, 2, 3, 4):
                began = time.perf_counter()
                together, apart = (
                    simulate_shared(
                        programs,
                        compiled.arch,
                        memory,
                        cores=cores,
                        alone_cycles=cycles,
                        frames=asked.frames,
                        stagger=stagger,
                    )
                    for stagger in (False, True)
                )
                seconds = (time.perf_counter() - began) / 2
                peak = together.dram_peak_bytes_per_cycle * compiled.arch.clock_mhz / 1e3
                estimate = measures(
                    (cycles, moved, 0.0, 0),
                    clock_mhz=compiled.arch.clock_mhz,
                    cores=cores,
                    macs_per_cycle=1,
                    dram_gb_s=peak,
                )["fps"]
                row = (
                    *(
                        name,
                        memory.partition(":")[2],
                        cores,
                        f"{together.fps:.4g}",
                        f"{together.slowdown:.2f}",
                    ),
                    *(f"{apart.fps:.4g}", f"{apart.slowdown:.2f}", f"{apart.dram_utilization:.0%}"),
                    *(f"{estimate:.4g}", f"{seconds:.2f}"),
                )
                print(f"| {' | '.join(map(str, row))} |")


if __name__ == "__main__":
    main()
