"""Instructions of one statement and strip: operands from rings, geometry from windows, constants as chunks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.errors import InvariantError, ProgramError, ScheduleError
from ..ir.graph import Add, Concat, Graph, Mul, Pool, PRelu, Resize, Slice, Table
from ..ir.isa import Memory, Opcode, Region, VecOp, instruction
from ..ir.layout import blocks, tail
from ..ir.requant import MODES
from ..ir.tile import Ring, Statement
from .layers import Layer, Part
from .memories import Action, Chunk
from .ports import free_of_conflicts, read_ways
from .weights import array_records, depthwise_records, fold_of, parameter_words

__all__ = ["Builder", "Source"]

Rows = tuple[int, int]
_IFMAP, _OFMAP = 1, 3


@dataclass(frozen=True, slots=True)
class Source:
    """A ring in force, and the first column of the map that it holds."""

    ring: Ring
    first: int

    def operand(self, prefix: str, row: int, column: int, block: int = 0) -> dict[str, int]:
        """Fields of the operand whose row 0 is map row `row`, column 0 map column `column`."""
        r = self.ring
        return {
            f"{prefix}_group": r.group,
            f"{prefix}_base": r.base + block * r.plane + column - self.first,
            f"{prefix}_pitch": r.pitch,
            f"{prefix}_plane": r.plane,
            f"{prefix}_rows": r.rows,
            f"{prefix}_row0": row % r.rows,
        }


def _window_axis(low: int, high: int, stride: int, pad: int, span: int, size: int) -> tuple[int, int, int]:
    """First input index, padding before it, and valid indices from it, for window positions low..high-1."""
    first = low * stride - pad
    before = max(0, -first)
    start = min(max(first, 0), size - 1)
    stop = min(size, (high - 1) * stride - pad + span)
    if first >= size:  # every tap lies beyond the map
        return size - 1, 0, 0
    return start, before, max(0, stop - start)


class Builder:
    """Makes instructions, and keeps the weights image that their FILLs read."""

    def __init__(self, arch: Arch, graph: Graph) -> None:
        self.arch, self.graph = arch, graph
        self._parts: list[NDArray[np.uint8]] = []
        self._bytes = 0
        self._images: dict[tuple[object, ...], tuple[int, int]] = {}

    def image(self) -> NDArray[np.uint8]:
        """The DRAM weights region."""
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.uint8)

    # -- constants ---------------------------------------------------------------------------------------------------
    def _store(self, key: tuple[object, ...], make: Callable[[], NDArray[np.uint8]]) -> tuple[int, int]:
        """Address and size of constants in the weights region, written at their first use."""
        if key not in self._images:
            data = make()
            pad = -len(data) % 16  # FILLs start at a 128-bit beat
            self._images[key] = (self._bytes, len(data))
            self._parts += [data, np.zeros(pad, np.uint8)] if pad else [data]
            self._bytes += len(data) + pad
        return self._images[key]

    def _chunk(
        self,
        key: tuple[object, ...],
        make: Callable[[], NDArray[np.uint8]],
        kept: dict[tuple[object, ...], list[Chunk]] | None,
        memory: Memory,
        layer: int,
        **shape: int,
    ) -> Chunk:
        """The chunk of this key; one object for all uses where it is resident (`kept`), else a new one a use."""
        if kept is not None and key in kept:
            return kept[key][0]
        address, size = self._store(key, make)
        chunk = Chunk(memory, address=address, size=size, layer=layer, **shape)
        if kept is not None:
            kept[key] = [chunk]
        return chunk

    # -- layers ------------------------------------------------------------------------------------------------------
    def compute(
        self, s: Statement, layer: Layer, sources: tuple[Source, ...], out: Source, rows: Rows, cols: Rows | None,
        index: int, only: int | None, kept: dict[tuple[object, ...], list[Chunk]],
    ) -> list[Action]:  # fmt: skip
        """Instructions that make output rows (and columns) of a layer."""
        columns = cols or (0, self.graph.tensors[layer.output].shape[1])
        common = (s, layer, sources, out, rows, columns, index, kept if s.weights == "resident" else None)
        if not layer.parts:
            return self._vector(*common)
        actions = []
        for p, part in enumerate(layer.parts):
            if s.kind == "dwc":
                actions += self._depthwise(p, part, only, *common)
            else:
                actions += self._array(p, part, only, *common)
        return actions

    def _numbers(self, layer: Layer, part: Part) -> tuple[dict[str, int], int]:
        """Range fields, and the zero point that the bias takes in."""
        za = self.graph.tensors[layer.inputs[part.source]].quant.zero_point
        zd = 0 if part.raw else self.graph.tensors[layer.op.output].quant.zero_point
        pad = part.pad_value if part.pad_value is not None else (0 if part.raw else za)
        fields = {"za": pad, "zd": zd, "lo": layer.low, "hi": layer.high, "mode": MODES.index(layer.mode)}
        return fields, za

    def _table(
        self,
        layer: Layer,
        index: int,
        kept: dict[tuple[object, ...], list[Chunk]] | None,
        values: tuple[int, ...],
    ) -> Chunk:
        def make() -> NDArray[np.uint8]:
            return np.asarray(values, np.int8).view(np.uint8)

        return self._chunk(("table", layer.name), make, kept, Memory.TABLES, index, words=1)

    def _span(self, chunk: int, only: int | None, total: int) -> list[tuple[int, int]]:
        """Block ranges of the instructions: all chunks, or one of them."""
        size = chunk or total
        starts = range(0, total, size) if only is None else [only * size]
        return [(b, min(b + size, total)) for b in starts if b < total]

    def _array(
        self, p: int, part: Part, only: int | None, s: Statement, layer: Layer, sources: tuple[Source, ...], out: Source,
        rows: Rows, cols: Rows, index: int, kept: dict[tuple[object, ...], list[Chunk]] | None,
    ) -> list[Action]:  # fmt: skip
        arch, lanes, oc = self.arch, self.arch.lanes, self.arch.conv.oc
        (r0, r1), (c0, c1) = part.clip(0, *rows), part.clip(1, *cols)
        if r1 <= r0 or c1 <= c0:
            return []
        source = sources[part.source]
        h, w, channels = self.graph.tensors[layer.inputs[part.source]].shape
        win = part.window
        o, kh, kw, _ = part.weight.shape
        fold = fold_of(part, channels, lanes) if source.ring.fold else None
        row, pad_top, in_h = _window_axis(r0, r1, win.stride[0], win.pad[0], win.span[0], h)
        if fold is not None:
            column, pad_left, in_w, kw_, sx, dx = c0, 0, c1 - c0, 1, 1, 1
            lead, inputs = 0, fold.words
        else:
            column, pad_left, in_w = _window_axis(c0, c1, win.stride[1], win.pad[1], win.span[1], w)
            kw_, sx, dx = kw, win.stride[1], win.dilation[1]
            lead = part.channels[0] // lanes
            inputs = (
                0
                if part.depthwise
                else -(-(part.channels[0] % lanes + part.channels[1] - part.channels[0]) // lanes)
            )
        fields, zero_point = self._numbers(layer, part)
        geometry = {
            "out_h": r1 - r0, "out_w": c1 - c0, "in_h": in_h, "in_w": in_w, "sy": win.stride[0], "sx": sx,
            "dy": win.dilation[0], "dx": dx, "pad_top": pad_top, "pad_left": pad_left, "kh": kh, "kw": kw_,
            "step_y": part.step[0], "step_x": part.step[1], "diagonal": int(part.depthwise),
        }  # fmt: skip
        geometry |= self._packing(
            r1 - r0,
            c1 - c0,
            kh,
            win.dilation[0],
            win.stride[0],
            sx,
            source,
            row - pad_top,
            out,
            rows[0],
            part,
        )
        table = (
            [(self._table(layer, index, kept, layer.table), "table", 1)] if layer.table is not None else []
        )
        head = parameter_words(lanes)
        actions = []
        for b0, b1 in self._span(s.chunk, only, blocks(o, oc)):
            first_c = part.offset + b0 * oc
            if part.depthwise and first_c % lanes:
                raise ProgramError(
                    f"{layer.name}: chunk {s.chunk} begins at channel {first_c}, in the middle of a block of {lanes}; a depthwise layer "
                    f"on the array takes chunks of whole blocks: a multiple of {lanes // math.gcd(lanes, oc)}"
                )
            target = out.operand(
                "d", part.origin[0] + part.step[0] * r0, part.origin[1] + part.step[1] * c0, first_c // lanes
            )
            here = {
                **target,
                **geometry,
                **fields,
                "lane0": first_c % lanes,
                "out_c": min(o, b1 * oc) - b0 * oc,
            }
            per = -(-kh * kw // lanes) if part.depthwise else kh * kw_ * inputs
            if not part.depthwise and (head + per) * (b1 - b0) > arch.weight_words:
                actions += self._split_reduction(
                    p,
                    part,
                    layer,
                    index,
                    fold,
                    b0,
                    b1,
                    inputs,
                    kh * kw_,
                    here,
                    source,
                    row,
                    column,
                    lead,
                    zero_point,
                    table,
                )
                continue
            tail_take = (kh * kw - 1) % lanes + 1 if part.depthwise else lanes
            chunk = self._chunk(
                (layer.name, p, b0, b1, fold is not None),
                lambda b0=b0, b1=b1: array_records(part, arch, zero_point, layer.name, b0, b1, fold=fold),
                kept, Memory.WEIGHTS, index, words=(b1 - b0) * (head + per), records=b1 - b0, record_rows=head + per, tail_take=tail_take,
            )  # fmt: skip
            source_block = lead + (b0 * oc // lanes if part.depthwise else 0)
            a = source.operand("a", row, column, source_block)
            row_ = instruction(Opcode.CONV, **{**here, **a, "blocks": max(inputs, 1), "first": 1, "last": 1})
            actions.append(Action(row_, index, 0, [(chunk, "w_base", 0), *table]))
        return actions

    def _packing(
        self,
        h: int,
        w: int,
        kh: int,
        dy: int,
        sy: int,
        sx: int,
        source: Source,
        row: int,
        out: Source,
        out_row: int,
        part: Part,
    ) -> dict[str, int]:
        """Pack pixels over rows where that saves blocks and no bank is asked twice."""
        n, drain = self.arch.conv.pixels, self.arch.conv.drain
        banks = self.arch.banks
        plain = {
            "packed": 0,
            "ways": read_ways(n, sx, banks),
            "drain_ways": read_ways(drain, part.step[1], banks),
        }
        if -(-h * w // n) >= h * -(-w // n):
            return plain
        reads = all(
            free_of_conflicts(
                h,
                w,
                n,
                sy,
                sx,
                source.ring.pitch,
                source.ring.rows,
                (row + ky * dy) % source.ring.rows,
                banks,
            )
            for ky in range(kh)
        )
        writes = free_of_conflicts(
            h, w, drain, *part.step, out.ring.pitch, out.ring.rows, out_row % out.ring.rows, banks
        )
        return {"packed": 1, "ways": 1, "drain_ways": 1} if reads and writes else plain

    def _split_reduction(
        self, p: int, part: Part, layer: Layer, index: int, fold: Any, b0: int, b1: int, inputs: int, taps: int,
        here: dict[str, int], source: Source, row: int, column: int, lead: int, zero_point: int, table: list[tuple[Chunk, str, int]],
    ) -> list[Action]:  # fmt: skip
        """One output block whose record exceeds the weight memory: its input channels in several instructions."""
        arch, lanes, head = self.arch, self.arch.lanes, parameter_words(self.arch.lanes)
        most = (arch.weight_words // 2 - head) // taps
        pixels = here["out_h"] * here["out_w"]
        if b1 - b0 > 1 or most < 1 or pixels > arch.conv.pixels:
            raise ScheduleError(
                f"{layer.name}: an output block needs {(head + taps * inputs)} weight words, {arch.name} has {arch.weight_words}, and its "
                f"{pixels} output pixels are more than the {arch.conv.pixels} that can wait in accumulators; raise weights.kib "
                f"to {-(-(head + taps * inputs) * lanes * arch.conv.oc // 1024)}",
                node=layer.name, demand=head + taps * inputs, bound=arch.weight_words,
            )  # fmt: skip
        actions = []
        for i0 in range(0, inputs, most):
            i1 = min(i0 + most, inputs)
            rows = head + taps * (i1 - i0)
            chunk = self._chunk(
                (layer.name, p, b0, i0, i1, "split"),
                lambda i0=i0, i1=i1: array_records(part, arch, zero_point, layer.name, b0, b1, fold=fold, inputs=(i0, i1)),
                None, Memory.WEIGHTS, index, words=rows, records=1, record_rows=rows, tail_take=lanes,
            )  # fmt: skip
            a = source.operand("a", row, column, lead + i0)
            last = int(i1 == inputs)
            fields = {
                **here,
                **a,
                "blocks": i1 - i0,
                "first": int(i0 == 0),
                "last": last,
                "packed": 1,
                "ways": here["ways"],
            }
            actions.append(
                Action(
                    instruction(Opcode.CONV, **fields),
                    index,
                    0,
                    [(chunk, "w_base", 0), *(table if last else [])],
                )
            )
        return actions

    def _depthwise(
        self, p: int, part: Part, only: int | None, s: Statement, layer: Layer, sources: tuple[Source, ...], out: Source,
        rows: Rows, cols: Rows, index: int, kept: dict[tuple[object, ...], list[Chunk]] | None,
    ) -> list[Action]:  # fmt: skip
        arch, win = self.arch, part.window
        h, w, _ = self.graph.tensors[layer.inputs[0]].shape
        o, kh, kw, _ = part.weight.shape
        row, pad_top, in_h = _window_axis(*rows, win.stride[0], win.pad[0], win.span[0], h)
        column, pad_left, in_w = _window_axis(*cols, win.stride[1], win.pad[1], win.span[1], w)
        fields, zero_point = self._numbers(layer, part)
        record = 1 + -(-kh * kw // 8)
        table = (
            [(self._table(layer, index, kept, layer.table), "table", 1)] if layer.table is not None else []
        )
        actions = []
        for b0, b1 in self._span(s.chunk, only, blocks(o, arch.lanes)):
            chunk = self._chunk(
                (layer.name, p, b0, b1),
                lambda b0=b0, b1=b1: depthwise_records(part, arch, zero_point, layer.name, b0, b1),
                kept, Memory.DEPTHWISE, index, words=(b1 - b0) * record, records=b1 - b0, record_rows=record,
                tail_take=(kh * kw - 1) % 8 + 1,
            )  # fmt: skip
            row_ = instruction(
                Opcode.DWC,
                **out.operand("d", rows[0], cols[0], b0), **sources[0].operand("a", row, column, b0), **fields,
                out_h=rows[1] - rows[0], out_w=cols[1] - cols[0], in_h=in_h, in_w=in_w, sy=win.stride[0], sx=win.stride[1],
                dy=win.dilation[0], dx=win.dilation[1], pad_top=pad_top, pad_left=pad_left, kh=kh, kw=kw, blocks=b1 - b0,
            )  # fmt: skip
            actions.append(Action(row_, index, 0, [(chunk, "w_base", 0), *table]))
        return actions

    # -- elementwise, pooling, tables, resize ------------------------------------------------------------------------
    def _vector(
        self, s: Statement, layer: Layer, sources: tuple[Source, ...], out: Source, rows: Rows, cols: Rows, index: int,
        kept: dict[tuple[object, ...], list[Chunk]] | None,
    ) -> list[Action]:  # fmt: skip
        del s
        op, arch = layer.op, self.arch
        tensors = self.graph.tensors
        quants = [tensors[i].quant for i in layer.inputs]
        h, w, channels = tensors[layer.inputs[0]].shape
        nb = blocks(channels, arch.lanes)
        extent = {"out_h": rows[1] - rows[0], "out_w": cols[1] - cols[0], "blocks": nb}
        target = out.operand("d", rows[0], cols[0])
        numbers = {
            "za": quants[0].zero_point, "zd": tensors[op.output].quant.zero_point, "lo": layer.low, "hi": layer.high,
            "mode": MODES.index(layer.mode),
        }  # fmt: skip
        uses: list[tuple[Chunk, str, int]] = []
        if isinstance(op, Concat):
            return self._concat(layer, sources, out, rows, cols, index)
        if isinstance(op, (Add, Mul)):
            broadcast = tensors[op.inputs[1]].shape[:2] == (1, 1) and (h, w) != (1, 1)
            b = sources[1].operand(
                "b", 0 if broadcast else rows[0], sources[1].first if broadcast else cols[0]
            )
            scale = (
                {"ma": op.multiplier[0], "mb": op.multiplier[1], "shift": op.shift}
                if isinstance(op, Add)
                else {"scale": op.scale_word}
            )
            func = VecOp.ADD if isinstance(op, Add) else VecOp.MUL
            a = sources[0].operand("a", rows[0], cols[0])
            row = instruction(
                Opcode.VEC,
                func,
                **target,
                **a,
                **b,
                **extent,
                **numbers,
                zb=quants[1].zero_point,
                broadcast=int(broadcast),
                **scale,
            )
        elif isinstance(op, Pool):
            win = op.window
            kh = win.kernel[0]
            if layer.reduces:  # `rows` are of the input: a strip of the one window
                (y, stop), pad_top = rows, 0
                kh = in_h = stop - y
                extent["out_h"] = 1
                target = out.operand("d", 0, 0)
            else:
                y, pad_top, in_h = _window_axis(*rows, win.stride[0], win.pad[0], win.span[0], h)
            x, pad_left, in_w = _window_axis(*cols, win.stride[1], win.pad[1], win.span[1], w)
            sy, sx = (
                1 if n == 1 else st for n, st in zip(tensors[op.output].shape[:2], win.stride, strict=True)
            )
            geometry = {
                "in_h": in_h, "in_w": in_w, "sy": sy, "sx": sx, "dy": win.dilation[0], "dx": win.dilation[1],
                "pad_top": pad_top, "pad_left": pad_left, "kh": kh, "kw": win.kernel[1],
                "first": int(not layer.reduces or rows[0] == 0), "last": int(not layer.reduces or rows[1] == h),
            }  # fmt: skip
            extra: dict[str, int] = {}
            if op.kind == "avg":
                counted = (len(set(op.scale_words[1:])) > 1 and any(win.pad)) or self._cut(op, h, w)
                extra = {"scale": 0 if counted else op.scale_words[-1], "counted": int(counted)}
                if counted:
                    words = np.asarray(op.scale_words, "<u4").view(np.uint8)
                    chunk = self._chunk(
                        (layer.name, "counts"),
                        lambda: words,
                        kept,
                        Memory.VECTOR,
                        index,
                        words=len(op.scale_words),
                    )
                    uses.append((chunk, "v_base", 0))
            func = VecOp.AVG if op.kind == "avg" else VecOp.MAX
            row = instruction(
                Opcode.VEC,
                func,
                **target,
                **sources[0].operand("a", y, x),
                **extent,
                **geometry,
                **numbers,
                **extra,
            )
        elif isinstance(op, (Table, Slice)):
            start, step = (op.start, op.step) if isinstance(op, Slice) else ((0, 0, 0), (1, 1, 1))
            y, x = start[0] + rows[0] * step[0], start[1] + cols[0] * step[1]
            extent["blocks"] = blocks(tensors[op.output].shape[2], arch.lanes)
            if isinstance(op, Table):
                uses.append((self._table(layer, index, kept, op.values), "table", 1))
            a = sources[0].operand("a", y, x, start[2] // arch.lanes)
            row = instruction(Opcode.VEC, VecOp.TABLE, **target, **a, **extent, sy=step[0], sx=step[1])
        elif isinstance(op, PRelu):
            words = np.zeros(nb * arch.lanes, "<u4")
            words[:channels] = op.slope | (op.negative.astype(np.uint32) << np.uint32(31))
            chunk = self._chunk(
                (layer.name, "slopes"),
                lambda: words.view(np.uint8),
                kept,
                Memory.VECTOR,
                index,
                words=len(words),
            )
            uses.append((chunk, "v_base", 0))
            a = sources[0].operand("a", rows[0], cols[0])
            row = instruction(Opcode.VEC, VecOp.PRELU, **target, **a, **extent, **numbers, scale=op.positive)
        elif isinstance(op, Resize):
            index_words = np.concatenate([op.rows, op.cols]).astype(np.int64)
            words = (index_words[:, 0] | index_words[:, 1] << 16).astype("<u4")
            chunk = self._chunk(
                (layer.name, "indices"),
                lambda: words.view(np.uint8),
                kept,
                Memory.VECTOR,
                index,
                words=len(words),
            )
            uses += [(chunk, "v_base", rows[0]), (chunk, "v_cols", len(op.rows) + cols[0])]
            origin, _ = layer.needs(0, *rows)
            a = sources[0].operand("a", origin, sources[0].first)
            row = instruction(
                Opcode.VEC, VecOp.RESIZE, **target, **a, **extent, **numbers, in_h=h, in_w=w, origin=origin, scale=op.scale_word,
                bilinear=int(op.bilinear),
            )  # fmt: skip
        else:
            raise InvariantError(f"{op.name}: no instruction for {type(op).__name__}")
        return [Action(row, index, 0, uses)]

    def _cut(self, op: Pool, h: int, w: int) -> bool:
        """Some window of an average reaches beyond the map, and its divisor depends on that."""
        oh, ow = op.window.output(h, w)
        beyond = (oh - 1) * op.window.stride[0] + op.window.span[0] - op.window.pad[0] > h
        beyond |= (ow - 1) * op.window.stride[1] + op.window.span[1] - op.window.pad[1] > w
        return bool(beyond) and len(set(op.scale_words[1:])) > 1

    def _concat(
        self, layer: Layer, sources: tuple[Source, ...], out: Source, rows: Rows, cols: Rows, index: int
    ) -> list[Action]:
        """Copies of whole blocks: every piece starts at a block."""
        actions, at = [], 0
        for k, name in enumerate(layer.inputs):
            channels = self.graph.tensors[name].shape[2]
            nb = blocks(channels, self.arch.lanes)
            d, a = (
                out.operand("d", rows[0], cols[0], at // self.arch.lanes),
                sources[k].operand("a", rows[0], cols[0]),
            )
            extent = {"out_h": rows[1] - rows[0], "out_w": cols[1] - cols[0], "blocks": nb, "sy": 1, "sx": 1}
            actions.append(Action(instruction(Opcode.VEC, VecOp.TABLE, **d, **a, **extent), index))
            at += channels
        return actions

    # -- DRAM --------------------------------------------------------------------------------------------------------
    def load(
        self, s: Statement, reader: Layer, offset: int, out: Source, rows: Rows, cols: Rows, index: int
    ) -> list[Action]:
        """LOADs of rows and columns of a map (columns of the reader's output where the ring is folded)."""
        lanes = self.arch.lanes
        h, w, channels = self.graph.tensors[s.tensor].shape
        if out.ring.fold:
            part = reader.parts[0]
            fold = fold_of(part, channels, lanes)
            assert fold is not None
            sx, pad = part.window.stride[1], part.window.pad[1]
            first = max(0, cols[0] * sx - pad)
            stop = min(w, (cols[1] - 1) * sx - pad + part.window.kernel[1])
            step, take = sx * channels, fold.columns * channels
            stream = {
                "width": cols[1] - cols[0], "take": take, "step": step, "fold": fold.words,
                "fold_pad": first * channels - (cols[0] * sx - pad) * channels, "row_bytes": (stop - first) * channels,
                "za": self.graph.tensors[s.tensor].quant.zero_point,
            }  # fmt: skip
            pieces = [(0, 1, channels, stream)]
        else:
            first, stop = cols
            full, rest = channels // lanes, channels % lanes
            pieces = []
            for block, count, take in ((0, full, lanes), (full, 1 if rest else 0, rest)):
                if count:
                    stream = {
                        "width": stop - first,
                        "take": take,
                        "step": take,
                        "fold": 1,
                        "row_bytes": (stop - first) * take,
                    }
                    pieces.append((block, count, take, stream))
        actions = []
        for block, count, pixel, stream in pieces:
            dram = self._dram(offset, block, count, pixel, h, w, rows, (first, stop))
            target = out.operand("d", rows[0], cols[0] if out.ring.fold else first, block)
            row = instruction(Opcode.LOAD, **target, **dram, **stream, height=rows[1] - rows[0], blocks=count)
            actions.append(Action(row, index, _IFMAP))
        return actions

    def save(
        self, tensor: str, offset: int, source: Source, rows: Rows, cols: Rows, span: Rows, index: int
    ) -> list[Action]:
        """SAVEs of rows, columns and channel blocks of a map."""
        lanes = self.arch.lanes
        h, w, channels = self.graph.tensors[tensor].shape
        total, rest = blocks(channels, lanes), tail(channels, lanes)
        dense = total if rest == lanes else total - 1
        actions = []
        for block, stop, take in (
            (span[0], min(span[1], dense), lanes),
            (max(span[0], dense), span[1], rest),
        ):
            if stop <= block:
                continue
            dram = self._dram(offset, block, stop - block, take, h, w, rows, cols)
            a = source.operand("a", rows[0], cols[0], block)
            row = instruction(
                Opcode.SAVE,
                **a,
                **dram,
                width=cols[1] - cols[0],
                height=rows[1] - rows[0],
                blocks=stop - block,
                take=take,
            )
            actions.append(Action(row, index, _OFMAP))
        return actions

    def _dram(
        self, offset: int, block: int, count: int, pixel: int, h: int, w: int, rows: Rows, cols: Rows
    ) -> dict[str, int]:
        """Runs of rows and columns of `count` blocks with `pixel` bytes a pixel; whole rows make one run a block."""
        base = offset + block * self.arch.lanes * h * w + (rows[0] * w + cols[0]) * pixel
        line, width, height = w * pixel, (cols[1] - cols[0]) * pixel, rows[1] - rows[0]
        if width == line:
            width, height = width * height, 1
        return {
            "region": Region.MAPS, "address": base, "run_bytes": width, "runs1": height, "stride1": line if height > 1 else width,
            "runs2": count, "stride2": h * line,
        }  # fmt: skip
