"""Dot products in every MAC style: exact for every int8, and equally fast."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator
from tilewright.ir.latency import dot_product
from tilewright.rtl.hierarchy import place
from tilewright.rtl.products import MAC_STYLES, PairedDot, PairedOperand, SharedOperand


def flat(values: np.ndarray) -> int:
    """Lanes as one number, lane 0 in the low byte."""
    return int.from_bytes(values.astype(np.int8).tobytes(), "little")


def operands(n: int, count: int) -> np.ndarray:
    """(count, 3, n): extremes first (each sum at its largest and smallest), then random ones."""
    rng = np.random.default_rng(n)
    out = rng.integers(-128, 128, (count, 3, n))
    ends = np.array([-128, 127])
    corners = np.array([[[a] * n, [b] * n, [c] * n] for a in ends for b in ends for c in ends])
    out[: len(corners)] = corners
    out[len(corners) : count // 2] = rng.choice(
        [-128, -127, -1, 0, 1, 127], (count // 2 - len(corners), 3, n)
    )
    return out


def sums(n: int, mac: str, vectors: np.ndarray) -> np.ndarray:
    """What the hardware gives, one vector a cycle, `dot_product(n)` cycles after it."""
    m = Module()
    shared, paired, dot = (
        place(m, name, part(n, mac))
        for name, part in (("shared", SharedOperand), ("paired", PairedOperand), ("dot", PairedDot))
    )
    m.d.comb += [dot.shared.eq(shared.operand), dot.paired.eq(paired.operand)]
    if mac == "dsp48e1":
        m.d.comb += dot.offsets.eq(shared.offsets)
    out = []

    async def bench(ctx: object) -> None:
        for cycle in range(len(vectors) + dot_product(n)):
            if cycle < len(vectors):
                x, one, two = vectors[cycle]
                ctx.set(shared.word, flat(x))
                ctx.set(paired.one, flat(one))
                ctx.set(paired.two, flat(two))
            if cycle >= dot_product(n):
                out.append((ctx.get(dot.one), ctx.get(dot.two)))
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(out)


@pytest.mark.parametrize("mac", MAC_STYLES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 10, 16, 22])
def test_both_sums_are_exact_and_in_time(n: int, mac: str) -> None:
    """All styles give the integer sums, also of extremes, after the declared latency."""
    vectors = operands(n, 300 if n > 8 else 500)
    expected = np.stack([(vectors[:, 0] * vectors[:, k]).sum(1) for k in (1, 2)], 1)
    assert (sums(n, mac, vectors) == expected).all()
