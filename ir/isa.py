"""The instruction set: 64-byte words, a table of fields for each format, and the `Program` that carries them.

Five engines run from in-order queues: LOAD, CONV, DWC, VEC, SAVE. Order between them is by *tokens*: an engine
gives one token for each instruction it completes, and an instruction starts only when every engine E has given
at least ``wait_E`` tokens since the program began (compared modulo 2^16). A wait names an instruction that stands
earlier in the stream, so the oldest unfinished instruction can always run and no program can deadlock, whatever
the depth of the queues. While it runs, an instruction owns the read ports of the map groups it reads and the write
ports of those it writes; one that finds a port taken waits, which costs cycles and never changes a value. An operand
lies in one map group, or in several neighbouring ones, whose words follow one another.

docs/isa.md describes every field; `FORMATS` is the one definition that encoder, decoder, emulator, simulator
and RTL share.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .errors import InvariantError, ProgramError

__all__ = [
    "COLUMNS",
    "Engine",
    "FETCH_BYTES",
    "FORMATS",
    "Field",
    "Memory",
    "Opcode",
    "Program",
    "Region",
    "VecOp",
    "WORD_BYTES",
    "decode",
    "encode",
    "instruction",
    "render",
]

WORD_BYTES = 64
FETCH_BYTES = 16 * WORD_BYTES
"""Bytes that the fetch unit reads at a time: 16 instructions. A program in DRAM is padded to whole groups."""


class Engine(IntEnum):
    """Engines, in the order of their token counters and of their priority for map ports (lowest first served)."""

    LOAD = 0
    CONV = 1
    DWC = 2
    VEC = 3
    SAVE = 4


class Opcode(IntEnum):
    """What an instruction does; `ENGINE_OF` says where."""

    END = 0
    LOAD = 1
    FILL = 2
    CONV = 3
    DWC = 4
    VEC = 5
    SAVE = 6


class VecOp(IntEnum):
    """Functions of the VEC engine."""

    ADD = 0
    MUL = 1
    MAX = 2
    AVG = 3
    TABLE = 4
    PRELU = 5
    RESIZE = 6


class Memory(IntEnum):
    """Targets of FILL, with their word: oc x ic bytes, 8 x lanes bytes, 256 bytes, 4 bytes."""

    WEIGHTS = 0
    DEPTHWISE = 1
    TABLES = 2
    VECTOR = 3


class Region(IntEnum):
    """DRAM regions, each behind a base-address register."""

    PROGRAM = 0
    WEIGHTS = 1
    MAPS = 2


ENGINE_OF = {
    Opcode.LOAD: Engine.LOAD,
    Opcode.FILL: Engine.LOAD,
    Opcode.CONV: Engine.CONV,
    Opcode.DWC: Engine.DWC,
    Opcode.VEC: Engine.VEC,
    Opcode.SAVE: Engine.SAVE,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A bit field: name, width in bits, two's complement or not, and its meaning (docs/isa.md prints it)."""

    name: str
    bits: int
    meaning: str
    signed: bool = False

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.bits - self.signed)) - 1


def _operand(prefix: str, role: str) -> tuple[Field, ...]:
    """Map operand: word of (row r, column x, channel block b) is at ``base + b*plane + ((row0 + r) % rows)*pitch + x``."""
    return (
        Field(f"{prefix}_group", 3, f"{role}: map group"),
        Field(f"{prefix}_span", 3, f"{role}: further map groups behind it that belong to the operand"),
        Field(f"{prefix}_base", 18, f"{role}: first word, from the beginning of the group"),
        Field(f"{prefix}_pitch", 14, f"{role}: words from a row to the next"),
        Field(f"{prefix}_plane", 18, f"{role}: words from a channel block to the next"),
        Field(f"{prefix}_rows", 14, f"{role}: rows of the ring"),
        Field(f"{prefix}_row0", 14, f"{role}: ring row of the first row"),
    )


