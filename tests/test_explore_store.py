"""Durable results: what was stored stays, whatever happens next."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from tilewright.explore_store import FILE, Row, Store
from tilewright.ir.errors import ReportError

ROW = Row(
    "a" * 20,
    3,
    "evaluated",
    {"conv.ic": 8},
    notes=("smaller",),
    machine={"clock_mhz": 300.0},
    resources={"dsp": 192},
    estimate={"tiny": (100, 200, 3.5, 400)},
    networks={"tiny": "f" * 64},
    versions={"tilewright": "0"},
    seed=7,
    seconds=0.25,
)


def rows(folder: Path) -> dict[str, Row]:
    store = Store(folder)
    try:
        return store.rows()
    finally:
        store.close()


def test_a_row_comes_back_as_it_went_and_claims_stay_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put([ROW])
    store.put([replace(ROW, estimate=None, simulated={"tiny": (110, 200, 3.6, 400)})])
    store.close()
    (row,) = rows(tmp_path).values()
    assert {k: list(v) for k, v in (row.estimate or {}).items()} == {"tiny": [100, 200, 3.5, 400]}
    assert {k: list(v) for k, v in (row.simulated or {}).items()} == {"tiny": [110, 200, 3.6, 400]}
    assert replace(row, estimate=ROW.estimate, simulated=None) == ROW


def test_the_file_is_in_wal_mode_and_one_row_a_design(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put([ROW, replace(ROW, design="b" * 20)])
    store.put([ROW])
    assert store.count() == 2
    with sqlite3.connect(tmp_path / FILE) as other:  # a reader may look while it is written
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("SELECT count(*) FROM designs").fetchone() == (2,)
    other.close()
    store.close()


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    """SQLite's own limit of pages stands for the disk's end."""
    store = Store(tmp_path)
    store.put([ROW])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 1}")
    many = [replace(ROW, design=f"{i:020d}", number=i, reasons=("x" * 500,)) for i in range(200)]
    with pytest.raises(ReportError, match=r"every design finished before is kept: free some space.*--resume"):
        store.put(many)
    assert store.count() == 1, "all of a batch or none of it"
    store._db.execute("PRAGMA max_page_count = 100000")
    store.put(many)
    store.close()
    assert len(rows(tmp_path)) == 201


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ReportError, match="another run works on this study"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database at all, but long enough to be one" * 100)
    with pytest.raises(ReportError, match="is no study, or damaged"):
        Store(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ReportError, match="cannot be written"):
        Store(tmp_path / "file" / "study")
