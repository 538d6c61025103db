"""Lowering: the loops of a tiling become instructions.

Every statement of a strip becomes one instruction, or one for each part and output chunk of its layer. Addresses
in the map memory come from the tiling's rings; constants are placed by `memories`; waits by `ir.hazards`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ..ir.arch import Arch
from ..ir.errors import ProgramError
from ..ir.graph import Graph, Shape
from ..ir.hazards import assign_waits
from ..ir.isa import Opcode, Program, instruction
from ..ir.layout import blocks
from ..ir.tile import Group, Ring, Statement, TileProgram
from ..ir.verify import verify
from .array import array_instructions, depthwise_instructions
from .constants import Constants
from .layers import Layer, Part, make_layers
from .memories import Action, fill_memories
from .operands import Kept, Rows, Source, Task, padded_runs
from .spans import name_groups
from .strips import Strips, may_replace, plan_strips
from .transfers import load_instructions, save_instructions
from .vector import vector_instructions

__all__ = ["Place", "Plan", "lower"]

_ALIGN = 64
"""Maps in DRAM start at multiples of a DDR4 burst of a 64-bit channel (8 beats, JESD79-4)."""


@dataclass(frozen=True, slots=True)
class Place:
    """A map in the DRAM maps region: byte offset, and shape in the layout of `ir.layout`."""

    offset: int
    shape: Shape


@dataclass(frozen=True, eq=False)
class Plan:
    """A compiled graph.

    Parameters
    ----------
    graph, arch
    tiling : TileProgram
    program : Program
    places : dict of tensor name to Place
        Every map that reaches DRAM: graph inputs, outputs, spilled maps.
    layers : tuple of str
        The graph's operators, by the index in ``program.layer``.
    engines : tuple of str
        Engine of each: "conv", "dwc", "vec", "view", or "folded" into the drain of the layer before.
    """

    graph: Graph
    arch: Arch
    tiling: TileProgram
    program: Program
    places: dict[str, Place]
    layers: tuple[str, ...]
    engines: tuple[str, ...]


@dataclass(slots=True)
class _State:
    """What lowering has done so far: rings in force, places in DRAM, actions, the weights image."""

    rings: dict[str, Source] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    maps_bytes: int = 0


def lower(tiling: TileProgram, graph: Graph, arch: Arch, layers: tuple[Layer, ...] | None = None) -> Plan:
    """Compile a tiling to a program.

    Raises
    ------
    ProgramError
        The tiling is for another machine or graph, a ring is too small for its strips, or two live rings overlap.
    ScheduleError
        Constants do not fit on chip.
    """
    if tiling.design != arch.design_hash:
        raise ProgramError(
            f"the tiling is for design {tiling.design}, {arch.name} is {arch.design_hash}; compile it for this machine"
        )
    if layers is None:
        computed = {s.layer for g in tiling.groups for s in g.statements if s.layer}
        layers = make_layers(graph, arch, fold_tables=True)
        if not all(layer.name in computed for layer in layers) or len(computed) != len(layers):
            layers = make_layers(graph, arch, fold_tables=False)
    named = {layer.name: layer for layer in layers}
    done = [s.layer for g in tiling.groups for s in g.statements if s.layer]
    if sorted(done) != sorted(named):
        odd = sorted(set(done) ^ set(named)) or sorted(n for n in named if done.count(n) > 1)
        raise ProgramError(
            f"the tiling must compute every layer of {graph.name} once; {odd[0]!r} is missing, unknown or twice"
        )

    state = _State()
    constants = Constants()
    for tensor in graph.inputs:
        _give_place(state, graph, tensor, arch)
    _check_overlaps(tiling, named, graph, arch)
    position = {op.name: i for i, op in enumerate(graph.ops)}
    index = {layer.name: position[layer.op.name] for layer in layers}
    actions: list[Action] = []
    for group in tiling.groups:
        actions += _Walk(group, graph, arch, named, index, state, constants).actions()
    stream = fill_memories(actions, arch, tuple(position))
    rows = np.array([*(a.row for a in stream), instruction(Opcode.END)], np.int64)
    image = constants.image()
    name_groups(rows, arch, image)
    program = Program(
        assign_waits(rows, arch, image),
        image,
        state.maps_bytes,
        arch.design_hash,
        np.array([*(a.layer for a in stream), -1], np.int32),
        np.array([*(a.traffic for a in stream), 0], np.int8),
    )
    verify(program, arch)
    engine_of = {
        layer.op.name: "view" if layer.engine is None else layer.engine.name.lower() for layer in layers
    }
    engines = tuple(engine_of.get(op.name, "folded") for op in graph.ops)
    return Plan(graph, arch, tiling, program, state.places, tuple(position), engines)


def _padded_tiles(task: Task, part: Part) -> Iterator[tuple[Rows, Rows]]:
    """The task's rows and columns, in pieces that the padding fields of an instruction can say."""
    if part.step != (1, 1):
        yield task.rows, task.cols
        return
    win = part.window
    for rows in padded_runs(*task.rows, win.stride[0], win.pad[0], win.span[0]):
        for cols in padded_runs(*task.cols, win.stride[1], win.pad[1], win.span[1]):
            yield rows, cols


