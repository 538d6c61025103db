"""The depthwise engine against the emulator's values and the simulator's cycles."""

from __future__ import annotations

import random
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator
from map_words import flat, placed
from tilewright.hwsim.emulate_kernels import depthwise
from tilewright.hwsim.oracle import busy_and_tail
from tilewright.ir.arch import Arch
from tilewright.ir.depthwise import DEPTHWISE_STEP, record_words, rows_a_step, tap_place
from tilewright.ir.isa import COLUMNS, Opcode, encode, instruction
from tilewright.ir.latency import ADDRESS, DWC_START, MAP_READ, MEMORY_READ
from tilewright.ir.requant import MODES, encode_scale
from tilewright.rtl.dwc import DwcEngine
from tilewright.rtl.row_window import tap_places

_ORDER = list(signature(depthwise.py_func).parameters)[3:]
"""Fields as the emulator's kernel takes them, after the memories."""


def machine(pixels: int, channels: int, taps: int, **more: int) -> Arch:
    """A small core with this depthwise engine."""
    return Arch.preset("b512").override(
        {
            "conv.pixels": 2,
            "conv.drain": 1,
            "conv.ic": 4,
            "conv.oc": 4,
            "vec.pixels": 1,
            "maps.kib": 64,
            "weights.kib": 16,
            "weights.depthwise_kib": 16,
            "weights.tables": 2,
            "dwc.pixels": pixels,
            "dwc.channels": channels,
            "dwc.taps": taps,
            "dwc.drain": min(pixels, 2),
        }
        | {key.replace("_", ".", 1): value for key, value in more.items()}
    )


