"""Energy of a frame: action counts times coefficients, every coefficient with a source (`energy.toml`).

E = sum of actions x pJ + DRAM (bits, activates, background power x time) + clock tree + static power x time.
Linear in the counts by construction; a test holds it to that. Nothing here was measured on the DPU itself, so a
result says "estimated" and carries the uncertainty of its parts, which are taken as independent.
"""

from __future__ import annotations

import math
import tomllib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.errors import SimulationError
from .dram import PARTS, DramCounts, DramSpec
from .resources import flip_flops
from .results import Energy

if TYPE_CHECKING:
    from ..ir.board import Board

__all__ = ["COMPONENTS", "action_counts", "energy", "tables"]

COMPONENTS = ("dram", "maps", "weights", "mac", "depthwise", "vector", "control", "static")
_FIXED_KIND = "DDR4"
"""What stands behind a memory of fixed rate where no board says better."""


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("energy.toml").read_text(encoding="utf-8"))


def tables() -> tuple[str, ...]:
    """Names of the coefficient tables: three as they stand, and ``asicN`` for each node of the scaling law."""
    nodes = tuple(f"asic{n}" for n in _data()["scaling"] if n != "45")
    return ("asic45", "fpga16", "fpga28", *nodes)


def action_counts(cost: NDArray[np.void], arch: Arch, instructions: int) -> dict[str, int]:
    """Actions of some instructions, from their `timing.COST` records; memories in bytes."""
    total = {name: int(cost[name].sum()) for name in cost.dtype.names or ()}
    return {
        "map_bytes": (total["map_reads"] + total["map_writes"]) * arch.lanes,
        "weight_bytes": total["weight_reads"] * arch.lanes * arch.conv.oc + total["fill_bytes"],
        "depthwise_bytes": total["depthwise_reads"] * arch.dwc.taps * arch.lanes,
        "product": total["products"],
        "depthwise_product": total["depthwise_products"],
        "vector_op": total["vector_ops"],
        "requantised": total["requantised"],
        "lookup": total["lookups"],
        "instruction": instructions,
        "dram_bytes": total["dram_bytes"],
    }


def _table(name: str) -> tuple[dict[str, Any], float]:
    """Coefficients, and the factor on every dynamic one."""
    data = _data()
    if name not in tables():
        raise SimulationError(f"no energy table {name!r}; there are {', '.join(tables())}", table=name)
    if name not in data:
        node = name.removeprefix("asic")
        scaled = f"ASIC, {node} nm, scaled from 45 nm"
        return {**data["asic45"], "title": scaled, "node_nm": int(node)}, float(data["scaling"][node])
    row = data[name]
    if "base" in row:
        return {**data[row["base"]], **row}, float(row["factor"])
    return row, 1.0


def _sram(table: dict[str, Any], bank_bytes: int) -> float:
    """pJ a byte of a bank of this size; the law holds from 4.5 KiB up, smaller banks count as that."""
    s = table["sram"]
    return float(s["pj"]) / 16 * math.pow(max(bank_bytes, 4608) / 16384, float(s["exponent"]))


