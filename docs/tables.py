"""The tables of these pages, printed from the code that they describe.

    python docs/tables.py            # rewrite what is out of date
    python docs/tables.py --check    # only say so

A page holds ``<!-- table: NAME -->`` … ``<!-- end -->``; what stands between is written by `TABLES`[NAME].
`tests/test_docs.py` fails where a page and the code disagree.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["PAGES", "TABLES", "rendered"]

PAGES = tuple(sorted(Path(__file__).parent.glob("*.md")))
_SECTION = re.compile(r"(<!-- table: (?P<name>[\w .+-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(text: str) -> str:
    """A page with every table printed anew."""
    return _SECTION.sub(lambda m: f"{m[1]}\n{TABLES[m['name']]()}\n\n{m[3]}", text)


def _grid(head: Sequence[str], rows: Iterable[Sequence[Any]], right: str = "") -> str:
    """A Markdown table; `right` has an r for each column that is aligned to the right."""
    rule = [("---:" if i < len(right) and right[i] == "r" else "---") for i in range(len(head))]
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(head), rule, *cells])


def _fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.rstrip()}\n```"


# -- the hardware ------------------------------------------------------------------------------------------------------
def registers() -> str:
    from tilewright.rtl.register_map import REGISTERS

    rows = []
    for r in REGISTERS:
        fields = "; ".join(
            f"{f.low if f.width == 1 else f'{f.low + f.width - 1}:{f.low}'} `{f.name}` {f.meaning}"
            for f in r.fields
        )
        rows.append(
            (
                f"0x{r.offset:03X}",
                f"`{r.name}`",
                r.access.value,
                r.meaning + (f": {fields}" if fields else ""),
            )
        )
    return _grid(("offset", "register", "access", "meaning"), rows)


def error_causes() -> str:
    from tilewright.rtl import faults

    body = next(n for n in ast.parse(inspect.getsource(faults)).body if isinstance(n, ast.ClassDef)).body
    rows = []
    for member, text in pairwise(body):
        match member, text:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(meaning))):
                rows.append((int(faults.Cause[name]), f"`{name}`", meaning))
    return _grid(("cause", "name", "meaning"), rows, "rll")


# -- the machine -------------------------------------------------------------------------------------------------------
def arch_fields() -> str:
    from tilewright.ir.arch import Arch

    arch = Arch.preset("b4096")
    rows = []
    for path, meaning in Arch.fields().items():
        value: Any = arch
        for key in path.split("."):
            value = getattr(value, key)
        shown = (
            ", ".join(value)
            if isinstance(value, tuple)
            else f"{value:g}"
            if isinstance(value, float)
            else value
        )
        rows.append((f"`{path}`", shown, meaning or _OWN[path]))
    return _grid(("field", "b4096", "meaning"), rows, "lr")


_OWN = {
    "name": "in reports; not part of the design hash",
    "clock_mhz": "core clock, MHz",
    "cores": "cores of this kind in the design; a frame runs on one",
}


def presets() -> str:
    from tilewright.ir.arch import PRESETS

    rows = []
    for name, a in PRESETS.items():
        if not name.endswith("-nodw"):
            array = f"{a.conv.pixels} × {a.conv.ic} × {a.conv.oc}"
            engine = f"{a.dwc.pixels} × {a.dwc.channels} × {a.dwc.taps}"
            numbers = (
                a.macs_per_cycle,
                engine,
                a.depthwise_macs_per_cycle,
                a.vec.pixels,
                a.banks,
                a.maps.kib,
                a.weights.kib,
            )
            rows.append((f"`{name}`", array, *numbers))
    head = ("preset", "pixels × in × out", "MAC/cycle", "depthwise pixels × channels × taps", "MAC/cycle", "VEC words/cycle", "banks a group", "maps, KiB", "weights, KiB")  # fmt: skip
    return _grid(head, rows, "llrlrrrrr")


def latencies() -> str:
    from tilewright.ir import latency
    from tilewright.ir.arch import Arch

    arch = Arch.preset("b4096")
    rows = [(f"`{n}`", getattr(latency, n)) for n in latency.__all__ if n.isupper()]
    rows += [(f"`{n}(b4096)`", getattr(latency, n)(arch)) for n in latency.__all__ if n.endswith("_tail")]
    return _grid(("latency", "cycles"), rows, "lr")


@cache
def _mobilenet() -> Any:
    import tilewright

    return tilewright.compile("zoo:mobilenet_v2", "b4096", "kv260", synthetic_calibration=True)


_ENGINES = (
    ("none", {"dwc.pixels": 0, "dwc.channels": 0}),
    ("4 × 16 × 1", {"dwc.pixels": 4, "dwc.taps": 1}),
    ("8 × 16 × 1", {"dwc.taps": 1}),
    ("8 × 16 × 3 (`b4096`)", {}),
)


def depthwise() -> str:
    compiled = _mobilenet()
    rows = []
    for name, change in _ENGINES:
        arch = compiled.arch.override(change)
        run = (compiled.on(arch) if change else compiled).simulate().total
        busy = [f"{run.engines[e].busy / 1e3:,.0f}" if run.engines[e].busy else "–" for e in ("conv", "dwc")]
        rows.append(
            (
                name,
                f"{run.cycles / 1e3:,.0f}",
                *busy,
                f"{run.utilization:.1%}",
                f"{run.dram_bytes['total'] / 1e6:.2f}",
                f"{run.energy.total_mj:.2f}",
            )
        )
    head = ("depthwise engine, pixels × channels × taps", "cycles, thousand", "CONV busy", "DWC busy", "of peak", "DRAM, MB", "energy, mJ")  # fmt: skip
    return _grid(head, rows, "lrrrrrr")


# -- the instruction set -----------------------------------------------------------------------------------------------
def opcodes() -> str:
    from tilewright.ir.isa import ENGINE_OF, FORMATS, Memory, Opcode, VecOp

    rows = []
    for opcode in Opcode:
        funcs = {Opcode.VEC: VecOp, Opcode.FILL: Memory}.get(opcode, ())
        says = ", ".join(f"{f.value} {f.name}" for f in funcs) or "0"
        sizes = {sum(f.bits for f in fields) for (o, _), fields in FORMATS.items() if o == opcode}
        bits = f"{min(sizes)}–{max(sizes)}" if len(sizes) > 1 else str(sizes.pop())
        engine = ENGINE_OF[opcode].name if opcode in ENGINE_OF else "–"
        rows.append((opcode.value, opcode.name, engine, says, bits))
    return _grid(("opcode", "name", "engine", "func", "bits used of 512"), rows, "rlllr")


def _format_rows(fields: Any, at: int) -> list[tuple[str, str, str]]:
    rows = []
    for f in fields:
        sign = " (signed)" if f.signed else ""
        rows.append((f"{at + f.bits - 1}:{at}" if f.bits > 1 else str(at), f"`{f.name}`", f.meaning + sign))
        at += f.bits
    return rows


def header() -> str:
    from tilewright.ir.isa import FORMATS, Opcode

    return _grid(("bits", "field", "meaning"), _format_rows(FORMATS[Opcode.END, None], 0))


def instruction_format(opcode: str, func: str | None = None) -> str:
    """Fields of a format after the header."""
    from tilewright.ir.isa import FORMATS, Opcode, VecOp

    fields = FORMATS[Opcode[opcode], VecOp[func] if func else None]
    head = FORMATS[Opcode.END, None]
    assert fields[: len(head)] == head
    return _grid(("bits", "field", "meaning"), _format_rows(fields[len(head) :], sum(f.bits for f in head)))


# -- the tiling IR -----------------------------------------------------------------------------------------------------
def tiling() -> str:
    """The first three groups of MobileNetV2's schedule."""
    from tilewright.ir.tile_notes import annotated

    plan = _mobilenet().plans[0]
    parts = annotated(plan.tiling, plan.graph, plan.arch.lanes).split("\n\n")
    return _fenced("\n\n".join(parts[:4]), "tiling")


