"""A stand-in for the `pynq` package: buffers with caches, registers, and a core behind them.

The core is a `Device`: `EmulatedCore` executes programs with the emulator, `VerilatedCore` is the Verilog itself. Host and FPGA see
different copies of a buffer until it is flushed or invalidated, as on a board with caches.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tilewright.hwsim.emulate import emulate
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ProgramError
from tilewright.ir.isa import WORD_BYTES, Engine, Program, decode
from tilewright.rtl.faults import Cause
from tilewright.rtl.register_map import BLOCK_BYTES, REGISTERS, Access, register

__all__ = ["BASE", "BUS_BASE", "Device", "EmulatedCore", "VerilatedCore", "installed"]

BASE = 0xA000_0000
"""Where the address map of the design puts the registers."""
BUS_BASE = 0x1000_0000
"""Bus address of the memory that buffers come from."""
_PAGE = 4096


class Memory:
    """DRAM as the FPGA sees it, dealt out in pages."""

    def __init__(self, size: int = 1 << 22) -> None:
        self.bytes = np.zeros(size, np.uint8)
        self.free_at, self.live = 0, 0

    def take(self, size: int) -> int:
        at, self.free_at = self.free_at, self.free_at + -(-size // _PAGE) * _PAGE
        assert self.free_at <= len(self.bytes)
        self.live += 1
        return at

    def at(self, address: int) -> NDArray[np.uint8]:
        """All bytes from a bus address on."""
        assert BUS_BASE <= address < BUS_BASE + len(self.bytes)
        return self.bytes[address - BUS_BASE :]


class Buffer(np.ndarray):  # type: ignore[type-arg]
    """What `pynq.allocate` gives: the host's copy, and the address of the FPGA's."""

    memory: Memory
    device_address: int

    def _device(self) -> NDArray[np.uint8]:
        return self.memory.at(self.device_address)[: self.nbytes]

    def flush(self) -> None:
        self._device()[:] = self.view(np.ndarray).view(np.uint8).reshape(-1)

    def invalidate(self) -> None:
        self.view(np.ndarray).view(np.uint8).reshape(-1)[:] = self._device()

    def freebuffer(self) -> None:
        self.memory.live -= 1


class Device(Protocol):
    """What MMIO reaches."""

    memory: Memory

    def read(self, offset: int) -> int: ...

    def write(self, offset: int, value: int) -> None: ...


class EmulatedCore:
    """The register map, with the emulator for a core: a run is over before the write to CONTROL returns.

    `hang`: runs do not end. `refuse`: the bus answers the first burst with this response.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch, self.memory = arch, Memory()
        self.values = {r.offset: r.reset for r in REGISTERS}
        self.put("DESIGN_HASH", int(arch.design_hash, 16))
        self.hang, self.refuse, self.log = False, 0, []  # type: bool, int, list[str]
        self.flaw = ""
        """Something a driver must not do, that it did."""

    def get(self, name: str) -> int:
        return self.values[register(f"{name}_LO").offset] | self.values[register(f"{name}_HI").offset] << 32

    def put(self, name: str, value: int) -> None:
        self.values[register(f"{name}_LO").offset] = value & 0xFFFF_FFFF
        self.values[register(f"{name}_HI").offset] = value >> 32

    def read(self, offset: int) -> int:
        return self.values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        found = next((r for r in REGISTERS if r.offset == offset), None)
        if found is None or found.access == Access.READ:
            self.flaw = f"write to 0x{offset:03x}, which is no register that the host writes"
            return
        self.log.append(found.name)
        if found.access == Access.CLEAR:
            self.values[offset] &= ~value
        elif found.access == Access.WRITE:
            self.values[offset] = value & found.mask
        elif value & found.field("ABORT").mask:
            self._end(Cause.ABORT)
        elif value & found.field("START").mask:
            self._start()

    def _start(self) -> None:
        self.values[register("STATUS").offset] = register("STATUS").field("BUSY").mask
        if self.hang:
            return
        if self.get("PROGRAM_HASH") != self.get("DESIGN_HASH"):
            return self._end(Cause.DESIGN)
        if self.refuse:
            self.put("ERROR_ADDRESS", self.get("MAPS_BASE"))
            return self._end(Cause.LOAD_BUS, self.refuse)
        count = self.values[register("PROGRAM_WORDS").offset]
        words = self.memory.at(self.get("PROGRAM_BASE"))[: count * WORD_BYTES].tobytes()
        try:
            fields = decode(words)
        except ProgramError:
            return self._end(Cause.OPCODE)
        maps = self.memory.at(self.get("MAPS_BASE"))
        none = np.zeros(count)
        program = Program(
            fields,
            self.memory.at(self.get("WEIGHTS_BASE")).copy(),
            len(maps),
            self.arch.design_hash,
            none.astype(np.int32),
            none.astype(np.int8),
        )
        done = emulate(program, self.arch, maps)
        maps[:] = done.maps.view(np.uint8)
        self.put("CYCLES", 1000 + count)
        self.put("FETCH_BYTES", done.fetched)
        for e in Engine:
            self.values[register(f"{e.name}_DONE").offset] = int((program.engine == e).sum())
        return self._end(Cause.NONE)

    def _end(self, cause: Cause, response: int = 0) -> None:
        event = "ERROR" if cause else "DONE"
        self.values[register("STATUS").offset] = register("STATUS").field(event).mask
        self.values[register("IRQ_STATUS").offset] |= register("IRQ_STATUS").field(event).mask
        self.values[register("ERROR_CAUSE").offset] = cause | response << 8


