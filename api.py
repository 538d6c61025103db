"""The public functions: a model in, programs, cycles, traffic and energy out.

>>> import tilewright as tw
>>> compiled = tw.compile("zoo:tiny", "b512", synthetic_calibration=True)
>>> result = compiled.simulate()
>>> result.total.bounds.bound_cycles <= result.total.estimate_cycles <= result.total.cycles
True
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compiled import Compiled, Source
from .ir import board as boards
from .ir.arch import Arch
from .ir.errors import ModelError
from .segments import plan_segments, silent

if TYPE_CHECKING:
    from .frontend import Calibration, Model, Network
    from .ir.requant import RoundingMode
    from .reports.result import Result
    from .scheduler import Objective, Options

__all__ = [
    "Board",
    "Prediction",
    "compile",
    "find",
    "load_int8",
    "machine_of",
    "predict",
    "report",
    "simulate",
]

PREDICTION_SCHEMA = "tilewright.prediction/1"
"""Raised whenever a key changes its meaning."""
ZOO = "zoo:"
"""A model's name may start with this: a network that `tilewright.zoo` builds in code."""


def Board(name: str) -> boards.Board:  # noqa: N802  (reads as the constructor it stands for)
    """The board of this name; ArchError lists the names.

    >>> Board("kv260").name
    'kv260'
    """
    return boards.Board.named(name)


def find(
    model: Any, *, input_shape: Mapping[str, Sequence[int]] | Sequence[int] | None = None, seed: int = 0
) -> tuple[Network, Source]:
    """Read a network and remember where it came from.

    Parameters
    ----------
    model : path, ``zoo:NAME``, bytes, onnx.ModelProto or Network
    input_shape : dict of input name to sizes, or sizes, optional
        Needed where the model leaves sizes open.
    seed : int
        Of the weights of a ``zoo:`` network.
    """
    from .frontend import load
    from .frontend.network import Network

    if isinstance(model, Network):
        return model, Source()
    shape: Any = input_shape
    if isinstance(input_shape, Mapping):
        shape = {name: tuple(sizes) for name, sizes in input_shape.items()}
    elif input_shape is not None:
        shape = tuple(input_shape)
    if isinstance(model, str) and model.startswith(ZOO):
        from .frontend import zoo

        network = load(
            zoo.build(model.removeprefix(ZOO), seed=seed), input_shape=shape, name=model.removeprefix(ZOO)
        )
        where, digest = model, ""
    else:
        network = load(model, input_shape=shape)
        path = Path(model).absolute() if isinstance(model, str | Path) else None
        where, digest = (str(path), hashlib.sha256(path.read_bytes()).hexdigest()) if path else ("", "")
    given = {p.name: p.shape for p in network.inputs} if input_shape is not None else {}
    return network, Source(where, digest, {n: tuple(int(d or 1) for d in s) for n, s in given.items()})


def load_int8(
    network: Network,
    *,
    arch: Arch | None = None,
    calibration: Any = None,
    synthetic_calibration: bool = False,
    mode: RoundingMode | None = None,
    seed: int = 0,
    samples: int = 8,
    **options: Any,
) -> Model:
    """The int8 network: as the model says it where it is quantised, else quantised on calibration data.

    Parameters
    ----------
    arch : Arch, optional
        Its first rounding mode is taken where `mode` is not given.
    calibration : Calibration or path, optional
        Path of a folder of images, a ``.npy`` or a ``.npz``.
    synthetic_calibration : bool
        Seeded synthetic data; the report says so.
    samples : int
        Of synthetic data.
    **options
        Of `frontend.quantize`: ranges, equalise, bias_correction.

    Raises
    ------
    ModelError
        A float network without calibration data; a rounding mode that `arch` does not have.
    """
    from .frontend import Calibration, quantize

    if calibration is not None and synthetic_calibration:
        raise ModelError(
            "both calibration data and synthetic calibration were asked for; leave one of them out"
        )
    if synthetic_calibration and not network.quantised:
        data: Calibration | None = Calibration.synthetic(network, seed=seed, samples=samples)
    elif calibration is None or isinstance(calibration, Calibration):
        data = calibration
    else:
        data = Calibration.from_path(calibration, network)
    modes: tuple[RoundingMode, ...] = arch.rounding if arch is not None else ("f32",)
    chosen = mode or modes[0]
    if arch is not None and chosen not in modes:
        raise ModelError(f"rounding mode {chosen}: {arch.name} has {', '.join(modes)}; choose one of them")
    return quantize(network, data, mode=chosen, seed=seed, **options)


