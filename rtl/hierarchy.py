"""How a component is put into its parent, and how each distinct component becomes one module.

Left alone, a submodule's ports are whatever nets happen to cross its border: a new set for every place it is used, with
names of other modules' signals. So each component is converted on its own, which gives its signature as ports, and its
parent instantiates it. In simulation it is an ordinary submodule; the source of a component does not know the difference.

Members that are numbered from 0 on, ``row0``, ``row1``, ..., make one port, ``row``, with the first in its lowest bits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from amaranth.back import rtlil
from amaranth.hdl import (
    Cat,
    ClockSignal,
    Elaboratable,
    Instance,
    Module,
    ResetInserter,
    ResetSignal,
    Signal,
    UnusedElaboratable,
    Value,
)
from amaranth.hdl._ir import PortDirection
from amaranth.lib.wiring import Component, Flow

from ..ir.errors import InvariantError

__all__ = ["Modules", "modules", "place"]

C = TypeVar("C", bound=Component)

_PORT = re.compile(r"^(  wire width \d+(?: signed)? )(input|output) (\d+)( +)(\\\S+)$", re.MULTILINE)
_ZERO_INIT = re.compile(
    r"^  cell \$meminit_v2 \S+\n(?:    .*\n)*?    connect \\DATA \d+'0+\n(?:    .*\n)*?  end\n", re.MULTILINE
)
_WIRE = re.compile(r"^(?:  attribute .*\n)*  wire width \d+(?: signed)? ([\\$]\S+)\n", re.MULTILINE)
_NO_WIDTH = re.compile(r"^  wire width 0 \S+\n|^connect \S+ \{  \}\n", re.MULTILINE)
_CONNECT = re.compile(r"^connect ([\\$]\S+) .*\n", re.MULTILINE)
_NAME = re.compile(r"[\\$]\S+")
_COUNTED = re.compile(r"(.*?)(0|[1-9]\d*)")
_MANY = 4
"""Numbered members from which on they are one port."""


class Modules:
    """Modules of one design, as RTLIL text by name; each is converted when it is first instantiated."""

    def __init__(self) -> None:
        self.text: dict[str, str] = {}
        self._ports: dict[str, dict[str, tuple[str, int]]] = {}

    def add(self, name: str, component: Component) -> None:
        """Convert `component`, and whatever it is built of, unless there is a module of that name."""
        ports = {n: (direction, len(value)) for n, direction, value in _flat(component)}
        if name not in self.text:
            _rename(component, "")
            self._ports[name] = ports
            self.text[name] = ""  # a component inside itself would end here
            packed = _Packed(component)
            text = rtlil.convert(
                packed,
                name=name,
                emit_src=False,
                ports={
                    n: (value, PortDirection.Input if direction == "i" else PortDirection.Output)
                    for n, direction, value in packed.ports
                },
            )
            text = _NO_WIDTH.sub("", _ZERO_INIT.sub("", _PORT.sub(_clock_first, text)))
            self.text[name] = "".join(map(_without_aliases, re.split(r"^(?=module )", text, flags=re.M)))
            return
        component._MustUse__used = True  # an equal one was converted in its place
        if self._ports[name] != ports:
            raise InvariantError(f"two different components call themselves {name}: their ports differ")

    def instance(self, m: Module, called: str, component: Component, reset: Value | None) -> Instance:
        """`component` as an instance of its module; its wires in the parent `m` are called after it."""
        name = component.module_name
        self.add(name, component)
        _rename(component, f"{called}_")
        ports: dict[str, Any] = {}
        for n, direction, values in _grouped(component):
            value = values[0]
            if len(values) > 1:
                value = Signal(sum(map(len, values)), name=f"{called}_{n}")
                m.d.comb += value.eq(Cat(values)) if direction == "i" else Cat(values).eq(value)
            ports[f"{direction}_{n}"] = value
        if "\\clk\n" in self.text[name]:
            ports["i_clk"] = ClockSignal()
            ports["i_rst"] = ResetSignal() if reset is None else ResetSignal() | reset
        # Tools warn of a signal that is called as the instance around it is.
        self.text[name] = re.sub(rf"(?<!module )\\{called}(?=\s)", rf"\\its_{called}", self.text[name])
        return Instance(name, **ports)


def _flat(component: Component) -> Iterator[tuple[str, str, Value]]:
    """Name, direction (i, o) and value of each port."""
    seen = set()
    for path, member, value in component.signature.flatten(component):
        name = "_".join(map(str, path))
        if name in seen:
            raise InvariantError(f"{type(component).__name__}: two members are called {name} when flat")
        seen.add(name)
        yield name, "i" if member.flow == Flow.In else "o", Value.cast(value)


def _grouped(component: Component) -> list[tuple[str, str, list[Value]]]:
    """Name, direction and values of each port; numbered members are one."""
    flat = list(_flat(component))
    rows: dict[tuple[str, str, int], dict[int, Value]] = {}
    for name, direction, value in flat:
        if found := _COUNTED.fullmatch(name):
            rows.setdefault((found[1], direction, len(value)), {})[int(found[2])] = value
    taken = {name for name, _, _ in flat}
    out: dict[str, tuple[str, str, list[Value]]] = {}
    for name, direction, value in flat:
        found = _COUNTED.fullmatch(name)
        group = found[1].rstrip("_") if found else ""
        row = rows[found[1], direction, len(value)] if found else {}
        if len(row) >= _MANY and set(row) == set(range(len(row))) and group not in taken:
            out.setdefault(f"{group} {len(value)}", (group, direction, [row[i] for i in range(len(row))]))
        else:
            out[name] = (name, direction, [value])
    names = [name for name, _, _ in out.values()]
    return list(out.values()) if len(set(names)) == len(names) else [(n, d, [v]) for n, d, v in flat]


class _Packed(Elaboratable):
    """A component behind its ports as they are in Verilog."""

    def __init__(self, component: Component) -> None:
        self.component, self.joins = component, []
        self.ports: list[tuple[str, str, Value]] = []
        for name, direction, values in _grouped(component):
            port = values[0]
            if len(values) > 1:
                port = Signal(sum(map(len, values)), name=name)
                self.joins.append(Cat(values).eq(port) if direction == "i" else port.eq(Cat(values)))
            self.ports.append((name, direction, port))

    def elaborate(self, platform: object) -> Module:
        self.component._MustUse__used = True
        m = self.component.elaborate(platform)
        m.d.comb += self.joins
        return m


def _rename(component: Component, prefix: str) -> None:
    """Call the signals of the ports after the ports, so that no second wire stands beside each."""
    for name, _, value in _flat(component):
        if isinstance(value, Signal):
            value.name = prefix + name


def _clock_first(found: re.Match[str]) -> str:
    """Clock and reset lead the port list, the others follow as in the signature."""
    head, kind, number, gap, name = found.groups()
    at = {"\\clk": 1, "\\rst": 2}.get(name, int(number) + 3)
    return f"{head}{kind} {at}{gap}{name}"


def _without_aliases(text: str) -> str:
    """Drop wires that nothing reads: second names of ports, and of memories' ports."""
    dead: set[str] = set()

    def drop(found: re.Match[str]) -> str:
        return "" if found[1] in dead else found[0]

    while True:
        uses = Counter(_NAME.findall(text))
        driven = Counter(found[1] for found in _CONNECT.finditer(text))
        wires = {found[1] for found in _WIRE.finditer(text)}
        dead = {w for w in wires if uses[w] == 1 + driven[w] and driven[w] < 2}
        if not dead:
            return text
        text = _CONNECT.sub(drop, _WIRE.sub(drop, text))


