"""Synthesise machines with Yosys, fit the LUT and FF of `hwsim.fabric` to them, and write docs/resources.md.

    python tests/synthesis.py                        every machine for every family: hours on one processor
    python tests/synthesis.py six -f 7series         this machine for this family; other counts stay as they are
    python tests/synthesis.py --fit                  nothing is synthesised: fit, and write the page
    python tests/synthesis.py b4096 --part load      only this part, for the fit: minutes, where the whole core takes an hour
    python tests/synthesis.py --whole small          also flatten the whole core, to compare with the sum of its parts

Counts go to tests/golden/synthesis.json, factors to hwsim/fabric.toml. Machines that are held out take no part in the fit. The
script fails where DSP, BRAM or URAM of any machine differ from the model's, or LUT or FF of one held out by more than 10 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # the small cores are neighbours of this script

import numpy as np
import tomlkit
from cores import CORES
from tilewright.hwsim import fabric
from tilewright.hwsim.resources import resources_of
from tilewright.ir.arch import PRESETS, Arch
from tilewright.ir.board import Board, board_names

ROOT = Path(__file__).parent.parent
PAGE, COUNTS, FACTORS = (
    ROOT / "docs" / "resources.md",
    ROOT / "tests" / "golden" / "synthesis.json",
    ROOT / "hwsim" / "fabric.toml",
)
MAC = {"ultrascale+": "dsp48e2", "7series": "dsp48e1"}
URAM = 96
"""UltraRAM that a core on UltraScale+ may use: as much as any board has (ZCU104)."""
IN_BLOCK_RAM = ("small",)
"""Machines that are to use none there either."""
RESOURCES = ("DSP", "BRAM36", "URAM", "LUT", "FF")
HELD_OUT = {
    "ultrascale+": ("six", "odd", "eight, shift only", "wide bus", "b1152", "b4096"),
    "7series": ("six", "odd", "b512-z7020"),
}
STRENGTH = 0.002
"""How much a factor is held to what it was before: as an error of 4 % in one machine's part holds against one of 1.0."""

_EIGHT: dict[str, Any] = {
    "conv": {"pixels": 2, "ic": 8, "oc": 4, "drain": 2},
    "dwc": {"pixels": 2, "channels": 8, "taps": 5, "rows": 5, "drain": 2},
    "vec": {"sums": 128}, "maps": {"kib": 32, "groups": 2},
    "weights": {"kib": 32, "depthwise_kib": 10, "tables": 2, "vector_kib": 4},
    "dma": {"ports": 1, "burst": 16, "outstanding": 4}, "queues": {"depth": 8, "prefetch": 16}, "rounding": ["f32", "fix16"],
}  # fmt: skip
_SHIFT: dict[str, Any] = {
    "conv": {"pixels": 4, "ic": 4, "oc": 8, "drain": 2},
    "dwc": {"pixels": 4, "channels": 4, "taps": 1, "rows": 3, "drain": 1}, "vec": {"pixels": 1, "table_pixels": 2},
    "maps": {"kib": 128}, "weights": {"kib": 32, "depthwise_kib": 1, "tables": 8, "vector_kib": 4},
    "dma": {"bits": 32, "ports": 4, "burst": 16}, "rounding": ["shift"],
}  # fmt: skip
_TWELVE: dict[str, Any] = {
    "conv": {"pixels": 1, "ic": 12, "oc": 6, "drain": 1}, "dwc": {"pixels": 3, "channels": 4, "drain": 3},
    "vec": {"pixels": 1, "sums": 64}, "maps": {"kib": 192, "groups": 8},
    "weights": {"kib": 72, "depthwise_kib": 9, "vector_kib": 4}, "dma": {"bits": 64},
    "queues": {"depth": 24, "prefetch": 48},
}  # fmt: skip
_TALL: dict[str, Any] = {
    "conv": {"pixels": 4, "ic": 6, "oc": 12, "drain": 1},
    "dwc": {"pixels": 2, "channels": 6, "taps": 2, "rows": 4, "drain": 1},
    "vec": {"table_pixels": 2, "sums": 32}, "maps": {"kib": 72, "groups": 3},
    "weights": {"kib": 72, "depthwise_kib": 3, "vector_kib": 4},
    "dma": {"bits": 256, "ports": 1, "burst": 16, "outstanding": 16}, "queues": {"prefetch": 64},
    "rounding": ["fix16", "shift"],
}  # fmt: skip
_SIX: dict[str, Any] = {
    "conv": {"pixels": 2, "ic": 6, "oc": 8, "drain": 2}, "dwc": {"pixels": 2, "channels": 6, "drain": 1},
    "vec": {"pixels": 1, "sums": 128}, "maps": {"kib": 48},
    "weights": {"kib": 48, "depthwise_kib": 4, "vector_kib": 4}, "dma": {"bits": 64, "burst": 16},
}  # fmt: skip
_PLAIN: dict[str, Any] = {
    "conv": {"pixels": 4, "ic": 8, "oc": 8, "drain": 1}, "dwc": {"pixels": 0, "channels": 0}, "vec": {"pixels": 1},
    "maps": {"kib": 128}, "weights": {"kib": 64, "depthwise_kib": 6, "vector_kib": 4}, "dma": {"ports": 1},
    "rounding": ["shift"],
}  # fmt: skip
MACHINES: dict[str, Arch] = {
    "small": CORES["small"],
    "eight": Arch.build({"name": "eight", **_EIGHT}),
    "four, shift only": Arch.build({"name": "four", **_SHIFT}),
    "tall": Arch.build({"name": "tall", **_TALL}),
    "twelve": Arch.build({"name": "twelve", **_TWELVE}),
    "b512": PRESETS["b512"],
    "six": Arch.build({"name": "six", **_SIX}),
    "odd": CORES["odd"],
    "eight, shift only": Arch.build({"name": "plain", **_PLAIN}),
    "wide bus": CORES["wide bus"],
    "b512-z7020": Board.named("pynq-z2").default_arch,
    "b1152": PRESETS["b1152"],
    "b4096": PRESETS["b4096"],
}
"""Lanes 4 to 16, with and without depthwise engine, every rounding, ports of 32 to 512 bits, 1 to 4 of them."""

