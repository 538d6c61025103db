"""From an input row and column to a request at the map memory, and to what the window must know about the answer."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.latency import ADDRESS, dwc_window
from .choose import choose
from .dwc_walks import COLUMN, ROW, SLOT_BITS
from .ports import row_bits
from .rotation import ROTATION
from .stages import Stages

__all__ = ["DwcRead"]


class DwcRead(Component):
    """Asks for the words of one half of an input row, one word a bank.

    The request comes `ADDRESS` cycles after `valid`: ring row; times pitch; first word; rows and enables of the banks. Words
    that are padding, or beyond the run that the strip needs, are not read.

    Members
    -------
    valid, half, slot, row, ring, wrapped, block, column, run : in
        As `DwcSequence` issues them.
    pitch, in_h, in_w, group, za : in
        Of the instruction.
    to_group, enable, rows : out
        The request, as in `map_read`; rows of all banks.
    rotation : out
        Bank of the first word: with the first level of the rotation.
    write, write_slot, inside, padding : out
        With the rotated words: half to write (a bit each), slot, columns that are inside the source, and the value of
        those that are not.
    """

    valid: Signal
    half: Signal
    slot: Signal
    row: Signal
    ring: Signal
    wrapped: Signal
    block: Signal
    column: Signal
    run: Signal
    pitch: Signal
    in_h: Signal
    in_w: Signal
    group: Signal
    za: Signal
    to_group: Signal
    enable: Signal
    rows: Signal
    rotation: Signal
    write: Signal
    write_slot: Signal
    inside: Signal
    padding: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        banks = arch.banks
        super().__init__(
            {
                **{"valid": In(1), "half": In(1), "slot": In(SLOT_BITS)},
                **{"row": In(ROW), "ring": In(ROW), "wrapped": In(ROW)},
                **{"block": In(18), "column": In(COLUMN), "run": In(range(2 * banks + 1))},
                **{"pitch": In(14), "in_h": In(14), "in_w": In(14), "group": In(3), "za": In(8)},
                **{"to_group": Out(3), "enable": Out(banks), "rows": Out(banks * row_bits(arch))},
                **{"rotation": Out(range(banks)), "write": Out(2), "write_slot": Out(SLOT_BITS)},
                **{"inside": Out(banks), "padding": Out(8)},
            }
        )

    @property
    def module_name(self) -> str:
        return "dwc_read"

    def elaborate(self, platform: object) -> Module:
        assert ADDRESS == 4
        m = Module()
        arch, banks = self.arch, self.arch.banks
        bank_bits, width = (banks - 1).bit_length(), row_bits(arch)
        half = [self.half, *(Signal(name=f"half_{i}", reset_less=True) for i in (1, 2))]
        m.d.sync += [half[1].eq(half[0]), half[2].eq(half[1])]

        # 1: row of the ring (multiplier's operand); whether the row exists; columns that are left of the map, and that it has
        ring = Signal(14, reset_less=True)
        row_inside = Signal(reset_less=True)
        before, have = Signal(COLUMN, reset_less=True), Signal(COLUMN, reset_less=True)
        word_1 = Signal(18, reset_less=True)
        m.d.sync += [
            ring.eq(Mux(self.wrapped < 0, self.ring, self.wrapped)),
            row_inside.eq((self.row >= 0) & (self.row < self.in_h) & self.valid),
            *(before.eq(-self.column), have.eq(self.in_w - self.column)),
            word_1.eq(self.block + self.column),
        ]
        # 2: product; first column inside, and the first beyond
        product = Signal(18, reset_less=True)
        word_2 = Signal(18, reset_less=True)
        first, end = (Signal(range(2 * banks + 1), name=n, reset_less=True) for n in ("first", "end"))
        inside_2 = Signal(reset_less=True)
        m.d.sync += [
            product.eq(ring * self.pitch),
            word_2.eq(word_1 + Mux(half[1], banks, 0)),
            first.eq(Mux(before < 0, 0, Mux(before > 2 * banks, 2 * banks, before))),
            end.eq(Mux(have < 0, 0, Mux(have > self.run, self.run, have))),
            inside_2.eq(row_inside),
        ]
        # 3: first word; columns inside
        word, inside = Signal(18, reset_less=True), Signal(banks, reset_less=True)
        m.d.sync += word.eq(product + word_2)
        for k in range(banks):
            mine = [(c >= first) & (c < end) for c in (k, k + banks)]
            m.d.sync += inside[k].eq(inside_2 & Mux(half[2], mine[1], mine[0]))
        # 4: bank b holds column (b - first bank) % banks, in the first word's row or the next
        offset, row = word[:bank_bits], word[bank_bits : bank_bits + width]
        after = Signal(width)
        m.d.comb += after.eq(row + 1)
        columns = {k: inside[k] for k in range(banks)}
        enable = [choose([(b - n) % banks for n in range(banks)], columns, offset) for b in range(banks)]
        rows = [Signal(width, name=f"row{b}", reset_less=True) for b in range(banks)]
        m.d.sync += [
            self.enable.eq(Cat(enable)),
            *(r.eq(Mux(b < offset, after, row) if b < banks - 1 else row) for b, r in enumerate(rows)),
        ]
        m.d.comb += self.rows.eq(Cat(rows))

        arrival = dwc_window(arch) - 1  # issue to rotated words
        stages = Stages(m)
        stages.put("group", self.group, 0)
        stages.put("rotation", offset, 3)
        stages.put("write", Cat(self.valid & ~self.half, self.valid & self.half), 0, reset=True)
        stages.put("slot", self.slot, 0)
        stages.put("inside", inside, 3)
        stages.put("za", self.za, 0)
        m.d.comb += [
            self.to_group.eq(stages.at("group", ADDRESS)),
            self.rotation.eq(stages.at("rotation", arrival - ROTATION)),
            self.write.eq(stages.at("write", arrival)),
            self.write_slot.eq(stages.at("slot", arrival)),
            self.inside.eq(stages.at("inside", arrival)),
            self.padding.eq(stages.at("za", arrival)),
        ]
        return m
