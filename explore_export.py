"""A study for people and other programs: text, notebook, report, figures, CSV, Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .explore_design import objective_values
from .folder import write_whole
from .ir.errors import ReportError
from .reports.study import Agreement, Aim, Candidate, StudyFacts, grouped

if TYPE_CHECKING:
    from .explore_design import Design
    from .explore_study import Study

__all__ = ["facts_of", "notebook", "parquet", "report_files", "summary", "write_report"]

_COMPARED = {"latency_ms": "latency", "energy_mj": "energy a frame", "dram_bytes": "DRAM a frame"}


def facts_of(study: Study) -> StudyFacts:
    """The study as its report takes it."""
    labels = {axis: tuple(_label(v) for v in values) for axis, values in study.space.axes.items()}
    places = {axis: {repr(v): i for i, v in enumerate(values)} for axis, values in study.space.axes.items()}
    front, sample = {d.design for d in study.pareto}, set(study.sample)

    def values(d: Design, claim: str) -> tuple[float, ...]:
        if not (d.simulated if claim == "simulated" else d.estimate):
            return ()
        row = objective_values([d], study.objectives, claim)[0]
        return tuple(float(o.sign * v) for o, v in zip(study.objectives, row, strict=True))

    candidates = tuple(
        Candidate(
            d.number,
            d.design,
            tuple(places[a][repr(d.choices[a])] for a in study.space.axes),
            values(d, "estimate"),
            values(d, "simulated"),
            d.design in front,
            d.design in sample,
            d.notes,
        )
        for d in study.feasible
        if d.claim
    )
    return StudyFacts(
        title=study.space.title or "Designs",
        networks=study.networks,
        aims=tuple(Aim(o.name, o.title, o.unit, o.maximise, o.exact) for o in study.objectives),
        axes=labels,
        candidates=candidates,
        claim=study.claim,
        method=study.method,
        space_size=study.space.size,
        met=len(study.designs),
        evaluated=sum(bool(d.claim) for d in study.designs),
        simulated=len(study.simulated),
        complete=study.complete,
        margin=study.margin,
        seconds=study.seconds,
        hypervolume=study.hypervolume,
        infeasible=grouped((d.design, d.reasons) for d in study.infeasible),
        failed=grouped((d.design, d.reasons) for d in study.failed),
        agreements=tuple(_agreements(study)),
        sensitivity=study.sensitivity,
        picks=_picks(study),
        provenance=study.provenance,
        space_toml=study.space.toml(),
        notes=_notes(study),
    )


def _label(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _agreements(study: Study) -> Iterator[Agreement]:
    for column, title in _COMPARED.items():
        for group, only in (("all simulated", False), ("random sample", True)):
            a = study.agreement(column, sample_only=only)
            if a is not None:
                yield Agreement(
                    title, group, a.points, a.mean_error, a.worst_error, a.bias, a.rank_correlation
                )


def _picks(study: Study) -> tuple[tuple[str, str], ...]:
    if not study.pareto:
        return ()
    titles: dict[str, list[str]] = {study.best().design: ["balanced"]}
    for o in study.objectives:
        titles.setdefault(study.best(o.name).design, []).append(f"best {o.title}")
    return tuple((_started(", ".join(words)), design) for design, words in titles.items())


def _started(text: str) -> str:
    return text[:1].upper() + text[1:]


def _notes(study: Study) -> tuple[str, ...]:
    out = []
    if not study.complete:
        out.append(
            f"Not every design within {study.margin:.0%} of the front was simulated: their number reached the limit, so the front "
            "may miss some. A higher limit (--most-simulated) closes it."
        )
    if any(d.machine.get("cores", 1) > 1 for d in study.feasible):
        out.append(
            "Latency and energy are of one core that has the memory to itself. Frames a second of several cores are simulated with "
            "the cores: each on frames of its own, started together, on one DRAM. Where a design is only estimated, they are cores "
            "times one, at most what the DRAM's peak could feed."
        )
    adapted = sum(bool(d.notes) for d in study.feasible)
    if adapted:
        out.append(
            f"{adapted:,} designs have a memory or drain of the nearest legal size, not of the size on the axis; designs.csv "
            "says which."
        )
    if "sqnr_db" in (o.column for o in study.objectives):
        out.append(
            "SQNR is of the last layer, int8 against the same network in float; it says what the numbers cost, and compares no "
            "two networks."
        )
    return tuple(out)


# -- text ----------------------------------------------------------------------------------------------------------------
def summary(study: Study, most: int = 12) -> str:
    """The study as text for a terminal."""
    from .cli_console import table
    from .reports.study_page import sentence, shown

    facts = facts_of(study)
    lines = [sentence(facts)]
    if facts.front:
        axes = [a for a in facts.axes if len(facts.axes[a]) > 1]
        names = list(facts.axes)
        rows = [
            (
                c.design[:8],
                *(shown(a, v) for a, v in zip(facts.aims, facts.values(c), strict=True)),
                ", ".join(f"{a} {facts.axes[a][c.choices[names.index(a)]]}" for a in axes),
            )
            for c in facts.front[:most]
        ]
        head = ("design", *(a.title for a in facts.aims), f"choices  [{facts.claim}]")
        lines += ["", table(rows, head=head)]
        if len(facts.front) > most:
            lines.append(f"  … {len(facts.front) - most} more")
    lines.append("")
    lines.append(
        f"{facts.evaluated:,} evaluated, {facts.simulated:,} simulated, {len(study.infeasible):,} infeasible, "
        f"{len(study.failed):,} failed; {facts.seconds:,.1f} s; hypervolume {facts.hypervolume:.3f}"
    )
    found = study.agreement(sample_only=True) or study.agreement()
    if found is not None:
        rho = f", rank correlation {found.rank_correlation:.4f}" if found.rank_correlation is not None else ""
        lines.append(
            f"estimated latency is {found.mean_error:.1%} off on average, {found.worst_error:.1%} at most{rho} "
            f"({found.points} designs)"
        )
    for group in facts.infeasible[:3]:
        lines.append(f"  {group.count:,} infeasible: {group.reason}")
    for group in facts.failed[:3]:
        lines.append(f"  {group.count:,} failed: {group.example}")
    lines += [f"note: {n}" for n in facts.notes]
    return "\n".join(lines)


def notebook(study: Study) -> str:
    """The front as an HTML table."""
    from .reports.study_page import sentence, shown

    facts = facts_of(study)
    names = [a for a in facts.axes if len(facts.axes[a]) > 1]
    order = list(facts.axes)
    head = "".join(f"<th>{escape(t)}</th>" for t in ("design", *(a.label for a in facts.aims), *names))
    body = "".join(
        "<tr>"
        + f"<td><code>{c.design[:8]}</code></td>"
        + "".join(f"<td>{escape(shown(a, v))}</td>" for a, v in zip(facts.aims, facts.values(c), strict=True))
        + "".join(f"<td>{escape(facts.axes[n][c.choices[order.index(n)]])}</td>" for n in names)
        + "</tr>"
        for c in facts.front[:30]
    )
    caption = f"{sentence(facts)} Claim: {facts.claim}."
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


# -- files ---------------------------------------------------------------------------------------------------------------
def parquet(columns: tuple[str, ...], rows: list[tuple[Any, ...]], *, facts: str) -> bytes:
    """A Parquet file; the study's JSON stands in its metadata.

    Raises
    ------
    ReportError
        pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ReportError(
            "Parquet needs pyarrow, which is not installed: pip install 'tilewright[data]', or take designs.csv"
        ) from None
    data = {}
    for i, name in enumerate(columns):
        values = [row[i] for row in rows]
        kinds = {type(v) for v in values if v is not None}
        mixed = len(kinds) > 1 and not kinds <= {int, float}
        data[name] = [None if v is None else str(v) for v in values] if mixed else _numbers(values, kinds)
    table = pa.table(data).replace_schema_metadata({"tilewright.study": facts})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _numbers(values: list[Any], kinds: set[type]) -> list[Any]:
    return [None if v is None else float(v) for v in values] if float in kinds else values


def report_files(study: Study, *, figures: bool = True) -> dict[str, bytes]:
    """Every file of a report, by name."""
    from .reports.study_figures import STUDY_FIGURES, draw_study
    from .reports.study_page import study_page

    facts = facts_of(study)
    out = {
        "study.json": study.to_json().encode(),
        "designs.csv": study.to_csv().encode(),
        "space.toml": study.space.toml().encode(),
        "report.html": study_page(facts).encode(),
    }
    if figures:
        for name in STUDY_FIGURES:
            out |= {f"{name}.{kind}": data for kind, data in draw_study(name, facts).items()}
    return out


def write_report(study: Study, folder: Path, *, figures: bool = True) -> tuple[str, ...]:
    """Write the report's files into a folder, each whole or not at all; their names."""
    files = report_files(study, figures=figures)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(
            f"{folder}: cannot be written ({error.strerror}); give another folder with -o"
        ) from None
    for name, data in files.items():
        write_whole(folder / name, data)
    return tuple(files)
