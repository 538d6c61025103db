"""The ports of a design's top module, read from its Verilog: what every wrapper around it must agree with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..ir.errors import InvariantError

__all__ = ["Port", "TopPorts", "top_ports"]

_PORT = re.compile(r"^  (input|output) (?:wire |reg )?(?:\[(\d+):0\] )?(\w+);$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Port:
    """A port: ``input`` or ``output``, and its bits."""

    name: str
    direction: str
    width: int


@dataclass(frozen=True)
class TopPorts:
    """All ports of the top module, in the order of the text.

    `control`, `fetch` and `memory` are prefixes of AXI ports: the registers, one a core for instructions, and the data ports.
    """

    ports: tuple[Port, ...]

    def __getitem__(self, name: str) -> Port:
        return next(p for p in self.ports if p.name == name)

    def of(self, prefix: str) -> dict[str, Port]:
        """Ports of a bus, by signal, as ``araddr``."""
        return {p.name[len(prefix) + 1 :]: p for p in self.ports if p.name.startswith(prefix + "_")}

    @property
    def control(self) -> str:
        return "s_axi"

    @property
    def fetch(self) -> tuple[str, ...]:
        """One a core."""
        return tuple(n for n in self._masters if n.startswith("m_axi_fetch"))

    @property
    def memory(self) -> tuple[str, ...]:
        """`dma.ports` a core."""
        return tuple(n for n in self._masters if not n.startswith("m_axi_fetch"))

    @property
    def cores(self) -> int:
        return self["irq"].width

    @property
    def _masters(self) -> tuple[str, ...]:
        return tuple(p.name.removesuffix("_arvalid") for p in self.ports if p.name.endswith("_arvalid") and p.direction == "output")  # fmt: skip


def top_ports(verilog: str, name: str = "dpu_top") -> TopPorts:
    """Ports of the module `name`.

    >>> text = "module dpu_top(clk, irq);\\n  input clk;\\n  output [1:0] irq;\\nendmodule\\n"
    >>> top_ports(text)["irq"]
    Port(name='irq', direction='output', width=2)
    """
    found = re.search(rf"^module {name}\(([^)]*)\);\n(.*?)^endmodule", verilog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise InvariantError(f"the Verilog has no module {name}")
    ports = {n: Port(n, d, int(high or 0) + 1) for d, high, n in _PORT.findall(found[2])}
    order = [n.strip() for n in found[1].split(",")]
    if set(order) != set(ports):
        raise InvariantError(f"ports of {name} without a declaration: {sorted(set(order) ^ set(ports))}")
    return TopPorts(tuple(ports[n] for n in order))