HEAD = """# FPGA resources

Written by `python tests/synthesis.py` from Yosys' counts (`tests/golden/synthesis.json`): `synth_xilinx -family xcup` for
UltraScale+, `-family xc7` for 7-series, of the Verilog that `tilewright rtl` writes. `tilewright` itself reads no Yosys: the
model (`hwsim/fabric.py`) counts DSP, BRAM and UltraRAM from the multipliers and memories that the hardware has, and estimates LUT
and FF from the number of bits of its parts, with factors fitted to the machines marked *fit*. Those *held out* were not shown to the
fit.

Yosys' LUT and FF are upper bounds on UltraScale+: it leaves the registers around a product outside the DSP48E2, where the
vendor's tool puts them inside. On 7-series it moves them into the DSP48E1 itself. No vendor tool has confirmed either.
"""
METHOD = """## How a core is counted

Each engine is synthesised flattened, with its repeated modules (dot products, accumulators, map banks) taken out; those are
synthesised once and counted as often as they occur. Multiplexers and registers that flattening the whole core would share
across these borders are counted twice:

| machine | family | | DSP | BRAM36 | URAM | LUT | FF |
|---|---|---|---|---|---|---|---|
"""
ARRAY = """## DSP slices of the array

Two int8 products share a slice: the slices of the array alone are half its products. The whole core has more, as the table says:
*array* and *depthwise* are products of the two engines, *requantise* two slices a value that is requantised in a cycle (none with
mode shift alone), *vector* the two products of an elementwise addition, *address* rows times pitches and burst walks.

| machine | products a cycle | array | a product | depthwise | requantise | vector | address | all |
|---|---|---|---|---|---|---|---|---|
"""


def owner_of(owner: str, top: str) -> str:
    """The part of `fabric.logic_terms` that a synthesised part belongs to."""
    engine = owner.partition("_")[0]
    if top.startswith(("paired_", "shared_", "accumulate_")):
        return "array" if engine == "conv" else "depthwise array"
    if engine == "dpu":
        return "wide memories" if top.startswith("memory_") else "control"
    return {"map": "maps"}.get(engine, engine)


def uram_of(name: str, family: str) -> int:
    return URAM if family == "ultrascale+" and name not in IN_BLOCK_RAM else 0


def synthesise_machine(name: str, family: str, only: tuple[str, ...] = ()) -> dict[str, list[float]]:
    """Counts of a machine's parts, or of some."""
    from tilewright.rtl.synthesis import parts, synthesise_part
    from tilewright.rtl.verilog import verilog

    text = verilog(MACHINES[name], mac=MAC[family], uram=uram_of(name, family))
    found: dict[str, list[float]] = {}
    for part in parts(text):
        owner = owner_of(part.owner, part.top)
        if owner in (only or [owner]):
            row, one = found.setdefault(owner, [0.0] * 5), synthesise_part(part, family)
            for i, n in enumerate((one.dsp, one.bram36, one.uram, one.lut, one.ff)):
                row[i] += part.times * n
    return found


