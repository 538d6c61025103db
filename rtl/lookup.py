"""Lookup: int8 tables of 256 entries, read by many values at once."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from .ports import fill_port

__all__ = ["Lookup"]

TABLE = 256
"""Entries of a table: one for each int8."""


class Lookup(Component):
    """Parallel lookups in one of several tables, latency 2: address register, RAM and output register.

    The tables lie in LUT RAM, read without a clock, one copy for each value: a table costs a value 40 LUTs for its
    bits and about 10 for choosing among them. Entry ``v + 128`` of a table belongs to value v.

    Parameters
    ----------
    values : int
        Lookups a cycle.
    tables : int
        At most 16.

    Members
    -------
    value0, value1, ... : signed(8), in
    select : 5, in
        0 passes the values through; t + 1 looks them up in table t.
    result0, result1, ... : signed(8), out
    fill : `fill_port`, in
        A byte a cycle to address ``256 t + entry``, into all copies; values of the next cycle find it.
    """

    def __init__(self, values: int, tables: int) -> None:
        self.values, self.tables = values, tables
        super().__init__(
            {
                **{f"value{i}": In(signed(8)) for i in range(values)},
                "select": In(5),
                **{f"result{i}": Out(signed(8)) for i in range(values)},
                "fill": In(fill_port((tables * TABLE - 1).bit_length(), 8)),
            }
        )

    @property
    def module_name(self) -> str:
        return f"lookup{self.values}x{self.tables}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = ram = Memory(
            shape=8, depth=self.tables * TABLE, init=[], attrs={"ram_style": "distributed"}
        )
        write = ram.write_port()
        address, data, store = (
            Signal.like(self.fill.address, name="fill_address", reset_less=True),
            Signal.like(self.fill.data, name="fill_data", reset_less=True),
            Signal(name="fill_enable"),
        )
        table = Signal(len(address) - 8, name="table", reset_less=True)
        through = Signal(name="through", reset_less=True)
        m.d.sync += [
            *(address.eq(self.fill.address), data.eq(self.fill.data), store.eq(self.fill.enable)),
            *(table.eq(self.select - 1), through.eq(self.select == 0)),
        ]
        m.d.comb += [write.addr.eq(address), write.data.eq(data), write.en.eq(store)]
        for i in range(self.values):
            value = Signal(signed(8), name=f"value{i}_1", reset_less=True)
            result = getattr(self, f"result{i}")
            read = ram.read_port(domain="comb")
            m.d.comb += read.addr.eq(Cat(value[:7], ~value[7], table))
            m.d.sync += [
                value.eq(getattr(self, f"value{i}")),
                result.eq(Mux(through, value, read.data.as_signed())),
            ]
        return m
