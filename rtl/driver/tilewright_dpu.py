"""PYNQ driver of a Tilewright DPU: one file for the board; needs numpy and pynq only, Python 3.8 or later.

    from tilewright_dpu import DpuOverlay

    dpu = DpuOverlay("dpu.bit")
    with dpu.load_model("net.tw") as net:
        logits = net.run(image)          # float32 in the network's layout, as onnxruntime takes it
        print(net.figures)               # cycles, bytes over the bus, busy cycles of each engine

``dpu.bit`` and ``dpu.hwh`` come from the board package, ``net.tw`` from ``tilewright compile``. The program file carries
the hash of the machine it was compiled for; a core with another one is refused before anything is written.
"""

# ruff: noqa: B905, UP041  (zip(strict) and the one TimeoutError came after Python 3.8)

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "AbortedError",
    "BusError",
    "DesignError",
    "DpuError",
    "DpuOverlay",
    "FileError",
    "Model",
    "NoAnswerError",
    "ProgramRefusedError",
    "WatchdogError",
]

Array = Any  # numpy's array type takes no parameters in the versions that boards have

IP_NAME = ":dpu_top:"
"""Part of the vendor:library:name:version of the core in the hardware hand-off file."""
MAGIC, INTERFACE_VERSION = 0x54494C45, 1
BLOCK_BYTES = 0x1000
"""Registers of core c of a design stand at c times this."""
REGISTERS = {
    "ID": 0x000,
    "VERSION": 0x004,
    "DESIGN_HASH": 0x008,
    "CONTROL": 0x010,
    "STATUS": 0x014,
    "IRQ_ENABLE": 0x018,
    "IRQ_STATUS": 0x01C,
    "PROGRAM_BASE": 0x020,
    "WEIGHTS_BASE": 0x028,
    "MAPS_BASE": 0x030,
    "PROGRAM_WORDS": 0x038,
    "WATCHDOG": 0x03C,
    "PROGRAM_HASH": 0x040,
    "ERROR_CAUSE": 0x048,
    "ERROR_INSTRUCTION": 0x04C,
    "ERROR_ADDRESS": 0x050,
    "CYCLES": 0x058,
    "FETCH_BYTES": 0x060,
    "LOAD_BYTES": 0x068,
    "SAVE_BYTES": 0x070,
}
"""Byte offsets; of a 64-bit pair the low half, the high half is four bytes on."""
ENGINES = ("LOAD", "CONV", "DWC", "VEC", "SAVE")
ENGINE_BUSY, ENGINE_STEP = 0x080, 0x010
"""Busy cycles of engine e: a pair at ENGINE_BUSY + e * ENGINE_STEP; instructions that it finished: 8 bytes on."""
START, ABORT = 1, 2
BUSY = 1
DONE, ERROR = 1, 2
CAUSES = (
    "NONE",
    "DESIGN",
    "OPCODE",
    "FUNCTION",
    "NO_DEPTHWISE",
    "WAIT",
    "NO_END",
    "FETCH_BUS",
    "LOAD_BUS",
    "SAVE_BUS",
    "WATCHDOG",
    "ABORT",
)
RESPONSES = {2: "SLVERR", 3: "DECERR"}
PAGE = 4096
FETCH_BYTES = 1024
WATCHDOG_CYCLES = 1 << 27
"""Cycles without a finished instruction after which a run is stopped: 0.4 s at 300 MHz. One instruction moves at most
2^26 bytes, which takes less on any board listed."""


class DpuError(RuntimeError):
    """Whatever goes wrong between host and core."""


class FileError(DpuError):
    """A program file that is damaged, or says nothing about its tensors."""


class DesignError(DpuError):
    """No core in the bitstream, another version, or a program for another machine."""


class NoAnswerError(DpuError):
    """The run did not end in the time given."""


class RunError(DpuError):
    """A run that the core stopped or refused.

    Attributes: ``cause`` (a name of `CAUSES`), ``instruction`` (number in the program), ``address`` (of the refused
    burst), ``response`` (of the bus).
    """

    def __init__(self, cause: str, instruction: int, address: int, response: str) -> None:
        self.cause, self.instruction, self.address, self.response = cause, instruction, address, response
        where = f" at DRAM address 0x{address:x}, {response}" if response else ""
        super().__init__(
            f"the core stopped: {cause}, instruction {instruction}{where}{_HINTS.get(cause, '')}"
        )


class ProgramRefusedError(RunError):
    """The program has an instruction that this core does not have, or does not end."""


