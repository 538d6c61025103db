"""Window positions behind padding: what an instruction cannot say in one piece is said in several."""

from __future__ import annotations

import pytest
from graphs import GraphBuilder
from running import compare
from tilewright.ir.arch import Arch
from tilewright.scheduler import schedule
from tilewright.scheduler.operands import MOST_PADDING, padded_runs, window_axis


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("span", [1, 3, 7])
@pytest.mark.parametrize("pad", [0, 5, 1023, 1024, 1600, 5000])
def test_runs_cover_each_position_once_and_fit_the_field(pad: int, span: int, stride: int) -> None:
    """In order, without gaps; the map's own columns are seen by the same positions as before."""
    positions, size = (pad + 40 - span) // stride + 1, 40
    runs = list(padded_runs(0, positions, stride, pad, span))
    assert [a for a, _ in runs] == [0, *(b for _, b in runs[:-1])]
    assert runs[-1][1] == positions
    for low, high in runs:
        start, before, valid = window_axis(low, high, stride, pad, span, size)
        assert before <= MOST_PADDING
        for p in range(low, high):
            taps = [p * stride - pad + k for k in range(span)]
            local = [(p - low) * stride + k - before for k in range(span)]
            assert [t for t in taps if 0 <= t < size] == [start + k for k in local if 0 <= k < valid]


@pytest.mark.parametrize("arch", ["b512", "b512-nodw"])
@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize("pad", [(0, 1600, 0, 30), (1100, 2, 0, 0)], ids=["columns", "rows"])
def test_padding_longer_than_its_field_is_computed(
    pad: tuple[int, int, int, int], groups: int, arch: str
) -> None:
    """As where a long concatenation along an axis of the map is spelt as padding and sums."""
    g = GraphBuilder(3, "f32")
    g.conv(g.input((5, 40, 16)), 16, (2, 3), (1, 1), pad, groups=groups)
    graph = g.graph()
    found = compare(schedule(graph, Arch.preset(arch)), graph, 1)
    assert found.compared > 16 * 1000
    assert not found.differing
