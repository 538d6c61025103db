"""What the scheduler reaches on whole networks, beside targets and bounds; writes docs/schedule.md.

    python tests/schedule.py                                  every table
    python tests/schedule.py --networks mobilenet_v2 vgg16    these; the page is not written
    python tests/schedule.py --quick                          small networks, every eighth layer; the page is not written

Networks are those of `zoo:`, 224x224, on synthetic calibration: neither traffic nor cycles depend on the weights' values.
All cycles and bytes are simulated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # the twin is a neighbour of this script

import tilewright as tw
from tile_twin import LAYERS, MACHINES, compare_tiles
from tilewright.hwsim.dram import parse
from tilewright.hwsim.results import Simulation
from tilewright.hwsim.simulation import simulate
from tilewright.ir.arch import Arch
from tilewright.ir.graph import Graph
from tilewright.scheduler import Objective, Options, refine, schedule

PAGE = Path(__file__).parent.parent / "docs" / "schedule.md"
NETWORKS = {
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "resnet50": "ResNet-50",
    "vgg16": "VGG-16",
    "efficientnet_b0": "EfficientNet-B0",
}
DEPTHWISE = {
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3-L",
    "efficientnet_b0": "EfficientNet-B0",
    "shufflenet_v2": "ShuffleNetV2",
}
QUICK = ("mobilenet_v1", "mobilenet_v2")
BATCHES = (1, 2, 4, 8)
TRIES = 150
"""Programs simulated in search of a better one (`--tries`), for the columns that say so."""
PORTS = 32.0
"""Bytes a cycle: two ports of 128 bit, 9.6 GB/s at 300 MHz."""
MEMORIES = ("fixed:32,40", "banked:DDR4-2400x64")


@dataclass(frozen=True, slots=True)
class Split:
    """On-chip memory of a b4096: KiB of maps, map groups, KiB of weights and of depthwise weights."""

    maps: int
    groups: int
    weights: int
    depthwise: int

    @property
    def arch(self) -> Arch:
        sizes = {"maps.kib": self.maps, "maps.groups": self.groups, "weights.kib": self.weights}
        return Arch.preset("b4096").override({**sizes, "weights.depthwise_kib": self.depthwise})

    def __str__(self) -> str:
        total = self.maps + self.weights + self.depthwise
        return f"{self.maps} in {self.groups} groups + {self.weights} + {self.depthwise} = {total:,} KiB"


@dataclass(frozen=True, slots=True)
class Column:
    """One amount of memory on chip: the splits tried, of which the first is the one that counts; targets in MB."""

    name: str
    splits: tuple[Split, ...]
    targets: dict[str, float]


COLUMNS = (
    Column(
        "1 MiB",
        (Split(640, 5, 352, 32), Split(768, 6, 192, 64), Split(512, 4, 448, 64)),
        {"mobilenet_v2": 4.0, "resnet50": 29.0, "vgg16": 150.0, "efficientnet_b0": 6.4, "mobilenet_v1": 4.6},
    ),
    Column(
        "256 KiB",
        (Split(160, 5, 88, 8), Split(128, 8, 112, 16), Split(192, 6, 48, 16)),
        {"mobilenet_v2": 4.3, "resnet50": 45.0, "vgg16": 180.0},
    ),
)
CYCLES = {"mobilenet_v2": 220_000, "mobilenet_v1": 340_000, "resnet50": 2_450_000, "efficientnet_b0": 480_000}
VENDOR = {"mobilenet_v2": 3_323_424 + 3_487_816 + 2_876_424}
"""DRAM bytes a frame of MobileNetV2 224x224 as compiled by the vendor for a DPUCZDX8G B4096 with low RAM usage: maps in,
weights and biases, maps out, decoded from its instruction stream."""
WHY = {
    (
        "256 KiB",
        "resnet50",
    ): "weights and maps are both larger than their memories from 28 x 28 on, and one of them comes again. A block at 14 x 14 has "
    "196 KiB of maps at its ends, more than the 160 KiB that hold maps, so they go out and in for each convolution and addition that "
    "reads them (0.6 MB a block), and the weights of its first convolution come twice, for each half of that map. 3 x 3 kernels over "
    "512 channels take 73 KiB for a single block of 16 output channels, so weights cannot have less than 88 KiB.",
    (
        "cycles",
        "mobilenet_v2",
    ): "the array waits for weights: four fifths of them belong to the layers at 7 x 7, where a weight is "
    "used 49 times, and to the classifier, where it is used once, so LOAD needs longer than the array; it runs ahead only as far as the weight memory is deep.",
}
"""Physical reasons of rows that are missed, by column and network."""
missed: list[tuple[str, str]] = []


@cache
def graph_of(name: str) -> Graph:
    """The int8 graph of a network of the zoo."""
    network = tw.load(tw.zoo.build(name), name=name)
    (graph,) = tw.quantize(network, tw.Calibration.synthetic(network, samples=1)).graphs
    return graph


def run(
    name: str,
    arch: Arch,
    objective: Objective,
    memory: str = MEMORIES[0],
    *,
    alone: bool = False,
    tries: int = 0,
) -> Simulation:
    """Schedule and simulate; `alone`: layer by layer, every map to DRAM and back; `tries`: refined on the first memory."""
    options = Options(fuse=1, keep_maps=False) if alone else Options()
    key = name, arch, objective, alone, tries
    if key not in _PLANS:
        graph = graph_of(name)
        plan = schedule(graph, arch, objective=objective, dram_bytes_per_cycle=PORTS, options=options)
        spec = parse(MEMORIES[0], arch.clock_mhz)
        _PLANS[key] = refine(plan, spec, objective=objective, options=options, tries=tries) if tries else plan
    return simulate(_PLANS[key].program, arch, memory, graph=graph_of(name))


_PLANS: dict[tuple[object, ...], Any] = {}


def megabytes(result: Simulation) -> float:
    return result.dram_bytes["total"] / 1e6


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def verdict(where: tuple[str, str], value: float, target: float | None) -> str:
    """Met or missed, and by how much."""
    if target is None:
        return "no target"
    if value > target:
        missed.append(where)
    return "met" if value <= target else f"**missed**, {value / target - 1:.1%} above"


def traffic(column: Column, names: Sequence[str]) -> str:
    """DRAM MB of one amount of memory."""
    arch, rows = column.splits[0].arch, []
    for name in names:
        plain = {o: run(name, arch, o) for o in ("energy", "latency")}  # type: ignore[arg-type]
        alone, best = run(name, arch, "energy", alone=True), plain["energy"]
        others = ", ".join(f"{megabytes(run(name, s.arch, 'energy')):.2f}" for s in column.splits[1:])
        target = column.targets.get(name)
        moved = best.dram_bytes
        parts = " + ".join(f"{moved[k] / 1e6:.2f}" for k in ("weights", "ifmap", "ofmap", "instructions"))
        rows.append(
            (
                NETWORKS[name],
                "" if target is None else f"{target:g}",
                f"{megabytes(best):.2f}",
                verdict((column.name, name), megabytes(best), target),
                f"{megabytes(plain['latency']):.2f}",
                parts,
                f"{best.bounds.compulsory_bytes / 1e6:.2f}",
                f"{megabytes(alone):.2f}",
                f"{VENDOR[name] / 1e6:.2f}" if name in VENDOR else "",
                others,
            )
        )
        print(" | ".join(rows[-1]), flush=True)
    head = ("network", "target", "energy objective", "", "latency objective", "weights + maps in + maps out + instructions",
            "compulsory", "layer by layer", "vendor", f"other splits: {'; '.join(map(str, column.splits[1:]))}")  # fmt: skip
    return table(head, rows)


def reason(result: Simulation) -> str:
    """What the array waits for: the three largest shares of the frame."""
    conv = result.engines["conv"]
    shares = {
        "busy": conv.busy,
        **{f"waits for {k}": v for k, v in conv.stalls.items()},
        "idle at the end": conv.idle,
    }
    most = sorted(shares.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{k} {v / result.cycles:.0%}" for k, v in most)


def latency(names: Sequence[str]) -> str:
    """Cycles of a frame."""
    rows = []
    for name in names:
        column = COLUMNS[0]
        found = {(s, m): run(name, s.arch, "latency", m) for s in column.splits for m in MEMORIES}
        first = found[column.splits[0], MEMORIES[0]]
        alone = run(name, column.splits[0].arch, "latency", alone=True)
        rows.append(
            (
                NETWORKS[name],
                f"{CYCLES[name]:,}" if name in CYCLES else "",
                f"{first.cycles:,}",
                verdict(("cycles", name), first.cycles, CYCLES.get(name)),
                f"{run(name, column.splits[0].arch, 'latency', tries=TRIES).cycles:,}",
                f"{found[column.splits[0], MEMORIES[1]].cycles:,}",
                f"{first.bounds.bound_cycles:,} ({first.bounds.limited_by})",
                f"{alone.cycles:,}",
                reason(first),
                ", ".join(f"{found[s, MEMORIES[0]].cycles:,}" for s in column.splits[1:]),
            )
        )
        print(" | ".join(rows[-1]), flush=True)
    return table(
        (
            "network",
            "target",
            MEMORIES[0],
            "",
            f"with {TRIES} tries",
            MEMORIES[1],
            "bound",
            "layer by layer",
            "the array is",
            "other splits",
        ),
        rows,
    )


def batches(names: Sequence[str]) -> str:
    """Cycles and MB a frame of runs of several frames."""
    arch, rows = COLUMNS[0].splits[0].arch, []
    for name in names:
        row = [NETWORKS[name]]
        for frames in BATCHES:
            graph = graph_of(name).stacked(frames)
            plan = schedule(graph, arch, dram_bytes_per_cycle=PORTS)
            found = simulate(plan.program, arch, MEMORIES[0], graph=graph)
            row.append(f"{found.cycles / frames:,.0f}, {megabytes(found) / frames:.2f} MB")
        rows.append(row)
        print(" | ".join(row), flush=True)
    return table(("network", *(f"batch {n}" for n in BATCHES)), rows)


def depthwise(names: Sequence[str]) -> str:
    """With and without the depthwise engine."""
    rows = []
    for name in names:
        for preset in ("b512", "b2304", "b4096"):
            arch, bare = Arch.preset(preset), Arch.preset(f"{preset}-nodw")
            if preset == "b2304":  # 1,024 products: the array of b4096 at half the pixels
                half = {"conv.pixels": 4, "conv.drain": 2, "dwc.pixels": 4, "dwc.drain": 2, "vec.pixels": 1}
                arch = Arch.preset("b4096").override(half)
                bare = Arch.preset("b4096-nodw").override({k: v for k, v in half.items() if "dwc" not in k})
            a, b = run(name, arch, "latency", MEMORIES[1]), run(name, bare, "latency", MEMORIES[1])
            share = a.engines["dwc"].busy / a.cycles
            spent = b.engines["conv"].busy - a.engines["conv"].busy
            rows.append(
                (
                    DEPTHWISE[name],
                    f"{arch.macs_per_cycle:,}",
                    f"{a.cycles:,}",
                    f"{b.cycles:,}",
                    f"{b.cycles / a.cycles:.2f}",
                    f"{megabytes(a):.2f}",
                    f"{megabytes(b):.2f}",
                    f"{a.engines['conv'].busy / a.cycles:.0%}",
                    f"{share:.0%}",
                    f"{spent / b.cycles:.0%}",
                    f"{a.bounds.dram_cycles / a.cycles:.0%}",
                )
            )
            print(" | ".join(rows[-1]), flush=True)
    head = ("network", "MACs", "cycles with", "without", "speedup", "DRAM MB with", "without", "array busy", "depthwise busy",
            "of the time without, the array's for depthwise", "DRAM bound of the time")  # fmt: skip
    return table(head, rows)


def tiles(step: int) -> str:
    """Single layers, search beside twin."""
    shapes = list(dict.fromkeys(s for found in LAYERS.values() for s in found))[::step]
    rows = []
    for name in MACHINES:
        found = [compare_tiles(s, name) for s in shapes]
        worst = max(found, key=lambda c: c.ratio)
        equal = sum(c.ratio <= 1 + 1e-9 for c in found)
        rows.append(
            (name, str(len(found)), f"{equal / len(found):.1%}", f"{worst.ratio:.3f}", str(worst.shape))
        )
        print(" | ".join(rows[-1]), flush=True)
    return table(("on chip", "layers", "as good", "worst ratio", "which"), rows)


def orders() -> str:
    """Instruction orders and places beside those of CP-SAT."""
    from order_oracle import MEMORY, measured, placements

    rows = [
        (
            group,
            arch,
            str(b.instructions),
            f"{b.cycles:,}",
            f"{b.bound:,}",
            f"{b.gap:.3f}",
            "yes" if b.finished else "no",
        )
        for (group, arch), b in measured().items()
    ]
    possible, ours = placements()
    text = table(
        ("layers", "machine", "instructions", f"simulated, {MEMORY}", "CP-SAT bound", "gap", "proved"), rows
    )
    within = sum(b.gap <= 1.03 for b in measured().values())
    return f"""{text}

