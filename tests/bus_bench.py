"""Runs inside the simulator (cocotb): the verilated core between cocotbext-axi's memories and its AXI4-Lite master.

Every channel is held up at random, and every channel of the core's masters is watched for the rules of AXI (ARM IHI
0022). What to run, and where to leave the result, stands in the environment: BUS_JOB, BUS_RESULT, BUS_SEED.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam, AxiRamRead, AxiReadBus
from tilewright.rtl.axi import BOUNDARY
from tilewright.rtl.register_map import REGISTERS, Access, register

_LIMIT = 600_000
"""Cycles after which a run has failed: several times what the slowest bus here takes."""


def stalls(rng: random.Random) -> Iterator[bool]:
    """Holds a channel up: some channels often and shortly, some rarely and for long, some never."""
    chance, longest = rng.choice(((0.0, 1), (0.3, 2), (0.6, 3), (0.02, 60)))
    mine = random.Random(rng.random())
    while True:
        if mine.random() < chance:
            yield from [True] * mine.randint(1, longest)
        yield False


@dataclass
class Watch:
    """Rules of one master port.

    Parameters
    ----------
    outstanding : int
        Bursts asked for and not yet answered, most, in each direction.
    """

    dut: Any
    port: str
    beat: int
    outstanding: int
    writes: bool
    bursts: int = 0
    stalled: int = 0
    """Cycles in which an offer of the core waited."""
    most: int = 0
    flying: dict[str, int] = field(default_factory=lambda: {"ar": 0, "aw": 0})
    lengths: deque[int] = field(default_factory=deque)
    """Beats of bursts whose address went out, less those of bursts that are sent."""
    sent: deque[int] = field(default_factory=deque)
    beats: int = 0

    def pin(self, name: str) -> Any:
        return getattr(self.dut, f"{self.port}_{name}")

    async def run(self) -> None:
        payload = {"ar": ("addr", "len", "size", "burst")}
        if self.writes:
            payload |= {"aw": payload["ar"], "w": ("data", "strb", "last")}
        valid = {c: self.pin(f"{c}valid") for c in payload}
        ready = {c: self.pin(f"{c}ready") for c in payload}
        pins = {c: [self.pin(c + n) for n in names] for c, names in payload.items()}
        answers = {"ar": [self.pin(n) for n in ("rvalid", "rready", "rlast")]}
        if self.writes:
            answers["aw"] = [self.pin(n) for n in ("bvalid", "bready")]
        offered: dict[str, list[int]] = {}
        while True:
            await RisingEdge(self.dut.clk)
            for c in payload:
                if not valid[c].value:
                    assert c not in offered, f"{self.port}: {c}valid falls before {c}ready"
                    continue
                now = [int(p.value) for p in pins[c]]
                assert offered.get(c, now) == now, f"{self.port}: {c} changes while it waits"
                if ready[c].value:
                    offered.pop(c, None)
                    self.beat_of_data(now) if c == "w" else self.address(c, now)
                else:
                    offered[c] = now
                    self.stalled += 1
            for c, signals in answers.items():
                if all(s.value for s in signals):
                    self.flying[c] -= 1
                    assert self.flying[c] >= 0, f"{self.port}: an answer that nobody asked for"

    def address(self, channel: str, offer: list[int]) -> None:
        """A burst is asked for."""
        at, length, size, kind = offer
        assert (1 << size, kind) == (self.beat, 1)
        end = at // self.beat * self.beat + (length + 1) * self.beat
        assert at // BOUNDARY == (end - 1) // BOUNDARY, f"{self.port}: a burst from {at:#x} crosses 4 KB"
        self.flying[channel] += 1
        self.most = max(self.most, self.flying[channel])
        assert self.flying[channel] <= self.outstanding, f"{self.port}: too many bursts in flight"
        self.bursts += 1
        if channel == "aw":
            self.lengths.append(length + 1)
            self.compare()

    def beat_of_data(self, offer: list[int]) -> None:
        """A beat is sent; it may come before its address."""
        _, strobes, last = offer
        assert strobes, f"{self.port}: a beat without a byte"
        self.beats += 1
        if last:
            self.sent.append(self.beats)
            self.beats = 0
            self.compare()

    def compare(self) -> None:
        while self.sent and self.lengths:
            assert self.sent.popleft() == self.lengths.popleft(), f"{self.port}: wlast on a wrong beat"


async def begin(dut: Any, seed: int) -> tuple[random.Random, AxiLiteMaster]:
    """Clock, reset, and a master on the registers whose channels are held up too."""
    rng = random.Random(seed)
    cocotb.start_soon(Clock(dut.clk, 4, "ns").start())
    dut.rst.value = 1
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
    for side, channels in ((master.write_if, ("aw", "w", "b")), (master.read_if, ("ar", "r"))):
        for channel in channels:
            getattr(side, f"{channel}_channel").set_pause_generator(stalls(rng))
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 4)
    return rng, master


@cocotb.test()
async def program(dut: Any) -> None:
    """A whole run as a driver does it; the maps region afterwards is left for the test outside to judge."""
    job = np.load(os.environ["BUS_JOB"])
    rng, master = await begin(dut, int(os.environ["BUS_SEED"]))
    memory = bytearray(job["memory"].tobytes())
    beat, outstanding = int(job["beat"]), int(job["outstanding"])
    watches = [Watch(dut, "m_axi_fetch", beat, int(job["prefetch"]), writes=False)]
    fetch = AxiRamRead(
        AxiReadBus.from_prefix(dut, "m_axi_fetch"), dut.clk, dut.rst, size=len(memory), mem=memory
    )
    sides = [(fetch, ("ar", "r"))]
    for p in range(int(job["ports"])):
        ram = AxiRam(AxiBus.from_prefix(dut, f"m_axi{p}"), dut.clk, dut.rst, size=len(memory), mem=memory)
        sides += [(ram.read_if, ("ar", "r")), (ram.write_if, ("aw", "w", "b"))]
        watches.append(Watch(dut, f"m_axi{p}", beat, outstanding, writes=True))
    for side, channels in sides:
        for channel in channels:
            getattr(side, f"{channel}_channel").set_pause_generator(stalls(rng))
    for watch in watches:
        cocotb.start_soon(watch.run())

    async def write(name: str, value: int) -> None:
        await master.write_dword(register(name).offset, value & 0xFFFF_FFFF)

    for name in ("PROGRAM_BASE", "WEIGHTS_BASE", "MAPS_BASE", "PROGRAM_HASH"):
        value = int(job[name])
        await write(f"{name}_LO", value)
        await write(f"{name}_HI", value >> 32)
    await write("PROGRAM_WORDS", int(job["PROGRAM_WORDS"]))
    await write("IRQ_ENABLE", register("IRQ_ENABLE").mask)
    await write("CONTROL", register("CONTROL").field("START").mask)
    await First(RisingEdge(dut.irq), ClockCycles(dut.clk, _LIMIT))
    status = await master.read_dword(register("STATUS").offset)
    assert status == register("STATUS").field("DONE").mask, f"status {status:#x}"
    for watch in watches:
        assert not watch.sent
        assert not watch.lengths
        assert not any(watch.flying.values())
    Path(os.environ["BUS_RESULT"]).parent.mkdir(exist_ok=True)
    np.savez(
        os.environ["BUS_RESULT"],
        memory=np.frombuffer(memory, np.uint8),
        cycles=await master.read_dword(register("CYCLES_LO").offset),
        bursts=[w.bursts for w in watches],
        stalled=[w.stalled for w in watches],
        most=[w.most for w in watches],
    )


@cocotb.test()
async def registers(dut: Any) -> None:
    """Random writes with random strobes, and reads, against a table of what must be there."""
    rng, master = await begin(dut, int(os.environ["BUS_SEED"]))
    known = {r.offset: r.reset for r in REGISTERS if r.access == Access.WRITE}
    masks = {r.offset: r.mask for r in REGISTERS}
    for _ in range(150):
        at = rng.choice(list(known))
        if rng.random() < 0.5:
            first, count = rng.choice([(0, 4), (0, 1), (1, 2), (3, 1), (2, 2)])
            data = rng.randbytes(count)
            await master.write(at + first, data)
            mask = ((1 << 8 * count) - 1 << 8 * first) & masks[at]
            known[at] = known[at] & ~mask | int.from_bytes(data, "little") << 8 * first & mask
        else:
            assert await master.read_dword(at) == known[at]
    reads = [cocotb.start_soon(master.read(at, 4)) for at in known]
    for (at, value), task in zip(known.items(), reads, strict=True):
        assert int.from_bytes((await task).data, "little") == value, hex(at)