class BusError(RunError):
    """The bus answered an access to DRAM with an error."""


class WatchdogError(RunError):
    """No instruction finished in the time that the watchdog allows."""


class AbortedError(RunError):
    """The host stopped the run."""


_HINTS = {
    "DESIGN": "; compile for the arch.toml of this board package",
    "WATCHDOG": "; the memory does not answer, or the watchdog is too short",
    "FETCH_BUS": "; is the address map of the design complete?",
    "LOAD_BUS": "; is the address map of the design complete?",
    "SAVE_BUS": "; is the address map of the design complete?",
}
_ERRORS = {
    "FETCH_BUS": BusError,
    "LOAD_BUS": BusError,
    "SAVE_BUS": BusError,
    "WATCHDOG": WatchdogError,
    "ABORT": AbortedError,
}


class ProgramFile:
    """A ``.tw`` file in parts; the layout is in docs/isa.md of the project."""

    HEAD = "<8s16sQQQ"
    NOTES = "<IIII"
    MAP = "<QIIIfiI96s"

    def __init__(self, data: bytes, where: str) -> None:
        size = struct.calcsize(self.HEAD)
        if data[:8] != b"TILEWRT1" or len(data) < size:
            raise FileError(f"{where}: not a Tilewright program (its first 8 bytes are not TILEWRT1)")
        _, design, n_words, n_weights, self.maps_bytes = struct.unpack_from(self.HEAD, data)
        end = size + n_words + n_weights + 5 * (n_words // 64)
        if len(data) < end:
            raise FileError(f"{where}: has {len(data)} bytes, its header says {end}: it is cut off")
        self.design = design.decode()
        self.count = n_words // 64
        self.words = np.frombuffer(data, np.uint8, n_words, size)
        self.weights = np.frombuffer(data, np.uint8, n_weights, size + n_words)
        self._notes(data[end:], where)

    def _notes(self, data: bytes, where: str) -> None:
        """Maps and tensors."""
        if data[:8] != b"TILEWIO1":
            raise FileError(f"{where}: says nothing about its tensors; compile it again with this version")
        size = struct.unpack_from("<Q", data, 8)[0] if len(data) >= 16 else 0
        body = data[16:]
        if len(body) != size or size < struct.calcsize(self.NOTES):
            raise FileError(
                f"{where}: its notes have {len(body)} bytes, their header says {size}: it is damaged"
            )
        version, self.lanes, count, _ = struct.unpack_from(self.NOTES, body)
        if version != 1:
            raise FileError(f"{where}: its notes are of version {version}, this driver reads 1")
        at = struct.calcsize(self.NOTES)
        self.maps: list[MapInfo] = []
        for _ in range(count):
            self.maps.append(MapInfo(*struct.unpack_from(self.MAP, body, at)))
            at += struct.calcsize(self.MAP)
        text = json.loads(body[at:].decode())
        self.network = text["network"]
        self.batch = int(text.get("batch", 1))
        self.inputs, self.outputs, raw = (
            [Tensor(self.maps[t["map"]], t, self.batch) for t in text[kind]]
            for kind in ("inputs", "outputs", "raw")
        )
        self.inputs += [t for t in raw if t.map.is_input]
        self.outputs += [t for t in raw if not t.map.is_input]


class MapInfo:
    """A feature map in the maps region: (H, W, C) int8, blocked by `lanes` channels, the last block dense."""

    def __init__(
        self, offset: int, h: int, w: int, c: int, scale: float, zero_point: int, kind: int, name: bytes
    ) -> None:
        self.offset, self.shape, self.scale, self.zero_point = (
            offset,
            (h, w, c),
            np.float32(scale),
            zero_point,
        )
        self.is_input = kind == 1
        self.name = name.rstrip(b"\0").decode(errors="replace")
        self.size = h * w * c

    def pack(self, value: Array, region: Array, lanes: int) -> None:
        """Write an int8 (H, W, C) value into the region."""
        at = self.offset
        for first in range(0, self.shape[2], lanes):
            part = np.ascontiguousarray(value[:, :, first : first + lanes]).reshape(-1).view(np.uint8)
            region[at : at + part.size] = part
            at += part.size

    def unpack(self, region: Array, lanes: int) -> Array:
        """The int8 (H, W, C) value in the region."""
        h, w, c = self.shape
        out, at = np.empty(self.shape, np.int8), self.offset
        for first in range(0, c, lanes):
            width = min(lanes, c - first)
            part = np.asarray(region[at : at + h * w * width]).view(np.int8)
            out[:, :, first : first + width] = part.reshape(h, w, width)
            at += h * w * width
        return out


class Tensor:
    """An input or output of the network, over its map; without ``axes`` it is the int8 map itself.

    A batch holds its frames one after the other along the first axis, in the map below each other.
    """

    def __init__(self, over: MapInfo, entry: Mapping[str, Any], batch: int = 1) -> None:
        self.map, self.name, self.batch = over, str(entry["name"]), batch
        self.raw = "axes" not in entry
        shape = tuple(entry.get("shape", ()))
        self.shape: tuple[int, ...] = (
            over.shape if self.raw else (shape[0] * batch, *shape[1:]) if batch > 1 else shape
        )
        self.dtype = np.dtype("int8" if self.raw else entry.get("dtype", "float32"))
        self.code = entry.get("code")
        self._index = None if self.raw else _positions(entry["axes"])

    def encode(self, value: Any) -> Array:
        """The map's int8 (H, W, C) value."""
        given = np.asarray(value)
        if given.shape != self.shape:
            raise ValueError(
                f"input {self.name} has shape {list(given.shape)}, the network takes {list(self.shape)}"
            )
        given = given.astype(self.dtype, copy=False)
        if self._index is None:
            return given
        real = given.astype(np.float32)
        if self.code is not None:
            real = (real - np.float32(self.code["zero_point"])) * np.float32(self.code["scale"])
        codes = np.rint(real / self.map.scale) + np.float32(self.map.zero_point)
        stored = np.clip(codes, -128, 127).astype(np.int8).reshape(self.batch, -1)[:, self._index]
        shaped: Array = stored.reshape(self.map.shape)
        return shaped

    def decode(self, stored: Array) -> Array:
        """The tensor from the map's value: float32, or int8 for a raw map."""
        if self._index is None:
            return stored
        codes = stored.reshape(self.batch, -1)[:, self._index].astype(np.float32)
        real: Array = (codes - np.float32(self.map.zero_point)) * self.map.scale
        return real.reshape(self.shape)


def _positions(axes: Any) -> Array:
    """Position in the map of each element of the tensor."""
    flat = np.zeros((), np.int64)
    for extent, stride in (f for axis in axes for f in axis):
        flat = np.add.outer(flat, np.arange(extent, dtype=np.int64) * stride)
    return flat.reshape(-1)


class DpuOverlay:
    """The programmed FPGA and its cores.

    Parameters
    ----------
    bitfile : str
        ``dpu.bit``, with ``dpu.hwh`` beside it. Any further arguments go to `pynq.Overlay`.

    Raises
    ------
    DesignError
        The design has no Tilewright core, or one with another register table.
    """

    def __init__(self, bitfile: str, **options: Any) -> None:
        import pynq  # type: ignore[import-not-found,unused-ignore]

        self._pynq = pynq
        self.overlay = pynq.Overlay(str(bitfile), **options)
        found = {k: v for k, v in self.overlay.ip_dict.items() if IP_NAME in str(v.get("type", ""))}
        if not found:
            raise DesignError(
                f"{bitfile}: no Tilewright core among {', '.join(self.overlay.ip_dict) or 'no IP at all'}"
            )
        self.ip_name, ip = next(iter(found.items()))
        self.mmio = pynq.MMIO(ip["phys_addr"], ip["addr_range"])
        magic, version = self.mmio.read(REGISTERS["ID"]), self.mmio.read(REGISTERS["VERSION"])
        if magic != MAGIC:
            raise DesignError(f"{self.ip_name}: ID reads 0x{magic:08x}, a core reads 0x{MAGIC:08x}")
        if version != INTERFACE_VERSION:
            raise DesignError(
                f"{self.ip_name}: registers of version {version}, this driver knows {INTERFACE_VERSION}"
            )
        self.cores = self._count_cores(ip["addr_range"])
        self.design = f"{self.read64('DESIGN_HASH'):016x}"

    def _count_cores(self, size: int) -> int:
        """Cores of the design: blocks of registers that begin with the magic number."""
        count = 1
        while (
            (count + 1) * BLOCK_BYTES <= size and count < 8 and self.mmio.read(count * BLOCK_BYTES) == MAGIC
        ):
            count += 1
        return count

    def load_model(self, path: Any, core: int = 0) -> Model:
        """A program in DRAM, ready to run on a core; several may be loaded at a time.

        Raises
        ------
        FileError
            Not a program file.
        DesignError
            The program is for another machine, or the design has no such core.
        """
        path = Path(path)
        path = path / "net.tw" if path.is_dir() else path
        program = ProgramFile(path.read_bytes(), str(path))
        if not 0 <= core < self.cores:
            raise DesignError(f"no core {core}: the design has {self.cores}")
        if program.design != self.design:
            raise DesignError(
                f"{path}: compiled for design {program.design}, the bitstream is {self.design}; compile it with "
                "--arch arch.toml of this board package"
            )
        return Model(self, program, core)

    # -- registers -----------------------------------------------------------------------------------------------------
    def read(self, name: str, core: int = 0) -> int:
        """A 32-bit register."""
        return int(self.mmio.read(core * BLOCK_BYTES + REGISTERS[name]))

    def write(self, name: str, value: int, core: int = 0) -> None:
        """A 32-bit register."""
        self.mmio.write(core * BLOCK_BYTES + REGISTERS[name], value)

    def read64(self, name: str, core: int = 0) -> int:
        """A 64-bit pair."""
        return self._pair(core * BLOCK_BYTES + REGISTERS[name])

    def write64(self, name: str, value: int, core: int = 0) -> None:
        """A 64-bit pair."""
        at = core * BLOCK_BYTES + REGISTERS[name]
        self.mmio.write(at, value & 0xFFFFFFFF)
        self.mmio.write(at + 4, value >> 32)

    def figures(self, core: int = 0) -> dict[str, int]:
        """What the core counted in its last run; read while it is idle."""
        found = {
            n.lower(): self.read64(n, core) for n in ("CYCLES", "FETCH_BYTES", "LOAD_BYTES", "SAVE_BYTES")
        }
        for e, name in enumerate(ENGINES):
            at = core * BLOCK_BYTES + ENGINE_BUSY + e * ENGINE_STEP
            found[f"{name.lower()}_busy"] = self._pair(at)
            found[f"{name.lower()}_done"] = int(self.mmio.read(at + 8))
        return found

    def _pair(self, at: int) -> int:
        return int(self.mmio.read(at)) | int(self.mmio.read(at + 4)) << 32

    def buffer(self, size: int) -> Any:
        """Contiguous memory that starts on a page and holds whole pages."""
        found = self._pynq.allocate(shape=(-(-size // PAGE) * PAGE,), dtype=np.uint8)
        if _address(found) % PAGE:
            found.freebuffer()
            raise DpuError(
                f"the allocator gave address 0x{_address(found):x}, which is not on a page of {PAGE} bytes"
            )
        return found


class Model:
    """A program in DRAM: `run` executes one frame, or one batch. Made by `DpuOverlay.load_model`."""

    def __init__(self, dpu: DpuOverlay, program: ProgramFile, core: int) -> None:
        self.dpu, self.program, self.core = dpu, program, core
        self.figures: dict[str, int] = {}
        fetched = -(-program.words.size // FETCH_BYTES) * FETCH_BYTES
        self._buffers: list[Any] = []
        try:
            for size in (fetched, program.weights.size, program.maps_bytes):
                self._buffers.append(dpu.buffer(max(1, size)))
        except Exception:
            self.free()
            raise
        for buffer, content in zip(self._buffers, (program.words, program.weights)):
            buffer[: content.size] = content
            buffer.flush()
        self._maps = self._buffers[2]

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes that `run` takes, by name."""
        return {t.name: t.shape for t in self.program.inputs}

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes that `run` gives, by name."""
        return {t.name: t.shape for t in self.program.outputs}

    def run(self, *values: Any, timeout_s: float = 10.0, **named: Any) -> Any:
        """Execute one frame (or the batch that the program is for), and poll until it is done.

        Parameters
        ----------
        values : arrays, or one dict of arrays
            The inputs in the order of `inputs`, or by name; also as keywords.

        Returns
        -------
        array, or dict of name to array where the network has several outputs
            float32 in the network's layout.

        Raises
        ------
        NoAnswerError, RunError
        """
        self._start(self._feeds(values, named))
        end = time.monotonic() + timeout_s
        patient = time.monotonic() + 0.002  # short runs are polled without a break
        while not self._ended():
            now = time.monotonic()
            if now > end:
                self._give_up(timeout_s)
            if now > patient:
                time.sleep(0.0001)
        return self._result()

    async def run_async(self, *values: Any, timeout_s: float = 10.0, **named: Any) -> Any:
        """As `run`, waiting for the core's interrupt where the design has one."""
        interrupt = self._interrupt()
        self._start(self._feeds(values, named), interrupts=interrupt is not None)
        end = time.monotonic() + timeout_s
        while not self._ended():
            if time.monotonic() > end:
                self._give_up(timeout_s)
            if interrupt is None:
                await asyncio.sleep(0.0005)
                continue
            try:
                await asyncio.wait_for(interrupt.wait(), max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                continue
        return self._result()

    def free(self) -> None:
        """Give the memory back."""
        while self._buffers:
            self._buffers.pop().freebuffer()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()

    # -- a run ---------------------------------------------------------------------------------------------------------
    def _feeds(self, values: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        names = list(self.inputs)
        given = (
            dict(values[0])
            if len(values) == 1 and isinstance(values[0], Mapping)
            else dict(zip(names, values))
        )
        if len(values) > len(names):
            raise ValueError(f"{len(values)} values, the network has {len(names)} inputs: {', '.join(names)}")
        given.update(named)
        wrong, missing = sorted(set(given) - set(names)), [n for n in names if n not in given]
        if wrong or missing:
            what = f"no input {wrong[0]}" if wrong else f"no value for {missing[0]}"
            raise ValueError(f"{what}; inputs are {', '.join(names)}")
        return given

    def _start(self, feeds: dict[str, Any], interrupts: bool = False) -> None:
        if not self._buffers:
            raise DpuError(f"{self.program.network} was freed")
        dpu, core = self.dpu, self.core
        if dpu.read("STATUS", core) & BUSY:
            raise DpuError(f"core {core} is busy with another run")
        for tensor in self.program.inputs:
            tensor.map.pack(tensor.encode(feeds[tensor.name]), self._maps, self.program.lanes)
        self._maps.flush()
        for name, buffer in zip(("PROGRAM_BASE", "WEIGHTS_BASE", "MAPS_BASE"), self._buffers):
            dpu.write64(name, _address(buffer), core)
        dpu.write("PROGRAM_WORDS", self.program.count, core)
        dpu.write64("PROGRAM_HASH", int(self.program.design, 16), core)
        dpu.write("WATCHDOG", WATCHDOG_CYCLES, core)
        dpu.write("IRQ_STATUS", DONE | ERROR, core)
        dpu.write("IRQ_ENABLE", DONE | ERROR if interrupts else 0, core)
        dpu.write("CONTROL", START, core)

    def _ended(self) -> bool:
        return bool(self.dpu.read("IRQ_STATUS", self.core) & (DONE | ERROR))

    def _give_up(self, timeout_s: float) -> None:
        self.dpu.write("CONTROL", ABORT, self.core)
        raise NoAnswerError(f"core {self.core}: no end of the run in {timeout_s:g} s; the run was aborted")

    def _result(self) -> Any:
        dpu, core = self.dpu, self.core
        ended = dpu.read("IRQ_STATUS", core)
        dpu.write("IRQ_STATUS", DONE | ERROR, core)  # takes the interrupt back
        self.figures = dpu.figures(core)
        if ended & ERROR:
            raise self._failure()
        self._maps.invalidate()
        found = {t.name: t.decode(t.map.unpack(self._maps, self.program.lanes)) for t in self.program.outputs}
        return next(iter(found.values())) if len(found) == 1 else found

    def _failure(self) -> RunError:
        code = self.dpu.read("ERROR_CAUSE", self.core)
        cause = CAUSES[code & 0xFF] if (code & 0xFF) < len(CAUSES) else f"cause {code & 0xFF}"
        response = RESPONSES.get(code >> 8 & 3, "")
        kind = _ERRORS.get(cause, ProgramRefusedError)
        instruction = self.dpu.read("ERROR_INSTRUCTION", self.core)
        return kind(cause, instruction, self.dpu.read64("ERROR_ADDRESS", self.core), response)

    def _interrupt(self) -> Any | None:
        """The core's interrupt, where the hardware hand-off file names one."""
        pins = getattr(self.dpu.overlay, "interrupt_pins", {})
        name = f"{self.dpu.ip_name}/irq"
        return self.dpu._pynq.Interrupt(name) if name in pins and self.dpu.cores == 1 else None


def _address(buffer: Any) -> int:
    """Where the FPGA sees a buffer."""
    return int(getattr(buffer, "device_address", None) or buffer.physical_address)