_HEADER = (
    Field("opcode", 4, "Opcode"),
    Field("func", 4, "VecOp (VEC) or Memory (FILL)"),
    *(
        Field(f"wait_{e.name.lower()}", 16, f"tokens of {e.name} needed before start, modulo 2^16")
        for e in Engine
    ),
)
_DST, _SRC, _SRC_B = _operand("d", "destination"), _operand("a", "source"), _operand("b", "second source")
_EXTENT = (Field("out_h", 14, "output rows"), Field("out_w", 14, "output columns"))
_BLOCKS = (Field("blocks", 13, "channel blocks (map words a pixel)"),)
_INPUT = (
    Field("in_h", 14, "valid input rows from the source's first row; others are padding"),
    Field("in_w", 14, "valid input columns"),
    Field("sy", 5, "row stride"),
    Field("sx", 5, "column stride"),
    Field("dy", 8, "row dilation"),
    Field("dx", 8, "column dilation"),
    Field("pad_top", 10, "padding rows above the source's first row"),
    Field("pad_left", 10, "padding columns left of the source"),
)
_RANGE = (
    Field("za", 8, "zero point of the source; convolution padding holds it", signed=True),
    Field("zd", 8, "zero point of the destination", signed=True),
    Field("lo", 8, "lower clamp", signed=True),
    Field("hi", 8, "upper clamp", signed=True),
    Field("mode", 2, "rounding: 0 f32, 1 fix16, 2 shift"),
)
_WEIGHTED = (
    Field("kh", 10, "kernel rows"),
    Field("kw", 10, "kernel columns"),
    Field("w_base", 18, "first weight word"),
    Field("table", 5, "lookup after requantisation: 0 none, else table + 1"),
)
_DRAM = (
    Field("region", 2, "DRAM region"),
    Field("address", 36, "byte offset in the region"),
    Field("run_bytes", 26, "contiguous bytes of a run"),
    Field("runs1", 14, "runs in the inner dimension"),
    Field("stride1", 32, "bytes from a run to the next"),
    Field("runs2", 14, "outer dimension"),
    Field("stride2", 32, "bytes in the outer dimension"),
)
_STREAM = (
    Field("width", 14, "words in a row"),
    Field("height", 14, "rows in a block"),
    Field("blocks", 13, "channel blocks"),
    Field("take", 7, "stream bytes that a word holds; other lanes are zero"),
)