def _give_place(state: _State, graph: Graph, tensor: str, arch: Arch) -> Place:
    if tensor not in state.places:
        t = graph.tensors[tensor]
        state.places[tensor] = Place(state.maps_bytes, t.shape)
        state.maps_bytes += -(-t.bytes // _ALIGN) * _ALIGN
    return state.places[tensor]


def _check_overlaps(tiling: TileProgram, named: dict[str, Layer], graph: Graph, arch: Arch) -> None:
    """No two maps that are alive together may share words, but one that takes over those of a map as it is read last."""
    live: list[tuple[int, int, Ring, str]] = []
    for g, group in enumerate(tiling.groups):
        for s in group.statements:
            if s.ring is not None:
                live.append((g, _last_use(tiling, g, s.tensor), s.ring, s.tensor))
    for i, (a0, a1, a, name_a) in enumerate(live):
        for b0, b1, b, name_b in live[i + 1 :]:
            at_a, at_b = (r.group * arch.group_words + r.base for r in (a, b))
            together = a0 <= b1 and b0 <= a1
            if not together or at_a >= at_b + b.words or at_b >= at_a + a.words:
                continue
            if a == b and a1 == b0 and _takes_over(tiling.groups[b0], name_a, name_b, named, graph):
                continue
            raise ProgramError(
                f"%{name_a} (words {a.base}..{a.base + a.words - 1} from map group {a.group}) and %{name_b} (words {b.base}.."
                f"{b.base + b.words - 1} from map group {b.group}) are alive together; move one of them"
            )


def _takes_over(group: Group, source: str, tensor: str, named: dict[str, Layer], graph: Graph) -> bool:
    """Whether `tensor` may be written over `source`, which was whole on chip before the group."""
    layers = tuple(named[s.layer] for s in group.statements if s.layer)
    layer = next((layer for layer in layers if layer.output == tensor and source in layer.inputs), None)
    made = any(s.tensor == source and s.ring is not None for s in group.statements)
    same = graph.tensors[source].shape == graph.tensors[tensor].shape and group.order == "strips"
    if layer is None or made or not same or group.cols < group.width:
        return False
    return may_replace(layers, layer, source, _strips(group, layers, graph))


def _strips(group: Group, layers: tuple[Layer, ...], graph: Graph) -> Strips:
    """The row schedule that a group of a tiling asks for."""
    outputs = {s.tensor for s in group.statements if s.kind == "save"} | {
        s.tensor for s in group.statements if s.ring is not None and s.layer and s.ring.rows >= s.shape[0]
    }
    strips = plan_strips(layers, graph, outputs, group.rows)
    stage = {s.tensor: s.stage for s in group.statements if s.kind not in {"save", "view"}}
    return replace(strips, stage={**strips.stage, **stage})


def _last_use(tiling: TileProgram, first: int, tensor: str) -> int:
    """Last group that reads the ring that group `first` defines for the tensor."""
    last = first
    for g in range(first + 1, len(tiling.groups)):
        for s in tiling.groups[g].statements:
            if s.tensor == tensor and s.ring is not None:
                return last
            if (tensor in s.sources and s.kind != "view") or (s.kind == "save" and s.tensor == tensor):
                last = g
    return last


class _Walk:
    """Goes through the loops of one group and collects its instructions."""

    def __init__(
        self,
        group: Group,
        graph: Graph,
        arch: Arch,
        named: dict[str, Layer],
        index: dict[str, int],
        state: _State,
        constants: Constants,
    ) -> None:
        self.group, self.graph, self.arch, self.state, self.constants = group, graph, arch, state, constants
        self.named, self.index = named, index
        self.layers = tuple(named[s.layer] for s in group.statements if s.layer)
        self.out: list[Action] = []
        self.resident: Kept = {}

    def actions(self) -> list[Action]:
        group = self.group
        if group.statements and all(s.kind == "view" for s in group.statements):
            for s in group.statements:
                self._view(s)
            return []
        strips = _strips(group, self.layers, self.graph)
        self._check_rings(strips)
        for s in group.statements:
            if s.ring is not None:
                self.state.rings[s.tensor] = Source(s.ring, 0)
        passes = 1
        if group.order == "chunks":
            passes = max(self._chunk_count(s) for s in group.statements)
        for chunk in range(passes):
            only = chunk if group.order == "chunks" else None
            for x0 in range(0, group.width, group.cols):
                x1 = min(x0 + group.cols, group.width)
                self._place_tiles(x0, x1)
                steps = strips.count + max((s.stage for s in group.statements), default=0)
                for step in range(steps):
                    for s in group.statements:
                        if only is None and self._in_parts(s.tensor):
                            self._chunk_by_chunk(s, strips, step, x0, x1)
                        else:
                            self._statement(s, strips, step, x0, x1, only, first=chunk == 0)
        return self.out

    # -- checks ------------------------------------------------------------------------------------------------------
    def _check_rings(self, strips: Strips) -> None:
        for s in self.group.statements:
            if s.ring is None:
                continue
            want = strips.ring[s.tensor]
            if s.ring.rows < want:
                raise ProgramError(
                    f"{self.group.name}: the ring of %{s.tensor} holds {s.ring.rows} rows, strips of {self.group.rows} rows "
                    f"need {want}; enlarge the ring or take fewer rows a strip",
                    demand=want,
                    bound=s.ring.rows,
                )

    # -- loops -------------------------------------------------------------------------------------------------------
    def _in_parts(self, tensor: str) -> bool:
        """The map's ring holds some of its channels: it is saved chunk by chunk."""
        return any(
            s.tensor == tensor and s.ring is not None and s.layer and s.chunk
            and s.ring.blocks < blocks(s.shape[2], self.arch.lanes) for s in self.group.statements
        )  # fmt: skip

    def _chunk_by_chunk(self, s: Statement, strips: Strips, step: int, x0: int, x1: int) -> None:
        """Make and save a strip of a map, one chunk of channels after the other."""
        saves = [w for w in self.group.statements if w.kind == "save" and w.tensor == s.tensor]
        for only in range(self._chunk_count(s) if s.kind != "save" else 0):
            for statement in (s, *saves):
                self._statement(statement, strips, step, x0, x1, only, first=True)

    def _chunk_count(self, s: Statement) -> int:
        if s.kind not in {"conv", "dwc"} or not s.chunk:
            return 1
        unit = self.arch.conv.oc if s.kind == "conv" else self.arch.lanes
        return -(-blocks(s.shape[2], unit) // s.chunk)

    def _place_tiles(self, x0: int, x1: int) -> None:
        """Set the first column that each ring of this group holds, for a column tile of the output."""
        for s in self.group.statements:
            if s.ring is None:
                continue
            first = 0
            if s.ring.width < self._columns(s):
                first = x0 if s.layer else self._source_columns(s.tensor, x0, x1)[0]
            self.state.rings[s.tensor] = Source(s.ring, first)

    def _columns(self, s: Statement) -> int:
        """Columns of the whole map, in the ring's own form."""
        if s.ring is not None and s.ring.fold:
            return self.graph.tensors[self._reader(s.tensor).output].shape[1]
        return self.graph.tensors[s.tensor].shape[1]

    def _reader(self, tensor: str) -> Layer:
        return next(layer for layer in self.layers if tensor in layer.inputs)

    def _source_columns(self, tensor: str, x0: int, x1: int) -> tuple[int, int]:
        ring = next(s.ring for s in self.group.statements if s.tensor == tensor and s.ring is not None)
        if ring.fold:
            return x0, x1
        spans = [
            layer.needs(k, x0, x1, 1)
            for layer in self.layers
            for k, source in enumerate(layer.inputs)
            if source == tensor
        ]
        return min(a for a, _ in spans), max(b for _, b in spans)

    def _statement(
        self, s: Statement, strips: Strips, step: int, x0: int, x1: int, only: int | None, *, first: bool
    ) -> None:
        if s.kind == "view":
            raise ProgramError(f"{self.group.name}: a view stands in a group of its own")
        if s.kind == "load":
            y0, y1 = strips.span(s.tensor, step, s.stage)
            whole = s.ring is not None and s.ring.rows >= s.shape[0] and self.group.cols >= self.group.width
            if y1 > y0 and (first or not whole):
                self._load(s, y0, y1, x0, x1)
            return
        if s.kind == "save":
            y0, y1 = strips.span(s.tensor, step, s.stage)
            if y1 > y0:
                self._save(s, y0, y1, x0, x1, only)
            return
        layer = self.named[s.layer]
        y0, y1 = strips.span(layer.inputs[0] if layer.reduces else s.tensor, step, s.stage)
        if y1 > y0:
            sources = tuple(self._ring_of(name, layer) for name in layer.inputs)
            cols = (
                (x0, x1) if self.group.cols < self.group.width else (0, self.graph.tensors[s.tensor].shape[1])
            )
            kept = self.resident if s.weights == "resident" else None
            task = Task(
                s,
                layer,
                sources,
                self.state.rings[s.tensor],
                (y0, y1),
                cols,
                self.index[layer.name],
                only,
                kept,
            )
            self.out += self._compute(task)

    def _compute(self, task: Task) -> list[Action]:
        """Instructions that make output rows and columns of a layer; a chunk of weights serves all frames in turn."""
        if self.graph.frames == 1 or task.layer.rowwise:
            return self._compute_rows(task, self.graph)
        if task.kept is not None:
            return self._compute_frames(task)
        chunks = range(self._chunk_count(task.statement)) if task.only is None else (task.only,)
        return [a for only in chunks for a in self._compute_frames(replace(task, only=only, kept={}))]

    def _compute_frames(self, task: Task) -> list[Action]:
        out: list[Action] = []
        graph, size = self.graph, task.layer.height
        for f in range(task.rows[0] // size, -(-task.rows[1] // size)):
            heights = [graph.frame_shape(t)[0] for t in task.layer.inputs]
            sources = (replace(s, top=f * h) for s, h in zip(task.sources, heights, strict=True))
            target = replace(task.out, top=f * graph.frame_shape(task.layer.output)[0])
            rows = max(task.rows[0] - f * size, 0), min(task.rows[1] - f * size, size)
            out += self._compute_rows(
                replace(task, sources=tuple(sources), out=target, rows=rows), graph.frame
            )
        return out

    def _compute_rows(self, task: Task, graph: Graph) -> list[Action]:
        with_parts = depthwise_instructions if task.statement.kind == "dwc" else array_instructions
        if not task.layer.parts:
            return vector_instructions(task, graph, self.arch, self.constants)
        out: list[Action] = []
        for p, part in enumerate(task.layer.parts):
            for rows, cols in _padded_tiles(task, part):
                tile = replace(task, rows=rows, cols=cols)
                out += with_parts(tile, p, graph, self.arch, self.constants)
        return out

    def _ring_of(self, tensor: str, layer: Layer) -> Source:
        if tensor not in self.state.rings:
            raise ProgramError(f"{layer.name}: %{tensor} is nowhere on chip here; load it first")
        return self.state.rings[tensor]

    # -- DRAM --------------------------------------------------------------------------------------------------------
    def _load(self, s: Statement, y0: int, y1: int, x0: int, x1: int) -> None:
        if s.tensor not in self.state.places:
            raise ProgramError(f"{self.group.name}: %{s.tensor} is loaded, but nothing saved it before")
        place = self.state.places[s.tensor]
        reader = self._reader(s.tensor)
        tiled = self.group.cols < self.group.width and self.state.rings[s.tensor].ring.width < self._columns(
            s
        )
        columns = self._source_columns(s.tensor, x0, x1) if tiled else (0, self._columns(s))
        self.out += load_instructions(
            s.tensor, reader, place.offset, self.state.rings[s.tensor], (y0, y1), columns, self.index[reader.name], self.graph, self.arch
        )  # fmt: skip

    def _save(self, s: Statement, y0: int, y1: int, x0: int, x1: int, only: int | None) -> None:
        place = _give_place(self.state, self.graph, s.tensor, self.arch)
        maker = next((st for st in self.group.statements if st.tensor == s.tensor and st.layer), None)
        index = self.index[maker.layer] if maker else -1
        first, stop = 0, blocks(place.shape[2], self.arch.lanes)
        if only is not None and maker is not None and maker.chunk:
            unit = maker.chunk * (self.arch.conv.oc if maker.kind == "conv" else self.arch.lanes)
            first, stop = only * unit // self.arch.lanes, min(stop, -(-(only + 1) * unit // self.arch.lanes))
        width = place.shape[1]
        columns = (x0, x1) if self.group.cols < self.group.width else (0, width)
        self.out += save_instructions(
            s.tensor, place.offset, self.state.rings[s.tensor], (y0, y1), columns, (first, stop), index, self.graph, self.arch
        )  # fmt: skip

    def _view(self, s: Statement) -> None:
        layer = self.named[s.layer]
        source = layer.inputs[0]
        if source not in self.state.places:
            raise ProgramError(f"{s.layer}: a view renames a map in DRAM, and %{source} was not saved")
        self.state.places[s.tensor] = Place(self.state.places[source].offset, s.shape)
