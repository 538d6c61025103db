"""Durable results: one SQLite file a study, one row a design, committed batch by batch.

The file is in WAL mode with full synchronisation: what `put` returned from is there after kill -9, a full disk or
power loss. A study is resumed by asking which designs are there already.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from .ir.errors import ReportError

__all__ = ["FILE", "Row", "SCHEMA", "Status", "Store"]

FILE = "study.sqlite"
SCHEMA = "tilewright.study/1"
"""Raised whenever a key or a column changes its meaning."""
Status = Literal["evaluated", "infeasible", "failed"]
_BUSY_SECONDS = 10.0

_TABLES = """
CREATE TABLE IF NOT EXISTS study (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS designs (
  design TEXT PRIMARY KEY,     -- hash of everything that is built and run, without networks
  number INTEGER NOT NULL,     -- order of first appearance
  status TEXT NOT NULL,        -- evaluated, infeasible, failed
  reasons TEXT NOT NULL,       -- JSON list of sentences
  choices TEXT NOT NULL,       -- JSON, by axis
  notes TEXT NOT NULL,         -- JSON list: sizes that were adapted
  machine TEXT NOT NULL,       -- JSON: arch, its design hash, board, dram, objective, rounding mode
  resources TEXT NOT NULL,     -- JSON: dsp, bram, uram, lut, ff
  estimate TEXT,               -- JSON: network -> [cycles, dram bytes, energy pJ, MACs]; claim: estimate
  simulated TEXT,              -- the same; of several cores, then frames a cycle of all; claim: simulated
  sqnr TEXT NOT NULL,          -- JSON: network -> dB, where it was asked for
  networks TEXT NOT NULL,      -- JSON: network -> SHA-256 of its int8 graphs
  versions TEXT NOT NULL,      -- JSON: tilewright and the packages below it
  seed INTEGER NOT NULL,
  seconds REAL NOT NULL        -- of work
) WITHOUT ROWID;
"""

Costs = Mapping[str, tuple[float, ...]]
"""Cycles, DRAM bytes, energy in pJ and MACs of a frame, by network."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is known about one design.

    Parameters
    ----------
    design : str
        Its hash, `Point.key`.
    estimate, simulated : dict of network to (cycles, dram bytes, energy pJ, MACs), or None
        Simulated with several cores: a fifth number, frames a cycle of all cores on one memory.
        Two claims, kept apart.
    """

    design: str
    number: int
    status: Status
    choices: dict[str, Any]
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    machine: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, float] = field(default_factory=dict)
    estimate: Costs | None = None
    simulated: Costs | None = None
    sqnr: dict[str, float] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    seconds: float = 0.0


_COLUMNS = tuple(Row.__dataclass_fields__)
_JSON = {c for c in _COLUMNS if c not in {"design", "number", "status", "seed", "seconds"}}
_PUT = (
    f"INSERT INTO designs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    "ON CONFLICT (design) DO UPDATE SET status = excluded.status, reasons = excluded.reasons, "
    "estimate = coalesce(excluded.estimate, estimate), simulated = coalesce(excluded.simulated, simulated), "
    "seconds = excluded.seconds"
)


class Store:
    """The rows of a study.

    Parameters
    ----------
    folder : Path, optional
        Where the file is, or will be; without one the rows live in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.path = folder / FILE if folder is not None else None
        self._lock = _locked(folder) if folder is not None else None
        try:
            self._db = sqlite3.connect(
                str(self.path) if self.path else ":memory:", timeout=_BUSY_SECONDS, isolation_level=None
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            self.close()
            raise self._said(error) from None

    # -- study ---------------------------------------------------------------------------------------------------------
    def facts(self) -> dict[str, Any]:
        """What the study is about, as `tell` wrote it; empty in a new file."""
        return {k: json.loads(v) for k, v in self._run("SELECT key, value FROM study")}

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Write what the study is about."""
        rows = [(k, json.dumps(v, sort_keys=True)) for k, v in facts.items()]
        self._write("INSERT OR REPLACE INTO study VALUES (?, ?)", rows)

    # -- designs -------------------------------------------------------------------------------------------------------
    def put(self, rows: Iterable[Row]) -> None:
        """Insert designs, or complete those that are there; all of them or none.

        Raises
        ------
        ReportError
            The disk is full or cannot be written; what was there stays.
        """
        self._write(_PUT, [tuple(_encoded(row, c) for c in _COLUMNS) for row in rows])

    def rows(self) -> dict[str, Row]:
        """Every design, by hash, in order of appearance."""
        found = self._run(f"SELECT {', '.join(_COLUMNS)} FROM designs ORDER BY number, design")
        return {r[0]: Row(**{c: _decoded(c, v) for c, v in zip(_COLUMNS, r, strict=True)}) for r in found}

    def count(self) -> int:
        """Designs in the file."""
        return int(self._run("SELECT count(*) FROM designs")[0][0])

    def close(self) -> None:
        """Close the file; another run may open it."""
        db, lock = getattr(self, "_db", None), self._lock
        self._lock = None
        if db is not None:
            db.close()
        if lock is not None:
            lock.close()

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(statement, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise self._said(error) from None

    def _run(self, statement: str) -> list[Any]:
        try:
            return self._db.execute(statement).fetchall()
        except sqlite3.Error as error:
            raise self._said(error) from None

    def _said(self, error: sqlite3.Error) -> ReportError:
        text = str(error)
        where = self.path or "study in memory"
        if "full" in text or "disk I/O" in text:
            return ReportError(
                f"{where}: cannot be written ({text}); every design finished before is kept: free some space, then go on "
                "with --resume"
            )
        if "malformed" in text or "not a database" in text:
            return ReportError(f"{where}: is no study, or damaged ({text}); give another folder with -o")
        return ReportError(f"{where}: {text}; give another folder with -o")


def _encoded(row: Row, column: str) -> Any:
    value = getattr(row, column)
    return json.dumps(value, sort_keys=True) if column in _JSON and value is not None else value


def _decoded(column: str, value: Any) -> Any:
    if column not in _JSON or value is None:
        return value
    out = json.loads(value)
    return tuple(out) if isinstance(out, list) else out


def _locked(folder: Path) -> IO[str]:
    """Hold the folder against a second run; the lock goes with the process, however that ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w", encoding="utf-8")
    except OSError as error:
        raise ReportError(
            f"{folder}: cannot be written ({error.strerror}); give another folder with -o"
        ) from None
    try:
        import fcntl
    except ImportError:  # no such locks on this system: SQLite's own keep the file whole
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ReportError(
            f"{folder}: another run works on this study; wait for its end, or give another folder with -o"
        ) from None
    return file
