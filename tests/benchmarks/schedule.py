"""How long the scheduler takes: milliseconds a layer, all distinct layers, and whole networks, warm.

    python tests/benchmarks/schedule.py                        # the distinct layers of three networks, MobileNetV2 and ResNet-50 whole
    python tests/benchmarks/schedule.py resnet18 --arch b1024 --json

Milliseconds depend on the host; the ratio at the right does not: seconds to schedule a network over those to simulate it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the layers are in a neighbour of the tests

__all__ = ["Layers", "Whole", "layers", "main", "whole"]

DEFAULT = ("mobilenet_v2", "resnet50")
PORTS = 32.0
"""Bytes a cycle."""


@dataclass(frozen=True)
class Layers:
    """The search of a network's distinct layers alone, each without what an earlier one left behind; milliseconds."""

    network: str
    count: int
    median: float
    maximum: float
    slowest: str
    total: float


@dataclass(frozen=True)
class Whole:
    """A network from its ONNX model to its program; least seconds of two runs, kernels compiled before."""

    network: str
    quantise: float
    schedule: float
    simulate: float

    @property
    def program(self) -> float:
        return self.quantise + self.schedule

    @property
    def ratio(self) -> float:
        return self.schedule / self.simulate


def layers(network: str, arch: str, repeats: int = 3) -> Layers:
    """Time the search of each distinct layer of one of `tile_twin.LAYERS`."""
    from tile_twin import LAYERS, layer_graph
    from tilewright.ir.arch import Arch
    from tilewright.scheduler import Options
    from tilewright.scheduler.layers import make_layers
    from tilewright.scheduler.search import Search

    machine, spent = Arch.load(arch), {}
    for shape in LAYERS[network]:
        graph = layer_graph(shape)
        best = float("inf")
        for _ in range(repeats + 1):
            made = make_layers(graph, machine)
            start = time.perf_counter()
            Search(graph, machine, made, "latency", PORTS, Options()).best(
                0, 1, frozenset(), machine.map_words
            )
            best = min(best, 1000 * (time.perf_counter() - start))
        spent[str(shape)] = best
    slowest = max(spent, key=lambda name: spent[name])
    times = list(spent.values())
    return Layers(network, len(times), statistics.median(times), max(times), slowest, sum(times))


def whole(network: str, arch: str) -> Whole:
    """Time a network of the zoo, after one run that compiles the kernels."""
    import tilewright as tw
    from tilewright.hwsim.simulation import simulate
    from tilewright.scheduler import schedule

    machine, model = tw.Arch.load(arch), tw.zoo.build(network)
    tw.compile("zoo:tiny", machine, synthetic_calibration=True).simulate()
    least = [float("inf")] * 3
    for _ in range(2):
        times = [time.perf_counter()]
        loaded = tw.load(model, name=network)
        (graph,) = tw.quantize(loaded, tw.Calibration.synthetic(loaded, samples=1)).graphs
        times.append(time.perf_counter())
        plan = schedule(graph, machine, dram_bytes_per_cycle=PORTS)
        times.append(time.perf_counter())
        simulate(plan.program, machine, "fixed:32,40", graph=graph)
        times.append(time.perf_counter())
        least = [min(x, b - a) for x, (a, b) in zip(least, pairwise(times), strict=True)]
    return Whole(network, *least)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    from tile_twin import LAYERS

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("networks", nargs="*", default=DEFAULT, help="names of the zoo, whole")
    parser.add_argument("--arch", default="b4096", help="preset or TOML file")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    chosen = parser.parse_args(arguments)
    for name in LAYERS:
        row = layers(name, chosen.arch)
        if chosen.json:
            print(json.dumps(asdict(row)), flush=True)
        else:
            print(f"{row.network}: {row.count} distinct layers, median {row.median:.2f} ms, most {row.maximum:.2f} ms "
                  f"({row.slowest}), all {row.total:.0f} ms", flush=True)  # fmt: skip
    for name in chosen.networks:
        net = whole(name, chosen.arch)
        if chosen.json:
            print(json.dumps(asdict(net)), flush=True)
        else:
            print(f"{net.network}: ONNX to program {net.program:.2f} s (quantise {net.quantise:.2f}, schedule {net.schedule:.2f}), "
                  f"simulate {net.simulate:.2f} s, schedule/simulate {net.ratio:.1f}", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
