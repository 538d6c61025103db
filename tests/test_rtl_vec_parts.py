"""Parts of the VEC engine, each against a few lines of Python."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator
from numpy.typing import NDArray
from tilewright.ir.arch import Arch
from tilewright.ir.isa import COLUMNS, Opcode, VecOp, encode, instruction, render
from tilewright.ir.latency import VEC_START
from tilewright.rtl.running_sums import RunningSums
from tilewright.rtl.stages import Stages
from tilewright.rtl.vec_address import BankRequest, RingWords
from tilewright.rtl.vec_lanes import Across
from tilewright.rtl.vec_select import WordSelect
from tilewright.rtl.vec_sequence import VecSequence, vec_width
from tilewright.rtl.vec_write import RunWrite
from vec_instructions import Drawn, busy, small_arch


def _run(component: Any, bench: Any) -> None:
    sim = Simulator(component)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


# -- sequence ----------------------------------------------------------------------------------------------------------


def _slots(arch: Arch, row: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Issue slots of one instruction, as nested loops."""
    f = {name: int(row[at]) for name, at in COLUMNS.items()}
    func, v = f["func"], arch.vec.pixels
    pool, pair = func in (VecOp.MAX, VecOp.AVG), func in (VecOp.ADD, VecOp.MUL)
    column = pool and f["out_w"] == 1 and v > 1
    n = arch.vec.table_pixels if func == VecOp.TABLE and f["table"] else 1 if func == VecOp.RESIZE else v
    sy, sx = (f["sy"], f["sx"]) if pool or func == VecOp.TABLE else (1, 1)
    kh, kw = (f["kh"], f["kw"]) if pool else (1 + f["bilinear"], 1 + f["bilinear"])
    shared = pair and f["a_group"] == f["b_group"]
    stride = f["dx"] if column else sx
    ways = max(1, -(-n * gcd(stride, arch.banks) // arch.banks))
    share = -(-n // ways)
    for b in range(f["blocks"]):
        at = {p: (f[f"{p}_base"] + b * f[f"{p}_plane"]) % (1 << 18) for p in "ad"}
        for head in range(arch.lanes if func == VecOp.PRELU else int(shared and f["broadcast"])):
            slope = (
                {"lane": head, "slope": f["v_base"] + b * arch.lanes + head} if func == VecOp.PRELU else {}
            )
            yield {"head": 1, "read_a": 0, "read_b": int(pair), **slope}
        for r in range(f["out_h"]):
            for x in range(0, f["out_w"], n):
                taps = range(0, kw, v if column else 1)
                for ky in range(kh):
                    for kx in taps:
                        for way in range(2 if shared and not f["broadcast"] else ways):
                            last_tap = ky == kh - 1 and kx == taps[-1]
                            b_turn = shared and not f["broadcast"] and way == 0
                            whole = kw - kx if column else f["out_w"] - x
                            mine = range(n) if pair else range(way * share, (way + 1) * share)
                            yield {
                                "head": 0,
                                "active": sum(1 << p for p in mine if p < min(n, whole)),
                                "read_a": int(not b_turn),
                                "read_b": int(
                                    pair
                                    and (b_turn or (not shared and (not f["broadcast"] or (r, x) == (0, 0))))
                                ),
                                "begins": int(ky == 0 and kx == 0 and (way == 0 or not column)),
                                "ends": int(last_tap and not b_turn and (way == ways - 1 or not column)),
                                "row": r,
                                "column": x,
                                "block": b,
                                "a_at": at["a"],
                                "d_at": at["d"],
                                **(
                                    {"odd_row": ky, "odd_column": kx}
                                    if func == VecOp.RESIZE
                                    else {
                                        "y": r * sy + ky * f["dy"] - f["pad_top"],
                                        "x": x * sx + kx * f["dx"] - f["pad_left"],
                                    }
                                ),
                            }


@pytest.mark.parametrize(
    "arch",
    [small_arch(4, 1), small_arch(4, 2, 3), small_arch(6, 4, 1)],
    ids=["one word", "two words, tables of three", "four words"],
)
def test_slots_follow_the_loops(arch: Arch) -> None:
    """Every field of every slot, of instructions that start in the cycle after the last of the one before."""
    drawn = Drawn(arch, 3)
    rows = [drawn.instruction() for _ in range(60)]
    sequence = VecSequence(arch)
    words = encode(np.array(rows))

    async def bench(ctx: Any) -> None:
        for i, row in enumerate(rows):
            want = list(_slots(arch, row))
            ctx.set(sequence.start, 1)
            ctx.set(sequence.word, int.from_bytes(words[64 * i : 64 * (i + 1)], "little"))
            await ctx.tick()
            ctx.set(sequence.start, 0)
            ctx.set(sequence.word, 0)
            assert not ctx.get(sequence.slot.valid)
            await ctx.tick().repeat(VEC_START - 1)
            for k, slot in enumerate(want):
                assert ctx.get(sequence.slot.valid), f"{render(row)}: no slot {k}"
                assert ctx.get(sequence.slot.final) == (k == len(want) - 1)
                got = {name: ctx.get(getattr(sequence.slot, name)) for name in slot}
                assert got == slot, f"{render(row)}: slot {k}"
                if k < len(want) - 1:
                    await ctx.tick()
            # The next start comes one cycle after the last slot.
            await ctx.tick()
            assert not ctx.get(sequence.slot.valid)

    _run(sequence, bench)


def test_busy_cycles_are_the_start_and_a_slot_each() -> None:
    """`busy`, which the engine's test takes, and the loops above agree; a resize waits for its indices besides."""
    arch = small_arch(4, 4, 2)
    drawn = Drawn(arch, 4)
    for _ in range(100):
        row = drawn.instruction()
        if row[COLUMNS["func"]] != VecOp.RESIZE:
            assert busy(arch, row) == VEC_START + len(list(_slots(arch, row))), render(row)


def test_widths_at_their_ends() -> None:
    """The largest fields, for as many slots as it takes to see them move."""
    arch = small_arch(4, 2)
    top = {
        "out_h": 16383,
        "out_w": 16383,
        "blocks": 8191,
        "kh": 16383,
        "kw": 16383,
        "sy": 31,
        "sx": 31,
        "dy": 255,
        "dx": 255,
    }
    row = instruction(
        Opcode.VEC, VecOp.MAX, **top, pad_top=1023, pad_left=1023, a_base=(1 << 18) - 1, first=1, last=1
    )
    sequence = VecSequence(arch)

    async def bench(ctx: Any) -> None:
        ctx.set(sequence.start, 1)
        ctx.set(sequence.word, int.from_bytes(encode(row[None]), "little"))
        await ctx.tick()
        ctx.set(sequence.start, 0)
        await ctx.tick().repeat(VEC_START - 1)
        for slot, _ in zip(_slots(arch, row), range(200), strict=False):
            assert {n: ctx.get(getattr(sequence.slot, n)) for n in slot} == slot
            await ctx.tick()

    _run(sequence, bench)


# -- addresses and words -----------------------------------------------------------------------------------------------


def test_rows_wrap_round_the_ring() -> None:
    """Any operand, any row of it, modulo the 2^18 words that a number can name."""
    rng = np.random.default_rng(1)
    dut = RingWords(3)

    async def bench(ctx: Any) -> None:
        for _ in range(30):
            rows = int(rng.integers(1, 16384))
            row0, above, pitch = (int(rng.integers(0, n)) for n in (rows, 100, 16384))
            for name, value in (("rows", rows), ("row0", row0), ("above", above), ("pitch", pitch)):
                ctx.set(getattr(dut, name), value)
            await ctx.tick()
            row, at = (int(rng.integers(0, n)) for n in (min(rows, 16384 - above), 1 << 18))
            columns = [int(c) for c in rng.integers(0, 1 << 18, 3)]
            ctx.set(dut.row, above + row)
            ctx.set(dut.at, at)
            await ctx.tick()
            for p, c in enumerate(columns):
                ctx.set(getattr(dut, f"column{p}"), c)
            await ctx.tick().repeat(2)
            want = [(at + (row0 + row) % rows * pitch + c) % (1 << 18) for c in columns]
            assert [ctx.get(getattr(dut, f"word{p}")) for p in range(3)] == want

    _run(dut, bench)


def test_words_in_different_banks_are_requested_together() -> None:
    """Strided pixels, some of them not wanted."""
    arch, rng = small_arch(4, 3), np.random.default_rng(2)
    dut = BankRequest(arch, 3)

    async def bench(ctx: Any) -> None:
        for _ in range(60):
            first, stride, wanted = (
                int(rng.integers(0, 4000)),
                int(rng.choice([1, 2, 3, 5, 9])),
                int(rng.integers(8)),
            )
            words = [first + p * stride for p in range(3)]
            ctx.set(dut.wanted, wanted)
            for p, w in enumerate(words):
                ctx.set(getattr(dut, f"word{p}"), w)
            await ctx.tick()
            got = {
                ctx.get(getattr(dut, f"row{b}")) * arch.banks + b
                for b in range(arch.banks)
                if ctx.get(dut.enable) >> b & 1
            }
            assert got == {w for p, w in enumerate(words) if wanted >> p & 1}

    _run(dut, bench)


@pytest.mark.parametrize("pixels", [1, 3])
def test_pixels_get_the_words_of_their_banks(pixels: int) -> None:
    """And keep them while nothing new is taken."""
    arch, rng = small_arch(4, pixels, conv_pixels=8), np.random.default_rng(3)
    dut = WordSelect(arch, pixels)

    async def bench(ctx: Any) -> None:
        before = [0] * pixels
        for _ in range(40):
            data = [int(d) for d in rng.integers(0, 1 << 32, arch.banks)]
            banks = [int(b) for b in rng.integers(0, arch.banks, pixels)]
            take = int(rng.integers(2))
            for b, d in enumerate(data):
                ctx.set(getattr(dut, f"data{b}"), d)
            for p, b in enumerate(banks):
                ctx.set(getattr(dut, f"bank{p}"), b)
            await ctx.tick()
            ctx.set(dut.take, take)
            await ctx.tick()
            before = [data[b] for b in banks] if take else before
            assert [ctx.get(getattr(dut, f"word{p}")) for p in range(pixels)] == before

    _run(dut, bench)


@pytest.mark.parametrize("pixels", [1, 2, 3, 8, 11])
def test_a_run_is_written_wherever_it_begins(pixels: int) -> None:
    """Over the last bank into the next row, with any pixels left out, one run each cycle."""
    arch, rng = small_arch(4, 1, pixels), np.random.default_rng(4)
    dut = RunWrite(arch, vec_width(arch))
    runs = [
        (
            int(rng.integers(0, 5000)),
            int(rng.integers(1 << pixels)),
            [int(d) for d in rng.integers(0, 1 << 32, pixels)],
        )
        for _ in range(40)
    ]

    async def bench(ctx: Any) -> None:
        for i in range(len(runs) + 3):
            if i >= 2:
                ctx.set(dut.group, i % 4)
            if i >= 3:
                word, mask, data = runs[i - 3]
                got = {
                    ctx.get(getattr(dut.target, f"row{b}")) * arch.banks + b: ctx.get(
                        getattr(dut.target, f"data{b}")
                    )
                    for b in range(arch.banks)
                    if ctx.get(dut.target.enable) >> b & 1
                }
                assert got == {word + p: d for p, d in enumerate(data) if mask >> p & 1}
                assert ctx.get(dut.target.group) == (i - 1) % 4
            if i < len(runs):
                word, mask, data = runs[i]
                ctx.set(dut.word, word)
                ctx.set(dut.mask, mask)
                for p, d in enumerate(data):
                    ctx.set(getattr(dut, f"pixel{p}"), d)
            await ctx.tick()

    _run(dut, bench)


# -- sums --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [2, 3, 5, 32])
@pytest.mark.parametrize("maximum", [0, 1])
def test_sum_and_maximum_across_pixels(pixels: int, maximum: int) -> None:
    """Whatever the number of pixels, three cycles later."""
    rng = np.random.default_rng(pixels)
    taps = rng.integers(-255, 256, (12, pixels)).tolist()
    taps += [[-255] * pixels, [255] * pixels]
    dut = Across(pixels)

    async def bench(ctx: Any) -> None:
        for k in range(3):
            ctx.set(getattr(dut, f"maximum{k}"), maximum)
        for i in range(len(taps) + 3):
            if i >= 3:
                assert ctx.get(dut.total) == (max if maximum else sum)(taps[i - 3])
            for p, tap in enumerate(taps[min(i, len(taps) - 1)]):
                ctx.set(getattr(dut, f"tap{p}"), tap)
            await ctx.tick()

    _run(dut, bench)


def test_a_read_in_the_cycle_of_the_write_says_so() -> None:
    """One cycle later the word itself is there."""
    dut = RunningSums(small_arch(4, 1))

    async def bench(ctx: Any) -> None:
        ctx.set(dut.write_block, 5)
        ctx.set(dut.write_data, 0x123)
        ctx.set(dut.read_block, 5)
        for store, ongoing in ((1, True), (0, False)):
            ctx.set(dut.store, store)
            await ctx.tick()
            ctx.set(dut.store, 0)
            await ctx.tick()
            assert ctx.get(dut.ongoing) == ongoing
        assert ctx.get(dut.data) == 0x123
        ctx.set(dut.store, 1)
        ctx.set(dut.read_block, 4)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.ongoing), "another block"

    _run(dut, bench)


def test_values_arrive_at_their_stages() -> None:
    """Not before; and readers of one stage share its register."""
    m = Module()
    stages, value = Stages(m), Signal(4)
    stages.put("mask", value, 3)
    at = [stages.at("mask", k) for k in (3, 5, 4)]
    assert stages.at("mask", 5) is at[1]
    with pytest.raises(AssertionError, match="mask is there in stage 3, not in 2"):
        stages.at("mask", 2)

    async def bench(ctx: Any) -> None:
        for given in (7, 9, 4):
            ctx.set(value, given)
            await ctx.tick()
        assert [ctx.get(a) for a in at] == [4, 9, 4]

    _run(m, bench)
