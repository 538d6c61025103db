"""Weight, depthwise, table and vector memories: where each chunk lives, and when its FILL is issued.

Each memory is a circular buffer in the order of first use. A chunk may be overwritten once the last instruction
that reads it stands earlier in the stream. FILLs are issued a few instructions ahead of their use, as far as memory
allows, so that the weights of the next layers arrive while the present ones compute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.errors import ScheduleError
from ..ir.isa import COLUMNS, Memory, Opcode, Region, instruction

__all__ = ["AHEAD", "Action", "Chunk", "fill_memories"]

AHEAD = 4
"""Compute instructions ahead of its first use that a FILL is issued, memory allowing; beyond that the LOAD queue runs
ahead by itself. Measured by tests/benchmarks/prefetch.py: 0 to 32 differ by 1 %, and 4 is the best or within 0.5 %."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Constants that one or more instructions read.

    Parameters
    ----------
    memory : Memory
    words : int
        Words of that memory.
    address, size : int
        Bytes in the DRAM weights region.
    records, record_rows, tail_take : int
        As in FILL.
    """

    memory: Memory
    words: int
    address: int
    size: int
    records: int = 1
    record_rows: int = 1
    tail_take: int = 0
    layer: int = -1


@dataclass(slots=True, eq=False)
class Action:
    """An instruction whose constants are not placed yet: ``uses`` are (chunk, field, words into the chunk)."""

    row: NDArray[np.int64]
    layer: int
    traffic: int = 0
    uses: list[tuple[Chunk, str, int]] = field(default_factory=list)


class _Circular:
    """First-in first-out allocation of contiguous runs in a circular memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.live: deque[tuple[int, int, Chunk]] = deque()  # base, stop, chunk
        self.head = 0  # where the next chunk goes: away from the chunk that was read last

    def place(self, chunk: Chunk) -> int | None:
        head = self.head
        if not self.live:
            base = head if head + chunk.words <= self.size else (0 if chunk.words <= self.size else None)
        else:
            tail = self.live[0][0]
            if head > tail or (head == tail and self.live[-1][0] >= tail):  # not wrapped
                wrapped = 0 if chunk.words <= tail else None
                base = head if head + chunk.words <= self.size else wrapped
            else:
                base = head if head + chunk.words <= tail else None
        if base is not None:
            self.head = base + chunk.words
            self.live.append((base, base + chunk.words, chunk))
        return base


def fill_memories(
    actions: list[Action], arch: Arch, names: Sequence[str], *, ahead: int = AHEAD
) -> list[Action]:
    """The stream with FILLs put in and every use's address set.

    Parameters
    ----------
    names : sequence of str
        Layers by index, for messages.
    ahead : int
        Instructions that a FILL runs ahead of its first use.

    Raises
    ------
    ScheduleError
        The constants that one point of the program needs at once do not fit a memory.
    """
    sizes = {
        Memory.WEIGHTS: arch.weight_words,
        Memory.DEPTHWISE: arch.depthwise_words,
        Memory.TABLES: arch.weights.tables,
        Memory.VECTOR: arch.vector_words,
    }
    memories = {m: _Circular(size) for m, size in sizes.items()}
    first_use: dict[Chunk, int] = {}
    last_use: dict[Chunk, int] = {}
    order: list[Chunk] = []
    for i, action in enumerate(actions):
        for chunk, _, _ in action.uses:
            if chunk not in last_use:
                order.append(chunk)
                first_use[chunk] = i
            last_use[chunk] = i

    base: dict[Chunk, int] = {}
    out: list[Action] = []
    upcoming = 0

    def retire(now: int) -> None:
        for memory in memories.values():
            while memory.live and last_use[memory.live[0][2]] < now:
                memory.live.popleft()

    def load(chunk: Chunk) -> bool:
        at = memories[chunk.memory].place(chunk)
        if at is None:
            return False
        base[chunk] = at
        out.append(Action(_fill(chunk, at), chunk.layer, 2))
        return True

    for i, action in enumerate(actions):
        retire(i)
        for chunk, _, _ in action.uses:
            while chunk not in base:
                wanted = order[upcoming]
                if not load(wanted):
                    raise ScheduleError(
                        f"{names[wanted.layer]}: {wanted.words} words of {wanted.memory.name.lower()} memory do not fit beside "
                        f"those in use ({sizes[wanted.memory]} words in all); use smaller chunks, stream the weights, or "
                        f"raise weights.{_FIELD[wanted.memory]}",
                        resource=wanted.memory.name,
                        demand=wanted.words,
                        bound=sizes[wanted.memory],
                    )
                upcoming += 1
        for chunk, name, offset in action.uses:
            action.row[COLUMNS[name]] += base[chunk] + offset
        out.append(action)

        retire(i + 1)
        while upcoming < len(order) and first_use[order[upcoming]] <= i + ahead and load(order[upcoming]):
            upcoming += 1
    return out


_FIELD = {
    Memory.WEIGHTS: "kib",
    Memory.DEPTHWISE: "depthwise_kib",
    Memory.TABLES: "tables",
    Memory.VECTOR: "vector_kib",
}


def _fill(chunk: Chunk, base: int) -> NDArray[np.int64]:
    return instruction(
        Opcode.FILL,
        chunk.memory,
        region=Region.WEIGHTS,
        address=chunk.address,
        run_bytes=chunk.size,
        m_base=base,
        records=chunk.records,
        record_rows=chunk.record_rows,
        tail_take=chunk.tail_take,
    )
