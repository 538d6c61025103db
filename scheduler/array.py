"""CONV and DWC instructions: the array and the depthwise engine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from ..ir.arch import Arch
from ..ir.depthwise import record_words, tail_taps
from ..ir.errors import ProgramError, ScheduleError
from ..ir.graph import Graph
from ..ir.isa import Memory, Opcode, instruction
from ..ir.layout import blocks
from ..ir.requant import MODES
from .constants import Constants
from .layers import Part
from .memories import Action, Chunk
from .operands import Rows, Task, window_axis
from .ports import free_of_conflicts, read_ways
from .weights import Fold, array_records, depthwise_records, fold_of, parameter_words

__all__ = ["array_instructions", "depthwise_instructions"]

Use = tuple[Chunk, str, int]


def array_instructions(task: Task, p: int, graph: Graph, arch: Arch, constants: Constants) -> list[Action]:
    """CONVs of part `p` of a layer, one for each output chunk."""
    part = task.layer.parts[p]
    tile = _tile(task, part, graph, arch)
    if tile is None:
        return []
    lanes, oc, head = arch.lanes, arch.conv.oc, parameter_words(arch.lanes)
    o, kh, kw, _ = part.weight.shape
    table = _table(task, constants)
    numbers, zero_point = _numbers(task, part, graph)
    record = head + (-(-kh * kw // lanes) if part.depthwise else tile.taps * tile.inputs)
    actions: list[Action] = []
    for b0, b1 in _chunks(task, blocks(o, oc)):
        first = part.offset + b0 * oc
        if part.depthwise and first % lanes:
            raise ProgramError(
                f"{task.layer.name}: chunk {task.statement.chunk} begins at channel {first}, in the middle of a block of {lanes}; "
                f"a depthwise layer on the array takes chunks of whole blocks: a multiple of {lanes // math.gcd(lanes, oc)}"
            )
        target = task.out.operand("d", *tile.target, first // lanes)
        fields = {
            **target,
            **tile.geometry,
            **numbers,
            "lane0": first % lanes,
            "out_c": min(o, b1 * oc) - b0 * oc,
        }
        if not part.depthwise and record * (b1 - b0) > arch.weight_words:
            actions += _split_reduction(task, p, tile, (b0, b1), fields, zero_point, table, arch, constants)
            continue
        chunk = constants.chunk(
            (task.layer.name, p, b0, b1, tile.fold is not None),
            partial(array_records, part, arch, zero_point, task.layer.name, b0, b1, fold=tile.fold),
            task.kept, Memory.WEIGHTS, task.index, words=(b1 - b0) * record, records=b1 - b0, record_rows=record,
            tail_take=(kh * kw - 1) % lanes + 1 if part.depthwise else lanes,
        )  # fmt: skip
        source_block = tile.lead + (b0 * oc // lanes if part.depthwise else 0)
        a = task.sources[part.source].operand("a", *tile.source, source_block)
        row = instruction(
            Opcode.CONV, **{**fields, **a, "blocks": max(tile.inputs, 1), "first": 1, "last": 1}
        )
        actions.append(Action(row, task.index, 0, [(chunk, "w_base", 0), *table]))
    return actions


@dataclass(frozen=True, slots=True)
class _Tile:
    """Geometry of a part's tile.

    Parameters
    ----------
    source, target : (row, column)
        First input pixel, first output pixel of the map.
    lead, inputs : int
        First block of the source, and blocks that are summed over (0: depthwise).
    taps : int
        Kernel taps as the array runs them.
    """

    geometry: dict[str, int]
    source: Rows
    target: Rows
    fold: Fold | None
    lead: int
    inputs: int
    taps: int


def _tile(task: Task, part: Part, graph: Graph, arch: Arch) -> _Tile | None:
    """None where no output of the part falls into the rows and columns."""
    (r0, r1), (c0, c1) = part.clip(0, *task.rows), part.clip(1, *task.cols)
    if r1 <= r0 or c1 <= c0:
        return None
    source, win = task.sources[part.source], part.window
    h, w, channels = graph.tensors[task.layer.inputs[part.source]].shape
    _, kh, kw, _ = part.weight.shape
    row, pad_top, in_h = window_axis(r0, r1, win.stride[0], win.pad[0], win.span[0], h)
    fold = fold_of(part, channels, arch.lanes) if source.ring.fold else None
    if fold is not None:
        column, pad_left, in_w, kw, sx, dx = c0, 0, c1 - c0, 1, 1, 1
        lead, inputs = 0, fold.words
    else:
        column, pad_left, in_w = window_axis(c0, c1, win.stride[1], win.pad[1], win.span[1], w)
        sx, dx = win.stride[1], win.dilation[1]
        first, stop = part.channels
        lead = first // arch.lanes
        inputs = 0 if part.depthwise else blocks(first % arch.lanes + stop - first, arch.lanes)
    target = part.origin[0] + part.step[0] * r0, part.origin[1] + part.step[1] * c0
    geometry = {
        "out_h": r1 - r0, "out_w": c1 - c0, "in_h": in_h, "in_w": in_w, "sy": win.stride[0], "sx": sx,
        "dy": win.dilation[0], "dx": dx, "pad_top": pad_top, "pad_left": pad_left, "kh": kh, "kw": kw,
        "step_y": part.step[0], "step_x": part.step[1], "diagonal": int(part.depthwise),
    }  # fmt: skip
    geometry |= _packing(geometry, task, part, row - pad_top, target[0], arch)
    return _Tile(geometry, (row, column), target, fold, lead, inputs, kh * kw)


def _packing(
    geometry: dict[str, int], task: Task, part: Part, row: int, out_row: int, arch: Arch
) -> dict[str, int]:
    """Pack pixels over rows where that saves blocks and no bank is asked twice."""
    n, drain, banks = arch.conv.pixels, arch.conv.drain, arch.banks
    h, w, sy, sx = (geometry[name] for name in ("out_h", "out_w", "sy", "sx"))
    plain = {
        "packed": 0,
        "ways": read_ways(n, sx, banks),
        "drain_ways": read_ways(drain, part.step[1], banks),
    }
    if -(-h * w // n) >= h * -(-w // n):
        return plain
    source = task.sources[part.source]
    a, d = source.ring, task.out.ring
    reads = all(
        free_of_conflicts(h, w, n, n, sy, sx, a.pitch, a.rows, source.row(row + ky * geometry["dy"]), banks)
        for ky in range(geometry["kh"])
    )
    writes = free_of_conflicts(h, w, n, drain, *part.step, d.pitch, d.rows, task.out.row(out_row), banks)
    return {"packed": 1, "ways": 1, "drain_ways": 1} if reads and writes else plain


def _split_reduction(
    task: Task, p: int, tile: _Tile, span: Rows, fields: dict[str, int], zero_point: int, table: list[Use], arch: Arch,
    constants: Constants,
) -> list[Action]:  # fmt: skip
    """One output block whose record exceeds the weight memory: its input channels in several instructions."""
    part, head = task.layer.parts[p], parameter_words(arch.lanes)
    most = (arch.weight_words // 2 - head) // tile.taps
    pixels, record = fields["out_h"] * fields["out_w"], head + tile.taps * tile.inputs
    if span[1] - span[0] > 1 or most < 1 or pixels > arch.conv.pixels:
        raise ScheduleError(
            f"{task.layer.name}: an output block needs {record} weight words, {arch.name} has {arch.weight_words}, and its "
            f"{pixels} output pixels are more than the {arch.conv.pixels} that can wait in accumulators; raise weights.kib "
            f"to {-(-record * arch.lanes * arch.conv.oc // 1024)}",
            node=task.layer.name,
            demand=record,
            bound=arch.weight_words,
        )
    if not fields["packed"] and fields["out_h"] > 1:  # one block all the same: pixels take turns at the banks
        fields = {**fields, "packed": 1, "ways": arch.conv.pixels, "drain_ways": arch.conv.drain}
    actions = []
    for i0 in range(0, tile.inputs, most):
        i1 = min(i0 + most, tile.inputs)
        words = head + tile.taps * (i1 - i0)
        chunk = constants.chunk(
            (task.layer.name, p, span[0], i0, i1, "split"),
            partial(array_records, part, arch, zero_point, task.layer.name, *span, fold=tile.fold, inputs=(i0, i1)),
            None, Memory.WEIGHTS, task.index, words=words, records=1, record_rows=words, tail_take=arch.lanes,
        )  # fmt: skip
        a = task.sources[part.source].operand("a", *tile.source, tile.lead + i0)
        last = i1 == tile.inputs
        row = instruction(
            Opcode.CONV, **{**fields, **a, "blocks": i1 - i0, "first": int(i0 == 0), "last": int(last)}
        )
        actions.append(Action(row, task.index, 0, [(chunk, "w_base", 0), *(table if last else [])]))
    return actions


def depthwise_instructions(
    task: Task, p: int, graph: Graph, arch: Arch, constants: Constants
) -> list[Action]:
    """DWCs of part `p` of a layer, one for each chunk of channel blocks."""
    part, name = task.layer.parts[p], task.layer.name
    win = part.window
    h, w, _ = graph.tensors[task.layer.inputs[0]].shape
    o, kh, kw, _ = part.weight.shape
    row, pad_top, in_h = window_axis(*task.rows, win.stride[0], win.pad[0], win.span[0], h)
    column, pad_left, in_w = window_axis(*task.cols, win.stride[1], win.pad[1], win.span[1], w)
    numbers, zero_point = _numbers(task, part, graph)
    record = record_words(arch, kh, kw)
    table = _table(task, constants)
    actions = []
    for b0, b1 in _chunks(task, blocks(o, arch.lanes)):
        chunk = constants.chunk(
            (name, p, b0, b1), partial(depthwise_records, part, arch, zero_point, name, b0, b1), task.kept,
            Memory.DEPTHWISE, task.index, words=(b1 - b0) * record, records=b1 - b0, record_rows=record,
            tail_take=tail_taps(arch.dwc.taps, kh, kw),
        )  # fmt: skip
        instruction_ = instruction(
            Opcode.DWC, **task.out.operand("d", task.rows[0], task.cols[0], b0), **task.sources[0].operand("a", row, column, b0),
            **numbers, out_h=task.rows[1] - task.rows[0], out_w=task.cols[1] - task.cols[0], in_h=in_h, in_w=in_w,
            sy=win.stride[0], sx=win.stride[1], dy=win.dilation[0], dx=win.dilation[1], pad_top=pad_top, pad_left=pad_left,
            kh=kh, kw=kw, blocks=b1 - b0,
        )  # fmt: skip
        actions.append(Action(instruction_, task.index, 0, [(chunk, "w_base", 0), *table]))
    return actions


def _numbers(task: Task, part: Part, graph: Graph) -> tuple[dict[str, int], int]:
    """Range fields, and the zero point that the bias takes in."""
    layer = task.layer
    za = graph.tensors[layer.inputs[part.source]].quant.zero_point
    zd = 0 if part.raw else graph.tensors[layer.op.output].quant.zero_point
    pad = part.pad_value if part.pad_value is not None else (0 if part.raw else za)
    return {"za": pad, "zd": zd, "lo": layer.low, "hi": layer.high, "mode": MODES.index(layer.mode)}, za


def _table(task: Task, constants: Constants) -> list[Use]:
    """The lookup that follows in the drain."""
    values = task.layer.table
    return [] if values is None else [(constants.table(task, values), "table", 1)]


def _chunks(task: Task, total: int) -> Iterator[Rows]:
    """Block ranges of the instructions: all chunks, or the one that the task is for."""
    size = task.statement.chunk or total
    for first in range(0, total, size) if task.only is None else (task.only * size,):
        if first < total:
            yield first, min(first + size, total)
