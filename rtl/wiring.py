"""Which port of the core goes to which port of the board, and at which address: decided once, for every kind of design."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.board import Board, System
from ..ir.errors import RtlError
from .register_map import BLOCK_BYTES
from .top_ports import TopPorts

__all__ = ["Wiring", "register_bytes", "wire"]


def register_bytes(cores: int) -> int:
    """Address space of the registers of a design: a power of two.

    >>> register_bytes(3)
    16384
    """
    return BLOCK_BYTES << (cores - 1).bit_length()


@dataclass(frozen=True)
class Wiring:
    """A core on a board.

    Parameters
    ----------
    memory : dict of slave port of the board to master ports of the core
        Only slave ports that are used, in the board's order; the fetch ports come last of theirs.
    registers : (address, bytes)
    interrupts : (address, bytes)
        Of the interrupt controller; only where a processor listens.
    """

    system: System
    memory: dict[str, tuple[str, ...]]
    registers: tuple[int, int]
    interrupts: tuple[int, int]
    cores: int


def wire(board: Board, ports: TopPorts) -> Wiring:
    """Deal the data ports to the board's memory ports in turn; instructions have their own port where there is one.

    Raises
    ------
    RtlError
        The board's table says nothing about ports.
    """
    system = board.system
    if system is None:
        raise RtlError(
            f"board {board.name}: its table has no [{board.name}.system], so there is nothing to connect the core to; "
            "`tilewright board show kv260 --json` shows one",
            board=board.name,
        )
    slaves: dict[str, list[str]] = {
        name: [] for name in (*system.memory, *([system.fetch] if system.fetch else []))
    }
    for i, master in enumerate(ports.memory):
        slaves[system.memory[i % len(system.memory)]].append(master)
    for master in ports.fetch:
        slaves[system.fetch or system.memory[0]].append(master)
    return Wiring(
        system=system,
        memory={slave: tuple(masters) for slave, masters in slaves.items() if masters},
        registers=(system.registers, register_bytes(ports.cores)),
        interrupts=(system.registers + 0x1_0000, 0x1_0000),  # an AXI INTC takes 64 KB at least (PG099)
        cores=ports.cores,
    )
