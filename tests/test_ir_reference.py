"""The reference against sums written out element by element, from the operators' definitions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright.ir.errors import ModelError
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
    Slice,
    Table,
    Tensor,
    Window,
)
from tilewright.ir.reference import accumulate, evaluate, run
from tilewright.ir.requant import MODES, RoundingMode, encode_pair, encode_scale, requantise, round_shift

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
modes = st.sampled_from(MODES)
zero_points = st.sampled_from((0, -128, 127, 5, -17))


def int8(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


def words(rng: np.random.Generator, mode: RoundingMode, count: int) -> np.ndarray:
    """Half of them powers of two, where ties are common."""
    m = rng.uniform(2**-9, 2**-6, count)
    return encode_scale(np.where(rng.random(count) < 0.5, 2.0 ** np.floor(np.log2(m)), m), mode)


def one(acc: int, word: int, mode: RoundingMode, zd: int, op: object) -> int:
    """One accumulator to int8."""
    low, high = getattr(op, "low", -128), getattr(op, "high", 127)
    return int(requantise(np.array([acc]), np.uint32(word), mode, zero_point=zd, low=low, high=high)[0])


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, int, int]:
    kernel = draw(st.tuples(*[st.integers(1, 3)] * 2))
    stride = draw(st.tuples(*[st.integers(1, 3)] * 2))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * 2))
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    pad = tuple(draw(st.integers(0, span[a % 2] - 1)) for a in range(4))
    h = draw(st.integers(max(1, span[0] - pad[0] - pad[2]), 6))
    w = draw(st.integers(max(1, span[1] - pad[1] - pad[3]), 6))
    return Window(kernel, stride, dilation, pad), h, w  # type: ignore[arg-type]


def taps(window: Window, r: int, c: int, h: int, w: int) -> Iterator[tuple[int, int, int, int]]:
    """Kernel and map positions of the taps that lie inside the map."""
    for ky in range(window.kernel[0]):
        for kx in range(window.kernel[1]):
            y = r * window.stride[0] + ky * window.dilation[0] - window.pad[0]
            x = c * window.stride[1] + kx * window.dilation[1] - window.pad[1]
            if 0 <= y < h and 0 <= x < w:
                yield ky, kx, y, x


@SETTINGS
@given(
    windows(),
    st.sampled_from(((1, 2, 3), (2, 2, 2), (3, 1, 2), (4, 1, 1))),
    modes,
    zero_points,
    zero_points,
    seeds,
)
def test_a_convolution_is_its_sum(
    shape: tuple[Window, int, int],
    sizes: tuple[int, int, int],
    mode: RoundingMode,
    za: int,
    zd: int,
    seed: int,
) -> None:
    """Groups of one, some and all channels; padding adds nothing, which is the zero point of the input."""
    (window, h, w), (groups, per_in, per_out) = shape, sizes
    rng = np.random.default_rng(seed)
    x, o = int8(rng, h, w, groups * per_in), groups * per_out
    op = Conv(
        "c", ("x",), "y", weight=int8(rng, o, *window.kernel, per_in), bias=rng.integers(-999, 999, o).astype(np.int32),
        scale_word=words(rng, mode, o), window=window, groups=groups, mode=mode, low=-100, high=90,
    )  # fmt: skip
    got = evaluate(op, (x,), (Quant(1, za),), Quant(1, zd))
    oh, ow = window.output(h, w)
    assert got.shape == (oh, ow, o)
    for r, c, k in np.ndindex(got.shape):
        acc = int(op.bias[k])
        for ky, kx, y, x_ in taps(window, r, c, h, w):
            for i in range(per_in):
                acc += (int(x[y, x_, k // per_out * per_in + i]) - za) * int(op.weight[k, ky, kx, i])
        assert got[r, c, k] == one(acc, int(op.scale_word[k]), mode, zd, op)


@SETTINGS
@given(windows(), st.sampled_from(((1, 2, 3), (2, 1, 2), (3, 1, 1))), modes, zero_points, seeds)
def test_a_transposed_convolution_spreads_each_input(
    shape: tuple[Window, int, int], sizes: tuple[int, int, int], mode: RoundingMode, za: int, seed: int
) -> None:
    """Each input adds weight times itself at stride distance; then the padding is cut off."""
    (window, h, w), (groups, per_in, per_out) = shape, sizes
    rng = np.random.default_rng(seed)
    x, o = int8(rng, h, w, groups * per_in), groups * per_out
    (sy, sx), (dy, dx), (top, left, bottom, right) = window.stride, window.dilation, window.pad
    span = window.span
    size = ((h - 1) * sy + span[0] - top - bottom, (w - 1) * sx + span[1] - left - right)
    if min(size) < 1:
        return
    op = ConvTranspose(
        "t", ("x",), "y", weight=int8(rng, o, *window.kernel, per_in), bias=rng.integers(-999, 999, o).astype(np.int32),
        scale_word=words(rng, mode, o), window=window, groups=groups, mode=mode,
    )  # fmt: skip
    got = evaluate(op, (x,), (Quant(1, za),), Quant(1, 3))
    want = np.zeros((*size, o), np.int64) + op.bias
    for y, x_, i in np.ndindex(x.shape):
        for ky, kx in np.ndindex(*window.kernel):
            r, c = y * sy + ky * dy - top, x_ * sx + kx * dx - left
            if 0 <= r < size[0] and 0 <= c < size[1]:
                for k in range(i // per_in * per_out, (i // per_in + 1) * per_out):
                    want[r, c, k] += (int(x[y, x_, i]) - za) * int(op.weight[k, ky, kx, i % per_in])
    assert got.shape == want.shape
    for at in np.ndindex(got.shape):
        assert got[at] == one(int(want[at]), int(op.scale_word[at[2]]), mode, 3, op)


@SETTINGS
@given(windows(), st.sampled_from(("max", "avg")), modes, zero_points, seeds)
def test_pooling_takes_the_taps_inside_the_map(
    shape: tuple[Window, int, int], kind: str, mode: RoundingMode, za: int, seed: int
) -> None:
    """The average picks its scale word by the number of such taps."""
    window, h, w = shape
    rng = np.random.default_rng(seed)
    x = int8(rng, h, w, 2)
    scale = (0, *map(int, encode_scale(1 / np.arange(1, window.taps + 1), mode))) if kind == "avg" else ()
    op = Pool("p", ("x",), "y", kind, window, scale, low=-110, high=120, mode=mode)  # type: ignore[arg-type]
    if kind == "avg" and any(not list(taps(window, r, c, h, w)) for r, c in np.ndindex(*window.output(h, w))):
        return  # an average of nothing is no number
    got = evaluate(op, (x,), (Quant(1, za),), Quant(1, -4))
    for r, c, k in np.ndindex(got.shape):
        values = [int(x[y, x_, k]) for _, _, y, x_ in taps(window, r, c, h, w)]
        if kind == "max":
            assert got[r, c, k] == min(max(max(values, default=-128), -110), 120)
        else:
            acc = sum(v - za for v in values)
            assert got[r, c, k] == one(acc, scale[len(values)], mode, -4, op)


@SETTINGS
@given(st.booleans(), modes, zero_points, zero_points, st.sampled_from((1.0, -0.5, 0.3)), seeds)
def test_sums_and_products_are_element_by_element(
    broadcast: bool, mode: RoundingMode, za: int, zb: int, ratio: float, seed: int
) -> None:
    """The second operand may be one pixel."""
    rng = np.random.default_rng(seed)
    a, b = int8(rng, 2, 3, 4), int8(rng, *((1, 1, 4) if broadcast else (2, 3, 4)))
    ma, mb, shift = encode_pair(0.7, ratio, mode)
    word = int(words(rng, mode, 1)[0])
    quants = (Quant(1, za), Quant(1, zb))
    total = evaluate(
        Add("s", ("a", "b"), "y", (ma, mb), shift, low=-90, mode=mode), (a, b), quants, Quant(1, 7)
    )
    product = Mul("m", ("a", "b"), "y", word, mode=mode)
    scaled = evaluate(product, (a, b), quants, Quant(1, 7))
    for at in np.ndindex(a.shape):
        x, y = int(a[at]) - za, int(b[0, 0, at[2]] if broadcast else b[at]) - zb
        rounded = int(round_shift(np.array([x * ma + y * mb]), shift, half_even=mode != "shift")[0])
        assert total[at] == min(max(rounded + 7, -90), 127)
        assert scaled[at] == one(x * y, word, mode, 7, product)


@SETTINGS
@given(modes, zero_points, seeds)
def test_a_parametric_relu_has_a_slope_for_each_channel(mode: RoundingMode, za: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, slope, negative = int8(rng, 3, 3, 5), words(rng, mode, 5), rng.random(5) < 0.5
    op = PRelu(
        "p", ("x",), "y", positive=int(words(rng, mode, 1)[0]), slope=slope, negative=negative, mode=mode
    )
    got = evaluate(op, (x,), (Quant(1, za),), Quant(1, 2))
    for at in np.ndindex(x.shape):
        v, c = int(x[at]) - za, at[2]
        want = (
            one(v, op.positive, mode, 2, op)
            if v >= 0
            else one(-v if negative[c] else v, int(slope[c]), mode, 2, op)
        )
        assert got[at] == want


@SETTINGS
@given(modes, zero_points, seeds)
def test_a_resize_weighs_four_neighbours(mode: RoundingMode, za: int, seed: int) -> None:
    """The last row and column have themselves as neighbours; the weights of a pixel sum to 2^22."""
    rng = np.random.default_rng(seed)
    x = int8(rng, 3, 4, 2)
    rows, cols = (
        np.stack([rng.integers(0, n, 5), rng.integers(0, 2048, 5)], axis=1).astype(np.int32)
        for n in x.shape[:2]
    )
    op = Resize("r", ("x",), "y", rows, cols, int(encode_scale(2.0**-22, mode)), mode)
    got = evaluate(op, (x,), (Quant(1, za),), Quant(1, za))
    for r, c, k in np.ndindex(got.shape):
        (y, fy), (x_, fx) = (map(int, axis) for axis in (rows[r], cols[c]))
        acc = 0
        for row, wy in ((y, 2048 - fy), (min(y + 1, 2), fy)):
            for col, wx in ((x_, 2048 - fx), (min(x_ + 1, 3), fx)):
                acc += wy * wx * (int(x[row, col, k]) - za)
        assert got[r, c, k] == one(acc, op.scale_word, mode, za, op)
    nearest = Resize("r", ("x",), "y", rows * [1, 0], cols * [1, 0], op.scale_word, mode)
    np.testing.assert_array_equal(
        evaluate(nearest, (x,), (Quant(1, za),), Quant(1, za)), x[np.ix_(rows[:, 0], cols[:, 0])]
    )


def test_data_movement_moves_and_changes_nothing() -> None:
    """Concatenation, slices, padding, reshaping and tables."""
    rng = np.random.default_rng(0)
    a, b, q = int8(rng, 4, 6, 3), int8(rng, 4, 6, 2), Quant(1, 9)
    two = evaluate(Concat("c", ("a", "b"), "y"), (a, b), (q, q), q)
    assert np.array_equal(two[:, :, :3], a)
    assert np.array_equal(two[:, :, 3:], b)
    part = evaluate(Slice("s", ("a",), "y", (1, 0, 1), (4, 6, 3), (2, 3, 1)), (a,), (q,), q)
    assert np.array_equal(part, a[[1, 3]][:, [0, 3]][:, :, [1, 2]])
    wide = evaluate(Pad("p", ("a",), "y", (1, 0, 2), (0, 3, 0), -7), (a,), (q,), q)
    assert wide.shape == (5, 9, 5)
    assert np.array_equal(wide[1:, :6, 2:], a)
    assert np.count_nonzero(wide != -7) <= a.size
    assert np.array_equal(evaluate(Reshape("r", ("a",), "y", (3, 8, 3)), (a,), (q,), q).ravel(), a.ravel())
    values = int8(rng, 256)
    looked = evaluate(Table("t", ("a",), "y", tuple(map(int, values))), (a,), (q,), q)
    assert all(looked[at] == values[int(a[at]) + 128] for at in np.ndindex(a.shape))


def test_sums_stay_exact_at_their_largest() -> None:
    """Every product at its extreme over 4,608 taps: 255 * -128 each, the same sign throughout."""
    x = np.full((3, 3, 512), 255, np.int64)
    weight = np.full((1, 3, 3, 512), -128, np.int8)
    assert accumulate(x, weight, Window((3, 3)), 1)[0, 0, 0] == -255 * 128 * 4608


def graph() -> Graph:
    """``y = concat(x + x, table(x))``, with a result that is not an output."""
    q = Quant(1.0, 0)
    shapes = {"x": (2, 2, 3), "twice": (2, 2, 3), "flipped": (2, 2, 3), "y": (2, 2, 6)}
    ops: tuple[Op, ...] = (
        Add("add", ("x", "x"), "twice", (1, 1)),
        Table("flip", ("x",), "flipped", tuple(range(127, -129, -1))),
        Concat("join", ("twice", "flipped"), "y"),
    )
    return Graph("g", {n: Tensor(n, s, q) for n, s in shapes.items()}, ops, ("x",), ("y",))


def test_a_graph_runs_in_order_and_shows_every_map() -> None:
    x = np.arange(-6, 6, dtype=np.int8).reshape(2, 2, 3)
    seen: dict[str, np.ndarray] = {}
    out = run(graph(), {"x": x}, seen.__setitem__)
    assert list(seen) == ["twice", "flipped", "y"]
    assert list(out) == ["y"]
    np.testing.assert_array_equal(out["y"], np.concatenate([2 * x, -1 - x], axis=2))


@pytest.mark.parametrize(
    ("inputs", "got"),
    [
        ({}, "nothing"),
        ({"x": np.zeros((2, 2, 4), np.int8)}, r"int8\[2, 2, 4\]"),
        ({"x": np.zeros((2, 2, 3), np.uint8)}, r"uint8\[2, 2, 3\]"),
    ],
    ids=["missing", "another shape", "another type"],
)
def test_an_input_that_does_not_fit_is_named(inputs: dict[str, np.ndarray], got: str) -> None:
    with pytest.raises(ModelError, match=rf"input x: got {got}, the graph takes int8\[2, 2, 3\]"):
        run(graph(), inputs)
