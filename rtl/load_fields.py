"""The fields of LOAD and FILL that say where bytes go, in the form in which the walk over groups takes both."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import FORMATS, Memory, Opcode
from .delay import delay
from .pixel_walk import times
from .words import WORD_BITS, layout

__all__ = ["FIELDS", "LoadFields", "load_fields"]

FIELDS = 3
"""Start to the fields: word, product 2."""
_BITS = {f.name: f.bits for key in ((Opcode.LOAD, None), (Opcode.FILL, None)) for f in FORMATS[key]}
_OPERAND = ("d_group", "d_base", "d_pitch", "d_plane", "d_rows", "d_row0")
_SHARED = ("take", "step", "fold", "fold_pad", "row_bytes", "za", "blocks", *_OPERAND)


def load_fields() -> data.StructLayout:
    """What is kept of an instruction, by the names of LOAD; ``columns`` words a row, ``row0_words`` from ring row 0 to
    the first row.

    A FILL's row is a record, its columns are a record's words, and ``row_bytes`` are the bytes of a record's last word.
    """
    return data.StructLayout(
        {
            "fill": 1,
            "memory": 2,
            "straight": 1,
            "columns": _BITS["run_bytes"],
            "height": _BITS["records"],
            **{name: _BITS[name] for name in _SHARED},
            "row0_words": _BITS["d_base"],
        }
    )


class LoadFields(Component):
    """Instruction word to fields, `FIELDS` cycles later.

    Members: `start` and `word` in, as an engine gets them; `fields` out. Resources: 1 DSP.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__({"start": In(1), "word": In(WORD_BITS), "fields": Out(load_fields())})

    @property
    def module_name(self) -> str:
        return "load_fields"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self.arch.lanes
        word = Signal(WORD_BITS, reset_less=True)
        with m.If(self.start):
            m.d.sync += word.eq(self.word)
        load, fill = data.View(layout(Opcode.LOAD), word), data.View(layout(Opcode.FILL), word)
        is_fill = load.opcode == Opcode.FILL
        tables, vector = load.func == Memory.TABLES, load.func == Memory.VECTOR
        plane = Mux(
            load.func == Memory.DEPTHWISE,
            times(fill.tail_take, lanes),
            times(fill.tail_take, self.arch.conv.oc),
        )
        row0_words, product = (
            Signal(_BITS["d_base"], name=n, reset_less=True) for n in ("row0_words", "product")
        )
        m.d.sync += [product.eq(load.d_row0 * load.d_pitch), row0_words.eq(product)]
        kept = Signal(load_fields(), reset_less=True)
        m.d.sync += [getattr(kept, n).eq(getattr(load, n)) for n in _SHARED]
        m.d.sync += [
            *(kept.fill.eq(is_fill), kept.memory.eq(load.func)),
            *(kept.columns.eq(load.width), kept.height.eq(load.height)),
            kept.straight.eq(
                (load.take == lanes) & (load.step == lanes) & (load.fold == 1) & (load.fold_pad == 0)
            ),
        ]
        with m.If(is_fill):
            m.d.sync += [
                kept.columns.eq(Mux(tables, 256, Mux(vector, fill.run_bytes >> 2, fill.record_rows))),
                *(kept.height.eq(Mux(vector, 1, fill.records)), kept.blocks.eq(1), kept.row_bytes.eq(plane)),
                *(
                    kept.straight.eq(0),
                    kept.take.eq(0),
                    kept.step.eq(0),
                    kept.fold.eq(1),
                    kept.fold_pad.eq(0),
                ),
                kept.d_base.eq(Mux(tables, fill.m_base << 8, fill.m_base)),
                *(kept.d_pitch.eq(0), kept.d_plane.eq(0), kept.d_rows.eq(1), kept.d_row0.eq(0)),
            ]
        late = Signal(load_fields(), reset_less=True)
        was_fill = delay(m, is_fill, FIELDS - 1, "was_fill")
        m.d.sync += late.eq(kept)
        m.d.comb += [self.fields.eq(late), self.fields.row0_words.eq(Mux(was_fill, 0, row0_words))]
        return m
