"""Engines that do nothing but keep time, with the members of the real ones: for tests of the control around them."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out
from tilewright.ir.arch import Arch
from tilewright.ir.isa import Engine, Opcode
from tilewright.rtl.axi import ADDRESS_BITS, read_channels, write_channels
from tilewright.rtl.ports import engine_port, fill_port, map_read, map_write, memory_read
from tilewright.rtl.words import layout

BUSY, TAIL = 5, 9
DRAIN = 300
"""Cycles that the bus of a stub is still busy after an abort."""
HANGS, FAILS = 0xBAD, 0xFA11
"""Lowest address bits of a LOAD or SAVE that never ends, and of one whose burst the bus refuses."""


class StubEngine(Component):
    """Busy for `BUSY` cycles, done `TAIL` later; LOAD and SAVE may hang or fail."""

    def __init__(self, engine: Engine, members: dict[str, Any]) -> None:
        self.engine = engine
        super().__init__({"control": In(engine_port()), **members})

    @property
    def module_name(self) -> str:
        return f"{self.engine.name.lower()}_engine"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = Signal(BUSY + TAIL)
        lost, failed = Signal(), Signal()
        m.d.sync += line.eq((line << 1) | (self.control.start & ~lost))
        m.d.comb += [self.control.last.eq(line[BUSY - 2]), self.control.done.eq(line[BUSY + TAIL - 1])]
        if self.engine in {Engine.LOAD, Engine.SAVE}:
            opcode = Opcode.LOAD if self.engine == Engine.LOAD else Opcode.SAVE
            address = layout(opcode)(self.control.word).address
            left = Signal(range(DRAIN + 1))
            m.d.comb += lost.eq((address[:16] == HANGS) | (address[:16] == FAILS))
            m.d.sync += failed.eq(self.control.start & (address[:16] == FAILS))
            m.d.comb += [
                *(self.error.eq(failed), self.error_address.eq(0x9_8765_4321), self.error_response.eq(3)),
                self.idle.eq(~left.any()),
            ]
            with m.If(self.control.start):
                m.d.sync += left.eq(DRAIN)
            with m.Elif((self.abort & left.any()) | self.control.done):
                m.d.sync += left.eq(left - 1)
            with m.If(self.control.done):
                m.d.sync += left.eq(0)
        return m


def stub_engines(arch: Arch, mac: str = "plain") -> dict[Engine, StubEngine]:
    """As `rtl.core.engine_components`."""

    def bits(words: int) -> int:
        return max(1, (words - 1).bit_length())

    depthwise = 8 * arch.dwc.taps * arch.lanes
    weights = (bits(arch.weight_words), 8 * arch.conv.oc * arch.lanes)
    bus: dict[str, Any] = {f"base{r}": In(ADDRESS_BITS) for r in range(3)}
    bus |= {"abort": In(1), "idle": Out(1), "error": Out(1)}
    bus |= {"error_address": Out(ADDRESS_BITS), "error_response": Out(2)}
    tables = {"table_fill": In(fill_port(bits(256 * arch.weights.tables), 8))}
    ports = range(arch.dma.ports)
    members: dict[Engine, dict[str, Any]] = {
        Engine.LOAD: {
            "target": Out(map_write(arch)),
            "weights": Out(fill_port(*weights)),
            "depthwise": Out(fill_port(bits(arch.depthwise_words), depthwise)),
            "tables": Out(fill_port(bits(256 * arch.weights.tables), 8)),
            "vector": Out(fill_port(bits(arch.vector_words), 32)),
            **{f"axi{p}": Out(read_channels(arch.dma.bits)) for p in ports},
            **bus,
        },
        Engine.CONV: {
            "source": Out(map_read(arch)),
            "weights": Out(memory_read(*weights)),
            "target": Out(map_write(arch)),
            **tables,
        },
        Engine.DWC: {
            "source": Out(map_read(arch)),
            "weights": Out(memory_read(bits(arch.depthwise_words), depthwise)),
            "target": Out(map_write(arch)),
            **tables,
        },
        Engine.VEC: {
            "source_a": Out(map_read(arch)),
            "source_b": Out(map_read(arch)),
            "target": Out(map_write(arch)),
            "vector_fill": In(fill_port(bits(arch.vector_words), 32)),
            **tables,
        },
        Engine.SAVE: {
            "source": Out(map_read(arch)),
            **{f"axi{p}": Out(write_channels(arch.dma.bits)) for p in ports},
            **bus,
        },
    }
    return {e: StubEngine(e, m) for e, m in members.items() if e != Engine.DWC or arch.has_dwc}
