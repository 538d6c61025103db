"""Bounds against arithmetic by hand, and their laws."""

from __future__ import annotations

import numpy as np
import pytest
from tilewright.hwsim.bounds import bounds, weight_bytes
from tilewright.hwsim.dram import parse
from tilewright.ir.arch import Arch
from tilewright.ir.graph import Add, Conv, Graph, Op, Quant, Shape, Tensor, Window

FAST = parse("fixed:1024,0")
ARCH = Arch.preset("b4096")
NO_DWC = Arch.preset("b4096-nodw")


def conv(name: str, source: str, c_in: int, c_out: int, k: int = 1, stride: int = 1, groups: int = 1) -> Conv:
    """A convolution that keeps the size, but for its stride."""
    pad = k // 2
    return Conv(
        name, (source,), name,
        weight=np.ones((c_out, k, k, c_in // groups), np.int8), bias=np.zeros(c_out, np.int32),
        scale_word=np.ones(c_out, np.uint32), window=Window((k, k), (stride, stride), pad=(pad,) * 4), groups=groups,
    )  # fmt: skip


def inverted_residual(size: int = 56, channels: int = 24, expand: int = 144) -> Graph:
    """Expand, depthwise, project, add."""
    ops: tuple[Op, ...] = (
        conv("expand", "x", channels, expand),
        conv("depthwise", "expand", expand, expand, 3, 1, expand),
        conv("project", "depthwise", expand, channels),
        Add("add", ("project", "x"), "add"),
    )
    small: Shape = (size, size, channels)
    wide: Shape = (size, size, expand)
    shapes = {"x": small, "expand": wide, "depthwise": wide, "project": small, "add": small}
    return Graph("block", {n: Tensor(n, s, Quant(1.0)) for n, s in shapes.items()}, ops, ("x",), ("add",))


def test_compute_shares_depthwise_products_between_both_engines() -> None:
    """Two 1x1 layers need the array; the depthwise layer fits beside them, so the array's time is the bound."""
    pixels = 56 * 56
    array, depthwise = 2 * pixels * 24 * 144, pixels * 144 * 9
    found = bounds(inverted_residual(), ARCH, FAST)
    assert found.compute_cycles == max(array // 2048, (array + depthwise) // (2048 + 8 * 16 * 3))
    assert bounds(inverted_residual(), NO_DWC, FAST).compute_cycles == (array + depthwise) // 2048


def test_compulsory_bytes_are_weights_biases_inputs_and_outputs() -> None:
    """Every byte once; a residual input is the graph's input and counts once."""
    graph = inverted_residual()
    weights = 2 * 24 * 144 + 144 * 9 + 4 * (144 + 144 + 24)
    assert weight_bytes(graph) == weights
    found = bounds(graph, ARCH, FAST)
    assert found.compulsory_bytes == weights + 2 * 56 * 56 * 24
    # One direction of two 128-bit ports, 32 bytes a cycle: more bytes go in than out.
    assert found.dram_cycles == (weights + 56 * 56 * 24) // 32
    slow = bounds(graph, ARCH, parse("fixed:2,0"))
    assert slow.dram_cycles == pytest.approx(found.compulsory_bytes / 2, rel=1e-4)
    assert slow.limited_by == "dram"


def test_the_on_chip_bound_counts_each_map_once() -> None:
    """Expand and depthwise write 144 channels, project 24; reads are 24 + 144 + 144 through 64 banks of 16 bytes."""
    found = bounds(inverted_residual(), ARCH, FAST)
    assert found.onchip_cycles == 56 * 56 * (144 + 144 + 24) // (4 * 16 * 16)


@pytest.mark.parametrize("change", [{"conv.pixels": 4, "conv.drain": 4}, {"conv.oc": 8}, {"dma.ports": 1}])
def test_a_smaller_machine_has_no_lower_bound(change: dict[str, int]) -> None:
    """Fewer products or ports never lower a bound."""
    graph = inverted_residual()
    full, less = bounds(graph, ARCH, FAST), bounds(graph, ARCH.override(change), FAST)
    assert less.compute_cycles >= full.compute_cycles
    assert less.dram_cycles >= full.dram_cycles
