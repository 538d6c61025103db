"""The graph: shapes inferred, work counted, and every inconsistency refused with the node's name."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import GraphBuilder, graphs, inputs_of
from hypothesis import given, settings
from tilewright.ir import reference
from tilewright.ir.errors import ModelError
from tilewright.ir.graph import (
    Add,
    Concat,
    Conv,
    ConvTranspose,
    Graph,
    Op,
    Pool,
    Quant,
    Reshape,
    Slice,
    Table,
    Tensor,
    Window,
)
from tilewright.ir.requant import encode_scale

Q = Quant(0.1)


def _conv(o: int = 8, i: int = 4, groups: int = 1, window: Window = Window((3, 3))) -> Conv:  # noqa: B008
    kh, kw = window.kernel
    ones = np.ones((o, kh, kw, i), np.int8)
    return Conv(
        "c", ("x",), "y", ones, np.zeros(o, np.int32), encode_scale(np.full(o, 0.5), "f32"), window, groups
    )


def _graph(*ops: Op, outputs: tuple[str, ...] = ("y",), **shapes: tuple[int, int, int]) -> Graph:
    return Graph("g", {n: Tensor(n, s, Q) for n, s in shapes.items()}, ops, ("x",), outputs)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(graphs(most=4))
def test_declared_shapes_are_those_the_reference_makes(graph: Graph) -> None:
    """What `infer` says, what is declared, and what the arithmetic gives are one."""
    seen: dict[str, tuple[int, ...]] = {}
    reference.run(graph, inputs_of(graph), lambda name, value: seen.__setitem__(name, value.shape))
    assert seen == {op.output: graph.tensors[op.output].shape for op in graph.ops}


def test_macs_are_counted_as_a_user_counts_them() -> None:
    """Grouped, depthwise and moving convolutions; a transposed one by the products it really makes."""
    assert _conv().macs((10, 12, 8)) == 10 * 12 * 8 * 9 * 4
    assert _conv(8, 1, 8).macs((10, 12, 8)) == 10 * 12 * 8 * 9
    assert _conv(8, 1, 8).depthwise
    g = GraphBuilder(0, "f32")
    g.transposed(g.input((4, 5, 3)), 6, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1))
    op = g.ops[0]
    assert isinstance(op, ConvTranspose)
    x = np.ones((4, 5, 3), np.int64)
    products = sum(
        1
        for iy in range(4) for ix in range(5) for ky in range(3) for kx in range(3)
        if 0 <= iy * 2 + ky - 1 < 8 and 0 <= ix * 2 + kx - 1 < 10
    ) * x.shape[2] * 6  # fmt: skip
    assert op.macs((8, 10, 6)) >= products
    assert op.macs((8, 10, 6)) <= 1.3 * products


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _graph(_conv(), x=(8, 8, 5), y=(6, 6, 8)), r"c \(Conv\): input has 5 channels, weights want 4"),
        (lambda: _graph(_conv(), x=(8, 8, 4), y=(8, 8, 8)), r"c: declared output \(8, 8, 8\), the operator gives \(6, 6, 8\)"),
        (lambda: _graph(_conv(7, 4, 2)), r"7 output channels do not divide into 2 groups"),
        (lambda: _graph(Add("a", ("x", "z"), "y"), x=(4, 4, 4), y=(4, 4, 4)), "a: input z is produced by no earlier operator"),
        (lambda: _graph(x=(1, 1, 1)), "tensor y is used and never declared"),
        (lambda: _graph(x=(1, 1, 1), y=(1, 1, 1)), "output y is produced by no operator"),
        (lambda: _graph(Add("a", ("x", "x"), "x"), outputs=("x",), x=(1, 1, 1)), "output x is produced twice"),
        (lambda: _graph(Reshape("r", ("x",), "y", (2, 2, 3)), x=(4, 4, 1), y=(2, 2, 3)), "cannot be seen as"),
        (lambda: _graph(Slice("s", ("x",), "y", (0, 0, 0), (5, 1, 1)), x=(4, 4, 4), y=(5, 1, 1)), "0:5:1 is not inside 0:4"),
        (lambda: Concat("k", ("x", "z"), "y").infer(((2, 2, 1), (3, 2, 1))), "maps of different size"),
        (lambda: Add("a", ("x", "z"), "y").infer(((2, 2, 4), (1, 1, 3))), r"the second must equal the first or be \(1, 1, 4\)"),
        (lambda: Table("t", ("x",), "y", (1, 2, 3)), "a table has 256 int8 entries, not 3"),
        (lambda: Pool("p", ("x",), "y", "max", Window((2, 2), pad=(2, 0, 0, 0))), "is not smaller than the window"),
        (lambda: Pool("p", ("x",), "y", "avg", Window((2, 2)), (1,)), "1 scale words for 4 taps"),
        (lambda: Quant(0.0), "scale 0.0 is not a positive finite number"),
        (lambda: Quant(float("nan")), "scale nan is not"),
        (lambda: Quant(0.1, 200), r"zero point 200 is outside int8"),
        (lambda: _graph(Reshape("r", ("x",), "y", (1, 20000, 1)), x=(20000, 1, 1), y=(1, 20000, 1)), "takes extents 1..16384"),
    ],
)  # fmt: skip
def test_an_inconsistent_graph_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ModelError, match=message):
        make()


def test_the_summary_text_reads_as_a_program() -> None:
    text = str(_graph(_conv(window=Window((3, 3), (2, 2))), x=(9, 9, 4), y=(4, 4, 8)))
    assert text.splitlines() == [
        "graph g (%x)",
        "  %y: int8[4x4x8] = conv3x3/s2(%x)  # c",
        "  return %y",
    ]
