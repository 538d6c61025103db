"""Verbs of design-space exploration: explore, compare."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from .cli_console import emit
from .cli_options import COMMON, DATA, Common, Data, parse_shapes
from .ir.errors import ArchError, ModelError, ReportError

if TYPE_CHECKING:
    from .explore_campaign import Progress
    from .explore_design import Design
    from .explore_study import Study

__all__ = ["compare", "explore"]


def explore(
    *models: Annotated[str, Parameter(help="ONNX files, `zoo:NAME`, `.npz`.  [default: those of the space]")],
    space: Annotated[
        str, Parameter(help="TOML file, or a preset; `--spaces` lists them.", show_default=True)
    ] = "kv260",
    objectives: Annotated[
        str,
        Parameter(
            help="Of latency, fps, energy, edp, dram_bytes, dsp, bram, uram, lut, fps_per_dsp, sqnr, with commas.  "
            "[default: those of the space, else latency,energy,dsp]"
        ),
    ] = "",
    levels: Annotated[
        Literal["both", "estimate", "simulated"],
        Parameter(help="Estimate all and simulate the front and its margin; only estimate; simulate all."),
    ] = "both",
    margin: Annotated[
        float, Parameter(help="Share by which a design may miss the front and is simulated all the same.")
    ] = 0.05,
    sample: Annotated[int, Parameter(help="Random designs simulated to judge the estimate.")] = 16,
    most_simulated: Annotated[int, Parameter(help="Designs simulated for the front at most.")] = 128,
    weight: Annotated[
        tuple[str, ...],
        Parameter(
            help="Frames of a network in the mix, `NAME=2`; repeatable.",
            negative="",
            show_default=False,
            consume_multiple=False,
        ),
    ] = (),
    combine: Annotated[
        Literal["weighted", "worst"] | None,
        Parameter(help="Several networks: weighted mean, or the worst of each quantity."),
    ] = None,
    data: Data = DATA,
    jobs: Annotated[
        int | None, Parameter(help="Processes; 0: work in this one.  [default: one a processor]")
    ] = None,
    cluster: Annotated[str | None, Parameter(help="Dask scheduler, as tcp://HOST:8786.")] = None,
    output: Annotated[
        Path | None,
        Parameter(
            name=("--output", "-o"), help="Folder of the study.  [default: tilewright-out/study-SPACE]"
        ),
    ] = None,
    resume: Annotated[
        bool,
        Parameter(help="Go on with the study in the folder.", negative="", show_default=False),
    ] = False,
    figures: Annotated[bool, Parameter(help="Draw figures as SVG and PNG files as well.")] = True,
    parquet: Annotated[
        bool, Parameter(help="Also write designs.parquet.", negative="", show_default=False)
    ] = False,
    then: Annotated[
        Literal["build"] | None,
        Parameter(help="build: write the board package of the chosen design, into the folder `package`."),
    ] = None,
    pick: Annotated[
        str,
        Parameter(
            help="Design for --then: an objective to be best in, `balanced`, or the start of its hash."
        ),
    ] = "balanced",
    schema: Annotated[
        bool,
        Parameter(help="Print the JSON Schema of a space, and do nothing.", negative="", show_default=False),
    ] = False,
    spaces: Annotated[
        bool, Parameter(help="List the preset spaces, and do nothing.", negative="", show_default=False)
    ] = False,
    common: Common = COMMON,
) -> None:
    """Find the DPU for some networks: evaluate the designs of a space, simulate the best, show the front."""
    from .explore_space import Space

    if schema or spaces:
        _look(schema, common)
        return
    from .exploration import explore as explored

    place = Space.load(space)
    folder = output or Path("tilewright-out") / f"study-{Path(space).stem}"
    if parquet:
        _need_pyarrow()
    with _watched(common) as (stage, progress):
        try:
            study = explored(
                models,
                place,
                objectives=[w.strip() for w in objectives.split(",") if w.strip()],
                levels=levels,
                margin=margin,
                sample=sample,
                most_simulated=most_simulated,
                weights=_weights(weight),
                combine=combine,
                calibration=data.calibration,
                synthetic_calibration=data.synthetic_calibration or None,
                input_shape=parse_shapes(data.input_shape),
                seed=common.seed,
                jobs=jobs if cluster is None else None,
                cluster=cluster,
                output=folder,
                resume=resume,
                on_stage=stage,
                on_progress=progress,
            )
        except KeyboardInterrupt:
            print(
                f"tilewright: every finished design is kept in {folder}; the same command with --resume goes on",
                file=sys.stderr,
            )
            raise
        stage("write the report")
        names = study.report(folder, figures=figures)
        if parquet:
            study.to_parquet(folder / "designs.parquet")
    value = study.to_dict() | {"folder": str(folder), "files": list(names)}
    text = f"{study.summary()}\nwritten: {folder / 'report.html'}"
    if then == "build":
        built = _build(study, folder, pick, common)
        value |= {"built": built}
        text += f"\nbuilt: {built['package']} from design {built['design'][:8]}"
    emit(common, value, text)


def compare(
    a: Annotated[Path, Parameter(help="Folder of a study.")],
    b: Annotated[Path, Parameter(help="Folder of another one.")],
    *,
    common: Common = COMMON,
) -> None:
    """Compare two studies: whose front is ahead, where, and by how much."""
    from .cli_console import table
    from .exploration import open_study
    from .explore_compare import compare as compared
    from .explore_objectives import OBJECTIVES
    from .reports.palette import short

    found = compared(open_study(a), open_study(b))
    rows: list[tuple[str, ...]] = []
    for name, (ours, theirs) in found.best.items():
        aim = OBJECTIVES[name]
        ratio = (ours / theirs if aim.maximise else theirs / ours) if ours and theirs else None
        said = (
            "–"
            if ratio is None
            else "equal"
            if ratio == 1
            else f"A ahead ×{ratio:.3g}"
            if ratio > 1
            else f"B ahead ×{1 / ratio:.3g}"
        )
        unit = f", {aim.unit}" if aim.unit else ""
        rows.append((f"best {aim.title}{unit}", short(ours), short(theirs), said))
    rows.append(("hypervolume", *(f"{v:.4f}" for v in found.hypervolume), ""))
    rows.append(("of the front beaten by the other", *(f"{v:.0%}" for v in found.beaten), ""))
    rows.append(("on the front of both", *(f"{n:,}" for n in found.together), f"{found.shared} shared"))
    text = f"A: {a}\nB: {b}\n\n" + table(rows, head=(f"claim: {found.claim}", "A", "B", ""))
    if found.networks[0] != found.networks[1]:
        text += f"\nnote: not the same networks: {', '.join(found.networks[0])} against {', '.join(found.networks[1])}"
    emit(common, found.to_dict() | {"a": str(a), "b": str(b)}, text)


def _look(schema: bool, common: Common) -> None:
    """Print what a space may hold, or the presets."""
    from .cli_console import table
    from .explore_space import Space, preset_spaces
    from .explore_space import schema as schema_of

    if schema:
        print(json.dumps(schema_of(), indent=1, sort_keys=True))
        return
    found = {name: Space.load(name) for name in preset_spaces()}
    rows = [(name, f"{s.size:,} designs", s.title) for name, s in found.items()]
    emit(common, {n: {"title": s.title, "size": s.size} for n, s in found.items()}, table(rows, indent=""))


def _weights(words: tuple[str, ...]) -> dict[str, float]:
    out = {}
    for word in words:
        name, sign, text = word.rpartition("=")
        try:
            out[name] = float(text)
        except ValueError:
            sign = ""
        if not sign or not name:
            raise ModelError(f"--weight {word}: want NAME=NUMBER, as --weight resnet18=2")
    return out


def _need_pyarrow() -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise ReportError("--parquet: pyarrow is not installed; pip install 'tilewright[data]'")


def _build(study: Study, folder: Path, pick: str, common: Common) -> dict[str, Any]:
    """The board package of one design of the study."""
    from .cli_build import build
    from .folder import write_whole

    design = _picked(study, pick)
    arch = design.arch.override({"name": f"{design.arch.name.rstrip('+')}-{design.design[:8]}"})
    machine = folder / "chosen.toml"
    write_whole(machine, arch.toml().encode())
    package = folder / "package"
    build(
        board=_board_of(study, design),
        arch=str(machine),
        output=package,
        common=replace(common, json=False, quiet=True),
    )
    return {
        "design": design.design,
        "design_hash": arch.design_hash,
        "machine": str(machine),
        "package": str(package),
    }


def _picked(study: Study, pick: str) -> Design:
    if pick == "balanced":
        return study.best()
    found = [d for d in study.feasible if d.design.startswith(pick)] if len(pick) >= 4 else []
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise ArchError(f"--pick {pick}: {len(found)} designs begin so; give more of the hash")
    return study.best(pick)


def _board_of(study: Study, design: Design) -> str:
    """Name or file of the design's board."""
    place = study.space
    fits = place.constraints.fits
    return str(
        design.choices.get("board") or place.board or (fits if isinstance(fits, str) else "") or "kv260"
    )


@contextmanager
def _watched(common: Common) -> Iterator[tuple[Callable[[str], None], Callable[[Progress], None]]]:
    """Stages, and a live line: designs a second, hypervolume so far, the best of each objective."""
    from .explore_campaign import quiet

    if common.quiet or common.json or not sys.stderr.isatty():
        yield (lambda stage: None), quiet
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    from .reports.palette import short

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[said]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        tasks: list[Any] = []

        def stage(name: str) -> None:
            if tasks:
                bar.update(tasks[-1], total=1, completed=1)
            tasks.append(bar.add_task(name, total=None, said=""))

        def progress(now: Progress) -> None:
            if not tasks:
                stage(now.level)
            best = ", ".join(f"{name} {short(value)}" for name, value in now.best.items())
            said = f"{now.points_per_second:.1f}/s  hv {now.hypervolume:.3f}  best: {best}"
            if now.infeasible or now.failed:
                said += f"  ({now.infeasible} infeasible, {now.failed} failed)"
            bar.update(tasks[-1], total=now.total, completed=now.done, said=said)

        yield stage, progress
