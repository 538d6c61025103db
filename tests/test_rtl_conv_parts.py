"""Parts of the CONV engine alone: walks, loops, rotations, against plain arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Elaboratable
from amaranth.sim import Simulator
from conv_cases import small_arch
from tilewright.ir.isa import Opcode, encode, instruction
from tilewright.rtl.lane_rotate import LaneRotate
from tilewright.rtl.lut_memory import LutMemory
from tilewright.rtl.output_blocks import OutputBlocks, reaches
from tilewright.rtl.pixel_walk import PixelWalk
from tilewright.rtl.tile_loop import TileLoop
from tilewright.rtl.word_crossbar import WordCrossbar


def simulate(part: Elaboratable, bench: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    simulator = Simulator(part)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def word(**fields: int) -> int:
    plain = {"ways": 1, "drain_ways": 1, "kh": 1, "kw": 1, "out_h": 1, "out_w": 1, "last": 1}
    return int.from_bytes(encode(instruction(Opcode.CONV, **(plain | fields))[None]), "little")


@pytest.mark.parametrize(
    ("packed", "width", "height"), [(1, 3, 5), (1, 1, 7), (1, 9, 2), (0, 9, 3), (0, 4, 2)]
)
def test_a_pixel_walk_is_division_by_the_width(packed: int, width: int, height: int) -> None:
    """Columns and rows of every block, times strides 3 and 2."""
    n, walk = 4, PixelWalk(4, 12)
    on = n if not packed else n % width
    down = 0 if not packed else n // width

    async def bench(ctx: Any) -> None:
        for p in range(n):
            ctx.set(getattr(walk, f"first_x{p}"), 3 * (p % width if packed else p))
            ctx.set(getattr(walk, f"first_y{p}"), 2 * (p // width if packed else 0))
        ctx.set(walk.forward, 3 * on)
        ctx.set(walk.back, 3 * (on - width))
        ctx.set(walk.down, 2 * down)
        ctx.set(walk.down_more, 2 * (down + 1))
        ctx.set(walk.packed, packed)
        ctx.set(walk.restart, 1)
        await ctx.tick()
        ctx.set(walk.restart, 0)
        ctx.set(walk.advance, 1)
        line = range(0, width * height, n) if packed else range(0, width, n)
        for row in range(1 if packed else height):
            for start in line:
                for p in range(n):
                    i = start + p
                    expected = (3 * (i % width), 2 * (i // width)) if packed else (3 * i, 2 * row)
                    assert tuple(ctx.get(getattr(walk, f"{axis}{p}")) for axis in "xy") == expected
                ctx.set(walk.line, not packed and start == line[-1])
                await ctx.tick()

    simulate(walk, bench)


def test_a_tile_loop_ends_rows_and_tiles_where_counting_does() -> None:
    """All small tiles, packed or not, one block a cycle, restarted in the cycle after the instruction's."""
    arch = small_arch(pixels=3, ic=4, oc=4, drain=1)
    loop = TileLoop(arch)
    tiles = [(h, w, packed) for h in (1, 2, 3, 4) for w in range(1, 14) for packed in (0, 1)]

    async def bench(ctx: Any) -> None:
        for h, w, packed in tiles:
            ctx.set(loop.start, 1)
            ctx.set(loop.word, word(out_h=h, out_w=w, packed=packed))
            await ctx.tick()
            ctx.set(loop.start, 0)
            ctx.set(loop.restart, 1)
            await ctx.tick()
            ctx.set(loop.restart, 0)
            ctx.set(loop.advance, 1)
            rows, length = (1, h * w) if packed else (h, w)
            for row in range(rows):
                for start in range(0, length, 3):
                    ends = start + 3 >= length
                    assert (ctx.get(loop.line), ctx.get(loop.last)) == (ends, ends and row == rows - 1), (
                        h,
                        w,
                        packed,
                    )
                    await ctx.tick()
            ctx.set(loop.advance, 0)

    simulate(loop, bench)


