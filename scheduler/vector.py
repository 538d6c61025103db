"""VEC instructions: elementwise, pooling, tables, copies, resize."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.errors import InvariantError
from ..ir.graph import Add, Concat, Graph, Mul, Op, Pool, PRelu, Resize, Slice, Table
from ..ir.isa import Memory, Opcode, VecOp, instruction
from ..ir.layout import blocks
from ..ir.requant import MODES
from .constants import Constants
from .memories import Action, Chunk
from .operands import Task, window_axis

__all__ = ["vector_instructions"]


@dataclass(slots=True)
class _Draft:
    """A VEC instruction in the making: its function, its fields, the constants it uses."""

    func: VecOp
    fields: dict[str, int]
    uses: list[tuple[Chunk, str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Site:
    """Where drafts come from."""

    task: Task
    graph: Graph
    arch: Arch
    constants: Constants

    def words(self, name: str, words: NDArray[np.uint32], *more: object) -> Chunk:
        """32-bit words for the vector memory."""
        key = (self.task.layer.name, name, *more)
        data = words.astype("<u4").view(np.uint8)
        return self.constants.chunk(
            key, lambda: data, self.task.kept, Memory.VECTOR, self.task.index, words=len(words)
        )

    def a(self, row: int | None = None, column: int | None = None, block: int = 0) -> dict[str, int]:
        """The first source, at the output's own pixel or another; `block` counts from the first that is made."""
        y, x = self.task.rows[0] if row is None else row, self.task.cols[0] if column is None else column
        return self.task.sources[0].operand("a", y, x, block + self.first)

    @property
    def first(self) -> int:
        """The first channel block that is made."""
        return self.task.span[0] if self.task.span is not None else 0


def vector_instructions(task: Task, graph: Graph, arch: Arch, constants: Constants) -> list[Action]:
    """VECs of a layer's rows and columns."""
    op, site = task.layer.op, _Site(task, graph, arch, constants)
    if isinstance(op, Concat):
        return _concat(site)
    make = _DRAFTS.get(type(op))
    if make is None:
        raise InvariantError(f"{op.name}: no instruction for {type(op).__name__}")
    draft = make(site)
    out = graph.tensors[task.layer.output].shape
    first, stop = task.span or (0, blocks(out[2], arch.lanes))
    extent = {
        "out_h": task.rows[1] - task.rows[0],
        "out_w": task.cols[1] - task.cols[0],
        "blocks": stop - first,
    }
    if draft.func != VecOp.TABLE:
        extent |= {
            "za": graph.tensors[op.inputs[0]].quant.zero_point,
            "zd": graph.tensors[op.output].quant.zero_point,
            "lo": task.layer.low,
            "hi": task.layer.high,
            "mode": MODES.index(task.layer.mode),
        }
    fields = {**task.out.operand("d", task.rows[0], task.cols[0], first), **extent, **draft.fields}
    return [Action(instruction(Opcode.VEC, draft.func, **fields), task.index, 0, draft.uses)]


def _pair(site: _Site) -> _Draft:
    """Add and multiply; the second source may be one pixel."""
    op, task = site.task.layer.op, site.task
    first, second = (site.graph.tensors[name] for name in op.inputs)
    broadcast = second.shape[:2] == (1, 1) and first.shape[:2] != (1, 1)
    b = task.sources[1]
    y, x = (0, b.first) if broadcast else (task.rows[0], task.cols[0])
    operand = b.operand("b", y, x, site.first)
    fields = {**site.a(), **operand, "zb": second.quant.zero_point, "broadcast": int(broadcast)}
    if isinstance(op, Add):
        return _Draft(
            VecOp.ADD, {**fields, "ma": op.multiplier[0], "mb": op.multiplier[1], "shift": op.shift}
        )
    assert isinstance(op, Mul)
    return _Draft(VecOp.MUL, {**fields, "scale": op.scale_word})


