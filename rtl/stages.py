"""Values of a pipeline by the stage that uses them."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value, ValueLike

__all__ = ["Stages"]


class Stages:
    """What belongs to one step of a pipeline, by name, at any later stage.

    A value is put in at the stage where it is there; `at` gives it as a later stage sees it, through registers that all
    readers share. Lines without reset become shift registers in LUTs. Ask for values outside of ``m.If``: what is registered
    in there stays while the condition does not hold.
    """

    def __init__(self, m: Module) -> None:
        self._m = m
        self._from: dict[str, int] = {}
        self._reset: dict[str, bool] = {}
        self._values: dict[str, list[Value]] = {}

    def put(self, name: str, value: ValueLike, stage: int, *, reset: bool = False) -> None:
        """`value` is there in `stage`; with `reset`, a reset empties the line."""
        assert name not in self._values, name
        self._from[name], self._reset[name], self._values[name] = stage, reset, [Value.cast(value)]

    def at(self, name: str, stage: int) -> Value:
        """The value of `name` that belongs to the step in `stage`."""
        line, first = self._values[name], self._from[name]
        assert stage >= first, f"{name} is there in stage {first}, not in {stage} yet"
        while len(line) <= stage - first:
            later = Signal(
                line[-1].shape(), name=f"{name}_{first + len(line)}", reset_less=not self._reset[name]
            )
            self._m.d.sync += later.eq(line[-1])
            line.append(later)
        return line[stage - first]
