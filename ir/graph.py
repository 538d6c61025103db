"""The int8 graph: tensors of one frame (or of a batch, frames below each other), and the operators the DPU knows.

Layouts: feature maps are (H, W, C) int8, one frame; vectors are (1, 1, C). Convolution weights are
(O, KH, KW, I). Real value of an activation q is ``(q - zero_point) * scale``. What each operator computes,
to the bit, is in `reference`; this file says only what it is and when it is legal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError
from .requant import RoundingMode

__all__ = [
    "Add",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Graph",
    "Mul",
    "Op",
    "Pad",
    "Pool",
    "PRelu",
    "Quant",
    "Reshape",
    "Resize",
    "Shape",
    "Slice",
    "Table",
    "Tensor",
    "Window",
]

Shape = tuple[int, int, int]
MAX_EXTENT = 1 << 14
"""Largest H or W the ISA's fields hold (14 bits, docs/isa.md)."""
MAX_CHANNELS = 1 << 16
"""Largest channel count the ISA's fields hold."""


@dataclass(frozen=True, slots=True)
class Quant:
    """Affine int8 quantisation: real = (q - zero_point) * scale."""

    scale: float
    zero_point: int = 0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ModelError(
                f"quantisation scale {self.scale} is not a positive finite number", scale=self.scale
            )
        if not -128 <= self.zero_point <= 127:
            raise ModelError(
                f"zero point {self.zero_point} is outside int8 (-128..127)", zero_point=self.zero_point
            )


