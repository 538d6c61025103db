"""The depthwise engine."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out, PureInterface

from ..ir.arch import Arch
from ..ir.isa import Opcode
from ..ir.latency import (
    ADDRESS,
    MAP_READ,
    MEMORY_READ,
    REQUANTISE,
    dwc_operands,
    dwc_sums,
    dwc_tail,
    dwc_window,
)
from .delay import delay
from .dwc_products import DwcAccumulate, DwcParameters, DwcProducts
from .dwc_read import DwcRead
from .dwc_sequence import DwcSequence
from .dwc_walks import SLOT_BITS, most_rows
from .dwc_write import DwcWrite
from .hierarchy import place
from .lookup import Lookup
from .ports import engine_port, fill_port, map_read, map_write, memory_read
from .requantise import SHARED as REQUANTISE_SHARED
from .requantise import Requantise
from .rotation import rotated
from .row import Row
from .row_window import RowWindow, TapSelect
from .stages import Stages
from .words import layout

__all__ = ["DwcEngine"]


class DwcEngine(Component):
    """Depthwise convolutions: `dwc.pixels` x `dwc.channels` x `dwc.taps` products a cycle.

    One pipeline, from the sequence to the write port, that never stalls; numbers are cycles after an issue:

        read     request (`ADDRESS`), words (`MAP_READ`), the pass's lanes, columns: in the window at `dwc_window`
        step     window, tap select: at `dwc_operands`, where the word of weights arrives too; sums at `dwc_sums`,
                 accumulators
        drain    drain registers, requantisers, tables, banks: the last word is written in cycle `done`

    A step is issued after the reads of its rows, and reads the window just after they were written. Rows for the next output
    row go to other slots of the window. What later stages need of an instruction goes with the data.

    Parameters
    ----------
    mac : str
        How products are built (`products.MAC_STYLES`): the bits are the same.

    Members
    -------
    control : in, `engine_port`
    source : out, `map_read`
    weights : out, `memory_read` of the depthwise memory
    target : out, `map_write`
    table_fill : in, `fill_port` of the tables
    """

    control: PureInterface
    source: PureInterface
    weights: PureInterface
    target: PureInterface
    table_fill: PureInterface

    def __init__(self, arch: Arch, mac: str = "plain") -> None:
        assert arch.has_dwc
        self.arch, self.mac = arch, mac
        self.channels = min(arch.dwc.channels, arch.lanes)
        self.passes = -(-arch.lanes // self.channels)
        super().__init__(
            {
                "control": In(engine_port()),
                "source": Out(map_read(arch)),
                "weights": Out(
                    memory_read(
                        max(1, (arch.depthwise_words - 1).bit_length()), 8 * arch.dwc.taps * arch.lanes
                    )
                ),
                "target": Out(map_write(arch)),
                "table_fill": In(fill_port((256 * arch.weights.tables - 1).bit_length(), 8)),
            }
        )

    @property
    def module_name(self) -> str:
        return "dwc_engine"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, dwc = self.arch, self.arch.dwc
        sequence = place(m, "sequence", DwcSequence(arch))
        f = View(layout(Opcode.DWC), sequence.fields)
        drain_steps = -(-dwc.pixels // dwc.drain)
        m.d.comb += [
            *(sequence.start.eq(self.control.start), sequence.word.eq(self.control.word)),
            self.control.last.eq(sequence.last),
            self.control.done.eq(
                delay(m, sequence.final, dwc_tail(arch) + drain_steps + 1, "done", reset=True)
            ),
        ]
        stages = Stages(m)
        for name in ("step", "parameter", "drain"):
            stages.put(name, getattr(sequence, name), 0, reset=True)
        for name in ("step_first", "step_row", "step_part", "parameter_index", "weight", "part", "count"):
            stages.put(name, getattr(sequence, name), 0)
        for name in ("kw", "zd", "lo", "hi", "mode", "table", "d_group"):
            stages.put(name, f[name], 0)
        stages.put("wide", f.sx == 2, 0)
        stages.put("spread", f.dx == 2, 0)

        window = self._fill(m, sequence, f, stages)
        sums, weights = self._multiply(m, stages, window)
        results = self._requantise(m, f, stages, sums, weights)
        self._write(m, sequence, f, stages, results)
        return m

    def _fill(self, m: Module, sequence: DwcSequence, f: View[Any], stages: Stages) -> RowWindow:
        """Words of the source, from request to window."""
        arch, banks = self.arch, self.arch.banks
        read = place(m, "read", DwcRead(arch))
        window = place(m, "window", RowWindow(arch, self.channels))
        for name in ("row", "ring", "wrapped", "block", "column", "run"):
            m.d.comb += getattr(read, name).eq(getattr(sequence, name))
        m.d.comb += [
            *(
                read.valid.eq(sequence.read),
                read.half.eq(sequence.read_half),
                read.slot.eq(sequence.read_slot),
            ),
            *(read.pitch.eq(f.a_pitch), read.in_h.eq(f.in_h), read.in_w.eq(f.in_w)),
            *(read.group.eq(f.a_group), read.za.eq(f.za)),
            *(self.source.group.eq(read.to_group), self.source.enable.eq(read.enable)),
        ]
        for b in range(banks):
            row = getattr(self.source, f"row{b}")
            m.d.comb += row.eq(read.rows.word_select(b, len(row)))
        words = Cat(getattr(self.source, f"data{b}") for b in range(banks))
        mine = self._of_pass(m, words, banks, stages.at("part", ADDRESS + MAP_READ), "word")
        items = [mine[8 * self.channels * b : 8 * self.channels * (b + 1)] for b in range(banks)]
        m.d.comb += [
            window.data.eq(Cat(rotated(m, items, read.rotation, "column"))),
            *(window.write.eq(read.write), window.write_slot.eq(read.write_slot)),
            *(window.inside.eq(read.inside), window.padding.eq(read.padding)),
        ]
        return window

    def _multiply(self, m: Module, stages: Stages, window: RowWindow) -> tuple[Signal, Value]:
        """Taps of a step out of the window, and its word of weights: sums at `dwc_sums`, weights at `dwc_operands`."""
        arch = self.arch
        at, operands = dwc_window(arch) - 1, dwc_operands(arch)
        taps = place(m, "select", TapSelect(arch, self.channels))
        products = place(m, "products", DwcProducts(arch, self.channels, self.mac))
        ask = operands - MEMORY_READ - int(self.passes > 1)
        m.d.comb += [
            window.slots.eq(Cat((stages.at("step_row", at) + g)[:SLOT_BITS] for g in range(most_rows(arch)))),
            *(taps.part.eq(stages.at("step_part", at)), taps.kernel_columns.eq(stages.at("kw", at))),
            *(taps.wide.eq(stages.at("wide", at)), taps.spread.eq(stages.at("spread", at))),
            *(taps.rows.eq(window.rows), products.taps.eq(taps.taps)),
            self.weights.enable.eq(stages.at("step", ask) | stages.at("parameter", ask)),
            self.weights.address.eq(stages.at("weight", ask)),
        ]
        part = stages.at("part", ask + MEMORY_READ)
        weights = self._of_pass(m, self.weights.data, arch.dwc.taps, part, "weights")
        m.d.comb += products.weights.eq(weights)
        return products.sums, weights

    def _requantise(
        self, m: Module, f: View[Any], stages: Stages, sums: Signal, weights: Value
    ) -> list[Signal]:
        """Accumulators, and results of a group of pixels: byte (pixel, channel)."""
        arch, channels = self.arch, self.channels
        at = dwc_sums(arch)
        parameters = place(m, "parameters", DwcParameters(arch, channels))
        accumulate = place(m, "accumulate", DwcAccumulate(arch, channels))
        m.d.comb += [
            *(
                parameters.weights.eq(weights),
                parameters.valid.eq(stages.at("parameter", dwc_operands(arch))),
            ),
            parameters.index.eq(stages.at("parameter_index", dwc_operands(arch))),
            *(accumulate.sums.eq(sums), accumulate.bias.eq(parameters.bias)),
            *(accumulate.step.eq(stages.at("step", at)), accumulate.first.eq(stages.at("step_first", at))),
            accumulate.drain.eq(stages.at("drain", at + 1)),
        ]
        held = {}  # while a drain lasts
        for name in ("zd", "lo", "hi", "mode", "table"):
            held[name], value = Signal(f[name].shape(), name=name, reset_less=True), stages.at(name, at + 1)
            with m.If(accumulate.drain):
                m.d.sync += held[name].eq(value)
        count = accumulate.group * channels
        lookup = place(m, "lookup", Lookup(count, arch.weights.tables))
        m.d.comb += [
            *(lookup.fill.address.eq(self.table_fill.address), lookup.fill.data.eq(self.table_fill.data)),
            lookup.fill.enable.eq(self.table_fill.enable),
            lookup.select.eq(delay(m, held["table"], REQUANTISE, "table")),
        ]
        for p in range(accumulate.group):
            units = place(
                m, f"requantise{p}", Row(lambda: Requantise(arch.rounding, 32), channels, REQUANTISE_SHARED)
            )
            m.d.comb += [
                units.value.eq(accumulate.values.word_select(p, 32 * channels)),
                *(units.word.eq(parameters.scale), units.raw.eq(0)),
                *(getattr(units, n).eq(held[n]) for n in ("zd", "lo", "hi", "mode")),
                *(
                    getattr(lookup, f"value{p * channels + k}").eq(units.result.word_select(k, 8))
                    for k in range(channels)
                ),
            ]
        return [getattr(lookup, f"result{i}") for i in range(count)]

    def _write(
        self, m: Module, sequence: DwcSequence, f: View[Any], stages: Stages, results: list[Signal]
    ) -> None:
        """Results to banks."""
        write = place(m, "write", DwcWrite(self.arch, self.channels))
        row, first, word = (
            Signal(18, reset_less=True),
            Signal(18, reset_less=True),
            Signal(18, reset_less=True),
        )
        m.d.sync += [
            *(row.eq(sequence.d_row * f.d_pitch), first.eq(sequence.d_column)),
            word.eq(row + first),
        ]
        stages.put("word", word, 2)
        at = dwc_sums(self.arch) + 1 + REQUANTISE + 2
        m.d.comb += [
            *(write.begin.eq(stages.at("drain", at)), write.word.eq(stages.at("word", at))),
            *(write.count.eq(stages.at("count", at)), write.group.eq(stages.at("d_group", at))),
            *(write.part.eq(stages.at("part", at)), write.results.eq(Cat(results))),
            *(self.target.group.eq(write.target.group), self.target.enable.eq(write.target.enable)),
        ]
        for b in range(self.arch.banks):
            for name in (f"row{b}", f"mask{b}", f"data{b}"):
                m.d.comb += getattr(self.target, name).eq(getattr(write.target, name))

    def _of_pass(self, m: Module, data: Value, groups: int, part: Value, name: str) -> Value:
        """The pass's lanes of `groups` words: a cycle later where there are several passes."""
        if self.passes == 1:
            return data
        lanes, channels = self.arch.lanes, self.channels
        out = []
        for g in range(groups):
            word = Signal(8 * channels, name=f"{name}{g}", reset_less=True)
            own = data[8 * lanes * g : 8 * lanes * (g + 1)]
            with m.Switch(part):
                for n in range(self.passes):
                    with m.Case(n):
                        m.d.sync += word.eq(own[8 * channels * n : 8 * channels * (n + 1)])
            out.append(word)
        return Cat(out)