_current: ContextVar[Modules | None] = ContextVar("modules", default=None)


@contextmanager
def modules() -> Iterator[Modules]:
    """While this lasts, `place` instantiates modules of the yielded collection.

    Where it is left by an error, half of a design's parts were never used. Amaranth would warn of each of them, much later
    and at the expense of whoever is running then; the error is enough.
    """
    found = Modules()
    token = _current.set(found)
    try:
        yield found
    except BaseException:
        UnusedElaboratable._MustUse__silence = True  # as it does itself when a program ends by an error
        raise
    finally:
        _current.reset(token)


def place(m: Module, name: str, component: C, *, reset: Signal | None = None) -> C:
    """Add `component` to `m` under `name`, and return it.

    Parameters
    ----------
    component : Component
        Has a property `module_name` that is different for every configuration.
    reset : Signal, optional
        Resets the component's registers, besides the domain's own reset.
    """
    into = _current.get()
    if into is not None:
        taken = any(called == name for called, _, _ in _flat(component))
        called = f"{name}_part" if taken else name  # tools warn of a port that is called as its instance
        m.submodules[called] = into.instance(m, called, component, reset)
    elif reset is not None:
        m.submodules[name] = ResetInserter(reset)(component)
    else:
        m.submodules[name] = component
    return component
