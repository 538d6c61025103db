"""What SAVE reads and sends, cycle by cycle: the walk over the map, the walk over the bursts, and the slots of both."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, PureInterface, Signature

from ..ir.arch import Arch
from ..ir.isa import FORMATS, Opcode
from ..ir.latency import BURST_INTERVAL
from .axi import ADDRESS_BITS
from .bursts import burst
from .pixel_walk import times
from .words import WORD_BITS, layout
from .write_buffer import MOST_BITS

__all__ = ["Chunks", "GatherPlan", "Groups", "slot"]

_BITS = {f.name: f.bits for f in FORMATS[Opcode.SAVE, None]}


def _members(shapes: dict[str, Shape | int]) -> Signature:
    return Signature({name: Out(shape) for name, shape in shapes.items()})


def _group_bits(arch: Arch) -> int:
    """Bits of a group's bytes."""
    return (arch.group_move * arch.lanes).bit_length()


def _group(arch: Arch) -> Signature:
    """A group of words to read: its first word without the row's part, ring row, words and the stream bytes in them."""
    return Signature(
        {
            "valid": Out(1),
            "ready": In(1),
            "cursor": Out(_BITS["a_base"]),
            "ring": Out(_BITS["a_row0"]),
            "words": Out(range(arch.group_move + 1)),
            "size": Out(_group_bits(arch)),
        }
    )


def _chunk(arch: Arch) -> Signature:
    """A chunk of a burst: bytes, whether it begins and ends the burst, whether the burst is the instruction's last."""
    return Signature(
        {
            "valid": Out(1),
            "ready": In(1),
            "size": Out(range(arch.stream_bytes + 1)),
            "begins": Out(1),
            "ends": Out(1),
            "last": Out(1),
            "address": Out(ADDRESS_BITS),
            "most": Out(MOST_BITS),
        }
    )


def slot(arch: Arch) -> Signature:
    """One cycle of gathering, valid while ``issue``.

    ``read``: a group is read, and goes to byte ``place`` of the chunk. ``opens``: the chunk's first cycle; the bytes
    that are left of the group before are its first ``place``, and the group had ``before`` bytes. ``closes``: the
    chunk is whole. ``begins``, ``ends``: first and last cycle of a burst; ``last`` the instruction's last cycle.
    """
    return Signature(
        {
            "issue": Out(1),
            "read": Out(1),
            "cursor": Out(_BITS["a_base"]),
            "ring": Out(_BITS["a_row0"]),
            "words": Out(range(arch.group_move + 1)),
            "place": Out(range(max(arch.stream_bytes, arch.group_move * arch.lanes) + 1)),
            "before": Out(_group_bits(arch)),
            "opens": Out(1),
            "closes": Out(1),
            "begins": Out(1),
            "ends": Out(1),
            "last": Out(1),
            "port": Out(range(max(2, arch.dma.ports))),
            "address": Out(ADDRESS_BITS),
            "most": Out(MOST_BITS),
        }
    )


def _kept(m: Module, port: PureInterface, names: tuple[str, ...]) -> dict[str, Signal]:
    """Registers without reset behind these outputs of a port."""
    found = {n: Signal.like(getattr(port, n), name=n, reset_less=True) for n in names}
    m.d.comb += [getattr(port, n).eq(found[n]) for n in names]
    return found


