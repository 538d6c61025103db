"""FETCH against the rule of docs/machine.md, and against a bus that makes it wait or fails."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from amaranth.sim import Simulator
from tilewright.ir.arch import Arch
from tilewright.ir.isa import FETCH_BYTES, WORD_BYTES
from tilewright.ir.latency import FETCH_START, FETCH_TAIL
from tilewright.rtl.fetch import Fetch

BASE = 0x0000_0007_FFFF_F000
"""The low half of the address overflows within the program."""


@dataclass
class Seen:
    """What a run of the hardware showed, in cycles from the first request."""

    requests: list[tuple[int, int, int]]
    """Cycle, address, bytes."""
    taken: list[tuple[int, int]]
    """Cycle, instruction word."""
    idle_at_end: bool
    failed: list[tuple[int, int]]
    """Address and response."""


def word_of(index: int) -> int:
    return random.Random(index).getrandbits(8 * WORD_BYTES)


def run_fetch(
    arch: Arch, count: int, willing: list[bool], latency: list[int], *, stalls: float = 0, fail: int = -1
) -> Seen:
    """Fetch `count` instructions; in cycle t one is taken if `willing`[t]; request k is answered after `latency`[k]."""
    dut, seen = Fetch(arch), Seen([], [], False, [])
    rng = random.Random(count)
    image = b"".join(word_of(i).to_bytes(WORD_BYTES, "little") for i in range(-(-count // 16) * 16))

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        ctx.set(dut.base, BASE)
        ctx.set(dut.words, count)
        ctx.set(dut.begin, 1)
        await ctx.tick()
        ctx.set(dut.begin, 0)
        beats: list[tuple[int, int, bool]] = []  # earliest cycle, data, last
        origin, port, delivered = None, 0, 0
        offered = False
        for cycle in range(len(willing)):
            if ctx.get(dut.first):
                assert origin is None
                origin = cycle
            t = cycle - origin if origin is not None else 0
            ready = not (stalls and rng.random() < stalls)
            ctx.set(dut.bus.ar.ready, ready)
            if ctx.get(dut.bus.ar.valid) and ready:
                at, size = ctx.get(dut.bus.ar.addr), ctx.get(dut.bus.ar.user) + 1
                number = len(seen.requests)
                seen.requests.append((t, at, size))
                assert (ctx.get(dut.bus.ar.len) + 1) * arch.beat_bytes == size
                first = max(cycle + latency[number], port)
                data = image[at - BASE : at - BASE + size]
                for i in range(size // arch.beat_bytes):
                    piece = data[i * arch.beat_bytes : (i + 1) * arch.beat_bytes]
                    beats.append(
                        (first + i, int.from_bytes(piece, "little"), (i + 1) * arch.beat_bytes == size)
                    )
                port = first + size // arch.beat_bytes
            offered = bool(beats) and beats[0][0] <= cycle and (offered or rng.random() >= stalls)
            ctx.set(dut.bus.r.valid, offered)
            if offered:
                _, piece_value, last = beats[0]
                ctx.set(dut.bus.r.data, piece_value)
                ctx.set(dut.bus.r.last, last)
                ctx.set(dut.bus.r.resp, 2 if delivered == fail else 0)
                delivered += 1
                assert ctx.get(dut.bus.r.ready)
                beats.pop(0)
                offered = False
            take = willing[t] and bool(ctx.get(dut.valid))
            ctx.set(dut.take, take)
            if take:
                seen.taken.append((t, ctx.get(dut.word)))
            if ctx.get(dut.failed):
                seen.failed.append((ctx.get(dut.failed_address), ctx.get(dut.failed_response)))
            await ctx.tick()
        seen.idle_at_end = bool(ctx.get(dut.idle))

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return seen


def rule(
    arch: Arch, count: int, willing: list[bool], latency: list[int]
) -> tuple[list[tuple[int, int, int]], list[int]]:
    """The same, cycle by cycle, as the simulator has it."""
    total = -(-count // 16) * FETCH_BYTES
    at = port = done = 0
    requests: list[tuple[int, int, int]] = []
    ready: list[int] = []
    taken: list[int] = []
    for t in range(len(willing)):
        gone = sum(d <= t - FETCH_START for d in taken)
        if at < total and (at // FETCH_BYTES + 1) * 16 - gone <= arch.queues.prefetch:
            size = min(FETCH_BYTES - at % FETCH_BYTES, arch.burst_bytes - at % arch.burst_bytes)
            port = max(t + latency[len(requests)], port) + size // arch.beat_bytes
            requests.append((t, BASE + at, size))
            ready += [port] * ((at + size) // WORD_BYTES - at // WORD_BYTES)
            at += size
        if done < len(ready) and ready[done] + FETCH_TAIL <= t and willing[t]:
            taken.append(t)
            done += 1
    return requests, taken


ARCHES = {
    "default": Arch(),
    "a burst is less than an instruction": Arch().override({"dma.bits": 32, "dma.burst": 4}),
    "a burst is an instruction": Arch().override({"dma.bits": 64, "dma.burst": 8, "queues.prefetch": 48}),
    "a beat is an instruction": Arch().override(
        {"dma.bits": 512, "dma.burst": 1, "dma.ports": 1, "queues.prefetch": 16}
    ),
    "a deep buffer in block RAM": Arch().override({"dma.bits": 256, "queues.prefetch": 80}),
}


@pytest.mark.parametrize("name", ARCHES)
@pytest.mark.parametrize("pace", [1.0, 0.3])
def test_requests_and_instructions_come_in_the_simulators_cycles(name: str, pace: float) -> None:
    arch, rng = ARCHES[name], random.Random(name)
    count, cycles = 120, 700
    willing = [rng.random() < pace for _ in range(cycles)]
    latency = [
        rng.choice((1, 5, 30)) for _ in range(-(-count // 16) * FETCH_BYTES // arch.burst_bytes * 2 + 20)
    ]
    seen = run_fetch(arch, count, willing, latency)
    requests, taken = rule(arch, count, willing, latency)
    last = seen.requests[-1][0]
    assert seen.requests == [r for r in requests if r[0] <= last]
    within = [t for t in taken if t < cycles - 20]
    assert [t for t, _ in seen.taken if t < cycles - 20] == within
    assert [w for _, w in seen.taken] == [word_of(i) for i in range(len(seen.taken))]
    assert len(within) >= 40


def test_a_bus_that_makes_it_wait_changes_no_word() -> None:
    arch = ARCHES["a burst is less than an instruction"]
    seen = run_fetch(arch, 40, [True] * 1500, [7] * 999, stalls=0.4)
    assert [w for _, w in seen.taken][:40] == [word_of(i) for i in range(40)]
    assert [a for _, a, _ in seen.requests] == [BASE + 16 * i for i in range(3 * 64)]
    assert seen.idle_at_end


def test_an_error_names_the_address_of_its_burst() -> None:
    """It lies in the second group, whose low address half is zero."""
    arch = Arch().override({"dma.burst": 16})
    beat = (FETCH_BYTES + 2 * arch.burst_bytes) // arch.beat_bytes + 3
    seen = run_fetch(arch, 48, [False] * 300, [2] * 99, fail=beat)
    assert seen.failed == [(BASE + FETCH_BYTES + 2 * arch.burst_bytes, 2)]
    assert seen.taken == []
