"""The energy roofline's line, from the frame's own energy.

After Choi et al. (IPDPS 2013): energy an operation is ``e_op + e_byte / intensity``, where static power is charged to
the operations. Here ``e_byte`` is the frame's DRAM energy over its DRAM bytes, and ``e_op`` all the rest over its
operations, so the line goes through the network's own point; layers lie off it as far as they are unlike the average.
"""

from __future__ import annotations

from dataclasses import dataclass

from .result import Result

__all__ = ["EnergyLine", "energy_line"]


@dataclass(frozen=True, slots=True)
class EnergyLine:
    """``op_pj + byte_pj / intensity``.

    Parameters
    ----------
    op_pj : float
        Everything but DRAM, a operation.
    byte_pj : float
        DRAM, a byte.
    intensity : float
        Of the network, operations a byte; 0 where nothing moves or nothing is computed.
    static_pj : float
        The part of `op_pj` that flows whatever runs; the energies of layers leave it out.
    """

    op_pj: float
    byte_pj: float
    intensity: float
    static_pj: float = 0.0

    @property
    def balance(self) -> float:
        """Intensity at which both terms are equal; 0 where either is missing."""
        return self.byte_pj / self.op_pj if self.op_pj else 0.0

    def at(self, intensity: float) -> float:
        """Picojoules an operation at this intensity."""
        return self.op_pj + self.byte_pj / intensity

    def dynamic(self, intensity: float) -> float:
        """The same without `static_pj`."""
        return self.at(intensity) - self.static_pj

    def __str__(self) -> str:
        return f"{self.op_pj:.3g} pJ/op + {self.byte_pj:.3g} pJ/B / intensity"


def energy_line(result: Result) -> EnergyLine:
    """The line of a frame."""
    total = result.total
    ops, moved = 2 * total.macs, total.dram_bytes["total"]
    dram = total.energy.components.get("dram", 0.0)
    return EnergyLine(
        op_pj=1e9 * (total.energy.total_mj - dram) / ops if ops else 0.0,
        byte_pj=1e9 * dram / moved if moved else 0.0,
        intensity=ops / moved if ops and moved else 0.0,
        static_pj=1e9 * total.energy.components.get("static", 0.0) / ops if ops else 0.0,
    )
