"""Lookup tables in hardware: every entry, every copy."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator
from tilewright.rtl.lookup import TABLE, Lookup

LATENCY = 2


@pytest.mark.parametrize(("values", "tables"), [(1, 2), (3, 3), (2, 5), (4, 16)])
def test_each_value_finds_the_selected_table_s_entry_two_cycles_later(values: int, tables: int) -> None:
    """All 256 values through every table and through none, in random order, each cycle another table. In the meantime
    one more table is written, with gaps between its bytes, of which no copy may miss any."""
    rng = np.random.default_rng(values)
    contents = rng.integers(-128, 128, (tables, TABLE))
    again = int(rng.integers(tables))
    fresh = rng.integers(-128, 128, TABLE)
    dut = Lookup(values, tables)

    select = rng.permutation(np.repeat(np.arange(tables + 1), TABLE))
    inputs = np.zeros((len(select), values), np.int64)
    for lane in range(values):
        for s in range(tables + 1):
            inputs[select == s, lane] = rng.permutation(TABLE) - 128
    got = np.zeros_like(inputs)
    others, last = np.flatnonzero(select != again + 1), np.flatnonzero(select == again + 1)
    gaps = rng.permutation(np.arange(TABLE) % 4 == 0)

    async def write(ctx, table: int, entries, gaps) -> None:  # type: ignore[no-untyped-def]
        for entry in range(TABLE):
            ctx.set(dut.fill.address, table * TABLE + entry)
            ctx.set(dut.fill.data, int(entries[entry]) & 0xFF)
            ctx.set(dut.fill.enable, 1)
            await ctx.tick()
            if gaps[entry]:  # what stands at the port without `enable` is not written
                ctx.set(dut.fill.enable, 0)
                ctx.set(dut.fill.data, 0x5A)
                await ctx.tick()
        ctx.set(dut.fill.enable, 0)

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

    async def reader(ctx):  # type: ignore[no-untyped-def]
        await ctx.tick().repeat(tables * TABLE)
        await look_up(ctx, others)
        await look_up(ctx, last)

    async def writer(ctx):  # type: ignore[no-untyped-def]
        for table in range(tables):
            await write(ctx, table, contents[table], np.zeros(TABLE))
        await write(ctx, again, fresh, gaps)

    assert len(others) >= TABLE + gaps.sum()  # so that the last write is over before its table is read
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(reader)
    simulator.add_testbench(writer)
    simulator.run()

    contents[again] = fresh
    expected = np.where(select[:, None] == 0, inputs, contents[select[:, None] - 1, inputs + 128])
    np.testing.assert_array_equal(got, expected)


def test_four_bytes_are_there_for_the_values_of_two_cycles_later_and_not_sooner() -> None:
    """The value in the cycle after the last of four bytes still finds an old one, the one after it does not."""
    dut = Lookup(1, 2)
    value = 2 - 128

    async def bench(ctx):  # type: ignore[no-untyped-def]
        ctx.set(dut.select, 2)
        ctx.set(dut.value0, value)
        seen = []
        for cycle in range(8):
            ctx.set(dut.fill.enable, cycle < 4)
            ctx.set(dut.fill.address, TABLE + cycle % 4)
            ctx.set(dut.fill.data, 5 + cycle)
            await ctx.tick()
            seen.append(ctx.get(dut.result0))
        # seen[i] belongs to the value of cycle i - 1; the fourth byte comes in cycle 3
        assert seen == [0, 0, 0, 0, 0, 0, 7, 7]

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
