"""The C driver: compiled as C99 without a warning, and run against the emulator through its register accesses."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tilewright as tw
from fake_pynq import BUS_BASE, EmulatedCore
from test_rtl_driver import SMALL
from tilewright.compiled import Compiled
from tilewright.frontend.model import dequantise, quantise
from tilewright.interface import driver_notes
from tilewright.ir.graph import Quant
from tilewright.rtl.c_driver import c_driver
from tilewright.rtl.faults import Cause
from tilewright.rtl.register_map import INTERFACE_VERSION, MAGIC, REGISTERS, register

if shutil.which("gcc") is None:
    pytest.skip("gcc", allow_module_level=True)

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-fPIC")
HOOKS = """
#include <stdint.h>
extern uint32_t (*hook_read)(uint32_t); extern void (*hook_write)(uint32_t, uint32_t);
#define DPU_READ32(dpu, offset) ((void)(dpu), hook_read(offset))
#define DPU_WRITE32(dpu, offset, value) ((void)(dpu), hook_write(offset, value))
"""
"""Registers by function calls, so that a core can react."""
DEFINED = "#include <stdint.h>\nuint32_t (*hook_read)(uint32_t); void (*hook_write)(uint32_t, uint32_t);\n"
STATUS = (
    "OK",
    "RUNNING",
    "NO_CORE",
    "OTHER_TABLE",
    "NO_IMAGE",
    "OTHER_DESIGN",
    "NO_ROOM",
    "MISALIGNED",
    "NO_MAP",
    "BUSY",
    "TIMEOUT",
    "STOPPED",
)
U32, U64, SIZE, PTR = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p
CACHE = ctypes.CFUNCTYPE(None, PTR, SIZE)


class Dpu(ctypes.Structure):
    _fields_ = [("registers", PTR), ("flush", CACHE), ("invalidate", CACHE), ("design", U64)]


class Image(ctypes.Structure):
    _fields_ = [
        *((n, PTR) for n in ("words", "weights", "maps")),
        *((n, SIZE) for n in ("words_bytes", "weights_bytes", "maps_bytes")),
        *(("design", U64), ("lanes", U32), ("map_count", U32)),
    ]


class Loaded(ctypes.Structure):
    _fields_ = [
        *((n, U64) for n in ("design", "program_base", "weights_base", "maps_base")),
        *(("count", U32), ("lanes", U32), ("maps", PTR), ("maps_bytes", SIZE)),
    ]


class Map(ctypes.Structure):
    _fields_ = [
        ("offset", U64),
        *((n, U32) for n in ("height", "width", "channels")),
        *(("scale", ctypes.c_float), ("zero_point", ctypes.c_int32), ("is_input", ctypes.c_int)),
        ("name", ctypes.c_char * 96),
    ]


class Error(ctypes.Structure):
    _fields_ = [*((n, U32) for n in ("cause", "response", "instruction")), ("address", U64)]


class Figures(ctypes.Structure):
    _fields_ = [*((n, U64) for n in ("cycles", "fetch_bytes", "load_bytes", "save_bytes")), ("busy", U64 * 5), ("done", U32 * 5)]  # fmt: skip


def _built(folder: Path, *, hooks: bool) -> ctypes.CDLL:
    for name, text in {**c_driver(), "hooks.h": HOOKS, "hooks.c": DEFINED}.items():
        (folder / name).write_text(text)
    library = folder / f"dpu{int(hooks)}.so"
    extra = ("-include", "hooks.h", "hooks.c") if hooks else ()
    done = subprocess.run(
        ["gcc", *FLAGS, "-shared", *extra, "dpu.c", "-o", str(library)], cwd=folder, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code = ctypes.CDLL(str(library))
    code.dpu_memory_bytes.restype = SIZE
    code.dpu_quantise.restype, code.dpu_quantise.argtypes = ctypes.c_int8, (PTR, ctypes.c_float)
    code.dpu_dequantise.restype, code.dpu_dequantise.argtypes = ctypes.c_float, (PTR, ctypes.c_int8)
    code.dpu_error.restype, code.dpu_figures.restype = Error, Figures
    code.dpu_cause_name.restype = ctypes.c_char_p
    code.dpu_load.argtypes = (PTR, PTR, PTR, U64, SIZE, PTR)
    code.dpu_image_open.argtypes = (PTR, ctypes.c_char_p, SIZE)
    code.dpu_init.argtypes = (PTR, ctypes.c_size_t, CACHE, CACHE)
    code.dpu_pack.argtypes = code.dpu_unpack.argtypes = (PTR, PTR, PTR)
    return code


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return _built(tmp_path_factory.mktemp("c"), hooks=True)


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return tw.compile("zoo:tiny", SMALL, synthetic_calibration=True)


@pytest.fixture(scope="module")
def file(compiled: Compiled) -> bytes:
    return compiled.plans[0].program.save(driver_notes(compiled)[0])


class Board:
    """The driver's library, a core behind its register hooks, and a program loaded."""

    def __init__(self, code: ctypes.CDLL, device: EmulatedCore) -> None:
        self.code, self.device, self.log = code, device, []  # type: ctypes.CDLL, EmulatedCore, list[tuple[str, int, int]]
        self.hooks = (
            ctypes.CFUNCTYPE(U32, U32)(device.read),
            ctypes.CFUNCTYPE(None, U32, U32)(device.write),
        )
        for name, hook in zip(("hook_read", "hook_write"), self.hooks, strict=True):
            PTR.in_dll(code, name).value = ctypes.cast(hook, PTR).value
        start = device.memory.bytes.ctypes.data
        self.cache = [
            CACHE(lambda at, size, what=what: self.log.append((what, at - start, size)))
            for what in ("flush", "invalidate")
        ]
        self.dpu, self.image, self.net = Dpu(), Image(), Loaded()

    def init(self) -> str:
        return STATUS[self.code.dpu_init(ctypes.byref(self.dpu), 0, *self.cache)]

    def open(self, data: bytes) -> str:
        self.data = data
        return STATUS[self.code.dpu_image_open(ctypes.byref(self.image), data, len(data))]

    def load(self, size: int | None = None, bus: int = BUS_BASE) -> str:
        memory = self.device.memory.bytes
        return STATUS[
            self.code.dpu_load(
                *(ctypes.byref(self.dpu), ctypes.byref(self.image), memory.ctypes.data, bus),
                *(memory.nbytes if size is None else size, ctypes.byref(self.net)),
            )
        ]

    def map(self, index: int) -> Map:
        found = Map()
        assert STATUS[self.code.dpu_map(ctypes.byref(self.image), index, ctypes.byref(found))] == "OK"
        return found

    def run(self, polls: int = 10) -> str:
        return STATUS[self.code.dpu_run(ctypes.byref(self.dpu), ctypes.byref(self.net), polls)]


