"""Lookup tables in hardware: every entry, every copy."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator
from tilewright.rtl.lookup import TABLE, Lookup

LATENCY = 2


@pytest.mark.parametrize(("values", "tables"), [(1, 2), (3, 3), (2, 5), (4, 16)])
def test_each_value_finds_the_selected_table_s_entry_two_cycles_later(values: int, tables: int) -> None:
    """Fill all tables, then all 256 values through every table and through none, in random order, each cycle another
    table; in the meantime one more table is written, of which no copy may miss a byte."""
    rng = np.random.default_rng(values)
    contents = rng.integers(-128, 128, (tables, TABLE))
    again = int(rng.integers(tables))
    fresh = rng.integers(-128, 128, TABLE)
    dut = Lookup(values, tables)

    select = rng.permutation(np.repeat(np.arange(tables + 1), TABLE))
    inputs = np.stack([rng.integers(-128, 128, len(select)) for _ in range(values)], 1)
    for lane in range(values):
        for s in range(tables + 1):
            inputs[select == s, lane] = rng.permutation(TABLE) - 128
    got = np.zeros_like(inputs)

    async def write(ctx, table: int, entries) -> None:  # type: ignore[no-untyped-def]
        for entry in rng.permutation(TABLE):
            ctx.set(dut.fill.address, table * TABLE + int(entry))
            ctx.set(dut.fill.data, int(entries[entry]) & 0xFF)
            ctx.set(dut.fill.enable, 1)
            await ctx.tick()
        # What stands at the port without `enable` is not written.
        ctx.set(dut.fill.enable, 0)
        ctx.set(dut.fill.data, 0x5A)
        await ctx.tick()

    async def look_up(ctx, chosen) -> None:  # type: ignore[no-untyped-def]
        for i in range(len(chosen) + LATENCY):
            if i < len(chosen):
                ctx.set(dut.select, int(select[chosen[i]]))
                for lane in range(values):
                    ctx.set(getattr(dut, f"value{lane}"), int(inputs[chosen[i], lane]))
            if i >= LATENCY:
                for lane in range(values):
                    got[chosen[i - LATENCY], lane] = ctx.get(getattr(dut, f"result{lane}"))
            await ctx.tick()

    others = np.flatnonzero(select != again + 1)
    assert len(others) > TABLE + 1  # so that the last writes are over before the table is read
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)

    async def reader(ctx):  # type: ignore[no-untyped-def]
        await ctx.tick().repeat(tables * (TABLE + 1))
        await look_up(ctx, others)
        await look_up(ctx, np.flatnonzero(select == again + 1))

    async def writer(ctx):  # type: ignore[no-untyped-def]
        for table in range(tables):
            await write(ctx, table, contents[table])
        await write(ctx, again, fresh)

    simulator.add_testbench(reader)
    simulator.add_testbench(writer)
    simulator.run()

    contents[again] = fresh
    expected = np.where(select[:, None] == 0, inputs, contents[select[:, None] - 1, inputs + 128])
    np.testing.assert_array_equal(got, expected)


def test_a_byte_is_there_for_the_values_of_the_next_cycle_and_not_sooner() -> None:
    """The value beside the write still finds the old byte, the one after it does not."""
    dut = Lookup(1, 2)

    async def bench(ctx):  # type: ignore[no-untyped-def]
        ctx.set(dut.fill.address, TABLE + 128)
        ctx.set(dut.fill.data, 7)
        ctx.set(dut.fill.enable, 1)
        ctx.set(dut.select, 2)
        await ctx.tick()
        ctx.set(dut.fill.enable, 0)
        seen = []
        for _ in range(4):
            await ctx.tick()
            seen.append(ctx.get(dut.result0))
        assert seen == [0, 7, 7, 7]

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
