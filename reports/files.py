"""Writing a report: every file whole or not at all, the same bytes for the same result."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

from ..ir.errors import ReportError
from .figures import FIGURES, draw
from .page import page
from .result import Result
from .tables import layers_csv
from .trace import chrome_trace

__all__ = ["NAMES", "write", "write_bytes"]

NAMES = (
    "summary.json",
    "layers.csv",
    "trace.json",
    "report.html",
    *(f"{figure}.{kind}" for figure in FIGURES for kind in ("svg", "png")),
)
"""What a report consists of."""


def write(
    result: Result,
    directory: str | Path,
    *,
    others: Mapping[str, bytes] | None = None,
    figures: bool = True,
    progress: Callable[[str], None] | None = None,
) -> tuple[str, ...]:
    """Write the report's files.

    Parameters
    ----------
    directory : path
        Made if it is not there; files of these names are replaced, others stay.
    others : mapping of name to bytes, optional
        Files to write beside the report and to list in `summary.json` (program, tiling text, ...).
    figures : bool
        Also draw SVG and PNG files; they take most of the time.
    progress : function of str, optional
        Called with the name of each file before it is made.

    Returns
    -------
    tuple of str
        Names of all files, those of `others` last.

    Raises
    ------
    ReportError
        The directory or a file cannot be written.
    """
    names = [n for n in NAMES if figures or not n.endswith((".svg", ".png"))]
    listed = (*names, *(others or {}))
    makers: dict[str, Callable[[], bytes]] = {
        "layers.csv": lambda: _text(layers_csv(result)),
        "trace.json": lambda: _text(chrome_trace(result)),
        "report.html": lambda: _text(page(result, listed)),
    }
    for figure in FIGURES:
        both = cache(partial(draw, figure, result))
        for kind in ("svg", "png"):
            makers[f"{figure}.{kind}"] = partial(_kind, both, kind)
    makers["summary.json"] = lambda: _text(result.to_json(listed))
    out = Path(directory)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(
            f"{out}: cannot be made: {error.strerror}; give another directory with -o"
        ) from None
    for name in names:
        if progress is not None:
            progress(name)
        write_bytes(out / name, makers[name]())
    for name, data in (others or {}).items():
        write_bytes(out / name, data)
    return listed


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file so that a reader finds the old bytes or the new, never a part.

    Raises
    ------
    ReportError
        The file cannot be written: where, and what the system says.
    """
    scratch = None
    try:
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(scratch, 0o666 & ~_umask())
        os.replace(scratch, path)
    except OSError as error:
        if scratch is not None:
            Path(scratch).unlink(missing_ok=True)
        raise ReportError(
            f"{path}: {len(data):,} bytes cannot be written: {error.strerror}; free some space or give another directory with -o"
        ) from None
    return path


def _kind(both: Callable[[], dict[str, bytes]], kind: str) -> bytes:
    return both()[kind]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _text(text: str) -> bytes:
    """UTF-8; lone surrogates, which a hostile name may hold, become escapes."""
    return text.encode("utf-8", "backslashreplace")