def compile(
    model: Any,
    arch: Arch | str | Path | None = None,
    board: boards.Board | str = "kv260",
    *,
    dram: str | None = None,
    objective: Objective = "latency",
    calibration: Calibration | str | Path | None = None,
    synthetic_calibration: bool = False,
    input_shape: Mapping[str, Sequence[int]] | Sequence[int] | None = None,
    mode: RoundingMode | None = None,
    seed: int = 0,
    set: Mapping[str, Any] | None = None,
    options: Options | None = None,
    batch: int = 1,
    tries: int = 0,
    on_stage: Callable[[str], None] = silent,
) -> Compiled:
    """Quantise a network where it is float, and schedule it on a machine.

    Parameters
    ----------
    model : path, ``zoo:NAME``, bytes, onnx.ModelProto, Network or Model
    arch : Arch, preset name, or path of a TOML file, optional
        Default: the board's own core, the largest preset that fits it.
    board : Board or name
    dram : str, optional
        ``fixed:BYTES_PER_CYCLE[,LATENCY]`` or ``banked:PART``; default: the board's memory.
    objective : str
        latency, energy or edp.
    calibration : Calibration or path, optional
        Folder of images, ``.npy`` or ``.npz``; a quantised network needs none.
    synthetic_calibration : bool
        Calibrate on seeded synthetic data instead; the report says so.
    set : dict of field path to value, optional
        Fields of the machine to change, as ``{"conv.pixels": 4}``.
    options : scheduler.Options, optional
    batch : int
        Frames that a run of the program takes: weights are used for all of them, where the maps of all leave room.
    tries : int
        Programs to simulate in search of a better one than the first; each takes about as long as scheduling.
    on_stage : callable
        Told the name of each stage as it starts.

    Raises
    ------
    TilewrightError
        ModelError, ArchError or ScheduleError: where, what, both numbers, what would help.
    """
    from .frontend import Model

    chosen = board if isinstance(board, boards.Board) else boards.Board.load(board)
    machine = machine_of(chosen.default_arch if arch is None else arch, set or {})
    memory = dram or default_dram(chosen)
    _check_dram(memory, machine)
    if isinstance(model, Model):
        int8, source = model, Source()
    elif isinstance(model, str | Path) and str(model).endswith(".npz"):
        from .stored import load_model

        int8, source = load_model(Path(model)), Source(str(Path(model).absolute()))
    else:
        on_stage("read the network")
        network, source = find(model, input_shape=input_shape, seed=seed)
        on_stage("quantise")
        int8 = load_int8(
            network,
            arch=machine,
            calibration=calibration,
            synthetic_calibration=synthetic_calibration,
            mode=mode,
            seed=seed,
        )
    plans = plan_segments(
        int8,
        machine,
        dram=memory,
        objective=objective,
        options=options,
        batch=batch,
        tries=tries,
        on_stage=on_stage,
    )
    return Compiled(int8, machine, chosen, memory, plans, objective, seed, source, options, tries)


def machine_of(arch: Arch | str | Path, settings: Mapping[str, Any]) -> Arch:
    """A machine by value, preset name or file, with fields changed."""
    return (arch if isinstance(arch, Arch) else Arch.load(arch)).override(dict(settings))


def default_dram(board: boards.Board) -> str:
    """The memory on the board, with bank timing."""
    return f"banked:{board.dram}"


def _check_dram(text: str, arch: Arch) -> None:
    """Refuse a memory that cannot be read before any work starts."""
    from .hwsim.dram import parse

    parse(text, arch.clock_mhz)


