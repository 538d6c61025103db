"""The core's control from the host's side: runs, their figures, and everything that stops one. Engines are stubs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from amaranth.sim import Simulator
from stub_engines import BUSY, FAILS, HANGS, stub_engines
from tilewright.ir.arch import Arch
from tilewright.ir.isa import Engine, Opcode, VecOp, encode, instruction
from tilewright.ir.latency import FETCH_TAIL
from tilewright.rtl import core as core_module
from tilewright.rtl.core import DpuTop
from tilewright.rtl.faults import Cause
from tilewright.rtl.register_map import BLOCK_BYTES, INTERFACE_VERSION, MAGIC, register

SMALL = Arch().override(
    {
        "conv.pixels": 2, "conv.drain": 2, "conv.ic": 4, "conv.oc": 4, "dwc.pixels": 2, "dwc.channels": 4, "dwc.drain": 2,
        "vec.pixels": 2, "maps.kib": 4, "weights.kib": 4, "weights.depthwise_kib": 1, "dma.bits": 64, "dma.burst": 16,
        "name": "small",
    }
)  # fmt: skip
BASE = 0x12_3456_7000
LATENCY = 12

Word = bytes


def good() -> list[Word]:
    """One instruction of each engine, in a chain, then END."""
    rows = [
        instruction(Opcode.LOAD, d_group=0),
        instruction(Opcode.CONV, wait_load=1, a_group=0, d_group=1, last=1),
        instruction(Opcode.DWC, wait_conv=1, a_group=1, d_group=2),
        instruction(Opcode.VEC, VecOp.TABLE, wait_dwc=1, a_group=2, d_group=3),
        instruction(Opcode.SAVE, wait_vec=1, a_group=3),
        instruction(Opcode.LOAD, d_group=0),
        instruction(Opcode.END),
    ]
    return [encode(row[None]) for row in rows]


@dataclass
class Host:
    """A host behind the flat bus, and the memory that FETCH reads.

    Parameters
    ----------
    dut : DpuTop
    ctx : the simulator's context
    """

    dut: DpuTop
    ctx: Any
    image: bytes = b""
    fetch: str = "m_axi_fetch"
    fail_beat: int = -1
    cycle: int = 0
    origin: int | None = None
    starts: list[tuple[int, int]] = field(default_factory=list)
    """Cycle from the first request, and engines that start in it."""
    dones: list[tuple[int, int]] = field(default_factory=list)
    beats: list[tuple[int, bytes, bool]] = field(default_factory=list)
    delivered: int = 0

    def pin(self, name: str) -> Any:
        return getattr(self.dut, name)

    async def tick(self) -> None:
        """A cycle: memory, traces."""
        ctx, bits = self.ctx, self.dut.arch.beat_bytes
        ctx.set(self.pin(f"{self.fetch}_arready"), 1)
        if ctx.get(self.pin(f"{self.fetch}_arvalid")):
            if self.origin is None:
                self.origin = self.cycle
            at = ctx.get(self.pin(f"{self.fetch}_araddr")) - BASE
            count = ctx.get(self.pin(f"{self.fetch}_arlen")) + 1
            for i in range(count):
                piece = self.image[at + i * bits : at + (i + 1) * bits].ljust(bits, b"\0")
                self.beats.append((self.cycle + LATENCY, piece, i == count - 1))
        here = bool(self.beats) and self.beats[0][0] <= self.cycle
        ctx.set(self.pin(f"{self.fetch}_rvalid"), here)
        if here:
            _, piece, last = self.beats.pop(0)
            ctx.set(self.pin(f"{self.fetch}_rdata"), int.from_bytes(piece, "little"))
            ctx.set(self.pin(f"{self.fetch}_rlast"), last)
            ctx.set(self.pin(f"{self.fetch}_rresp"), 2 if self.delivered == self.fail_beat else 0)
            self.delivered += 1
        now = self.cycle - (self.origin or 0)
        for seen, name in ((self.starts, "trace_start"), (self.dones, "trace_done")):
            if engines := ctx.get(self.pin(name)):
                seen.append((now, engines))
        await ctx.tick()
        self.cycle += 1

    async def write(self, name: str, value: int, core: int = 0) -> None:
        ctx, pin = self.ctx, self.pin
        ctx.set(pin("s_axi_awaddr"), register(name).offset + BLOCK_BYTES * core)
        ctx.set(pin("s_axi_wdata"), value)
        ctx.set(pin("s_axi_wstrb"), 15)
        ctx.set(pin("s_axi_bready"), 1)
        left = {"aw", "w"}
        for _ in range(20):
            for channel in ("aw", "w"):
                ctx.set(pin(f"s_axi_{channel}valid"), channel in left)
            left -= {c for c in left if ctx.get(pin(f"s_axi_{c}ready"))}
            answered = ctx.get(pin("s_axi_bvalid"))
            await self.tick()
            if answered:
                break
        else:
            pytest.fail(f"no answer to the write of {name}")
        ctx.set(pin("s_axi_awvalid"), 0)
        ctx.set(pin("s_axi_wvalid"), 0)

    async def read(self, name: str, core: int = 0) -> int:
        ctx, pin = self.ctx, self.pin
        ctx.set(pin("s_axi_araddr"), register(name).offset + BLOCK_BYTES * core)
        ctx.set(pin("s_axi_rready"), 1)
        asking = True
        for _ in range(20):
            ctx.set(pin("s_axi_arvalid"), asking)
            asking = asking and not ctx.get(pin("s_axi_arready"))
            value = ctx.get(pin("s_axi_rdata")) if ctx.get(pin("s_axi_rvalid")) else None
            await self.tick()
            if value is not None:
                return int(value)
        pytest.fail(f"no answer to the read of {name}")

    async def read64(self, name: str, core: int = 0) -> int:
        return await self.read(f"{name}_LO", core) | await self.read(f"{name}_HI", core) << 32

    async def write64(self, name: str, value: int, core: int = 0) -> None:
        await self.write(f"{name}_LO", value & 0xFFFF_FFFF, core)
        await self.write(f"{name}_HI", value >> 32, core)

    async def start(self, words: list[Word], core: int = 0, count: int | None = None) -> None:
        self.image = b"".join(words)
        self.starts.clear()
        self.dones.clear()
        self.origin, self.delivered = None, 0
        await self.write64("PROGRAM_BASE", BASE, core)
        await self.write("PROGRAM_WORDS", len(words) if count is None else count, core)
        await self.write("IRQ_ENABLE", 3, core)
        await self.write("CONTROL", 1, core)

    async def wait(self, core: int = 0, limit: int = 1500) -> int:
        """Until the interrupt; returns STATUS, and takes the event back."""
        for _ in range(limit):
            if self.ctx.get(self.dut.irq) >> core & 1:
                break
            await self.tick()
        else:
            pytest.fail("no interrupt")
        events = await self.read("IRQ_STATUS", core)
        await self.write("IRQ_STATUS", events, core)
        assert not self.ctx.get(self.dut.irq) >> core & 1
        status = await self.read("STATUS", core)
        assert status == events << 1
        return status


DONE, ERROR = 0b010, 0b100


def on_host(bench: Callable[[Host], Any], arch: Arch = SMALL, core: int = 0) -> None:
    """Run `bench` with a design of stub engines whose cores know the program's hash."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core_module, "engine_components", stub_engines)
        dut = DpuTop(arch)

        async def begin(ctx: Any) -> None:
            host = Host(dut, ctx, fetch="m_axi_fetch" if arch.cores == 1 else f"m_axi_fetch{core}")
            await host.write64("PROGRAM_HASH", int(arch.design_hash, 16), core)
            await bench(host)

        sim = Simulator(dut)
        sim.add_clock(1e-6)
        sim.add_testbench(begin)
        sim.run()


