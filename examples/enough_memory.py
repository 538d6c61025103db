"""How much on-chip memory is enough? DRAM energy against block RAM, for MobileNetV2 and ResNet-50.

python examples/enough_memory.py [--jobs N]

Every combination of map and weight memory on a B1024-like array, estimated; the front of DRAM traffic, energy and block RAM
simulated, and taken apart to show what DRAM spends. Writes `examples/enough_memory/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import tilewright as tw

NETWORKS = ("mobilenet_v2", "resnet50")
SPACE: dict[str, Any] = {
    "title": "On-chip memory",
    "arch": {"base": "b1024"},
    "board": "zcu102",
    "space": {
        "maps.kib": {"from": 64, "to": 2048, "factor": 2},
        "weights.kib": {"from": 64, "to": 1024, "factor": 2},
        "maps.groups": [4, 8],
    },
    "objectives": ["dram_bytes", "energy", "bram"],
    "constraints": {"fits": "zcu102"},
}
HERE = Path(__file__).parent / "enough_memory"
Point = tuple[float, float, float, Any]
"""Block RAM, DRAM energy in mJ, all energy in mJ, design."""


def apart(study: tw.Study, models: dict[str, tw.Model]) -> dict[str, list[Point]]:
    """DRAM's part of the energy of each design of the front, by network."""
    out: dict[str, list[Point]] = {n: [] for n in models}
    for d in study.pareto:
        for name, model in models.items():
            energy = tw.compile(model, d.arch, "zcu102").simulate().total.energy
            out[name].append((d.values["bram"], energy.components["dram"], energy.total_mj, d))
    return {n: sorted(points, key=lambda p: p[0]) for n, points in out.items()}


def figure(found: dict[str, list[Point]], path: Path) -> None:
    """DRAM energy against block RAM."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "tilewright", "font.family": "DejaVu Sans", "font.size": 9}):
        drawing = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = drawing.subplots()
        for name, points in found.items():
            axes.plot(
                [p[0] for p in points], [p[1] for p in points], "o", markersize=4, label=f"{name}: DRAM"
            )
            axes.plot([p[0] for p in points], [p[2] for p in points], "^", markersize=4, label=f"{name}: all")
        axes.set_yscale("log")
        axes.set_xlabel("BRAM36")
        axes.set_ylabel("energy a frame, mJ (simulated counts)")
        axes.legend(frameon=False)
        drawing.savefig(path, metadata={"Date": None, "Creator": "Tilewright"})


def main() -> None:
    """Run the study and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1)
    jobs = parser.parse_args().jobs
    HERE.mkdir(exist_ok=True)
    networks = {n: tw.load(tw.zoo.build(n), name=n) for n in NETWORKS}
    models = {n: tw.quantize(x, tw.Calibration.synthetic(x)) for n, x in networks.items()}
    study = tw.explore(list(models.values()), SPACE, margin=0.02, sample=8, jobs=jobs)
    found = apart(study, models)
    figure(found, HERE / "dram_energy.svg")
    (HERE / "report.html").write_text(study.page(), encoding="utf-8")
    rows = []
    for i, (bram, _, _, d) in enumerate(found[NETWORKS[0]]):
        cells = [f"{found[n][i][1]:.3g} | {found[n][i][2]:.3g}" for n in NETWORKS]
        traffic = [f"{d.networks[n]['simulated']['dram_bytes'] / 1e6:.2f}" for n in NETWORKS]
        rows.append(
            f"| {d.arch.maps.kib} | {d.arch.weights.kib} | {bram:g} | {' | '.join(traffic)} | {' | '.join(cells)} |"
        )
    enough = {}
    for name, points in found.items():
        least = min(p[1] for p in points)
        enough[name] = next(p for p in points if p[1] <= 1.05 * least)
    said = "; ".join(
        f"{n}: {p[3].arch.maps.kib} KiB of maps and {p[3].arch.weights.kib} KiB of weights ({p[0]:g} BRAM36)"
        for n, p in enough.items()
    )
    both = " | ".join(f"{n}, MB" for n in NETWORKS)
    spent = " | ".join(f"{n}, DRAM mJ | all mJ" for n in NETWORKS)
    page = f"""# How much on-chip memory is enough?

A B1024-like array (8 × 8 × 8 products a cycle, 300 MHz) with ZCU102's memory. The front of DRAM traffic, energy and block RAM, each
design *simulated*; energy is estimated from simulated counts, its DRAM part shown apart (docs/energy.md).

The smallest memories of the front within 5 % of the least DRAM energy: {said}.

| maps, KiB | weights, KiB | BRAM36 | {both} | {spent} |
|{"---|" * (3 + 3 * len(NETWORKS))}
{chr(10).join(rows)}

![DRAM energy against block RAM](dram_energy.svg)

[Report](report.html). Made by `python examples/enough_memory.py`.
"""
    (HERE / "README.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
