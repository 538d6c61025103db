"""How fast and how near is the quick estimate? Random machines, each estimated and then scheduled and simulated.

python tests/benchmarks/quick.py [NETWORK ...] [--machines N] [--seed S]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tilewright as tw
from tilewright.hwsim import simulate
from tilewright.hwsim.dram import parse
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ArchError, ScheduleError
from tilewright.ir.graph import Graph
from tilewright.scheduler import schedule
from tilewright.scheduler.quick import quick

NETWORKS = ("mobilenet_v3_small", "resnet18", "squeezenet")
MEMORIES = ("banked:DDR4-2400x64", "banked:DDR3-1066x32", "banked:LPDDR4-2133x32", "banked:DDR3L-667x16")


def machines(seed: int, count: int) -> Iterator[tuple[Arch, str]]:
    """Machines and memories of every size that a board could hold."""
    rng = np.random.default_rng(seed)

    def one(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    while count:
        pixels, ic, dwc = one(2, 4, 8, 16), one(8, 10, 12, 16, 32), one(0, 4, 8, 16)
        settings = {
            "name": f"random{count}",
            "clock_mhz": one(100.0, 200.0, 300.0),
            "conv": {
                "pixels": pixels,
                "ic": ic,
                "oc": one(8, 16, 32),
                "drain": max(1, pixels // one(1, 2, 4)),
            },
            "dwc": {
                "pixels": dwc,
                "channels": ic if dwc else 0,
                "taps": one(1, 3, 9),
                "drain": max(1, dwc // 2),
            },
            "vec": {"pixels": one(1, 2, 4)},
            "maps": {"kib": one(64, 128, 256, 512, 1024, 2048), "groups": one(2, 4, 8)},
            "weights": {"kib": one(64, 128, 256, 512, 1024), "depthwise_kib": one(16, 64)},
            "dma": {"bits": one(64, 128, 256), "ports": one(1, 2, 4), "burst": one(16, 64)},
        }
        memory = one(*MEMORIES)
        try:
            yield Arch.build(settings), memory
        except ArchError:
            continue
        count -= 1


def compare(graph: Graph, pairs: Sequence[tuple[Arch, str]]) -> dict[str, Any]:
    """Estimate and simulation of each machine that the network fits: cycles, bytes, energy, seconds."""
    rows, spent = [], []
    for arch, memory in pairs:
        try:
            quick(graph, arch, memory)  # tables that machines of a sweep share
            begin = time.perf_counter()
            found = quick(graph, arch, memory)
            spent.append(time.perf_counter() - begin)
        except ScheduleError:
            continue
        peak = parse(memory, arch.clock_mhz).peak_bytes_per_cycle
        run = simulate(schedule(graph, arch, dram_bytes_per_cycle=peak).program, arch, memory, graph=graph)
        want = run.cycles, run.dram_bytes["total"], run.energy.total_mj * 1e9
        rows.append(((found.cycles, found.dram_bytes, found.energy_pj), want))
    got, want_ = (np.array([row[k] for row in rows], float) for k in range(2))
    error = np.abs(got / want_ - 1)
    return {
        "machines": len(rows),
        "ms": 1e3 * statistics.median(spent),
        "error": error.mean(axis=0),
        "worst": error.max(axis=0),
        "rank": rank_correlation(got[:, 0], want_[:, 0]),
    }


def rank_correlation(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Spearman's; equal numbers keep their order."""
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--machines", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    known = parser.parse_args(arguments)
    pairs = list(machines(known.seed, known.machines))
    print(
        f"{'network':<20}{'machines':>9}{'ms':>8}   mean error, worst: cycles       bytes          energy     rank"
    )
    for name in known.networks:
        model = tw.compile(f"zoo:{name}", "b1024", synthetic_calibration=True).model
        row = compare(model.graphs[0], pairs)
        errors = "".join(f"{m:8.2%}{w:7.1%}" for m, w in zip(row["error"], row["worst"], strict=True))
        print(f"{name:<20}{row['machines']:>9}{row['ms']:>8.1f}            {errors}   {row['rank']:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
