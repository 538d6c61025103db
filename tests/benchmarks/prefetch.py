"""How far ahead should weights be fetched? Simulated cycles for several distances, as ratios to the one in use.

python tests/benchmarks/prefetch.py [NETWORK ...]
"""

from __future__ import annotations

import sys
from unittest import mock

import tilewright as tw
from tilewright.hwsim.simulation import trace
from tilewright.scheduler import lower, memories

DISTANCES = (0, 1, 2, 4, 6, 8, 12, 16, 32)


def cycles(compiled: tw.Compiled, ahead: int) -> int:
    """Simulated cycles with FILLs this many instructions ahead."""
    fill = memories.fill_memories
    with mock.patch("tilewright.scheduler.lower.fill_memories", lambda *args: fill(*args, ahead=ahead)):
        plans = [lower(p.tiling, p.graph, p.arch) for p in compiled.plans]
    return sum(trace(p.program, p.arch, compiled.dram).cycles for p in plans)


def main(networks: list[str]) -> None:
    """Print a row for each network and machine."""
    print(f"{'network':<18} {'machine':<8}" + "".join(f"{d:>8}" for d in DISTANCES))
    for name in networks or ["mobilenet_v2", "resnet50", "mobilenet_v1", "efficientnet_b0"]:
        model = tw.compile(f"zoo:{name}", "b1024", synthetic_calibration=True).model
        for arch in ("b4096", "b1024"):
            compiled = tw.compile(model, arch)
            found = {d: cycles(compiled, d) for d in DISTANCES}
            ratios = "".join(f"{c / found[memories.AHEAD]:8.3f}" for c in found.values())
            print(f"{name:<18} {arch:<8}{ratios}   x {found[memories.AHEAD]:,}")


if __name__ == "__main__":
    main(sys.argv[1:])
