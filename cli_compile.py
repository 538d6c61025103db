"""Verbs of the main job: compile, simulate, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .cli_console import staged
from .cli_options import COMMON, DATA, MACHINE, SHARING, Common, Data, Machine, Sharing, parse_shapes

if TYPE_CHECKING:
    from .compiled import Compiled
    from .reports.result import Result
    from .scheduler import Options

__all__ = ["answer", "compile", "compiled_from", "deliver", "report", "result_of", "simulate"]

Out = Annotated[Path | None, Parameter(name=("--output", "-o"), help="Folder, written whole or not at all.")]
Twin = Annotated[bool, Parameter(help="Also schedule and simulate the machine without its depthwise engine.")]
Figures = Annotated[bool, Parameter(help="Draw rooflines and breakdowns as SVG and PNG files as well.")]
Verify = Annotated[bool, Parameter(help="Compare the emulator with the integer reference, byte by byte.")]


def compile(
    model: Annotated[str, Parameter(help="ONNX file, `zoo:NAME`, or `.npz` of `quantize`.")],
    *,
    machine: Machine = MACHINE,
    data: Data = DATA,
    sharing: Sharing = SHARING,
    twin: Twin = True,
    verify: Verify = False,
    figures: Figures = True,
    output: Out = None,
    common: Common = COMMON,
) -> None:
    """Quantise, schedule, simulate and report."""
    with staged(common) as stage:
        compiled = compiled_from(model, machine, data, common, stage)
        result = result_of(compiled, twin=twin, verify=verify, sharing=sharing, on_stage=stage)
        folder = output or Path("tilewright-out") / f"{compiled.model.name}-{compiled.arch.name}"
        deliver(compiled, result, folder, stage, figures=figures)
    answer(common, result, folder)


def simulate(
    source: Annotated[str, Parameter(help="Compiled folder, or a model as `compile` takes it.")],
    *,
    machine: Machine = MACHINE,
    data: Data = DATA,
    sharing: Sharing = SHARING,
    twin: Twin = True,
    verify: Verify = False,
    figures: Figures = True,
    output: Out = None,
    common: Common = COMMON,
) -> None:
    """Simulate a compiled folder again, on another memory or machine.

    Without -o the folder itself is written anew.
    """
    if not Path(source).is_dir():
        compile(
            source,
            machine=machine,
            data=data,
            sharing=sharing,
            twin=twin,
            verify=verify,
            figures=figures,
            output=output,
            common=common,
        )
        return
    with staged(common) as stage:
        compiled = compiled_from(source, machine, data, common, stage)
        result = result_of(compiled, twin=twin, verify=verify, sharing=sharing, on_stage=stage)
        folder = output or Path(source)
        deliver(compiled, result, folder, stage, figures=figures)
    answer(common, result, folder)


def report(
    folder: Annotated[Path, Parameter(help="Compiled folder.")],
    *,
    open: Annotated[
        bool, Parameter(help="Open report.html in the browser.", negative="", show_default=False)
    ] = False,
    twin: Twin = True,
    verify: Verify = False,
    figures: Figures = True,
    output: Out = None,
    common: Common = COMMON,
) -> None:
    """Write the report of a compiled folder again."""
    simulate(str(folder), twin=twin, verify=verify, figures=figures, output=output, common=common)
    if open:
        import webbrowser

        webbrowser.open(((output or folder) / "report.html").absolute().as_uri())


def compiled_from(
    source: str, machine: Machine, data: Data, common: Common, on_stage: Callable[[str], None]
) -> Compiled:
    """A compiled folder opened (and scheduled anew where another machine is asked for), or a model compiled."""
    from .api import compile as compiled_model
    from .api import machine_of
    from .compiled import Compiled
    from .ir.board import Board
    from .ir.errors import ModelError

    settings = machine.settings
    if not Path(source).is_dir():
        return compiled_model(
            source,
            machine.arch,
            Board.load(machine.board or "kv260"),
            dram=machine.dram,
            objective=machine.objective or "latency",
            options=_options(machine),
            batch=1 if machine.batch is None else machine.batch,
            tries=machine.tries or 0,
            calibration=data.calibration,
            synthetic_calibration=data.synthetic_calibration,
            input_shape=parse_shapes(data.input_shape),
            seed=common.seed,
            set=settings,
            on_stage=on_stage,
        )
    if data != Data():
        raise ModelError(
            f"{source}: a compiled folder is quantised already and its shapes are fixed; leave out calibration and "
            "input shapes, or name the model itself"
        )
    on_stage("open the folder")
    compiled = Compiled.load(source)
    if not machine.names_another:
        compiled = compiled if machine.cores is None else compiled.with_cores(machine.cores)
        return compiled.with_dram(machine.dram) if machine.dram else compiled
    board = Board.load(machine.board) if machine.board else compiled.board
    arch = machine_of(machine.arch or compiled.arch, settings)
    return compiled.on(
        arch,
        board=board,
        dram=machine.dram,
        objective=machine.objective,
        options=_options(machine),
        batch=machine.batch,
        tries=machine.tries,
        on_stage=on_stage,
    )


def _options(machine: Machine) -> Options | None:
    from .scheduler import Options

    return None if machine.dram_limit is None else Options(dram_gbps=machine.dram_limit)


def result_of(
    compiled: Compiled,
    *,
    twin: bool,
    verify: bool,
    sharing: Sharing = SHARING,
    on_stage: Callable[[str], None],
) -> Result:
    """The simulated result, beside its twin without the depthwise engine where there is one and it is wanted."""
    exact = None
    if verify:
        on_stage("compare the emulator with the reference")
        exact = compiled.verify_values(every=True)
    beside = compiled.without_dwc(on_stage) if twin and compiled.arch.has_dwc else None
    return compiled.simulate(
        exact=exact, beside=beside, frames=sharing.frames, stagger=sharing.stagger, on_stage=on_stage
    )


def deliver(
    compiled: Compiled,
    result: Result,
    folder: Path,
    on_stage: Callable[[str], None],
    *,
    figures: bool = True,
) -> tuple[str, ...]:
    """Write programs and report into `folder`, whole or not at all; names of the files."""
    from .folder import written_whole
    from .reports import write
    from .stored import contents

    on_stage("write the report")
    with written_whole(folder) as draft:
        return tuple(write(result, draft, others=contents(compiled), figures=figures))


def answer(common: Common, result: Result, folder: Path) -> None:
    """The summary that was written, as JSON for a script or as a screen for a reader."""
    if common.json:
        print((folder / "summary.json").read_text(encoding="utf-8"), end="")
    elif not common.quiet:
        from rich.console import Console

        from .reports import screen

        console = Console()
        # Not a terminal: nobody knows the width, and lines should stay whole.
        (console if console.is_terminal else Console(width=140)).print(screen(result, folder))
