"""Destination of the array: addresses of drained pixels, lanes of their words, requests to the banks."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.data import StructLayout, View
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import Opcode
from ..ir.latency import REQUANTISE
from .conv_sequence import IN_FLIGHT
from .delay import delay
from .drain import drain_channels
from .drain_sequence import drain_groups
from .hierarchy import place
from .lane_rotate import LaneRotate
from .lut_memory import LutMemory
from .pixel_walk import PixelWalk, position, times, width_in_walk
from .ports import map_write, row_bits
from .window_address import bank_bits
from .words import WORD_BITS, layout

__all__ = ["Destination", "WRITTEN"]

_WALK = 18
"""Bits of an output row or column times its step: (2^14 + 64) * 15 is the largest."""
_BYTES = 1 + REQUANTISE + 2
"""Drain step to its bytes: selection, requantisers, tables."""
WRITTEN = _BYTES + 3
"""Drain step to its request: bytes, two levels of lanes, banks."""
_LATE = WRITTEN - 5
"""Addresses are computed as late as can be: position, ring row, product, word, bank, request."""


class Destination(Component):
    """Words of the drained pixels, to the banks that they belong to.

    The walk over the tile's pixels is that of the source (`PixelWalk`), in groups of `drain` pixels; the last group of a block
    may be smaller. What it needs of the instruction is computed when that is issued, and kept by number until then.

    Members
    -------
    start, word, context : in
        The instruction, as in `engine_port`, and its number in the next cycle.
    drain, context_now, line, record_end : in
        A pixel block's drain begins in the next cycle; instruction; whether the block is the last of its row, of its tile.
    step, turn, block_end, group, way, first, lane, end, plane : in
        Of `DrainSequence`.
    byte<d>_<q> : in
        Of `Drain`.
    target : `map_write`, out
        `WRITTEN` cycles after the step.
    """

    start: Signal
    word: Signal
    context: Signal
    drain: Signal
    context_now: Signal
    line: Signal
    record_end: Signal
    step: Signal
    turn: Signal
    block_end: Signal
    group: Signal
    way: Signal
    first: Signal
    lane: Signal
    end: Signal
    plane: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        flags = "drain line record_end step turn block_end"
        super().__init__(
            {
                **{"start": In(1), "word": In(WORD_BITS), "context": In(range(IN_FLIGHT))},
                **{name: In(1) for name in flags.split()},
                **{"context_now": In(range(IN_FLIGHT)), "group": In(range(max(2, drain_groups(arch))))},
                **{"way": In(5), "first": In(8), "lane": In(6), "end": In(8), "plane": In(18)},
                **{
                    f"byte{d}_{q}": In(signed(8))
                    for d in range(arch.conv.drain)
                    for q in range(drain_channels(arch))
                },
                "target": Out(map_write(arch)),
            }
        )
        fields, n = layout(Opcode.CONV), arch.conv.drain
        widths: dict[str, object] = {
            name: fields[name].shape
            for name in ("d_group", "d_pitch", "d_rows", "d_row0", "drain_ways", "packed")
        }
        for p in range(n):
            widths |= {f"first_x{p}": (15 * p).bit_length(), f"first_y{p}": (15 * p).bit_length()}
        for kind in self._kinds():
            widths |= {f"forward{kind}": 10, f"back{kind}": signed(_WALK + 1), f"down{kind}": 10}
        self._context = StructLayout(widths | {"step_y": 4, "limit_x": _WALK, "limit_y": _WALK})

    def _kinds(self) -> dict[int, int]:
        """Pixels from a group to the next: within a block, and (if it differs) after its last."""
        drain, pixels = self.arch.conv.drain, self.arch.conv.pixels
        last = pixels - (drain_groups(self.arch) - 1) * drain
        return {0: drain} | ({1: last} if last != drain else {})

    @property
    def module_name(self) -> str:
        return "destination"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, drain, bits = self.arch, self.arch.conv.drain, bank_bits(self.arch)
        contexts = place(m, "contexts", LutMemory(IN_FLIGHT, self._context.size))
        self._prepare(m, contexts)

        # The walk has its instruction in the cycle before the first step. That may be the last step of the instruction before,
        # whose walk ends there; what its address needs is one cycle later.
        begin = delay(m, self.drain, _LATE - 1, "begin", reset=True)
        coming, now = (Signal(self._context, name=n, reset_less=True) for n in ("coming", "now"))
        m.d.comb += contexts.at.eq(delay(m, self.context_now, _LATE - 1, "context"))
        with m.If(begin):
            m.d.sync += coming.eq(contexts.word)
        m.d.sync += now.eq(coming)
        step, turn, block_end = (
            delay(m, getattr(self, n), _LATE, n, reset=True) for n in ("step", "turn", "block_end")
        )
        x, y = self._walk(m, coming, delay(m, begin, 1, "restart", reset=True), turn, block_end)

        # Which of the group's pixels there are, and which have their turn.
        group, way = delay(m, self.group, _LATE, "group"), delay(m, self.way, _LATE, "way")
        plane = delay(m, self.plane, _LATE, "plane")
        wrapped = Signal(signed(15), reset_less=True)
        m.d.sync += wrapped.eq(coming.d_row0 - coming.d_rows)
        address: list[Value] = []
        hit: list[Value] = []
        for d in range(drain):
            here = Signal(name=f"here{d}")
            turns = Signal(range(drain), name=f"way_of_pixel{d}")
            with m.Switch(now.drain_ways):
                for ways in range(1, min(drain, 32)):
                    with m.Case(ways):
                        m.d.comb += turns.eq(d // -(-drain // ways))
                with m.Default():
                    m.d.comb += turns.eq(d)
            full = (arch.conv.pixels - d - 1) // drain  # groups that have this pixel, less one
            real = (x[d] < now.limit_x) & (y[d] < now.limit_y) & (group <= full)
            m.d.comb += here.eq(step & (turns == way) & real)
            straight, around = (Signal(signed(_WALK + 2), name=f"{n}{d}") for n in ("straight", "around"))
            m.d.comb += [straight.eq(y[d] + now.d_row0), around.eq(y[d] + wrapped)]
            ring1 = Signal(14, name=f"ring1_{d}", reset_less=True)
            column1 = Signal(18, name=f"column1_{d}", reset_less=True)
            product2 = Signal(18, name=f"product2_{d}", reset_less=True)
            word3 = Signal(18, name=f"word3_{d}", reset_less=True)
            m.d.sync += [
                *(ring1.eq(Mux(around >= 0, around, straight)), column1.eq(x[d] + plane)),
                product2.eq(ring1 * delay(m, now.d_pitch, 1, f"pitch{d}")),
                word3.eq(product2 + delay(m, column1, 1, f"column1_{d}")),
            ]
            address.append(word3)
            hit.append(delay(m, here, 3, f"here{d}", reset=True))

        # Lanes.
        words, lanes = [], arch.lanes
        amount = delay(m, self.lane, _BYTES, "lane")
        for d in range(drain):
            rotate = place(m, f"lanes{d}", LaneRotate(lanes, drain_channels(arch)))
            given = [getattr(self, f"byte{d}_{q}") for q in range(drain_channels(arch))]
            m.d.comb += [rotate.bytes.eq(Cat(given)), rotate.amount.eq(amount)]
            words.append(rotate.word)
        first, lane, end = (
            delay(m, getattr(self, n), WRITTEN - 3, f"{n}_of_mask") for n in ("first", "lane", "end")
        )
        chosen, mask = Signal(lanes, reset_less=True), Signal(lanes, reset_less=True)
        m.d.sync += chosen.eq(Cat((first + i >= lane) & (first + i < end) for i in range(lanes)))
        m.d.sync += mask.eq(delay(m, chosen, 1, "chosen"))

        # Banks.
        target = self.target
        m.d.comb += target.group.eq(delay(m, now.d_group, WRITTEN - _LATE, "group"))
        for b in range(arch.banks):
            asked = Signal(drain, name=f"asked{b}")  # a pixel at most
            row = Signal(row_bits(arch), name=f"row{b}", reset_less=True)
            m.d.sync += [
                asked.eq(Cat(h & (a[:bits] == b) for a, h in zip(address, hit, strict=True))),
                row.eq(_merge((h & (a[:bits] == b), a[bits:]) for a, h in zip(address, hit, strict=True))),
                getattr(target, f"row{b}").eq(row),
                getattr(target, f"data{b}").eq(_merge(zip(asked, words, strict=True))),
                target.enable[b].eq(asked.any()),
            ]
            m.d.comb += getattr(target, f"mask{b}").eq(mask)
        return m

    def _prepare(self, m: Module, contexts: LutMemory) -> None:
        """What the walk needs of the instruction, computed in three cycles after its start."""
        drain = self.arch.conv.drain
        w = View(layout(Opcode.CONV), self.word)
        names = (
            "d_group",
            "d_pitch",
            "d_rows",
            "d_row0",
            "drain_ways",
            "packed",
            "out_h",
            "out_w",
            "step_y",
            "step_x",
        )
        f = {n: Signal(layout(Opcode.CONV)[n].shape, name=n, reset_less=True) for n in names}
        with m.If(self.start):
            m.d.sync += [f[n].eq(w[n]) for n in names]
        width = width_in_walk(f["out_w"], f["packed"], drain + 1, "width", m)
        limit_x, limit_y = (Signal(_WALK, name=f"limit_{axis}", reset_less=True) for axis in "xy")
        m.d.sync += [limit_x.eq(times(f["out_w"], f["step_x"])), limit_y.eq(times(f["out_h"], f["step_y"]))]
        ready = Signal(self._context, reset_less=True)
        pixels = set(range(drain)) | set(self._kinds().values())
        at: dict[int, tuple[Value, Value]] = {}
        for p in sorted(pixels):
            x, y = position(m, width, p, f"pixel{p}")
            column, row = delay(m, x, 1, f"column{p}"), delay(m, y, 1, f"row{p}")
            at[p] = (times(column, f["step_x"]), times(row, f["step_y"]))
        m.d.sync += [ready[n].eq(f[n]) for n in names if n in self._context.members]
        m.d.sync += [
            ready[f"first_{axis}{p}"].eq(at[p][k]) for p in range(drain) for k, axis in enumerate("xy")
        ]
        for kind, p in self._kinds().items():
            m.d.sync += [
                ready[f"forward{kind}"].eq(at[p][0]),
                ready[f"back{kind}"].eq(at[p][0] - limit_x),
                ready[f"down{kind}"].eq(at[p][1]),
            ]
        m.d.sync += [ready.limit_x.eq(limit_x), ready.limit_y.eq(limit_y)]
        m.d.comb += [
            *(contexts.write.eq(delay(m, self.start, 3, "ready", reset=True)), contexts.data.eq(ready)),
            contexts.to.eq(self.context),
        ]

    def _walk(
        self, m: Module, coming: View, restart: Value, turn: Value, block_end: Value
    ) -> tuple[list[Signal], list[Signal]]:
        """Columns and rows of the group's pixels, times the steps."""
        walk = place(m, "walk", PixelWalk(self.arch.conv.drain, _WALK))
        # Of the block that is drained; one that ends its tile is followed by a first one.
        line, over = Signal(name="ends_line", reset_less=True), Signal(name="ends_tile", init=1)
        of_block = delay(m, self.line, _LATE, "line"), delay(m, self.record_end, _LATE, "record_end")
        with m.If(restart):
            m.d.sync += [line.eq(of_block[0]), over.eq(of_block[1])]
        kind = block_end & (len(self._kinds()) > 1)
        down = Mux(kind, coming[f"down{max(self._kinds())}"], coming.down0)
        m.d.comb += [
            *(
                getattr(walk, f"first_{axis}{p}").eq(coming[f"first_{axis}{p}"])
                for p in range(walk.pixels)
                for axis in "xy"
            ),
            walk.forward.eq(Mux(kind, coming[f"forward{max(self._kinds())}"], coming.forward0)),
            walk.back.eq(Mux(kind, coming[f"back{max(self._kinds())}"], coming.back0)),
            *(walk.down.eq(down), walk.down_more.eq(down + coming.step_y)),
            *(walk.packed.eq(coming.packed), walk.restart.eq(restart & over)),
            *(walk.advance.eq(turn), walk.line.eq(block_end & line)),
        ]
        return [getattr(walk, f"x{p}") for p in range(walk.pixels)], [
            getattr(walk, f"y{p}") for p in range(walk.pixels)
        ]


def _merge(pairs: Iterable[tuple[Value, Value]]) -> Value:
    """The value whose condition holds: at most one does."""
    out: Value = Const(0)
    for condition, value in pairs:
        out = out | Mux(condition, value, 0)
    return out