def flattened(name: str, family: str) -> list[float]:
    """Counts of the whole core, flattened."""
    from tilewright.rtl.synthesis import synthesise
    from tilewright.rtl.verilog import verilog

    one = synthesise(verilog(MACHINES[name], mac=MAC[family], uram=uram_of(name, family)), family)
    return [one.dsp, one.bram36, one.uram, one.lut, one.ff]


def total(parts: dict[str, list[float]]) -> list[float]:
    """Sum over the parts."""
    return [sum(row[i] for row in parts.values()) for i in range(5)]


# -- fit ---------------------------------------------------------------------------------------------------------------
def fit(counts: dict[str, Any]) -> dict[str, Any]:
    """Factors of every term: relative errors of the parts, and what holds a factor to where it starts.

    UltraScale+ starts from the estimate as it is, 7-series from UltraScale+.
    """
    out: dict[str, Any] = {}
    start: dict[tuple[str, str, int], float] = {}
    for family in ("ultrascale+", "7series"):
        rows = {n: p for n, p in counts[family].items() if n not in HELD_OUT[family]}
        rows |= counts["parts"].get(family, {})
        terms = {name: fabric.logic_terms(MACHINES[name]) for name in rows}
        every = {part: tuple(t) for m in MACHINES.values() for part, t in fabric.logic_terms(m).items()}
        names = {
            p: dict.fromkeys(n for m in MACHINES.values() for n in fabric.logic_terms(m).get(p, {}))
            for p in every
        }
        for part, of_part in names.items():
            keys = tuple(of_part)
            factors = []
            for k in (0, 1):
                given = [
                    (terms[n][part], rows[n][part][3 + k])
                    for n in rows
                    if part in rows[n] and rows[n][part][3 + k]
                ]
                x = np.array([[t.get(key, (0.0, 0.0))[k] / y for key in keys] for t, y in given]).reshape(
                    -1, len(keys)
                )
                first = np.array([start.get((part, key, k), 1.0) for key in keys])
                factors.append(_factors(x, first))
                for key, value in zip(keys, factors[-1], strict=True):
                    start[part, key, k] = float(value)
            out.setdefault(family, {})[part] = {
                key: [round(float(factors[k][i]), 4) for k in (0, 1)] for i, key in enumerate(keys)
            }
    return out


def _factors(x: Any, first: Any) -> Any:
    """Least squares with factors at or above zero."""
    free = np.ones(len(first), bool)
    while True:
        a = np.vstack([x[:, free], np.sqrt(STRENGTH) * np.eye(free.sum())])
        b = np.concatenate([np.ones(len(x)), np.sqrt(STRENGTH) * first[free]])
        found = np.zeros(len(first))
        found[free] = np.linalg.lstsq(a, b, rcond=None)[0]
        if (found >= 0).all():
            return found
        free &= found >= 0


def write_factors(factors: dict[str, Any]) -> None:
    document = tomlkit.document()
    document.add(
        tomlkit.comment("Factors of the terms of fabric.py, LUT and FF. Written by tests/synthesis.py.")
    )
    for family, parts in factors.items():
        table = tomlkit.table()
        for part, terms in parts.items():
            table.add(part, terms)
        document.add(family, table)
    FACTORS.write_text(tomlkit.dumps(document), encoding="utf-8")
    fabric._factors.cache_clear()


# -- page --------------------------------------------------------------------------------------------------------------
def model(name: str, family: str) -> list[float]:
    """What the model says of a machine."""
    return [use.used for use in resources_of(MACHINES[name], family, uram_of(name, family))]


def errors(name: str, family: str, counted: list[float]) -> list[float]:
    """Model less count, relative to the count."""
    return [(m - c) / c if c else float(m != c) for m, c in zip(model(name, family), counted, strict=True)]


