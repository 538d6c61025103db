"""The LOAD engine: bytes as the emulator has them, cycles as the timing rules have them."""

from __future__ import annotations

import random

import pytest
from load_bench import (
    Bench,
    Row,
    bursts,
    expected,
    instructions,
    predicted,
    random_dram,
    small,
    word_of,
    words,
)


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
    rows = instructions(rng, arch, 10)
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
        total = 0
        for row, done in zip(rows, bench.dones, strict=True):
            total += words(row)
            assert sum(cycle <= done for cycle in bench.writes) >= total, (
                "the token came before the last word"
            )
        assert len(bench.writes) == total

    bench.run(script)
    assert bench.memories.differences(expected(arch, rows, bench.dram)) == []


@pytest.mark.parametrize("name", ["2 x 32 bit, L 4", "1 x 64 bit, oc 10"])
def test_a_bus_that_stalls_at_random_changes_no_byte(name: str) -> None:
    """Addresses wait, beats come with gaps; payloads stay, no burst crosses 4 KB (the bench looks)."""
    arch = MACHINES[name]
    rng = random.Random(name + "stall")
    rows = instructions(rng, arch, 7)
    bench = Bench(arch, random_dram(2), latency=lambda k: 1 + k * 7 % 23, stall=0.5)

    async def script(bench: Bench, ctx) -> None:  # type: ignore[no-untyped-def]
        await play(bench, ctx, rows, [0] * len(rows))

    bench.run(script)
    assert bench.memories.differences(expected(arch, rows, bench.dram)) == []


def test_an_abort_in_any_state_leaves_an_engine_that_works() -> None:
    """Beats that were asked for still come and are taken; the next job's bytes and cycles are as if it were the first."""
    arch = MACHINES["2 x 32 bit, L 4"]
    rng = random.Random(11)
    first, second = instructions(rng, arch, 3), instructions(rng, arch, 2)

    async def stop(bench: Bench, ctx, wait: int, held: bool) -> None:  # type: ignore[no-untyped-def]
        """Begin the first job, and stop it after `wait` cycles, for a cycle, or until the engine is idle as the core does."""
        dut, begun = bench.dut, 0
        for i in range(wait):
            go = i == 0 or (begun < len(first) and bench.lasts[-1:] == [bench.cycle - 1])
            ctx.set(dut.control.start, go)
            ctx.set(dut.control.word, word_of(first[begun]) if go else 0)
            begun += go
            await bench.tick(ctx)
            assert not ctx.get(dut.idle)
        ctx.set(dut.control.start, 0)
        ctx.set(dut.abort, 1)
        await bench.tick(ctx)
        ctx.set(dut.abort, held)
        await bench.tick(ctx)
        done, before = len(bench.dones), bench.cycle
        while not ctx.get(dut.idle):
            await bench.tick(ctx)
            assert bench.cycle < before + 400, "never idle"
        if held:
            await bench.tick(ctx)
            assert ctx.get(dut.idle), "idle for a moment only"
            ctx.set(dut.abort, 0)
            await bench.tick(ctx)
            assert ctx.get(dut.idle)
        assert not any(bench.flying), "beats are still to come"
        assert len(bench.dones) == done

    async def script(bench: Bench, ctx) -> None:  # type: ignore[no-untyped-def]
        for wait, held in ((3, False), (8, True), (30, False), (75, True), (140, True), (141, False)):
            await stop(bench, ctx, wait, held)
            bench.fresh()
            begin = bench.cycle
            starts = await play(bench, ctx, second, [0] * len(second))
            times = predicted(arch, second, [0] * len(second), bench.latency)
            assert [x - begin for x in starts] == [t[0] for t in times]
            assert [x - begin for x in bench.dones] == [t[2] for t in times]
            assert bench.memories.differences(expected(arch, second, bench.dram)) == []
            bench.fresh()

    Bench(arch, random_dram(3), latency=lambda k: 30).run(script)


def test_the_first_error_of_the_bus_is_kept() -> None:
    """Address of the burst and response; the instructions end all the same, and an abort clears it."""
    arch = MACHINES["2 x 32 bit, L 4"]
    rows = instructions(random.Random(5), arch, 4)
    all_bursts = [b for row in rows for b in bursts(row, arch)]
    bench = Bench(arch, random_dram(4), faults={4: 3, 5: 2, 9: 2})

    async def script(bench: Bench, ctx) -> None:  # type: ignore[no-untyped-def]
        dut = bench.dut
        assert not ctx.get(dut.error)
        await play(bench, ctx, rows, [0] * len(rows))
        assert ctx.get(dut.error)
        assert ctx.get(dut.error_address) == all_bursts[4][0]
        assert ctx.get(dut.error_response) == 3
        ctx.set(dut.abort, 1)
        for _ in range(2):
            await bench.tick(ctx)
            ctx.set(dut.abort, 0)
        assert not ctx.get(dut.error)

    bench.run(script)