class VerilatedCore:
    """The Verilog itself: registers over its AXI4-Lite port, DRAM behind its AXI4 ports."""

    def __init__(self, arch: Arch, limit: int = 10_000_000) -> None:
        from tilewright.rtl.cosim import CosimCore
        from tilewright.rtl.model import Pattern

        self.core, self.limit, self.memory = CosimCore(arch), limit, Memory()
        self.core.model.connect(BUS_BASE, self.memory.bytes)
        self.core.model.pattern(Pattern(1, address_stall=0.1, data_stall=0.1, latency=(10, 40), response=5))
        self.core.model.arm()

    def read(self, offset: int) -> int:
        return int(self.core.model.peek(offset))

    def write(self, offset: int, value: int) -> None:
        self.core.model.poke(offset, value)
        if offset == register("CONTROL").offset:
            self._until_the_end()

    def _until_the_end(self) -> None:
        """Time passes only while the model is asked to run: until the run has an end."""
        for _ in range(self.limit // 1000):
            if self.read(register("IRQ_STATUS").offset):
                return
            self.core.model.run(1000)


def _module(device: Device, ip: dict[str, Any]) -> ModuleType:
    """The package, with what the driver uses of it."""
    fake: Any = ModuleType("pynq")

    class Overlay:
        def __init__(self, bitfile: str, download: bool = True) -> None:
            self.bitfile, self.download = bitfile, download
            self.ip_dict = ip
            self.interrupt_pins = {"dpu/irq": {"controller": "interrupts", "index": 0}}

    class MMIO:
        def __init__(self, base_addr: int, length: int) -> None:
            assert base_addr == BASE
            self.length = length

        def read(self, offset: int = 0) -> int:
            assert 0 <= offset < self.length
            assert offset % 4 == 0
            return device.read(offset)

        def write(self, offset: int, data: int) -> None:
            assert 0 <= offset < self.length
            assert offset % 4 == 0
            assert 0 <= data < 1 << 32
            device.write(offset, data)

    class Interrupt:
        waits = 0

        def __init__(self, pinname: str) -> None:
            assert pinname == "dpu/irq"

        async def wait(self) -> None:
            Interrupt.waits += 1
            enabled = device.read(register("IRQ_ENABLE").offset)
            assert device.read(register("IRQ_STATUS").offset) & enabled, (
                "waits for an interrupt that cannot come"
            )

    def allocate(shape: tuple[int, ...], dtype: Any = np.uint32) -> Buffer:
        buffer = np.full(shape, 0xA5, dtype).view(Buffer)
        buffer.memory = device.memory
        buffer.device_address = BUS_BASE + device.memory.take(buffer.nbytes)
        return buffer

    fake.Overlay, fake.MMIO, fake.Interrupt, fake.allocate = Overlay, MMIO, Interrupt, allocate
    return fake  # type: ignore[no-any-return]


@contextmanager
def installed(
    device: Device, ip_type: str = "tilewright:dpu:dpu_top:1.0", size: int = BLOCK_BYTES
) -> Iterator[Any]:
    """`import pynq` gives the stand-in."""
    ip = {
        "interrupts": {"type": "xilinx.com:ip:axi_intc:4.1", "phys_addr": 0xA001_0000, "addr_range": 65536},
        "dpu": {"type": ip_type, "phys_addr": BASE, "addr_range": size},
    }
    before = sys.modules.get("pynq")
    sys.modules["pynq"] = module = _module(device, ip)
    try:
        yield module
    finally:
        if before is None:
            del sys.modules["pynq"]
        else:
            sys.modules["pynq"] = before
