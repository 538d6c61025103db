"""Input rows and columns behind output rows and columns, of one frame and of frames below each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..ir.graph import Add, Concat, Mul, Op, Pool, PRelu, Reshape, Resize, Shape, Slice, Table

if TYPE_CHECKING:
    from .layers import Part

__all__ = ["Needs", "needs_of", "of_frames", "rowwise"]


class Needs(Protocol):
    """Input range (first, stop) of input `k` behind an output range, along an axis."""

    def __call__(self, k: int, low: int, high: int, axis: int = 0) -> tuple[int, int]: ...


def of_frames(needs: Needs, inputs: tuple[int, ...], output: int, frames: int) -> Needs:
    """Rows of frames below each other, from those of one: `inputs` and `output` are rows of a frame."""
    if frames == 1:
        return needs

    def stacked(k: int, low: int, high: int, axis: int = 0) -> tuple[int, int]:
        if axis:
            return needs(k, low, high, axis)
        first, last = low // output, (high - 1) // output
        begin = needs(k, low - first * output, min(high - first * output, output))[0]
        end = needs(k, max(0, low - last * output), high - last * output)[1]
        return first * inputs[k] + begin, last * inputs[k] + end

    return stacked


def needs_of(op: Op, shapes: tuple[Shape, ...], parts: tuple[Part, ...]) -> Needs:
    """Of an operator, which `parts` compute if there are any, on inputs of these shapes."""

    def span(low: int, high: int, size: int) -> tuple[int, int]:
        low = min(max(low, 0), size - 1)
        return low, max(low + 1, min(high, size))

    def of_parts(k: int, low: int, high: int, axis: int = 0) -> tuple[int, int]:
        first, stop = shapes[k][axis], 0
        for part in parts:
            r0, r1 = part.clip(axis, low, high)
            if part.source == k and r1 > r0:
                w = part.window
                first = min(first, r0 * w.stride[axis] - w.pad[axis])
                stop = max(stop, (r1 - 1) * w.stride[axis] - w.pad[axis] + w.span[axis])
        return span(first, stop, shapes[k][axis])

    def of_pool(k: int, low: int, high: int, axis: int = 0) -> tuple[int, int]:
        assert isinstance(op, Pool)
        w = op.window
        first = low * w.stride[axis] - w.pad[axis]
        return span(first, (high - 1) * w.stride[axis] - w.pad[axis] + w.span[axis], shapes[k][axis])

    def of_resize(k: int, low: int, high: int, axis: int = 0) -> tuple[int, int]:
        assert isinstance(op, Resize)
        source = (op.rows, op.cols)[axis][low:high, 0]
        return span(int(source.min()), int(source.max()) + 1 + op.bilinear, shapes[k][axis])

    def of_slice(k: int, low: int, high: int, axis: int = 0) -> tuple[int, int]:
        assert isinstance(op, Slice)
        first, step = op.start[axis], op.step[axis]
        return span(first + low * step, first + (high - 1) * step + 1, shapes[k][axis])

    def same(k: int, low: int, high: int, axis: int = 0) -> tuple[int, int]:
        return (0, 1) if shapes[k][axis] == 1 else (low, high)

    def everything(k: int, low: int, high: int, axis: int = 0) -> tuple[int, int]:
        del low, high
        return 0, shapes[k][axis]

    if parts:
        return of_parts
    by_type: dict[type[Op], Needs] = {Pool: of_pool, Resize: of_resize, Slice: of_slice, Reshape: everything}
    return by_type.get(type(op), same)


def rowwise(op: Op, shapes: tuple[Shape, ...], out: Shape, parts: tuple[Part, ...]) -> bool:
    """Each output row takes the same row of every input and nothing else."""
    if parts:
        flat = all(
            p.window.kernel[0] == p.window.stride[0] == p.step[0] == 1
            and not (p.window.pad[0] or p.origin[0])
            for p in parts
        )
        return flat and all(s[0] == out[0] for s in shapes)
    return isinstance(op, (Add, Concat, Mul, PRelu, Table)) and all(s[:2] == out[:2] for s in shapes)