@dataclass
class Memories:
    """What the engine reads and writes."""

    maps: Any
    depthwise: Any
    tables: Any
    filled: int = 3
    """Depthwise words taken by records."""

    @classmethod
    def random(cls, arch: Arch, rng: np.random.Generator) -> Memories:
        def fill(*shape: int) -> Any:
            return rng.integers(-128, 128, shape).astype(np.int8)

        maps = fill(arch.maps.groups, arch.group_words, arch.lanes)
        return cls(
            maps, fill(arch.depthwise_words, arch.dwc.taps, arch.lanes), fill(arch.weights.tables, 256)
        )

    def record(self, arch: Arch, at: int, kh: int, kw: int, mode: str, rng: np.random.Generator) -> None:
        """A block's record: biases and scale words that give results in range, weights, empty slots zero."""
        taps, lanes = arch.dwc.taps, arch.lanes
        bias = rng.integers(-(1 << 15), 1 << 15, lanes).astype("<i4")
        scale = encode_scale(2.0 ** -rng.uniform(6, 12, lanes), mode).astype("<u4")
        head = np.concatenate(
            [bias.view(np.uint8).reshape(lanes, 4), scale.view(np.uint8).reshape(lanes, 4)], 1
        ).T
        words = -(-8 // taps)
        for k in range(8):
            self.depthwise[at + k // taps, k % taps] = head[k].view(np.int8)
        self.depthwise[at + words : at + record_words(arch, kh, kw)] = 0
        for step, slot in tap_place(taps, kh, kw):
            self.depthwise[at + words + step, slot] = rng.integers(-128, 128, lanes)

    def run(self, row: dict[str, int]) -> None:
        """What the emulator does."""
        fields = placed(row, self.maps)
        depthwise(flat(self.maps), self.depthwise, self.tables, *(fields[name] for name in _ORDER))


def case(arch: Arch, memories: Memories, seed: int, **fixed: int) -> dict[str, int]:
    """A random legal instruction, its weights in `memories`; `fixed` fields are as given.

    It reads group 0 and writes another: nothing it reads is written by its neighbours in the pipeline.
    """
    pick, rng = random.Random(seed), np.random.default_rng(seed)
    d = arch.dwc
    while True:
        row = {
            **{"kh": pick.randint(1, d.rows), "kw": pick.randint(1, d.rows)},
            **{"sy": pick.choice([1, 1, 2, 3]), "sx": pick.randint(1, DEPTHWISE_STEP)},
            **{"dy": pick.choice([1, 1, 2, 5]), "dx": pick.randint(1, DEPTHWISE_STEP)},
            **{
                "out_h": pick.randint(1, 4),
                "out_w": pick.randint(1, 3 * d.pixels + 1),
                "blocks": pick.randint(1, 3),
            },
            **{"za": pick.randint(-128, 127), "zd": pick.randint(-128, 127)},
            **{"mode": pick.randrange(len(MODES)), "table": pick.randint(0, arch.weights.tables)},
        } | fixed
        if (d.pixels - 1) * row["sx"] + (row["kw"] - 1) * row["dx"] + 1 <= 2 * arch.banks:
            break
    rows_read = (row["out_h"] - 1) * row["sy"] + (row["kh"] - 1) * row["dy"] + 1
    columns_read = (row["out_w"] - 1) * row["sx"] + (row["kw"] - 1) * row["dx"] + 1
    row["pad_top"], row["pad_left"] = pick.randint(0, 2), pick.randint(0, 3)
    row["in_h"] = max(1, rows_read - row["pad_top"] - pick.randint(0, 2))
    row["in_w"] = max(1, columns_read - row["pad_left"] - pick.randint(-2, 2))
    row["lo"], row["hi"] = sorted((pick.randint(-128, -1), pick.randint(0, 127)))
    for side, height, width in (("a", row["in_h"], row["in_w"]), ("d", row["out_h"], row["out_w"])):
        row[f"{side}_rows"] = height + pick.randint(0, 3)
        row[f"{side}_row0"] = pick.randrange(row[f"{side}_rows"])
        row[f"{side}_pitch"] = width + pick.randint(0, 4)
        row[f"{side}_plane"] = row[f"{side}_rows"] * row[f"{side}_pitch"] + pick.randint(0, 3)
        size = row["blocks"] * row[f"{side}_plane"]
        assert size <= arch.group_words
        row[f"{side}_base"] = pick.randint(0, arch.group_words - size)
    row["a_group"], row["d_group"] = 0, pick.randrange(1, arch.maps.groups)
    record = record_words(arch, row["kh"], row["kw"])
    row["w_base"] = memories.filled
    memories.filled += row["blocks"] * record
    assert memories.filled <= arch.depthwise_words
    for b in range(row["blocks"]):
        memories.record(arch, row["w_base"] + b * record, row["kh"], row["kw"], MODES[row["mode"]], rng)
    return row


def word_of(row: dict[str, int]) -> int:
    return int.from_bytes(encode(instruction(Opcode.DWC, **row)[None]), "little")


def run(
    arch: Arch, memories: Memories, rows: list[dict[str, int]], starts: list[int], mac: str = "plain"
) -> Any:
    """The engine with memories behind it: cycles of `last` and `done`, requests and writes by cycle.

    Maps in `memories` are written; ports give noise in cycles for which nothing was asked.
    """
    engine = DwcEngine(arch, mac)
    noise = random.Random(1)
    banks, lanes = arch.banks, arch.lanes
    seen: dict[str, list[Any]] = {"last": [], "done": [], "read": [], "write": []}
    tails = [sum(busy_and_tail(_columns(row), arch)) for row in rows]
    end = max(start + length for start, length in zip(starts, tails, strict=True)) + 8
    at = dict(zip(starts, rows, strict=True))
    words: list[list[int]] = [[0] * banks for _ in range(end + MAP_READ)]
    weights = [0] * (end + MEMORY_READ)
    for cycle in range(end + MEMORY_READ):
        words[cycle] = [noise.getrandbits(8 * lanes) for _ in range(banks)]
        weights[cycle] = noise.getrandbits(8 * lanes * arch.dwc.taps)
    fill = [(256 * t + i, int(v)) for t, table in enumerate(memories.tables) for i, v in enumerate(table)]

    async def bench(ctx: Any) -> None:
        ctx.set(engine.table_fill.enable, 1)
        for address, value in fill:
            ctx.set(engine.table_fill.address, address)
            ctx.set(engine.table_fill.data, value & 255)
            await ctx.tick()
        ctx.set(engine.table_fill.enable, 0)
        for cycle in range(end):
            ctx.set(engine.control.start, cycle in at)
            ctx.set(engine.control.word, word_of(at[cycle]) if cycle in at else noise.getrandbits(512))
            for b in range(banks):
                ctx.set(getattr(engine.source, f"data{b}"), words[cycle][b])
            ctx.set(engine.weights.data, weights[cycle])
            for name in ("last", "done"):
                if ctx.get(getattr(engine.control, name)):
                    seen[name].append(cycle)
            enable = ctx.get(engine.source.enable)
            if enable:
                group = ctx.get(engine.source.group)
                seen["read"].append(cycle)
                for b in range(banks):
                    if enable >> b & 1:
                        word = ctx.get(getattr(engine.source, f"row{b}")) * banks + b
                        words[cycle + MAP_READ][b] = int.from_bytes(
                            flat(memories.maps)[group * arch.group_words + word].tobytes(), "little"
                        )
            if ctx.get(engine.weights.enable):
                word = ctx.get(engine.weights.address)
                weights[cycle + MEMORY_READ] = int.from_bytes(memories.depthwise[word].tobytes(), "little")
            enable = ctx.get(engine.target.enable)
            if enable:
                group = ctx.get(engine.target.group)
                seen["write"].append(cycle)
                for b in range(banks):
                    if enable >> b & 1:
                        word = ctx.get(getattr(engine.target, f"row{b}")) * banks + b
                        data, mask = (ctx.get(getattr(engine.target, f"{n}{b}")) for n in ("data", "mask"))
                        for lane in range(lanes):
                            if mask >> lane & 1:
                                byte = data >> 8 * lane & 255
                                flat(memories.maps)[group * arch.group_words + word, lane] = (
                                    byte - 256 if byte > 127 else byte
                                )
            await ctx.tick()

    simulator = Simulator(engine)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


def _columns(row: dict[str, int]) -> dict[str, int]:
    return dict.fromkeys(COLUMNS, 0) | {"opcode": int(Opcode.DWC)} | row


def check(arch: Arch, seeds: range, mac: str = "plain", **fixed: int) -> None:
    """Instructions back to back: every byte of the maps, and every cycle that others rely on."""
    rng = np.random.default_rng(seeds.start)
    memories = Memories.random(arch, rng)
    rows = [case(arch, memories, seed, **fixed) for seed in seeds]
    times = [busy_and_tail(_columns(row), arch) for row in rows]
    starts = [3]
    for busy, _ in times[:-1]:
        starts.append(starts[-1] + busy)
    want = Memories(memories.maps.copy(), memories.depthwise, memories.tables)
    for row in rows:
        want.run(row)
    seen = run(arch, memories, rows, starts, mac)
    assert seen["last"] == [start + busy - 1 for start, (busy, _) in zip(starts, times, strict=True)]
    assert seen["done"] == [start + busy + tail for start, (busy, tail) in zip(starts, times, strict=True)]
    assert (memories.maps == want.maps).all(), np.argwhere(memories.maps != want.maps)[:5].tolist()
    issue = range(starts[0] + DWC_START, starts[-1] + times[-1][0])
    assert all(cycle - ADDRESS in issue for cycle in seen["read"])
    assert seen["write"][-1] <= seen["done"][-1]


@pytest.mark.parametrize(
    ("pixels", "channels", "taps"), [(1, 4, 1), (2, 4, 3), (2, 3, 2), (4, 8, 3), (3, 2, 9), (4, 4, 6)]
)
def test_engine_equals_emulator_and_simulator(pixels: int, channels: int, taps: int) -> None:
    """Instructions that follow each other in the first cycle allowed give the emulator's bytes in the simulator's cycles."""
    check(machine(pixels, channels, taps), range(1, 5))


def test_shortest_instructions_follow_each_other() -> None:
    """Instructions of five cycles: seven of them are in the pipeline at once, each with its own zero points and target."""
    check(machine(2, 4, 9), range(10, 22), kh=1, kw=1, sx=1, dx=1, out_h=1, out_w=1, blocks=1)


def test_slow_drain_outlasts_everything_else() -> None:
    """One pixel a drain step: a drain has more steps than the row has products, and still none is lost."""
    check(machine(4, 4, 9, dwc_drain=1), range(30, 32), kh=1, kw=3)


def test_drain_steps_need_not_divide_the_pixels() -> None:
    """The last drain step has pixels that do not exist."""
    check(machine(4, 4, 3, dwc_drain=3), range(40, 42), kh=3, kw=3)


def test_tallest_kernel_reads_every_row_anew() -> None:
    """Fifteen kernel rows, all of them new in each output row: two output rows fill the window's ring."""
    check(
        machine(1, 4, 8, dwc_rows=15, conv_pixels=4),
        range(50, 51),
        kh=15,
        kw=15,
        sx=1,
        dx=1,
        sy=16,
        out_h=3,
        blocks=1,
    )


@pytest.mark.parametrize("mac", ["dsp48e2", "dsp48e1"])
def test_mac_styles_are_the_same_engine(mac: str) -> None:
    """Two products a DSP block: same bytes, same cycles."""
    check(machine(3, 4, 3), range(60, 62), mac)


def test_an_idle_engine_starts_again() -> None:
    """Idle cycles between instructions change nothing: the engine starts from its second instruction as from its first."""
    arch = machine(2, 4, 3)
    memories = Memories.random(arch, np.random.default_rng(70))
    rows = [case(arch, memories, seed, out_h=2, blocks=1) for seed in (70, 71)]
    (busy, tail), _ = times = [busy_and_tail(_columns(row), arch) for row in rows]
    starts = [1, 1 + busy + tail + 9]
    want = Memories(memories.maps.copy(), memories.depthwise, memories.tables)
    for row in rows:
        want.run(row)
    seen = run(arch, memories, rows, starts)
    assert seen["done"] == [start + sum(time) for start, time in zip(starts, times, strict=True)]
    assert (memories.maps == want.maps).all()


@pytest.mark.parametrize("taps", range(1, 17))
def test_taps_are_where_the_record_has_them(taps: int) -> None:
    """The multiplexers' places are those of `tap_place`, by which records are packed."""
    arch = machine(1, 4, taps, dwc_rows=15, conv_pixels=8)
    for kw in range(1, 16):
        group = rows_a_step(taps, kw)
        for tap, (_, slot) in enumerate(tap_place(taps, group, kw)):
            ky, kx = divmod(tap, kw)
            want = (ky, kx) if kw <= taps else (0, kx % taps)
            assert tap_places(arch, int(slot))[kw - 1] == want
