"""The CONV engine: the MAC array with what feeds and drains it."""

from __future__ import annotations

from amaranth.hdl import Module, Mux
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..ir.arch import Arch
from ..ir.latency import ADDRESS, MAP_READ, conv_tail, dot_product
from .conv_parameters import ConvParameters
from .conv_sequence import ConvSequence
from .conv_weights import ConvWeights
from .delay import delay
from .destination import WRITTEN, Destination
from .drain import Drain
from .drain_sequence import DrainSequence
from .hierarchy import place
from .mac_array import MacArray
from .output_blocks import RECORD
from .ports import engine_port, fill_port, map_read, map_write, memory_read
from .window_address import WindowAddress
from .word_crossbar import WordCrossbar

__all__ = ["ConvEngine"]


class ConvEngine(Component):
    """Convolutions as in docs/isa.md, CONV; timing as in docs/machine.md.

    A fixed pipeline. Cycles after an issue slot:

    ====================== ==========================================================================
    -1                     `ConvSequence`: loop counters
    0 .. ADDRESS           `WindowAddress`: positions, addresses, requests to the banks
    .. + MAP_READ          map memory; `ConvWeights` reads the weight word for the same cycle
    .. + 2                 `WordCrossbar`: a word for each pixel
    .. + dot_product(ic)   `MacArray`: products and their sums
    .. + 1                 accumulators
    ====================== ==========================================================================

    Behind the last slot of a pixel block, the accumulators are copied, and drained step by step while the next block
    accumulates. Cycles after a step: 1 `Drain`: selection; + REQUANTISE requantisers; + 2 tables; + 3 `Destination`: lanes, banks.

    Parameters
    ----------
    mac : {"plain", "dsp48e2", "dsp48e1"}
        How products are made (`rtl.products`); it changes neither a bit nor a cycle.

    Members
    -------
    control : `engine_port`, in
    source : `map_read`, out
    weights : `memory_read`, out
        A word of ``oc x ic`` bytes, byte (l, o) at l * oc + o.
    target : `map_write`, out
    table_fill : `fill_port`, in
        Address ``256 * table + value + 128``.
    """

    def __init__(self, arch: Arch, mac: str = "plain") -> None:
        self.arch, self.mac = arch, mac
        weights = memory_read(max(1, (arch.weight_words - 1).bit_length()), 8 * arch.lanes * arch.conv.oc)
        super().__init__(
            {
                "control": In(engine_port()),
                "source": Out(map_read(arch)),
                "weights": Out(weights),
                "target": Out(map_write(arch)),
                "table_fill": In(fill_port((arch.weights.tables * 256 - 1).bit_length(), 8)),
            }
        )

    @property
    def module_name(self) -> str:
        return "conv" if self.mac == "plain" else f"conv_{self.mac}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, pixels = self.arch, range(self.arch.conv.pixels)
        sequence = place(m, "sequence", ConvSequence(arch))
        source, crossbar = (
            place(m, "source", WindowAddress(arch)),
            place(m, "crossbar", WordCrossbar(arch.banks, arch.conv.pixels, arch.lanes)),
        )
        weights, parameters = (
            place(m, "weights", ConvWeights(arch)),
            place(m, "parameters", ConvParameters(arch)),
        )
        array = place(m, "array", MacArray(arch, self.mac))
        steps, drain, target = (
            place(m, "steps", DrainSequence(arch)),
            place(m, "results", Drain(arch)),
            place(m, "target", Destination(arch)),
        )
        for part in (sequence, source, steps, target):
            m.d.comb += [part.start.eq(self.control.start), part.word.eq(self.control.word)]

        # To the operands.
        flags = "step share parameter turn_input turn_column turn_row turn_block turn_record line carry"
        m.d.comb += [getattr(source, n).eq(getattr(sequence, n)) for n in flags.split()]
        m.d.comb += [
            *(self.source.group.eq(source.group), self.source.enable.eq(source.enable)),
            *(getattr(self.source, f"row{b}").eq(getattr(source, f"row{b}")) for b in range(arch.banks)),
            *(getattr(crossbar, f"data{b}").eq(getattr(self.source, f"data{b}")) for b in range(arch.banks)),
            *(
                getattr(crossbar, f"{n}{p}").eq(getattr(source, f"{n}{p}"))
                for n in ("bank", "padded")
                for p in pixels
            ),
            crossbar.za.eq(source.za),
            weights.enable.eq(sequence.step | sequence.parameter),
            *(getattr(weights, n).eq(getattr(sequence, n)) for n in ("address", "tap", "place")),
            weights.diagonal.eq(source.diagonal),
        ]
        connect(m, flipped(self.weights), weights.memory)

        # To the accumulators. Stages are counted from the sequence's cycle, one before the slot.
        word = 1 + ADDRESS + MAP_READ
        sums = word + 2 + dot_product(arch.conv.ic)
        done = sums + 1
        m.d.comb += [
            parameters.write.eq(delay(m, sequence.parameter, word, "parameter", reset=True)),
            parameters.index.eq(delay(m, sequence.parameter_word, word, "parameter_word")),
            *(
                parameters.to.eq(delay(m, sequence.record, word, "record_read")),
                parameters.word.eq(weights.raw),
            ),
            *(getattr(array, f"word{p}").eq(getattr(crossbar, f"word{p}")) for p in pixels),
            array.weights.eq(weights.weights),
            array.enable.eq(delay(m, Mux(sequence.step, sequence.share, 0), sums, "enable", reset=True)),
            *(array.begin.eq(delay(m, sequence.begin, sums, "begin")), array.bias.eq(parameters.bias)),
        ]
        record = delay(m, sequence.record, sums - 1, "record")
        m.d.comb += [
            parameters.bias_at.eq(record),
            parameters.scale_at.eq(delay(m, record, 1, "record_of_sums")),
        ]
        record_now = delay(m, record, 2, "record_now")
        context_now = delay(m, sequence.context, done, "context")
        drains = delay(m, sequence.drain, done, "drain", reset=True)
        finish = delay(m, sequence.finish, done, "finish", reset=True)

        # To the destination.
        m.d.comb += [
            *(getattr(steps, n).eq(getattr(sequence, n)) for n in ("context", "parameter", "record")),
            *(getattr(steps, f"record_{n}").eq(getattr(sequence, f"record_{n}")) for n in RECORD),
            *(steps.drain.eq(drains), steps.finish.eq(finish)),
            *(steps.context_now.eq(context_now), steps.record_now.eq(record_now)),
            *(drain.take.eq(drains), drain.scale.eq(parameters.scale)),
            *(getattr(drain, f"total{p}").eq(getattr(array, f"total{p}")) for p in pixels),
            *(
                getattr(drain, n).eq(getattr(steps, n))
                for n in ("group", "index", "lane", "zd", "lo", "hi", "mode", "table")
            ),
            *(
                target.context.eq(sequence.context),
                target.drain.eq(drains),
                target.context_now.eq(context_now),
            ),
            target.line.eq(delay(m, sequence.line, done, "line")),
            target.record_end.eq(delay(m, sequence.record_end, done, "record_end")),
            *(
                getattr(target, n).eq(getattr(steps, n))
                for n in ("step", "turn", "block_end", "group", "way", "first", "lane", "end", "plane")
            ),
            *(
                getattr(target, n).eq(getattr(drain, n))
                for n in drain.signature.members
                if n.startswith("byte")
            ),
        ]
        for n in ("enable", "address", "data"):
            m.d.comb += getattr(drain.table_fill, n).eq(getattr(self.table_fill, n))
        connect(m, flipped(self.target), target.target)

        m.d.comb += [
            self.control.last.eq(sequence.last),
            self.control.done.eq(delay(m, steps.finished, WRITTEN, "done", reset=True)),
        ]
        assert WRITTEN + done - 1 == conv_tail(arch) + 1
        return m