{within} of {len(rows)} are within 3 % of the bound. Of {possible} random sets of maps that CP-SAT can place, the scheduler
places {ours}."""


def page(traffics: Sequence[str], cycles: str, together: str, deep: str, exact: str, order: str) -> str:
    """The whole page."""
    why = "\n".join(
        f"- {NETWORKS[name]}, {column}: {text}"
        for (column, name), text in WHY.items()
        if (column, name) in missed
    )
    return f"""# How good the schedules are

Written by `python tests/schedule.py`. All cycles and bytes are *simulated*, 224 × 224, batch 1, int8; *compulsory* is weights
once, image in, result out; *layer by layer* keeps no map on chip and fuses nothing. *Vendor*: bytes of a DPUCZDX8G B4096 with low
RAM usage, decoded from the instruction stream of its compiler. The machine is `b4096` with two ports of 128 bit, 32 bytes a cycle:
9.6 GB/s at 300 MHz. A column has one split of the memory on chip for all networks: maps + weights + depthwise weights.

The splits were chosen after measuring about six for each column. *Met* and *missed* are of the energy objective for traffic and of the latency objective for cycles: two programs. In the
latency objective's traffic with 1 MiB, ResNet-50 and EfficientNet-B0 are above their targets. The reasons for what is missed were
read from tilings and stalls; what a remedy would spare is an estimate. *With {TRIES} tries*: as many programs were simulated in search of
a better one than the planner's (`--tries {TRIES}`, docs/tiling.md); verdicts are of the planner's own. For traffic that gains a
thousandth, so it is left out there.

