"""What a LOAD or FILL writes, in order: groups of map words, or words of another memory, and the bytes they need.

A group is described by where it lies in the stream and by how much further the stream must have come than for the group
before (`advance`). This knows nothing of bursts, and runs ahead of them.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import FORMATS, Memory, Opcode
from .delay import delay
from .hierarchy import place
from .load_fields import FIELDS, LoadFields, load_fields
from .pixel_walk import times
from .short_queue import ShortQueue
from .stream_shape import StreamShape
from .words import WORD_BITS

__all__ = ["ADVANCE", "GroupWalker", "group_layout"]

_BITS = {f.name: f.bits for key in ((Opcode.LOAD, None), (Opcode.FILL, None)) for f in FORMATS[key]}
ADVANCE = signed(_BITS["row_bytes"] + 2)
"""Bytes between the ends of groups: less than two rows, forwards or (where folded words overlap) backwards."""
_OFFSET = signed(_BITS["width"] + _BITS["step"] + 2)
"""Place of a word within its row."""
_AHEAD = 32
"""Groups that may be described before their bytes come: more than the pipeline below has stages, and one LUT RAM."""
_PARAMETER_BYTES = 8
"""Bytes of bias and scale for each lane."""


def group_layout(arch: Arch) -> data.StructLayout:
    """A group: where its bytes are, and where they go.

    advance: stream bytes from the end of the group before to the end of this one.
    place: place in the ring of the group's byte 0; size: bytes; low, high: those that come from the stream.
    words: map words. target: first word, or address in the memory. final: the instruction's last group.
    """
    shape = StreamShape(arch)
    size = range(shape.group + 1)
    return data.StructLayout(
        {
            "advance": ADVANCE,
            "place": unsigned((shape.ring - 1).bit_length()),
            "size": size,
            "low": size,
            "high": size,
            "fill": 1,
            "memory": 2,
            "words": range(shape.words + 1),
            "target": _BITS["d_base"],
            "group": _BITS["d_group"],
            "za": _BITS["za"],
            "final": 1,
        }
    )


class GroupWalker(Component):
    """Walks over the groups of one instruction after the other; a group a cycle, also from one to the next.

    Members
    -------
    start, word : In
        A LOAD or FILL begins. There is a place for each that can have bursts in flight.
    valid, group : Out
        The next group; `pop` takes it.

    Timing: the first group of an instruction is there 12 cycles after its start, if nothing waits before it.
    Resources: 1 DSP.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                "start": In(1),
                "word": In(WORD_BITS),
                "valid": Out(1),
                "group": Out(group_layout(arch)),
                "pop": In(1),
            }
        )

    @property
    def module_name(self) -> str:
        return "load_groups"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = StreamShape(self.arch)
        flight = self.arch.dma.outstanding * self.arch.dma.ports
        queue = place(m, "instructions", ShortQueue(flight + 2, load_fields().size))
        fields = place(m, "fields", LoadFields(self.arch))
        m.d.comb += [
            *(fields.start.eq(self.start), fields.word.eq(self.word)),
            *(queue.entry.eq(fields.fields), queue.push.eq(delay(m, self.start, FIELDS, "push", reset=True))),
        ]
        following = Signal(load_fields())
        waiting, fetch = Signal(), Signal()
        with m.If(fetch | ~waiting):
            m.d.sync += [following.eq(queue.head), waiting.eq(queue.valid)]
        m.d.comb += queue.pop.eq(queue.valid & (fetch | ~waiting))

        groups = place(m, "groups", ShortQueue(_AHEAD, group_layout(self.arch).size))
        room = Signal(range(_AHEAD + 1), init=_AHEAD)
        m.d.comb += [self.valid.eq(groups.valid), self.group.eq(groups.head), groups.pop.eq(self.pop)]

        # -- the walk ------------------------------------------------------------------------------------------------
        f = Signal(load_fields(), name="now", reset_less=True)
        active = Signal()
        columns = Signal(_BITS["run_bytes"], reset_less=True)  # words of the row from this one on
        rows = Signal(_BITS["records"], reset_less=True)  # rows, blocks, folds after this one
        blocks = Signal(_BITS["blocks"], reset_less=True)
        folds = Signal(_BITS["fold"], reset_less=True)
        column, offset = Signal(_OFFSET, reset_less=True), Signal(_OFFSET, reset_less=True)
        words = _BITS["d_base"]
        x, plane, block, row = (
            Signal(words, name=n, reset_less=True) for n in ("x", "plane", "block", "row")
        )
        ring = Signal(_BITS["d_row0"], reset_less=True)
        opens = Signal(reset_less=True)  # first group of a row
        position = Signal((shape.ring - 1).bit_length())  # of the row's first byte in the ring
        index = Signal(range(_PARAMETER_BYTES + 1), reset_less=True)  # word of a record, as far as it matters
        count = Signal(range(shape.words + 1))
        width = Mux(f.straight, shape.words, 1)
        step = Mux(f.straight, shape.map_group, f.step)
        last_column = Signal(reset_less=True)  # columns <= width, known before
        last_fold = folds == 0
        last_row, last_block = rows == 0, blocks == 0
        m.d.comb += count.eq(Mux(last_column & f.straight, columns, width))
        size = self._fill_size(m, f, index, columns == 1)

        go, ends_row, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            go.eq(active & (room != 0)),
            ends_row.eq(last_fold & last_column),
            ends.eq(ends_row & last_row & last_block),
            fetch.eq((go & ends) | ~active),
        ]
        m.d.sync += room.eq(room - go + self.pop)
        with m.If(go):
            m.d.sync += [
                offset.eq(offset + f.take),
                plane.eq(plane + f.d_plane),
                folds.eq(folds - 1),
                opens.eq(0),
            ]
            with m.If(last_fold):
                m.d.sync += [
                    column.eq(column + step),
                    offset.eq(column + step),
                    plane.eq(block),
                    folds.eq(f.fold - 1),
                ]
                m.d.sync += [x.eq(x + count), columns.eq(columns - width), opens.eq(f.fill)]
                m.d.sync += last_column.eq(columns <= Mux(f.straight, 2 * shape.words, 2))
                with m.If(index != _PARAMETER_BYTES):
                    m.d.sync += index.eq(index + 1)
            with m.If(f.fill):
                m.d.sync += position.eq(position + size)
            with m.If(ends_row):
                m.d.sync += [
                    *(column.eq(-f.fold_pad), offset.eq(-f.fold_pad), columns.eq(f.columns), index.eq(0)),
                    *(opens.eq(1), rows.eq(rows - 1), ring.eq(ring + 1), row.eq(row + f.d_pitch)),
                    last_column.eq(f.columns <= width),
                ]
                with m.If(~f.fill):
                    m.d.sync += [x.eq(0), position.eq(position + f.row_bytes)]
                with m.If(ring == f.d_rows - 1):
                    m.d.sync += [ring.eq(0), row.eq(0)]
                with m.If(last_row):
                    m.d.sync += [
                        rows.eq(f.height - 1),
                        blocks.eq(blocks - 1),
                        ring.eq(f.d_row0),
                        row.eq(f.row0_words),
                    ]
                    m.d.sync += [plane.eq(plane + f.d_plane), block.eq(plane + f.d_plane)]
        with m.If(fetch):
            n = following
            m.d.sync += [
                *(f.eq(n), active.eq(waiting), opens.eq(1), index.eq(0), x.eq(0)),
                *(
                    columns.eq(n.columns),
                    last_column.eq(n.columns <= Mux(n.straight, shape.words, 1)),
                    rows.eq(n.height - 1),
                    blocks.eq(n.blocks - 1),
                    folds.eq(n.fold - 1),
                ),
                *(column.eq(-n.fold_pad), offset.eq(-n.fold_pad), ring.eq(n.d_row0), row.eq(n.row0_words)),
                *(plane.eq(n.d_base), block.eq(n.d_base)),
            ]

        # -- description, a pipeline ---------------------------------------------------------------------------------
        now = _Stage(m, 1, {
            "offset": offset, "opens": opens, "final": ends, "words": count, "straight": f.straight, "take": f.take,
            "size": size, "row_bytes": Mux(f.fill, size, f.row_bytes), "place": position, "x": x,
            "words_before": (plane + row)[:words], "fill": f.fill, "memory": f.memory, "za": f.za, "group": f.d_group,
        })  # fmt: skip
        loaded = Mux(now["straight"], times(now["words"], self.arch.lanes), now["take"])
        now = now.then(
            "offset opens final words row_bytes fill memory za group",
            size=Mux(now["fill"], now["size"], loaded),
            place=(now["place"] + now["offset"])[: len(position)],
            target=(now["words_before"] + now["x"])[:words],
        )
        now = now.then(
            "offset opens final words row_bytes fill memory za group size place target",
            end=(now["offset"] + now["size"]).as_signed(),
            rest=(now["row_bytes"] - now["offset"]).as_signed(),
        )
        inside = (now["end"] > 0) & (now["rest"] > 0)
        beyond = now["size"] > now["rest"]  # compared as signed
        limit = range(shape.group + 1)
        now = now.then(
            "opens final words row_bytes fill memory za group size place target",
            need=Mux(now["end"] < 1, 1, Mux(beyond, now["row_bytes"], now["end"][: _BITS["row_bytes"]])),
            low=_fit(Mux(inside & (now["offset"] < 0), -now["offset"], 0), limit),
            high=_fit(Mux(inside, Mux(beyond, now["rest"], now["size"]), 0), limit),
        )
        present = delay(m, go, 4, "present", reset=True)
        need, whole = Signal(_BITS["row_bytes"]), Signal(_BITS["row_bytes"])  # of the group before
        with m.If(present):
            m.d.sync += [need.eq(now["need"]), whole.eq(now["row_bytes"])]
        made = Signal(group_layout(self.arch), reset_less=True)
        m.d.sync += [getattr(made, k).eq(now[k]) for k in made.shape().members if k != "advance"]
        m.d.sync += made.advance.eq(now["need"] - need + Mux(now["opens"], whole, 0))
        m.d.comb += [groups.entry.eq(made), groups.push.eq(delay(m, present, 1, "push_group", reset=True))]
        return m

    def _fill_size(self, m: Module, f: data.View[data.StructLayout], index: Signal, last: Value) -> Signal:
        """Bytes of this word of a FILL."""
        shape, arch = StreamShape(self.arch), self.arch
        size = Signal(range(shape.group + 1), name="fill_size")
        with m.Switch(f.memory):
            for memory, planes, plane in (
                (Memory.WEIGHTS, arch.lanes, arch.conv.oc),
                (Memory.DEPTHWISE, arch.dwc.taps, arch.lanes),
            ):
                with m.Case(memory):
                    m.d.comb += size.eq(Mux(last, f.row_bytes, planes * plane))
                    with m.Switch(index):
                        for i, first in enumerate(range(0, _PARAMETER_BYTES, planes)):
                            with m.Case(i):
                                m.d.comb += size.eq(min(planes, _PARAMETER_BYTES - first) * plane)
            with m.Case(Memory.TABLES):
                m.d.comb += size.eq(1)
            with m.Case(Memory.VECTOR):
                m.d.comb += size.eq(4)
        return size


class _Stage:
    """Registers between two steps of the description, by name."""

    def __init__(self, m: Module, number: int, values: dict[str, Value]) -> None:
        self._m, self._number = m, number
        self._registers = {
            name: Signal(Value.cast(v).shape(), name=f"{name}{number}", reset_less=True)
            for name, v in values.items()
        }
        m.d.sync += [self._registers[name].eq(v) for name, v in values.items()]

    def __getitem__(self, name: str) -> Signal:
        return self._registers[name]

    def then(self, kept: str, **new: Value) -> _Stage:
        """The next stage: registers that go on, and new ones."""
        return _Stage(self._m, self._number + 1, {name: self[name] for name in kept.split()} | new)


def _fit(value: Value, limit: range) -> Value:
    """The low bits of `value`, which is below `limit`'s end."""
    return value[: Shape.cast(limit).width]
