"""What is proved of those that stand on a bus: the register file, the burst walker, LOAD, SAVE's buffer."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Mux, Signal
from amaranth.lib.wiring import Flow
from formal import Bench, in_order, stable
from tilewright.ir.arch import Arch
from tilewright.rtl.register_map import register

__all__ = ["SCALED_WALK", "burst_walker", "registers", "write_buffer"]

SMALL = Arch().override(
    {
        "conv.pixels": 2, "conv.drain": 2, "conv.ic": 4, "conv.oc": 4, "dwc.pixels": 0, "dwc.channels": 0, "vec.pixels": 2,
        "maps.kib": 4, "maps.groups": 2, "weights.kib": 4, "weights.depthwise_kib": 1, "weights.vector_kib": 1,
        "dma.bits": 32, "dma.ports": 1, "dma.burst": 2, "dma.outstanding": 2, "queues.depth": 2, "queues.prefetch": 16,
        "name": "small",
    }
)  # fmt: skip
"""Bursts of two beats of four bytes."""
SCALED_WALK = (
    (
        "_FIELDS = {f.name: f.bits for f in FORMATS[Opcode.LOAD, None]}",
        "_FIELDS = dict(run_bytes=3, runs1=2, stride1=3, runs2=2, stride2=5, address=5)",
    ),
    ("_LOW = 40", "_LOW = 7"),
    ("_PART = 17", "_PART = 3"),
)
"""The walker with numbers of a few bits."""


def _drive(bench: Bench, part: Any, *, constant: dict[str, Any] | None = None) -> None:
    """Free values at all inputs, or what `constant` says."""
    told = constant or {}
    for path, member, value in part.signature.flatten(part):
        if member.flow == Flow.In:
            name = "_".join(map(str, path))
            bench.m.d.comb += value.eq(told[name] if name in told else bench.free(value.shape(), name))


def _offered(bench: Bench, channel: Any, payload: tuple[str, ...], name: str) -> None:
    """The other side keeps its offer too."""
    waits = bench.past(channel.valid & ~channel.ready, f"{name}_waits")
    word = Cat(getattr(channel, p) for p in payload)
    bench.assume(~waits | (channel.valid & (word == bench.past(word, f"{name}_offer"))))


def registers(bench: Bench, module: Any) -> None:
    """AXI4-Lite: an answer to each request, in its place; and what is written is what is read."""
    dut, m = bench.add(module.RegisterFile()), bench.m
    _drive(bench, dut)
    bus = dut.bus
    _offered(bench, bus.aw, ("addr",), "aw")
    _offered(bench, bus.w, ("data", "strb"), "w")
    _offered(bench, bus.ar, ("addr",), "ar")
    stable(bench, bus.b, ("resp",), "b")
    stable(bench, bus.r, ("data", "resp"), "r")

    owed = {n: Signal(3, name=f"{n}_owed") for n in ("aw", "w", "ar")}
    for name, answer in (("aw", bus.b), ("w", bus.b), ("ar", bus.r)):
        channel = getattr(bus, name)
        m.d.sync += owed[name].eq(
            owed[name] + (channel.valid & channel.ready) - (answer.valid & answer.ready)
        )
        bench.check(f"{name} has an answer only where one is owed", ~answer.valid | (owed[name] == 1))
        bench.check(f"{name} is not taken twice", owed[name] <= 1)
    late = Signal(3)
    m.d.sync += late.eq(Mux(owed["ar"].any() & ~bus.r.valid, late + 1, 0))
    bench.check("a read is answered within three cycles", late < 3)
    tardy = Signal(3)
    m.d.sync += tardy.eq(Mux(owed["aw"].any() & owed["w"].any() & ~bus.b.valid, tardy + 1, 0))
    bench.check("a write is answered within two cycles", tardy < 2)

    # One byte of one register: what was written last is there, and is read.
    watchdog = register("WATCHDOG")
    to, strobe, byte = Signal(10), Signal(), Signal(8)
    with m.If(bus.aw.valid & bus.aw.ready):
        m.d.sync += to.eq(bus.aw.addr[2:])
    with m.If(bus.w.valid & bus.w.ready):
        m.d.sync += [strobe.eq(bus.w.strb[1]), byte.eq(bus.w.data[8:16])]
    kept, written = Signal(8), Signal()
    fresh = bus.b.valid & ~bench.past(bus.b.valid, "b_valid")
    now = Mux(fresh & (to == watchdog.offset // 4) & strobe, byte, kept)
    m.d.sync += [kept.eq(now), written.eq(written | (now != 0))]
    bench.check("a byte holds what was written last", dut.watchdog[8:16] == now)
    asked, shown = Signal(10), Signal(8)
    with m.If(bus.ar.valid & bus.ar.ready):
        m.d.sync += asked.eq(bus.ar.addr[2:])
    m.d.sync += shown.eq(dut.watchdog[8:16])
    first = bus.r.valid & ~bench.past(bus.r.valid, "r_valid")
    earlier = bench.past(shown, "shown")
    bench.check(
        "a byte is read as it stands",
        ~first | (asked != watchdog.offset // 4) | (bus.r.data[8:16] == earlier),
    )
    bench.reach(
        "written and read", first & written & (asked == watchdog.offset // 4) & (bus.r.data[8:16] == 0x5A)
    )
    bench.reach("data before its address", owed["w"].any() & ~owed["aw"].any())


def burst_walker(bench: Bench, module: Any) -> None:
    """Bursts stay until they are taken, never cross a cut, and have together the bytes that were asked for."""
    arch, m = SMALL, bench.m
    dut = bench.add(module.BurstWalker(arch))
    _drive(bench, dut)
    out, runs, fields = dut.burst, dut.runs, ("run_bytes", "runs1", "runs2")
    stable(bench, out, ("address", "len", "bytes", "last"), "burst")
    comes = out.valid & (~bench.past(out.valid, "valid") | bench.past(out.valid & out.ready, "taken"))
    active, total = Signal(), Signal(9)
    for name in fields:
        bench.assume(getattr(runs, name) != 0)
    bench.assume(~dut.start | (~active & ~dut.cancel))
    bytes_of_all = runs.run_bytes * runs.runs1 * runs.runs2
    bench.assume(bytes_of_all < 32)  # as many bits as the walker counts with
    with m.If(dut.start):
        m.d.sync += [active.eq(1), total.eq(bytes_of_all)]
    with m.Elif(dut.cancel | (comes & out.last)):
        m.d.sync += active.eq(0)
    with m.Elif(comes):
        m.d.sync += total.eq(total - out.bytes)
    cut, beat = arch.burst_bytes, arch.beat_bytes
    bench.check(
        "a burst belongs to an instruction", ~comes | active | bench.past(dut.cancel & active, "cancel")
    )
    bench.check("a burst comes only where one may", ~comes | bench.past(dut.permit, "permit"))
    bench.check("a burst has bytes", ~out.valid | (out.bytes != 0))
    bench.check("a burst crosses no cut", ~out.valid | (out.address % cut + out.bytes <= cut))
    bench.check(
        "beats are as many as the bytes need",
        ~out.valid | (out.len == (out.address % beat + out.bytes - 1) // beat),
    )
    bench.check("the last burst has the last byte", ~(comes & active) | (out.last == (out.bytes == total)))
    bench.check("never a byte too many", ~(comes & active) | (out.bytes <= total))
    bench.reach("an instruction of several runs ends", comes & out.last & bench.past(total < 4, "few"))
    bench.reach("a burst is a part of a beat", out.valid & (out.bytes == 1))


def write_buffer(bench: Bench, module: Any) -> None:
    """AXI4 write channels: order, beats, strobes, and no burst twice."""
    arch, m = SMALL, bench.m
    dut = bench.add(module.WriteBuffer(arch, 2))
    _drive(bench, dut)
    axi, beat, most = dut.axi, arch.beat_bytes, arch.dma.outstanding
    pending, asked, sent = (Signal(4, name=n) for n in ("pending", "asked", "sent"))
    goes_aw, goes_w = axi.aw.valid & axi.aw.ready, axi.w.valid & axi.w.ready
    ends = goes_w & axi.w.last
    m.d.sync += [
        pending.eq(pending + dut.push - axi.b.valid),
        asked.eq(asked + goes_aw - axi.b.valid),
        sent.eq(sent + ends - axi.b.valid),
    ]
    bench.assume(~dut.push | (pending < most))
    bench.assume(~dut.push | (dut.address % arch.burst_bytes + dut.most < arch.burst_bytes))
    bench.assume(~axi.b.valid | ((asked != 0) & (sent != 0)))  # answers after all of a burst is taken
    stable(bench, axi.aw, ("addr", "len", "size", "burst", "user"), "aw")
    stable(bench, axi.w, ("data", "strb", "last"), "w")

    in_order(
        bench,
        dut.push,
        Cat(dut.address, dut.most),
        goes_aw,
        Cat(axi.aw.addr, axi.aw.user[: len(dut.most)]),
        most,
        "address",
    )
    bench.check(
        "beats are as many as the bytes need",
        ~axi.aw.valid | (axi.aw.len == (axi.aw.addr % beat + axi.aw.user) // beat),
    )
    # What the beats say: how many they are, the first byte in the first one, the last byte in the last one.
    beats, low = Signal(4), Signal(2)
    first = beats == 0
    lowest = Mux(first, _lowest(axi.w.strb), low)
    with m.If(goes_w):
        m.d.sync += [beats.eq(Mux(axi.w.last, 0, beats + 1)), low.eq(lowest)]
    begin, end = dut.address[:2], (dut.address[:2] + dut.most)[:2]
    count = ((dut.address[:2] + dut.most) // beat)[:4]
    highest = 3 - _lowest(axi.w.strb[::-1])
    in_order(bench, dut.push, Cat(count, begin, end), ends, Cat(beats, lowest, highest[:2]), most, "burst")
    bench.check("no beat too many", ~axi.w.valid | (beats < arch.dma.burst))
    bench.check("beats belong to a burst", ~axi.w.valid | (sent < pending))
    bench.check("addresses belong to a burst", ~axi.aw.valid | (asked < pending))
    whole = [axi.w.strb == s for s in (0b1111, 0b1110, 0b1100, 0b1000, 0b0111, 0b0011, 0b0001)]
    inner = [axi.w.strb == s for s in (0b0110, 0b0100, 0b0010)]
    bench.check("bytes of a beat are side by side", ~axi.w.valid | Cat(whole, inner).any())
    bench.check("beats after the first begin with byte 0", ~axi.w.valid | first | axi.w.strb[0])
    bench.check("beats before the last end with the top byte", ~axi.w.valid | axi.w.last | axi.w.strb[3])
    bench.reach("all data before the address", ends & (asked == 0) & axi.aw.valid)
    bench.reach("two bursts in flight", (asked == 2) & (sent == 2))


def _lowest(bits: Any) -> Any:
    """Index of the lowest bit that is set, of four."""
    return Mux(bits[0], 0, Mux(bits[1], 1, Mux(bits[2], 2, 3)))