def _pool(site: _Site) -> _Draft:
    """Pooling; a global one goes on with its sums from strip to strip (`rows` are then rows of its input)."""
    op, task = site.task.layer.op, site.task
    assert isinstance(op, Pool)
    win, reduces = op.window, task.layer.reduces
    h, w, _ = site.graph.tensors[op.inputs[0]].shape
    out = site.graph.tensors[op.output].shape
    x, pad_left, in_w = window_axis(*task.cols, win.stride[1], win.pad[1], win.span[1], w)
    if reduces:
        y, pad_top, kh = task.rows[0], 0, task.rows[1] - task.rows[0]
        in_h = kh
    else:
        y, pad_top, in_h = window_axis(*task.rows, win.stride[0], win.pad[0], win.span[0], h)
        kh = win.kernel[0]
    # One output row or column takes no step; a global window's stride may be beyond the field.
    sy, sx = (1 if n == 1 else step for n, step in zip(out[:2], win.stride, strict=True))
    fields = {
        **site.a(y, x), "in_h": in_h, "in_w": in_w, "sy": sy, "sx": sx, "dy": win.dilation[0], "dx": win.dilation[1],
        "pad_top": pad_top, "pad_left": pad_left, "kh": kh, "kw": win.kernel[1],
        "first": int(not reduces or task.rows[0] == 0), "last": int(not reduces or task.rows[1] == h),
    }  # fmt: skip
    if reduces:
        fields |= {"out_h": 1, **task.out.operand("d", 0, 0)}
    if op.kind == "max":
        return _Draft(VecOp.MAX, fields)
    if not _divisor_varies(op, h, w):
        return _Draft(VecOp.AVG, {**fields, "scale": op.scale_words[-1]})
    counts = site.words("counts", np.asarray(op.scale_words, np.uint32))
    return _Draft(VecOp.AVG, {**fields, "counted": 1}, [(counts, "v_base", 0)])


def _divisor_varies(op: Pool, h: int, w: int) -> bool:
    """Some window of an average reaches beyond the map, and its divisor depends on that."""
    if len(set(op.scale_words[1:])) == 1:
        return False
    win = op.window
    ends = [
        (n - 1) * s + span - before
        for n, s, span, before in zip(win.output(h, w), win.stride, win.span, win.pad[:2], strict=True)
    ]
    return any(win.pad) or ends[0] > h or ends[1] > w


def _copy(site: _Site) -> _Draft:
    """A table, or a box of the source."""
    op, task = site.task.layer.op, site.task
    if isinstance(op, Table):
        return _Draft(
            VecOp.TABLE, {**site.a(), "sy": 1, "sx": 1}, [(site.constants.table(task, op.values), "table", 1)]
        )
    assert isinstance(op, Slice)
    y, x = (op.start[axis] + first * op.step[axis] for axis, first in enumerate((task.rows[0], task.cols[0])))
    block = op.start[2] // site.arch.lanes
    return _Draft(VecOp.TABLE, {**site.a(y, x, block), "sy": op.step[0], "sx": op.step[1]})


def _prelu(site: _Site) -> _Draft:
    op = site.task.layer.op
    assert isinstance(op, PRelu)
    channels = len(op.slope)
    words = np.zeros(blocks(channels, site.arch.lanes) * site.arch.lanes, np.uint32)
    words[:channels] = op.slope | (op.negative.astype(np.uint32) << np.uint32(31))
    return _Draft(
        VecOp.PRELU,
        {**site.a(), "scale": op.positive},
        [(site.words("slopes", words), "v_base", site.first * site.arch.lanes)],
    )


def _resize(site: _Site) -> _Draft:
    """Row indices are of the map; column indices from the first column that the source's ring holds."""
    op, task = site.task.layer.op, site.task
    assert isinstance(op, Resize)
    h, w, _ = site.graph.tensors[op.inputs[0]].shape
    left = task.sources[0].first
    columns = op.cols[task.cols[0] : task.cols[1]] - np.array([left, 0])
    index = np.concatenate([op.rows, columns]).astype(np.int64)
    chunk = site.words("indices", (index[:, 0] | index[:, 1] << 16).astype(np.uint32), *task.cols, left)
    origin, _ = task.layer.needs(0, *task.rows)
    fields = {
        **site.a(origin, left), "in_h": h, "in_w": w - left, "origin": origin, "scale": op.scale_word,
        "bilinear": int(op.bilinear),
    }  # fmt: skip
    return _Draft(VecOp.RESIZE, fields, [(chunk, "v_base", task.rows[0]), (chunk, "v_cols", len(op.rows))])


def _concat(site: _Site) -> list[Action]:
    """Copies of whole blocks: every piece starts at a block."""
    task, lanes = site.task, site.arch.lanes
    extent = {"out_h": task.rows[1] - task.rows[0], "out_w": task.cols[1] - task.cols[0], "sy": 1, "sx": 1}
    actions, at = [], 0
    for source, name in zip(task.sources, task.layer.inputs, strict=True):
        channels = site.graph.tensors[name].shape[2]
        d = task.out.operand("d", task.rows[0], task.cols[0], at // lanes)
        a = source.operand("a", task.rows[0], task.cols[0])
        row = instruction(Opcode.VEC, VecOp.TABLE, **d, **a, **extent, blocks=blocks(channels, lanes))
        actions.append(Action(row, task.index))
        at += channels
    return actions


_DRAFTS: dict[type[Op], Callable[[_Site], _Draft]] = {
    Add: _pair,
    Mul: _pair,
    Pool: _pool,
    Table: _copy,
    Slice: _copy,
    PRelu: _prelu,
    Resize: _resize,
}
