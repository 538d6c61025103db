"""The bursts of an instruction: its runs merged where they are contiguous, and cut at multiples of `burst_bytes`.

Merging needs two products, ``runs1 * run_bytes`` and ``stride2 * runs2``; they set the latency. After that a burst takes
`BURST_INTERVAL` cycles: its size, then the next address.

Of an address, 40 bits are calculated and the others come from the base: a region does not cross a multiple of 2^40.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out, Signature

from ..ir.arch import Arch
from ..ir.isa import FORMATS, Opcode
from ..ir.latency import BURST_INTERVAL
from .axi import ADDRESS_BITS, BOUNDARY

__all__ = ["WALK", "BurstWalker", "burst", "runs"]

WALK = 6
"""From `start` to the first burst: fields, products 2, comparison, selection, size."""
_LOW = 40
"""Address bits that change within a region."""
_FIELDS = {f.name: f.bits for f in FORMATS[Opcode.LOAD, None]}
_NAMES = ("run_bytes", "runs1", "stride1", "runs2", "stride2")
_PART = 17
"""Unsigned bits of a multiplier's narrow operand (DSP48: 18 with sign)."""


def runs() -> Signature:
    """An instruction's runs, and the address of the first: ``base`` of its region plus ``offset``.

    A FILL has ``runs1`` = ``runs2`` = 1.
    """
    return Signature(
        {
            "base": Out(ADDRESS_BITS),
            "offset": Out(_FIELDS["address"]),
            **{name: Out(_FIELDS[name]) for name in _NAMES},
        }
    )


def burst(arch: Arch) -> Signature:
    """A burst: address of its first byte, beats - 1, bytes, and whether it is the instruction's last."""
    return Signature(
        {
            "valid": Out(1),
            "ready": In(1),
            "address": Out(ADDRESS_BITS),
            "len": Out(8),
            "bytes": Out(range(arch.burst_bytes + 1)),
            "last": Out(1),
        }
    )


