"""Design-space exploration: networks and a space in, a study with its Pareto front out.

>>> import tilewright as tw
>>> study = tw.explore("zoo:tiny", {"arch": {"base": "b512"}, "space": {"conv.oc": [8, 16]}}, jobs=0)
>>> [d.choices for d in study.pareto]
[{'conv.oc': 16}, {'conv.oc': 8}]
>>> study.best("dsp").choices
{'conv.oc': 8}
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .explore_campaign import Campaign, Progress, quiet
from .explore_design import designs_of
from .explore_evaluate import Level
from .explore_networks import Feed, Networks
from .explore_objectives import Objective, named
from .explore_run import Crew, cluster_executor, default_jobs
from .explore_search import chosen_method, search
from .explore_space import Space
from .explore_store import FILE, SCHEMA, Store
from .explore_study import Study
from .explore_truth import Confirmation, confirm
from .ir.errors import ArchError, ModelError, ReportError
from .segments import silent

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["DEFAULT_OBJECTIVES", "Levels", "Study", "explore", "open_study"]

Levels = Literal["both", "estimate", "simulated"]
DEFAULT_OBJECTIVES = ("latency", "energy", "dsp")


def explore(
    models: Any = (),
    space: Space | Mapping[str, Any] | str | Path = "kv260",
    *,
    objectives: Sequence[str] = (),
    levels: Levels = "both",
    margin: float = 0.05,
    sample: int = 16,
    most_simulated: int = 128,
    weights: Mapping[str, float] | None = None,
    combine: Literal["weighted", "worst"] | None = None,
    calibration: Any = None,
    synthetic_calibration: bool | None = None,
    input_shape: Any = None,
    seed: int = 0,
    executor: Executor | None = None,
    jobs: int | None = None,
    cluster: str | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    on_stage: Callable[[str], None] = silent,
    on_progress: Callable[[Progress], None] = quiet,
) -> Study:
    """Evaluate the designs of a space on networks, simulate those that matter, and give the front.

    Parameters
    ----------
    models : network or sequence of networks
        As `compile` takes them: paths, ``zoo:NAME``, Network or Model. Empty: those that the space names.
    space : Space, mapping, preset name or path
        As docs/explore.md tells.
    objectives : sequence of str
        latency, fps, energy, edp, dram_bytes, dsp, bram, uram, lut, fps_per_dsp, sqnr. Default: those of the space,
        else latency, energy, dsp.
    levels : str
        both: estimate all, simulate the front, a margin around it and a random sample; estimate; simulated: all.
    margin : float
        Share of a value by which a design may miss the front and is simulated nevertheless.
    sample : int
        Random designs that are simulated to judge the estimate.
    most_simulated : int
        Designs simulated for the front at most; the study says where that was too few.
    weights : dict of network name to frames of it in the mix
    combine : str
        weighted or worst, see `Space`.
    synthetic_calibration : bool, optional
        Float networks without calibration data get seeded synthetic data, which cycles and energy do not depend on.
        Default: yes, but for networks in files not where SQNR is asked for.
    executor : Executor, optional
        Any `concurrent.futures.Executor`; its workers need this package.
    jobs : int, optional
        Processes of the own pool (default: one a processor); 0: work in this process.
    cluster : str, optional
        Address of a dask scheduler, ``tcp://HOST:PORT``.
    output : path, optional
        Folder of the study: every finished design is there at once. Without it, rows live in memory.
    resume : bool
        Go on with the study in `output`.

    Raises
    ------
    TilewrightError
        A space, network or folder that cannot be used; nothing was evaluated then.
    """
    begun = time.perf_counter()
    place = _space(space)
    aims = named([*objectives] or [*place.objectives] or DEFAULT_OBJECTIVES)
    _check_numbers(margin, sample, most_simulated, levels, executor, jobs, cluster)
    wanted = _models(models) or list(place.models)
    folder = Path(output) if output is not None else None
    sqnr = any(o.name == "sqnr" for o in aims) or any("sqnr_db" in e.names for e in place.requirements)
    if synthetic_calibration is None:
        built_in = all(str(m).startswith("zoo:") for m in (*wanted, *place.axes.get("model.variant", ())))
        synthetic_calibration = built_in or not sqnr
    feed = Feed(calibration, synthetic_calibration and calibration is None, input_shape, seed)
    networks = Networks(wanted, place, feed, sqnr=sqnr, on_stage=on_stage)
    mix = _weights(networks.names, {**place.weights, **(weights or {})})
    how = combine or place.combine
    facts = _facts(place, aims, wanted, mix, how, levels, seed, feed)
    with ExitStack() as stack:
        store = _opened(folder, facts, resume)
        stack.callback(store.close)
        if cluster is not None:
            executor, disconnect = cluster_executor(cluster)
            stack.callback(disconnect)
        crew = Crew(jobs=default_jobs() if jobs is None else jobs, executor=executor, blobs=networks.blobs)
        stack.push(lambda kind, *_: crew.close(at_once=kind is not None))
        campaign = Campaign(
            place,
            aims,
            networks,
            store,
            crew,
            weights=mix,
            combine=how,
            versions=facts["versions"],
            seed=seed,
            on_progress=on_progress,
        )
        first: Level = "simulated" if levels == "simulated" else "estimate"
        on_stage("estimate" if first == "estimate" else "simulate")
        method = search(campaign, first, seed=seed, folder=folder)
        found = Confirmation(True, ())
        if levels == "both":
            on_stage("simulate the front and its margin")
            found = confirm(campaign, margin=margin, sample=sample, most=most_simulated, seed=seed)
        met = [campaign.rows[k] for k in campaign.points]
        seconds = time.perf_counter() - begun
        told = {
            "levels": levels,
            "margin": margin,
            "sample": list(found.sample),
            "complete": found.complete,
            "seconds": seconds,
            "objectives": [o.name for o in aims],
            "method": method,
        }
        store.tell({"run": told})
        return Study(
            space=place,
            objectives=aims,
            designs=designs_of(met, place, mix, how),
            networks=networks.names,
            claim="estimate" if levels == "estimate" else "simulated",
            sample=found.sample,
            complete=found.complete,
            margin=margin if levels == "both" else 0.0,
            method=method,
            seconds=seconds,
            seed=seed,
            folder=folder,
            provenance=_provenance(facts),
        )


def open_study(folder: str | Path) -> Study:
    """A study that `explore` finished, from its folder.

    Raises
    ------
    ReportError
        There is none, or it was not finished.
    """
    path = Path(folder)
    if not (path / FILE).is_file():
        raise ReportError(f"{path}: holds no study ({FILE}); `tilewright explore … -o {path}` makes one")
    store = Store(path)
    try:
        facts, rows = store.facts(), store.rows()
    finally:
        store.close()
    if facts.get("schema") != SCHEMA:
        raise ReportError(
            f"{path}: schema is {facts.get('schema')!r}, this version reads {SCHEMA!r}; explore again"
        )
    run = facts.get("run")
    if run is None:
        raise ReportError(f"{path}: the study was not finished ({len(rows):,} designs); go on with --resume")
    place = Space.parse(facts["space"], where=str(path / FILE))
    return Study(
        space=place,
        objectives=named(run["objectives"]),
        designs=designs_of(rows.values(), place, facts["weights"], facts["combine"]),
        networks=tuple(facts["weights"]),
        claim="estimate" if run["levels"] == "estimate" else "simulated",
        sample=tuple(run["sample"]),
        complete=run["complete"],
        margin=run["margin"] if run["levels"] == "both" else 0.0,
        method=run["method"],
        seconds=run["seconds"],
        seed=facts["seed"],
        folder=path,
        provenance=_provenance(facts),
    )


def _space(space: Space | Mapping[str, Any] | str | Path) -> Space:
    if isinstance(space, Space):
        return space
    if isinstance(space, Mapping):
        return Space.build(dict(space))
    return Space.load(space)


def _models(models: Any) -> list[Any]:
    return list(models) if isinstance(models, list | tuple) else [models]


def _check_numbers(
    margin: float,
    sample: int,
    most: int,
    levels: str,
    executor: Any,
    jobs: int | None,
    cluster: str | None,
) -> None:
    if not 0 <= margin < 1:
        raise ArchError(f"margin {margin} is outside [0, 1): it is a share, as 0.05")
    if sample < 0 or most < 1:
        raise ArchError(f"sample {sample}, most_simulated {most}: want 0 or more, and 1 or more")
    if levels not in {"both", "estimate", "simulated"}:
        raise ArchError(f"levels {levels!r}: want both, estimate or simulated")
    if sum(x is not None for x in (executor, jobs, cluster)) > 1:
        raise ArchError("executor, jobs and cluster: give one of them; each says who works")


def _weights(names: Sequence[str], given: Mapping[str, float]) -> dict[str, float]:
    strange = [n for n in given if n not in names]
    if strange:
        raise ModelError(f"weights: no network is called {strange[0]!r}; there are {', '.join(names)}")
    bad = [n for n, w in given.items() if not w > 0]
    if bad:
        raise ModelError(f"weights, {bad[0]}: {given[bad[0]]} is not above 0; leave the network out instead")
    return {n: float(given.get(n, 1.0)) for n in names}


def _facts(
    space: Space,
    objectives: Sequence[Objective],
    models: Sequence[Any],
    weights: Mapping[str, float],
    combine: str,
    levels: str,
    seed: int,
    feed: Feed,
) -> dict[str, Any]:
    """What two runs must share to be one study."""
    from importlib.metadata import version

    from . import __version__

    steers = chosen_method(space) == "nsga2"
    return {
        "schema": SCHEMA,
        "space": space.toml(),
        "models": [_identity(m) for m in (*models, *space.axes.get("model.variant", ()))],
        "feed": _identity(feed.calibration)
        if feed.calibration is not None
        else "synthetic, where the network is float",
        "shape": str(feed.input_shape or ""),
        "weights": dict(weights),
        "combine": combine,
        "seed": seed,
        "steering": [[o.name for o in objectives], levels] if steers else [],
        "versions": {"tilewright": __version__, **{n: version(n) for n in ("numpy", "numba")}},
    }


def _identity(model: Any) -> str:
    """Name and content of an input."""
    if isinstance(model, str | Path) and not str(model).startswith("zoo:"):
        path = Path(model)
        if path.is_dir():
            names = sorted(p for p in path.iterdir() if p.is_file())
            each = b"".join(hashlib.sha256(p.read_bytes()).digest() for p in names)
            return f"{path.name} {hashlib.sha256(each).hexdigest()}"
        if not path.is_file():
            raise ModelError(f"{path}: no such file; networks are ONNX files or zoo:NAME")
        return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    if isinstance(model, str):
        return model
    if hasattr(model, "SerializeToString"):
        return f"onnx {hashlib.sha256(model.SerializeToString()).hexdigest()}"
    from .archive import pack

    graphs = getattr(model, "graphs", None)
    digest = pack(graphs) if graphs is not None else repr(getattr(model, "name", model)).encode()
    return f"{getattr(model, 'name', 'value')} {hashlib.sha256(digest).hexdigest()}"


def _opened(folder: Path | None, facts: Mapping[str, Any], resume: bool) -> Store:
    """The study's store, new or the one to go on with."""
    if folder is None:
        if resume:
            raise ReportError("--resume: say which study with -o DIR")
        store = Store()
        store.tell(facts)
        return store
    there = (folder / FILE).is_file()
    if folder.exists() and not folder.is_dir():
        raise ReportError(f"{folder}: is a file, want a folder; give another one with -o")
    if not there and folder.exists() and any(p.name != ".lock" for p in folder.iterdir()):
        raise ReportError(
            f"{folder}: holds files but no study; give another folder with -o"
            + ("" if not resume else ", or leave --resume out to begin one there")
        )
    store = Store(folder)
    try:
        before = store.facts()
        if before and not resume:
            raise ReportError(
                f"{folder}: holds a study of {store.count():,} designs; --resume goes on with it, or give another folder with -o"
            )
        for key, value in facts.items():
            if before and json.dumps(before.get(key), sort_keys=True) != json.dumps(value, sort_keys=True):
                raise ReportError(
                    f"{folder}: is another study: its {key} is {_cut(before.get(key))}, now it is {_cut(value)}; give another "
                    "folder with -o"
                )
        store.tell(facts)
    except BaseException:
        store.close()
        raise
    return store


def _cut(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else f"{text[:119]}…"


def _provenance(facts: Mapping[str, Any]) -> dict[str, str]:
    return {
        **facts["versions"],
        "networks": "; ".join(facts["models"]),
        "calibration": facts["feed"],
        "weights": ", ".join(f"{n} {w:g}" for n, w in facts["weights"].items()),
        "combined": facts["combine"],
        "seed": str(facts["seed"]),
        "space": hashlib.sha256(facts["space"].encode()).hexdigest(),
    }