class Groups(Component):
    """Walks the words of a SAVE's map: block by block, row by row, `arch.group_move` columns at a time, or one by one
    where a word holds less than all its lanes.

    Timing: first group two cycles after `start`, then one a cycle.
    """

    start: Signal
    word: Signal
    group: PureInterface

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__({"start": In(1), "word": In(WORD_BITS), "group": Out(_group(arch))})

    @property
    def module_name(self) -> str:
        return "save_groups"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, out = self.arch, self.group
        f = data.View(layout(Opcode.SAVE), self.word)
        shown = _kept(m, out, ("cursor", "ring", "words", "size"))
        kept = {
            n: Signal(_BITS[n], name=n, reset_less=True)
            for n in ("a_plane", "a_rows", "a_row0", "width", "height", "take")
        }
        straight = Signal(reset_less=True)
        active = Signal()
        cursor, block, next_block = (
            Signal(_BITS["a_base"], name=n, reset_less=True) for n in ("next_cursor", "block", "next_block")
        )
        ring = Signal(_BITS["a_row0"], name="next_ring", reset_less=True)
        columns, rows, blocks = (
            Signal(_BITS[n], name=f"{n}_left", reset_less=True) for n in ("width", "height", "blocks")
        )
        step = Mux(straight, arch.group_move, 1)
        row_ends = columns <= step
        words = Mux(row_ends, columns, step)
        block_ends = row_ends & (rows == 1)
        with m.If(active & (~out.valid | out.ready)):
            m.d.sync += [
                *(
                    out.valid.eq(1),
                    shown["cursor"].eq(cursor),
                    shown["ring"].eq(ring),
                    shown["words"].eq(words),
                ),
                shown["size"].eq(Mux(straight, times(words[: len(out.words)], arch.lanes), kept["take"])),
                *(columns.eq(columns - step), cursor.eq(cursor + step)),
            ]
            with m.If(row_ends):
                m.d.sync += [
                    *(columns.eq(kept["width"]), cursor.eq(block), rows.eq(rows - 1)),
                    ring.eq(Mux(ring + 1 == kept["a_rows"], 0, ring + 1)),
                ]
            with m.If(block_ends):
                m.d.sync += [
                    *(rows.eq(kept["height"]), ring.eq(kept["a_row0"]), blocks.eq(blocks - 1)),
                    *(cursor.eq(next_block), block.eq(next_block)),
                    next_block.eq(next_block + kept["a_plane"]),
                    active.eq(blocks != 1),
                ]
        with m.Elif(out.ready):
            m.d.sync += out.valid.eq(0)
        with m.If(self.start):
            m.d.sync += [kept[n].eq(f[n]) for n in kept]
            m.d.sync += [
                *(straight.eq(f["take"] == arch.lanes), active.eq(1)),
                *(cursor.eq(f["a_base"]), block.eq(f["a_base"]), next_block.eq(f["a_base"] + f["a_plane"])),
                *(ring.eq(f["a_row0"]), columns.eq(f["width"]), rows.eq(f["height"]), blocks.eq(f["blocks"])),
            ]
        return m


class Chunks(Component):
    """Cuts bursts into chunks of `arch.stream_bytes`, the last one of a burst into what is left.

    Timing: a chunk one cycle after its burst, then one a cycle.
    """

    burst: PureInterface
    chunk: PureInterface

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__({"burst": In(burst(arch)), "chunk": Out(_chunk(arch))})

    @property
    def module_name(self) -> str:
        return "save_chunks"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        whole = self.arch.stream_bytes
        into, out = self.burst, self.chunk
        shown = _kept(m, out, ("size", "begins", "ends", "last", "address", "most"))
        rest, more = Signal.like(into.bytes, reset_less=True), Signal()
        free, left, ends = Signal(), Signal.like(into.bytes), Signal()
        m.d.comb += [
            free.eq(~out.valid | out.ready),
            into.ready.eq(free & ~more),
            left.eq(Mux(more, rest, into.bytes)),
            ends.eq(left <= whole),
        ]
        with m.If(free):
            m.d.sync += [
                *(out.valid.eq(more | into.valid), shown["begins"].eq(~more), shown["ends"].eq(ends)),
                *(shown["size"].eq(Mux(ends, left, whole)), rest.eq(left - whole)),
                more.eq((more | into.valid) & ~ends),
            ]
            with m.If(~more):
                m.d.sync += [
                    *(shown["last"].eq(into.last), shown["address"].eq(into.address)),
                    shown["most"].eq(into.bytes - 1),
                ]
        return m


