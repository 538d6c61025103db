"""The register map as one HTML page, for the reader beside the board: no script, no file beside it."""

from __future__ import annotations

from html import escape

from .register_map import BLOCK_BYTES, REGISTERS, Access, Register

__all__ = ["register_page"]

_ACCESS = {
    Access.READ: "read",
    Access.WRITE: "read, write",
    Access.PULSE: "write 1 to act",
    Access.CLEAR: "read, write 1 to clear",
}
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;padding:.25rem .6rem;text-align:left;"
    "vertical-align:top}td:first-child,td.bits{font-family:ui-monospace,monospace;white-space:nowrap}"
    "tr.field td{border-bottom:0;padding-top:0;color:#444}"
)


def register_page(title: str, cores: int = 1) -> str:
    """The page.

    >>> "<td>0x048</td><td>ERROR_CAUSE</td>" in register_page("b512")
    True
    """
    note = (
        f"<p>Core <i>c</i> of {cores} has its registers at <i>c</i> × 0x{BLOCK_BYTES:X}.</p>"
        if cores > 1
        else ""
    )
    rows = "\n".join(row for r in REGISTERS for row in _rows(r))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: registers</title>\n'
        f"<style>{_STYLE}</style></head><body>\n<h1>{escape(title)}: registers</h1>\n"
        "<p>32-bit registers over AXI4-Lite; bytes are little-endian; bits that are not named read as 0.</p>\n"
        f"{note}\n<table><thead><tr><th>Offset</th><th>Name</th><th>Access</th><th>Reset</th><th>Meaning</th></tr></thead>"
        f"\n<tbody>\n{rows}\n</tbody></table>\n</body></html>\n"
    )


def _rows(r: Register) -> list[str]:
    head = (
        f"<tr><td>0x{r.offset:03X}</td><td>{r.name}</td><td>{_ACCESS[r.access]}</td><td>0x{r.reset:X}</td>"
        f"<td>{escape(r.meaning)}</td></tr>"
    )
    fields = [
        f'<tr class="field"><td></td><td class="bits">{_span(f.low, f.width)} {f.name}</td><td></td><td></td>'
        f"<td>{escape(f.meaning)}</td></tr>"
        for f in r.fields
    ]
    return [head, *fields]


def _span(low: int, width: int) -> str:
    return f"[{low}]" if width == 1 else f"[{low + width - 1}:{low}]"