FORMATS: dict[tuple[Opcode, VecOp | None], tuple[Field, ...]] = {
    (Opcode.END, None): _HEADER,
    (Opcode.LOAD, None): (
        *_HEADER,
        *_DST,
        *_DRAM,
        *_STREAM,
        Field("step", 12, "stream bytes from a word to the next"),
        Field(
            "fold", 5, "words a column: word j of a column starts j * take bytes later, and goes to block j"
        ),
        Field("fold_pad", 12, "bytes of left padding before a row of the stream"),
        Field("row_bytes", 20, "stream bytes of a row"),
        Field("za", 8, "value of bytes outside the row", signed=True),
    ),
    (Opcode.FILL, None): (
        *_HEADER,
        Field("region", 2, "DRAM region"),
        Field("address", 36, "byte offset in the region"),
        Field("run_bytes", 26, "bytes in all"),
        Field("m_base", 18, "first word in the memory"),
        Field("records", 18, "records"),
        Field("record_rows", 18, "words of a record; weights: the first ceil(8 / ic) hold bias and scale"),
        Field("tail_take", 7, "planes in the last word of a record"),
    ),
    (Opcode.CONV, None): (
        *_HEADER,
        *_DST,
        *_SRC,
        *_EXTENT,
        *_INPUT,
        *_RANGE,
        *_WEIGHTED,
        *_BLOCKS,
        Field("out_c", 17, "output channels"),
        Field("lane0", 6, "lane of the first output channel in the first destination word"),
        Field("ways", 5, "read cycles a step: pixels that share a bank take turns"),
        Field("drain_ways", 5, "write cycles a drain step"),
        Field("packed", 1, "pixels are packed over rows"),
        Field("first", 1, "accumulators start from the bias"),
        Field("last", 1, "accumulators are drained"),
        Field("diagonal", 1, "depthwise: channel c reads channel c"),
        Field("step_y", 4, "destination rows from an output row to the next"),
        Field("step_x", 4, "destination columns from an output column to the next"),
    ),
    (Opcode.DWC, None): (*_HEADER, *_DST, *_SRC, *_EXTENT, *_INPUT, *_RANGE, *_WEIGHTED, *_BLOCKS),
    **{
        (Opcode.VEC, op): (
            *_HEADER,
            *_DST,
            *_SRC,
            *_SRC_B,
            *_EXTENT,
            *_BLOCKS,
            *_RANGE,
            Field("zb", 8, "zero point of the second source", signed=True),
            Field("broadcast", 1, "the second source is one pixel"),
            *numbers,
        )
        for op, numbers in {
            VecOp.ADD: (
                Field("ma", 25, "multiplier of the source", signed=True),
                Field("mb", 25, "multiplier of the second source", signed=True),
                Field("shift", 6, "right shift of the sum"),
            ),
            VecOp.MUL: (Field("scale", 32, "scale word"),),
        }.items()
    },
    **{
        (Opcode.VEC, op): (
            *_HEADER,
            *_DST,
            *_SRC,
            *_EXTENT,
            *_BLOCKS,
            *_INPUT,
            *_RANGE,
            Field("kh", 14, "window rows"),
            Field("kw", 14, "window columns"),
            Field("scale", 32, "scale word (average)"),
            Field("counted", 1, "average: the scale word is vector word v_base + valid taps"),
            Field("v_base", 16, "first vector word"),
            Field("first", 1, "windows start empty; 0 (one output pixel): they go on with the running sums"),
            Field("last", 1, "results are written; 0 (one output pixel): sums stay, one a channel block"),
        )
        for op in (VecOp.MAX, VecOp.AVG)
    },
    (Opcode.VEC, VecOp.TABLE): (
        *_HEADER,
        *_DST,
        *_SRC,
        *_EXTENT,
        *_BLOCKS,
        Field("sy", 5, "row stride of the source"),
        Field("sx", 5, "column stride of the source"),
        Field("table", 5, "0 copies, else table + 1"),
    ),
    (Opcode.VEC, VecOp.PRELU): (
        *_HEADER,
        *_DST,
        *_SRC,
        *_EXTENT,
        *_BLOCKS,
        *_RANGE,
        Field("scale", 32, "scale word for values at or above zero"),
        Field(
            "v_base", 16, "first vector word: a scale word a channel, bit 31 set where the slope is negative"
        ),
    ),
    (Opcode.VEC, VecOp.RESIZE): (
        *_HEADER,
        *_DST,
        *_SRC,
        *_EXTENT,
        *_BLOCKS,
        *_RANGE,
        Field("in_h", 14, "rows of the whole source map (the last row has itself as neighbour)"),
        Field("in_w", 14, "columns of the source map"),
        Field("origin", 14, "row of the map that the source's first row is"),
        Field("scale", 32, "scale word"),
        Field("v_base", 16, "first vector word: source | fraction << 16 for each output row"),
        Field("v_cols", 16, "the same for each output column"),
        Field("bilinear", 1, "read the 2 x 2 neighbours, else one"),
    ),
    (Opcode.SAVE, None): (*_HEADER, *_SRC, *_DRAM, *_STREAM),
}

COLUMNS: dict[str, int] = {}
"""Column of each field name in a decoded program (int64 matrix, one row an instruction)."""
for _fields in FORMATS.values():
    assert sum(f.bits for f in _fields) <= WORD_BYTES * 8
    for _field in _fields:
        COLUMNS.setdefault(_field.name, len(COLUMNS))

_OPCODE, _FUNC = COLUMNS["opcode"], COLUMNS["func"]
_LIMITS = {
    kind: {f.name: (COLUMNS[f.name], f.low, f.high) for f in fields} for kind, fields in FORMATS.items()
}
"""Column, least and highest value of each field of a format: what `instruction` asks for often."""


def _kind(opcode: int, func: int) -> tuple[Opcode, VecOp | None]:
    """The key of `FORMATS`."""
    try:
        kind = Opcode(opcode)
        if kind == Opcode.FILL:
            Memory(func)
        elif kind != Opcode.VEC and func:
            raise ValueError(func)
        key = kind, VecOp(func) if kind == Opcode.VEC else None
        FORMATS[key]
    except (ValueError, KeyError):
        raise ProgramError(
            f"no instruction has opcode {opcode} with function {func}", opcode=opcode
        ) from None
    return key


