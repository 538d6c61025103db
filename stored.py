"""The folder of a compiled network.

``compiled.json`` (settings), ``arch.toml``, ``model.npz`` (the int8 network), and for each DPU segment ``net.tw``
(program file), ``tiling.txt``, ``program.txt`` and ``graph.txt`` (with ``-2``, ``-3`` … from the second segment on).
An edited ``tiling.txt`` is lowered again when the folder is opened.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .archive import pack, unpack
from .compiled import Compiled, Source
from .interface import driver_notes
from .ir.arch import Arch
from .ir.board import Board
from .ir.errors import ProgramError, ReportError
from .ir.graph import Graph
from .ir.tile_notes import annotated
from .scheduler import Options, Place, Plan, lower

if TYPE_CHECKING:
    from .frontend import Model

__all__ = ["SCHEMA", "contents", "load", "load_model", "pack_model", "save"]

SCHEMA = "tilewright.compiled/1"
"""Raised whenever a folder of this version cannot be read by the one before."""


def contents(compiled: Compiled) -> dict[str, bytes]:
    """The folder's files, by name."""
    files: dict[str, bytes] = {
        "arch.toml": compiled.arch.toml().encode(),
        "model.npz": pack_model(compiled.model),
    }
    segments = []
    notes = driver_notes(compiled)
    for i, plan in enumerate(compiled.plans):
        names = _names(i)
        tiling = annotated(plan.tiling, plan.graph, plan.arch.lanes).encode()
        files[names["program"]] = plan.program.save(notes[i])
        files[names["tiling"]] = tiling
        files[names["listing"]] = (str(plan.program) + "\n").encode()
        files[names["graph"]] = (str(plan.graph) + "\n").encode()
        segments.append(
            {
                "layers": list(plan.layers),
                "engines": list(plan.engines),
                "places": {n: [p.offset, *p.shape] for n, p in plan.places.items()},
                "tiling_sha256": hashlib.sha256(tiling).hexdigest(),
            }
        )
    settings = {
        "schema": SCHEMA,
        "network": compiled.model.name,
        "board": compiled.board.model_dump(mode="json"),
        "dram": compiled.dram,
        "objective": compiled.objective,
        "batch": compiled.batch,
        "tries": compiled.tries,
        "options": _asked(compiled.options),
        "seed": compiled.seed,
        "source": asdict(compiled.source),
        "segments": segments,
    }
    files["compiled.json"] = (json.dumps(settings, indent=1, sort_keys=True) + "\n").encode()
    return files


def save(compiled: Compiled, folder: Path) -> tuple[str, ...]:
    """Write the files into an existing folder; their names."""
    files = contents(compiled)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return tuple(files)


def load(folder: Path) -> Compiled:
    """Open a folder that `save` wrote; see `Compiled.load`."""
    settings = _settings(folder)
    arch = Arch.load(folder / "arch.toml")
    model = load_model(folder / "model.npz")
    graphs = [graph.stacked(settings["batch"]) for graph in model.graphs]
    if len(graphs) != len(settings["segments"]):
        raise ReportError(
            f"{folder}: compiled.json lists {len(settings['segments'])} DPU segments, model.npz has {len(graphs)}; "
            "the files are of different runs: compile again"
        )
    plans = tuple(
        _load_plan(folder, i, graph, arch, entry)
        for i, (graph, entry) in enumerate(zip(graphs, settings["segments"], strict=True))
    )
    source = settings["source"]
    shapes = {name: tuple(sizes) for name, sizes in source["input_shape"].items()}
    return Compiled(
        model=model,
        arch=arch,
        board=Board.model_validate(settings["board"]),
        dram=settings["dram"],
        plans=plans,
        objective=settings["objective"],
        seed=settings["seed"],
        source=Source(source["where"], source["sha256"], shapes),
        options=Options(**settings["options"]) if settings["options"] else None,
        tries=settings["tries"],
    )


def _asked(options: Options | None) -> dict[str, Any]:
    """What differs from the defaults."""
    default = Options()
    mine = {} if options is None else {f.name: getattr(options, f.name) for f in fields(Options)}
    return {name: value for name, value in mine.items() if value != getattr(default, name)}


