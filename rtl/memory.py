"""On-chip memories: the map groups, and the wide memories beside them."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, Signature

from ..ir.arch import Arch
from ..ir.latency import MAP_READ, MEMORY_READ
from .delay import delay
from .hierarchy import place
from .ports import fill_port, map_read, map_write, memory_read, row_bits

__all__ = ["Bank", "MapGroup", "MapMemory", "WideMemory"]


class Bank(Component):
    """One map bank: block RAM with one read and one write port, a write enable a byte and an output register.

    Before it lies a register in which the requests of all ports meet. Instructions own ports (`rtl/interlock.py`), so
    there is never more than one at a time, and they are merged by OR.

    Timing: `data` three cycles after a request: request register, RAM, output register. Reading and writing one row in
    the same cycle gives junk.

    Parameters
    ----------
    depth : int
        Words.
    lanes : int
        Bytes of a word.
    readers, writers : tuple of str
        Names of the ports ``read_<name>`` (enable, row) and ``write_<name>`` (enable, row, mask, data).
    """

    data: Signal

    def __init__(self, depth: int, lanes: int, readers: tuple[str, ...], writers: tuple[str, ...]) -> None:
        self.depth, self.lanes, self.readers, self.writers = depth, lanes, readers, writers
        self.row_bits = max(1, (depth - 1).bit_length())
        read = {"enable": Out(1), "row": Out(self.row_bits)}
        write = read | {"mask": Out(lanes), "data": Out(8 * lanes)}
        super().__init__(
            {f"read_{n}": In(Signature(read)) for n in readers}
            | {f"write_{n}": In(Signature(write)) for n in writers}
            | {"data": Out(8 * lanes)}
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
        reads = [getattr(self, f"read_{n}") for n in self.readers]
        writes = [getattr(self, f"write_{n}") for n in self.writers]
        enable, mask = Signal(name="enable"), Signal(self.lanes, name="mask")
        row, to = (Signal(self.row_bits, name=n, reset_less=True) for n in ("row", "to"))
        stored, word = (Signal(8 * self.lanes, name=n, reset_less=True) for n in ("stored", "word"))
        m.d.sync += [
            enable.eq(Cat(p.enable for p in reads).any()),
            row.eq(_merge((p.enable, p.row) for p in reads)),
            mask.eq(_merge((p.enable, p.mask) for p in writes)),
            to.eq(_merge((p.enable, p.row) for p in writes)),
            stored.eq(_merge((p.enable, p.data) for p in writes)),
            word.eq(read.data),
        ]
        m.d.comb += [
            *(read.en.eq(enable), read.addr.eq(row), self.data.eq(word)),
            *(write.en.eq(mask), write.addr.eq(to), write.data.eq(stored)),
        ]
        return m


class MapGroup(Component):
    """The banks of a group.

    Rows are those of the group. Members: for each reader ``read_<name>`` (enable a bank, row), for each writer ``write_<name>`` (enable, row, mask,
    data), ``data<b>`` out, three cycles after the request.
    """

    def __init__(self, arch: Arch, readers: tuple[str, ...], writers: tuple[str, ...]) -> None:
        self.arch, self.readers, self.writers = arch, readers, writers
        banks, rows = range(arch.banks), max(1, (arch.group_words // arch.banks - 1).bit_length())
        read = {"enable": Out(arch.banks), **{f"row{b}": Out(rows) for b in banks}}
        word = {f"mask{b}": Out(arch.lanes) for b in banks} | {f"data{b}": Out(8 * arch.lanes) for b in banks}
        super().__init__(
            {f"read_{n}": In(Signature(read)) for n in readers}
            | {f"write_{n}": In(Signature(read | word)) for n in writers}
            | {f"data{b}": Out(8 * arch.lanes) for b in banks}
        )

    @property
    def module_name(self) -> str:
        return "map_group"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.arch.group_words // self.arch.banks
        for b in range(self.arch.banks):
            bank = place(m, f"bank{b}", Bank(depth, self.arch.lanes, self.readers, self.writers))
            m.d.comb += getattr(self, f"data{b}").eq(bank.data)
            for kind, names in (("read", self.readers), ("write", self.writers)):
                for name in names:
                    port, to = getattr(self, f"{kind}_{name}"), getattr(bank, f"{kind}_{name}")
                    m.d.comb += [to.enable.eq(port.enable[b]), to.row.eq(getattr(port, f"row{b}"))]
                    if kind == "write":
                        m.d.comb += [
                            to.mask.eq(getattr(port, f"mask{b}")),
                            to.data.eq(getattr(port, f"data{b}")),
                        ]
        return m


class MapMemory(Component):
    """All map groups, and the switch between them and the engines.

    An operand may lie in several neighbouring groups: each bank's request goes to its own, the operand's first plus the
    upper bits of the row. Groups then have a power of two rows (`Arch.span`).

    `MAP_READ` = group register, RAM, output register, engine register.

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
        arch, banks = self.arch, range(self.arch.banks)
        groups = [
            place(m, f"group{g}", MapGroup(arch, self.readers, self.writers)) for g in range(arch.maps.groups)
        ]
        for kind, names in (("read", self.readers), ("write", self.writers)):
            parts = [f"row{b}" for b in banks]
            parts += [f"{part}{b}" for part in ("mask", "data") for b in banks] if kind == "write" else []
            for name in names:
                port = getattr(self, f"{kind}_{name}")
                steer = place(m, f"steer_{kind}_{name}", Steer(arch))
                m.d.comb += [steer.enable.eq(port.enable), steer.group.eq(port.group)]
                m.d.comb += steer.row.eq(Cat(getattr(port, f"row{b}") for b in banks))
                for g, group in enumerate(groups):
                    to = getattr(group, f"{kind}_{name}")
                    m.d.comb += to.enable.eq(steer.enables.word_select(g, len(banks)))
                    m.d.comb += [getattr(to, part).eq(getattr(port, part)) for part in parts]
                if kind == "read":
                    answer = place(m, f"answer_{name}", Answer(arch))
                    m.d.comb += answer.targets.eq(steer.targets)
                    for g, group in enumerate(groups):
                        m.d.comb += getattr(answer, f"group{g}").eq(
                            Cat(getattr(group, f"data{b}") for b in banks)
                        )
                    width = 8 * arch.lanes
                    m.d.comb += [
                        getattr(port, f"data{b}").eq(answer.data.word_select(b, width)) for b in banks
                    ]
        return m


