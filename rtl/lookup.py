"""Lookup: int8 tables of 256 entries, read by many values at once."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from .ports import fill_port

__all__ = ["Lookup"]

TABLE = 256
"""Entries of a table: one for each int8."""
_ENTRIES = 4
"""In a word of the RAM: LUT RAM is 64 words deep, and 7 (UltraScale+) or 3 (7-series) bits of a word share what
addresses the write. 32 bits fill five of the former, where bytes would take eight."""
_MIDDLE = 128 // _ENTRIES
"""Words are stored in the order of the values' bits: value 0 first, -128 in the middle."""


class Lookup(Component):
    """Parallel lookups in one of several tables, latency 2: RAM and table, then entry of the word.

    The tables lie in LUT RAM, read without a clock, one copy for each value. Entry ``v + 128`` of a table belongs to
    value v.

    Parameters
    ----------
    values : int
        Lookups a cycle.
    tables : int
        At most 16.

    Members
    -------
    value0, value1, ... : signed(8), in
        Out of registers: they address the RAM.
    select : 5, in
        0 passes the values through; t + 1 looks them up in table t.
    result0, result1, ... : signed(8), out
    fill : `fill_port`, in
        A byte to address ``256 t + entry``, into all copies; the four of a word one after the other, in ascending order,
        any cycles apart. Values that come two cycles after the fourth, or later, find them.

    Resources (Yosys, UltraScale+), a value and 4 tables: 160 LUTs as RAM, 49 to choose.
    """

    def __init__(self, values: int, tables: int) -> None:
        assert 1 <= tables <= 16
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
        memory = Memory(
            shape=8 * _ENTRIES,
            depth=self.tables * TABLE // _ENTRIES,
            init=[],
            attrs={"ram_style": "distributed"},
        )
        m.submodules.memory = memory
        write = memory.write_port()
        word = Signal(8 * _ENTRIES, reset_less=True)
        address = Signal(len(write.addr), reset_less=True)
        store = Signal()
        m.d.sync += [
            address.eq(self.fill.address[2:] ^ _MIDDLE),
            store.eq(self.fill.enable & self.fill.address[:2].all()),
        ]
        with m.If(self.fill.enable):
            m.d.sync += word.eq(Cat(word[8:], self.fill.data))
        m.d.comb += [write.addr.eq(address), write.data.eq(word), write.en.eq(store)]

        table = Signal(range(self.tables))
        through = Signal(reset_less=True)
        m.d.comb += table.eq(self.select - 1)
        m.d.sync += through.eq(self.select == 0)
        for i in range(self.values):
            value = getattr(self, f"value{i}")
            read = memory.read_port(domain="comb")
            found = Signal(8 * _ENTRIES, name=f"word{i}", reset_less=True)
            value1 = Signal(signed(8), name=f"value{i}_1", reset_less=True)
            m.d.comb += read.addr.eq(Cat(value[2:], table))
            m.d.sync += [
                *(found.eq(read.data), value1.eq(value)),
                getattr(self, f"result{i}").eq(Mux(through, value1, found.word_select(value1[:2], 8))),
            ]
        return m
