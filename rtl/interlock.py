"""The interlock: queues of the engines, tokens, ownership of map ports, and the decision which instructions start.

A cycle's decision rests on registers alone:

    ready[e]      the head of e's queue waits for no token              (head and counters of the cycle before)
    open[e]       e can take another instruction, and the ports that its head wants are free, as far as the starts of
                  the cycle before do not change that
    begun[e]      e started an instruction in the cycle before
    clash[a, b]   the heads of a and b want one port

An engine starts if it is ready and open, has not just begun, has no clash with one that has, and none with one that
starts now and comes first: LOAD, CONV, DWC, VEC, SAVE. That is two levels of logic for each engine's own
conditions, and two or three for the order between them.

Behind `open` stand `idle` (from `last` to the next start), `read_taken` (read ports of groups that running instructions
own, until `last`) and for each engine `write_taken` (write ports that instructions of other engines own, until `done`).
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch
from ..ir.isa import ENGINE_OF, FORMATS, Engine, Opcode, VecOp
from ..ir.latency import LOAD_RECEIVE, LOAD_TAIL, SAVE_SEND, SAVE_TAIL, VEC_TAIL, conv_tail, dwc_tail
from .hierarchy import place
from .ports import engine_port
from .queues import InstructionQueue, Ledger
from .words import WORD_BITS, layout

__all__ = ["Interlock", "engines", "most_unfinished"]

_SHORTEST = 3
"""Cycles from a start to the next of one engine, at least: START of every engine and one issue."""


def engines(arch: Arch) -> tuple[Engine, ...]:
    """Engines that the machine has."""
    return tuple(e for e in Engine if e != Engine.DWC or arch.has_dwc)


def most_unfinished(arch: Arch, engine: Engine) -> int:
    """Instructions of an engine that can be between dispatch and `done` at one time, at most.

    Waiting ones, and those in flight: of LOAD and SAVE each has a burst on the bus or is in the tail, a cycle each; a
    compute engine's tail holds one for every `_SHORTEST` cycles (a drain lengthens the busy time as it does the tail).
    """
    bursts = arch.dma.outstanding * arch.dma.ports
    flight = {
        Engine.LOAD: bursts + LOAD_RECEIVE + LOAD_TAIL,
        Engine.CONV: conv_tail(arch) // _SHORTEST + 2,
        Engine.DWC: dwc_tail(arch) // _SHORTEST + 2 if arch.has_dwc else 0,
        Engine.VEC: VEC_TAIL // _SHORTEST + 2,
        Engine.SAVE: bursts + SAVE_SEND + SAVE_TAIL,
    }[engine]
    return arch.queues.depth + flight + 2


def word_bits(engine: Engine) -> int:
    """Bits that the longest instruction of an engine uses."""
    return max(
        sum(f.bits for f in fields)
        for (opcode, _), fields in FORMATS.items()
        if ENGINE_OF.get(opcode) == engine
    )


@dataclass(frozen=True)
class _Operand:
    """Whether an instruction has the operand, its first map group, and how many follow."""

    there: Value
    group: Value
    span: Value

    def owns(self, groups: int) -> Value:
        """A bit for each group that it lies in."""
        last = self.group + self.span
        return Cat(self.there & (self.group <= g) & (last >= g) for g in range(groups))


@dataclass(frozen=True)
class _Ports:
    """Operands whose map ports an instruction owns."""

    write: _Operand
    reads: tuple[_Operand, ...]


def _ports(engine: Engine, word: Value) -> _Ports:
    """What `word`, an instruction of `engine`, asks for."""
    no, yes, whole = Const(0, 1), Const(1, 1), word
    if len(word) < WORD_BITS:
        whole = Cat(word, Const(0, WORD_BITS - len(word)))
    if engine == Engine.LOAD:
        load = layout(Opcode.LOAD)(whole)
        return _Ports(_Operand(load.opcode == Opcode.LOAD, load.d_group, load.d_span), ())
    if engine == Engine.SAVE:
        save = layout(Opcode.SAVE)(whole)
        return _Ports(_Operand(no, Const(0, 3), Const(0, 3)), (_Operand(yes, save.a_group, save.a_span),))
    if engine == Engine.CONV:
        conv = layout(Opcode.CONV)(whole)
        return _Ports(
            _Operand(conv.last, conv.d_group, conv.d_span), (_Operand(yes, conv.a_group, conv.a_span),)
        )
    if engine == Engine.DWC:
        dwc = layout(Opcode.DWC)(whole)
        return _Ports(_Operand(yes, dwc.d_group, dwc.d_span), (_Operand(yes, dwc.a_group, dwc.a_span),))
    pair, pool = layout(Opcode.VEC, VecOp.ADD)(whole), layout(Opcode.VEC, VecOp.MAX)(whole)
    is_pair = (pair.func == VecOp.ADD) | (pair.func == VecOp.MUL)
    is_pool = (pair.func == VecOp.MAX) | (pair.func == VecOp.AVG)
    return _Ports(
        _Operand(~is_pool | pool.last, pair.d_group, pair.d_span),
        (_Operand(yes, pair.a_group, pair.a_span), _Operand(is_pair, pair.b_group, pair.b_span)),
    )


class Interlock(Component):
    """Queues, tokens, ports, starts.

    Members
    -------
    word, index, push, space
        From and to DISPATCH; a bit an engine.
    stop : in
        Nothing more starts.
    load, conv, dwc, vec, save : out, `ports.engine_port`
        `word` stays for one more cycle after ``start``. No ``dwc`` on machines without it.
    started, finished : out, a bit an engine
        ``start`` and ``done``.
    busy : out, a bit an engine
        From the cycle after ``start`` to ``last``.
    tokens_<engine> : out
        Instructions done, modulo 2^16.
    oldest_<engine> : out
        Number of the oldest instruction that is not done; there is one where `unfinished` has its bit.
    """

    word: Signal
    index: Signal
    push: Signal
    space: Signal
    stop: Signal
    started: Signal
    finished: Signal
    busy: Signal
    unfinished: Signal

    def __init__(self, arch: Arch) -> None:
        self.arch, self.engines = arch, engines(arch)
        count = len(Engine)
        super().__init__(
            {
                "word": In(WORD_BITS),
                "index": In(32),
                "push": In(count),
                "space": Out(count),
                "stop": In(1),
                **{e.name.lower(): Out(engine_port()) for e in self.engines},
                "started": Out(count),
                "finished": Out(count),
                "busy": Out(count),
                "unfinished": Out(count),
                **{f"tokens_{e.name.lower()}": Out(16) for e in Engine},
                **{f"oldest_{e.name.lower()}": Out(32) for e in self.engines},
            }
        )

    @property
    def module_name(self) -> str:
        return "interlock"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        groups = self.arch.maps.groups
        port = {e: getattr(self, e.name.lower()) for e in self.engines}
        tokens = {e: getattr(self, f"tokens_{e.name.lower()}") for e in Engine}

        def each(name: str, bits: int = 1, **more: int) -> dict[Engine, Signal]:
            return {e: Signal(bits, name=f"{name}_{e.name.lower()}", **more) for e in self.engines}

        start, begun, ready, opened = each("start"), each("begun"), each("ready"), each("open")
        idle, idle_next = each("idle", init=1), each("idle_next")
        want_read, want_write, own_read = (each(n, groups) for n in ("want_read", "want_write", "own_read"))
        retire = each("retire", groups)  # write ports given back in this cycle
        write_taken, write_next = each("write_taken", groups), each("write_next", groups)
        read_taken, read_next = Signal(groups), Signal(groups)
        heads: dict[Engine, _Ports] = {}

        for e in self.engines:
            name = e.name.lower()
            queue = place(m, f"queue_{name}", InstructionQueue(self.arch.queues.depth, word_bits(e)))
            header = layout(Opcode.END)(Cat(queue.head, Const(0, WORD_BITS - len(queue.head))))
            heads[e] = _ports(e, queue.head)
            met = [
                ~(tokens[o] - header[f"wait_{o.name.lower()}"])[15]  # tokens given, or none of that engine
                for o in Engine
            ]
            m.d.comb += [
                *(queue.push.eq(self.push[e]), queue.word.eq(self.word), queue.popped.eq(begun[e])),
                self.space[e].eq(queue.space),
                *(port[e].start.eq(start[e]), port[e].word.eq(queue.head)),
                *(self.started[e].eq(start[e]), self.finished[e].eq(port[e].done)),
                self.busy[e].eq(begun[e] | ~idle[e]),
                idle_next[e].eq(~begun[e] & (idle[e] | port[e].last)),
            ]
            reading, writing = (
                _or([o.owns(groups) for o in heads[e].reads] or [Const(0, groups)]),
                heads[e].write.owns(groups),
            )
            m.d.sync += [
                begun[e].eq(start[e]),
                ready[e].eq(queue.valid & Cat(met).all() & ~self.stop),
                *(want_read[e].eq(reading), want_write[e].eq(writing), idle[e].eq(idle_next[e])),
                opened[e].eq(idle_next[e] & ~(reading & read_next).any() & ~(writing & write_next[e]).any()),
                tokens[e].eq(tokens[e] + port[e].done),
            ]
            with m.If(begun[e]):
                m.d.sync += own_read[e].eq(want_read[e])

            pushed = _ports(e, self.word)
            ledger = place(m, f"ledger_{name}", Ledger(most_unfinished(self.arch, e), 39))
            written = _Operand(ledger.oldest[32], ledger.oldest[33:36], ledger.oldest[36:39])
            m.d.comb += [
                *(ledger.write.eq(self.push[e]), ledger.retire.eq(port[e].done)),
                ledger.entry.eq(Cat(self.index, pushed.write.there, pushed.write.group, pushed.write.span)),
                getattr(self, f"oldest_{name}").eq(ledger.oldest[:32]),
                self.unfinished[e].eq(ledger.any),
                retire[e].eq(Mux(port[e].done, written.owns(groups), 0)),
            ]

        # Who may start.
        clash = self._clashes(m, heads)
        for e in self.engines:
            others = [o for o in self.engines if (o, e) in clash]
            recent = Cat(begun[o] & clash[o, e] for o in others).any()
            first = Cat(start[o] & clash[o, e] for o in others if o < e).any()
            m.d.comb += start[e].eq(ready[e] & opened[e] & ~begun[e] & ~recent & ~first)

        # Who owns what.
        given_back = _or([Mux(port[e].last, own_read[e], 0) for e in self.engines])
        taken = _or([Mux(begun[e], want_read[e], 0) for e in self.engines])
        m.d.comb += read_next.eq((read_taken & ~given_back) | taken)
        m.d.sync += read_taken.eq(read_next)
        m.d.sync += [write_taken[e].eq(write_next[e]) for e in self.engines]
        most = sum(most_unfinished(self.arch, e) for e in self.engines)
        for g in range(groups):
            holders, holders_next = (Signal(range(most), name=f"{n}{g}") for n in ("holders", "holders_next"))
            single, more, fewer = (Signal(name=f"{n}{g}") for n in ("single", "more", "fewer"))
            m.d.comb += [
                more.eq(Cat(begun[e] & want_write[e][g] for e in self.engines).any()),
                fewer.eq(Cat(retire[e][g] for e in self.engines).any()),
                holders_next.eq(holders + more - fewer),
            ]
            m.d.sync += [holders.eq(holders_next), single.eq(holders_next == 1)]
            for e in self.engines:
                kept = write_taken[e][g] & ~(single & fewer)
                mine = begun[e] & want_write[e][g]
                m.d.comb += write_next[e][g].eq(Mux(more, ~mine, kept))
        return m

    def _clashes(self, m: Module, heads: dict[Engine, _Ports]) -> dict[tuple[Engine, Engine], Signal]:
        """For each two engines that can want one port: whether their heads do."""
        found: dict[tuple[Engine, Engine], Signal] = {}
        for a in self.engines:
            for b in self.engines:
                if a >= b:
                    continue
                x, y = heads[a], heads[b]
                pairs = [(i, j) for i in x.reads for j in y.reads]
                if Engine.SAVE not in (a, b):
                    pairs.append((x.write, y.write))
                reasons = [
                    i.there & j.there & (i.group <= j.group + j.span) & (j.group <= i.group + i.span)
                    for i, j in pairs
                ]
                if reasons:
                    clash = Signal(name=f"clash_{a.name.lower()}_{b.name.lower()}")
                    m.d.sync += clash.eq(Cat(reasons).any())
                    found[a, b] = found[b, a] = clash
        return found


def _or(values: list[Value]) -> Value:
    total = values[0]
    for value in values[1:]:
        total = total | value
    return total
