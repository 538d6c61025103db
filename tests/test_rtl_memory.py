"""Map memory and wide memories: latency, masks, several engines at once."""

from __future__ import annotations

import random

from amaranth.sim import Simulator
from tilewright.ir.arch import Arch
from tilewright.ir.latency import MAP_READ, MEMORY_READ
from tilewright.rtl.memory import MapMemory, WideMemory

SMALL = Arch().override(
    {
        "conv.pixels": 2, "conv.drain": 2, "conv.ic": 4, "conv.oc": 4, "dwc.pixels": 2, "dwc.channels": 4, "dwc.drain": 2,
        "vec.pixels": 2, "maps.kib": 4, "weights.kib": 4, "weights.depthwise_kib": 1,
    }
)  # fmt: skip


def test_map_words_come_back_after_map_read_cycles_with_the_lanes_that_were_written() -> None:
    """Two readers and two writers, each with two neighbouring groups of its own; each cycle any set of banks of both."""
    arch, rng = SMALL.override({"maps.kib": 8, "maps.groups": 8}), random.Random(5)
    rows, banks, lanes = arch.group_words // arch.banks, arch.banks, arch.lanes
    dut = MapMemory(arch, ("conv", "save"), ("load", "vec"))
    model = {
        (g, b, r): [0] * lanes for g in range(arch.maps.groups) for b in range(banks) for r in range(rows)
    }
    checked = 0

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        nonlocal checked
        due: dict[int, list[tuple[str, int, int]]] = {}
        used = range(6)  # rows, so that reads meet what was written
        for g in range(arch.maps.groups):  # everything that is read was written
            for r in used:
                port = dut.write_load
                ctx.set(port.group, g)
                ctx.set(port.enable, (1 << banks) - 1)
                for b in range(banks):
                    ctx.set(getattr(port, f"row{b}"), r)
                    ctx.set(getattr(port, f"mask{b}"), (1 << lanes) - 1)
                    ctx.set(getattr(port, f"data{b}"), 0)
                await ctx.tick()
        ctx.set(dut.write_load.enable, 0)
        for t in range(400):
            pairs = rng.sample(range(0, arch.maps.groups, 2), 4)
            for name, group in zip(("load", "vec"), pairs[:2], strict=True):
                port = getattr(dut, f"write_{name}")
                enable = rng.getrandbits(banks)
                ctx.set(port.group, group)
                ctx.set(port.enable, enable)
                for b in range(banks):
                    r, mask, data = rng.choice(used), rng.getrandbits(lanes), rng.randbytes(lanes)
                    further = rng.randrange(2)
                    ctx.set(getattr(port, f"row{b}"), r + further * rows)
                    ctx.set(getattr(port, f"mask{b}"), mask)
                    ctx.set(getattr(port, f"data{b}"), int.from_bytes(data, "little"))
                    if enable >> b & 1:
                        for lane in range(lanes):
                            if mask >> lane & 1:
                                model[group + further, b, r][lane] = data[lane]
            for name, group in zip(("conv", "save"), pairs[2:], strict=True):
                port = getattr(dut, f"read_{name}")
                enable = rng.getrandbits(banks)
                ctx.set(port.group, group)
                ctx.set(port.enable, enable)
                for b in range(banks):
                    r, further = rng.choice(used), rng.randrange(2)
                    ctx.set(getattr(port, f"row{b}"), r + further * rows)
                    if enable >> b & 1:
                        value = int.from_bytes(bytes(model[group + further, b, r]), "little")
                        due.setdefault(t + MAP_READ, []).append((name, b, value))
            for name, b, value in due.pop(t, []):
                assert ctx.get(getattr(getattr(dut, f"read_{name}"), f"data{b}")) == value
                checked += 1
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert checked > 1000


def test_wide_words_come_back_after_memory_read_cycles() -> None:
    """Depth that is no power of two; a word written in one cycle may be read from the next on."""
    rng, depth, bits = random.Random(3), 21, 80
    dut, model, checked = WideMemory(depth, bits), {}, 0

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        nonlocal checked
        due: dict[int, int] = {}
        for t in range(300):
            write = rng.random() < 0.6
            at, value = rng.randrange(depth), rng.getrandbits(bits)
            wanted = rng.choice(list(model)) if model and rng.random() < 0.7 else None
            ctx.set(dut.read.enable, wanted is not None)
            if wanted is not None:
                ctx.set(dut.read.address, wanted)
                due[t + MEMORY_READ] = model[wanted]
            ctx.set(dut.fill.enable, write)
            ctx.set(dut.fill.address, at)
            ctx.set(dut.fill.data, value)
            if write:
                if wanted == at:
                    due.pop(t + MEMORY_READ)  # read and written in one cycle: either
                model[at] = value
            if t in due:
                assert ctx.get(dut.read.data) == due[t]
                checked += 1
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert checked > 100