@pytest.mark.parametrize(("lanes", "oc"), [(4, 4), (4, 10), (10, 4), (6, 16)])
def test_blocks_of_output_channels_know_their_words_and_the_longest_drain(lanes: int, oc: int) -> None:
    """Every lane of the first channel, and numbers of channels that end in the middle of a block."""
    arch = small_arch(pixels=3, ic=lanes, oc=oc, drain=2)
    part = OutputBlocks(arch)

    async def bench(ctx: Any) -> None:
        for lane0 in range(lanes):
            for channels in {1, oc - 1, oc, oc + 1, 2 * oc + 3, 3 * oc, 5 * oc + 1}:
                blocks = [range(c, min(c + oc, channels)) for c in range(0, channels, oc)]
                words = [len({(lane0 + c) // lanes for c in block}) for block in blocks]
                ctx.set(part.start, 1)
                ctx.set(part.word, word(out_c=channels, lane0=lane0, drain_ways=3, d_plane=100, d_base=7))
                await ctx.tick()
                ctx.set(part.start, 0)
                for i, block in enumerate(blocks):
                    ctx.set(part.advance, 0)
                    first = lane0 + block[0]
                    assert ctx.get(part.last) == (i == len(blocks) - 1)
                    assert (ctx.get(part.lane), ctx.get(part.count)) == (first % lanes, len(block))
                    assert ctx.get(part.words) == words[i]
                    assert ctx.get(part.plane) == 7 + 100 * (first // lanes)
                    assert ctx.get(part.inputs) == len({c // lanes for c in block})
                    assert ctx.get(part.lane_in) == block[0] % lanes
                    await ctx.tick()
                    assert (ctx.get(part.longest), ctx.get(part.drained)) == (6 * max(words), 6 * words[i])
                    ctx.set(part.advance, 1)
                    await ctx.tick()
                ctx.set(part.advance, 0)

    simulate(part, bench)


def test_the_number_of_channels_that_reaches_a_word_more_is_the_least() -> None:
    """`reaches` against counting."""
    for lanes, oc in ((4, 10), (10, 12), (12, 4), (8, 8)):
        for lane0 in range(lanes):
            most, found = 0, {}
            for channels in range(1, 12 * oc):
                block = range((channels - 1) // oc * oc, channels)
                words = len({(lane0 + c) // lanes for c in block})
                if words > most:
                    found[words] = channels
                    most = words
            assert {k: reaches(lanes, oc, k, lane0) for k in found} == found
            assert reaches(lanes, oc, most + 1, lane0) > 12 * oc


@pytest.mark.parametrize(("lanes", "given"), [(4, 4), (10, 10), (12, 6), (14, 14), (16, 16)])
def test_a_lane_rotation_moves_every_byte_by_every_amount(lanes: int, given: int) -> None:
    """Lanes without a byte of their own are not looked at."""
    part = LaneRotate(lanes, given)

    async def bench(ctx: Any) -> None:
        source = [17 + i for i in range(given)]
        ctx.set(part.bytes, int.from_bytes(bytes(source), "little"))
        for cycle in range(lanes + 2):
            ctx.set(part.amount, cycle % lanes)
            if cycle >= 2:
                got = ctx.get(part.word).to_bytes(lanes, "little")
                assert [got[(i + cycle - 2) % lanes] for i in range(given)] == source
            await ctx.tick()

    simulate(part, bench)


@pytest.mark.parametrize("banks", [2, 8, 32])
def test_a_crossbar_gives_each_pixel_its_bank_or_padding(banks: int) -> None:
    """A new choice every cycle, six cycles from request to word."""
    rng = np.random.default_rng(banks)
    part = WordCrossbar(banks, 2, 3)
    choices = rng.integers(0, banks, (60, 2))
    padded = rng.integers(0, 2, (60, 2))
    data = rng.integers(0, 1 << 24, (60, banks))

    async def bench(ctx: Any) -> None:
        ctx.set(part.za, 0x5A)
        for cycle in range(60):
            for p in range(2):
                ctx.set(getattr(part, f"bank{p}"), int(choices[cycle, p]))
                ctx.set(getattr(part, f"padded{p}"), int(padded[cycle, p]))
            for b in range(banks):
                ctx.set(getattr(part, f"data{b}"), int(data[cycle, b]))
            for p in range(2):
                if cycle >= 6:
                    then = cycle - 6
                    expected = 0x5A5A5A if padded[then, p] else data[cycle - 2, choices[then, p]]
                    assert ctx.get(getattr(part, f"word{p}")) == expected
            await ctx.tick()

    simulate(part, bench)


def test_a_lut_memory_writes_the_parts_that_are_enabled() -> None:
    """Reading follows the address in the same cycle."""
    part = LutMemory(4, 16, 2)

    async def bench(ctx: Any) -> None:
        for address, enable, data in ((1, 3, 0xABCD), (1, 1, 0x1122), (2, 3, 0), (2, 2, 0x3344)):
            ctx.set(part.to, address)
            ctx.set(part.write, enable)
            ctx.set(part.data, data)
            await ctx.tick()
        ctx.set(part.at, 1)
        assert ctx.get(part.word) == 0xAB22
        ctx.set(part.at, 2)
        assert ctx.get(part.word) == 0x3300

    simulate(part, bench)
