"""The requantiser against `ir.requant`, in every set of modes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from amaranth.sim import Simulator
from numpy.typing import NDArray
from tilewright.ir.latency import REQUANTISE
from tilewright.ir.requant import MODES, RoundingMode, encode_scale, requantise, round_shift
from tilewright.rtl.requantise import Requantise

SETS = [s for n in (1, 2, 3) for s in combinations(MODES, n)]
INT32 = -(2**31), 2**31 - 1
Column = NDArray[np.int64]
Vectors = dict[str, Column]


def _values(rng: np.random.Generator, n: int, bits: int) -> Column:
    """All magnitudes alike, with powers of two, runs of ones and extremes among them."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    power = np.int64(1) << rng.integers(0, bits, n)
    near = power + rng.integers(-3, 4, n)
    short = rng.integers(0, 1 << 12, n) << rng.integers(0, bits - 12, n)
    spread = (rng.random(n) * power).astype(np.int64)
    extreme = rng.choice([low, low + 1, -1, 0, 1, high - 1, high], n)
    kind = rng.integers(0, 8, n)
    value = np.select([kind == 0, kind < 3, kind < 5, kind < 7], [extreme, near, short, spread], spread)
    return np.clip(np.where(rng.random(n) < 0.5, -value, value), low, high)


def _multipliers(rng: np.random.Generator, value: Column, mode: RoundingMode) -> NDArray[np.float32]:
    """Such that the product is within int8, close to a tie, or anywhere."""
    n = len(value)
    magnitude = np.maximum(np.abs(value), 1)
    target = np.select(
        [rng.random(n) < 0.5],
        [rng.integers(0, 140, n) + 0.5],
        rng.random(n) * np.exp2(rng.integers(-3, 10, n)),
    )
    m = (target / magnitude).astype(np.float32)
    # Within some places of the last of it, and in a few any float at all.
    m = (m.view(np.uint32) + rng.integers(-2, 3, n)).astype(np.uint32).view(np.float32)
    anything = rng.integers(1, 0x7F7FFFFF, n).astype(np.uint32).view(np.float32)
    m = np.where(rng.random(n) < 0.1, anything, m)
    least, most = {"f32": (0.0, np.inf), "fix16": (0.0, 2.0**15), "shift": (0.0, 1.0)}[mode]
    return np.where((m > least) & (m < most), m, np.float32(2.0**-9)).astype(np.float32)


