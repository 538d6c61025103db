"""The VEC engine against the emulator's kernels, and against its timing rules, cycle by cycle."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator
from map_words import flat
from numpy.typing import NDArray
from tilewright.ir.arch import Arch
from tilewright.ir.isa import COLUMNS, Opcode, VecOp, encode, instruction, render
from tilewright.ir.latency import ADDRESS, MAP_READ, VEC_RESIZE, VEC_START, VEC_TAIL
from tilewright.rtl.vec import VecEngine
from vec_instructions import Drawn, busy, emulate, small_arch


@dataclass
class Bench:
    """An engine with modelled map memories around it: words come `MAP_READ` cycles after their request."""

    arch: Arch
    maps: NDArray[np.int8]
    tables: NDArray[np.int8]
    vector: NDArray[np.uint32]
    last: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    reads: list[tuple[int, str, int, int]] = field(default_factory=list)
    writes: list[tuple[int, int, int]] = field(default_factory=list)

    def run(self, rows: NDArray[np.int64], starts: list[int]) -> None:
        """Start instruction i in cycle ``starts[i]``; go on until all is done."""
        engine = VecEngine(self.arch)
        sim = Simulator(engine)
        sim.add_clock(1e-6)
        words = encode(rows)
        self.maps = self.maps.copy()

        async def bench(ctx: Any) -> None:
            for port, values in (
                (engine.table_fill, self.tables.view(np.uint8).ravel()),
                (engine.vector_fill, self.vector),
            ):
                ctx.set(port.enable, 1)
                for at, value in enumerate(values):
                    ctx.set(port.address, at)
                    ctx.set(port.data, int(value))
                    await ctx.tick()
                ctx.set(port.enable, 0)
            pending: deque[list[tuple[Any, int]]] = deque([[] for _ in range(MAP_READ)])
            todo = deque(zip(starts, range(len(rows)), strict=True))
            cycle = 0
            while len(self.done) < len(rows) and cycle < starts[-1] + 100_000:
                begin = bool(todo) and todo[0][0] == cycle
                ctx.set(engine.control.start, begin)
                if begin:
                    i = todo.popleft()[1]
                    ctx.set(engine.control.word, int.from_bytes(words[64 * i : 64 * (i + 1)], "little"))
                for signal, value in pending.popleft():
                    ctx.set(signal, value)
                pending.append(self._requests(ctx, cycle, engine))
                self._write(ctx, cycle, engine.target)
                if ctx.get(engine.control.last):
                    self.last.append(cycle)
                if ctx.get(engine.control.done):
                    self.done.append(cycle)
                await ctx.tick()
                cycle += 1

        sim.add_testbench(bench)
        sim.run()

    def _requests(self, ctx: Any, cycle: int, engine: VecEngine) -> list[tuple[Any, int]]:
        answers = []
        for name in ("a", "b"):
            port = getattr(engine, f"source_{name}")
            enable = ctx.get(port.enable)
            if not enable:
                continue
            group = ctx.get(port.group)
            for bank in range(self.arch.banks):
                if enable >> bank & 1:
                    word = ctx.get(getattr(port, f"row{bank}")) * self.arch.banks + bank
                    self.reads.append((cycle, name, group, word))
                    data = int.from_bytes(
                        flat(self.maps)[group * self.arch.group_words + word].tobytes(), "little"
                    )
                    answers.append((getattr(port, f"data{bank}"), data))
        return answers

    def _write(self, ctx: Any, cycle: int, port: Any) -> None:
        enable = ctx.get(port.enable)
        if not enable:
            return
        group = ctx.get(port.group)
        for bank in range(self.arch.banks):
            if enable >> bank & 1:
                word = ctx.get(getattr(port, f"row{bank}")) * self.arch.banks + bank
                assert ctx.get(getattr(port, f"mask{bank}")) == (1 << self.arch.lanes) - 1
                data = ctx.get(getattr(port, f"data{bank}")).to_bytes(self.arch.lanes, "little")
                flat(self.maps)[group * self.arch.group_words + word] = np.frombuffer(data, np.int8)
                self.writes.append((cycle, group, word))


def _check(arch: Arch, rows: NDArray[np.int64], drawn: Drawn, gaps: list[int]) -> None:
    """Values, last, done, and when the first and last requests come."""
    rng = np.random.default_rng(drawn.seed)
    maps = rng.integers(-128, 128, (arch.maps.groups, arch.group_words, arch.lanes)).astype(np.int8)
    tables = rng.integers(-128, 128, (arch.weights.tables, 256)).astype(np.int8)
    bench = Bench(arch, maps, tables, drawn.vector[: drawn.used])
    length = [busy(arch, row) for row in rows]
    starts = [int(s) for s in np.cumsum([3, *(n + g for n, g in zip(length, gaps, strict=True))])[:-1]]
    bench.run(rows, starts)

    ends = [s + n for s, n in zip(starts, length, strict=True)]
    assert bench.last == [end - 1 for end in ends]
    assert bench.done == [end + VEC_TAIL for end in ends]
    read_cycles, write_cycles = (np.array([r[0] for r in log]) for log in (bench.reads, bench.writes))
    for row, start, end in zip(rows, starts, ends, strict=True):
        f = {name: int(row[at]) for name, at in COLUMNS.items()}
        pool = f["func"] in (VecOp.MAX, VecOp.AVG)
        first = start + VEC_START + (VEC_RESIZE if f["func"] == VecOp.RESIZE else 0) + ADDRESS
        mine = (read_cycles >= start + ADDRESS) & (read_cycles < end + ADDRESS)
        assert (read_cycles[mine] >= first).all(), f"{render(row)}: a request before the first slot's"
        mine = (write_cycles > start + VEC_TAIL) & (write_cycles <= end + VEC_TAIL)
        words = f["blocks"] * f["out_h"] * f["out_w"] * (f["last"] if pool else 1)
        assert mine.sum() == words, f"{render(row)}: not all words are written by done"

    sums = np.zeros((arch.vec.sums, arch.lanes), np.int32)
    for row in rows:
        emulate(row, maps=maps, tables=tables, vector=drawn.vector, sums=sums)
    wrong = np.argwhere((bench.maps != maps).any(axis=2))
    texts = "\n".join(render(row) for row in rows)
    assert not len(wrong), f"words {wrong[:5].tolist()} differ after\n{texts}"


ARCHES = {
    "one word": small_arch(4, 1),
    "two words": small_arch(6, 2),
    "four words, tables of two": small_arch(4, 4, 2),
    "one word, tables of four": small_arch(4, 1, 4),
}


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_any_instructions_back_to_back_equal_the_emulator(arch: Arch) -> None:
    """Each starts in the cycle after the last of the one before: values, last and done are as the rules say."""
    drawn = Drawn(arch, 1)
    rows = np.array([drawn.instruction() for _ in range(12)])
    _check(arch, rows, drawn, [0] * len(rows))


@pytest.mark.parametrize("func", [VecOp.MAX, VecOp.AVG])
def test_running_sums_go_on_at_the_least_distance(func: VecOp) -> None:
    """Windows of one tap of one block: three cycles from a sum to the instruction that takes it up."""
    arch = small_arch(4, 2)
    drawn = Drawn(arch, 2)
    tap = {
        "d_group": 3, "d_rows": 1, "d_pitch": 1, "a_rows": 1, "a_pitch": 1, "out_h": 1, "out_w": 1, "in_h": 1, "in_w": 1,
        "kh": 1, "kw": 1, "sy": 1, "sx": 1, "dy": 1, "dx": 1, "lo": -128, "hi": 127, "mode": 1, "scale": 0x8000 | 16 << 16,
    }  # fmt: skip
    rows = []
    for chain, blocks in enumerate((1, 1, 2, 3)):
        for k in range(4):
            more = {
                "blocks": blocks,
                "a_base": 40 * chain + 9 * k,
                "a_plane": 3,
                "d_base": 8 * chain,
                "d_plane": 1,
            }
            rows.append(instruction(Opcode.VEC, func, **tap, **more, first=int(k == 0), last=int(k == 3)))
    _check(arch, np.array(rows), drawn, [0] * len(rows))


def test_other_work_may_come_between_running_sums() -> None:
    """Sums stay where they are, whatever else the engine does, and however long it pauses."""
    arch = small_arch(4, 2)
    drawn = Drawn(arch, 7)
    first = drawn.instruction(VecOp.AVG)
    while first[COLUMNS["last"]]:
        first = drawn.instruction(VecOp.AVG)
    chain, drawn._chain = drawn._chain, None
    rows = [first, *(drawn.instruction(f) for f in (VecOp.ADD, VecOp.RESIZE, VecOp.PRELU))]
    drawn._chain = chain
    while drawn._chain is not None:
        rows.append(drawn.instruction())
    _check(arch, np.array(rows), drawn, [0, 3, 0, 1, *[40] * (len(rows) - 4)])


def test_a_reset_ends_everything() -> None:
    """After one cycle of reset no request, no word, no last and no done comes from what was under way."""
    arch = small_arch(4, 2)
    engine, reset = VecEngine(arch), Signal()
    sim = Simulator(ResetInserter(reset)(engine))
    sim.add_clock(1e-6)
    drawn = Drawn(arch, 5)
    rows = [drawn.instruction(f) for f in (VecOp.RESIZE, VecOp.TABLE, VecOp.ADD)]

    async def bench(ctx: Any) -> None:
        for row in rows:
            ctx.set(engine.control.start, 1)
            ctx.set(engine.control.word, int.from_bytes(encode(row[None]), "little"))
            await ctx.tick()
            ctx.set(engine.control.start, 0)
            await ctx.tick().repeat(busy(arch, row) - 1)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        for _ in range(60):
            ports = (engine.source_a, engine.source_b, engine.target)
            assert not any(ctx.get(p.enable) for p in ports)
            assert not ctx.get(engine.control.last)
            assert not ctx.get(engine.control.done)
            await ctx.tick()

    sim.add_testbench(bench)
    sim.run()
