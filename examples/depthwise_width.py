"""How wide should the depthwise engine be? Five networks on a B1024-like array, every width simulated.

python examples/depthwise_width.py [--jobs N]

Writes `examples/depthwise_width/`: a table of speed-ups over the machine without the engine, a figure, the report.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import tilewright as tw

NETWORKS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "shufflenet_v2")
SHAPES = (
    (0, 0, 1),
    (2, 8, 1),
    (4, 8, 1),
    (8, 8, 1),
    (2, 8, 3),
    (4, 8, 3),
    (8, 8, 3),
    (16, 8, 3),
    (8, 8, 9),
    (16, 8, 9),
)
"""Pixels, channels and taps a cycle."""
SPACE: dict[str, Any] = {
    "title": "Width of the depthwise engine",
    "arch": {"base": "b1024"},
    "space": {"dwc": [{"pixels": p, "channels": c, "taps": t} for p, c, t in SHAPES]},
    "objectives": ["latency", "energy", "dsp"],
}
HERE = Path(__file__).parent / "depthwise_width"


def width(design: Any) -> int:
    """Products a cycle of the engine."""
    return int(design.arch.depthwise_macs_per_cycle)


def figure(designs: list[Any], path: Path) -> None:
    """Speed-up over no engine, by products a cycle."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "tilewright", "font.family": "DejaVu Sans", "font.size": 9}):
        drawing = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = drawing.subplots()
        for name in NETWORKS:
            base = latency(designs[0], name)
            best: dict[int, float] = {}
            for d in designs[1:]:
                best[width(d)] = max(best.get(width(d), 0.0), base / latency(d, name))
            axes.plot(list(best), list(best.values()), marker="o", markersize=4, linewidth=1.2, label=name)
        axes.axhline(1.0, color="#667085", linewidth=0.8, linestyle="--")
        axes.set_xscale("log", base=2)
        axes.set_xlabel("products a cycle of the depthwise engine")
        axes.set_ylabel("speed-up over no engine (simulated)")
        axes.legend(frameon=False)
        drawing.savefig(path, metadata={"Date": None, "Creator": "Tilewright"})


def latency(design: Any, network: str) -> float:
    """Simulated milliseconds."""
    return float(design.networks[network]["simulated"]["latency_ms"])


def main() -> None:
    """Run the study and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1)
    jobs = parser.parse_args().jobs
    HERE.mkdir(exist_ok=True)
    study = tw.explore([f"zoo:{n}" for n in NETWORKS], SPACE, levels="simulated", jobs=jobs)
    designs = sorted(study.feasible, key=lambda d: (width(d), d.number))
    none = designs[0]
    rows = []
    for d in designs:
        a = d.arch
        shape = f"{a.dwc.pixels}×{a.dwc.channels}×{a.dwc.taps}" if a.has_dwc else "none"
        cells = [f"{latency(none, n) / latency(d, n):.2f}" for n in NETWORKS]
        more = d.values["dsp"] - none.values["dsp"]
        rows.append(
            f"| {shape} | {width(d)} | {more:+,} | {' | '.join(cells)} | {d.values['energy_mj']:.3g} |"
        )
    figure(designs, HERE / "speedup.svg")
    (HERE / "report.html").write_text(study.page(), encoding="utf-8")
    best = study.best("fps_per_dsp")
    worth = (
        f"{best.arch.dwc.pixels}×{best.arch.dwc.channels}×{best.arch.dwc.taps}"
        if best.arch.has_dwc
        else "no engine"
    )
    names = " | ".join(NETWORKS)
    page = f"""# How wide should the depthwise engine be?

A B1024-like array (8 × 8 × 8 products a cycle, 300 MHz, KV260's memory) with depthwise engines of growing width. Each number
is the *simulated* latency without the engine over that with it: above 1, the engine pays. Energy is the mean of a frame
of each network, mJ. Most frames a second and DSP over all five: {worth}.

| engine | products a cycle | DSP | {names} | energy |
|{"---|" * (len(NETWORKS) + 4)}
{chr(10).join(rows)}

![speed-up by width](speedup.svg)

[Report](report.html). Made by `python examples/depthwise_width.py`.
"""
    (HERE / "README.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