@dataclass(frozen=True, slots=True)
class Tensor:
    """A feature map.

    Parameters
    ----------
    name : str
        Unique in its graph.
    shape : (H, W, C)
    quant : Quant
    """

    name: str
    shape: Shape
    quant: Quant

    @property
    def bytes(self) -> int:
        """Size, in bytes, without padding of any kind."""
        h, w, c = self.shape
        return h * w * c

    def __str__(self) -> str:
        return f"%{self.name}: int8[{'x'.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Window:
    """Kernel, stride, dilation and padding of a sliding window.

    ``pad`` is (top, left, bottom, right). Output extent: ``(in + pads - dilation*(kernel-1) - 1) // stride + 1``.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def span(self) -> tuple[int, int]:
        """Rows and columns from a window's first tap to its last, inclusive."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))  # type: ignore[return-value]

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Output height and width for an input of this height and width.

        >>> Window((3, 3), (2, 2), pad=(1, 1, 1, 1)).output(224, 224)
        (112, 112)
        """
        (sh, sw), (top, left, bottom, right) = self.span, self.pad
        return (height + top + bottom - sh) // self.stride[0] + 1, (width + left + right - sw) // self.stride[
            1
        ] + 1

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]


@dataclass(frozen=True, slots=True)
class Op:
    """An operator: a name, input tensor names, one output tensor name."""

    name: str
    inputs: tuple[str, ...]
    output: str

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        """Output shape for these input shapes; raises ModelError where the operator cannot take them."""
        raise NotImplementedError

    def macs(self, out: Shape) -> int:
        """Multiply-accumulates that a user would count, for this output shape."""
        del out
        return 0

    @property
    def parameters(self) -> int:
        """Trained parameters (weights and biases)."""
        return 0

    def _fail(self, what: str) -> ModelError:
        return ModelError(f"{self.name} ({type(self).__name__}): {what}", node=self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Conv(Op):
    """Convolution, fully connected layer (kernel = whole map, no pad), or linear data movement.

    Parameters
    ----------
    weight : int8 (O, KH, KW, C / groups)
    bias : int32 (O,)
        Without the input zero point; the compiler folds that in.
    scale_word : uint32 (O,)
        Per-channel requantisation (`requant.encode_scale`).
    window : Window
    groups : int
        1, C (depthwise, O a multiple of C), or any divisor of both.
    low, high : int
        Clamp after requantisation.
    moves : bool
        0/1 weights that only move data (channel shuffle, space to depth, ...): counts no MACs.
    """

    weight: NDArray[np.int8] = field(repr=False)
    bias: NDArray[np.int32] = field(repr=False)
    scale_word: NDArray[np.uint32] = field(repr=False)
    window: Window = Window()
    groups: int = 1
    low: int = -128
    high: int = 127
    mode: RoundingMode = "f32"
    moves: bool = False

    def __post_init__(self) -> None:
        o = self.weight.shape[0]
        if self.weight.ndim != 4 or self.weight.shape[1:3] != self.window.kernel:
            raise self._fail(
                f"weights are {self.weight.shape}, want (O, {self.window.kernel[0]}, {self.window.kernel[1]}, I)"
            )
        if self.bias.shape != (o,) or self.scale_word.shape != (o,):
            raise self._fail(f"bias {self.bias.shape} and scale {self.scale_word.shape} must both be ({o},)")
        if self.groups < 1 or o % self.groups:
            raise self._fail(f"{o} output channels do not divide into {self.groups} groups")

    @property
    def depthwise(self) -> bool:
        """One input channel a group (with any channel multiplier), more than one group."""
        return self.groups > 1 and self.weight.shape[3] == 1

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        (h, w, c) = shapes[0]
        if c != self.groups * self.weight.shape[3]:
            raise self._fail(f"input has {c} channels, weights want {self.groups * self.weight.shape[3]}")
        oh, ow = self.window.output(h, w)
        return oh, ow, self.weight.shape[0]

    def macs(self, out: Shape) -> int:
        return 0 if self.moves else out[0] * out[1] * int(np.prod(self.weight.shape))

    @property
    def parameters(self) -> int:
        return 0 if self.moves else self.weight.size + self.bias.size


@dataclass(frozen=True, slots=True, eq=False)
class ConvTranspose(Op):
    """Transposed convolution; weight (O, KH, KW, C / groups), same requantisation as `Conv`.

    Output extent: ``(in - 1) * stride + span - pads + output_pad``.
    """

    weight: NDArray[np.int8] = field(repr=False)
    bias: NDArray[np.int32] = field(repr=False)
    scale_word: NDArray[np.uint32] = field(repr=False)
    window: Window = Window()
    output_pad: tuple[int, int] = (0, 0)
    groups: int = 1
    low: int = -128
    high: int = 127
    mode: RoundingMode = "f32"
    moves: bool = False

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        (h, w, c) = shapes[0]
        if c != self.groups * self.weight.shape[3]:
            raise self._fail(f"input has {c} channels, weights want {self.groups * self.weight.shape[3]}")
        (sh, sw), (top, left, bottom, right) = self.window.span, self.window.pad
        oh = (h - 1) * self.window.stride[0] + sh - top - bottom + self.output_pad[0]
        ow = (w - 1) * self.window.stride[1] + sw - left - right + self.output_pad[1]
        return oh, ow, self.weight.shape[0]

    def macs(self, out: Shape) -> int:
        if self.moves:
            return 0
        products = 1
        for axis in (0, 1):  # an output takes the taps that fall on an input's grid point
            taps = np.arange(self.window.kernel[axis]) * self.window.dilation[axis]
            at = np.arange(out[axis])[:, None] + self.window.pad[axis] - taps
            products *= int(np.count_nonzero(at % self.window.stride[axis] == 0))
        return products * out[2] * int(self.weight.shape[3])

    @property
    def parameters(self) -> int:
        return 0 if self.moves else self.weight.size + self.bias.size


@dataclass(frozen=True, slots=True)
class Add(Op):
    """``clamp(round((A*ma + B*mb) / 2^shift) + zero_point)``, A and B without their zero points.

    Subtraction has a negative multiplier. B may be (1, 1, C) or the same shape. Multipliers from
    `requant.encode_pair`; ties to even in modes f32 and fix16, up in mode shift.
    """

    multiplier: tuple[int, int] = (1, 1)
    shift: int = 0
    low: int = -128
    high: int = 127
    mode: RoundingMode = "f32"

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        return _broadcast(self, shapes)


@dataclass(frozen=True, slots=True)
class Mul(Op):
    """``requantise(A * B)``; B may be (1, 1, C) (squeeze-excite) or the same shape."""

    scale_word: int = 0
    low: int = -128
    high: int = 127
    mode: RoundingMode = "f32"

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        return _broadcast(self, shapes)


def _broadcast(op: Op, shapes: tuple[Shape, ...]) -> Shape:
    a, b = shapes
    if b not in {a, (1, 1, a[2])}:
        raise op._fail(f"shapes {a} and {b}: the second must equal the first or be (1, 1, {a[2]})")
    return a


@dataclass(frozen=True, slots=True)
class Pool(Op):
    """Max pooling (padding never wins), or average pooling: the sum of A over a window, requantised.

    An average whose divisor changes at the border (padding not counted) has `scale_words` for each count of
    valid taps: ``scale_words[n]`` for n taps, n = 1..taps; index 0 is unused. Where padding counts, all
    entries are equal. Global pooling has the kernel of the whole map.
    """

    kind: Literal["max", "avg"] = "max"
    window: Window = Window()
    scale_words: tuple[int, ...] = ()
    low: int = -128
    high: int = 127
    mode: RoundingMode = "f32"

    def __post_init__(self) -> None:
        if self.kind == "avg" and len(self.scale_words) != self.window.taps + 1:
            raise self._fail(
                f"{len(self.scale_words)} scale words for {self.window.taps} taps, want taps + 1"
            )
        top, left, bottom, right = self.window.pad
        (sh, sw) = self.window.span
        if max(top, bottom) >= sh or max(left, right) >= sw:
            raise self._fail(f"padding {self.window.pad} is not smaller than the window {self.window.span}")

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        (h, w, c) = shapes[0]
        oh, ow = self.window.output(h, w)
        return oh, ow, c


@dataclass(frozen=True, slots=True)
class Table(Op):
    """Any unary function: ``y = values[x + 128]``, 256 int8 entries."""

    values: tuple[int, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if len(self.values) != 256 or not all(-128 <= v <= 127 for v in self.values):
            raise self._fail(f"a table has 256 int8 entries, not {len(self.values)}")

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        return shapes[0]


@dataclass(frozen=True, slots=True, eq=False)
class PRelu(Op):
    """``A >= 0 ? requantise(A, positive) : requantise(A * sign, slope[c])``, per channel.

    `negative` marks channels whose slope is below zero (requantise multiplies by |slope|).
    """

    positive: int = 0
    slope: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32), repr=False)
    negative: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_), repr=False)
    low: int = -128
    high: int = 127
    mode: RoundingMode = "f32"

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        if self.slope.shape != (shapes[0][2],) or self.negative.shape != self.slope.shape:
            raise self._fail(f"{self.slope.shape} slopes for {shapes[0][2]} channels")
        return shapes[0]

    @property
    def parameters(self) -> int:
        return self.slope.size


@dataclass(frozen=True, slots=True)
class Concat(Op):
    """Channels of several maps side by side; all have the output's quantisation."""

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        h, w, _ = shapes[0]
        if any(s[:2] != (h, w) for s in shapes):
            raise self._fail(f"maps of different size: {shapes}")
        return h, w, sum(s[2] for s in shapes)


