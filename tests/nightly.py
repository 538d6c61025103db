"""Thousands of random programs on the verilated core, each on a bus that behaves at random: every byte, every cycle.

    python tests/nightly.py                            # 1,000 programs on each of the machines of tests/cores.py
    python tests/nightly.py --minutes 30 --seed 5000   # as many as there is time for, from seed 5000 on
    python tests/nightly.py -m odd --seed 4711 --count 1    # one again

The bytes are held against the emulator, and start and end of every instruction, the address of every burst and each
beat of write data against the simulator, which replays what the bus answered. A line for each machine; the seeds that
differ come with the command that runs them again, and the script fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the machines are neighbours of this script

from cores import CORES
from graphs import inputs_of
from replays import random_pattern, random_plan
from running import dram_image
from tilewright.rtl.agreement import agree
from tilewright.rtl.cosim import CosimCore
from tilewright.rtl.verilog import MACS

__all__ = ["Tally", "campaign", "main"]

LARGEST, STEPS = 24, 6
"""Pixels of a side and operators, at most."""


@dataclass
class Tally:
    """What was compared on one machine, and the seeds that differ."""

    programs: int = 0
    refused: int = 0
    """Programs with a layer that does not fit."""
    instructions: int = 0
    requests: int = 0
    bytes: int = 0
    cycles: int = 0
    wrong: tuple[int, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.programs:,} programs, {self.instructions:,} instructions, {self.requests:,} bursts and beats, "
            f"{self.bytes:,} bytes, {self.cycles:,} cycles: {len(self.wrong)} programs differ"
        )


def campaign(core: CosimCore, seed: int, count: int, until: float) -> Tally:
    """`count` programs, from `seed` on, while there is time."""
    tally = Tally()
    while tally.programs < count and time.monotonic() < until:
        plan = random_plan(seed, core.arch, LARGEST, STEPS)
        if plan is None:
            tally.refused += 1
        else:
            maps = dram_image(plan, inputs_of(plan.graph, seed))
            found = agree(core, plan, maps, random_pattern(seed))
            tally.programs += 1
            tally.instructions += found.instructions
            tally.requests += found.requests_compared
            tally.bytes += found.bytes_compared
            tally.cycles += found.cycles_rtl
            if not found.exact:
                tally.wrong = (*tally.wrong, seed)
                why = found.trouble or found.first_byte or found.first_cycle or found.first_request
                print(f"  seed {seed}, {core.mac}: {why}", flush=True)
        seed += 1
    return tally


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Random programs on buses at random, on the Verilated core.")
    parser.add_argument("-m", "--machine", action="append", choices=CORES, help="machines (default: all)")
    parser.add_argument("--mac", choices=MACS, default="plain", help="how products are built")
    parser.add_argument("--count", type=int, default=1000, help="programs for each machine")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="at most, without building")
    chosen = parser.parse_args(words)
    machines, failed = chosen.machine or list(CORES), 0
    for name in machines:
        with CosimCore(CORES[name], chosen.mac) as core:
            until = time.monotonic() + 60 * chosen.minutes / len(machines)
            tally = campaign(core, chosen.seed, chosen.count, until)
        print(f"{name}: {tally}", flush=True)
        for seed in tally.wrong:
            print(f'  python tests/nightly.py -m "{name}" --mac {chosen.mac} --seed {seed} --count 1')
        failed += len(tally.wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
