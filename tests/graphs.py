"""Random int8 graphs and machines: every operator, odd sizes, ties, residuals, concatenations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from tilewright.ir.arch import Arch
from tilewright.ir.graph import (
    Add,
    Concat,
    Conv,
    ConvTranspose,
    Graph,
    Mul,
    Op,
    Pad,
    Pool,
    PRelu,
    Quant,
    Reshape,
    Resize,
    Shape,
    Slice,
    Table,
    Tensor,
    Window,
)
from tilewright.ir.requant import MODES, RoundingMode, encode_pair, encode_scale

__all__ = ["GraphBuilder", "archs", "graphs", "inputs_of"]


class GraphBuilder:
    """Grows a graph operator by operator from a seeded generator."""

    def __init__(self, seed: int, mode: RoundingMode) -> None:
        self.rng = np.random.default_rng(seed)
        self.mode = mode
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []
        self.inputs: list[str] = []

    def quant(self) -> Quant:
        """Half of the scales are powers of two, where ties are common."""
        scale = (
            2.0 ** float(self.rng.integers(-7, -3))
            if self.rng.random() < 0.5
            else float(self.rng.uniform(0.01, 0.1))
        )
        return Quant(
            scale,
            int(self.rng.integers(-40, 41))
            if self.rng.random() < 0.8
            else int(self.rng.choice([-128, 127, 0])),
        )

    def input(self, shape: Shape) -> str:
        name = f"in{len(self.inputs)}"
        self.tensors[name] = Tensor(name, shape, self.quant())
        self.inputs.append(name)
        return name

    def push(self, op: Op, quant: Quant | None = None) -> str:
        shape = op.infer(tuple(self.tensors[i].shape for i in op.inputs))
        self.ops.append(op)
        self.tensors[op.output] = Tensor(op.output, shape, quant or self.quant())
        return op.output

    def name(self) -> tuple[str, str]:
        return f"op{len(self.ops)}", f"t{len(self.ops)}"

    def scales(self, n: int, taps: int) -> NDArray[np.uint32]:
        """Multipliers that keep results in range; powers of two now and then, so that ties happen."""
        base = 1 / (40.0 * np.sqrt(taps))
        m = base * self.rng.uniform(0.3, 2.0, n)
        ties = self.rng.random(n) < 0.4
        m = np.where(ties, 2.0 ** np.round(np.log2(m)), m)
        return encode_scale(m, self.mode)

    def clamp(self) -> tuple[int, int]:
        low, high = sorted(int(v) for v in self.rng.integers(-128, 128, 2))
        return (low, high) if self.rng.random() < 0.3 else (-128, 127)

    def conv(self, x: str, out: int, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int, int, int],
             dilation: tuple[int, int] = (1, 1), groups: int = 1) -> str:  # fmt: skip
        c = self.tensors[x].shape[2]
        op, t = self.name()
        weight = self.rng.integers(-127, 128, (out, *kernel, c // groups)).astype(np.int8)
        bias = self.rng.integers(-2000, 2000, out).astype(np.int32)
        low, high = self.clamp()
        window = Window(kernel, stride, dilation, pad)
        scales = self.scales(out, int(np.prod(weight.shape[1:])))
        return self.push(Conv(op, (x,), t, weight, bias, scales, window, groups, low, high, self.mode))

    def transposed(self, x: str, out: int, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int, int, int],
                   output_pad: tuple[int, int], groups: int = 1) -> str:  # fmt: skip
        c = self.tensors[x].shape[2]
        op, t = self.name()
        weight = self.rng.integers(-127, 128, (out, *kernel, c // groups)).astype(np.int8)
        bias = self.rng.integers(-2000, 2000, out).astype(np.int32)
        scales = self.scales(out, int(np.prod(weight.shape[1:])))
        window = Window(kernel, stride, (1, 1), pad)
        return self.push(
            ConvTranspose(op, (x,), t, weight, bias, scales, window, output_pad, groups, mode=self.mode)
        )

    def add(self, a: str, b: str) -> str:
        op, t = self.name()
        sign = -1 if self.rng.random() < 0.3 else 1
        ratios = [
            float(r) if self.rng.random() < 0.5 else 2.0 ** float(np.round(np.log2(r)))
            for r in self.rng.uniform(0.3, 1.5, 2)
        ]
        ma, mb, shift = encode_pair(ratios[0], sign * ratios[1], self.mode)
        low, high = self.clamp()
        return self.push(Add(op, (a, b), t, (ma, mb), shift, low, high, self.mode))

    def mul(self, a: str, b: str) -> str:
        op, t = self.name()
        word = int(encode_scale(float(self.rng.choice([1 / 64, 0.013, 1 / 128])), self.mode))
        return self.push(Mul(op, (a, b), t, word, mode=self.mode))

    def pool(self, x: str, kind: str, window: Window, *, counted: bool) -> str:
        op, t = self.name()
        if kind == "max":
            low, high = self.clamp()
            return self.push(
                Pool(op, (x,), t, "max", window, (), low, high, self.mode), self.tensors[x].quant
            )
        n = window.taps
        counts = np.arange(1, n + 1) if counted else np.full(n, n)
        words = (
            encode_scale(float(self.rng.uniform(0.5, 1.5)) / counts, self.mode)
            if self.mode != "shift"
            else encode_scale(1 / counts, self.mode)
        )
        return self.push(Pool(op, (x,), t, "avg", window, (0, *(int(w) for w in words)), mode=self.mode))

    def table(self, x: str) -> str:
        op, t = self.name()
        return self.push(Table(op, (x,), t, tuple(int(v) for v in self.rng.integers(-128, 128, 256))))

    def prelu(self, x: str) -> str:
        op, t = self.name()
        c = self.tensors[x].shape[2]
        slope = encode_scale(self.rng.uniform(0.05, 0.9, c), self.mode)
        word = int(encode_scale(0.75 if self.mode != "shift" else 0.5, self.mode))
        return self.push(PRelu(op, (x,), t, word, slope, self.rng.random(c) < 0.3, mode=self.mode))

    def concat(self, xs: list[str]) -> str:
        op, t = self.name()
        return self.push(Concat(op, tuple(xs), t), self.tensors[xs[0]].quant)

    def slice(self, x: str) -> str:
        op, t = self.name()
        start, stop, step = [], [], []
        for extent in self.tensors[x].shape:
            lo = int(self.rng.integers(0, extent)) if self.rng.random() < 0.5 else 0
            hi = int(self.rng.integers(lo + 1, extent + 1)) if self.rng.random() < 0.5 else extent
            start.append(lo)
            stop.append(hi)
            step.append(int(self.rng.integers(1, 3)) if self.rng.random() < 0.3 else 1)
        return self.push(Slice(op, (x,), t, tuple(start), tuple(stop), tuple(step)), self.tensors[x].quant)

    def pad(self, x: str, *, channels: bool) -> str:
        op, t = self.name()
        before, after = (tuple(int(v) for v in self.rng.integers(0, 4, 3)) for _ in range(2))
        if not channels:
            before, after = (*before[:2], 0), (*after[:2], 0)
        return self.push(
            Pad(op, (x,), t, before, after, int(self.rng.integers(-128, 128))), self.tensors[x].quant
        )

    def resize(self, x: str, height: int, width: int, *, bilinear: bool) -> str:
        op, t = self.name()
        h, w, _ = self.tensors[x].shape

        def axis(size: int, extent: int) -> NDArray[np.int32]:
            at = np.clip((np.arange(size) + 0.5) * extent / size - 0.5, 0, extent - 1)
            low = np.floor(at).astype(np.int32)
            fraction = np.round((at - low) * 2048).astype(np.int32) if bilinear else np.zeros(size, np.int32)
            carry = fraction == 2048
            return np.stack([np.minimum(low + carry, extent - 1), np.where(carry, 0, fraction)], 1).astype(
                np.int32
            )

        word = int(encode_scale(2.0**-22, self.mode))
        return self.push(Resize(op, (x,), t, axis(height, h), axis(width, w), word, self.mode))

    def reshape(self, x: str) -> str:
        op, t = self.name()
        h, w, c = self.tensors[x].shape
        return self.push(
            Reshape(op, (x,), t, (h * w, 1, c) if self.rng.random() < 0.5 else (1, h * w, c)),
            self.tensors[x].quant,
        )

    def grow(self, x: str) -> str:
        """One more operator on `x`, drawn at random; maps stay small."""
        rng = self.rng
        h, w, c = self.tensors[x].shape
        kind = rng.choice(
            ["conv", "conv", "conv", "pointwise", "depthwise", "depthwise", "grouped", "multiplier", "transposed", "residual", "bottleneck",
             "excite", "pool", "global", "table", "table", "prelu", "concat", "slice", "pad", "resize", "reshape"]
        )  # fmt: skip

        def fit(kernel: int, extent: int) -> tuple[int, int, int, int]:
            """Kernel, stride, pads before and after that leave at least one output."""
            k = int(rng.integers(1, kernel + 1))
            s = int(rng.integers(1, 4))
            a, b = (int(v) for v in rng.integers(0, k, 2))
            if extent + a + b < k:
                a = b = k - 1
            return (k, s, a, b) if extent + a + b >= k else (1, 1, 0, 0)

        (ky, sy, top, bottom), (kx, sx, left, right) = fit(5, h), fit(5, w)
        pads = (top, left, bottom, right)
        if kind == "conv":
            dilation = (2, 1) if h + top + bottom >= 2 * (ky - 1) + 1 and rng.random() < 0.2 else (1, 1)
            return self.conv(x, int(rng.integers(1, 40)), (ky, kx), (sy, sx), pads, dilation)
        if kind == "pointwise":
            return self.conv(x, int(rng.integers(1, 70)), (1, 1), (1, 1), (0, 0, 0, 0))
        if kind == "depthwise":
            if c == 1:
                return self.table(x)
            return self.conv(x, c, (ky, kx), (sy, sx), pads, groups=c)
        if kind == "multiplier":
            return self.conv(x, 2 * c, (ky, kx), (1, 1), pads, groups=c) if 1 < c <= 20 else self.table(x)
        if kind == "grouped":
            divisors = [g for g in range(2, c) if c % g == 0]
            if not divisors:
                return self.table(x)
            g = int(rng.choice(divisors))
            return self.conv(x, g * int(rng.integers(1, 5)), (ky, kx), (1, 1), pads, groups=g)
        if kind == "transposed":
            k, s = (int(v) for v in (rng.integers(1, 5), rng.integers(1, 4)))
            p = int(rng.integers(0, max(1, min(k, 2))))
            if (h - 1) * s + k - 2 * p < 1 or (w - 1) * s + k - 2 * p < 1 or max(h, w) * s > 48:
                return self.table(x)
            extra = int(rng.integers(0, s))
            groups = 2 if c % 2 == 0 and rng.random() < 0.3 else 1
            return self.transposed(
                x, 2 * int(rng.integers(1, 12)), (k, k), (s, s), (p, p, p, p), (extra, extra), groups
            )
        if kind == "residual":
            y = self.conv(x, c, (3, 3), (1, 1), (1, 1, 1, 1))
            return self.add(x, y)
        if kind == "bottleneck":
            wide = self.conv(x, 3 * c + 1, (1, 1), (1, 1), (0, 0, 0, 0))
            deep = self.conv(wide, 3 * c + 1, (3, 3), (1, 1), (1, 1, 1, 1), groups=3 * c + 1)
            thin = self.conv(deep, c, (1, 1), (1, 1), (0, 0, 0, 0))
            return self.add(thin, x)
        if kind == "excite":
            mean = self.pool(x, "avg", Window((h, w)), counted=False)
            gate = self.table(self.conv(mean, c, (1, 1), (1, 1), (0, 0, 0, 0)))
            return self.mul(x, gate)
        if kind == "pool":
            return self.pool(
                x,
                str(rng.choice(["max", "avg"])),
                Window((ky, kx), (sy, sx), (1, 1), pads),
                counted=bool(rng.random() < 0.5),
            )
        if kind == "global":
            return (
                self.pool(x, str(rng.choice(["max", "avg"])), Window((h, w)), counted=False)
                if rng.random() < 0.3
                else self.table(x)
            )
        if kind == "table":
            return self.table(x)
        if kind == "prelu":
            return self.prelu(x)
        if kind == "concat":
            y = self.conv(x, int(rng.integers(1, 34)), (1, 1), (1, 1), (0, 0, 0, 0))
            return self.concat([x, y] if rng.random() < 0.5 else [y, x, y])
        if kind == "slice":
            return self.slice(x)
        if kind == "pad":
            return self.pad(x, channels=bool(rng.random() < 0.3))
        if kind == "resize":
            bilinear = bool(rng.random() < 0.5) and self.mode == "f32"
            return self.resize(
                x,
                min(40, max(1, int(h * rng.uniform(0.5, 2.2)))),
                min(40, max(1, int(w * rng.uniform(0.5, 2.2)))),
                bilinear=bilinear,
            )
        return self.reshape(x) if h * w <= 400 else self.table(x)

    def inverted_residuals(self, x: str) -> str:
        """Three blocks that widen, go depthwise and narrow; the second is strided, the others may have a shortcut."""
        for stride, out in ((1, 16), (2, 24), (1, 24)):
            wide = self.conv(x, 4 * self.tensors[x].shape[2], (1, 1), (1, 1), (0, 0, 0, 0))
            c = self.tensors[wide].shape[2]
            deep = self.conv(wide, c, (3, 3), (stride, stride), (1, 1, 1, 1), groups=c)
            thin = self.conv(deep, out, (1, 1), (1, 1), (0, 0, 0, 0))
            x = self.add(x, thin) if self.tensors[x].shape == self.tensors[thin].shape else thin
        return x

    def classified(self, x: str) -> Graph:
        """The graph behind a global mean and a classifier of ten."""
        h, w, _ = self.tensors[x].shape
        self.conv(self.pool(x, "avg", Window((h, w)), counted=False), 10, (1, 1), (1, 1), (0, 0, 0, 0))
        return self.graph()

    def graph(self) -> Graph:
        """The graph so far; every tensor that nobody reads is an output."""
        read = {i for op in self.ops for i in op.inputs}
        outputs = tuple(op.output for op in self.ops if op.output not in read)
        return Graph("random", self.tensors, tuple(self.ops), tuple(self.inputs), outputs)


def _random_graph(seed: int, mode: RoundingMode, height: int, width: int, channels: int, count: int) -> Graph:
    builder = GraphBuilder(seed, mode)
    x = builder.input((height, width, channels))
    trail = [x]
    for _ in range(count):
        trail.append(
            builder.grow(
                trail[-1] if builder.rng.random() < 0.85 else trail[int(builder.rng.integers(len(trail)))]
            )
        )
    return replace(builder.graph(), name=f"seed {seed} {mode} {height}x{width}x{channels} {count} steps")


@st.composite
def graphs(draw: st.DrawFn, most: int = 6) -> Graph:
    """Graphs of up to `most` drawn steps (a step is one to four operators); half of them drawn evenly, half near zero."""
    if draw(st.booleans()):
        rng = np.random.default_rng([draw(st.integers(0, 2**31)), 1])
        channels = int(rng.integers(1, 5) if rng.random() < 0.4 else rng.integers(5, 48))
        height, width, count = (
            int(v) for v in (rng.integers(1, 24), rng.integers(1, 24), rng.integers(1, most + 1))
        )
        return _random_graph(
            int(rng.integers(2**31)), MODES[int(rng.integers(3))], height, width, channels, count
        )
    return _random_graph(
        draw(st.integers(0, 2**31)),
        draw(st.sampled_from(MODES)),
        draw(st.integers(1, 21)),
        draw(st.integers(1, 21)),
        draw(st.one_of(st.integers(1, 4), st.integers(5, 40))),
        draw(st.integers(1, most)),
    )


@st.composite
def archs(draw: st.DrawFn) -> Arch:
    """Small machines of odd shapes: with and without a depthwise engine, lanes unequal to output channels."""
    pixels = draw(st.sampled_from([1, 2, 4, 8]))
    ic, oc = draw(st.sampled_from([4, 6, 8, 10, 16])), draw(st.sampled_from([4, 8, 12, 16]))
    dwc = draw(st.sampled_from([0, 1, 2, 4, 8]))
    groups = draw(st.sampled_from([2, 3, 4]))
    banks = 1 << (2 * max(pixels, dwc, 2) - 1).bit_length()
    row = groups * banks * ic
    kib = next(k for k in range(draw(st.sampled_from([32, 64, 160])), 4096) if k * 1024 % row == 0)
    word = ic * oc
    weights: Any = next(k for k in range(48, 4096) if k * 1024 % word == 0)
    return Arch.model_validate(
        {
            "name": "drawn",
            "conv": {"pixels": pixels, "ic": ic, "oc": oc, "drain": draw(st.integers(1, pixels))},
            "dwc": {"pixels": dwc, "channels": draw(st.sampled_from([4, 8, ic])) if dwc else 0, "taps": draw(st.sampled_from([1, 2, 3, 9])),
                    "drain": max(1, dwc // 2)},
            "vec": {"pixels": draw(st.sampled_from([1, 2]))},
            "maps": {"kib": kib, "groups": groups},
            "weights": {"kib": weights},
            "dma": {"bits": draw(st.sampled_from([32, 64, 128])), "ports": draw(st.integers(1, 3)), "burst": draw(st.sampled_from([4, 16, 64]))},
            "queues": {"depth": draw(st.sampled_from([2, 4, 16])), "prefetch": 16},
        }
    )  # fmt: skip


def inputs_of(graph: Graph, seed: int = 0) -> dict[str, NDArray[np.int8]]:
    """Random frames for a graph's inputs."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-128, 128, graph.tensors[name].shape).astype(np.int8) for name in graph.inputs}