def _names(segment: int) -> dict[str, str]:
    """File names of a segment."""
    tail = f"-{segment + 1}" if segment else ""
    return {
        "program": f"net{tail}.tw",
        "tiling": f"tiling{tail}.txt",
        "listing": f"program{tail}.txt",
        "graph": f"graph{tail}.txt",
    }


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "compiled.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ReportError(
            f"{folder}: not a compiled network (no readable compiled.json); `tilewright compile MODEL.onnx -o {folder}` makes one"
        ) from None
    except ValueError as error:
        raise ReportError(f"{path}: not JSON: {error}; compile again") from None
    schema = settings.get("schema") if isinstance(settings, dict) else None
    if schema != SCHEMA:
        raise ReportError(f"{path}: schema is {schema!r}, this version reads {SCHEMA!r}; compile again")
    missing = {
        "batch",
        "board",
        "dram",
        "objective",
        "options",
        "seed",
        "source",
        "segments",
        "tries",
    } - settings.keys()
    if missing:
        raise ReportError(f"{path}: lacks {', '.join(sorted(missing))}; compile again")
    return dict(settings)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror}); compile again") from None


@dataclass(frozen=True, eq=False)
class _Network:
    """An int8 network at rest: what running it needs, without the float original."""

    name: str
    segments: tuple[Any, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    calibration: str
    mode: str
    quants: dict[str, Any]
    opsets: dict[str, int]
    divisors: dict[str, Any]
    sqnr_db: dict[str, float]


def pack_model(model: Model) -> bytes:
    """An int8 network as the bytes that `load_model` reads; noise of layers is kept where it was measured."""
    ports = {p.name for p in (*model.inputs, *model.outputs)}
    return pack(
        _Network(
            name=model.name,
            segments=model.segments,
            inputs=model.inputs,
            outputs=model.outputs,
            calibration=model.calibration,
            mode=model.mode,
            quants={name: quant for name, quant in model.network.quants.items() if name in ports},
            opsets=dict(model.network.opsets),
            divisors=dict(model.divisors),
            sqnr_db=dict(vars(model).get("sqnr_db", {})),
        )
    )


def load_model(path: Path) -> Model:
    """An int8 network that `pack_model` wrote; ReportError where the file is none."""
    from .frontend.model import Border, DpuSegment, HostSegment, Model
    from .frontend.network import Network, Port
    from .frontend.views import View
    from .ir import graph as g

    values = [v for v in vars(g).values() if isinstance(v, type) and v.__module__ == g.__name__]
    known = [_Network, Border, DpuSegment, HostSegment, Port, View, *values]
    rest = unpack(_read(path), known, where=str(path))
    if not isinstance(rest, _Network):
        raise ReportError(f"{path}: holds a {type(rest).__name__}, want a network; compile again")
    network = Network(
        name=rest.name,
        nodes=(),
        constants={},
        shapes={},
        inputs=rest.inputs,
        outputs=rest.outputs,
        quants=rest.quants,
        weights={},
        types={},
        source=b"",
        opsets=rest.opsets,
    )
    return Model(
        name=rest.name,
        segments=rest.segments,
        inputs=rest.inputs,
        outputs=rest.outputs,
        calibration=rest.calibration,  # type: ignore[arg-type]
        mode=rest.mode,
        network=network,
        measure_sqnr=lambda model: rest.sqnr_db,
        divisors=rest.divisors,
    )


def _load_plan(folder: Path, index: int, graph: Graph, arch: Arch, entry: dict[str, Any]) -> Plan:
    from .ir.isa import Program
    from .ir.tile import TileProgram

    names = _names(index)
    data = _read(folder / names["tiling"])
    try:
        tiling = TileProgram.parse(data.decode())
    except UnicodeDecodeError as error:
        raise ProgramError(f"{folder / names['tiling']}: not UTF-8 text: {error}") from None
    if hashlib.sha256(data).hexdigest() != entry["tiling_sha256"]:
        return lower(tiling, graph, arch)
    program = Program.load(_read(folder / names["program"]))
    if program.design != arch.design_hash:
        raise ProgramError(
            f"{names['program']} is for design {program.design}, arch.toml is {arch.design_hash}; compile again for this machine"
        )
    places = {n: Place(offset, (h, w, c)) for n, (offset, h, w, c) in entry["places"].items()}
    if set(places) < {*graph.inputs, *graph.outputs}:
        raise ReportError(
            f"{folder / 'compiled.json'}: a graph input or output has no place in DRAM; compile again"
        )
    return Plan(graph, arch, tiling, program, places, tuple(entry["layers"]), tuple(entry["engines"]))
