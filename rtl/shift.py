"""Items moved to another place, in registered levels of multiplexers that leave out what can never be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from amaranth.hdl import Cat, Module, Mux, Signal, Value

__all__ = ["shift_down", "shift_up"]

_Items = Sequence[Value | None]


def shift_down(
    m: Module, items: Sequence[Value], amounts: Sequence[Value], keep: int, name: str, *, wrap: bool = False
) -> list[Value]:
    """Item i of the result is item i + amount; `keep` items, ``len(amounts)`` cycles later.

    Parameters
    ----------
    amounts : sequence of Value
        The amount's bits for each level, in the cycle of that level, the highest bits first.
    wrap : bool
        Count on from item 0 after the last; without it, items beyond the last are whatever is cheapest.
    """
    count, now = len(items), list(items)
    left = sum(len(a) for a in amounts)
    for level, amount in enumerate(amounts):
        left -= len(amount)
        wanted = min(count, keep + (1 << left) - 1)
        step = 1 << left
        now = _level(
            m,
            [
                [_item(now, i + q * step, count if wrap else 0) for q in range(1 << len(amount))]
                for i in range(wanted)
            ],
            amount,
            f"{name}{level}_",
        )
    return now[:keep]


def shift_up(
    m: Module, items: Sequence[Value], amounts: Sequence[Value], keep: int, name: str
) -> list[Value]:
    """Item i of the result is item i - amount; items below the amount are whatever is cheapest. As `shift_down`, but
    the lowest bits of the amount come first."""
    now, done = list(items), 0
    for level, amount in enumerate(amounts):
        step = 1 << done
        done += len(amount)
        wanted = min(keep, len(items) + (1 << done) - 1)
        now = _level(
            m,
            [[_item(now, i - q * step, 0) for q in range(1 << len(amount))] for i in range(wanted)],
            amount,
            f"{name}{level}_",
        )
    return now[:keep]


def _item(items: _Items, at: int, wrap: int) -> Value | None:
    if wrap:
        at %= wrap
    return items[at] if 0 <= at < len(items) else None


def _level(m: Module, choices: Sequence[_Items], amount: Value, name: str) -> list[Value]:
    """A register for each item's choice. Items whose choices are alike share multiplexers that are as wide as all of them."""
    out: list[Value] = []
    for _, run in groupby(enumerate(choices), lambda numbered: _alike(numbered[1])):
        (first, options), *others = run
        rows = [options, *(o for _, o in others)]
        wide: list[Value | None] = []
        for q, option in enumerate(options):
            same = next((w for w, earlier in zip(wide, options[:q], strict=False) if earlier is option), None)
            wide.append(None if option is None else Cat(row[q] for row in rows) if same is None else same)
        value = _choose(wide, amount)
        assert value is not None
        to = Signal(len(value), name=f"{name}{first}", reset_less=True)
        m.d.sync += to.eq(value)
        bits = len(value) // len(rows)
        out += [to[i * bits :][:bits] for i in range(len(rows))]
    return out


def _alike(options: _Items) -> tuple[int, ...]:
    """Which of an item's choices are there, of what width, and the same."""
    places = {id(option): q for q, option in reversed(list(enumerate(options))) if option is not None}
    return (
        *(-1 if o is None else places[id(o)] for o in options),
        *(len(o) for o in options if o is not None),
    )


def _choose(options: _Items, index: Value) -> Value | None:
    """The option of this index, where None is one that nobody will choose."""
    if len(options) == 1:
        return options[0]
    half = len(options) // 2
    low, high = _choose(options[:half], index[:-1]), _choose(options[half:], index[:-1])
    if low is None or high is None or low is high:
        return high if low is None else low
    return Mux(index[-1], high, low)