@pytest.fixture
def board(code: ctypes.CDLL) -> Iterator[Board]:
    device = EmulatedCore(SMALL)
    yield Board(code, device)
    assert not device.flaw


@pytest.fixture
def ready(board: Board, file: bytes) -> Board:
    assert board.init() == "OK"
    assert board.open(file) == "OK"
    assert board.load() == "OK"
    return board


def test_the_header_has_every_register_and_cause(tmp_path: Path) -> None:
    """What the C compiler makes of the names, printed by a C program."""
    header = c_driver()["dpu.h"]
    assert "@" not in header
    wanted = {f"DPU_{r.name}": r.offset for r in REGISTERS}
    wanted |= {
        f"DPU_{r.name}_{f.name}_MASK": f.mask for r in REGISTERS for f in r.fields if f.name != "VALUE"
    }
    wanted |= {f"DPU_CAUSE_{c.name}": c.value for c in Cause}
    wanted |= {"DPU_ID_VALUE": MAGIC, "DPU_VERSION_VALUE": INTERFACE_VERSION}
    body = "".join(f'printf("{n} %u\\n", (unsigned)({n}));' for n in wanted)
    (tmp_path / "dpu.h").write_text(header)
    (tmp_path / "main.c").write_text(
        f'#include <stdio.h>\n#include "dpu.h"\nint main(void) {{ {body} return 0; }}\n'
    )
    subprocess.run(["gcc", *FLAGS, "main.c", "-o", "main"], cwd=tmp_path, check=True)
    told = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    assert {k: int(v) for k, v in (line.split() for line in told.splitlines())} == wanted


def test_a_frame_comes_out_as_the_network_has_it(ready: Board, compiled: Compiled) -> None:
    segment = compiled.model.segments[0]
    want_in = segment.encode(compiled.noise(5))  # type: ignore[union-attr]
    want_out = compiled.execute(segment.graph, want_in)  # type: ignore[union-attr]
    maps = [ready.map(i) for i in range(ready.image.map_count)]
    assert [m.is_input for m in maps] == [1, 0]
    for m in maps:
        tensor = segment.graph.tensors[m.name.decode()]  # type: ignore[union-attr]
        assert (m.height, m.width, m.channels) == tensor.shape
        assert (m.scale, m.zero_point) == (np.float32(tensor.quant.scale), tensor.quant.zero_point)
    value = np.ascontiguousarray(want_in[maps[0].name.decode()])
    ready.code.dpu_pack(ctypes.byref(ready.net), ctypes.byref(maps[0]), value.ctypes.data)
    assert ready.run() == "OK"
    want = want_out[maps[1].name.decode()]
    got = np.zeros(want.shape, np.int8)
    ready.code.dpu_unpack(ctypes.byref(ready.net), ctypes.byref(maps[1]), got.ctypes.data)
    np.testing.assert_array_equal(got, want)
    program = compiled.plans[0].program
    figures = ready.code.dpu_figures(ctypes.byref(ready.dpu))
    assert figures.fetch_bytes == program.fetch_bytes
    assert list(figures.done) == [int((program.engine == e).sum()) for e in range(5)]
    # Caches: program and weights once, maps before the start and after the end.
    first, size = ready.net.maps_base - BUS_BASE, ready.net.maps_bytes
    assert ready.log == [("flush", 0, first), ("flush", first, size), ("invalidate", first, size)]


