"""SAVE's way from map words to rows of a burst: addresses out, words in, bytes side by side."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out, PureInterface

from ..ir.arch import Arch
from ..ir.isa import FORMATS, Opcode
from ..ir.latency import ADDRESS, MAP_READ
from .delay import delay
from .gather_plan import slot
from .ports import map_read, row_bits
from .shift import shift_down, shift_up

__all__ = ["SLOT_TO_ROW", "Gather"]

_CROSSBAR = 2
"""Words of the banks to the group's words."""
_SHIFT = 2
"""Bytes of a group to their place in the chunk."""
SLOT_TO_ROW = ADDRESS + MAP_READ + _CROSSBAR + _SHIFT + 1
"""A slot that closes a chunk to its row at the write buffers; the last one is the chunk's register."""
_BITS = {f.name: f.bits for f in FORMATS[Opcode.SAVE, None]}


class Gather(Component):
    """Reads groups and puts their bytes into chunks.

    A chunk that takes several slots grows in a register. In a slot, bytes come from two groups: in the first one of a
    chunk, those that are left of the group before, moved down to byte 0; and those of the group that is read, moved
    up to `place`. What lies above the chunk's last byte does not count.

    Members
    -------
    slot : In
        From `GatherPlan`.
    pitch, group : In
        Of the instruction; they stand from its first slot to its last.
    source : Out
        Map requests, `ADDRESS` cycles after their slot.
    store, row : Out
        A chunk for the port whose bit is set, `SLOT_TO_ROW` cycles after its last slot.

    Resources: 1 DSP.
    """

    slot: PureInterface
    pitch: Signal
    group: Signal
    source: PureInterface
    store: Signal
    row: Signal

    def __init__(self, arch: Arch) -> None:
        assert ADDRESS == 4
        self.arch = arch
        super().__init__(
            {
                "slot": In(slot(arch)),
                "pitch": In(_BITS["a_pitch"]),
                "group": In(_BITS["a_group"]),
                "source": Out(map_read(arch)),
                "store": Out(arch.dma.ports),
                "row": Out(8 * arch.stream_bytes),
            }
        )

    @property
    def module_name(self) -> str:
        return "save_gather"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        first_bank = self._request(m)
        self._assemble(m, self._words(m, first_bank))
        return m

    def _request(self, m: Module) -> Value:
        """Address pipeline; returns the bank of the first word, in the cycle in which the words are at the port."""
        arch, s = self.arch, self.slot
        bank_bits, width = (arch.banks - 1).bit_length(), row_bits(arch)
        ring, pitch = Signal.like(s.ring, reset_less=True), Signal.like(self.pitch, reset_less=True)
        product = Signal(len(ring) + len(pitch), reset_less=True)
        word = Signal(_BITS["a_base"], reset_less=True)
        cursor = delay(m, s.cursor, 2, "cursor")
        m.d.sync += [
            *(ring.eq(s.ring), pitch.eq(self.pitch)),
            product.eq(ring * pitch),
            word.eq(product + cursor),
        ]
        asked = delay(m, s.issue & s.read, ADDRESS - 1, "asked", reset=True)
        words = delay(m, s.words, ADDRESS - 1, "words")
        group = delay(m, self.group, ADDRESS - 1, "group")
        first, row = word[:bank_bits], word[bank_bits:][:width]
        below = Signal(width)
        m.d.comb += below.eq(row + 1)
        m.d.sync += self.source.group.eq(group)
        for b in range(arch.banks):
            at, to = Signal(bank_bits, name=f"distance{b}"), Signal(width, name=f"row{b}", reset_less=True)
            m.d.comb += [at.eq(b - first), getattr(self.source, f"row{b}").eq(to)]
            m.d.sync += [
                self.source.enable[b].eq(asked & (at < words)),
                to.eq(Mux(b < first, below, row) if arch.group_move > 1 else row),
            ]
        return delay(m, first, 1 + MAP_READ, "first_bank")

    def _words(self, m: Module, first: Value) -> list[Value]:
        """The crossbar; returns the bytes of the group."""
        arch = self.arch
        banks = [getattr(self.source, f"data{b}") for b in range(arch.banks)]
        high, low = _halves(m, first, (arch.banks - 1).bit_length(), "bank")
        words = shift_down(m, banks, (high, low), arch.group_move, "words", wrap=True)
        return [word.word_select(lane, 8) for word in words for lane in range(arch.lanes)]

    def _assemble(self, m: Module, fresh: list[Value]) -> None:
        arch, s, whole = self.arch, self.slot, self.arch.stream_bytes
        to_words = ADDRESS + MAP_READ + _CROSSBAR
        read = delay(m, s.issue & s.read, to_words, "read", reset=True)
        held = Signal(8 * len(fresh), reset_less=True)
        with m.If(read):
            m.d.sync += held.eq(Cat(fresh))
        # -- what is left of the group before --------------------------------------------------------------------------
        used = Signal((len(fresh) - 1).bit_length(), reset_less=True)
        m.d.sync += used.eq(s.before - s.place)
        high, low = _halves(m, delay(m, used, to_words - 1, "used"), len(used), "used")
        old = [held.word_select(i, 8) for i in range(len(fresh))]
        rest = shift_down(m, old, (high, low), min(whole, len(fresh)), "rest")
        # -- the group that is read ------------------------------------------------------------------------------------
        bits = max(1, (whole - 1).bit_length())
        place = delay(m, s.place[:bits], to_words, "place")
        low, high = place[: bits // 2], delay(m, place[bits // 2 :], 1, "place_high")
        moved = shift_up(m, fresh, (low, high), whole, "moved")
        # -- the chunk -------------------------------------------------------------------------------------------------
        here = Signal(whole, reset_less=True)
        place, read = (
            delay(m, place, _SHIFT - 1, "place_late"),
            delay(m, read, _SHIFT - 1, "read_late", reset=True),
        )
        m.d.sync += here.eq(Cat(read & (place <= i) for i in range(whole)))
        opens = delay(m, s.issue & s.opens, to_words + _SHIFT, "opens", reset=True)
        row = [Signal(8, name=f"chunk{i}", reset_less=True) for i in range(whole)]
        for i, byte in enumerate(row):
            with m.If(here[i]):
                m.d.sync += byte.eq(moved[i])
            if i < len(rest):
                with m.Elif(opens):
                    m.d.sync += byte.eq(rest[i])
        m.d.comb += self.row.eq(Cat(row))
        ports = Cat(s.issue & s.closes & (s.port == p) for p in range(arch.dma.ports))
        m.d.comb += self.store.eq(delay(m, ports, SLOT_TO_ROW, "store", reset=True))


def _halves(m: Module, amount: Value, bits: int, name: str) -> tuple[Value, Value]:
    """The upper bits of an amount, and a cycle later the lower ones."""
    low = bits // 2
    return amount[low:bits], delay(m, amount[:low], 1, f"{name}_low")