@dataclass(frozen=True, slots=True)
class Slice(Op):
    """A box of the map: rows, columns and channels from `start` (inclusive) to `stop`, every `step`-th."""

    start: Shape = (0, 0, 0)
    stop: Shape = (0, 0, 0)
    step: Shape = (1, 1, 1)

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        for lo, hi, st, extent in zip(self.start, self.stop, self.step, shapes[0], strict=True):
            if not (0 <= lo < hi <= extent and st >= 1):
                raise self._fail(f"{lo}:{hi}:{st} is not inside 0:{extent}")
        a, b, c = (-(-(hi - lo) // st) for lo, hi, st in zip(self.start, self.stop, self.step, strict=True))
        return a, b, c


@dataclass(frozen=True, slots=True)
class Pad(Op):
    """Constant padding: `before` and `after` in (H, W, C), filled with the int8 `value`."""

    before: Shape = (0, 0, 0)
    after: Shape = (0, 0, 0)
    value: int = 0

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        h, w, c = (b + s + a for b, s, a in zip(self.before, shapes[0], self.after, strict=True))
        return h, w, c


@dataclass(frozen=True, slots=True, eq=False)
class Resize(Op):
    """Nearest or bilinear: along each axis, output i is ``(source[i], fraction[i])``.

    ``acc = sum over the 2 x 2 neighbours of weight_y * weight_x * A`` with weights ``2048 - f`` and ``f``
    (f = fraction, 0..2047; the neighbour of the last row or column is itself), then requantised. With every
    fraction zero only one tap is read (nearest).
    """

    rows: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), np.int32), repr=False)
    cols: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), np.int32), repr=False)
    scale_word: int = 0
    mode: RoundingMode = "f32"

    @property
    def bilinear(self) -> bool:
        return bool(np.any(self.rows[:, 1]) or np.any(self.cols[:, 1]))

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        for axis, (index, extent) in enumerate(zip((self.rows, self.cols), shapes[0][:2], strict=True)):
            if index.ndim != 2 or index.shape[1] != 2 or index[:, 0].min() < 0 or index[:, 0].max() >= extent:
                raise self._fail(f"source indices of axis {'HW'[axis]} are not inside 0..{extent - 1}")
            if index[:, 1].min() < 0 or index[:, 1].max() > 2047:
                raise self._fail("fractions are not inside 0..2047")
        return len(self.rows), len(self.cols), shapes[0][2]


