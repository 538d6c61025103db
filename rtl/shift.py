"""Items moved to another place, in registered levels of multiplexers that leave out what can never be chosen."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, Signal, Value

__all__ = ["shift_down", "shift_up"]

_Items = Sequence[Value | None]


def shift_down(
    m: Module, items: Sequence[Value], amounts: Sequence[Value], keep: int, name: str, *, wrap: bool = False
) -> list[Signal]:
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
) -> list[Signal]:
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


def _level(m: Module, choices: Sequence[_Items], amount: Value, name: str) -> list[Signal]:
    out = []
    for i, options in enumerate(choices):
        value = _choose(options, amount)
        assert value is not None
        to = Signal(len(value), name=f"{name}{i}", reset_less=True)
        m.d.sync += to.eq(value)
        out.append(to)
    return out


def _choose(options: _Items, index: Value) -> Value | None:
    """The option of this index, where None is one that nobody will choose."""
    if len(options) == 1:
        return options[0]
    half = len(options) // 2
    low, high = _choose(options[:half], index[:-1]), _choose(options[half:], index[:-1])
    if low is None or high is None or low is high:
        return high if low is None else low
    return Mux(index[-1], high, low)
