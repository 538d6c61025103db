"""The register file behind AXI4-Lite, built from `register_map.REGISTERS`."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from .axi import OKAY, lite
from .register_map import BLOCK_BYTES, REGISTERS, Access, Register

__all__ = ["RegisterFile"]

_BITS = (BLOCK_BYTES - 1).bit_length()
_PER_PAGE = 16
"""Registers of the first level of the read multiplexer."""


class RegisterFile(Component):
    """One transfer of a kind at a time; writes heed the strobes, addresses without a register read as 0.

    Members
    -------
    bus : In(lite(12))
    <register> : In(32) or Out(32)
        Called after the register, in lower case. ``ro``: the value, in. ``rw``: the value, out. ``wo``: pulses, out.
        ``w1c``: the value, out, and ``set_<register>``, in: bits that are set in this cycle.

    Timing: a write acts two cycles after both its channels were taken; a read answers three cycles after its address.
    """

    def __init__(self) -> None:
        ports = {}
        for r in REGISTERS:
            name = r.name.lower()
            ports[name] = In(32) if r.access == Access.READ else Out(32, init=r.reset)
            if r.access == Access.CLEAR:
                ports[f"set_{name}"] = In(32)
        super().__init__({"bus": In(lite(_BITS)), **ports})

    @property
    def module_name(self) -> str:
        return "registers"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._write(m)
        self._read(m)
        return m

    def _write(self, m: Module) -> None:
        bus = self.bus
        address, data, strobes = (
            Signal(w, name=n, reset_less=True)
            for w, n in ((_BITS - 2, "write_to"), (32, "data"), (4, "strobes"))
        )
        addressed, given, act = (Signal(name=n) for n in ("addressed", "given", "act"))
        m.d.comb += [
            *(bus.aw.ready.eq(~addressed), bus.w.ready.eq(~given), bus.b.resp.eq(OKAY)),
            act.eq(addressed & given & ~bus.b.valid),
        ]
        with m.If(bus.aw.valid & bus.aw.ready):
            m.d.sync += [addressed.eq(1), address.eq(bus.aw.addr[2:])]
        with m.If(bus.w.valid & bus.w.ready):
            m.d.sync += [given.eq(1), data.eq(bus.w.data), strobes.eq(bus.w.strb)]
        with m.If(act):
            m.d.sync += bus.b.valid.eq(1)
        with m.If(bus.b.valid & bus.b.ready):
            m.d.sync += [bus.b.valid.eq(0), addressed.eq(0), given.eq(0)]
        written = Cat(s.replicate(8) for s in strobes)
        for r in REGISTERS:
            if r.access == Access.READ:
                continue
            value, here = getattr(self, r.name.lower()), Signal(name=f"write_{r.name.lower()}")
            m.d.comb += here.eq(act & (address == r.offset // 4))
            new, mask = data & written & r.mask, written & r.mask
            if r.access == Access.WRITE:
                with m.If(here):
                    m.d.sync += value.eq((value & ~mask) | new)
            elif r.access == Access.PULSE:
                m.d.sync += value.eq(Mux(here, new, 0))
            else:
                happened = getattr(self, f"set_{r.name.lower()}") & r.mask
                m.d.sync += value.eq((value & ~Mux(here, new, 0)) | happened)

    def _read(self, m: Module) -> None:
        """Two registered levels of multiplexers."""
        bus = self.bus
        address = Signal(_BITS - 2, name="read_from", reset_less=True)
        stages = Signal(2)  # address, page
        m.d.comb += [bus.ar.ready.eq(~stages.any() & ~bus.r.valid), bus.r.resp.eq(OKAY)]
        m.d.sync += stages.eq(Cat(bus.ar.valid & bus.ar.ready, stages))
        with m.If(bus.ar.ready):
            m.d.sync += address.eq(bus.ar.addr[2:])
        pages: dict[int, list[Register]] = {}
        for r in REGISTERS:
            if r.access != Access.PULSE:
                pages.setdefault(r.offset // 4 // _PER_PAGE, []).append(r)
        found = {}
        for page, registers in pages.items():
            found[page] = Signal(32, name=f"page{page}", reset_less=True)
            value = Signal(32, name=f"page{page}_now")
            with m.Switch(address[:4]):
                for r in registers:
                    with m.Case(r.offset // 4 % _PER_PAGE):
                        m.d.comb += value.eq(getattr(self, r.name.lower()) & r.mask)
            m.d.sync += found[page].eq(value)
        chosen, answer = Signal(32, name="chosen"), Signal(32, name="answer", reset_less=True)
        with m.Switch(address[4:]):
            for page, value in found.items():
                with m.Case(page):
                    m.d.comb += chosen.eq(value)
        m.d.comb += bus.r.data.eq(answer)
        with m.If(stages[1]):
            m.d.sync += [answer.eq(chosen), bus.r.valid.eq(1)]
        with m.Elif(bus.r.valid & bus.r.ready):
            m.d.sync += bus.r.valid.eq(0)
