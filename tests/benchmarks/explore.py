"""How fast is an exploration? Designs a second, scaling, overhead, networks simulated a minute; the full sweep.

python tests/benchmarks/explore.py [--workers 1 2] [--designs 600] [--json]
python tests/benchmarks/explore.py --full [--workers 2]

Overhead is measured with designs that cost a fixed sleep: whatever is more than that is ours. Scaling is measured with
real estimates, of ResNet-18, MobileNetV2 and ResNet-50. `--full` is the whole sweep: 10,000 designs of three networks,
the front simulated.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import tilewright as tw
from tilewright import explore_evaluate
from tilewright.explore_campaign import Progress
from tilewright.explore_space import Space

NETWORKS = ("zoo:resnet18", "zoo:mobilenet_v2", "zoo:resnet50")
SLEEP_SECONDS = 0.05
"""Of a made-up design: about three networks' estimates."""
SPACE: dict[str, Any] = {
    "title": "10,000 DPUs",
    "arch": {"base": "b1024", "dma": {"ports": 2}},
    "space": {
        "conv.pixels": [2, 4, 8],
        "conv.ic": [8, 12, 16],
        "conv.oc": [8, 12, 16, 20, 24],
        "conv.drain": [1, 2, 4],
        "dwc.channels": [0, 4, 8, 16],
        "dwc.taps": [1, 3],
        "maps.kib": [128, 256, 512],
        "clock_mhz": [200, 225, 250, 300],
    },
    "follow": {"dwc.pixels": "conv.pixels", "dwc.drain": "1", "weights.kib": "2 * conv.ic * conv.oc"},
}
"""12,960 choices, 10,080 designs (taps of an engine that is not there do not count); all are evaluated, no board limits them."""


def sleepy(graphs: Any, task: Any) -> explore_evaluate.Cost:
    """A design that costs a sleep."""
    del graphs
    time.sleep(SLEEP_SECONDS)
    return explore_evaluate.Cost(10_000 + hash(task.arch) % 1000, 1000, 1e8, 1)


def make_sleepy() -> None:
    """In a worker: every design costs a sleep."""
    explore_evaluate._estimated = sleepy  # type: ignore[assignment]


def part(designs: int) -> Space:
    """The space cut at the clocks and drains, to about so many designs."""
    axes = dict(SPACE["space"])
    for name in ("clock_mhz", "conv.drain", "maps.kib", "conv.oc", "conv.ic", "conv.pixels"):
        if Space.build(SPACE | {"space": axes}).size > designs:
            axes[name] = axes[name][-1:]
    return Space.build(SPACE | {"space": axes})


def rate(workers: int, space: Space, models: Any, *, asleep: bool) -> tuple[float, float, int]:
    """Designs a second once the workers are warm, seconds, designs."""
    start = make_sleepy if asleep else None
    seen: list[Progress] = []
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=start) as executor:
        warm = Space.build(
            {"arch": {"base": "b512"}, "space": {"clock_mhz": [100 + i for i in range(4 * workers)]}}
        )
        tw.explore(models, warm, levels="estimate", executor=executor)
        tw.explore(
            models,
            space,
            levels="estimate",
            executor=executor,
            on_progress=seen.append,
        )
    return seen[-1].points_per_second, seen[-1].seconds, seen[-1].done


def simulated(networks: list[str], designs: int) -> float:
    """Whole networks scheduled and simulated a minute and core."""
    space = Space.build(
        {"arch": {"base": "b1024"}, "space": {"clock_mhz": [200 + i for i in range(designs)]}}
    )
    times: list[float] = []
    tw.explore(
        networks,
        space,
        levels="simulated",
        jobs=0,
        on_progress=lambda now: times.append(now.seconds),
    )
    return 60 * len(networks) * designs / times[-1]


def full(workers: int) -> dict[str, Any]:
    """The whole sweep."""
    study = tw.explore(
        NETWORKS, SPACE, jobs=workers, on_stage=lambda name: print(f"  {name}", file=sys.stderr, flush=True)
    )
    value = study.to_dict()
    keep = (
        "points_evaluated",
        "points_simulated",
        "seconds",
        "estimate_error",
        "rank_correlation",
        "front_complete",
    )
    return {k: value[k] for k in keep} | {"agreement": value["agreement"], "front": len(study.pareto)}


def main(words: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--designs", type=int, default=600)
    parser.add_argument("--simulate", type=int, default=10)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(words)
    if given.full:
        print(json.dumps(full(given.workers[-1]), indent=1))
        return 0
    row: dict[str, Any] = {}
    space = part(given.designs)
    for workers in given.workers:
        speed, seconds, count = rate(workers, space, "zoo:tiny", asleep=True)
        row[f"overhead_{workers}"] = seconds * workers / (count * SLEEP_SECONDS) - 1
        row[f"asleep_per_second_{workers}"] = speed
        row[f"designs_per_second_{workers}"] = rate(workers, space, given.networks, asleep=False)[0]
    first, last = given.workers[0], given.workers[-1]
    for kind in ("asleep", "designs"):
        row[f"{kind}_scaling"] = row[f"{kind}_per_second_{last}"] / row[f"{kind}_per_second_{first}"]
    if given.simulate:
        row["networks_simulated_per_minute_and_core"] = simulated(given.networks, given.simulate)
    row["designs"] = count
    print(
        json.dumps(row, indent=1) if given.json else "\n".join(f"{k:<42} {v:10.3f}" for k, v in row.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
