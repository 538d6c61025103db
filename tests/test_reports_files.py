"""Every file of a report: valid, safe, deterministic, and of one mind about the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.hwsim.resources import ResourceUse
from tilewright.hwsim.results import CAUSES, Bounds, Energy, EngineResult, LayerResult, Simulation, Timeline
from tilewright.ir.arch import Arch
from tilewright.ir.isa import Engine, Opcode, Program, instruction
from tilewright.reports.result import Exact, HostSegment, ModelFacts, Result, Segment

HOSTILE = "</script><script>alert(1)</script>'\"&$\\frac{1}{0}$\u202e\x00\ud800,=1+1 " + "n" * 300


def simulated(
    layers: int = 12, *, arch: str = "b1024", seed: int = 0, name: str = "net", hostile: bool = False
) -> Segment:
    """A program of load, compute, save tiles and its times: small, but with every law that a simulation keeps."""
    rng = np.random.default_rng(seed)
    machine = Arch.preset(arch)
    free = dict.fromkeys(Engine, 0)
    done = dict.fromkeys(Engine, 0)
    times: list[tuple[int, ...]] = []
    rows, owner, traffic = [], [], []
    stalls = {e: dict.fromkeys(CAUSES, 0) for e in Engine}
    busy = {e: 0 for e in Engine}
    results = []

    def run(
        engine: Engine, layer: int, cycles: int, after: tuple[Engine, ...], moved: int, kind: int
    ) -> None:
        ready = max((done[e] for e in after), default=0)
        blocker = max(after, key=lambda e: done[e], default=engine)
        start = max(free[engine], ready)
        cause = CAUSES.index(blocker.name.lower()) if ready > free[engine] else 0
        stalls[engine][CAUSES[cause]] += start - free[engine]
        times.append(
            (len(rows), engine, layer, free[engine], start, start + cycles, start + cycles + 7, cause)
        )
        busy[engine] += cycles
        free[engine], done[engine] = start + cycles, start + cycles + 7
        opcode = {
            Engine.LOAD: Opcode.LOAD,
            Engine.SAVE: Opcode.SAVE,
            Engine.CONV: Opcode.CONV,
            Engine.DWC: Opcode.DWC,
        }
        fields = {"run_bytes": moved, "runs1": 1, "runs2": 1} if engine in {Engine.LOAD, Engine.SAVE} else {}
        rows.append(instruction(opcode.get(engine, Opcode.VEC), **fields))
        owner.append(layer)
        traffic.append(kind)

    totals = {"ifmap": 0, "weights": 0, "ofmap": 0}
    for i in range(layers):
        kind = i % 4
        engine = Engine.VEC if kind == 3 else Engine.DWC if kind == 1 and machine.has_dwc else Engine.CONV
        peak = machine.depthwise_macs_per_cycle if engine == Engine.DWC else machine.macs_per_cycle
        own = {e: 0 for e in Engine}
        dram = {"ifmap": 0, "weights": 0, "ofmap": 0}
        first = len(times)
        tiles = int(rng.integers(1, 5))
        for _ in range(tiles):
            spent = int(rng.integers(400, 3000))
            weights = int(rng.integers(500, 6000)) if engine != Engine.VEC else 0
            image = int(rng.integers(1000, 8000)) if i % 3 == 0 else 0
            for size, label, number in ((weights, "weights", 2), (image, "ifmap", 1)):
                if size:
                    run(Engine.LOAD, i, size // 16, (), size, number)
                    own[Engine.LOAD] += size // 16
                    dram[label] += size
            run(engine, i, spent, (Engine.LOAD,) if weights or image else (Engine.CONV,), 0, 0)
            own[engine] += spent
            if i % 5 == 4 or i == layers - 1:
                run(Engine.SAVE, i, 300, (engine,), 4096, 3)
                own[Engine.SAVE] += 300
                dram["ofmap"] += 4096
        macs = 0 if engine == Engine.VEC else int(own[engine] * peak * rng.uniform(0.3, 0.98))
        for key, value in dram.items():
            totals[key] += value
        results.append(
            LayerResult(
                name=f"{HOSTILE}{i}"
                if hostile
                else f"features.{i}.{('expand', 'depthwise', 'project', 'add')[kind]}",
                op="Add" if engine == Engine.VEC else "Conv",
                engine=engine.name.lower(),
                busy={e.name.lower(): n for e, n in own.items() if n},
                first_cycle=min(t[4] for t in times[first:]),
                last_cycle=max(t[6] for t in times[first:]),
                macs=macs,
                bound_cycles=-(-macs // peak),
                dram_bytes=dram,
                onchip_read_bytes=int(rng.integers(10_000, 400_000)),
                onchip_write_bytes=int(rng.integers(5_000, 90_000)),
                energy_mj={"mac": macs * 4e-10, "dram": sum(dram.values()) * 8e-8, "maps": 3e-4 * tiles},
                limited_by="compute" if i % 2 else "load",
            )
        )
    cycles = max(done.values()) + 40
    columns = np.array(times, np.int64).T
    words = 64 * (len(times) + 1)
    energy: dict[str, float] = {}
    for layer in results:
        for key, value in layer.energy_mj.items():
            energy[key] = energy.get(key, 0.0) + value
    energy |= {"static": cycles * 2e-6, "control": words * 1e-7}
    least = totals["weights"] + totals["ifmap"] // 4
    simulation = Simulation(
        cycles=cycles,
        clock_mhz=machine.clock_mhz,
        macs=sum(x.macs for x in results),
        macs_per_cycle=machine.macs_per_cycle,
        dram_bytes={
            **totals,
            "instructions": words,
            "total": sum(totals.values()) + words,
            "compulsory": least,
        },
        energy=Energy(
            energy,
            "fpga16",
            True,
            ("mac: 3 pJ, 16 nm, own estimate, ±50 %", "dram: 18 pJ/bit, DDR4, ±30 %"),
            0.4,
        ),
        engines={
            e.name.lower(): EngineResult(
                busy[e],
                {c: n for c, n in stalls[e].items() if n},
                cycles - free[e],
                sum(t[1] == e for t in times),
            )
            for e in Engine
        },
        layers=tuple(results),
        bounds=Bounds(max(busy.values()) // 2, max(1, least // 32), 1000, least),
        estimate_cycles=max(busy.values()),
        dram="DDR4-2400 x64, banked",
        network=name,
        arch=arch,
        board="kv260",
        design=machine.design_hash,
        timeline=Timeline(
            index=columns[0].astype(np.int32),
            engine=columns[1].astype(np.int8),
            layer=columns[2].astype(np.int32),
            queued=columns[3],
            start=columns[4],
            busy_end=columns[5],
            done=columns[6],
            cause=columns[7].astype(np.int8),
        ),
    )
    program = Program(
        fields=np.array([*rows, instruction(Opcode.END)]),
        weights=np.zeros(16, np.uint8),
        maps_bytes=64,
        design=machine.design_hash,
        layer=np.array([*owner, -1], np.int32),
        traffic=np.array([*traffic, 0], np.int8),
    )
    return Segment(simulation, program)


def result(
    layers: int = 12, *, arch: str = "b1024", segments: int = 1, hostile: bool = False, twin: bool = True
) -> Result:
    parts = tuple(simulated(layers, arch=arch, seed=i, hostile=hostile) for i in range(segments))
    return Result(
        model=ModelFacts(
            HOSTILE if hostile else "MobileNetV2",
            sum(p.simulation.macs for p in parts),
            3_504_872,
            ("data 1x3x224x224",),
        ),
        arch=Arch.preset(arch),
        segments=parts,
        board="kv260",
        dram_peak=64.0,
        host_segments=(HostSegment("tail", (("softmax", "Softmax"),), "no integer form", 0.12),)
        if segments > 1
        else (),
        exact=Exact(6_412_000, 0),
        calibration="synthetic",
        resources=(ResourceUse("DSP", 612, 1248), ResourceUse("LUT", 61_000, 117_120, exact=False)),
        provenance={"tilewright": "0.1.0", "seed": "0"},
        without_dwc=result(layers, arch=f"{arch}-nodw", twin=False) if twin else None,
    )


CASES = {
    "one layer": lambda: result(1),
    "twelve layers": lambda: result(),
    "three hundred layers": lambda: result(300),
    "no depthwise engine": lambda: result(arch="b512-nodw", twin=False),
    "two segments and the host": lambda: result(segments=2),
    "hostile names": lambda: result(hostile=True),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Result:
    return CASES[request.param]()