def test_a_run_ends_with_its_figures_and_the_next_has_its_own() -> None:
    async def bench(host: Host) -> None:
        assert await host.read("ID") == MAGIC
        assert await host.read("VERSION") == INTERFACE_VERSION
        assert await host.read64("DESIGN_HASH") == int(SMALL.design_hash, 16)
        for words in (good(), good(), [good()[-1]], [*good()[:-1], *[instruction_word()] * 30, good()[-1]]):
            await host.start(words)
            assert await host.read("STATUS") == 1
            assert await host.wait() == DONE
            last = max((t for t, _ in host.dones), default=0)
            assert await host.read64("CYCLES") == max(last, ended(words))
            for e in Engine:
                count = sum(mask >> e & 1 for _, mask in host.dones)
                assert count == sum(engine_of(w) == e for w in words)
                assert await host.read(f"{e.name}_DONE") == count
                assert await host.read64(f"{e.name}_BUSY") == count * BUSY
            assert await host.read64("FETCH_BYTES") == -(-len(words) // 16) * 1024
            assert await host.read("ERROR_CAUSE") == Cause.NONE

    on_host(bench)


def instruction_word() -> Word:
    return encode(instruction(Opcode.CONV)[None])


def engine_of(word: Word) -> Engine | None:
    return {1: Engine.LOAD, 2: Engine.LOAD, 3: Engine.CONV, 4: Engine.DWC, 5: Engine.VEC, 6: Engine.SAVE}.get(
        word[0] & 15
    )


def ended(words: list[Word]) -> int:
    """The cycle after END's dispatch, where END is alone; else the tokens come later anyway."""
    return LATENCY + SMALL.dma.burst + FETCH_TAIL + 1 if len(words) == 1 else 0


def broken(at: int, word: Word) -> list[Word]:
    """A good program with another word at a place."""
    words = good()
    words[at] = word
    return words


def test_whatever_stops_a_run_is_named_and_the_next_run_is_right() -> None:
    """Each fault, then the good program again: same cycles as ever."""
    load = encode(instruction(Opcode.LOAD, address=HANGS)[None])
    failing_load = encode(instruction(Opcode.LOAD, address=FAILS)[None])
    failing_save = encode(instruction(Opcode.SAVE, wait_vec=1, a_group=3, address=FAILS)[None])
    early = encode(instruction(Opcode.VEC, VecOp.TABLE, wait_save=1)[None])
    cases: list[tuple[str, list[Word], dict[str, int], Cause, int, int, int]] = [
        ("unknown opcode", broken(2, bytes([15]) + bytes(63)), {}, Cause.OPCODE, 2, 0, 0),
        ("unknown function", broken(3, bytes([0x75]) + bytes(63)), {}, Cause.FUNCTION, 3, 0, 0),
        ("a wait for what stands later", broken(3, early), {}, Cause.WAIT, 3, 0, 0),
        ("no END", good()[:-1], {}, Cause.NO_END, 6, 0, 0),
        ("fetch", good(), {"fail_beat": 20}, Cause.FETCH_BUS, 2, BASE + 128, 2),
        ("load", broken(0, failing_load), {}, Cause.LOAD_BUS, 0, 0x9_8765_4321, 3),
        ("save", broken(4, failing_save), {}, Cause.SAVE_BUS, 4, 0x9_8765_4321, 3),
        ("watchdog", broken(0, load), {"watchdog": 90}, Cause.WATCHDOG, 0, 0, 0),
        ("abort", broken(5, load), {"abort": 200}, Cause.ABORT, 5, 0, 0),
        ("no words", good(), {"count": 0}, Cause.NO_END, 0, 0, 0),
    ]

    async def bench(host: Host) -> None:
        await host.start(good())
        assert await host.wait() == DONE
        cycles, starts = await host.read64("CYCLES"), list(host.starts)
        for name, words, how, cause, index, address, response in cases:
            host.fail_beat = how.get("fail_beat", -1)
            await host.write("WATCHDOG", how.get("watchdog", 0))
            await host.start(words, count=how.get("count"))
            if "abort" in how:
                for _ in range(how["abort"]):
                    await host.tick()
                await host.write("CONTROL", 2)
            began = host.cycle
            assert await host.wait() == ERROR, name
            assert await host.read("ERROR_CAUSE") == cause | response << 8, name
            assert await host.read("ERROR_INSTRUCTION") == index, name
            assert await host.read64("ERROR_ADDRESS") == address, name
            if cause in {Cause.LOAD_BUS, Cause.SAVE_BUS, Cause.ABORT}:
                assert host.cycle - began > 300  # the bus of the stub has run empty
            host.fail_beat = -1
            await host.write("WATCHDOG", 0)
            await host.start(good())
            assert await host.wait() == DONE, f"after {name}"
            assert await host.read64("CYCLES") == cycles
            assert host.starts == starts
            assert await host.read("ERROR_CAUSE") == Cause.NONE

    on_host(bench)


def test_a_program_for_another_machine_is_refused() -> None:
    async def bench(host: Host) -> None:
        await host.write64("PROGRAM_HASH", int(SMALL.design_hash, 16) ^ 1 << 40)
        await host.start(good())
        assert await host.wait() == ERROR
        assert await host.read("ERROR_CAUSE") == Cause.DESIGN
        assert host.origin is None
        assert await host.read64("CYCLES") == 0
        await host.write64("PROGRAM_HASH", int(SMALL.design_hash, 16))
        await host.start(good())
        assert await host.wait() == DONE

    on_host(bench)


def test_a_start_during_a_run_and_an_abort_without_one_are_ignored() -> None:
    async def bench(host: Host) -> None:
        await host.write("CONTROL", 2)
        assert await host.read("STATUS") == 0
        await host.start(good())
        await host.write("CONTROL", 1)
        assert await host.wait() == DONE
        for _ in range(100):
            await host.tick()
        assert await host.read("STATUS") == DONE
        assert len(host.dones) == 6

    on_host(bench)


def test_cores_of_a_design_run_on_their_own() -> None:
    """The second of three cores runs; the others stay idle, and numbers beyond the last read as zero."""
    arch = SMALL.override({"cores": 3})

    async def bench(host: Host) -> None:
        assert [await host.read("ID", c) for c in range(4)] == [MAGIC] * 3 + [0]
        await host.write("WATCHDOG", 7, 3)
        await host.start(good(), core=1)
        assert await host.wait(core=1) == DONE
        assert [await host.read("STATUS", c) for c in range(3)] == [0, DONE, 0]
        assert [await host.read64("CYCLES", c) > 0 for c in range(3)] == [False, True, False]
        assert {mask >> 5 & 31 for _, mask in host.dones} == {mask >> 5 for _, mask in host.dones}

    on_host(bench, arch, core=1)
