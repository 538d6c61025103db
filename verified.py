"""A compiled network on the verilated core: each program run, every layer's bytes and every instruction's cycles compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import Compiled, Feeds
from .hwsim.dram import parse
from .ir import reference
from .ir.errors import RtlError
from .ir.graph import Graph
from .ir.layout import pack_map
from .rtl.agreement import Agreement, LayerAgreement, agree, agree_all
from .rtl.cosim import CosimCore
from .scheduler import Options, Plan, saving_all, schedule
from .segments import counted, silent

__all__ = ["Verified", "part_of", "verify_rtl"]

SCHEMA = "tilewright.verify/1"
_PATTERN = 0xA5
"""What the maps region holds where there is no input: a map that is not written shows."""

Map = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Verified:
    """All that was compared.

    Parameters
    ----------
    model, arch, mac, dram : str
    runs : tuple of Agreement
        One for each program, and one for its twin that saves every layer's map.
    """

    model: str
    arch: str
    mac: str
    dram: str
    runs: tuple[Agreement, ...]

    @property
    def exact(self) -> bool:
        """No byte and no cycle differs."""
        return all(run.exact for run in self.runs)

    @property
    def bytes_compared(self) -> int:
        return sum(run.bytes_compared for run in self.runs)

    @property
    def bytes_differing(self) -> int:
        return sum(run.bytes_differing for run in self.runs)

    @property
    def cycles_rtl(self) -> int:
        return sum(run.cycles_rtl for run in self.runs)

    @property
    def cycles_simulated(self) -> int:
        return sum(run.cycles_simulated for run in self.runs)

    @property
    def instructions(self) -> int:
        return sum(run.instructions for run in self.runs)

    @property
    def instructions_differing(self) -> int:
        return sum(run.instructions_differing for run in self.runs)

    @property
    def layers(self) -> tuple[LayerAgreement, ...]:
        """Layers in order, what all runs say of each taken together."""
        out: dict[str, LayerAgreement] = {}
        for layer in (layer for run in self.runs for layer in run.layers):
            old = out.get(layer.name)
            out[layer.name] = layer if old is None else _together(old, layer)
        return tuple(out.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        totals = ("exact", "bytes_compared", "bytes_differing", "cycles_rtl", "cycles_simulated")
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in ("model", "arch", "mac", "dram", *totals)},
            "instructions": self.instructions,
            "instructions_differing": self.instructions_differing,
            "layers": [asdict(layer) for layer in self.layers],
            "runs": [run.to_dict() for run in self.runs],
        }


def _together(a: LayerAgreement, b: LayerAgreement) -> LayerAgreement:
    numbers = (
        *("bytes_compared", "bytes_differing", "instructions"),
        *("instructions_differing", "cycles_rtl", "cycles_simulated"),
    )
    return LayerAgreement(a.name, a.op, **{n: getattr(a, n) + getattr(b, n) for n in numbers})


def verify_rtl(
    compiled: Compiled,
    feeds: Feeds | None = None,
    *,
    layers: Sequence[str] = (),
    mac: str = "plain",
    every: bool = True,
    wave: Path | None = None,
    wave_cycles: tuple[int, int] = (0, 1 << 62),
    on_stage: Callable[[str], None] = silent,
) -> Verified:
    """Run a compiled network on the verilated core and compare with emulator and simulator.

    Parameters
    ----------
    feeds : dict of input name to array, optional
        Default: seeded noise.
    layers : names of layers, with ``*``, or ``FIRST..LAST``
        Only these, as a program of their own that saves every map, on the inputs that they have in the network.
    mac : str
        MAC style of the core.
    every : bool
        Also run the twin that saves every layer's map.
    wave : Path, optional
        Write a wave file (``.vcd`` or ``.fst``) of the cycles `wave_cycles` of every run.

    Raises
    ------
    RtlError
        No such layer; or the core cannot be simulated here.
    """
    runs: list[Agreement] = []
    chosen = compiled.noise(compiled.seed) if feeds is None else dict(feeds)
    memory = parse(compiled.dram, compiled.arch.clock_mhz)
    wanted = _wanted(compiled, layers)
    with CosimCore(compiled.arch, mac, wave=wave, wave_cycles=wave_cycles, on_stage=on_stage) as core:

        def one(plan: Plan, values: Mapping[str, Map], name: str, stage: str) -> None:
            on_stage(f"{stage} on the core")
            image = _image(plan, values)
            runs.append(agree(core, plan, image, memory, name=name))
            if compiled.arch.cores > 1:
                on_stage(f"{stage} on all {compiled.arch.cores} cores at once")
                runs.extend(agree_all(core, plan, image, memory, name=name))

        def execute(graph: Graph, inputs: Mapping[str, Map]) -> dict[str, Map]:
            values: dict[str, Map] = dict(inputs)
            plan = compiled.plan_of(graph)
            graph = plan.graph
            outputs = reference.run(graph, dict(inputs), values.__setitem__)
            index = compiled.plans.index(plan)
            which = counted(index, len(compiled.plans))
            if layers:
                names = [op.name for op in graph.ops if op.name in wanted]
                if names:
                    part = part_of(graph, names)
                    sub = schedule(part, compiled.arch, options=Options(save_all=True))
                    one(sub, {n: values[n] for n in part.inputs}, part.name, f"{len(names)} layers{which}")
                return outputs
            one(plan, inputs, graph.name, f"the program{which}")
            if every:
                one(saving_all(plan), inputs, f"{graph.name}, every map saved", f"every layer{which}")
            return outputs

        compiled.run(chosen, execute)
    return Verified(compiled.model.name, compiled.arch.name, mac, compiled.dram, tuple(runs))


def _image(plan: Plan, values: Mapping[str, Map]) -> NDArray[np.uint8]:
    """The maps region with the inputs in place."""
    maps = np.full(plan.program.maps_bytes, _PATTERN, np.uint8)
    for name in plan.graph.inputs:
        data = pack_map(values[name], plan.arch.lanes)
        maps[plan.places[name].offset :][: len(data)] = data
    return maps


def _wanted(compiled: Compiled, words: Sequence[str]) -> set[str]:
    """Names of layers that the words mean."""
    names = [op.name for plan in compiled.plans for op in plan.graph.ops]
    found: set[str] = set()
    for word in words:
        first, dots, last = word.partition("..")
        if dots and first in names and last in names and names.index(first) <= names.index(last):
            found.update(names[names.index(first) : names.index(last) + 1])
            continue
        mine = {n for n in names if n == word or fnmatchcase(n, word)}
        if not mine:
            from difflib import get_close_matches

            near = get_close_matches(word, names, 3, 0.3)
            hint = f"did you mean {', '.join(near)}? " if near else ""
            raise RtlError(
                f"--layers {word}: no such layer; {hint}Want a name, a pattern with *, or FIRST..LAST in the order "
                f"of the network's {len(names)} layers",
                layer=word,
            )
        found |= mine
    return found


def part_of(graph: Graph, names: Sequence[str]) -> Graph:
    """The layers of these names as a graph of their own.

    Its inputs are what they read of others; its outputs what others, or the graph's reader, read of them.
    """
    ops = tuple(op for op in graph.ops if op.name in set(names))
    made = {op.output for op in ops}
    read = dict.fromkeys(t for op in ops for t in op.inputs)
    outside = {t for op in graph.ops if op not in ops for t in op.inputs} | set(graph.outputs)
    inner = {t for t in made if t in read}
    return Graph(
        name=f"{graph.name}: {ops[0].name}" + (f" .. {ops[-1].name}" if len(ops) > 1 else ""),
        tensors={t: graph.tensors[t] for t in graph.tensors if t in made or t in read},
        ops=ops,
        inputs=tuple(t for t in read if t not in made),
        outputs=tuple(op.output for op in ops if op.output in outside or op.output not in inner),
        frames=graph.frames,
    )
