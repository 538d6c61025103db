"""The burst walker: every burst of every instruction, and the cycle in which it appears."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator
from tilewright.ir.arch import Arch
from tilewright.ir.latency import BURST_INTERVAL
from tilewright.rtl.bursts import WALK, BurstWalker

Runs = dict[str, int]


def small(bits: int = 32, burst: int = 4, ports: int = 1) -> Arch:
    return Arch().override({"dma.bits": bits, "dma.burst": burst, "dma.ports": ports})


def cut(r: Runs, limit: int) -> list[tuple[int, int]]:
    """Address and bytes of each burst, byte by byte: the next byte is in the burst if it follows and is no cut."""
    n, inner = r["run_bytes"], r["runs1"]
    merged = inner == 1 or r["stride1"] == n
    whole = merged and (r["runs2"] == 1 or r["stride2"] == n * inner)
    out: list[list[int]] = []
    for i in range(r["runs1"] * r["runs2"]):
        at = r["base"] + r["offset"] + i // inner * r["stride2"] + i % inner * r["stride1"]
        for b in range(n):
            joined = b > 0 or (i > 0 and (whole or (merged and i % inner > 0)))
            if not joined or (at + b) % limit == 0:
                out.append([at + b, 0])
            out[-1][1] += 1
    return [(a, size) for a, size in out]


def random_runs(rng: random.Random, limit: int) -> Runs:
    n = rng.choice((1, 3, limit // 2, limit, rng.randrange(1, 5 * limit)))
    runs1, runs2 = rng.choice((1, 2, 5)), rng.choice((1, 2, 3))
    stride1 = rng.choice((n, n, n + rng.randrange(3 * limit)))
    return {
        "base": rng.randrange(1 << 44) << 12 | rng.choice((0, rng.randrange(4096))),
        "offset": rng.choice((0, rng.randrange(1 << 20))),
        "run_bytes": n,
        "runs1": runs1,
        "stride1": stride1,
        "runs2": runs2,
        "stride2": rng.choice((runs1 * n, runs1 * stride1 + rng.randrange(2 * limit))),
    }


def walk(
    arch: Arch, jobs: list[Runs], ready: list[bool], permit: list[bool]
) -> list[list[tuple[int, int, int, int]]]:
    """Address, bytes, len and cycle after the start of each burst of each instruction."""
    dut = BurstWalker(arch)
    got: list[list[tuple[int, int, int, int]]] = []

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        cycle = 0
        for job in jobs:
            for name, value in job.items():
                ctx.set(getattr(dut.runs, name), value)
            ctx.set(dut.start, 1)
            begin, fresh, over = cycle, True, False
            got.append([])
            while not over:
                ctx.set(dut.burst.ready, ready[cycle % len(ready)])
                ctx.set(dut.permit, permit[cycle % len(permit)])
                if ctx.get(dut.burst.valid):
                    fields = [ctx.get(getattr(dut.burst, n)) for n in ("address", "bytes", "len")]
                    if fresh:
                        got[-1].append((*fields, cycle - begin))
                    fresh = bool(ready[cycle % len(ready)])
                    over = bool(ctx.get(dut.burst.last)) and fresh
                await ctx.tick()
                ctx.set(dut.start, 0)
                cycle += 1
                assert cycle < 100_000

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return got


@pytest.mark.parametrize(
    "arch", [small(), small(128, 64), small(32, 1), small(512, 64)], ids=lambda a: a.burst_bytes
)
def test_bursts_of_random_runs_are_those_of_the_rule_in_their_cycles(arch: Arch) -> None:
    """Merged where contiguous, cut at multiples of `burst_bytes`, the first after WALK, then one an interval."""
    rng = random.Random(arch.burst_bytes)
    jobs = [random_runs(rng, arch.burst_bytes) for _ in range(25)]
    beat = arch.beat_bytes
    for job, bursts in zip(jobs, walk(arch, jobs, [True], [True]), strict=True):
        expected = cut(job, arch.burst_bytes)
        assert [b[:2] for b in bursts] == expected
        assert [b[2] + 1 for b in bursts] == [-(-(a % beat + n) // beat) for a, n in expected]
        assert [b[3] for b in bursts] == [WALK + BURST_INTERVAL * k for k in range(len(expected))]


def test_stalls_of_the_bus_and_of_the_permit_lose_no_burst() -> None:
    """The payload waits, and the same bursts come."""
    rng = random.Random(7)
    arch = small(64, 8)
    jobs = [random_runs(rng, arch.burst_bytes) for _ in range(20)]
    ready = [rng.random() < 0.3 for _ in range(997)]
    permit = [rng.random() < 0.4 for _ in range(1009)]
    for job, bursts in zip(jobs, walk(arch, jobs, ready, permit), strict=True):
        assert [b[:2] for b in bursts] == cut(job, arch.burst_bytes)


def cancelled(arch: Arch, first: Runs, second: Runs, wait: int) -> list[tuple[int, int]]:
    """Bursts of `second` after `first` was cancelled `wait` cycles after its start."""
    dut = BurstWalker(arch)
    got = []

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        ctx.set(dut.permit, 1)
        ctx.set(dut.burst.ready, 1)
        for job, ticks in ((first, wait), (second, 400)):
            for name, value in job.items():
                ctx.set(getattr(dut.runs, name), value)
            ctx.set(dut.start, 1)
            for i in range(ticks):
                if job is second and ctx.get(dut.burst.valid):
                    got.append((ctx.get(dut.burst.address), ctx.get(dut.burst.bytes)))
                ctx.set(dut.cancel, job is first and i == ticks - 1)
                await ctx.tick()
                ctx.set(dut.start, 0)
            ctx.set(dut.cancel, 0)
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return got


def test_a_cancelled_instruction_leaves_nothing_behind() -> None:
    """After a cancel in any cycle, the next instruction's bursts are its own."""
    rng = random.Random(3)
    first, second = random_runs(rng, 16) | {"run_bytes": 100}, random_runs(rng, 16)
    for wait in range(1, 16):
        assert cancelled(small(), first, second, wait) == cut(second, 16)