def _coefficients(
    arch: Arch, table: dict[str, Any], factor: float
) -> dict[str, dict[str, tuple[float, float]]]:
    """pJ an action and its uncertainty, by component and action; DRAM and time apart."""
    unsure = float(table["sram"]["uncertainty"])
    maps = _sram(table, arch.group_words // arch.banks * arch.lanes)
    weights = _sram(table, arch.weight_words * arch.lanes)
    depthwise = _sram(table, arch.depthwise_words * arch.dwc.taps * arch.lanes)
    out: dict[str, dict[str, tuple[float, float]]] = {
        "maps": {"map_bytes": (maps * factor, unsure)},
        "weights": {
            "weight_bytes": (weights * factor, unsure),
            "depthwise_bytes": (depthwise * factor, unsure),
        },
    }
    for action, row in table["actions"].items():
        value = (float(row["pj"]) * factor, float(row["uncertainty"]))
        out.setdefault(row["component"], {})[action] = value
    return out


def _dram_row(spec: DramSpec, board: Board | None) -> tuple[dict[str, Any], int, str]:
    """Coefficients of the memory's kind, the width of its interface, and the kind."""
    part = spec.part or (PARTS.get(board.dram) if board is not None else None)
    kind = part.name.partition("-")[0].removesuffix("L") if part is not None else _FIXED_KIND
    row = _data()["dram"][kind]
    return row, part.bits if part is not None else int(row["bits"]), kind


def energy(
    actions: dict[str, int],
    dram: DramCounts,
    cycles: int,
    arch: Arch,
    spec: DramSpec,
    board: Board | None = None,
    table: str | None = None,
) -> tuple[Energy, dict[str, dict[str, float]]]:
    """Energy of one frame, and pJ an action by component for shares of it.

    Parameters
    ----------
    actions : dict of str to int
        From `action_counts`.
    dram : DramCounts
        What the memory did.
    table : str, optional
        One of `tables`; by default the board's node, or ``asic45`` without a board.
    """
    name = table or (f"fpga{board.node_nm}" if board is not None else "asic45")
    row, factor = _table(name)
    seconds = cycles / (arch.clock_mhz * 1e6)
    coefficients = _coefficients(arch, row, factor)
    memory, bits, kind = _dram_row(spec, board)
    chips = bits / float(memory["bits"])

    parts: list[tuple[str, float, float]] = [  # component, mJ, uncertainty
        (part, actions[action] * pj * 1e-9, unsure)
        for part, entries in coefficients.items()
        for action, (pj, unsure) in entries.items()
    ]
    unsure = float(memory["uncertainty"])
    moved = 8 * (dram.read_bytes + dram.write_bytes) * float(memory["pj_per_bit"]) * 1e-9
    opened = dram.activates * float(memory["activate_nj"]) * chips * 1e-6
    parts.append(("dram", moved + opened + float(memory["background_mw"]) * chips * seconds, unsure))
    clock = row["clock_tree"]
    parts.append(
        (
            "control",
            flip_flops(arch) * cycles * float(clock["pj"]) * factor * 1e-9,
            float(clock["uncertainty"]),
        )
    )
    still = row["static"]
    milliwatts = float(still.get("mw", 0.0))
    if "mw_per_mib" in still:
        kib = arch.maps.kib + arch.weights.kib + arch.weights.depthwise_kib + arch.weights.vector_kib
        milliwatts = kib / 1024 * float(still["mw_per_mib"]) + flip_flops(arch) / 1e3 * float(
            still["mw_per_kflop"]
        )
    parts.append(("static", milliwatts * seconds, float(still["uncertainty"])))

    components = dict.fromkeys(COMPONENTS, 0.0)
    for part, mj, _ in parts:
        components[part] += mj
    total = sum(components.values())
    spread = math.sqrt(sum((mj * u) ** 2 for _, mj, u in parts)) / total if total else 0.0
    per_action = {part: {a: pj for a, (pj, _) in entries.items()} for part, entries in coefficients.items()}
    per_action["dram"] = {"dram_bytes": 8 * float(memory["pj_per_bit"])}
    used = Energy(
        components, row["title"], bool(row["estimated"]), _sources(row, factor, memory, kind), spread
    )
    return used, per_action


def _sources(row: dict[str, Any], factor: float, memory: dict[str, Any], kind: str) -> tuple[str, ...]:
    """A line a coefficient: what, value, uncertainty, source."""
    scale = f" x {factor:g}" if factor != 1.0 else ""
    lines = [
        f"{action}: {c['pj']:g} pJ{scale}, +-{c['uncertainty']:.0%}: {c['source']}"
        for action, c in row["actions"].items()
    ]
    s, clock, still = row["sram"], row["clock_tree"], row["static"]
    lines += [
        f"on-chip RAM: {s['pj']:g} pJ{scale} for 16 bytes at 16 KiB, to the power {s['exponent']:g} of the bank's size, "
        f"+-{s['uncertainty']:.0%}: {s['source']}",
        f"clock tree: {clock['pj']:g} {clock['unit']}{scale}, +-{clock['uncertainty']:.0%}: {clock['source']}",
        f"static: +-{still['uncertainty']:.0%}: {still['source']}",
        f"DRAM ({kind}): {memory['pj_per_bit']:g} pJ a bit, {memory['activate_nj']:g} nJ an activate, "
        f"{memory['background_mw']:g} mW at {memory['bits']} bits, +-{memory['uncertainty']:.0%}: {memory['source']}",
    ]
    return tuple(lines)