@dataclass(frozen=True, slots=True)
class Reshape(Op):
    """The same pixels in another height and width; channels stay (row-major order of H, W)."""

    shape: Shape = (1, 1, 1)

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        h, w, c = shapes[0]
        if self.shape[2] != c or self.shape[0] * self.shape[1] != h * w:
            raise self._fail(f"{shapes[0]} cannot be seen as {self.shape}: channels must stay")
        return self.shape


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """Operators in topological order over named tensors.

    Parameters
    ----------
    name : str
    tensors : dict of name to Tensor
    ops : tuple of Op
        Each input is a graph input or an earlier output.
    inputs, outputs : tuple of str
    frames : int
        Frames of a batch. Each map holds them below each other, `frames` times as high as the operators say; no
        window reaches from one frame into the next.

    Raises
    ------
    ModelError
        The order is not topological, a name is produced twice or never, or a shape is not what the operator infers.
    """

    name: str
    tensors: dict[str, Tensor]
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    frames: int = 1

    def __post_init__(self) -> None:
        if self.frames < 1 or any(t.shape[0] % self.frames for t in self.tensors.values()):
            raise ModelError(
                f"graph {self.name}: {self.frames} frames do not divide the maps' rows", frames=self.frames
            )
        known = set(self.inputs)
        for name in (*self.inputs, *self.outputs):
            if name not in self.tensors:
                raise ModelError(f"graph {self.name}: tensor {name} is used and never declared", tensor=name)
        for op in self.ops:
            for name in op.inputs:
                if name not in known:
                    raise ModelError(
                        f"{op.name}: input {name} is produced by no earlier operator", node=op.name
                    )
            if op.output in known:
                raise ModelError(f"{op.name}: output {op.output} is produced twice", node=op.name)
            got, want = (
                op.infer(tuple(map(self.frame_shape, op.inputs))),
                self.frame_shape(op.output),
            )
            if got != want:
                raise ModelError(f"{op.name}: declared output {want}, the operator gives {got}", node=op.name)
            known.add(op.output)
        for name in self.outputs:
            if name not in known:
                raise ModelError(f"graph {self.name}: output {name} is produced by no operator", tensor=name)
        for tensor in self.tensors.values():
            h, w, c = tensor.shape
            if min(tensor.shape) < 1 or max(h, w) > MAX_EXTENT or c > MAX_CHANNELS:
                if self.frames > 1 and h // self.frames <= MAX_EXTENT:
                    raise ModelError(
                        f"tensor {tensor.name}: {self.frames} frames of {h // self.frames} rows are {h} rows, the DPU takes "
                        f"{MAX_EXTENT}; take at most {MAX_EXTENT * self.frames // h} frames a batch",
                        tensor=tensor.name, frames=self.frames,
                    )  # fmt: skip
                raise ModelError(
                    f"tensor {tensor.name} is {h}x{w}x{c}; the DPU takes extents 1..{MAX_EXTENT} "
                    f"and 1..{MAX_CHANNELS} channels; crop or resize it before the network",
                    tensor=tensor.name,
                )

    def frame_shape(self, tensor: str) -> Shape:
        """Shape of a map of one frame."""
        h, w, c = self.tensors[tensor].shape
        return h // self.frames, w, c

    @cached_property
    def frame(self) -> Graph:
        """The graph of one frame; itself where it is of one."""
        if self.frames == 1:
            return self
        tensors = {n: Tensor(n, self.frame_shape(n), t.quant) for n, t in self.tensors.items()}
        return Graph(self.name, tensors, self.ops, self.inputs, self.outputs)

    def stacked(self, frames: int) -> Graph:
        """The graph of a batch of so many frames.

        Raises
        ------
        ModelError
            Fewer than one, or more than the ISA's fields hold below each other.
        """
        if frames < 1:
            raise ModelError(f"a batch of {frames} frames: give at least 1", frames=frames)
        if frames == self.frames:
            return self
        tensors = {
            n: Tensor(n, (t.shape[0] * frames, *t.shape[1:]), t.quant) for n, t in self.frame.tensors.items()
        }
        return Graph(self.name, tensors, self.ops, self.inputs, self.outputs, frames)

    @cached_property
    def producer(self) -> dict[str, Op]:
        """The operator behind each tensor (graph inputs have none)."""
        return {op.output: op for op in self.ops}

    @cached_property
    def consumers(self) -> dict[str, tuple[Op, ...]]:
        """The operators that read each tensor, in order."""
        readers: dict[str, list[Op]] = {name: [] for name in self.tensors}
        for op in self.ops:
            for name in dict.fromkeys(op.inputs):
                readers[name].append(op)
        return {name: tuple(ops) for name, ops in readers.items()}

    def macs_of(self, op: Op) -> int:
        """Multiply-accumulates of an operator, all frames."""
        return self.frames * op.macs(self.frame_shape(op.output))

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates, all frames."""
        return sum(map(self.macs_of, self.ops))

    @cached_property
    def parameters(self) -> int:
        """Trained parameters."""
        return sum(op.parameters for op in self.ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self.ops)} operators, {self.macs / 1e6:.1f} MMAC>"

    def __str__(self) -> str:
        frames = f" of {self.frames} frames" if self.frames > 1 else ""
        lines = [f"graph {self.name} ({', '.join('%' + i for i in self.inputs)}){frames}"]
        for op in self.ops:
            kind = type(op).__name__.lower()
            if isinstance(op, Conv):
                k = op.window.kernel
                kind = f"{'dwconv' if op.depthwise else 'conv'}{k[0]}x{k[1]}"
                if op.window.stride != (1, 1):
                    kind += (
                        f"/s{op.window.stride[0]}"
                        if len(set(op.window.stride)) == 1
                        else f"/s{op.window.stride}"
                    )
            args = ", ".join("%" + i for i in op.inputs)
            lines.append(f"  {self.tensors[op.output]} = {kind}({args})  # {op.name}")
        lines.append(f"  return {', '.join('%' + o for o in self.outputs)}")
        return "\n".join(lines)
