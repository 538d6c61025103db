"""Equal components side by side, so that what is common to them is connected once."""

from __future__ import annotations

from collections.abc import Callable, Collection

from amaranth.hdl import Module, Shape
from amaranth.lib.wiring import Component, In, Out

from .hierarchy import place

__all__ = ["Row"]


class Row(Component):
    """`count` components in a row.

    Members are the component's own: those that are `shared` as they are, to all; of others the values of all, the first
    in the lowest bits.

    Parameters
    ----------
    make : callable
        A new component, the same every time, whose members are plain.
    shared : collection of str
        Inputs.
    """

    def __init__(self, make: Callable[[], Component], count: int, shared: Collection[str] = ()) -> None:
        self.make, self.count, self.shared = make, count, frozenset(shared)
        like = make()
        like._MustUse__used = True  # only looked at
        self.name = like.module_name
        members = like.signature.members
        assert self.shared <= members.keys()
        super().__init__(
            {
                name: member
                if name in self.shared
                else (In if member.flow == In else Out)(count * Shape.cast(member.shape).width)
                for name, member in members.items()
            }
        )

    @property
    def module_name(self) -> str:
        return f"{self.name}_by_{self.count}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for i in range(self.count):
            part = place(m, f"part{i}", self.make())
            for name, member in part.signature.members.items():
                whole, own = getattr(self, name), getattr(part, name)
                if name not in self.shared:
                    whole = whole.word_select(i, len(own))
                m.d.comb += own.eq(whole) if member.flow == In else whole.eq(own)
        return m
