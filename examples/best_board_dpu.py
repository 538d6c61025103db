"""Which DPU runs MobileNetV2 best on PYNQ-Z2, Ultra96-V2, KV260 and ZCU102?

python examples/best_board_dpu.py [--jobs N]

The preset space of each board: every design estimated, the front and a margin of 2 % around it simulated. Writes
`examples/best_board_dpu/`: a table of the fastest, the most frugal and the balanced design of each board, and a report a board.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import tilewright as tw

BOARDS = {"pynq-z2": "PYNQ-Z2", "ultra96v2": "Ultra96-V2", "kv260": "KV260", "zcu102": "ZCU102"}
HERE = Path(__file__).parent / "best_board_dpu"
COLUMNS = (
    "board",
    "design",
    "array",
    "depthwise PE",
    "maps",
    "clock",
    "cores",
    "frames/s",
    "latency",
    "energy",
    "DSP",
    "BRAM36",
)


def row(board: str, title: str, study: tw.Study, design: object) -> str:
    """A line of the table."""
    d = study.best() if design is None else study.best(str(design))
    a, v = d.arch, d.values
    engine = f"{a.dwc.pixels}×{a.dwc.channels}×{a.dwc.taps}" if a.has_dwc else "none"
    cells = (
        board,
        f"{title} `{d.design[:8]}`",
        f"{a.conv.pixels}×{a.conv.ic}×{a.conv.oc}",
        engine,
        f"{a.maps.kib} KiB",
        f"{a.clock_mhz:g} MHz",
        str(a.cores),
        f"{v['fps']:.1f}",
        f"{v['latency_ms']:.3g} ms",
        f"{v['energy_mj']:.3g} mJ",
        f"{v['dsp']:,}",
        f"{v['bram']:g}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the four studies and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1)
    jobs = parser.parse_args().jobs
    HERE.mkdir(exist_ok=True)
    lines, notes = [], []
    for name, title in BOARDS.items():
        study = tw.explore("zoo:mobilenet_v2", name, margin=0.02, most_simulated=64, sample=8, jobs=jobs)
        for text, aim in (
            ("fastest", "fps"),
            ("frugal", "energy"),
            ("per DSP", "fps_per_dsp"),
            ("balanced", None),
        ):
            lines.append(row(title, text, study, aim))
        found = study.agreement(sample_only=True)
        assert found is not None
        notes.append(
            f"- {title}: {len(study.designs):,} designs, {len(study.feasible):,} fit, {len(study.simulated)} simulated, "
            f"{len(study.pareto)} on the front; the estimate of latency is {found.mean_error:.1%} off on a random sample. "
            f"{'' if study.complete else 'Not every design near the front was simulated; better ones may be left. '}"
            f"[Report](report-{name}.html)."
        )
        (HERE / f"report-{name}.html").write_text(study.page(), encoding="utf-8")
    head = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    page = "\n".join(
        (
            "# The best DPU for MobileNetV2 on four boards",
            "",
            "Int8, 224 × 224; every number here is *simulated*. Frames a second are of all cores at once on one DRAM, the rest of one alone.",
            "Made by `python examples/best_board_dpu.py`.",
            "",
            head + "\n".join(lines),
            "",
            *notes,
            "",
        )
    )
    (HERE / "README.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
