"""FPGA resources of a design: DSP, BRAM and UltraRAM as Yosys counts them, LUT and FF estimated (`fabric`)."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.arch import Arch
from ..ir.board import Board
from .fabric import block_ram, dsp_slices, logic

__all__ = ["ResourceUse", "fits", "flip_flops", "resources", "resources_of"]


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """One FPGA resource.

    Parameters
    ----------
    available : float or None
        On the board; None without a board.
    exact : bool
        Counted from the structure; otherwise estimated.
    """

    resource: str
    used: float
    available: float | None = None
    exact: bool = True


def flip_flops(arch: Arch) -> int:
    """Flip-flops of a core outside its DSP slices, estimated: as on 7-series, where Yosys puts those of products inside."""
    return round(sum(ff for _, ff in logic(arch, "7series").values()))


def resources_of(arch: Arch, family: str, uram: int, board: Board | None = None) -> tuple[ResourceUse, ...]:
    """What all cores of a design use on a family of `Board`, where each may use `uram` UltraRAM."""
    n = arch.cores
    bram, ultra = block_ram(arch, uram)
    parts = logic(arch, family).values()
    have = (board.dsp, board.bram36, board.uram, board.lut, board.ff) if board is not None else (None,) * 5
    return (
        ResourceUse("DSP", n * sum(dsp_slices(arch, family).values()), have[0]),
        ResourceUse("BRAM36", n * bram, have[1]),
        ResourceUse("URAM", n * ultra, have[2]),
        ResourceUse("LUT", n * round(sum(lut for lut, _ in parts)), have[3], exact=False),
        ResourceUse("FF", n * round(sum(ff for _, ff in parts)), have[4], exact=False),
    )


def resources(arch: Arch, board: Board | None = None) -> tuple[ResourceUse, ...]:
    """What all cores of a design use, and what the board has; without a board, on UltraScale+ without UltraRAM.

    >>> [r.used for r in resources(Arch.preset("b512-nodw")) if r.resource == "DSP"]
    [210]
    """
    if board is None:
        return resources_of(arch, "ultrascale+", 0)
    return resources_of(arch, board.family, board.uram // arch.cores, board)


_LEVERS = {
    "DSP": "a smaller array, fewer dwc.taps or a smaller conv.drain",
    "BRAM36": "a smaller maps.kib or weights.kib",
    "URAM": "a smaller weights.kib",
    "LUT": "a smaller array, conv.drain or fewer weights.tables",
    "FF": "a smaller array or conv.drain",
}


def fits(arch: Arch, board: Board) -> tuple[str, ...]:
    """Why the design does not fit the board, one sentence each; empty where it does."""
    out = []
    for use in resources(arch, board):
        if use.available is not None and use.used > use.available:
            mark = "" if use.exact else " (estimated)"
            out.append(
                f"{arch.name} needs {use.used:,g}{mark} {use.resource}, {board.name} has {use.available:,g}: "
                f"{_LEVERS[use.resource]} would help"
            )
    if arch.clock_mhz > board.clock_max_mhz:
        out.append(
            f"{arch.name} runs at {arch.clock_mhz:g} MHz, RAM of {board.part} ends at {board.clock_max_mhz:g} MHz: "
            "lower clock_mhz"
        )
    if arch.cores * arch.dma.ports > board.ports:
        out.append(
            f"{arch.name} has {arch.cores} x {arch.dma.ports} ports, {board.name} offers {board.ports}: lower dma.ports"
        )
    if arch.dma.bits > board.port_bits:
        out.append(
            f"{arch.name} has ports of {arch.dma.bits} bit, those of {board.name} are {board.port_bits}: "
            f"set dma.bits = {board.port_bits}"
        )
    if arch.dma.burst > board.port_burst:
        out.append(
            f"{arch.name} bursts {arch.dma.burst} beats, ports of {board.name} take {board.port_burst}: "
            f"set dma.burst = {board.port_burst}"
        )
    return tuple(out)