## DRAM traffic, MB a frame: 1 MiB on chip ({COLUMNS[0].splits[0]})

{traffics[0]}

## DRAM traffic, MB a frame: 256 KiB on chip ({COLUMNS[1].splits[0]})

{traffics[1]}

## Cycles a frame ({COLUMNS[0].splits[0]})

8 × 16 × 16 array, depthwise engine 8 × 16, latency objective.

{cycles}

## What is missed, and why

{why or "Nothing."}

## Batches

Frames that a run takes together, latency objective, {MEMORIES[0]}; cycles and DRAM traffic *a frame*. Weights come once for all frames
where a layer's maps of all frames leave room; where maps then have to go to DRAM, a larger batch stops paying.

{together}

## The depthwise engine

Presets `b512` and `b4096` with and without it, and the array of `b4096` at 4 pixels (1,024 MACs); memory {MEMORIES[1]}.

{deep}

The engine pays by what it takes off the array. A depthwise kernel on the array uses one of `ic` lanes, so it costs the array `ic`
times its products: 16 times on 1,024 and 2,048 MACs, where it would fill up to half of the time, and 8 times on 256, where it fills about
a third and the 1 x 1 convolutions bind. On 2,048 MACs the gain is less than on 1,024, as the array then outruns DRAM and
elementwise work: the last column says how much of the time the compulsory bytes alone take. ShuffleNetV2 has few depthwise
products and many moves of channels that the array does; there the engine hardly pays. On 256 MACs the
program with the engine moves more bytes for some networks, up to half as many again: the latency objective pays traffic for cycles.