def explained() -> str:
    """The groups of the tiny network."""
    import tilewright as tw
    from tilewright.cli_explain import network_text
    from tilewright.explained import explain

    found = explain(tw.compile("zoo:tiny", "b512", synthetic_calibration=True), relax=False)
    return _fenced("\n".join(network_text(found)))


# -- memory ------------------------------------------------------------------------------------------------------------
def dram_parts() -> str:
    from tilewright.hwsim.dram import PARTS

    def number(value: float) -> str:
        return f"{value:.7g}"

    symbols = (
        ("tCK", "ns", "tck"), ("CL", "tCK", "cl"), ("CWL", "tCK", "cwl"), ("tRCD", "ns", "trcd"), ("tRP", "ns", "trp"),
        ("tRAS", "ns", "tras"), ("tRRD", "ns", "trrd"), ("tFAW", "ns", "tfaw"), ("tCCD_L", "tCK", "tccd_l"),
        ("tWTR", "ns", "twtr"), ("tWR", "ns", "twr"), ("tRTP", "ns", "trtp"), ("tREFI", "ns", "trefi"),
        ("tRFC", "ns", "trfc"), ("BL", "transfers", "bl"), ("page", "bytes", "page_bytes"), ("banks", "", "banks"),
        ("bank groups", "", "groups"), ("interconnect and controller", "ns", "latency_ns"),
    )  # fmt: skip
    rows = [
        ("peak", "GB/s", *(f"{p.peak_gb_s:.4g}" for p in PARTS.values())),
        *((s, unit, *(number(getattr(p, field)) for p in PARTS.values())) for s, unit, field in symbols),
    ]
    sources = "\n".join(f"- `{p.name}`: {p.source}" for p in PARTS.values())
    return _grid(("symbol", "unit", *PARTS), rows, "ll" + "r" * len(PARTS)) + "\n\n" + sources


