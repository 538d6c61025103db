"""What the command line shows: stages while it works, then text for a reader or one JSON object for a script."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .cli_options import Common

__all__ = ["emit", "staged", "table"]


@contextmanager
def staged(common: Common) -> Iterator[Callable[[str], None]]:
    """A callable that takes the name of each stage as it starts, and shows it with its time on standard error.

    Silent with ``-q`` and ``--json``, and where standard error is no terminal.
    """
    if common.quiet or common.json or not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
        tasks: list[Any] = []

        def stage(name: str) -> None:
            if tasks:
                progress.update(tasks[-1], total=1, completed=1)
            tasks.append(progress.add_task(name, total=None))

        yield stage


def emit(common: Common, value: dict[str, Any], text: str | Callable[[], str]) -> None:
    """The answer of a verb: `value` as the only JSON object on standard output, or `text`."""
    if common.json:
        print(json.dumps(value, indent=1, sort_keys=True))
    elif not common.quiet:
        print(text if isinstance(text, str) else text())


def table(rows: Sequence[tuple[str, ...]], *, head: tuple[str, ...] = (), indent: str = "  ") -> str:
    """Rows as columns of text, as wide as they need; the last column is not padded.

    >>> print(table([("b512", "256"), ("b4096", "2048")], head=("name", "MACs a cycle")))
      name   MACs a cycle
      b512   256
      b4096  2048
    """
    every = [*([head] if head else []), *rows]
    if not every:
        return ""
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))]
    lines = []
    for row in every:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append((indent + "  ".join([*cells, row[-1]])).rstrip())
    return "\n".join(lines)