## Tiles of single layers

Search beside a twin that looks at every strip height, chunk, order, residency and column tile (`tests/tile_twin.py`), with the maps
in DRAM, on the distinct layers of {", ".join(LAYERS)}. *As good*: the same value or, where the twin leaves narrow column tiles
out, a lower one. Left out are tiles narrower than the array's pixels where something else fits half of the map memory: a strided
1 × 1 convolution skips columns in them, and with 64 KiB those tiles would be up to 1.09 times better by the same costing.

{exact}

## Order of instructions, and places of maps

Each engine and map port is taken as long as simulated, and an instruction waits for those whose words it needs or overwrites; the solver
is free to change the order, also within an engine (`tests/order_oracle.py`). Small groups of layers, on fast memory.

{order}
"""


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Schedules beside targets and bounds; writes docs/schedule.md."
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="only these; the page is not written")
    parser.add_argument(
        "--quick", action="store_true", help="small networks, every eighth layer; the page is not written"
    )
    chosen: Any = parser.parse_args(words)
    names = chosen.networks or (QUICK if chosen.quick else tuple(NETWORKS))
    deep = tuple(n for n in DEPTHWISE if not (chosen.networks or chosen.quick) or n in names)
    traffics = [traffic(c, names) for c in COLUMNS]
    text = page(
        traffics, latency(names), batches(names), depthwise(deep), tiles(8 if chosen.quick else 1), orders()
    )
    if chosen.networks or chosen.quick:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