_BURST, _IN_FLIGHT, _CLOCK = 256, 16, 300.0
_PATTERNS = (
    ("one stream of reads", (("r", 0),), 256),
    ("one stream of writes", (("w", 0),), 256),
    ("two reads and a write, 256 bytes a turn", (("r", 0), ("r", 5), ("w", 2)), 256),
    ("two reads and a write, 4 KB a turn", (("r", 0), ("r", 5), ("w", 2)), 4096),
    ("the same, all three in one bank, 256 bytes a turn", (("r", 0), ("r", 0), ("w", 0)), 256),
    ("random 256-byte reads", (("x", 0),), 256),
)


def _share(text: str, streams: Sequence[tuple[str, int]], turn: int) -> float:
    """Share of the peak that streams with 16 bursts of 256 bytes in flight reach."""
    import numpy as np
    from tilewright.hwsim.dram import PARTS, dram_access, parse

    spec, part = parse(text, _CLOCK), PARTS[text.partition(":")[2]]
    state, random = spec.state(), np.random.default_rng(0)
    whole = part.page_bytes * part.banks
    at = [part.page_bytes * page // part.groups + whole * 512 * i for i, (_, page) in enumerate(streams)]
    done, end, now, count = np.zeros(_IN_FLIGHT, np.int64), 0, 0, 6000
    for k in range(count):
        i = k * _BURST // turn % len(streams)
        kind = streams[i][0]
        address, at[i] = (int(random.integers(1 << 20)) * _BURST if kind == "x" else at[i]), at[i] + _BURST
        now = max(now, int(done[k % _IN_FLIGHT]))
        _, last = dram_access(state, now, address, _BURST, int(kind == "w"))
        done[k % _IN_FLIGHT] = last
        end = max(end, last)
    return count * _BURST / end / spec.peak_bytes_per_cycle


def dram_efficiency() -> str:
    parts = ("DDR4-2400x64", "DDR3-1066x32", "LPDDR4-2133x32")
    rows = [
        (name, *(f"{_share(f'banked:{part}', streams, turn):.0%}" for part in parts))
        for name, streams, turn in _PATTERNS
    ]
    return _grid(("traffic", *parts), rows, "lrrr")


def boards() -> str:
    from tilewright.ir.board import Board, board_names

    rows = []
    for name in board_names():
        b = Board.named(name)
        rows.append((f"`{name}`", b.part, f"`{b.dram}`", f"{b.dram_gb_s:g}", f"{b.ports} × {b.port_bits}", b.port_burst, f"{b.clock_mhz:g}", b.node_nm))  # fmt: skip
    head = (
        "board",
        "part",
        "memory",
        "GB/s",
        "ports × bits",
        "longest burst, beats",
        "clock, MHz",
        "node, nm",
    )
    return _grid(head, rows, "lllrrrrr")


# -- numerics ----------------------------------------------------------------------------------------------------------
def rounding() -> str:
    import numpy as np
    from tilewright.ir.requant import encode_scale, requantise

    random, n = np.random.default_rng(0), 200_000
    acc = np.rint(random.normal(0, 20_000, n)).astype(np.int64)
    decimal = np.exp(random.uniform(np.log(1e-3), np.log(6e-3), n)).astype(np.float32)
    power = np.float32(2.0 ** random.integers(-10, -7, n))
    rows = []
    for mode, what, scale in (
        ("fix16", "decimal", decimal),
        ("fix16", "powers of two", power),
        ("shift", "powers of two", power),
    ):
        got, want = (
            requantise(acc, encode_scale(scale, m), m, zero_point=0, low=-128, high=127).astype(np.int64)
            for m in (mode, "f32")
        )
        off = np.abs(got - want)
        rows.append((f"`{mode}`", what, f"{np.mean(off > 0):.2g}" if off.any() else "0", off.max()))
    return _grid(("mode", "multipliers", "share that differs from `f32`", "by at most, LSB"), rows, "llrr")


# -- energy ------------------------------------------------------------------------------------------------------------
@cache
def _coefficients() -> dict[str, Any]:
    import tomllib

    import tilewright.hwsim.energy as module

    return tomllib.loads(Path(module.__file__).with_name("energy.toml").read_text(encoding="utf-8"))


_DRAM_ACTIONS = {
    "pj_per_bit": ("bit read or written", "pJ"),
    "activate_nj": ("row activated", "nJ"),
    "background_mw": ("background and refresh", "mW"),
}


def energy_table(name: str) -> str:
    table = _coefficients()[name]
    rows = [(action, f"{c['pj']:g} pJ", c["component"], f"±{c['uncertainty']:.0%}", c["source"]) for action, c in table["actions"].items()]  # fmt: skip
    s, clock, still = table["sram"], table["clock_tree"], table["static"]
    law = f" × (bank bytes / 16 KiB)^{s['exponent']:g}" if s["exponent"] else ""
    rows.append(("16 bytes of a map or weight bank", f"{s['pj']:g} pJ{law}", "maps, weights", f"±{s['uncertainty']:.0%}", s["source"]))  # fmt: skip
    rows.append(("flip-flop and cycle", f"{clock['pj']:g} pJ", "control", f"±{clock['uncertainty']:.0%}", clock["source"]))  # fmt: skip
    units = {"mw": "mW", "mw_per_mib": "mW a MiB", "mw_per_kflop": "mW a thousand flip-flops"}
    power = " + ".join(f"{still[k]:g} {unit}" for k, unit in units.items() if k in still)
    rows.append(("time", power, "static", f"±{still['uncertainty']:.0%}", still["source"]))
    return _grid(("action", "coefficient", "component", "uncertainty", "source"), rows)


def energy_dram() -> str:
    rows = []
    for kind, c in _coefficients()["dram"].items():
        numbers = [f"{c[key]:g} {unit}" for key, (_, unit) in _DRAM_ACTIONS.items()]
        rows.append((kind, *numbers, c["bits"], f"±{c['uncertainty']:.0%}", c["source"]))
    head = (
        "kind",
        *(what for what, _ in _DRAM_ACTIONS.values()),
        "at a width of, bits",
        "uncertainty",
        "source",
    )
    return _grid(head, rows)


def energy_scaling() -> str:
    scaling = _coefficients()["scaling"]
    return _grid(
        ("node, nm", *scaling), [("dynamic energy, relative", *scaling.values())], "l" + "r" * len(scaling)
    )


# -- the frontend ------------------------------------------------------------------------------------------------------
class _Says(ast.NodeVisitor):
    """What a handler's source says: the strings it returns, and the reasons it raises `Unmapped` with.

    Functions of its module that it calls are read for their reasons too; one whose result it returns, for both.
    """

    def __init__(self, module: ModuleType, owner: type) -> None:
        self.modules, self.owner = [module], owner
        self.becomes: list[str] = []
        self.refuses: list[str] = []
        self.seen: set[tuple[str, bool]] = set()
        self.returned = True
        self.tail: ast.AST | None = None

    def read(self, function: Any, *, returned: bool = True) -> None:
        key = (function.__qualname__, returned)
        if key in self.seen:
            return
        self.seen.add(key)
        before, self.returned = self.returned, returned
        self.modules.append(inspect.getmodule(function) or self.modules[0])
        self.visit(ast.parse(textwrap.dedent(inspect.getsource(function))))
        self.modules.pop()
        self.returned = before

    def visit_Return(self, node: ast.Return) -> None:
        if self.returned:
            self.becomes += [part for part in self._strings(node.value) if part not in self.becomes]
            self.tail = node.value
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        call = node.exc
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Unmapped" and call.args:
            self.refuses += [part for part in self._strings(call.args[0]) if part not in self.refuses]

    def visit_Call(self, node: ast.Call) -> None:
        returned = self.returned and node is self.tail
        if isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "lo" and returned:
            self.read(getattr(self.owner, node.func.attr))
        elif isinstance(node.func, ast.Name):
            found = getattr(self.modules[-1], node.func.id, None)
            if inspect.isfunction(found):
                self.read(found, returned=returned)
        self.generic_visit(node)

    def _strings(self, node: ast.AST | None) -> list[str]:
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=values):
                text = "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in values)
                return [re.sub("…+", "…", text)]
            case ast.IfExp(body=body, orelse=orelse):
                return [*self._strings(body), *self._strings(orelse)]
        return []


