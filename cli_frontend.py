"""Verbs of the frontend: what of a network runs where, and the int8 network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .cli_console import emit, staged, table
from .cli_options import COMMON, DATA, Common, Data, Settings, Shapes, parse_settings, parse_shapes

__all__ = ["check", "quantize"]

_ANOTHER_MACHINE = "name a larger machine with --arch, or change a field with --set"


def check(
    model: Annotated[str, Parameter(help="ONNX file or `zoo:NAME`.")],
    *,
    arch: Annotated[
        str | None, Parameter(help="Machine that the layers must fit.  [default: the core of the board]")
    ] = None,
    set: Settings = (),
    board: Annotated[str, Parameter(help="Board that the machine is for.")] = "kv260",
    input_shape: Shapes = (),
    common: Common = COMMON,
) -> None:
    """Which operators run on the DPU, which on the host, which fit nowhere, and why; before any work."""
    from .api import find, load_int8
    from .frontend import check as coverage_of
    from .hwsim.resources import fits
    from .ir.arch import Arch
    from .ir.board import Board
    from .scheduler import find_misfits

    chosen = Board.load(board)
    machine = (Arch.load(arch) if arch else chosen.default_arch).override(parse_settings(set))
    with staged(common) as stage:
        stage("read the network")
        network, _ = find(model, input_shape=parse_shapes(input_shape), seed=common.seed)
        coverage = coverage_of(network)
        stage("try every layer")
        int8 = load_int8(
            network,
            arch=machine,
            synthetic_calibration=True,
            seed=common.seed,
            equalise=False,
            bias_correction=False,
        )
        misfits = {
            str(e.facts["node"]): str(e) for graph in int8.graphs for e in find_misfits(graph, machine)
        }
    nodes = tuple(
        replace(n, where="unsupported", reason=misfits[n.name], help=_ANOTHER_MACHINE)
        if n.name in misfits
        else n
        for n in coverage.nodes
    )
    named = {n.name for n in nodes}
    others = [*fits(machine, chosen), *(text for name, text in misfits.items() if name not in named)]
    counts = {where: sum(n.where == where for n in nodes) for where in ("dpu", "host", "unsupported")}

    def text() -> str:
        away = [n for n in nodes if n.where != "dpu"]
        lines = [f"{network.name}: {counts['dpu']} of {len(nodes)} operators run on the DPU"]
        if away:
            lines += [
                "",
                table(
                    [(n.name, n.op, n.where, n.reason) for n in away],
                    head=("name", "operator", "where", "why"),
                ),
            ]
            helps = dict.fromkeys(n.help for n in away if n.help)
            lines += ["", *(f"  what would help: {h}" for h in helps)]
        lines += ["", f"{machine.name} on {chosen.name}: " + ("; ".join(others) if others else "fits")]
        return "\n".join(lines)

    value = {
        "schema": "tilewright.check/1",
        "model": network.name,
        "counts": counts,
        "arch": machine.name,
        "board": chosen.name,
        "misfits": others,
        "nodes": [
            {"name": n.name, "op": n.op, "where": n.where, "reason": n.reason, "help": n.help} for n in nodes
        ],
    }
    emit(common, value, text)


def quantize(
    model: Annotated[str, Parameter(help="ONNX file or `zoo:NAME`.")],
    *,
    data: Data = DATA,
    mode: Annotated[
        Literal["f32", "fix16", "shift"], Parameter(help="Rounding of the requantisers.")
    ] = "f32",
    ranges: Annotated[
        Literal["minmax", "percentile", "mse"], Parameter(help="How activation ranges are chosen.")
    ] = "minmax",
    equalise: Annotated[bool, Parameter(help="Equalise weight ranges across layers.")] = True,
    bias_correction: Annotated[bool, Parameter(help="Correct biases by the calibration means.")] = True,
    output: Annotated[
        Path | None,
        Parameter(name=("--output", "-o"), help="The int8 network, for `compile`.  [default: NAME.int8.npz]"),
    ] = None,
    common: Common = COMMON,
) -> None:
    """Make the int8 network once, with the signal to noise ratio of each layer."""
    from .api import find, load_int8
    from .folder import write_whole
    from .stored import pack_model

    with staged(common) as stage:
        stage("read the network")
        network, _ = find(model, input_shape=parse_shapes(data.input_shape), seed=common.seed)
        stage("quantise")
        int8 = load_int8(
            network,
            calibration=data.calibration,
            synthetic_calibration=data.synthetic_calibration,
            mode=mode,
            seed=common.seed,
            ranges=ranges,
            equalise=equalise,
            bias_correction=bias_correction,
        )
    path = output or Path(f"{int8.name}.int8.npz")
    write_whole(path, pack_model(int8))

    def text() -> str:
        lines = [
            f"{int8.name}: {int8.macs / 1e6:,.1f} M MACs, {int8.parameters / 1e6:,.2f} M parameters, "
            f"calibration: {int8.calibration}",
        ]
        worst = sorted(int8.sqnr_db.items(), key=lambda item: item[1])[:10]
        if worst:
            lines += [
                "",
                table(
                    [(n, f"{db:.1f} dB") for n, db in worst],
                    head=("layers with most noise", "signal to noise"),
                ),
            ]
        return "\n".join([*lines, "", f"written: {path}"])

    value = {
        "schema": "tilewright.quantize/1",
        "model": {"name": int8.name, "macs": int8.macs, "parameters": int8.parameters},
        "calibration": int8.calibration,
        "mode": mode,
        "sqnr_db": dict(int8.sqnr_db),
        "files": [str(path)],
    }
    emit(common, value, text)
