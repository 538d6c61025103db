"""The error tree.

TilewrightError                 the user can mend it: exit code 2
├── ModelError                  the ONNX file, its shapes, its calibration data
├── ArchError                   a machine or board description
├── ScheduleError               a layer that does not fit the machine
├── ProgramError                an edited tiling or program that is illegal
├── SimulationError             a memory or timing setting that makes no sense
├── RtlError                    hardware generation, synthesis, co-simulation
└── ReportError                 a result file that cannot be read or written
InvariantError                  our own bug: exit code 70
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ArchError",
    "InvariantError",
    "ModelError",
    "ProgramError",
    "ReportError",
    "RtlError",
    "ScheduleError",
    "SimulationError",
    "TilewrightError",
]


class TilewrightError(Exception):
    """Something the user can mend; the message says where, what, both numbers, and what would help.

    Parameters
    ----------
    message : str
        One paragraph.
    **facts
        The numbers and names behind the message, kept as attributes in `facts`.
    """

    exit_code = 2

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts


class ModelError(TilewrightError):
    """The model, its shapes or its calibration data."""


class ArchError(TilewrightError):
    """A machine or board description."""


class ScheduleError(TilewrightError):
    """A layer that does not fit the machine: resource, demand, bound, lever."""


class ProgramError(TilewrightError):
    """An illegal tiling IR text or instruction stream."""


class SimulationError(TilewrightError):
    """A memory or timing setting that makes no sense."""


class RtlError(TilewrightError):
    """Hardware generation, synthesis or co-simulation."""


class ReportError(TilewrightError):
    """A result that cannot be read or written."""


class InvariantError(Exception):
    """A bug of ours; please report it."""

    exit_code = 70