def _near_half(rng: np.random.Generator, mode: RoundingMode, n: int) -> tuple[Column, NDArray[np.float32]]:
    """Products next to half way: only their last bits say to which side they belong.

    f32: as far from half as half of the product's last place, which its rounding brings there or not, for one half of
    them exactly so; the value itself, where it has more than 24 bits, is half way between two floats. fix16: next to
    half, but not on it.
    """
    bits, tries = (24, 400 * n) if mode == "f32" else (16, 2000 * n)
    significand = rng.integers(1 << (bits - 1), 1 << bits, tries)
    twice = 2 * rng.integers(0, 128, tries) + 1
    places = rng.integers(bits, bits + 22, tries)
    half = twice << (places - 1)
    value = np.maximum(np.rint(half / significand).astype(np.int64), 1)
    if mode == "f32":
        spare = np.maximum(np.floor(np.log2(value)).astype(np.int64) - 23, 0)
        value = np.where(spare, (value >> spare << spare) | (1 << spare >> 1), value)
        used = value.astype(np.float32).astype(np.int64)
        half_place = np.ldexp(1.0, places + np.frexp(twice / 2)[1] - 25)  # of the product
        exact = rng.random(tries) < 0.5
        goal = np.rint((half + rng.choice([-1, 1], tries) * half_place) / used).astype(np.int64)
        significand = np.where(exact, np.clip(goal, 1 << 23, (1 << 24) - 1), significand)
        distance = np.abs(np.abs(used * significand - half) / half_place - 1)
        distance = np.where(value < 2**31, distance, np.inf)
        groups = [np.where(exact, distance, np.inf), np.where(exact, np.inf, distance)]
    else:
        away = np.abs(value * significand - half)
        groups = [np.where((away == 0) | (value >= 2**31), np.inf, np.ldexp(1.0, -places) * away)]
    best = np.concatenate([np.argsort(group)[: -(-n // len(groups))] for group in groups])[:n]
    multiplier = np.ldexp(significand[best].astype(np.float32), -places[best]).astype(np.float32)
    return np.where(rng.random(n) < 0.5, -1, 1) * value[best], multiplier


def _vectors(seed: int, modes: tuple[RoundingMode, ...], bits: int, n: int) -> tuple[Vectors, Column]:
    """Inputs a cycle, and the result of each."""
    rng = np.random.default_rng(seed)
    names = rng.choice(np.array(modes), n)
    raw = rng.random(n) < 0.2
    value = np.where(raw, _values(rng, n, bits), _values(rng, n, 32))
    shift = np.minimum(rng.integers(0, 64, n), np.where(rng.random(n) < 0.7, 40, 63))
    zd, a, b = (rng.integers(-128, 128, n) for _ in range(3))
    zd = np.where(rng.random(n) < 0.3, rng.choice([-128, 0, 127], n), zd)
    wide = rng.random(n) < 0.7
    lo, hi = np.where(wide, -128, np.minimum(a, b)), np.where(wide, 127, np.maximum(a, b))
    word, result = shift | rng.integers(0, 1 << 26, n) << 6, np.zeros(n, np.int64)
    for mode in modes:
        here = (names == mode) & ~raw
        multiplier = _multipliers(rng, value[here], mode)
        if mode != "shift":
            some = np.flatnonzero(here)[: int(here.sum()) // 2]
            value[some], multiplier[: len(some)] = _near_half(rng, mode, len(some))
        word[here] = encode_scale(multiplier, mode)
        word[here & (rng.random(n) < 0.02)] = 0  # lanes beyond the last channel
    for i in range(n):
        mode = names[i]
        if raw[i]:
            y = round_shift(value[i : i + 1], shift[i : i + 1], half_even=mode != "shift")[0] + zd[i]
            result[i] = min(max(int(y), int(lo[i])), int(hi[i]))
        else:
            span = {"zero_point": int(zd[i]), "low": int(lo[i]), "high": int(hi[i])}
            result[i] = requantise(value[i : i + 1], word[i : i + 1], mode, **span)[0]
    mode_bits = np.array([MODES.index(name) for name in names])
    inputs = {"value": value, "word": word, "mode": mode_bits, "raw": raw.astype(np.int64)}
    return inputs | {"zd": zd, "lo": lo, "hi": hi}, result


def _run(dut: Requantise, inputs: Vectors) -> Column:
    """One vector a cycle, and what comes out `REQUANTISE` cycles later."""
    n = len(inputs["value"])
    out = np.zeros(n, np.int64)
    ports = [(getattr(dut, name), column.tolist()) for name, column in inputs.items()]

    async def bench(ctx):  # type: ignore[no-untyped-def]
        for i in range(n + REQUANTISE):
            if i < n:
                for port, column in ports:
                    ctx.set(port, column[i])
            if i >= REQUANTISE:
                out[i - REQUANTISE] = ctx.get(dut.result)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return out


@pytest.mark.parametrize("bits", [32, 34])
@pytest.mark.parametrize("modes", SETS, ids="+".join)
def test_every_value_is_the_reference_s(modes: tuple[RoundingMode, ...], bits: int) -> None:
    """Any order of modes, words and ranges, a new one each cycle: every result after exactly `REQUANTISE` cycles."""
    inputs, expected = _vectors(1, modes, bits, 1500 if len(modes) == 3 else 500)
    got = _run(Requantise(modes, bits), inputs)
    wrong = np.flatnonzero(got != expected)
    shown = [
        {k: int(v[i]) for k, v in inputs.items()} | {"got": got[i], "not": expected[i]} for i in wrong[:3]
    ]
    assert not len(wrong), f"{len(wrong)} of {len(got)}: {shown}"
