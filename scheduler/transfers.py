"""LOAD and SAVE instructions: strips of maps between DRAM and their rings."""

from __future__ import annotations

from ..ir.arch import Arch
from ..ir.graph import Graph
from ..ir.isa import Opcode, Region, instruction
from ..ir.layout import blocks, tail
from .layers import Layer
from .memories import Action
from .operands import Rows, Source
from .skipping import skips
from .weights import fold_of

__all__ = ["load_instructions", "save_instructions"]

_IFMAP, _OFMAP = 1, 3
"""Traffic classes, as in `Program.traffic`."""


def load_instructions(
    tensor: str,
    reader: Layer,
    offset: int,
    out: Source,
    rows: Rows,
    cols: Rows,
    index: int,
    graph: Graph,
    arch: Arch,
    *,
    span: Rows | None = None,
) -> list[Action]:
    """LOADs of rows and columns of a map (columns of the reader's output where the ring is folded); of channel blocks `span`, or
    all."""
    skip = skips(reader, graph)
    if out.ring.fold and skip != (1, 1):
        return _skipping(tensor, skip, offset, out, rows, index, graph, arch)
    if out.ring.fold:
        return [_folded(tensor, reader, offset, out, rows, cols, index, graph, arch)]
    h, w, channels = graph.tensors[tensor].shape
    actions = []
    for block, count, take in _pieces(channels, *(span or (0, blocks(channels, arch.lanes))), arch.lanes):
        width = cols[1] - cols[0]
        row = instruction(
            Opcode.LOAD, **out.operand("d", rows[0], cols[0], block),
            **_runs(offset + block * arch.lanes * h * w, count, take, h, w, rows, cols),
            width=width, height=rows[1] - rows[0], blocks=count, take=take, step=take, fold=1, row_bytes=width * take,
        )  # fmt: skip
        actions.append(Action(row, index, _IFMAP))
    return actions


def _skipping(
    tensor: str, skip: Rows, offset: int, out: Source, rows: Rows, index: int, graph: Graph, arch: Arch
) -> list[Action]:
    """LOADs of the pixels that a strided convolution reads, alone."""
    h, w, channels = graph.tensors[tensor].shape
    first, stop = (-(-row // skip[0]) for row in rows)
    width = -(-w // skip[1])
    actions = []
    for block, count, take in _pieces(channels, 0, blocks(channels, arch.lanes), arch.lanes):
        line = w * take
        kept = (width - 1) * skip[1] * take + take  # up to the last column that is read
        base = offset + block * arch.lanes * h * w + first * skip[0] * line
        row = instruction(
            Opcode.LOAD, **out.operand("d", first, 0, block), region=Region.MAPS, address=base, run_bytes=kept,
            runs1=stop - first, stride1=skip[0] * line, runs2=count, stride2=h * line, width=width, height=stop - first,
            blocks=count, take=take, step=skip[1] * take, fold=1, row_bytes=kept,
        )  # fmt: skip
        actions.append(Action(row, index, _IFMAP))
    return actions


def _folded(
    tensor: str,
    reader: Layer,
    offset: int,
    out: Source,
    rows: Rows,
    cols: Rows,
    index: int,
    graph: Graph,
    arch: Arch,
) -> Action:
    """A LOAD that folds kernel columns: one word (or a few) for each output column, holding its window's row."""
    h, w, channels = graph.tensors[tensor].shape
    part = reader.parts[0]
    fold = fold_of(part, channels, arch.lanes)
    assert fold is not None
    sx, pad = part.window.stride[1], part.window.pad[1]
    first = max(0, cols[0] * sx - pad)
    stop = min(w, (cols[1] - 1) * sx - pad + part.window.kernel[1])
    row = instruction(
        Opcode.LOAD, **out.operand("d", rows[0], cols[0]), **_runs(offset, 1, channels, h, w, rows, (first, stop)),
        width=cols[1] - cols[0], height=rows[1] - rows[0], blocks=1, take=fold.columns * channels, step=sx * channels,
        fold=fold.words, fold_pad=(first - (cols[0] * sx - pad)) * channels, row_bytes=(stop - first) * channels,
        za=graph.tensors[tensor].quant.zero_point,
    )  # fmt: skip
    return Action(row, index, _IFMAP)


def save_instructions(
    tensor: str,
    offset: int,
    source: Source,
    rows: Rows,
    cols: Rows,
    span: Rows,
    index: int,
    graph: Graph,
    arch: Arch,
) -> list[Action]:
    """SAVEs of rows, columns and channel blocks `span` of a map."""
    h, w, channels = graph.tensors[tensor].shape
    actions = []
    for block, count, take in _pieces(channels, *span, arch.lanes):
        row = instruction(
            Opcode.SAVE, **source.operand("a", rows[0], cols[0], block),
            **_runs(offset + block * arch.lanes * h * w, count, take, h, w, rows, cols),
            width=cols[1] - cols[0], height=rows[1] - rows[0], blocks=count, take=take,
        )  # fmt: skip
        actions.append(Action(row, index, _OFMAP))
    return actions


def _pieces(channels: int, first: int, stop: int, lanes: int) -> list[tuple[int, int, int]]:
    """Blocks first..stop-1 as (block, count, bytes a pixel): the full ones together, the dense last one alone."""
    total, rest = blocks(channels, lanes), tail(channels, lanes)
    full = total if rest == lanes else total - 1
    pieces = [(first, min(stop, full) - first, lanes), (max(first, full), stop - max(first, full), rest)]
    return [piece for piece in pieces if piece[1] > 0]


def _runs(base: int, count: int, pixel: int, h: int, w: int, rows: Rows, cols: Rows) -> dict[str, int]:
    """DRAM runs of rows and columns of `count` blocks of `pixel` bytes a pixel; whole rows make one run a block."""
    line, run, runs = w * pixel, (cols[1] - cols[0]) * pixel, rows[1] - rows[0]
    if run == line:
        run, runs = run * runs, 1
    return {
        "region": Region.MAPS, "address": base + (rows[0] * w + cols[0]) * pixel, "run_bytes": run, "runs1": runs,
        "stride1": line if runs > 1 else run, "runs2": count, "stride2": h * line,
    }  # fmt: skip
