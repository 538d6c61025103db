"""Running sums of global pooling: one word of int32 lanes for each channel block, kept between instructions."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ..ir.arch import Arch

__all__ = ["RunningSums"]


class RunningSums(Component):
    """A block RAM with one read and one write port. Latency of a read: 2.

    An instruction of one block can be followed three slots later by the one that goes on with its sum, whose read then
    meets the write: `ongoing` says so, and the sum itself still stands in the accumulators, which nothing has changed since.

    Members
    -------
    read_block : in
    ongoing : out, 2 later
        The word read was written in the cycle of the read: take the accumulators.
    data : out, 2 later
    store, write_block, write_data : in
    """

    def __init__(self, arch: Arch) -> None:
        self.words, self.lanes = arch.vec.sums, arch.lanes
        block = max(1, (self.words - 1).bit_length())
        super().__init__(
            {
                "read_block": In(block),
                "ongoing": Out(1),
                "data": Out(32 * self.lanes),
                "store": In(1),
                "write_block": In(block),
                "write_data": In(32 * self.lanes),
            }
        )

    @property
    def module_name(self) -> str:
        return "vec_running_sums"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = ram = Memory(
            shape=32 * self.lanes, depth=self.words, init=[], attrs={"ram_style": "block"}
        )
        read, write = ram.read_port(), ram.write_port()
        met = [Signal(name=f"met{k}", reset_less=True) for k in range(2)]
        data = Signal.like(self.data, name="data_2", reset_less=True)
        m.d.comb += [
            read.addr.eq(self.read_block),
            *(write.addr.eq(self.write_block), write.data.eq(self.write_data), write.en.eq(self.store)),
            *(self.data.eq(data), self.ongoing.eq(met[1])),
        ]
        m.d.sync += [
            met[0].eq(self.store & (self.read_block == self.write_block)),
            met[1].eq(met[0]),
            data.eq(read.data),
        ]
        return m
