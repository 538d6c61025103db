"""The register file: every register as the table has it, over AXI4-Lite."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from amaranth.sim import Simulator
from tilewright.rtl.register_map import BLOCK_BYTES, REGISTERS, Access, register
from tilewright.rtl.registers import RegisterFile


def run(bench: Callable[[Any, RegisterFile], Any]) -> None:
    dut = RegisterFile()

    async def start(ctx: Any) -> None:
        await bench(ctx, dut)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(start)
    sim.run()


async def write(ctx: Any, dut: RegisterFile, at: int, value: int, strobes: int = 15, gap: int = 0) -> None:
    """`gap` > 0: data so many cycles after the address; < 0: before it."""
    bus = dut.bus
    wait = {"aw": max(0, -gap), "w": max(0, gap)}
    ctx.set(bus.aw.addr, at)
    ctx.set(bus.w.data, value)
    ctx.set(bus.w.strb, strobes)
    left = {"aw", "w"}
    for cycle in range(40):
        for channel in ("aw", "w"):
            ctx.set(getattr(bus, channel).valid, channel in left and cycle >= wait[channel])
        took = {c for c in left if cycle >= wait[c] and ctx.get(getattr(bus, c).ready)}
        await ctx.tick()
        left -= took
        if not left:
            break
    ctx.set(bus.aw.valid, 0)
    ctx.set(bus.w.valid, 0)
    for _ in range(10):
        if ctx.get(bus.b.valid):
            break
        await ctx.tick()
    assert ctx.get(bus.b.valid)
    assert ctx.get(bus.b.resp) == 0
    await ctx.tick()
    assert ctx.get(bus.b.valid)  # until it is taken
    ctx.set(bus.b.ready, 1)
    await ctx.tick()
    ctx.set(bus.b.ready, 0)
    assert not ctx.get(bus.b.valid)


async def read(ctx: Any, dut: RegisterFile, at: int) -> int:
    bus = dut.bus
    ctx.set(bus.ar.addr, at)
    ctx.set(bus.ar.valid, 1)
    while not ctx.get(bus.ar.ready):
        await ctx.tick()
    await ctx.tick()
    ctx.set(bus.ar.valid, 0)
    for _ in range(10):
        if ctx.get(bus.r.valid):
            break
        await ctx.tick()
    value = int(ctx.get(bus.r.data))
    await ctx.tick()
    assert ctx.get(bus.r.valid)
    assert ctx.get(bus.r.data) == value
    ctx.set(bus.r.ready, 1)
    await ctx.tick()
    ctx.set(bus.r.ready, 0)
    return value


def test_the_table_is_sound() -> None:
    """Words of their own within the block, in order, fields that do not overlap and lie within 32 bits."""
    offsets = [r.offset for r in REGISTERS]
    assert offsets == sorted(set(offsets))
    assert all(o % 4 == 0 and o < BLOCK_BYTES for o in offsets)
    assert len({r.name for r in REGISTERS}) == len(REGISTERS)
    for r in REGISTERS:
        assert sum(f.mask for f in r.fields).bit_count() == sum(f.width for f in r.fields)
        assert r.mask < 1 << 32
        assert r.meaning
        assert all(f.meaning for f in r.fields)


def test_what_the_host_writes_is_there_and_reads_back() -> None:
    rng = random.Random(1)

    async def bench(ctx: Any, dut: RegisterFile) -> None:
        for r in (r for r in REGISTERS if r.access == Access.WRITE):
            value = rng.getrandbits(32)
            await write(ctx, dut, r.offset, value, gap=rng.choice((-3, 0, 0, 2)))
            assert ctx.get(getattr(dut, r.name.lower())) == value & r.mask
            assert await read(ctx, dut, r.offset) == value & r.mask
            other = rng.getrandbits(32)
            await write(ctx, dut, r.offset, other, strobes=0b0110)
            mixed = (value & 0xFF0000FF) | (other & 0x00FFFF00)
            assert await read(ctx, dut, r.offset) == mixed & r.mask

    run(bench)


def test_what_the_core_says_can_be_read_and_not_written() -> None:
    rng = random.Random(2)

    async def bench(ctx: Any, dut: RegisterFile) -> None:
        for r in (r for r in REGISTERS if r.access == Access.READ):
            value = rng.getrandbits(32)
            ctx.set(getattr(dut, r.name.lower()), value)
            await write(ctx, dut, r.offset, rng.getrandbits(32))
            assert await read(ctx, dut, r.offset) == value & r.mask

    run(bench)


def test_commands_act_once() -> None:
    control = register("CONTROL")
    pulses: list[int] = []

    async def bench(ctx: Any, dut: RegisterFile) -> None:
        for at, value in ((control.offset, 1), (control.offset, 2), (control.offset + 4, 3)):
            await write(ctx, dut, at, value)
            assert await read(ctx, dut, control.offset) == 0

    dut = RegisterFile()

    async def watch(ctx: Any) -> None:
        async for _, _, value in ctx.tick().sample(dut.control):
            pulses.append(value)

    async def start(ctx: Any) -> None:
        await bench(ctx, dut)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(start)
    sim.add_testbench(watch, background=True)
    sim.run()
    assert [p for p in pulses if p] == [1, 2]


def test_an_event_stays_until_its_bit_is_written() -> None:
    """An event in the very cycle of the write is not lost."""
    status = register("IRQ_STATUS")

    async def bench(ctx: Any, dut: RegisterFile) -> None:
        ctx.set(dut.set_irq_status, 0b11)
        await ctx.tick()
        ctx.set(dut.set_irq_status, 0)
        assert await read(ctx, dut, status.offset) == 0b11
        await write(ctx, dut, status.offset, 0b10)
        assert await read(ctx, dut, status.offset) == 0b01
        ctx.set(dut.set_irq_status, 0b01)
        await write(ctx, dut, status.offset, 0b01)
        ctx.set(dut.set_irq_status, 0)
        assert await read(ctx, dut, status.offset) == 0b01

    run(bench)


@pytest.mark.parametrize("at", [0x7C, 0x100, 0xFFC])
def test_an_address_without_a_register_reads_as_zero(at: int) -> None:
    async def bench(ctx: Any, dut: RegisterFile) -> None:
        for r in REGISTERS:
            if r.access == Access.READ:
                ctx.set(getattr(dut, r.name.lower()), 0xFFFF_FFFF)
        await write(ctx, dut, at, 0xFFFF_FFFF)
        assert await read(ctx, dut, at) == 0

    run(bench)


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="NOTHING"):
        register("NOTHING")
