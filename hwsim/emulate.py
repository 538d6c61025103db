"""The emulator: a program's encoded words, executed on modelled memories.

Values come out equal to `ir.reference` on every byte, in any order that the program's waits allow. Time plays no part
here: `order="stream"` executes one instruction after the other, ``"random"`` picks, again and again, among the engines
whose next instruction has the tokens it waits for. Both leave the same bytes unless the program has a race.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from operator import itemgetter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.errors import ProgramError, SimulationError
from ..ir.hazards import wait_counts
from ..ir.isa import COLUMNS, Engine, Memory, Opcode, Program, Region, VecOp, decode, render
from ..ir.verify import verify

__all__ = ["Emulation", "Memories", "TRAFFIC", "emulate"]

TRAFFIC = ("none", "ifmap", "weights", "ofmap")
"""Names of `Program.traffic`."""

_POISON = 85
"""What map and weight memories hold at power-up: nothing a program may rely on."""


@dataclass(frozen=True, slots=True)
class Memories:
    """The memories of a core, laid out as `emulate_kernels` says."""

    maps: NDArray[np.int8]
    weights: NDArray[np.int8]
    depthwise: NDArray[np.int8]
    tables: NDArray[np.int8]
    vector: NDArray[np.uint32]
    accumulators: NDArray[np.int32]
    sums: NDArray[np.int32]
    dram: tuple[NDArray[np.int8], ...]
    """By `Region`."""

    @classmethod
    def powered_up(
        cls, arch: Arch, program: bytes, weights: NDArray[np.uint8], maps: NDArray[np.int8]
    ) -> Memories:
        """On-chip memories hold a fixed pattern."""
        lanes, oc = arch.lanes, arch.conv.oc

        def memory(*shape: int) -> NDArray[np.int8]:
            return np.full(shape, _POISON, np.int8)

        return cls(
            memory(arch.map_words, lanes),
            memory(arch.weight_words, lanes, oc),
            memory(arch.depthwise_words, arch.dwc.taps, lanes),
            memory(arch.weights.tables, 256),
            np.zeros(arch.vector_words, np.uint32),
            np.zeros((arch.conv.pixels, oc), np.int32),
            np.zeros((arch.vec.sums, lanes), np.int32),
            (np.frombuffer(program, np.int8).copy(), np.ascontiguousarray(weights).view(np.int8), maps),
        )


@dataclass(frozen=True, eq=False)
class Emulation:
    """What a program left behind.

    Parameters
    ----------
    maps : int8 (maps_bytes,)
        The DRAM maps region afterwards.
    read, written : dict of traffic class to int
        Bytes that LOAD and FILL took from DRAM and that SAVE put there, counted as they moved.
    fetched : int
        Bytes of instructions, in whole fetch groups.
    memories : Memories
        On-chip memories afterwards.
    """

    maps: NDArray[np.int8]
    read: dict[str, int]
    written: dict[str, int]
    fetched: int
    memories: Memories

    @property
    def dram_read_bytes(self) -> int:
        """Bytes read from DRAM, instructions included."""
        return sum(self.read.values()) + self.fetched

    @property
    def dram_written_bytes(self) -> int:
        return sum(self.written.values())

    @property
    def dram_bytes(self) -> int:
        """All bytes over the DRAM port."""
        return self.dram_read_bytes + self.dram_written_bytes


def emulate(
    program: Program,
    arch: Arch,
    maps: NDArray[np.int8] | NDArray[np.uint8],
    *,
    order: Literal["stream", "random"] = "stream",
    seed: int = 0,
    observe: Callable[[int, Memories], None] | None = None,
    checked: bool = False,
) -> Emulation:
    """Execute a program on one frame.

    Parameters
    ----------
    maps : int8 or uint8 (maps_bytes,)
        The DRAM maps region with the graph's inputs in place; it is copied.
    order : {"stream", "random"}
        Which of the legal orders to take.
    seed : int
        Of the random order.
    observe : callable, optional
        Called with an instruction's index and the memories after it.
    checked : bool
        The program went through `verify` already and is unchanged.

    Raises
    ------
    SimulationError
        The program is illegal on this machine (an address out of range, a race, ...), or `maps` has another size.
    """
    if maps.shape != (program.maps_bytes,) or maps.dtype not in (np.int8, np.uint8):
        raise SimulationError(
            f"maps is {maps.dtype}{list(maps.shape)}, the program's DRAM maps region is int8[{program.maps_bytes}]"
        )
    if not checked:
        try:
            verify(program, arch)
        except ProgramError as error:
            raise SimulationError(
                f"program cannot be emulated on {arch.name}: {error}", **error.facts
            ) from error
    words = program.words
    memories = Memories.powered_up(arch, words, program.weights, maps.view(np.int8).copy())
    fields = decode(words)
    counts = np.zeros((2, len(TRAFFIC)), np.int64)
    steps = _steps(memories)
    for p in "dab":  # the maps are one array here
        fields[:, COLUMNS[f"{p}_base"]] += fields[:, COLUMNS[f"{p}_group"]] * arch.group_words
    rows = fields.tolist()
    turns = range(len(rows)) if order == "stream" else _random_order(fields, program.engine, seed)
    for i in turns:
        row = rows[i]
        key = _KEY(row)
        if key[0] == Opcode.END:
            continue
        moved = steps[key if key[0] in (Opcode.VEC, Opcode.FILL) else (key[0], 0)](row)
        if moved is not None:
            counts[int(key[0] == Opcode.SAVE), program.traffic[i]] += moved
        if observe is not None:
            observe(i, memories)
    read, written = (dict(zip(TRAFFIC, map(int, side), strict=True)) for side in counts)
    return Emulation(memories.dram[Region.MAPS], read, written, program.fetch_bytes, memories)


_KEY = itemgetter(COLUMNS["opcode"], COLUMNS["func"])


def _steps(memories: Memories) -> dict[tuple[int, int], Callable[[list[int]], int | None]]:
    """What to do with an instruction of each opcode and function; DRAM steps return the bytes they moved."""
    from . import emulate_dram as d
    from . import emulate_kernels as k

    m = memories
    dst, src, second = (
        " ".join(f"{p}_{n}" for n in ("base", "pitch", "plane", "rows", "row0")) for p in "dab"
    )
    extent, area = "out_h out_w", "in_h in_w sy sx dy dx pad_top pad_left"
    numbers = "za zd lo hi mode"
    runs = "address run_bytes runs1 stride1 stride2 width height blocks take"
    record = "address m_base records record_rows tail_take"
    region = COLUMNS["region"]

    def step(kernel: Any, arrays: tuple[Any, ...], names: str) -> Callable[[list[int]], int | None]:
        take = itemgetter(*(COLUMNS[name] for name in names.split()))
        return lambda row: kernel(*arrays, *take(row))

    def dram_step(kernel: Any, memory: Any, names: str) -> Callable[[list[int]], int | None]:
        take = itemgetter(*(COLUMNS[name] for name in names.split()))
        return lambda row: kernel(memory, m.dram[row[region]], *take(row))

    fill, vec = Opcode.FILL, Opcode.VEC
    pair = f"{dst} {src} {second} {extent} blocks {numbers} zb broadcast"
    return {
        (Opcode.LOAD, 0): dram_step(d.load, m.maps, f"{dst} {runs} step fold fold_pad row_bytes za"),
        (fill, Memory.WEIGHTS): dram_step(d.fill_weights, m.weights, record),
        (fill, Memory.DEPTHWISE): dram_step(d.fill_depthwise, m.depthwise, record),
        (fill, Memory.TABLES): dram_step(d.fill_tables, m.tables, "address m_base records"),
        (fill, Memory.VECTOR): dram_step(d.fill_vector, m.vector, "address run_bytes m_base"),
        (Opcode.CONV, 0): step(
            k.conv,
            (m.maps, m.weights, m.tables, m.accumulators),
            f"{dst} {src} {extent} {area} {numbers} kh kw w_base table blocks out_c lane0 first last diagonal step_y step_x",
        ),
        (Opcode.DWC, 0): step(
            k.depthwise,
            (m.maps, m.depthwise, m.tables),
            f"{dst} {src} {extent} {area} {numbers} kh kw w_base table blocks",
        ),
        (vec, VecOp.ADD): step(k.add, (m.maps,), f"{pair} ma mb shift"),
        (vec, VecOp.MUL): step(k.multiply, (m.maps,), f"{pair} scale"),
        (vec, VecOp.MAX): step(
            k.maximum, (m.maps, m.sums), f"{dst} {src} {extent} blocks {area} lo hi kh kw first last"
        ),
        (vec, VecOp.AVG): step(
            k.average,
            (m.maps, m.vector, m.sums),
            f"{dst} {src} {extent} blocks {area} {numbers} kh kw scale counted v_base first last",
        ),
        (vec, VecOp.TABLE): step(k.copy, (m.maps, m.tables), f"{dst} {src} {extent} blocks sy sx table"),
        (vec, VecOp.PRELU): step(
            k.prelu, (m.maps, m.vector), f"{dst} {src} {extent} blocks {numbers} scale v_base"
        ),
        (vec, VecOp.RESIZE): step(
            k.resize,
            (m.maps, m.vector),
            f"{dst} {src} {extent} blocks {numbers} in_h in_w origin scale v_base v_cols bilinear",
        ),
        (Opcode.SAVE, 0): dram_step(d.save, m.maps, f"{src} {runs}"),
    }


def _random_order(fields: NDArray[np.int64], engine: NDArray[np.int8], seed: int) -> Iterator[int]:
    """Instructions in an order drawn from those that in-order engines and waits allow."""
    rng = np.random.default_rng(seed)
    waits = wait_counts(fields)[0].tolist()
    queues = [np.flatnonzero(engine == e).tolist() for e in Engine]
    done = [0] * len(Engine)
    favour = list(Engine)
    for turn in count():
        if turn % 7 == 0:  # favourites stay for a while, so that an engine runs far ahead of the others
            favour = [Engine(int(e)) for e in rng.permutation(len(Engine))]
        ready = [
            e
            for e in favour
            if done[e] < len(queues[e])
            and all(have >= want for have, want in zip(done, waits[queues[e][done[e]]], strict=True))
        ]
        if not ready:
            break
        e = ready[0]
        yield queues[e][done[e]]
        done[e] += 1
    for e in Engine:
        if done[e] < len(queues[e]):
            i = queues[e][done[e]]
            raise SimulationError(
                f"instruction {i} ({render(fields[i])}) waits for ever: tokens given are {done}, it needs {waits[i]}",
                instruction=i,
            )