def operators() -> str:
    from tilewright.frontend import (
        lower,
        lower_boxes,
        lower_linear,
        lower_pairs,
        lower_pools,
        lower_resize,
        lower_views,
    )

    rows: dict[tuple[str, str], list[str]] = {}
    tables = (
        (lower_linear, lower_linear.LINEAR),
        (lower_pairs, lower_pairs.PAIRS),
        (lower_pools, lower_pools.POOLS),
        (lower_boxes, lower_boxes.BOXES),
        (lower_resize, lower_resize.RESIZES),
        (lower_views, lower_views.VIEWS),
    )
    for module, handlers in tables:
        for op, handler in handlers.items():
            says = _Says(module, lower.Lowering)
            says.read(handler)
            key = (" or ".join(says.becomes), "; ".join(says.refuses))
            rows.setdefault(key, []).append(op)
    ordered = sorted((", ".join(ops), *key) for key, ops in rows.items())
    return _grid(("ONNX operator", "becomes", "stays with the host where it"), ordered)


def elementwise() -> str:
    from tilewright.frontend.elementwise import ELEMENTWISE

    return ", ".join(f"`{name}`" for name in ELEMENTWISE)


def host_only() -> str:
    from tilewright.frontend.lower import HOST_ONLY

    return _grid(
        ("ONNX operator", "reason", "what would help"), ((op, *why) for op, why in HOST_ONLY.items())
    )


