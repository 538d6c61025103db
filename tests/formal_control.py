"""What is proved of the control: queues, the ledger, FETCH and the interlock."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Signal
from formal import Bench, in_order

__all__ = ["instruction_queue", "ledger", "short_queue"]


def _join(bench: Bench, part: Any, **values: Any) -> None:
    bench.m.d.comb += [getattr(part, name).eq(value) for name, value in values.items()]


def short_queue(bench: Bench, module: Any) -> None:
    """Four entries; never more pushed, never popped when empty."""
    dut = bench.add(module.ShortQueue(4, 2))
    push, entry, pop = bench.free(1, "push"), bench.free(2, "entry"), bench.free(1, "pop")
    _join(bench, dut, push=push, entry=entry, pop=pop)
    inside = in_order(bench, push, entry, pop, dut.head, 4)
    bench.assume(~push | (inside < 4))
    bench.assume(~pop | (inside != 0))
    bench.check("valid tells whether there is one", dut.valid == (inside != 0))
    bench.reach("full", inside == 4)


def instruction_queue(bench: Bench, module: Any) -> None:
    """Three places, no power of two; pushed into where there is space, popped where there is a head."""
    dut = bench.add(module.InstructionQueue(3, 2))
    push, word, popped = bench.free(1, "push"), bench.free(2, "word"), bench.free(1, "popped")
    _join(bench, dut, push=push, word=word, popped=popped)
    inside = in_order(bench, push, word, popped, dut.head, 3)
    bench.assume(~push | dut.space)
    bench.assume(~popped | dut.valid)
    bench.check("valid tells whether there is one", dut.valid == (inside != 0))
    bench.check("space means a place, and a place is space", dut.space == ((inside < 3) | popped))
    bench.check("never more than the depth", inside <= 3)
    bench.reach("full, then popped and pushed at once", (inside == 3) & popped & push)


def ledger(bench: Bench, module: Any) -> None:
    """Four entries; the youngest that is retired was written two cycles before."""
    dut = bench.add(module.Ledger(4, 2))
    write, entry, retire = bench.free(1, "write"), bench.free(2, "entry"), bench.free(1, "retire")
    _join(bench, dut, write=write, entry=entry, retire=retire)
    inside = in_order(bench, write, entry, retire, dut.oldest, 4)
    bench.assume(~write | (inside < 4))
    bench.assume(~retire | (inside > bench.past(write, "write")))
    bench.check("any tells whether there is one", dut.any == (inside != 0))
    kept = Signal(2)
    bench.m.d.sync += kept.eq(Cat(retire, kept))
    bench.reach("retired in three cycles in a row", retire & kept.all())
