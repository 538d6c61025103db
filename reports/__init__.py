"""Reports: result values in; a screen, JSON, CSV, a trace, figures and one self-contained page out."""

from __future__ import annotations

from .files import write
from .merge import merge
from .result import Exact, HostSegment, ModelFacts, Result, Segment
from .terminal import screen, summary
from .verdict import Lever, Verdict, verdict

__all__ = [
    "Exact",
    "HostSegment",
    "Lever",
    "ModelFacts",
    "Result",
    "Segment",
    "Verdict",
    "merge",
    "screen",
    "summary",
    "verdict",
    "write",
]
