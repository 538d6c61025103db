"""The longest logic paths between registers, module by module: multipliers, carry bits, LUT levels.

The design as it goes to Verilog is walked bit by bit, before any synthesis. What is counted on a path:

- *multipliers*: products of two values of more than three bits;
- *carry bits*: how far carries travel in adders, subtractors and comparisons. Bit i of a sum waits for bits below it only,
  so a second adder behind a first one adds a bit or two, not its width, as in hardware;
- *levels*: six-input LUTs, estimated: a gate of n inputs counts log n / log 6, so that two-input gates in a row share
  LUTs; an adder, a multiplier and a read of a LUT RAM count one.

A path through a module's port goes on in the module around it: a module tells how late its outputs come, how much lies
behind its inputs, and what goes from inputs to outputs, port by port. Place and route has the last word on speed.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import log
from typing import Any

from amaranth._toolchain.yosys import _BuiltinYosys

from ..ir.arch import Arch
from .core import DpuTop
from .hierarchy import modules

__all__ = ["LONGEST_CARRY", "LogicPath", "logic_paths"]

LONGEST_CARRY = 32
"""Carry bits on a path, a multiplier counting as many: what 300 MHz leave room for on UltraScale+ of speed grade 2."""

_SMALL_FACTOR = 3
_CARRY = {"$add", "$sub", "$neg"}
_COMPARE = {"$lt", "$le", "$gt", "$ge"}
_BITWISE = {"$and", "$or", "$xor", "$xnor", "$not", "$mux", "$pos"}
_REGISTER = "clock"
"""Source of a path that begins at a register."""

_Bit = int | str


@dataclass(frozen=True, slots=True)
class LogicPath:
    """What lies between two registers.

    Parameters
    ----------
    module : str
        The module in which the path's parts meet.
    start, end : str
        Registers, or ports of the module, by their places in it.
    """

    module: str
    start: str
    end: str
    multipliers: int
    carry: int
    levels: float

    @property
    def weight(self) -> int:
        """Carry bits, a multiplier counting `LONGEST_CARRY`."""
        return LONGEST_CARRY * self.multipliers + self.carry


@dataclass(frozen=True, slots=True)
class _Way:
    """A way up to some bit."""

    start: str = ""
    multipliers: int = 0
    carry: int = 0
    levels: float = 0.0

    def on(self, levels: float = 0.0, carry: int = 0, multipliers: int = 0) -> _Way:
        return _Way(self.start, self.multipliers + multipliers, self.carry + carry, self.levels + levels)

    def weight(self) -> tuple[float, float]:
        return LONGEST_CARRY * self.multipliers + self.carry, self.levels

    def depth(self) -> tuple[float, float]:
        return self.levels, LONGEST_CARRY * self.multipliers + self.carry


_Ways = dict[str, _Way]
"""The worst way from each source: a register, or an input port."""


@dataclass(slots=True)
class _Summary:
    """What a module is to the one around it."""

    outputs: dict[str, _Ways] = field(default_factory=dict)
    inputs: dict[str, _Way] = field(default_factory=dict)
    """What lies behind a port; `start` is where it ends."""
    worst: tuple[_Way, str] = (_Way(), "")


def logic_paths(arch: Arch, mac: str = "plain", uram: int = 0) -> tuple[LogicPath, ...]:
    """The path of most weight, and the one of most levels, of every module; the heaviest first."""
    with modules() as found:
        found.add("dpu_top", DpuTop(arch, mac, uram))
    script = "read_rtlil <<rtlil\n{}\nrtlil\nproc\nmemory_collect\nwrite_json\n"
    told = _BuiltinYosys.run(["-q", "-"], script.format("\n".join(found.text.values())), ignore_warnings=True)
    netlist = json.loads(told)["modules"]
    out = []
    for by in ("weight", "depth"):
        known: dict[str, _Summary] = {}
        for name in _bottom_up(netlist):
            known[name] = summary = _Walk(netlist[name], known, by).summary()
            way, end = summary.worst
            if end:
                out.append(LogicPath(name, way.start, end, way.multipliers, way.carry, round(way.levels, 1)))
    return tuple(sorted(dict.fromkeys(out), key=lambda p: (-p.weight, -p.levels, p.module)))


def _bottom_up(netlist: dict[str, Any]) -> Iterator[str]:
    done: set[str] = set()

    def visit(name: str) -> Iterator[str]:
        if name not in done:
            done.add(name)
            for cell in netlist[name]["cells"].values():
                if cell["type"] in netlist:
                    yield from visit(cell["type"])
            yield name

    for name in netlist:
        yield from visit(name)


@dataclass(slots=True)
class _Node:
    """Output bits, and what they wait for."""

    kind: str
    cell: dict[str, Any]
    name: str
    outputs: list[_Bit]
    inputs: list[_Bit]
    port: str = ""


class _Walk:
    """One module, from its sources to its ends."""

    def __init__(self, module: dict[str, Any], known: dict[str, _Summary], by: str) -> None:
        self.module, self.known = module, known
        self.key = _Way.weight if by == "weight" else _Way.depth
        self.ways: dict[_Bit, _Ways] = {}
        self.names: dict[_Bit, str] = {}
        for name, net in sorted(module["netnames"].items(), key=lambda n: (n[1]["hide_name"], len(n[0]))):
            for bit in net["bits"]:
                self.names.setdefault(bit, name)
        self.result = _Summary()

    def summary(self) -> _Summary:
        nodes: list[_Node] = []
        for name, port in self.module["ports"].items():
            if port["direction"] == "input":
                for bit in port["bits"]:
                    self.ways[bit] = {name: _Way(name)}
        for name, cell in self.module["cells"].items():
            nodes += self._nodes(name, cell)
        self._propagate(nodes)
        for name, cell in self.module["cells"].items():
            self._ends(name, cell)
        for name, port in self.module["ports"].items():
            if port["direction"] == "output":
                self.result.outputs[name] = self._worst(port["bits"])
                for way in self.result.outputs[name].values():
                    self._judge(way, name)
        return self.result

    # -- from cell to cell ---------------------------------------------------------------------------------------------
    def _nodes(self, name: str, cell: dict[str, Any]) -> Iterator[_Node]:
        kind, wires = cell["type"], cell["connections"]
        if kind in self.known:
            for port, ways in self.known[kind].outputs.items():
                inputs = [bit for source in ways if source != _REGISTER for bit in wires.get(source, ())]
                yield _Node("module", cell, name, wires.get(port, []), inputs, port)
        elif kind.startswith("$mem"):
            yield from self._reads(name, cell)
        elif kind in {"$dff", "$dffe", "$sdff", "$sdffe", "$adff"}:
            for bit in wires["Q"]:
                self.ways[bit] = {_REGISTER: _Way(self.names.get(bit, name))}
        elif "Y" in wires:
            inputs = [bit for port, bits in wires.items() if port != "Y" for bit in bits]
            yield _Node("gate", cell, name, wires["Y"], inputs)

    def _reads(self, name: str, cell: dict[str, Any]) -> Iterator[_Node]:
        wires, parameters = cell["connections"], cell["parameters"]
        width, bits = int(parameters["WIDTH"], 2), int(parameters["ABITS"], 2)
        clocked = parameters["RD_CLK_ENABLE"][::-1]
        for p in range(int(parameters["RD_PORTS"], 2)):
            data = wires["RD_DATA"][p * width : (p + 1) * width]
            if clocked[p] == "1":
                self.ways.update((bit, {_REGISTER: _Way(f"{name} (memory)")}) for bit in data)
            else:
                yield _Node("read", cell, name, data, wires["RD_ADDR"][p * bits : (p + 1) * bits])

    def _propagate(self, nodes: list[_Node]) -> None:
        driver = {bit: i for i, node in enumerate(nodes) for bit in node.outputs}
        waits = [{driver[b] for b in node.inputs if b in driver} - {i} for i, node in enumerate(nodes)]
        readers: dict[int, list[int]] = defaultdict(list)
        for i, needed in enumerate(waits):
            for n in needed:
                readers[n].append(i)
        left = [len(needed) for needed in waits]
        ready = deque(i for i, n in enumerate(left) if not n)
        done = [False] * len(nodes)
        while True:
            while ready:
                i = ready.popleft()
                if not done[i]:
                    done[i] = True
                    self._node(nodes[i])
                    for r in readers[i]:
                        left[r] -= 1
                        if not left[r]:
                            ready.append(r)
            # Ports are taken whole, so two modules may seem to wait for each other: one of them goes first.
            rest = [i for i in range(len(nodes)) if not done[i]]
            if not rest:
                return
            ready.append(min(rest, key=lambda i: left[i]))

    def _node(self, node: _Node) -> None:
        wires = node.cell["connections"]
        if node.kind == "module":
            found: _Ways = {}
            for source, inner in self.known[node.cell["type"]].outputs[node.port].items():
                if source == _REGISTER:
                    ways = {_REGISTER: _Way(f"{node.name}.{inner.start}")}
                else:
                    ways = self._worst(wires.get(source, ()))
                for outer, way in ways.items():
                    self._keep(found, outer, way.on(inner.levels, inner.carry, inner.multipliers))
            self.ways.update((bit, found) for bit in node.outputs)
            return
        kind = node.cell["type"]
        if node.kind == "read":
            found = self._onto(self._worst(node.inputs), levels=1.0)
            self.ways.update((bit, found) for bit in node.outputs)
        elif kind in _BITWISE:
            levels = {"$not": 0.0, "$pos": 0.0, "$mux": _levels(3)}.get(kind, _levels(2))
            common = self._worst(wires.get("S", ()))
            for i, bit in enumerate(node.outputs):
                own = [wires[p][i] for p in ("A", "B") if p in wires and i < len(wires[p])]
                self.ways[bit] = self._onto(self._merged([self._worst(own), common]), levels)
        elif kind in _CARRY:
            below: _Ways = {}
            for i, bit in enumerate(node.outputs):
                own = [wires[p][i] for p in ("A", "B") if p in wires and i < len(wires[p])]
                below = self._merged([self._onto(below, carry=1), self._worst(own)])
                self.ways[bit] = self._onto(below, levels=1.0)
        else:
            inputs = self._worst(node.inputs)
            if kind in _COMPARE:
                found = self._compared(node.cell)
            elif kind == "$mul":
                small = min(sum(isinstance(b, int) for b in wires[p]) for p in "AB") <= _SMALL_FACTOR
                found = (
                    self._onto(inputs, 1.0, carry=len(node.outputs))
                    if small
                    else self._onto(inputs, 1.0, multipliers=1)
                )
            elif kind in {"$shl", "$shr", "$sshl", "$sshr", "$shift", "$shiftx"}:
                found = self._onto(inputs, len(wires["B"]) * _levels(3))
            else:  # reductions, equality, choices of many
                found = self._onto(inputs, _levels(len(node.inputs)))
            self.ways.update((bit, found) for bit in node.outputs)

    def _compared(self, cell: dict[str, Any]) -> _Ways:
        """A comparison: a carry from the lowest bits up; with 0, the sign alone."""
        a, b = cell["connections"]["A"], cell["connections"]["B"]
        signed = cell["parameters"]["A_SIGNED"].endswith("1")
        if signed and cell["type"] in {"$lt", "$ge"} and set(b) == {"0"}:
            return self._worst(a[-1:])
        below: _Ways = {}
        for i in range(max(len(a), len(b))):
            below = self._merged([self._onto(below, carry=1), self._worst([*a[i : i + 1], *b[i : i + 1]])])
        return self._onto(below, levels=1.0)

    # -- where paths end ------------------------------------------------------------------------------------------------
    def _ends(self, name: str, cell: dict[str, Any]) -> None:
        kind, wires = cell["type"], cell["connections"]
        if kind in self.known:
            for port, behind in self.known[kind].inputs.items():
                for way in self._worst(wires.get(port, ())).values():
                    whole = way.on(behind.levels, behind.carry, behind.multipliers)
                    self._end(whole, f"{name}.{behind.start}")
        elif kind.startswith("$mem"):
            ports = [p for p in wires if p.startswith("WR_") and not p.endswith("CLK")]
            ports += ["RD_ADDR", "RD_EN"] if "1" in cell["parameters"]["RD_CLK_ENABLE"] else []
            for port in ports:
                for way in self._worst(wires[port]).values():
                    self._end(way, f"{name} (memory)")
        elif kind.startswith(("$dff", "$sdff", "$adff")):
            for port in set(wires) - {"Q", "CLK"}:
                for way in self._worst(wires[port]).values():
                    self._end(way, self.names.get(wires["Q"][0], name))

    def _end(self, way: _Way, end: str) -> None:
        """`way` ends at a register."""
        self._judge(way, end)
        if way.start in self.module["ports"] and self.module["ports"][way.start]["direction"] == "input":
            behind = _Way(end, way.multipliers, way.carry, way.levels)
            self._keep(self.result.inputs, way.start, behind)

    def _judge(self, way: _Way, end: str) -> None:
        if not self.result.worst[1] or self.key(way) > self.key(self.result.worst[0]):
            self.result.worst = way, end

    # -- sets of ways -------------------------------------------------------------------------------------------------------
    def _keep(self, ways: _Ways, source: str, way: _Way) -> None:
        if source not in ways or self.key(way) > self.key(ways[source]):
            ways[source] = way

    def _worst(self, bits: Iterable[_Bit]) -> _Ways:
        return self._merged([self.ways[b] for b in dict.fromkeys(bits) if b in self.ways])

    def _merged(self, sets: list[_Ways]) -> _Ways:
        if len(sets) == 1:
            return sets[0]
        found: _Ways = {}
        seen: set[int] = set()
        for ways in sets:
            if id(ways) not in seen:
                seen.add(id(ways))
                for source, way in ways.items():
                    self._keep(found, source, way)
        return found

    def _onto(self, ways: _Ways, levels: float = 0.0, carry: int = 0, multipliers: int = 0) -> _Ways:
        return {source: way.on(levels, carry, multipliers) for source, way in ways.items()}


def _levels(inputs: int) -> float:
    """LUT levels of a gate, so that small gates in a row share one."""
    return log(max(2, inputs)) / log(6)
