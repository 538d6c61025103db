"""Tables of Markdown pages that scripts refresh a row at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ["read_rows", "write_table"]


def read_rows(page: Path, columns: Sequence[str]) -> dict[str, str]:
    """Lines of the page's table by their first cell; none where the page is new or its columns were others."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    _, found, body = text.partition(_head(columns))
    lines = body.splitlines() if found else []
    return {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}


def write_table(
    page: Path, head: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]], order: Iterable[str]
) -> None:
    """Write the page anew with these rows, by their first cell; rows of `order` that are not given stay."""
    lines = read_rows(page, columns)
    lines |= {name: f"| {' | '.join((name, *cells))} |" for name, cells in rows.items()}
    body = "\n".join(lines[name] for name in order if name in lines)
    page.write_text(f"{head}\n{_head(columns)}{body}\n", encoding="utf-8")


def _head(columns: Sequence[str]) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
