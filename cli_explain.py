"""The verb of reasons: why a schedule is as it is, what was next, and what more of each resource gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .cli_console import emit, staged, table
from .cli_options import COMMON, Common

if TYPE_CHECKING:
    from .explained import Cost, Explanation, Gain, GroupExplanation, Rival
    from .explained_groups import GroupFacts

__all__ = ["explain", "network_text"]


def explain(
    folder: Annotated[Path, Parameter(help="Folder that `compile` wrote.")],
    layer: Annotated[
        str | None, Parameter(help="Layer, or group, as tiling.txt names it.  [default: the network]")
    ] = None,
    *,
    relax: Annotated[
        bool,
        Parameter(help="Schedule and simulate on machines that are one step larger in one resource."),
    ] = True,
    common: Common = COMMON,
) -> None:
    """Why this tile and this fusion, what was next, what binds, and what more of each resource gives."""
    from .compiled import Compiled
    from .explained import explain as explained

    with staged(common) as stage:
        stage("open the folder")
        found = explained(Compiled.load(folder), layer, relax=relax, on_stage=stage)
    emit(common, found.to_dict(), lambda: "\n".join(_text(found, folder)))


def _text(e: Explanation, folder: Path) -> Iterator[str]:
    yield (
        f"{e.network} on {e.arch}, {e.board}, {e.dram}: {e.cycles:,} cycles, {_kib(e.dram_bytes)} KiB of DRAM (simulated; "
        f"bound {e.bound_cycles:,} cycles), scheduled for {e.objective}"
    )
    if e.edited:
        yield (
            "The tiling is not the one that the scheduler makes now (edited, or made with other options or by another version): "
            f"its own takes {e.own.cycles:,} cycles, {_kib(e.own.dram_bytes)} KiB, and gains are compared with that."
        )
    yield ""
    if e.group is None:
        yield from network_text(e)
    else:
        yield from _group(e, e.group)
    if e.gains:
        yield ""
        yield from _gains(e)
    yield ""
    if e.group is None:
        yield f"`tilewright explain {folder} LAYER` says why a layer's group is as it is."
    else:
        name = f"tiling-{_facts(e).segment + 1}.txt" if _facts(e).segment else "tiling.txt"
        yield f"Edit the text in {folder / name} and `tilewright simulate {folder}`: what it says is what runs."


# -- the network -------------------------------------------------------------------------------------------------------
def network_text(e: Explanation) -> Iterator[str]:
    """The groups in a table: cycles count from the end of the group before, so they add up."""
    head = (
        "#",
        "layers",
        "group",
        "strips",
        "maps come from, go to",
        "words",
        "KiB",
        "cycles",
        "busiest",
        "binds",
    )
    rows = [
        (
            str(g.number),
            str(len(g.layers)),
            g.name,
            _strips(g),
            _homes(g),
            f"{(g.map_words + g.held_words) / e.map_words:.0%}",
            _kib(g.span.dram_bytes),
            f"{g.span.cycles:,}",
            f"{g.engine.upper()} {g.busy[g.engine]:,}" if g.engine else "",
            g.binds,
        )
        for g in e.groups
    ]
    yield table(rows, head=head)
    yield (
        f"  Cycles are simulated, each group's from the end of the one before (they overlap, so an engine may work longer); {_kib(e.fetch_bytes)} KiB of instructions "
        "are in no group; `words`: share of the map words that hold something."
    )


def _strips(g: GroupFacts) -> str:
    text = "1" if g.strips == 1 else f"{g.strips} x {g.rows} row{'s' * (g.rows > 1)}"
    return text + (", by chunks" if g.order == "chunks" else "")


def _homes(g: GroupFacts) -> str:
    came = [word for word, maps in (("DRAM", g.loads), ("chip", g.reads)) if maps]
    went = [word for word, maps in (("DRAM", g.saves), ("chip", g.keeps)) if maps]
    return f"{'+'.join(came) or '-'} -> {'+'.join(went) or '-'}"


# -- a group -----------------------------------------------------------------------------------------------------------
def _facts(e: Explanation) -> GroupFacts:
    assert e.group is not None
    number = e.group.number
    return next(g for g in e.groups if g.number == number)


def _group(e: Explanation, x: GroupExplanation) -> Iterator[str]:
    g = _facts(e)
    yield f"Group {g.number} of {len(e.groups)}: {g.name}"
    yield ""
    yield x.tiling.rstrip()
    yield ""
    rows = [
        ("chosen", f"{_strips(g)}{', weights ' + g.weights if g.weights else ''}; {_carries(g)}"),
        (
            "simulated",
            f"{g.span.cycles:,} cycles from the end of the group before, {g.span.dram_bytes:,} bytes of DRAM "
            f"(ifmap {g.dram_bytes['ifmap']:,}, weights {g.dram_bytes['weights']:,}, ofmap {g.dram_bytes['ofmap']:,})",
        ),
        (
            "estimate",
            f"{x.estimate.cycles:,} cycles, {x.estimate.dram_bytes:,} bytes of DRAM: what the scheduler chose by"
            if x.estimate
            else "none: the text is not one of the scheduler's candidates",
        ),
        (
            "map words",
            f"{g.map_words:,} of {e.map_words:,}, and {g.held_words:,} with maps for later groups",
        ),
        ("engines", ", ".join(f"{n.upper()} {c:,}" for n, c in g.busy.items()) + " cycles at work"),
        ("binds", f"{g.binds}: {g.because}"),
    ]
    yield table(rows)
    if x.rivals:
        yield ""
        yield from _rivals(e, x)


def _carries(g: GroupFacts) -> str:
    pairs = (
        ("from DRAM", g.loads),
        ("found on chip", g.reads),
        ("left on chip", g.keeps),
        ("to DRAM", g.saves),
    )
    return "; ".join(f"{what} {', '.join('%' + t for t in maps)}" for what, maps in pairs if maps)


def _rivals(e: Explanation, x: GroupExplanation) -> Iterator[str]:
    """What else it could have been: the search's estimate, and the simulated network."""
    yield f"Everything else as it is, this group otherwise; the first is the runner-up for {e.objective}:"
    head = (
        "",
        "estimate: cycles",
        "DRAM bytes",
        "map words",
        "simulated: network cycles",
        "DRAM bytes",
        "these layers",
    )
    rows = [_rival(e, r) for r in x.rivals if r.cost is not None]
    if rows:
        yield table(rows, head=head)
    for r in x.rivals:
        if r.cost is None:
            yield f"  {r.name}: no, {r.refusal}"
    quicker = [r for r in x.rivals if r.cost is not None and r.cost.cycles < e.cycles]
    for r in quicker[:1]:
        assert r.cost is not None
        yield (
            f"  {r.name}: {e.cycles - r.cost.cycles:,} cycles quicker when simulated, with {r.cost.dram_bytes - e.dram_bytes:+,} bytes "
            "of DRAM; the scheduler chooses by its estimate, before anything is placed."
        )