class GatherPlan(Component):
    """Joins groups and chunks into slots, one a cycle.

    A slot takes a group where the chunk has not all its bytes, and closes the chunk where it then has. The loop keeps
    one number, ``surplus`` = bytes there less bytes of the chunk: its sign says the first, with the group added the
    second. A burst takes `BURST_INTERVAL` cycles at least, as its walker does: before one that would be whole at once
    there is an empty slot. Slots are planned a cycle ahead and stand in the register that `slot` shows, where a burst's
    first one waits for `room`.

    Members
    -------
    start : In
        An instruction begins; none is left of the one before.
    room : In
        A bit a port: it has less than `dma.outstanding` bursts in flight.
    hold : In
        No burst may begin.
    """

    start: Signal
    room: Signal
    hold: Signal
    group: PureInterface
    chunk: PureInterface
    slot: PureInterface

    def __init__(self, arch: Arch) -> None:
        assert BURST_INTERVAL == 2
        self.arch = arch
        super().__init__(
            {
                "start": In(1),
                "room": In(arch.dma.ports),
                "hold": In(1),
                "group": In(_group(arch)),
                "chunk": In(_chunk(arch)),
                "slot": Out(slot(arch)),
            }
        )

    @property
    def module_name(self) -> str:
        return "save_plan"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, group, chunk, out = self.arch, self.group, self.chunk, self.slot
        most = max(arch.stream_bytes, arch.group_move * arch.lanes)
        surplus = Signal(signed(most.bit_length() + 1))
        loaded, opens, padded, valid = Signal(), Signal(), Signal(), Signal()
        now = {
            n: Signal(v.shape(), name=f"chunk_{n}", reset_less=True)
            for n in ("size", "begins", "ends", "last", "address", "most")
            for v in (Value.cast(getattr(chunk, n)),)
        }
        before = Signal(_group_bits(arch), name="group_before", reset_less=True)
        port = Signal.like(out.port, name="next_port")
        shown = _kept(m, out, tuple(n for n in out.signature.members if n != "issue"))
        read, whole, pad, plan, advance = (
            Signal(name=n) for n in ("read", "whole", "pad", "plan", "advance")
        )
        filled = Signal.like(surplus)
        m.d.comb += [
            read.eq(surplus[-1]),
            filled.eq(surplus + Mux(read, group.size, 0)),
            whole.eq(~filled[-1]),
            pad.eq(now["begins"] & now["ends"] & opens & whole & ~padded),
            plan.eq(loaded & (~read | group.valid) & (~valid | out.issue)),
            group.ready.eq(plan & read & ~pad),
            advance.eq(~loaded | (plan & whole & ~pad)),
            chunk.ready.eq(advance),
            out.issue.eq(valid & (~out.begins | (self.room.bit_select(out.port, 1) & ~self.hold))),
        ]
        # -- the chunk that is being filled ----------------------------------------------------------------------------
        with m.If(plan & ~pad):
            m.d.sync += surplus.eq(filled)
            with m.If(read):
                m.d.sync += before.eq(group.size)
        with m.If(plan):
            m.d.sync += [padded.eq(pad), opens.eq(pad)]
        with m.If(advance):
            m.d.sync += [
                *(now[n].eq(getattr(chunk, n)) for n in now),
                *(loaded.eq(chunk.valid), opens.eq(1)),
                surplus.eq(filled - Mux(chunk.valid, chunk.size, 0)),
            ]
        with m.If(self.start):
            m.d.sync += surplus.eq(0)
        # -- the slot that is planned ----------------------------------------------------------------------------------
        with m.If(out.issue):
            m.d.sync += valid.eq(0)
        ends = now["ends"] & whole & ~pad
        planned = {
            **{"read": read & ~pad, "opens": opens, "closes": whole & ~pad, "before": before},
            **{n: getattr(group, n) for n in ("cursor", "ring", "words")},
            **{"place": surplus + now["size"], "port": port, "address": now["address"], "most": now["most"]},
            **{"begins": now["begins"] & opens & ~padded, "ends": ends, "last": now["last"] & ends},
        }
        with m.If(plan):
            m.d.sync += [valid.eq(1), *(shown[n].eq(value) for n, value in planned.items())]
            with m.If(ends):
                m.d.sync += port.eq(Mux(port == arch.dma.ports - 1, 0, port + 1))
        return m