def zoo() -> str:
    from tilewright import zoo as networks

    return ", ".join(f"`zoo:{name}`" for name in networks.NAMES)


# -- reports -----------------------------------------------------------------------------------------------------------
def causes() -> str:
    from tilewright.hwsim.results import CAUSES

    return ", ".join(f"`{cause}`" for cause in CAUSES[1:])


def report_files() -> str:
    from tilewright.reports.files import NAMES

    return ", ".join(f"`{name}`" for name in NAMES)


def layer_columns() -> str:
    from tilewright.reports.tables import COLUMNS

    return ", ".join(f"`{name}`" for name in COLUMNS)


TABLES: dict[str, Callable[[], str]] = {
    "registers": registers,
    "error causes": error_causes,
    "arch fields": arch_fields,
    "presets": presets,
    "latencies": latencies,
    "depthwise": depthwise,
    "opcodes": opcodes,
    "header": header,
    **{op: partial(instruction_format, op) for op in ("LOAD", "FILL", "CONV", "DWC", "SAVE")},
    **{
        f"VEC.{op}": partial(instruction_format, "VEC", op)
        for op in ("ADD", "MUL", "MAX", "AVG", "TABLE", "PRELU", "RESIZE")
    },
    "tiling": tiling,
    "explained": explained,
    "dram parts": dram_parts,
    "dram efficiency": dram_efficiency,
    "boards": boards,
    "rounding": rounding,
    "energy asic45": partial(energy_table, "asic45"),
    "energy fpga16": partial(energy_table, "fpga16"),
    "energy dram": energy_dram,
    "energy scaling": energy_scaling,
    "operators": operators,
    "elementwise": elementwise,
    "host only": host_only,
    "zoo": zoo,
    "causes": causes,
    "report files": report_files,
    "layer columns": layer_columns,
}
"""What prints each table."""


def main(arguments: list[str]) -> int:
    """Rewrite pages that are out of date, or with ``--check`` name them."""
    stale = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = rendered(text)
        if new != text:
            stale += 1
            print(f"{page.name}: {'out of date' if '--check' in arguments else 'rewritten'}")
            if "--check" not in arguments:
                page.write_text(new, encoding="utf-8")
    return stale if "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
