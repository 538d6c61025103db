"""The CONV engine against the emulator's bytes and the timing rules' cycles."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator
from conv_cases import Case, random_case, random_row, small_arch
from map_words import flat
from tilewright.ir.latency import MAP_READ, MEMORY_READ
from tilewright.rtl.conv import ConvEngine


class Bench:
    """An engine with the memories around it, a cycle at a time."""

    def __init__(self, case: Case, mac: str) -> None:
        self.case, self.engine = case, ConvEngine(case.arch, mac)
        self.maps = case.maps.copy()
        self.lasts: list[int] = []
        self.dones: list[int] = []
        self.written: list[tuple[int, int]] = []  # cycle, word

    def run(self) -> None:
        simulator = Simulator(self.engine)
        simulator.add_clock(1e-6)
        simulator.add_testbench(self.bench)
        simulator.run()

    async def bench(self, ctx: object) -> None:
        case, e = self.case, self.engine
        banks, lanes = case.arch.banks, case.arch.lanes
        starts = dict(zip(case.starts, case.words(), strict=True))
        weights = [int.from_bytes(w.tobytes(), "little") for w in case.weights]
        tables = case.tables.tobytes()
        for entry, byte in enumerate(tables):
            ctx.set(e.table_fill.enable, 1)
            ctx.set(e.table_fill.address, entry)
            ctx.set(e.table_fill.data, byte)
            await ctx.tick()
        ctx.set(e.table_fill.enable, 0)
        coming: dict[int, dict[int, int]] = {}  # map words by cycle and bank
        words: dict[int, int] = {}
        for cycle in range(case.dones[-1] + 4):
            ctx.set(e.control.start, cycle in starts)
            ctx.set(e.control.word, starts.get(cycle, (1 << 512) - 1))
            for bank, word in coming.pop(cycle, {}).items():
                ctx.set(getattr(e.source, f"data{bank}"), word)
            if cycle in words:
                ctx.set(e.weights.data, words.pop(cycle))
            if ctx.get(e.control.last):
                self.lasts.append(cycle)
            if ctx.get(e.control.done):
                self.dones.append(cycle)
            enable = ctx.get(e.source.enable)
            group = ctx.get(e.source.group)
            for bank in range(banks):
                if enable >> bank & 1:
                    row = ctx.get(getattr(e.source, f"row{bank}"))
                    data = flat(self.maps)[group * self.maps.shape[1] + row * banks + bank].tobytes()
                    coming.setdefault(cycle + MAP_READ, {})[bank] = int.from_bytes(data, "little")
            if ctx.get(e.weights.enable):
                words[cycle + MEMORY_READ] = weights[ctx.get(e.weights.address)]
            enable = ctx.get(e.target.enable)
            for bank in range(banks):
                if enable >> bank & 1:
                    at = ctx.get(getattr(e.target, f"row{bank}")) * banks + bank
                    mask, data = (
                        ctx.get(getattr(e.target, f"mask{bank}")),
                        ctx.get(getattr(e.target, f"data{bank}")),
                    )
                    lane = np.array([mask >> i & 1 for i in range(lanes)], bool)
                    new = np.frombuffer(data.to_bytes(lanes, "little"), np.int8)
                    flat(self.maps)[ctx.get(e.target.group) * self.maps.shape[1] + at][lane] = new[lane]
                    self.written.append((cycle, at))
            await ctx.tick()


def check(case: Case, mac: str = "plain") -> None:
    bench = Bench(case, mac)
    bench.run()
    assert bench.lasts == case.lasts
    assert bench.dones == case.dones
    np.testing.assert_array_equal(bench.maps, case.expected())


SHAPES = {
    "2x4x4": small_arch(pixels=2, ic=4, oc=4, drain=1),
    "3x6x4, drain 2": small_arch(pixels=3, ic=6, oc=4, drain=2),
    "4x4x10, drain 3": small_arch(pixels=4, ic=4, oc=10, drain=3),
    "1x8x6": small_arch(pixels=1, ic=8, oc=6, drain=1),
}
CYCLES = 500


@pytest.mark.parametrize("name", SHAPES)
def test_random_instructions_give_the_emulators_bytes_in_the_declared_cycles(name: str) -> None:
    """Values, byte enables, `last` and `done`, for instructions back to back."""
    check(random_case(SHAPES[name], 1, CYCLES))


def test_the_random_instructions_have_every_feature() -> None:
    """What is compared above is strided, padded, packed, shared, chained, diagonal, looked up, unaligned, rounded each way."""
    rows = [row for arch in SHAPES.values() for row in random_case(arch, 1, CYCLES).rows]
    for field, least in {
        **{
            "sy": 2,
            "sx": 2,
            "dy": 2,
            "dx": 2,
            "kh": 2,
            "kw": 2,
            "pad_top": 1,
            "pad_left": 1,
            "ways": 2,
            "drain_ways": 2,
        },
        **{
            "packed": 1,
            "diagonal": 1,
            "table": 1,
            "lane0": 1,
            "step_y": 2,
            "step_x": 2,
            "blocks": 2,
            "a_row0": 1,
            "d_row0": 1,
        },
    }.items():
        assert any(row[field] >= least for row in rows), field
    assert {row["mode"] for row in rows} == {0, 1, 2}
    assert {(row["first"], row["last"]) for row in rows} == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize("mac", ["dsp48e2", "dsp48e1"])
def test_a_mac_style_changes_neither_a_byte_nor_a_cycle(mac: str) -> None:
    """The same instructions: two chains of five products a sum."""
    check(random_case(small_arch(pixels=3, ic=10, oc=4, drain=2), 3, 150), mac)


def test_blocks_of_a_cycle_follow_each_other_without_a_gap() -> None:
    """One step and one drain step a pixel block, two cycles a block of output channels: the most that is ever in flight."""
    arch = small_arch(pixels=2, ic=8, oc=4, drain=2)
    rng, case = np.random.default_rng(0), Case(arch)
    one = {
        **{
            "kh": 1,
            "kw": 1,
            "blocks": 1,
            "sx": 1,
            "sy": 1,
            "diagonal": 0,
            "packed": 0,
            "lane0": 0,
            "step_x": 1,
            "step_y": 1,
        },
        **{"out_h": 1, "out_w": 2, "pad_left": 0, "pad_top": 0},
    }
    while len(case.rows) < 30:
        row = random_row(rng, case, **one, out_c=int(rng.choice([4, 40])))
        if row is None or any(
            word in case.parameters for words in case.parameter_words(row) for word in words
        ):
            continue
        case.write_parameters(rng, row)
        case.add(row | {"ways": 1, "drain_ways": 1})
    assert case.lasts[-1] - case.starts[0] + 1 == sum(2 + 2 * (row["out_c"] // 4) for row in case.rows)
    check(case)


def test_the_last_word_is_written_in_the_cycle_of_done() -> None:
    """No cycle of the tail is idle: `conv_tail` is what the pipeline takes."""
    case = Case(SHAPES["2x4x4"])
    rng = np.random.default_rng(0)
    row = None
    while row is None:
        row = random_row(rng, case, out_w=2, out_h=1, out_c=4, lane0=0, packed=0)
    case.write_parameters(rng, row)
    case.add(row | {"ways": 1, "drain_ways": 1})
    bench = Bench(case, "plain")
    bench.run()
    assert bench.written[-1][0] == bench.dones[0] == case.dones[0]