def _format(opcode: int, func: int) -> tuple[Field, ...]:
    return FORMATS[_kind(opcode, func)]


def instruction(opcode: Opcode, func: VecOp | Memory | int = 0, **fields: int) -> NDArray[np.int64]:
    """One decoded instruction: a row for `Program`.

    Raises
    ------
    ProgramError
        A field the format does not have, or a value outside its width.
    """
    row = np.zeros(len(COLUMNS), np.int64)
    known = _LIMITS[_kind(opcode, func)]
    row[_OPCODE], row[_FUNC] = opcode, func
    for name, value in fields.items():
        if name not in known:
            raise ProgramError(f"{Opcode(opcode).name} has no field {name!r}")
        column, low, high = known[name]
        if not low <= value <= high:
            f = next(f for f in _format(opcode, func) if f.name == name)
            raise ProgramError(
                f"{Opcode(opcode).name}.{name} = {value} does not fit {f.bits} bits ({f.low}..{f.high}): {f.meaning}; "
                "the layer needs a smaller tile or is beyond the instruction set",
                field=name,
                value=int(value),
                limit=f.high,
            )
        row[column] = value
    return row


def encode(fields: NDArray[np.int64]) -> bytes:
    """Instruction rows to 64-byte words, fields packed from bit 0 up in the order of `FORMATS`, little-endian."""
    words = np.zeros((len(fields), WORD_BYTES // 8), "<u8")
    kinds = fields[:, _OPCODE] << 8 | fields[:, _FUNC]
    for kind in dict.fromkeys(kinds.tolist()):
        same, at = np.flatnonzero(kinds == kind), 0
        rows = fields[same]
        for f in _format(kind >> 8, kind & 255):
            values = rows[:, COLUMNS[f.name]]
            wrong = np.flatnonzero((values < f.low) | (values > f.high))
            if len(wrong):
                raise InvariantError(f"{f.name} = {values[wrong[0]]} does not fit {f.bits} bits")
            bits = values.astype(np.uint64) & np.uint64((1 << f.bits) - 1)
            word, shift = divmod(at, 64)
            words[same, word] |= bits << np.uint64(shift)
            if shift + f.bits > 64:  # the field goes on in the next eight bytes
                words[same, word + 1] |= bits >> np.uint64(64 - shift)
            at += f.bits
    return words.tobytes()


def decode(data: bytes) -> NDArray[np.int64]:
    """The inverse of `encode`.

    Raises
    ------
    ProgramError
        Length is no multiple of 64, an opcode is unknown, or a bit beyond a format's fields is set.
    """
    if len(data) % WORD_BYTES:
        raise ProgramError(f"a program is whole {WORD_BYTES}-byte words; {len(data)} bytes are not")
    rows = np.zeros((len(data) // WORD_BYTES, len(COLUMNS)), np.int64)
    for i in range(len(rows)):
        bits = int.from_bytes(data[i * WORD_BYTES : (i + 1) * WORD_BYTES], "little")
        for f in _format(bits & 15, bits >> 4 & 15):
            value = bits & ((1 << f.bits) - 1)
            rows[i, COLUMNS[f.name]] = value - (1 << f.bits) if f.signed and value > f.high else value
            bits >>= f.bits
        if bits:
            raise ProgramError(f"instruction {i}: bits beyond the fields of its format are set")
    return rows


def render(row: NDArray[np.int64]) -> str:
    """One instruction as text: mnemonic, waits, then ``field=value`` for the fields that are not zero."""
    opcode, func = int(row[_OPCODE]), int(row[_FUNC])
    name = f"vec.{VecOp(func).name.lower()}" if opcode == Opcode.VEC else Opcode(opcode).name.lower()
    if opcode == Opcode.FILL:
        name += f".{Memory(func).name.lower()}"
    waits = [
        f"{e.name.lower()}>={row[COLUMNS[f'wait_{e.name.lower()}']]}"
        for e in Engine
        if row[COLUMNS[f"wait_{e.name.lower()}"]]
    ]
    rest = [
        f"{f.name}={row[COLUMNS[f.name]]}"
        for f in _format(opcode, func)
        if f.name not in {"opcode", "func"} and not f.name.startswith("wait_") and row[COLUMNS[f.name]]
    ]
    return " ".join([f"{name:<14}", f"[{' '.join(waits)}]", *rest])


_MAGIC = b"TILEWRT1"
_HEAD = "<8s16sQQQ"
_NOTES_MAGIC = b"TILEWIO1"
"""Begins what a file may say beyond the program: to a driver, how maps and tensors belong together."""


@dataclass(frozen=True, eq=False)
class Program:
    """What the emulator, the simulator and the RTL execute.

    Parameters
    ----------
    fields : int64 (n, len(COLUMNS))
        Decoded instructions in stream order; the last is END.
    weights : uint8 (bytes,)
        Image of the DRAM weights region: weights, biases, scales, tables, indices.
    maps_bytes : int
        Size of the DRAM maps region: graph inputs, outputs and spilled maps.
    design : str
        `Arch.design_hash` of the machine it is for.
    layer : int32 (n,)
        Index of the layer each instruction belongs to (-1: none), for reports; not part of the words.
    traffic : int8 (n,)
        DRAM class of each instruction: 0 none, 1 ifmap, 2 weights, 3 ofmap, for reports.
    """

    fields: NDArray[np.int64] = field(repr=False)
    weights: NDArray[np.uint8] = field(repr=False)
    maps_bytes: int
    design: str
    layer: NDArray[np.int32] = field(repr=False)
    traffic: NDArray[np.int8] = field(repr=False)

    def __len__(self) -> int:
        return len(self.fields)

    @cached_property
    def words(self) -> bytes:
        """The encoded stream."""
        return encode(self.fields)

    @property
    def fetch_bytes(self) -> int:
        """DRAM bytes of the instructions: whole groups of `FETCH_BYTES`."""
        return -(-len(self) * WORD_BYTES // FETCH_BYTES) * FETCH_BYTES

    @cached_property
    def engine(self) -> NDArray[np.int8]:
        """Engine of each instruction; -1 for END."""
        table = np.full(16, -1, np.int8)
        for opcode, engine in ENGINE_OF.items():
            table[opcode] = engine
        return table[self.fields[:, _OPCODE]]

    def __iter__(self) -> Iterator[str]:
        return (render(row) for row in self.fields)

    def __str__(self) -> str:
        return "\n".join(f"{i:6d}  {text}" for i, text in enumerate(self))

    def save(self, notes: bytes = b"") -> bytes:
        """A program file: magic, design hash, sizes, words, weights image; then `notes`, which only drivers read."""
        head = struct.pack(
            _HEAD, _MAGIC, self.design.encode(), len(self.words), len(self.weights), self.maps_bytes
        )
        tail = _NOTES_MAGIC + struct.pack("<Q", len(notes)) + notes if notes else b""
        return (
            head + self.words + self.weights.tobytes() + self.layer.tobytes() + self.traffic.tobytes() + tail
        )

    @classmethod
    def load(cls, data: bytes) -> Program:
        """The inverse of `save`, notes left aside; ProgramError where the bytes are no program or are cut off."""
        size = struct.calcsize(_HEAD)
        if len(data) < size or data[:8] != _MAGIC:
            raise ProgramError("not a Tilewright program file (its first 8 bytes are not TILEWRT1)")
        _, design, n_words, n_weights, maps_bytes = struct.unpack(_HEAD, data[:size])
        count = n_words // WORD_BYTES
        want = size + n_words + n_weights + 5 * count
        if data[want : want + 8] == _NOTES_MAGIC and len(data) >= want + 16:
            want += 16 + int.from_bytes(data[want + 8 : want + 16], "little")
        if len(data) != want:
            raise ProgramError(
                f"program file has {len(data)} bytes, its header says {want}: it is cut off or damaged"
            )
        at = size + n_words
        weights = np.frombuffer(data, np.uint8, n_weights, at)
        layer = np.frombuffer(data, np.int32, count, at + n_weights)
        traffic = np.frombuffer(data, np.int8, count, at + n_weights + 4 * count)
        return cls(decode(data[size:at]), weights, maps_bytes, design.decode(), layer, traffic)
