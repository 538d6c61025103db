"""SAVE in hardware: bytes as the emulator writes them, cycles as the timing rules say, AXI's own rules."""

from __future__ import annotations

import numpy as np
import pytest
from save_bench import Bench
from saves import BASE, bursts_of, expected, machine, pads, program, saved
from tilewright.ir.arch import Arch
from tilewright.ir.latency import ADDRESS, SAVE_START

MACHINES = {
    "one narrow port, one burst in flight": machine(1, 32, 4, 4, 1),
    "two ports, ten lanes": machine(2, 32, 10, 16, 2),
    "three ports": machine(3, 64, 6, 8, 3),
    "four ports": machine(4, 32, 12, 4, 2, pixels=1),
    "two wide ports": machine(2, 128, 16, 8, 2),
    "one port of 512 bits, few banks": machine(1, 512, 4, 4, 2, pixels=1, kib=16),
    "words wider than the port": machine(1, 32, 64, 16, 3, pixels=1),
    "bursts of one beat": machine(2, 64, 8, 1, 5),
}
CASES = [pytest.param(arch, 10 + i, id=name) for i, (name, arch) in enumerate(MACHINES.items())]


@pytest.mark.parametrize(("arch", "seed"), CASES)
def test_bytes_and_cycles_are_those_of_emulator_and_timing_rules(arch: Arch, seed: int) -> None:
    """Instructions back to back on a memory that never waits: every address, beat and token in its cycle."""
    rows = program(arch, seed, 6, 24 * arch.stream_bytes)
    bench = Bench(arch, seed)
    want = saved(bench.maps, bench.dram, rows)
    bench.run((rows, None))
    assert bench.timing == expected(rows, arch, bench.first)
    assert [b for row in rows for b in bursts_of(row, arch)] == bench.bursts
    assert np.array_equal(bench.dram, want)
    assert bench.requests[0] == bench.first + SAVE_START + ADDRESS + pads(rows[0], arch)
    assert bench.requests[-1] <= bench.timing.last[-1] + ADDRESS


@pytest.mark.parametrize(("arch", "seed"), CASES)
def test_a_memory_that_stalls_changes_no_byte(arch: Arch, seed: int) -> None:
    """Any `ready` may wait, any response be late: bytes, beats, order and tokens stay whole."""
    rows = program(arch, seed + 100, 5, 16 * arch.stream_bytes)
    bench = Bench(arch, seed, stall=0.6)
    want = saved(bench.maps, bench.dram, rows)
    bench.run((rows, None))
    assert np.array_equal(bench.dram, want)
    assert len(bench.timing.done) == len(rows)
    assert not bench.errors


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_an_abort_ends_between_two_bursts_and_leaves_nothing_behind(stall: float) -> None:
    """What was announced arrives whole, nothing else does; then the engine runs as if it had been reset."""
    arch = MACHINES["three ports"]
    rows, others = program(arch, 5, 6, 400), program(arch, 6, 3, 200)
    bench = Bench(arch, 7, stall=stall)
    want, full = bench.dram.copy(), saved(bench.maps, bench.dram, rows)
    cut = [(rows, t) for t in (4, 11, 40, 90, 153)]
    bench.run(*cut, (others, None))
    sizes = [len(bursts_of(row, arch)) for row in rows]
    first = 0
    for (count, done), _ in zip(bench.counts, cut, strict=False):
        assert sum(sizes[:done]) <= count - first < sum(sizes)
        for address, size in bench.bursts[first:count]:
            want[address - BASE :][:size] = full[address - BASE :][:size]
        first = count
    assert first > len(cut)
    bench.dram, seen = want, bench.dram
    assert np.array_equal(seen, saved(bench.maps, bench.dram, others))
    assert stall or bench.timing == expected(others, arch, bench.first)


def test_an_error_is_told_with_the_address_of_its_burst() -> None:
    """SLVERR and DECERR come out; the token comes all the same."""
    arch = MACHINES["one narrow port, one burst in flight"]
    rows = program(arch, 3, 4, 100)
    bench = Bench(arch, 3, faults=0.3)
    bench.run((rows, None))
    assert bench.errors == bench.faulty
    assert len(bench.errors) > 3
    assert len(bench.timing.done) == len(rows)
