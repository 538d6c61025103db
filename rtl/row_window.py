"""The depthwise engine's window: rows of the source in LUT RAM, and the taps of a step picked from them."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.depthwise import rows_a_step
from ..ir.latency import shift_levels
from .choose import choose
from .dwc_walks import SLOT_BITS, most_rows
from .stages import Stages

__all__ = ["RowWindow", "TapSelect", "tap_places", "window_columns"]


def window_columns(arch: Arch) -> int:
    """Columns that the widest strip needs: stride 2, the widest kernel at dilation 2, or two reads of the banks.

    >>> window_columns(Arch.preset("b4096"))
    27
    """
    return min(2 * arch.banks, 2 * (arch.dwc.pixels - 1) + 2 * (arch.dwc.rows - 1) + 1)


def tap_places(arch: Arch, slot: int) -> list[tuple[int, int]]:
    """Where tap `slot` of a step may come from, a (kernel row of the step, column of its part) for each kernel width
    from 1 on; for widths that leave the slot empty, whatever the next width has.

    >>> tap_places(Arch.preset("b4096").override({"dwc.taps": 9}), 4)
    [(2, 0), (2, 0), (1, 1), (1, 0), (0, 4), (0, 4), (0, 4)]
    """
    taps = arch.dwc.taps
    places: list[tuple[int, int] | None] = []
    for kw in range(1, arch.dwc.rows + 1):
        used = rows_a_step(taps, kw) * kw if kw <= taps else taps
        places.append(None if slot >= used else divmod(slot, kw) if kw <= taps else (0, slot))
    later: tuple[int, int] = next((p for p in reversed(places) if p), (0, 0))
    filled = []
    for place in reversed(places):
        later = place or later
        filled.append(later)
    return filled[::-1]


class RowWindow(Component):
    """Rows of words, written a half at a time, `most_rows` of them read at once.

    Members
    -------
    write : in
        Half to write, a bit each: the first `banks` columns, the others.
    write_slot, data, inside, padding : in
        Row slot; words of the half; which of them are inside the source; the byte that others hold.
    slots : in
        Row slots to read.
    rows : out
        Their words, a cycle later: column by column, row by row.
    """

    write: Signal
    write_slot: Signal
    data: Signal
    inside: Signal
    padding: Signal
    slots: Signal
    rows: Signal

    def __init__(self, arch: Arch, channels: int) -> None:
        self.arch, self.channels = arch, channels
        self.columns, self.readers = window_columns(arch), most_rows(arch)
        super().__init__(
            {
                **{"write": In(2), "write_slot": In(SLOT_BITS), "data": In(arch.banks * 8 * channels)},
                **{"inside": In(arch.banks), "padding": In(8)},
                **{
                    "slots": In(SLOT_BITS * self.readers),
                    "rows": Out(self.readers * self.columns * 8 * channels),
                },
            }
        )

    @property
    def module_name(self) -> str:
        return "dwc_row_window"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        banks, bits = self.arch.banks, 8 * self.channels
        words = [
            Mux(self.inside[k], self.data.word_select(k, bits), self.padding.replicate(self.channels))
            for k in range(banks)
        ]
        rows: list[list[Value]] = [[] for _ in range(self.readers)]
        for half in range(-(-self.columns // banks)):
            count = min(banks, self.columns - half * banks)
            ram = Memory(
                shape=count * bits, depth=1 << SLOT_BITS, init=[], attrs={"ram_style": "distributed"}
            )
            m.submodules[f"half{half}"] = ram
            write = ram.write_port()
            m.d.comb += [
                write.en.eq(self.write[half]),
                write.addr.eq(self.write_slot),
                write.data.eq(Cat(words[:count])),
            ]
            for g in range(self.readers):
                read = ram.read_port()
                m.d.comb += [read.en.eq(1), read.addr.eq(self.slots.word_select(g, SLOT_BITS))]
                rows[g].append(read.data)
        m.d.comb += self.rows.eq(Cat(Cat(r) for r in rows))
        return m


class TapSelect(Component):
    """From rows of the window to the taps of a step.

    First the row moves to the part of the kernel row that the step covers (`shift_levels` registered levels: a kernel row
    wider than the taps has several parts, and then a step has one row). Then each tap of each pixel is chosen by kernel
    width, stride and dilation, one registered level.

    Members
    -------
    part, kernel_columns, wide, spread : in
        Part of the kernel row; kernel width; stride is 2; dilation is 2.
    rows : in
        As `RowWindow` gives them, a cycle later.
    taps : out
        Byte (pixel, channel, tap), tap fastest; ``2 + shift_levels`` cycles after `part`.
    """

    part: Signal
    kernel_columns: Signal
    wide: Signal
    spread: Signal
    rows: Signal
    taps: Signal

    def __init__(self, arch: Arch, channels: int) -> None:
        self.arch, self.channels = arch, channels
        self.columns, self.readers = window_columns(arch), most_rows(arch)
        super().__init__(
            {
                **{"part": In(4), "kernel_columns": In(4), "wide": In(1), "spread": In(1)},
                "rows": In(self.readers * self.columns * 8 * channels),
                "taps": Out(8 * arch.dwc.pixels * channels * arch.dwc.taps),
            }
        )

    @property
    def module_name(self) -> str:
        return "dwc_tap_select"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        dwc, bits = self.arch.dwc, 8 * self.channels
        stages = Stages(m)
        for name in ("part", "kernel_columns", "wide", "spread"):
            stages.put(name, getattr(self, name), 0)
        rows: list[dict[int, Value]] = [
            {x: self.rows.word_select(g * self.columns + x, bits) for x in range(self.columns)}
            for g in range(self.readers)
        ]
        levels = shift_levels(self.arch)
        parts = -(-dwc.rows // dwc.taps)
        need = 2 * (dwc.pixels - 1) + 2 * (min(dwc.taps, dwc.rows) - 1) + 1  # columns, after the last level
        for level in range(levels):
            if level == levels - 1:
                low, count, unit, wanted = 0, min(4, parts), dwc.taps, need
            else:
                low, count, unit, wanted = 2, -(-parts // 4), 4 * dwc.taps, need + 2 * 3 * dwc.taps
            amounts = sorted({n * unit * (1 + s) for n in range(count) for s in (0, 1)})
            index = Signal(range(len(amounts)), name=f"amount{level}", reset_less=True)
            part, spread = stages.at("part", level)[low : low + 2], stages.at("spread", level)
            with m.Switch(Cat(part, spread)):
                for n in range(count):
                    for s in (0, 1):
                        with m.Case(n + 4 * s):
                            m.d.sync += index.eq(amounts.index(n * unit * (1 + s)))
            rows = [
                self._moved(m, f"level{level}_row{g}", row, amounts if g == 0 else [0], index, wanted)
                for g, row in enumerate(rows)
            ]
        taps: dict[tuple[int, int, int], Value] = {}
        for slot in range(dwc.taps):
            places = tap_places(self.arch, slot)
            distinct = list(dict.fromkeys(places))
            which = Signal(range(len(distinct)), name=f"which{slot}", reset_less=True)
            if len(distinct) > 1:
                width = stages.at("kernel_columns", levels)
                with m.Switch(width):
                    for kw, place in enumerate(places, 1):
                        with m.Case(kw):
                            m.d.sync += which.eq(distinct.index(place))
            index = Cat(stages.at("wide", levels + 1), stages.at("spread", levels + 1), which)
            for p in range(dwc.pixels):
                keys = [
                    (g, min(p * (1 + w) + kx * (1 + s), len(rows[g]) - 1))
                    for g, kx in distinct
                    for s in (0, 1)
                    for w in (0, 1)
                ]
                tap = Signal(bits, name=f"pixel{p}_tap{slot}", reset_less=True)
                m.d.sync += tap.eq(choose(keys, {(g, x): rows[g][x] for g, x in keys}, index))
                for c in range(self.channels):
                    taps[p, c, slot] = tap.word_select(c, 8)
        m.d.comb += self.taps.eq(Cat(taps[key] for key in sorted(taps)))
        return m

    def _moved(
        self, m: Module, name: str, row: dict[int, Value], amounts: list[int], index: Signal, wanted: int
    ) -> dict[int, Value]:
        """`row` moved down by one of the amounts: as many columns as are wanted."""
        moved: dict[int, Value] = {}
        for x in range(min(wanted, self.columns)):
            keys = [min(x + amount, len(row) - 1) for amount in amounts]
            to = Signal(8 * self.channels, name=f"{name}_column{x}", reset_less=True)
            m.d.sync += to.eq(choose(keys, row, index))
            moved[x] = to
        return moved
