"""A tiling with a comment on every line: what the layer is, how far its window reaches, how much it holds on chip."""

from __future__ import annotations

from .graph import Add, Conv, ConvTranspose, Graph, Mul, Op, Pool, Window
from .tile import Group, Statement, TileProgram

__all__ = ["annotated"]


def annotated(tiling: TileProgram, graph: Graph, lanes: int) -> str:
    """The tiling's text with comments; `TileProgram.parse` reads the same value from it.

    Parameters
    ----------
    graph : Graph
        The graph that it schedules.
    lanes : int
        Bytes of a map word.
    """
    ops = {op.name: op for op in graph.ops}
    blocks = [f"{str(tiling).splitlines()[0]}  # {graph.name}: {graph.macs / 1e6:,.1f} M MACs"]
    for group in tiling.groups:
        head, *body = str(group).splitlines()
        table = {
            str(s): [*_pieces(s), "# " + _note(s, ops.get(s.layer), graph, lanes)] for s in group.statements
        }
        widths = [max(len(row[i]) for row in table.values()) for i in range(_PIECES)]
        lines = [f"{head}  # {_summary(group, graph, ops, lanes)}"]
        for line in body:
            text, indent = line.strip(), line[: len(line) - len(line.lstrip())]
            row = table.get(text)
            if row is not None:
                cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
                lines.append(indent + " ".join([*cells, row[-1]]).rstrip())
            else:
                lines.append(line)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


_PIECES = 4


def _pieces(s: Statement) -> list[str]:
    """A statement's text in columns: the map, its layer, its ring, the rest."""
    made, comma, rest = str(s).partition(",") if s.kind == "save" else (str(s), "", "")
    if s.kind == "save":
        return [made + comma, "", "", rest.strip()]
    made, arrow, where = made.partition(" -> ")
    made, equals, layer = made.partition(" = ")
    ring, comma, rest = where.partition(",")
    return [made, f"= {layer}" if equals else "", f"-> {ring}{comma}" if arrow else "", rest.strip()]


def _summary(group: Group, graph: Graph, ops: dict[str, Op], lanes: int) -> str:
    rings = sum(s.ring.words for s in group.statements if s.ring is not None)
    macs = sum(graph.macs_of(ops[s.layer]) for s in group.statements if s.layer in ops)
    return f"{macs / 1e6:,.1f} M MACs, {rings * lanes / 1024:,.1f} KiB of rings"


def _note(s: Statement, op: Op | None, graph: Graph, lanes: int) -> str:
    if s.kind == "save":
        return f"{graph.tensors[s.tensor].bytes / 1024:,.1f} KiB to DRAM"
    parts = []
    if op is None:
        parts.append(f"{graph.tensors[s.tensor].bytes / 1024:,.1f} KiB from DRAM")
    elif isinstance(op, Conv | ConvTranspose):
        inputs = graph.tensors[op.inputs[0]].shape[2]
        what = (
            f"depthwise {_window(op.window)}" if isinstance(op, Conv) and op.depthwise else _window(op.window)
        )
        parts.append(f"{what}, {inputs} -> {s.shape[2]} channels")
        parts += _halo(op.window)
    elif isinstance(op, Pool):
        parts.append(f"{op.kind} {_window(op.window)}")
        parts += _halo(op.window) if s.shape[:2] != (1, 1) else []
    else:
        parts.append({Add: "a + b", Mul: "a x b"}.get(type(op), type(op).__name__.lower()))
    if s.ring is not None:
        whole = ", resident" if s.layer and s.ring.rows >= s.shape[0] else ""
        parts.append(f"{s.ring.words * lanes / 1024:,.1f} KiB{whole}")
    return "; ".join(parts)


def _window(window: Window) -> str:
    kernel = "x".join(map(str, window.kernel))
    stride = "x".join(map(str, dict.fromkeys(window.stride)))
    return kernel if window.stride == (1, 1) else f"{kernel}/{stride}"


def _halo(window: Window) -> list[str]:
    """Rows that neighbouring strips share."""
    rows = window.span[0] - window.stride[0]
    return [f"halo {rows} row{'s' if rows > 1 else ''}"] if rows > 0 else []
