"""Tidied graphs: fewer tables, the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from tilewright.frontend.tidy import tidy
from tilewright.ir.graph import Conv, Graph, Quant, Table, Tensor
from tilewright.ir.reference import run
from tilewright.ir.requant import encode_scale

CLIP = tuple(int(v) for v in np.clip(np.arange(-128, 128), -20, 90))
NOISE = tuple(int(v) for v in np.random.default_rng(0).integers(-128, 128, 256))
SAME = tuple(range(-128, 128))


def chain(*tables: tuple[int, ...], outputs: tuple[str, ...] = (), quants: tuple[float, ...] = ()) -> Graph:
    """A 1x1 convolution and tables behind it, t0 -> t1 -> ...; the last map is always an output."""
    rng = np.random.default_rng(1)
    weight = rng.integers(-127, 128, (6, 1, 1, 4)).astype(np.int8)
    words = np.full(6, encode_scale(0.004, "f32"), np.uint32)
    scales = quants or (0.1,) * (len(tables) + 1)
    tensors = {"x": Tensor("x", (5, 3, 4), Quant(0.1, 3))}
    tensors |= {f"t{i}": Tensor(f"t{i}", (5, 3, 6), Quant(s)) for i, s in enumerate(scales)}
    ops = [Conv("conv", ("x",), "t0", weight, np.arange(6, dtype=np.int32), words, low=-100)]
    ops += [Table(f"table{i}", (f"t{i}",), f"t{i + 1}", values) for i, values in enumerate(tables)]  # type: ignore[list-item]
    return Graph("chain", tensors, tuple(ops), ("x",), tuple(dict.fromkeys((*outputs, f"t{len(tables)}"))))


@pytest.mark.parametrize(
    ("graph", "kinds"),
    [
        (chain(NOISE, CLIP, NOISE[::-1]), ["Conv", "Table"]),
        (chain(CLIP), ["Conv"]),
        (chain(SAME), ["Conv"]),
        (chain(CLIP, NOISE), ["Conv", "Table"]),
        (chain(CLIP, quants=(0.1, 0.2)), ["Conv", "Table"]),
        (chain(CLIP, outputs=("t0",)), ["Conv", "Table"]),
        (chain(NOISE, NOISE, outputs=("t1",)), ["Conv", "Table", "Table"]),
    ],
    ids=[
        "three tables",
        "a clamp",
        "nothing",
        "clamp, then table",
        "another scale",
        "an output between",
        "an output in the chain",
    ],
)
def test_tables_vanish_and_no_byte_changes(graph: Graph, kinds: list[str]) -> None:
    """What is left, and its outputs by name and value."""
    tidied = tidy(graph)
    assert [type(op).__name__ for op in tidied] == kinds
    x = np.random.default_rng(2).integers(-128, 128, (5, 3, 4)).astype(np.int8)
    want, got = run(graph, {"x": x}), run(tidied, {"x": x})
    assert list(want) == list(got)
    assert all(np.array_equal(want[k], got[k]) for k in want)
