"""A real sweep with real workers, killed at random moments; `tests/kills.py` does it a hundred times."""

from __future__ import annotations

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parent / "kills.py"


def test_a_killed_sweep_loses_no_finished_design_and_ends_as_if_undisturbed(tmp_path: Path) -> None:
    kills = runpy.run_path(str(SCRIPT))
    found = kills["campaign"](2, jobs=1, real=True, seed=5, longest=0.6, place=tmp_path)
    assert found.kills == 2
    assert found.at_work >= 1
    assert (found.lost, found.different) == (0, 0)