def _targets(arch: Arch) -> int:
    """Groups that a request may go to at once: one for each bank, where maps span groups."""
    return 1 if arch.span == 1 else arch.banks


class Steer(Component):
    """The groups that the banks' requests of a port go to. No cycle.

    Members
    -------
    enable, group, row : in
        Of the port; the rows of all banks. What is in a row above a group's rows counts groups on.
    targets : out
        Group of each bank's request; one for all where operands lie in one group.
    enables : out
        The request's enable bits for each group.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                **{"enable": In(arch.banks), "group": In(3), "row": In(arch.banks * row_bits(arch))},
                **{"targets": Out(3 * _targets(arch)), "enables": Out(arch.maps.groups * arch.banks)},
            }
        )

    @property
    def module_name(self) -> str:
        return "map_steer"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        banks, count = self.arch.banks, _targets(self.arch)
        above = (self.arch.group_words // banks).bit_length() - 1
        targets = [self.targets.word_select(b, 3) for b in range(count)]
        if count == 1:
            m.d.comb += targets[0].eq(self.group)
        else:
            rows = [self.row.word_select(b, row_bits(self.arch)) for b in range(banks)]
            m.d.comb += [t.eq(self.group + row[above:]) for t, row in zip(targets, rows, strict=True)]
        for g in range(self.arch.maps.groups):
            mine = Cat(targets[b % count] == g for b in range(banks))
            m.d.comb += self.enables.word_select(g, banks).eq(self.enable & mine)
        return m


class Answer(Component):
    """Back to an engine come the words of the groups that its requests went to.

    Members
    -------
    targets : in
        From `Steer`, with the request.
    group0, group1, ... : in
        Words of the groups' banks, `MAP_READ` - 1 cycles later.
    data : out
        `MAP_READ` cycles later.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        words = 8 * arch.lanes * arch.banks
        super().__init__(
            {
                "targets": In(3 * _targets(arch)),
                **{f"group{g}": In(words) for g in range(arch.maps.groups)},
                "data": Out(words),
            }
        )

    @property
    def module_name(self) -> str:
        return "map_answer"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count, width = _targets(self.arch), 8 * self.arch.lanes * self.arch.banks
        chosen, each = delay(m, self.targets, MAP_READ - 1, "targets"), width // count
        for t in range(count):
            word = Signal(each, name=f"word{t}", reset_less=True)
            with m.Switch(chosen.word_select(t, 3)):
                for g in range(self.arch.maps.groups):
                    with m.Case(g):
                        m.d.sync += word.eq(getattr(self, f"group{g}").word_select(t, each))
            m.d.comb += self.data.word_select(t, each).eq(word)
        return m


def _merge(pairs: Iterable[tuple[Value, Value]]) -> Value:
    """OR of the values whose condition holds."""
    total: Value = C(0, 1)
    for condition, value in pairs:
        total = total | Mux(condition, value, 0)
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
        return f"memory_{self.depth}x{self.bits}_{self.style}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = ram = Memory(
            shape=self.bits, depth=self.depth, init=[], attrs={"ram_style": self.style}
        )
        read, write = ram.read_port(), ram.write_port()
        asked, stored = Signal(name="asked"), Signal(name="stored")
        address, to = (Signal.like(self.read.address, name=n, reset_less=True) for n in ("address", "to"))
        word, data = (Signal(self.bits, name=n, reset_less=True) for n in ("word", "data"))
        m.d.sync += [
            *(asked.eq(self.read.enable), address.eq(self.read.address), word.eq(read.data)),
            *(stored.eq(self.fill.enable), to.eq(self.fill.address), data.eq(self.fill.data)),
        ]
        m.d.comb += [
            *(read.en.eq(asked), read.addr.eq(address), self.read.data.eq(word)),
            *(write.en.eq(stored), write.addr.eq(to), write.data.eq(data)),
        ]
        return m
