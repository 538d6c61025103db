"""Queues of the control: instructions that wait for their start, and what is known of them until they are done."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

__all__ = ["InstructionQueue", "Ledger"]


class InstructionQueue(Component):
    """In order, with the oldest instruction in a register: the *head*.

    An instruction pushed into an empty queue in cycle t is the head from t + 1 on. `popped` says, in the cycle after a
    start, that the head started; the next head is there in the cycle after that. So starts are at least three cycles
    apart, which every engine's shortest instruction keeps. The place of an instruction that starts in cycle s may be
    filled from s + 1 on.

    Members: `push`, `word`, `popped` in; `space`, `valid`, `head` out.

    Parameters
    ----------
    depth : int
        Instructions that have not started, head included.
    bits : int
        Bits of a word.
    """

    push: Signal
    word: Signal
    popped: Signal
    space: Signal
    valid: Signal
    head: Signal

    def __init__(self, depth: int, bits: int) -> None:
        self.depth, self.bits = depth, bits
        super().__init__(
            {
                "push": In(1),
                "word": In(bits),
                "popped": In(1),
                "space": Out(1),
                "valid": Out(1),
                "head": Out(bits),
            }
        )

    @property
    def module_name(self) -> str:
        return f"queue_{self.depth}x{self.bits}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        places = 1 << (self.depth - 1).bit_length()
        m.submodules.ram = ram = Memory(
            shape=self.bits, depth=places, init=[], attrs={"ram_style": "distributed"}
        )
        write, read = ram.write_port(), ram.read_port(domain="comb")
        to, at = (Signal(range(places), name=n) for n in ("to", "at"))
        behind = Signal(range(self.depth + 1))  # instructions behind the head
        count = Signal(range(self.depth + 1))  # instructions in all
        full, any_behind = Signal(name="full"), Signal(name="any_behind")
        head = Signal(self.bits, name="head_word", reset_less=True)
        turn, through, store, advance = (Signal(name=n) for n in ("turn", "through", "store", "advance"))
        count_next, behind_next = (
            Signal(range(self.depth + 1), name=n) for n in ("count_next", "behind_next")
        )
        m.d.comb += [
            self.space.eq(~full | self.popped),
            self.head.eq(head),
            turn.eq(~self.valid | self.popped),  # the head register is free for another
            through.eq(turn & ~any_behind & self.push),
            store.eq(self.push & ~through),
            advance.eq(turn & any_behind),
            *(write.en.eq(store), write.addr.eq(to), write.data.eq(self.word), read.addr.eq(at)),
            count_next.eq(count + self.push - self.popped),
            behind_next.eq(behind + store - advance),
        ]
        m.d.sync += [
            *(to.eq(to + store), at.eq(at + advance)),
            *(behind.eq(behind_next), any_behind.eq(behind_next.any())),
            *(count.eq(count_next), full.eq(count_next == self.depth)),
        ]
        with m.If(turn):
            m.d.sync += self.valid.eq(any_behind | self.push)
            with m.If(any_behind):
                m.d.sync += head.eq(read.data)
            with m.Else():
                m.d.sync += head.eq(self.word)
        return m


class Ledger(Component):
    """Entries in order; the oldest is in a register, also when entries are retired in every cycle.

    An entry written in cycle t may be retired from t + 2 on.

    Members: `write`, `entry`, `retire` in; `oldest` out, `any` (there is one) out.

    Parameters
    ----------
    depth : int
        Most entries, at least; the user keeps within it.
    bits : int
        Bits of an entry.
    """

    write: Signal
    entry: Signal
    retire: Signal
    oldest: Signal
    any: Signal

    def __init__(self, depth: int, bits: int) -> None:
        self.places, self.bits = 1 << (depth - 1).bit_length(), bits
        super().__init__(
            {"write": In(1), "entry": In(bits), "retire": In(1), "oldest": Out(bits), "any": Out(1)}
        )

    @property
    def module_name(self) -> str:
        return f"ledger_{self.places}x{self.bits}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = ram = Memory(
            shape=self.bits, depth=self.places, init=[], attrs={"ram_style": "distributed"}
        )
        write, read = ram.write_port(), ram.read_port(domain="comb")
        to, at, after = (
            Signal(range(self.places), name=n, init=i) for n, i in (("to", 0), ("at", 0), ("after", 1))
        )
        count = Signal(range(self.places + 1))
        oldest = Signal(self.bits, name="oldest_entry", reset_less=True)
        m.d.comb += [
            *(write.en.eq(self.write), write.addr.eq(to), write.data.eq(self.entry)),
            read.addr.eq(at),
            self.oldest.eq(oldest),
            self.any.eq(count.any()),
        ]
        with m.If(self.retire):
            m.d.comb += read.addr.eq(after)
            m.d.sync += [at.eq(after), after.eq(after + 1)]
        m.d.sync += [oldest.eq(read.data), to.eq(to + self.write), count.eq(count + self.write - self.retire)]
        return m