def page(counts: dict[str, Any]) -> str:
    out = [HEAD]
    for family, title in (("ultrascale+", "UltraScale+"), ("7series", "7-series")):
        out.append(f"\n## {title}\n\nYosys / model; the error of LUT and FF in %.\n\n")
        out.append("| machine | | DSP | BRAM36 | URAM | LUT | FF |\n|---|---|---|---|---|---|---|\n")
        for name in MACHINES:
            if name in counts[family]:
                counted, said = total(counts[family][name]), model(name, family)
                wrong = errors(name, family, counted)
                cells = [f"{c:g} / {s:g}" for c, s in zip(counted[:3], said[:3], strict=True)]
                cells += [
                    f"{c:,.0f} / {s:,.0f} ({100 * e:+.1f})"
                    for c, s, e in zip(counted[3:], said[3:], wrong[3:], strict=True)
                ]
                kind = "held out" if name in HELD_OUT[family] else "fit"
                out.append(f"| {name} | {kind} | {' | '.join(cells)} |\n")
    out.append("\nMachines:\n\n" + "".join(f"- {name}: {_shown(arch)}\n" for name, arch in MACHINES.items()))
    out.append("\n" + ARRAY)
    for name in ("b512", "b1024", "b2304", "b4096", "b4096-nodw"):
        d = fabric.dsp_slices(PRESETS[name])
        macs = PRESETS[name].macs_per_cycle
        cells = [
            macs,
            d["array"],
            f"{d['array'] / macs:.2f}",
            *(d[k] for k in ("depthwise", "requantise", "vector", "address")),
        ]
        out.append(f"| {name} | {' | '.join(map(str, cells))} | {sum(d.values())} |\n")
    out.append(_of_boards())
    out.append("\n" + METHOD)
    for key, pair in counts["flattened"].items():
        name, family = key.split("/")
        for what in ("flattened", "parts"):
            out.append(f"| {name} | {family} | {what} | {' | '.join(f'{n:,g}' for n in pair[what])} |\n")
    return "".join(out)


def _shown(arch: Arch) -> str:
    text = str(arch).partition(": ")[2].rpartition(",")[0]
    return f"{text}, rounding {' '.join(arch.rounding)}"


def _of_boards() -> str:
    """Cores of the boards, whole and by engine."""
    out = ["\n## Cores of the boards\n\nBy the model, of what the board has.\n\n"]
    out.append("| board | core | DSP | BRAM36 | URAM | LUT | FF |\n|---|---|---|---|---|---|---|\n")
    engines: dict[str, dict[str, tuple[float, float]]] = {}
    for name in board_names():
        board = Board.named(name)
        arch = board.default_arch
        uses = resources_of(arch, board.family, board.uram // arch.cores, board)
        cells = [
            f"{use.used:,.0f} of {use.available:,g}" if use.available else f"{use.used:g}" for use in uses
        ]
        out.append(f"| {name} | {arch.name} | {' | '.join(cells)} |\n")
        engines[arch.name] = fabric.logic(arch, board.family)
    out.append("\nLUT and FF of these cores by part:\n\n| part | " + " | ".join(engines) + " |\n")
    out.append("|---|" + "---|" * len(engines) + "\n")
    for part in dict.fromkeys(part for parts in engines.values() for part in parts):
        cells = [f"{p[part][0]:,.0f}, {p[part][1]:,.0f}" if part in p else "" for p in engines.values()]
        out.append(f"| {part} | {' | '.join(cells)} |\n")
    return "".join(out)


def judge(counts: dict[str, Any]) -> list[str]:
    """What the model promises and does not keep."""
    wrong = []
    for family in MAC:
        for name, parts in counts[family].items():
            for resource, error in zip(RESOURCES, errors(name, family, total(parts)), strict=True):
                bound = 0.0 if resource in RESOURCES[:3] else 0.1
                if abs(error) > bound and (bound == 0 or name in HELD_OUT[family]):
                    wrong.append(f"{name}, {family}: {resource} is {100 * error:+.1f} % off")
    return wrong


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("machines", nargs="*", choices=[*MACHINES, []], help="default: all")
    ask.add_argument("-f", "--family", choices=list(MAC), action="append")
    ask.add_argument("--part", action="append", default=[])
    ask.add_argument("--fit", action="store_true")
    ask.add_argument("--whole", action="store_true")
    chosen = ask.parse_args()
    counts = (
        json.loads(COUNTS.read_text(encoding="utf-8"))
        if COUNTS.exists()
        else {f: {} for f in (*MAC, "parts", "flattened")}
    )
    for name in () if chosen.fit else chosen.machines or MACHINES:
        for family in chosen.family or MAC:
            found = synthesise_machine(name, family, tuple(chosen.part))
            if chosen.part:
                counts["parts"].setdefault(family, {}).setdefault(name, {}).update(found)
            else:
                counts[family][name] = found
            if chosen.whole:
                counts["flattened"][f"{name}/{family}"] = {
                    "flattened": flattened(name, family),
                    "parts": total(found),
                }
            COUNTS.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
            print(name, family, total(found), flush=True)
    write_factors(fit(counts))
    PAGE.write_text(page(counts), encoding="utf-8")
    wrong = judge(counts)
    print("\n".join(wrong) or "as promised")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
