"""`layers.csv`: one row a layer, columns that sum to the totals of `summary.json`.

The last row, ``(frame)``, holds what belongs to no layer: the instruction stream and the energy that flows
whatever runs. So the sum of a column over all rows is the frame's total, of DRAM bytes, MACs, energy and busy cycles.
"""

from __future__ import annotations

import csv
import io

from .accounts import accounts
from .palette import plain
from .result import Result

__all__ = ["COLUMNS", "layers_csv"]

COLUMNS = (
    "layer",
    "name",
    "op",
    "engine",
    "macs",
    "first_cycle",
    "last_cycle",
    "engine_cycles",
    "bound_cycles",
    "efficiency",
    "limited_by",
    "dram_ifmap_bytes",
    "dram_weights_bytes",
    "dram_ofmap_bytes",
    "dram_instructions_bytes",
    "onchip_read_bytes",
    "onchip_write_bytes",
    "ops_per_dram_byte",
    "gops",
    "energy_mj",
    "sqnr_db",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def layers_csv(result: Result) -> str:
    """The table as text, comma-separated, first line the names of `COLUMNS` and of the busy cycles of each engine."""
    total, layers = result.total, accounts(result)
    engines = list(dict.fromkeys(n.lower() for n in total.engines))
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow([*COLUMNS, *(f"busy_{e}" for e in engines)])
    for x in layers:
        layer = x.layer
        rows.writerow(
            [
                x.number,
                _cell(layer.name),
                _cell(layer.op),
                layer.engine,
                layer.macs,
                layer.first_cycle,
                layer.last_cycle,
                x.engine_cycles,
                layer.bound_cycles,
                _number(x.efficiency),
                layer.limited_by,
                layer.dram_bytes.get("ifmap", 0),
                layer.dram_bytes.get("weights", 0),
                layer.dram_bytes.get("ofmap", 0),
                0,
                layer.onchip_read_bytes,
                layer.onchip_write_bytes,
                _number(x.dram_intensity),
                _number(x.gops),
                repr(x.energy_mj),
                _number(result.sqnr_db[layer.name]) if layer.name in result.sqnr_db else "",
                *(layer.busy.get(e, 0) for e in engines),
            ]
        )
    left = {"ifmap": 0, "weights": 0, "ofmap": 0, "instructions": 0}
    for kind in left:
        left[kind] = total.dram_bytes.get(kind, 0) - sum(x.layer.dram_bytes.get(kind, 0) for x in layers)
    idle = [
        next(e.busy for n, e in total.engines.items() if n.lower() == name)
        - sum(x.layer.busy.get(name, 0) for x in layers)
        for name in engines
    ]
    rows.writerow(
        [
            len(layers) + 1,
            "(frame)",
            "",
            "",
            total.macs - sum(x.layer.macs for x in layers),
            0,
            total.cycles,
            0,
            0,
            "",
            "",
            *left.values(),
            0,
            0,
            "",
            "",
            repr(total.energy.total_mj - sum(x.energy_mj for x in layers)),
            "",
            *idle,
        ]
    )
    return out.getvalue()


def _number(value: float) -> str:
    return f"{value:.6g}"


def _cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    text = plain(text)
    return "'" + text if text.startswith(_FORMULA) else text