class BurstWalker(Component):
    """Walks the runs of one instruction after the other.

    Members
    -------
    start : In(1)
        `runs` is valid in this cycle. The next start comes after the last burst of this one was valid.
    permit : In(1)
        Whether a burst may become valid in the next cycle; looked at in every cycle.
    cancel : In(1)
        Forget the instruction. A burst that is valid stays until it is taken.
    runs : In(runs())
    burst : Out(burst(arch))
        Registered; stays valid until `ready`.

    Timing
    ------
    First burst valid in cycle start + `WALK`. If a burst is taken in the cycle in which it becomes valid, the next is
    valid `BURST_INTERVAL` cycles later.

    Resources: 3 DSP.
    """

    def __init__(self, arch: Arch) -> None:
        assert BURST_INTERVAL == 2
        assert BOUNDARY % arch.burst_bytes == 0  # so that no burst crosses it
        self.arch = arch
        super().__init__(
            {
                "start": In(1),
                "permit": In(1),
                "cancel": In(1),
                "runs": In(runs()),
                "burst": Out(burst(arch)),
            }
        )

    @property
    def module_name(self) -> str:
        return "burst_walker"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, out = self.arch, self.burst
        # -- the instruction's numbers, kept until the next start ----------------------------------------------------
        f = {name: Signal(_FIELDS[name], name=name, reset_less=True) for name in _NAMES}
        base = Signal(ADDRESS_BITS, reset_less=True)
        offset = Signal(_FIELDS["address"], reset_less=True)
        with m.If(self.start):
            m.d.sync += [f[name].eq(getattr(self.runs, name)) for name in _NAMES]
            m.d.sync += [base.eq(self.runs.base), offset.eq(self.runs.offset)]
        stage = Signal(WALK - 2)  # one bit travels: fields, product, sums, selection
        m.d.sync += stage.eq(Mux(self.cancel, 0, Cat(self.start, stage)))
        inner_bytes = _product(m, "inner", f["run_bytes"], f["runs1"])
        low = _product(m, "low", f["runs2"], f["stride2"][:_PART])
        high = _product(m, "high", f["runs2"], f["stride2"][_PART:])
        bits = len(inner_bytes)
        first, total = Signal(_LOW, reset_less=True), Signal(bits, reset_less=True)
        one_block, inner, outer = (Signal(name=n, reset_less=True) for n in ("one_block", "inner", "outer"))
        m.d.sync += [
            inner.eq((f["runs1"] == 1) | (f["stride1"] == f["run_bytes"])),
            one_block.eq(f["runs2"] == 1),
            outer.eq(one_block | (f["stride2"] == inner_bytes)),
            total.eq(low + (high << _PART)),
            first.eq(base[:_LOW] + offset),
        ]
        length = Signal(bits, reset_less=True)
        # -- where the walk is ---------------------------------------------------------------------------------------
        at, run, block, following = (
            Signal(_LOW, name=n, reset_less=True) for n in ("at", "run", "block", "following")
        )
        left = Signal(bits, reset_less=True)
        inner_left = Signal(_FIELDS["runs1"], reset_less=True)  # runs after this one
        outer_left = Signal(_FIELDS["runs2"], reset_less=True)
        runs1 = Mux(inner, 0, f["runs1"] - 1)
        measure, move = Signal(), Signal()  # the two cycles of a burst
        with m.If(stage[-1]):
            m.d.sync += [
                *(at.eq(first), run.eq(first), block.eq(first)),
                *(inner_left.eq(runs1), outer_left.eq(Mux(inner & outer, 0, f["runs2"] - 1))),
                measure.eq(1),
            ]
            whole = Mux(inner, Mux(outer & ~one_block, total, inner_bytes), f["run_bytes"])
            m.d.sync += [left.eq(whole), length.eq(whole)]
        # -- size: up to the cut, or to the end of the run -------------------------------------------------------------
        cut, beat = (arch.burst_bytes - 1).bit_length(), (arch.beat_bytes - 1).bit_length()
        place = at[:cut]
        end = Signal(cut + 2)
        over, ends, to_cut = Signal(), Signal(), Signal(cut + 1)
        rest, long = left[: cut + 1], left[cut + 1 :].any()
        m.d.comb += [
            end.eq(place + rest),
            over.eq(long | end[cut:].any()),
            ends.eq(~long & (end <= arch.burst_bytes)),
            to_cut.eq(arch.burst_bytes - place),
        ]
        last_beat = Mux(over, Const(arch.dma.burst - 1, 8), ((place + rest - 1)[: cut + 1] >> beat)[:8])
        exhausted = Signal(reset_less=True)
        final = (inner_left == 0) & (outer_left == 0)
        with m.If(measure & self.permit & ~out.valid):
            m.d.sync += [
                *(out.valid.eq(1), out.address.eq(Cat(at, base[_LOW:])), out.last.eq(ends & final)),
                *(out.bytes.eq(Mux(over, to_cut, rest)), out.len.eq(last_beat - (place >> beat))),
                *(measure.eq(0), move.eq(1), exhausted.eq(ends)),
            ]
        with m.Elif(out.ready):
            m.d.sync += out.valid.eq(0)
        # -- next address ----------------------------------------------------------------------------------------------
        last_run = inner_left == 0
        with m.If(measure):
            m.d.sync += following.eq(Mux(last_run, block, run) + Mux(last_run, f["stride2"], f["stride1"]))
        with m.If(move):
            m.d.sync += [move.eq(0), measure.eq(~out.last)]
            with m.If(exhausted):
                m.d.sync += [at.eq(following), run.eq(following), left.eq(length)]
                with m.If(last_run):
                    m.d.sync += [block.eq(following), inner_left.eq(runs1), outer_left.eq(outer_left - 1)]
                with m.Else():
                    m.d.sync += inner_left.eq(inner_left - 1)
            with m.Else():
                m.d.sync += [at.eq(at + out.bytes), left.eq(left - out.bytes)]
        with m.If(self.cancel):
            m.d.sync += [measure.eq(0), move.eq(0)]
        return m


def _product(m: Module, name: str, a: Value, b: Value) -> Signal:
    """`a` times `b`, two cycles later: the multiplier's own registers."""
    parts = [Signal(len(a) + len(b), name=f"{name}_{part}", reset_less=True) for part in ("product", "sum")]
    m.d.sync += [parts[0].eq(a * b), parts[1].eq(parts[0])]
    return parts[1]
