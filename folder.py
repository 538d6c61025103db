"""Folders and files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .ir.errors import ReportError

__all__ = ["MARKS", "write_whole", "written_whole"]

MARKS = ("compiled.json", "summary.json", "manifest.json")
"""A folder that holds one of these is ours, and may be replaced."""


@contextmanager
def written_whole(target: Path, *, keep: tuple[str, ...] = ()) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and vanishes otherwise.

    Parameters
    ----------
    keep : tuple of str
        Names to carry over from the folder that is replaced.

    Raises
    ------
    ReportError
        `target` is a file, a folder with something else in it, or its parent cannot be written.
    """
    target = Path(os.path.abspath(target))
    if target.exists():
        if not target.is_dir():
            raise ReportError(f"{target}: is a file, want a folder; give another one with -o")
        if any(target.iterdir()) and not any((target / mark).exists() for mark in MARKS):
            raise ReportError(
                f"{target}: holds files that are not ours ({next(target.iterdir()).name}, …), and the whole folder would "
                "be replaced; give another one with -o"
            )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ReportError(
            f"{target.parent}: cannot be written ({error.strerror}); give another folder with -o"
        ) from None
    try:
        draft.chmod(0o755)  # mkdtemp gives 0700
        yield draft
        for name in keep:
            if (target / name).is_file() and not (draft / name).exists():
                shutil.copy2(target / name, draft / name)
        _swap(draft, target)
    except OSError as error:
        raise ReportError(
            f"{target}: cannot be written ({error.strerror or error}); nothing was changed"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _swap(draft: Path, target: Path) -> None:
    """Rename `draft` to `target`; what stood there goes only after the new one stands."""
    if not target.exists():
        draft.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old / "was")
    try:
        draft.rename(target)
    except OSError:
        (old / "was").rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write one file whole or not at all.

    Raises
    ------
    ReportError
        It cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ReportError(
            f"{path}: cannot be written ({error.strerror}); give another file with -o"
        ) from None
