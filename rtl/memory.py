"""On-chip memories: the map groups, and the wide memories beside them."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In

from ..ir.arch import Arch
from ..ir.latency import MAP_READ, MEMORY_READ
from .hierarchy import place
from .ports import fill_port, map_read, map_write, memory_read, row_bits

__all__ = ["Bank", "MapMemory", "WideMemory"]


class Bank(Component):
    """One map bank: block RAM with one read and one write port, a write enable a byte and an output register.

    Parameters
    ----------
    depth : int
        Words.
    lanes : int
        Bytes of a word.
    """

    def __init__(self, depth: int, lanes: int) -> None:
        self.depth, self.lanes = depth, lanes
        bits = max(1, (depth - 1).bit_length())
        super().__init__(
            {
                "read_enable": In(1),
                "read_row": In(bits),
                "read_data": In(8 * lanes).flip(),
                "write_mask": In(lanes),
                "write_row": In(bits),
                "write_data": In(8 * lanes),
            }
        )

    @property
    def module_name(self) -> str:
        return f"map_bank_{self.depth}x{self.lanes}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = ram = Memory(
            shape=8 * self.lanes, depth=self.depth, init=[], attrs={"ram_style": "block"}
        )
        read, write = ram.read_port(), ram.write_port(granularity=8)
        m.d.comb += [
            *(read.en.eq(self.read_enable), read.addr.eq(self.read_row)),
            *(write.en.eq(self.write_mask), write.addr.eq(self.write_row), write.data.eq(self.write_data)),
        ]
        m.d.sync += self.read_data.eq(read.data)
        return m


class MapMemory(Component):
    """All map groups, and the switch between them and the engines.

    Ports are owned by whole instructions (the interlock sees to that), so requests of different engines to one group
    never meet and are merged by OR. `MAP_READ` = group register, RAM, output register, engine register.

    Parameters
    ----------
    readers, writers : tuple of str
        Names of the ports ``read_<name>`` and ``write_<name>``.
    """

    def __init__(self, arch: Arch, readers: tuple[str, ...], writers: tuple[str, ...]) -> None:
        assert MAP_READ == 4
        self.arch, self.readers, self.writers = arch, readers, writers
        super().__init__(
            {f"read_{n}": In(map_read(arch)) for n in readers}
            | {f"write_{n}": In(map_write(arch)) for n in writers}
        )

    @property
    def module_name(self) -> str:
        return "map_memory"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, width = self.arch, row_bits(self.arch)
        reads = [getattr(self, f"read_{n}") for n in self.readers]
        writes = [getattr(self, f"write_{n}") for n in self.writers]
        out: list[list[Signal]] = []  # data by group, bank
        for g in range(arch.maps.groups):
            out.append([])
            mine = [_here(m, f"read{g}_{n}", p.group == g) for n, p in zip(self.readers, reads, strict=True)]
            to_write = [_here(m, f"write{g}_{n}", p.group == g) for n, p in zip(self.writers, writes, strict=True)]
            for b in range(arch.banks):
                bank = place(m, f"bank{g}_{b}", Bank(arch.group_words // arch.banks, arch.lanes))
                enable = Signal(name=f"enable{g}_{b}")
                row = Signal(width, name=f"row{g}_{b}", reset_less=True)
                asked = [h & p.enable[b] for h, p in zip(mine, reads, strict=True)]
                m.d.sync += [
                    enable.eq(Cat(asked).any()),
                    row.eq(_merge((a, getattr(p, f"row{b}")) for a, p in zip(asked, reads, strict=True))),
                ]
                m.d.comb += [bank.read_enable.eq(enable), bank.read_row.eq(row)]
                out[g].append(bank.read_data)
                mask = Signal(arch.lanes, name=f"mask{g}_{b}")
                to = Signal(width, name=f"to{g}_{b}", reset_less=True)
                data = Signal(8 * arch.lanes, name=f"data{g}_{b}", reset_less=True)
                asked = [h & p.enable[b] for h, p in zip(to_write, writes, strict=True)]
                pairs = list(zip(asked, writes, strict=True))
                m.d.sync += [
                    mask.eq(_merge((a, getattr(p, f"mask{b}")) for a, p in pairs)),
                    to.eq(_merge((a, getattr(p, f"row{b}")) for a, p in pairs)),
                    data.eq(_merge((a, getattr(p, f"data{b}")) for a, p in pairs)),
                ]
                m.d.comb += [bank.write_mask.eq(mask), bank.write_row.eq(to), bank.write_data.eq(data)]
        for name, port in zip(self.readers, reads, strict=True):
            group = port.group
            for i in range(MAP_READ - 1):
                later = Signal(3, name=f"group_{name}{i}", reset_less=True)
                m.d.sync += later.eq(group)
                group = later
            for b in range(arch.banks):
                data = getattr(port, f"data{b}")
                with m.Switch(group):
                    for g in range(arch.maps.groups):
                        with m.Case(g):
                            m.d.sync += data.eq(out[g][b])
        return m


def _here(m: Module, name: str, value: object) -> Signal:
    s = Signal(name=name)
    m.d.comb += s.eq(value)
    return s


def _merge(pairs: object) -> object:
    """OR of the values whose condition holds."""
    total = None
    for condition, value in pairs:  # type: ignore[attr-defined]
        part = Mux(condition, value, 0)
        total = part if total is None else total | part
    return total


class WideMemory(Component):
    """A memory with one read port, and whole words written by FILL.

    `MEMORY_READ` = address register, RAM, output register.
    """

    def __init__(self, depth: int, bits: int, style: str = "block") -> None:
        assert MEMORY_READ == 3
        self.depth, self.bits, self.style = depth, bits, style
        address = max(1, (depth - 1).bit_length())
        super().__init__({"read": In(memory_read(address, bits)), "fill": In(fill_port(address, bits))})

    @property
    def module_name(self) -> str:
        return f"memory_{self.depth}x{self.bits}"

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.ram = ram = Memory(
            shape=self.bits, depth=self.depth, init=[], attrs={"ram_style": self.style}
        )
        read, write = ram.read_port(), ram.write_port()
        address, enable = Signal.like(self.read.address, reset_less=True), Signal()
        to, data, store = (
            Signal.like(self.fill.address, reset_less=True),
            Signal.like(self.fill.data, reset_less=True),
            Signal(),
        )
        m.d.sync += [
            *(address.eq(self.read.address), enable.eq(self.read.enable), self.read.data.eq(read.data)),
            *(to.eq(self.fill.address), data.eq(self.fill.data), store.eq(self.fill.enable)),
        ]
        m.d.comb += [
            *(read.en.eq(enable), read.addr.eq(address)),
            *(write.en.eq(store), write.addr.eq(to), write.data.eq(data)),
        ]
        return m
