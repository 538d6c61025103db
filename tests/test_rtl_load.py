"""The LOAD engine: bytes as the emulator has them, cycles as the timing rules have them."""

from __future__ import annotations

import random

import pytest
from load_bench import Bench, Row, bursts, expected, instructions, predicted, random_dram, small, word_of


async def play(bench: Bench, ctx, rows: list[Row], pauses: list[int]) -> list[int]:  # type: ignore[no-untyped-def]
    """Start instructions as early as allowed, plus pauses; wait until all are done. Returns the cycles of starts."""
    dut, starts, base = bench.dut, [], len(bench.dones)
    for row, pause in zip(rows, pauses, strict=True):
        for _ in range(pause):
            await bench.tick(ctx)
        ctx.set(dut.control.word, word_of(row))
        ctx.set(dut.control.start, 1)
        starts.append(bench.cycle)
        seen = len(bench.lasts)
        while len(bench.lasts) == seen:
            await bench.tick(ctx)
            ctx.set(dut.control.start, 0)
            ctx.set(dut.control.word, 0)
            assert bench.cycle < 60_000, "no last burst"
    while len(bench.dones) - base < len(rows):
        await bench.tick(ctx)
        assert bench.cycle < 60_000, "not done"
    assert ctx.get(dut.idle) == 0 or not bench.dones or bench.dones[-1] < bench.cycle
    return starts


MACHINES = {
    "2 x 32 bit, L 4": small(),
    "1 x 32 bit, L 6": small(dma_ports=1, conv_ic=6, dwc_channels=6, maps_kib=12, weights_kib=6),
    "3 x 32 bit, L 4": small(dma_ports=3, dma_outstanding=1),
    "1 x 128 bit, L 4": small(dma_ports=1, dma_bits=128, dma_burst=2, dma_outstanding=3),
    "1 x 64 bit, oc 10": small(dma_ports=1, dma_bits=64, conv_oc=10, weights_kib=5),
    "1 x 32 bit, burst 1": small(dma_ports=1, dma_burst=1, dwc_pixels=0, dwc_channels=0),
    "4 x 32 bit, taps 9": small(dma_ports=4, dwc_taps=9, dma_outstanding=1),
}


@pytest.mark.parametrize("name", MACHINES)
def test_values_and_cycles_are_those_of_emulator_and_rules(name: str) -> None:
    """Random instructions, back to back and with pauses, on a memory that answers after a fixed time a burst."""
    arch = MACHINES[name]
    rng = random.Random(name)
    rows = instructions(rng, arch, 14)
    pauses = [rng.choice((0, 0, 0, 1, 60)) for _ in rows]
    delays = [rng.choice((1, 2, 9, 40)) for _ in range(997)]
    bench = Bench(arch, random_dram(1), latency=lambda k: delays[k % 997])

    async def script(bench: Bench, ctx) -> None:  # type: ignore[no-untyped-def]
        starts = await play(bench, ctx, rows, pauses)
        times = predicted(arch, rows, pauses, bench.latency)
        assert bench.requests == [b for row in rows for b in bursts(row, arch)]
        assert starts == [t[0] for t in times]
        assert bench.lasts == [t[1] for t in times]
        assert bench.dones == [t[2] for t in times]

    bench.run(script)
    assert bench.memories.differences(expected(arch, rows, bench.dram)) == []


@pytest.mark.parametrize("name", ["2 x 32 bit, L 4", "1 x 64 bit, oc 10"])
def test_a_bus_that_stalls_at_random_changes_no_byte(name: str) -> None:
    """Addresses wait, beats come with gaps; payloads stay, no burst crosses 4 KB (the bench looks)."""
    arch = MACHINES[name]
    rng = random.Random(name + "stall")
    rows = instructions(rng, arch, 9)
    bench = Bench(arch, random_dram(2), latency=lambda k: 1 + k * 7 % 23, stall=0.5)

    async def script(bench: Bench, ctx) -> None:  # type: ignore[no-untyped-def]
        await play(bench, ctx, rows, [0] * len(rows))

    bench.run(script)
    assert bench.memories.differences(expected(arch, rows, bench.dram)) == []
