"""What is proved of those that stand on a bus: the register file, the burst walker, LOAD, SAVE's buffer."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Mux, Signal
from amaranth.lib.wiring import Flow
from formal import Bench, stable
from tilewright.rtl.register_map import register

__all__ = ["registers"]


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
