"""A plan's instructions as arrays: what `quick_unroll` writes and `quick_play` reads.

Kernels know columns by position, as numba's cache notices edits in a kernel's own file only; a test compares.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTION", "CHUNK", "FIELDS", "PLACE", "READ", "SHAPE", "Stream"]

_Ints = NDArray[np.int64]

FIELDS = (
    *("opcode", "func", "out_h", "out_w", "kh", "kw", "blocks", "out_c", "lane0", "ways", "drain_ways"),
    *("packed", "first", "last", "diagonal", "sy", "sx", "dy", "dx", "a_group", "b_group", "broadcast"),
    *("bilinear", "table", "run_bytes", "runs1", "runs2", "width", "height", "take", "step", "fold"),
    *("records", "record_rows", "fold_pad", "a_span", "b_span"),
)
"""Fields of an instruction that `timing.costs` reads."""

ACTION = (
    *("engine", "kind", "map", "low", "high", "ring", "block", "reads", "weights", "constants", "runs"),
    *("turn", "place", "read_ports", "write_ports"),
)
"""Columns of an action: engine, row of fields, the map it makes (SAVE: reads) and its rows, rows of that map's ring, map
blocks that are done with it, where its reads begin, chunks that it uses (-1: none), DRAM runs, number of the chunk where
chunks come one by one (else -1), place of the map it writes, map groups that it reads and writes, as bits."""

READ = ("map", "low", "high", "place")
"""Columns of a read: map, first row and row after the last, the map's place."""

CHUNK = ("memory", "words", "kind")
"""Columns of a chunk of constants: memory as in FILL, words there, its FILL's row of fields."""

PLACE = ("base", "stop")
"""Columns of a place, where a map is while a group of layers runs, or several: words of the map memory."""

SHAPE = ("lanes", "oc", "pixels", "drain", "banks", "weight_words", "group_words", "span")
"""Numbers of the machine that `unroll` takes."""


class Stream(NamedTuple):
    """Actions in stream order.

    Parameters
    ----------
    fields : (kinds, FIELDS)
    actions : (n, ACTION)
    reads : (m, READ)
        Of an action, up to the next action's.
    chunks : (k, CHUNK)
    places : (l, PLACE)
    """

    fields: _Ints
    actions: _Ints
    reads: _Ints
    chunks: _Ints
    places: _Ints