def _rival(e: Explanation, r: Rival) -> tuple[str, ...]:
    assert r.cost is not None
    estimate = ("-", "-", "-")
    if r.before is not None and r.estimate is not None:
        estimate = (
            f"{r.before.cycles:,} -> {r.estimate.cycles:,}",
            f"{r.before.dram_bytes:,} -> {r.estimate.dram_bytes:,}",
            f"{r.before.map_words:,} -> {r.estimate.map_words:,}",
        )
    return (r.name, *estimate, *_change(r.cost, e.cycles, e.dram_bytes), _part(r.cost))


# -- gains -------------------------------------------------------------------------------------------------------------
def _gains(e: Explanation) -> Iterator[str]:
    """What machines give that are one step larger."""
    yield (
        f"One step more of one resource, the network scheduled anew and simulated; before: {e.own.cycles:,} cycles, "
        f"{_kib(e.own.dram_bytes)} KiB:"
    )
    head = ("", "machine", "simulated: network cycles", "DRAM bytes", *(("this group",) if e.group else ()))
    done = [g for g in e.gains if g.cost is not None]
    yield table([_gain(e, g) for g in done], head=head)
    for g in e.gains:
        if g.cost is None:
            yield f"  {g.resource}: cannot be built. {g.note}"
        elif g.note:
            yield f"  {g.resource}: {g.note}"


def _gain(e: Explanation, g: Gain) -> tuple[str, ...]:
    assert g.cost is not None
    last = (_part(g.cost),) if e.group else ()
    return (g.resource, g.change, *_change(g.cost, e.own.cycles, e.own.dram_bytes), *last)


def _change(cost: Cost, cycles: int, dram_bytes: int) -> tuple[str, str]:
    return (
        f"{cost.cycles:,} ({(cost.cycles - cycles) / cycles:+.1%})",
        f"{cost.dram_bytes:,} ({(cost.dram_bytes - dram_bytes) / max(1, dram_bytes):+.1%})",
    )


def _part(cost: Cost) -> str:
    if cost.before is None or cost.after is None:
        return "other layers"
    return (
        f"{cost.before.cycles:,} -> {cost.after.cycles:,} cycles, "
        f"{cost.before.dram_bytes:,} -> {cost.after.dram_bytes:,} bytes"
    )


def _kib(count: int) -> str:
    return f"{count / 1024:,.0f}"
