"""From accumulators to int8: drain registers, requantisers, tables."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.latency import REQUANTISE
from .choose import choose
from .delay import delay
from .drain_sequence import drain_groups
from .hierarchy import place
from .lookup import Lookup
from .ports import fill_port
from .requantise import SHARED as REQUANTISE_SHARED
from .requantise import Requantise
from .row import Row

__all__ = ["Drain", "drain_channels"]


def drain_channels(arch: Arch) -> int:
    """Channels of a pixel that are requantised a cycle: those of one destination word."""
    return min(arch.conv.oc, arch.lanes)


class Drain(Component):
    """Sums of a pixel block, kept while the next one accumulates, to bytes: one destination word of `drain` pixels a cycle.

    Channel o of the block is requantised in place ``o % L``: of the channels with the same place, the one that goes into the
    step's word. It is word `index`'s, or the one before's where the block's first lane has moved its place beyond the word.

    Members
    -------
    take, scale, total<p> : in
        Scale words and accumulators of a pixel block that has just ended.
    group, index, lane, zd, lo, hi, mode, table : in
        Of `DrainSequence`, a step.
    table_fill : `fill_port`, in
    byte<d>_<q> : out
        Pixel d of the group, place q.

    Timing: bytes ``1 + REQUANTISE + 2`` cycles after the step.
    """

    take: Signal
    scale: Signal
    group: Signal
    index: Signal
    lane: Signal
    zd: Signal
    lo: Signal
    hi: Signal
    mode: Signal
    table: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        oc, pixels, tables = arch.conv.oc, range(arch.conv.pixels), arch.weights.tables
        super().__init__(
            {
                **{"take": In(1), "scale": In(32 * oc), **{f"total{p}": In(32 * oc) for p in pixels}},
                **{"group": In(range(max(2, drain_groups(arch)))), "index": In(5), "lane": In(6)},
                **{name: In(signed(8)) for name in ("zd", "lo", "hi")},
                **{"mode": In(2), "table": In(5)},
                "table_fill": In(fill_port((tables * 256 - 1).bit_length(), 8)),
                **{
                    f"byte{d}_{q}": Out(signed(8))
                    for d in range(arch.conv.drain)
                    for q in range(drain_channels(arch))
                },
            }
        )

    @property
    def module_name(self) -> str:
        return "drain"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch = self.arch
        lanes, oc, pixels, drain = arch.lanes, arch.conv.oc, arch.conv.pixels, arch.conv.drain
        places, groups = drain_channels(arch), drain_groups(arch)
        totals = [Signal(32 * oc, name=f"kept{p}", reset_less=True) for p in range(pixels)]
        scale = Signal(32 * oc, name="kept_scale", reset_less=True)
        with m.If(self.take):
            m.d.sync += [
                scale.eq(self.scale),
                *(t.eq(getattr(self, f"total{p}")) for p, t in enumerate(totals)),
            ]

        # Channel of each place.
        depth = -(-oc // lanes)
        turns: list[Value] = []
        for q in range(places):
            turn = Signal(range(depth), name=f"turn{q}")
            m.d.comb += turn.eq(self.index - (self.lane + q >= lanes))
            turns.append(turn)

        def of_place(q: int, words: Value) -> Value:
            """The 32 bits of the channel of place q."""
            channels = [min(q + k * lanes, oc - 1) for k in range(depth)]
            return choose(channels, {o: words.word_select(o, 32) for o in channels}, turns[q])

        words = Signal(32 * places, name="words", reset_less=True)
        m.d.sync += words.eq(Cat(of_place(q, scale) for q in range(places)))
        zd, lo, hi = (delay(m, getattr(self, n), 1, n).as_signed() for n in ("zd", "lo", "hi"))
        mode = delay(m, self.mode, 1, "mode")

        tables = place(m, "tables", Lookup(drain * places, arch.weights.tables))
        for name in ("enable", "address", "data"):
            m.d.comb += getattr(tables.fill, name).eq(getattr(self.table_fill, name))
        m.d.comb += tables.select.eq(delay(m, self.table, 1 + REQUANTISE, "table"))
        for d in range(drain):
            members = [min(g * drain + d, pixels - 1) for g in range(groups)]
            group = Signal(32 * oc, name=f"group{d}")
            m.d.comb += group.eq(choose(members, dict(enumerate(totals)), self.group))
            values = Signal(32 * places, name=f"values{d}", reset_less=True)
            m.d.sync += values.eq(Cat(of_place(q, group) for q in range(places)))
            units = place(
                m, f"requantise{d}", Row(lambda: Requantise(arch.rounding, 32), places, REQUANTISE_SHARED)
            )
            m.d.comb += [
                *(units.value.eq(values), units.word.eq(words), units.mode.eq(mode), units.raw.eq(0)),
                *(units.zd.eq(zd), units.lo.eq(lo), units.hi.eq(hi)),
            ]
            for q in range(places):
                m.d.comb += [
                    getattr(tables, f"value{d * places + q}").eq(units.result.word_select(q, 8)),
                    getattr(self, f"byte{d}_{q}").eq(getattr(tables, f"result{d * places + q}")),
                ]
        return m