def simulate(compiled: Compiled, *, dram: str | None = None) -> Result:
    """Cycles, traffic and energy of one frame; see `Compiled.simulate`."""
    return compiled.simulate(dram=dram)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The busiest engine of each segment if nothing ever waited; below what a simulation says, and quicker to have.

    Parameters
    ----------
    estimate_cycles, bound_cycles : int
        Of one run on one core: a frame, or a batch of `batch` frames.
    cores : int
        Of the design.
    dram_fps : float
        Frames a second whose bytes the memory could move at its peak.
    """

    network: str
    arch: str
    estimate_cycles: int
    bound_cycles: int
    clock_mhz: float
    macs: int
    macs_per_cycle: int
    claim: str = "estimate"
    batch: int = 1
    cores: int = 1
    dram_fps: float = 0.0

    @property
    def latency_ms(self) -> float:
        return self.estimate_cycles / self.clock_mhz / 1e3

    @property
    def fps(self) -> float:
        """Of one core."""
        return self.batch * 1e3 / self.latency_ms

    @property
    def cores_fps(self) -> float:
        """Of all cores: as many times one, at most what the memory's peak feeds; `Compiled.simulate` simulates it."""
        return self.fps if self.cores == 1 else max(self.fps, min(self.cores * self.fps, self.dram_fps))

    @property
    def utilization(self) -> float:
        """MACs over what the array alone could do in the same cycles."""
        return self.batch * self.macs / (self.estimate_cycles * self.macs_per_cycle)

    def to_json(self) -> str:
        """JSON text with a ``schema`` key and the derived numbers beside the fields."""
        derived = {name: getattr(self, name) for name in ("latency_ms", "fps", "cores_fps", "utilization")}
        return (
            json.dumps({"schema": PREDICTION_SCHEMA, **asdict(self), **derived}, indent=1, sort_keys=True)
            + "\n"
        )

    def _repr_html_(self) -> str:
        from html import escape

        cells = "".join(
            f"<tr><th>{name}</th><td>{escape(value)}</td></tr>"
            for name, value in (
                ("cycles", f"{self.estimate_cycles:,} ({self.claim}; bound {self.bound_cycles:,})"),
                ("latency", f"{self.latency_ms:.4g} ms at {self.clock_mhz:g} MHz"),
                ("utilisation", f"{self.utilization:.1%} of {self.macs_per_cycle} MACs a cycle"),
            )
        )
        return f"<table><caption>{escape(self.network)} on {escape(self.arch)}</caption>{cells}</table>"


def predict(
    model: Any, arch: Arch | str | Path | None = None, board: boards.Board | str = "kv260", **settings: Any
) -> Prediction:
    """Schedule and estimate, without simulating; takes what `compile` takes, or what it gave."""
    from .hwsim import bounds, timing
    from .hwsim.dram import parse

    c = model if isinstance(model, Compiled) else compile(model, arch, board, **settings)
    memory = parse(c.dram, c.arch.clock_mhz)
    moved = sum(
        int(timing.costs(p.program.fields, c.arch)["dram_bytes"].sum()) + p.program.fetch_bytes
        for p in c.plans
    )
    return Prediction(
        network=c.model.name,
        arch=c.arch.name,
        estimate_cycles=sum(timing.estimate(p.program, c.arch, memory) for p in c.plans),
        bound_cycles=sum(bounds.bounds(p.graph, c.arch, memory).bound_cycles for p in c.plans),
        clock_mhz=c.arch.clock_mhz,
        macs=c.model.macs,
        macs_per_cycle=c.arch.macs_per_cycle,
        batch=c.batch,
        cores=c.arch.cores,
        dram_fps=c.batch * memory.peak_bytes_per_cycle * c.arch.clock_mhz * 1e6 / moved,
    )


def report(result: Result, folder: str | Path) -> tuple[str, ...]:
    """Write summary, tables, figures, trace and ``report.html``; names of the files.

    A folder that holds something else is refused; one of ours is replaced.
    """
    from .folder import written_whole
    from .reports import write

    with written_whole(Path(folder)) as draft:
        return tuple(write(result, draft))
