"""DISPATCH: one instruction a cycle, in order, into the queue of its engine."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import ENGINE_OF, Engine, Memory, Opcode, VecOp
from .faults import Cause
from .words import WORD_BITS, layout

__all__ = ["Dispatch"]


class Dispatch(Component):
    """Takes instructions from FETCH, judges them, and pushes them into queues.

    A bad instruction is never taken, so nothing behind it is; `fault` says why, and stays. A wait is judged one cycle
    after its dispatch, before the instruction can start.

    Members
    -------
    words : in
        Instructions of the program.
    word, valid, take : in, in, out
        From FETCH.
    stop : in
        Nothing more is taken.
    space : in, a bit an engine
        Its queue has a place.
    push : out, a bit an engine
        `word` goes into its queue in this cycle.
    index : out
        Number of the instruction at `word`.
    ended : out
        END was taken. `ends` is the cycle after.
    counts : out, 16 bits an engine
        Instructions dispatched, modulo 2^16.
    fault, fault_index : out
        `Cause` and number of the instruction.
    """

    words: Signal
    word: Signal
    valid: Signal
    take: Signal
    stop: Signal
    space: Signal
    push: Signal
    index: Signal
    ended: Signal
    ends: Signal
    fault: Signal
    fault_index: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                "words": In(32),
                "word": In(WORD_BITS),
                "valid": In(1),
                "take": Out(1),
                "stop": In(1),
                "space": In(len(Engine)),
                "push": Out(len(Engine)),
                "index": Out(32),
                "ended": Out(1),
                "ends": Out(1),
                **{f"count_{e.name.lower()}": Out(16) for e in Engine},
                "fault": Out(4),
                "fault_index": Out(32),
            }
        )

    @property
    def module_name(self) -> str:
        return "dispatch"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        header = layout(Opcode.END)(self.word)
        counts = {e: getattr(self, f"count_{e.name.lower()}") for e in Engine}
        mine = {e: Signal(name=f"for_{e.name.lower()}") for e in Engine}
        bad, is_end = Signal(4, name="bad"), Signal(name="is_end")
        self._judge(m, header.opcode, header.func, mine, bad, is_end)

        more, last = Signal(name="more"), Signal(name="last")  # words that are left; one is left
        left = Signal(32, reset_less=True)
        begun, faulty, go = Signal(name="begun"), Signal(name="faulty"), Signal(name="go")
        m.d.comb += [
            go.eq(self.valid & more & ~self.stop & ~self.ended & ~faulty),
            self.push.eq(Mux(go, Cat(mine.values()) & self.space, 0)),
            self.take.eq(go & (is_end | Cat(mine[e] & self.space[e] for e in Engine).any())),
        ]
        m.d.sync += begun.eq(1)
        with m.If(~begun):
            m.d.sync += [left.eq(self.words), more.eq(self.words.any()), last.eq(self.words == 1)]
        with m.Elif(self.take):
            m.d.sync += [left.eq(left - 1), more.eq(~last), last.eq(left == 2)]
            m.d.sync += self.index.eq(self.index + 1)
        for e, count in counts.items():
            m.d.sync += count.eq(count + self.push[e])
        m.d.sync += self.ends.eq(go & is_end)
        with m.If(go & is_end):
            m.d.sync += self.ended.eq(1)

        # A wait for tokens of instructions that stand later, or nowhere, may never be met.
        beyond = Signal()
        distance = [Signal(16, name=f"distance_{e.name.lower()}") for e in Engine]
        for e, d in zip(Engine, distance, strict=True):
            m.d.comb += d.eq(counts[e] - header[f"wait_{e.name.lower()}"])
        m.d.sync += beyond.eq(self.push.any() & Cat(d[15] for d in distance).any())
        before = Signal(32, reset_less=True)
        m.d.sync += before.eq(self.index)
        with m.If(~faulty):
            with m.If(beyond):
                m.d.sync += [faulty.eq(1), self.fault.eq(Cause.WAIT), self.fault_index.eq(before)]
            with m.Elif(go & bad.any()):
                m.d.sync += [faulty.eq(1), self.fault.eq(bad), self.fault_index.eq(self.index)]
            with m.Elif(begun & ~more & ~self.ended & ~self.stop):
                m.d.sync += [faulty.eq(1), self.fault.eq(Cause.NO_END), self.fault_index.eq(self.index)]
        return m

    def _judge(
        self, m: Module, opcode: Signal, func: Signal, mine: dict[Engine, Signal], bad: Signal, is_end: Signal
    ) -> None:
        """Whose an instruction is, or what is wrong with it."""
        functions = {Opcode.VEC: len(VecOp), Opcode.FILL: len(Memory)}
        with m.Switch(opcode):
            for op in Opcode:
                with m.Case(op):
                    legal = func < functions.get(op, 1)
                    if op == Opcode.DWC and not self.arch.has_dwc:
                        m.d.comb += bad.eq(Cause.NO_DEPTHWISE)
                        continue
                    m.d.comb += bad.eq(Mux(legal, Cause.NONE, Cause.FUNCTION))
                    if op == Opcode.END:
                        m.d.comb += is_end.eq(legal)
                    else:
                        m.d.comb += mine[ENGINE_OF[op]].eq(legal)
            with m.Default():
                m.d.comb += bad.eq(Cause.OPCODE)
