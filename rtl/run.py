"""The course of a run: start, end, and what stops it."""

from __future__ import annotations

from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import Engine
from .axi import ADDRESS_BITS
from .faults import Cause

__all__ = ["FLUSH", "RunControl"]

FLUSH = 256
"""Cycles for which the compute engines are held in reset when a run is stopped: more than any pipeline is long, so that
delay lines without a reset run empty as well."""
_CLEAR = 4
"""Cycles of the reset of everything but the memories before a run."""


class _State(IntEnum):
    """What the core is doing."""

    IDLE = 0
    CLEAR = 1
    BEGIN = 2
    RUN = 3
    FINISH = 4
    STOP = 5


class RunControl(Component):
    """Starts runs, watches them, and ends them well or with a cause.

    A run: `clear` for a few cycles, `begin`, then nothing but watching until END was dispatched and every engine has
    given a token for each instruction. On an error nothing starts any more; FETCH, LOAD and SAVE finish what is on
    the bus; the compute engines are held in `flush`; then the core is idle, and the next start runs as any other.

    Members
    -------
    start, abort, hash, program_hash, watchdog : in
        From the registers.
    busy, done, error, event : out
        `event` has a bit for done and one for error, high for a cycle.
    cause, response, instruction, address, cycles : out
        Of the last run.
    clear, begin, stop, flush : out
        `clear` resets control and engines, `flush` the compute engines; `stop` while there is nothing to be started.
    halt : out
        FETCH asks for nothing more. A group that is begun is asked for to its end, also where END stands before it, as
        in the simulator; so a run is finished only when FETCH is idle.
    first : in
        The cycle of FETCH's first request: cycle 0.
    ended, ends, fault, fault_index, next_index : in
        From DISPATCH.
    finished, unfinished : in, a bit an engine
        From the interlock; ``count_<engine>``, ``tokens_<engine>``, ``oldest_<engine>`` with them.
    fetch, load, save : in
        ``failed``, ``address``, ``response``, ``idle`` of those that use the bus.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        bus = {"failed": 1, "address": ADDRESS_BITS, "response": 2, "idle": 1}
        super().__init__(
            {
                **{n: In(w) for n, w in (("start", 1), ("abort", 1), ("program_hash", 64), ("watchdog", 32))},
                **{n: Out(1) for n in ("busy", "done", "error", "clear", "begin", "stop", "halt", "flush")},
                **{n: Out(w) for n, w in (("event", 2), ("cause", 8), ("response", 2), ("instruction", 32))},
                **{n: Out(64) for n in ("address", "cycles", "hash")},
                **{n: In(1) for n in ("first", "ended", "ends")},
                **{n: In(w) for n, w in (("fault", 4), ("fault_index", 32), ("next_index", 32))},
                **{n: In(len(Engine)) for n in ("finished", "unfinished")},
                **{f"count_{e.name.lower()}": In(16) for e in Engine},
                **{f"tokens_{e.name.lower()}": In(16) for e in Engine},
                **{f"oldest_{e.name.lower()}": In(32) for e in Engine},
                **{f"{who}_{n}": In(w) for who in ("fetch", "load", "save") for n, w in bus.items()},
            }
        )

    @property
    def module_name(self) -> str:
        return "run_control"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        design = int(self.arch.design_hash, 16)
        state, waited, running = Signal(_State), Signal(range(FLUSH + 1)), Signal()
        known = Signal()
        trouble, all_done, quiet = (Signal(name=n) for n in ("trouble", "all_done", "quiet"))
        m.d.comb += [
            self.hash.eq(Const(design, 64)),
            self.busy.eq(state != _State.IDLE),
            self.clear.eq(state == _State.CLEAR),
            self.begin.eq(state == _State.BEGIN),
            self.flush.eq(state == _State.STOP),
            self.stop.eq(~running),
            self.halt.eq(~running & (state != _State.FINISH)),
            quiet.eq(self.fetch_idle & self.load_idle & self.save_idle),
        ]
        m.d.sync += [known.eq(self.program_hash == design), self.event.eq(0)]
        equal = [
            getattr(self, f"count_{e.name.lower()}") == getattr(self, f"tokens_{e.name.lower()}")
            for e in Engine
        ]
        m.d.sync += all_done.eq(self.ended & Cat(equal).all())
        self._count_cycles(m)
        cause, instruction = self._watch(m, trouble)

        with m.Switch(state):
            with m.Case(_State.IDLE):
                m.d.sync += waited.eq(0)
                with m.If(self.start):
                    m.d.sync += [self.done.eq(0), self.error.eq(0), self.cause.eq(Cause.NONE)]
                    m.d.sync += [self.response.eq(0), self.instruction.eq(0), self.address.eq(0)]
                    with m.If(known):
                        m.d.sync += state.eq(_State.CLEAR)
                    with m.Else():
                        m.d.sync += [self.cause.eq(Cause.DESIGN), self.error.eq(1), self.event.eq(0b10)]
            with m.Case(_State.CLEAR):
                m.d.sync += waited.eq(waited + 1)
                with m.If(waited == _CLEAR - 1):
                    m.d.sync += state.eq(_State.BEGIN)
            with m.Case(_State.BEGIN):
                m.d.sync += [state.eq(_State.RUN), running.eq(1), waited.eq(0)]
            with m.Case(_State.RUN):
                m.d.sync += running.eq(~trouble & ~all_done)
                with m.If(trouble):
                    m.d.sync += [
                        state.eq(_State.STOP),
                        self.cause.eq(cause),
                        self.instruction.eq(instruction),
                    ]
                with m.Elif(all_done):
                    m.d.sync += state.eq(_State.FINISH)
            with m.Case(_State.FINISH), m.If(quiet):
                m.d.sync += [state.eq(_State.IDLE), self.done.eq(1), self.event.eq(0b01)]
            with m.Case(_State.STOP):
                with m.If(waited != FLUSH):
                    m.d.sync += waited.eq(waited + 1)
                with m.Elif(quiet):
                    m.d.sync += [state.eq(_State.IDLE), self.error.eq(1), self.event.eq(0b10)]
        return m

    def _count_cycles(self, m: Module) -> None:
        """`cycles` follows the last token, and the cycle after END's dispatch."""
        low, high, carry, counting = (
            Signal(w, name=n) for w, n in ((32, "low"), (32, "high"), (1, "carry"), (1, "counting"))
        )
        with m.If(self.clear):
            m.d.sync += [low.eq(0), high.eq(0), carry.eq(0), counting.eq(0), self.cycles.eq(0)]
        with m.Elif(self.first | counting):
            # The upper half moves in the same cycle as the lower: that this one is full is known a cycle ahead.
            m.d.sync += [counting.eq(1), low.eq(low + 1), carry.eq(low == 0xFFFF_FFFE), high.eq(high + carry)]
        with m.If(~self.stop & (self.finished.any() | self.ends)):
            m.d.sync += self.cycles.eq(Cat(low, high))

    def _watch(self, m: Module, trouble: Signal) -> tuple[Signal, Signal]:
        """Raise `trouble` in the cycle after something went wrong; returns its cause and its instruction."""
        cause, instruction = Signal(8, reset_less=True), Signal(32, reset_less=True)
        barking, patience = Signal(name="barking"), Signal(32, reset_less=True)
        oldest = self._oldest(m)
        with m.If(self.stop | self.finished.any()):
            m.d.sync += [patience.eq(self.watchdog), barking.eq(0)]
        with m.Elif(self.watchdog.any()):
            m.d.sync += [patience.eq(patience - 1), barking.eq(patience == 1)]
        causes = (
            (self.abort, Cause.ABORT, oldest),
            (self.fetch_failed, Cause.FETCH_BUS, self.next_index),
            (self.load_failed, Cause.LOAD_BUS, self.oldest_load),
            (self.save_failed, Cause.SAVE_BUS, self.oldest_save),
            (self.fault.any(), self.fault, self.fault_index),
            (barking, Cause.WATCHDOG, oldest),
        )
        happened = Signal()
        m.d.comb += happened.eq(~self.stop & ~trouble & Cat(c for c, _, _ in causes).any())
        m.d.sync += trouble.eq(happened)
        which: Value = Const(0, 8)
        index: Value = Const(0, 32)
        for condition, number, concerned in reversed(causes):
            which, index = Mux(condition, number, which), Mux(condition, concerned, index)
        with m.If(happened):
            m.d.sync += [cause.eq(which), instruction.eq(index)]
            for who in ("save", "load", "fetch"):
                with m.If(getattr(self, f"{who}_failed") & ~self.abort):
                    m.d.sync += self.address.eq(getattr(self, f"{who}_address"))
                    m.d.sync += self.response.eq(getattr(self, f"{who}_response"))
        return cause, instruction

    def _oldest(self, m: Module) -> Signal:
        """Number of the oldest instruction that is not done; the next one to be dispatched if all are.

        One engine is looked at in each cycle, round and round, which is as good as at once: an instruction that keeps
        a run from going on is the oldest for longer than that.
        """
        turn, best, result = (
            Signal(range(len(Engine))),
            Signal(32, reset_less=True),
            Signal(32, reset_less=True),
        )
        index, there = Signal(32), Signal()
        with m.Switch(turn):
            for e in Engine:
                with m.Case(e):
                    m.d.comb += index.eq(getattr(self, f"oldest_{e.name.lower()}"))
                    m.d.comb += there.eq(self.unfinished[e])
        lower = Signal(32)
        m.d.comb += lower.eq(Mux(there & (index < best), index, best))
        with m.If(turn == len(Engine) - 1):
            m.d.sync += [turn.eq(0), result.eq(lower), best.eq(self.next_index)]
        with m.Else():
            m.d.sync += [turn.eq(turn + 1), best.eq(lower)]
        return result