def test_codes_are_those_of_onnx(ready: Board) -> None:
    """Ties to even, saturation, large values; every code back."""
    quant = Quant(0.0371, -7)
    m = Map(scale=quant.scale, zero_point=quant.zero_point)
    steps = np.concatenate([np.arange(-300, 300) / 2, [1e9, -1e9, 0.0]]).astype(np.float32)
    real = np.concatenate(
        [steps * np.float32(quant.scale), np.random.default_rng(0).normal(0, 3, 500).astype(np.float32)]
    )
    got = [ready.code.dpu_quantise(ctypes.byref(m), float(v)) for v in real]
    np.testing.assert_array_equal(got, quantise(real, quant))
    codes = np.arange(-128, 128).astype(np.int8)
    back = np.array([ready.code.dpu_dequantise(ctypes.byref(m), int(c)) for c in codes], np.float32)
    np.testing.assert_array_equal(back, dequantise(codes, quant))


def test_what_goes_wrong_has_a_code(board: Board, file: bytes) -> None:
    device, at = board.device, {r.name: r.offset for r in REGISTERS}
    for name, good, status in (("ID", MAGIC, "NO_CORE"), ("VERSION", INTERFACE_VERSION, "OTHER_TABLE")):
        device.values[at[name]] = 77
        assert board.init() == status
        device.values[at[name]] = good
    assert board.init() == "OK"
    for cut in (file[:20], b"ELF" + file[3:], file[:-2000], file[:8] + b"x" + file[9:]):
        assert board.open(cut) == "NO_IMAGE"
    plain = file[: file.index(b"TILEWIO1")]
    assert board.open(plain) == "OK"
    assert board.image.map_count == 0
    assert board.open(file) == "OK"
    assert STATUS[board.code.dpu_map(ctypes.byref(board.image), 2, ctypes.byref(Map()))] == "NO_MAP"
    board.dpu.design ^= 1
    assert board.load() == "OTHER_DESIGN"
    board.dpu.design ^= 1
    need = board.code.dpu_memory_bytes(ctypes.byref(board.image))
    assert need % 4096 == 0
    assert board.load(size=need - 1) == "NO_ROOM"
    assert board.load(bus=BUS_BASE + 64) == "MISALIGNED"
    assert board.load(size=need) == "OK"
    device.refuse = 2
    assert board.run() == "STOPPED"
    error = board.code.dpu_error(ctypes.byref(board.dpu))
    assert (error.cause, error.response, error.address) == (Cause.LOAD_BUS, 2, board.net.maps_base)
    assert board.code.dpu_cause_name(error.cause) == b"LOAD_BUS"
    assert board.code.dpu_cause_name(99) == b"unknown"
    device.hang = True
    assert board.run() == "TIMEOUT"
    assert device.values[at["ERROR_CAUSE"]] == Cause.ABORT
    device.values[at["STATUS"]] = register("STATUS").field("BUSY").mask
    assert board.run() == "BUSY"


def test_registers_are_reached_through_a_pointer(tmp_path: Path) -> None:
    """Without hooks: a block of memory in place of a core that never ends."""
    code, block = _built(tmp_path, hooks=False), np.zeros(1024, np.uint32)
    block[0], block[1] = MAGIC, INTERFACE_VERSION
    block[2:4] = 0x89ABCDEF, 0x01234567
    dpu, net = Dpu(), Loaded(design=0x1122334455667788, program_base=0x5_0000_1000, count=9)
    assert STATUS[code.dpu_init(ctypes.byref(dpu), block.ctypes.data, CACHE(), CACHE())] == "OK"
    assert dpu.design == 0x0123456789ABCDEF
    assert STATUS[code.dpu_start(ctypes.byref(dpu), ctypes.byref(net), 7, 1)] == "OK"
    at = {r.name: r.offset // 4 for r in REGISTERS}
    assert (block[at["PROGRAM_BASE_LO"]], block[at["PROGRAM_BASE_HI"]]) == (0x1000, 5)
    assert (block[at["PROGRAM_HASH_LO"]], block[at["PROGRAM_HASH_HI"]]) == (0x55667788, 0x11223344)
    assert (block[at["PROGRAM_WORDS"]], block[at["CONTROL"]]) == (9, register("CONTROL").field("START").mask)
    events = register("IRQ_STATUS").mask
    assert [block[at[n]] for n in ("WATCHDOG", "IRQ_STATUS", "IRQ_ENABLE")] == [7, events, events]
    block[at["IRQ_STATUS"]] = 0
    assert STATUS[code.dpu_poll(ctypes.byref(dpu), ctypes.byref(net))] == "RUNNING"
    block[at["IRQ_STATUS"]] = register("IRQ_STATUS").field("DONE").mask
    assert STATUS[code.dpu_poll(ctypes.byref(dpu), ctypes.byref(net))] == "OK"
