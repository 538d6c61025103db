"""Random CONV instructions, and what the emulator and the timing rules say about them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from map_words import flat, placed
from numpy.typing import NDArray
from tilewright.hwsim.emulate_kernels import conv
from tilewright.hwsim.timing import conv_busy, machine
from tilewright.ir.arch import Arch
from tilewright.ir.isa import FORMATS, Opcode, encode, instruction
from tilewright.ir.requant import MODES, encode_scale
from tilewright.ir.verify import _conflict

_NAMES = tuple(f.name for f in FORMATS[Opcode.CONV, None])
_GEOMETRY = [
    "a_base",
    "a_pitch",
    "a_rows",
    "a_row0",
    "d_base",
    "d_pitch",
    "d_rows",
    "d_row0",
    "out_h",
    "out_w",
    "in_h",
    "in_w",
    "sy",
    "sx",
    "dy",
    "dx",
    "pad_top",
    "pad_left",
    "kh",
    "kw",
    "ways",
    "drain_ways",
    "packed",
    "step_y",
    "step_x",
    "last",
]
_KERNEL = [
    "d_base",
    "d_pitch",
    "d_plane",
    "d_rows",
    "d_row0",
    "a_base",
    "a_pitch",
    "a_plane",
    "a_rows",
    "a_row0",
    "out_h",
    "out_w",
    "in_h",
    "in_w",
    "sy",
    "sx",
    "dy",
    "dx",
    "pad_top",
    "pad_left",
    "za",
    "zd",
    "lo",
    "hi",
    "mode",
    "kh",
    "kw",
    "w_base",
    "table",
    "blocks",
    "out_c",
    "lane0",
    "first",
    "last",
    "diagonal",
    "step_y",
    "step_x",
]
_BUSY = [
    "out_h",
    "out_w",
    "kh",
    "kw",
    "blocks",
    "out_c",
    "lane0",
    "ways",
    "drain_ways",
    "packed",
    "last",
    "diagonal",
]


def small_arch(**conv: int) -> Arch:
    """A core around an array of the given shape, with small memories that divide."""
    pixels, ic, oc = conv["pixels"], conv["ic"], conv["oc"]
    banks = 1 << (2 * pixels - 1).bit_length()
    row = 2 * banks * ic
    word = ic * oc
    kib = np.lcm(row, 1024) // 1024
    weights = np.lcm(word, 1024) // 1024
    return Arch.build(
        {
            "conv": conv,
            "dwc": {"pixels": 0, "channels": 0},
            "vec": {"pixels": 1},
            "maps": {"groups": 2, "kib": int(kib * -(-max(4, row * 64 // 1024) // kib))},
            "weights": {"kib": int(weights * -(-max(4, word * 512 // 1024) // weights)), "tables": 2},
        }
    )


@dataclass
class Case:
    """Instructions, the memories before them, and the cycles at which they start."""

    arch: Arch
    rows: list[dict[str, int]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    lasts: list[int] = field(default_factory=list)
    dones: list[int] = field(default_factory=list)
    free: int = 8
    parameters: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(7)
        a = self.arch
        self.maps = rng.integers(-128, 128, (a.maps.groups, a.group_words, a.lanes)).astype(np.int8)
        self.weights = rng.integers(-128, 128, (a.weight_words, a.lanes, a.conv.oc)).astype(np.int8)
        self.tables = rng.integers(-128, 128, (a.weights.tables, 256)).astype(np.int8)

    def add(self, row: dict[str, int], gap: int = 0) -> None:
        """Let `row` start `gap` cycles later than it could."""
        busy, tail = conv_busy(machine(self.arch), *(row[n] for n in _BUSY))
        start = self.free + gap
        self.rows.append(row)
        self.starts.append(start)
        self.lasts.append(start + busy - 1)
        self.dones.append(start + busy + tail)
        self.free = start + busy

    def words(self) -> list[int]:
        """Instruction words as numbers."""
        return [
            int.from_bytes(encode(instruction(Opcode.CONV, **fields)[None]), "little")
            for fields in ({n: v for n, v in row.items() if n != "opcode"} for row in self.rows)
        ]

    def expected(self) -> NDArray[np.int8]:
        """Maps after all instructions."""
        maps = self.maps.copy()
        sums = np.zeros((self.arch.conv.pixels, self.arch.conv.oc), np.int32)
        for row in self.rows:
            fields = placed(row, maps)
            conv(flat(maps), self.weights, self.tables, sums, *(fields[n] for n in _KERNEL))
        return maps

    def parameter_words(self, row: dict[str, int]) -> list[range]:
        """Weight words that hold bias and scale, of each block of output channels."""
        lanes, taps = self.arch.lanes, row["kh"] * row["kw"]
        head = -(-8 // lanes)
        length = head + (-(-taps // lanes) if row["diagonal"] else taps * row["blocks"])
        first = (row["w_base"] + ob * length for ob in range(-(-row["out_c"] // self.arch.conv.oc)))
        return [range(word, word + head) for word in first]

    def write_parameters(self, rng: np.random.Generator, row: dict[str, int]) -> None:
        """Bias and scale words that leave most results inside the range, in the place of random bytes."""
        lanes, oc, mode = self.arch.lanes, self.arch.conv.oc, MODES[row["mode"]]
        taps = row["kh"] * row["kw"]
        products = taps * (1 if row["diagonal"] else row["blocks"] * lanes)
        for words in self.parameter_words(row):
            self.parameters |= set(words)
            bias = rng.integers(-9000, 9000, oc).astype(np.int32)
            ratio = 2.0 ** rng.uniform(-8, -5, oc) / np.sqrt(products)
            if mode == "shift":
                ratio = 2.0 ** -rng.integers(3, 12, oc)
            scale = encode_scale(ratio, mode).astype(np.uint32)
            planes = np.concatenate([v.view(np.uint8).reshape(oc, 4).T for v in (bias, scale)]).view(np.int8)
            for k in range(8):
                self.weights[words[k // lanes], k % lanes] = planes[k]


def random_row(rng: np.random.Generator, case: Case, **fixed: int) -> dict[str, int] | None:
    """A legal instruction: source in group 0, destination in group 1; None where the dice do not fit the memories."""
    a = case.arch
    lanes, oc, pixels, words = a.lanes, a.conv.oc, a.conv.pixels, a.group_words
    dice = rng.integers

    def few(*values: int) -> int:
        return int(rng.choice(values))

    row = dict.fromkeys(_NAMES, 0) | {
        "opcode": int(Opcode.CONV), "out_h": few(1, 1, 2, 3, 4), "out_w": few(1, 2, 3, pixels, pixels + 1, 2 * pixels, 7),
        "sy": few(1, 1, 2, 3), "sx": few(1, 1, 2, 3, 4), "dy": few(1, 1, 2), "dx": few(1, 1, 3), "kh": few(1, 1, 2, 3),
        "kw": few(1, 1, 2, 3), "blocks": few(1, 1, 2, 3), "za": int(dice(-128, 128)), "zd": int(dice(-20, 20)),
        "lo": few(-128, -128, -5), "hi": few(127, 127, 60), "mode": int(dice(3)), "table": int(dice(3)),
        "out_c": few(1, oc, oc, oc - 1, oc + 1, 2 * oc, 2 * oc + 3, 3 * oc), "lane0": few(0, 0, int(dice(lanes))),
        "diagonal": few(0, 0, 1), "packed": few(0, 0, 1), "first": 1, "last": 1, "step_y": few(1, 1, 2),
        "step_x": few(1, 1, 2), "pad_top": few(0, 0, 1, 2), "pad_left": few(0, 0, 1, 3), "d_group": 1, "a_group": 0,
    }  # fmt: skip
    row |= fixed
    if MODES[row["mode"]] not in a.rounding:
        row["mode"] = MODES.index(a.rounding[0])
    span_y = (row["out_h"] - 1) * row["sy"] + (row["kh"] - 1) * row["dy"] + 1 - row["pad_top"]
    span_x = (row["out_w"] - 1) * row["sx"] + (row["kw"] - 1) * row["dx"] + 1 - row["pad_left"]
    row["in_h"], row["in_w"] = max(1, span_y + int(dice(-2, 2))), max(1, span_x + int(dice(-2, 3)))
    row["a_rows"] = row["in_h"] + int(dice(3))
    row["a_row0"] = int(dice(row["a_rows"]))
    row["a_pitch"] = row["in_w"] + int(dice(4))
    row["a_plane"] = row["a_rows"] * row["a_pitch"] + int(dice(5))
    inputs = -(-row["out_c"] // lanes) if row["diagonal"] else row["blocks"]
    row["d_rows"] = (row["out_h"] - 1) * row["step_y"] + 1 + int(dice(3))
    row["d_row0"] = int(dice(row["d_rows"]))
    row["d_pitch"] = (row["out_w"] - 1) * row["step_x"] + 1 + int(dice(3))
    row["d_plane"] = row["d_rows"] * row["d_pitch"] + int(dice(5))
    outputs = -(-(row["lane0"] + row["out_c"]) // lanes)
    room = [words - inputs * row["a_plane"], words - outputs * row["d_plane"]]
    taps = row["kh"] * row["kw"]
    length = -(-8 // lanes) + (-(-taps // lanes) if row["diagonal"] else taps * row["blocks"])
    room.append(a.weight_words - -(-row["out_c"] // oc) * length)
    if min(room) < 1:
        return None
    row["a_base"], row["d_base"], row["w_base"] = (int(dice(r)) for r in room)
    for ways in range(1, pixels + 1):
        row["ways"] = ways
        row["drain_ways"] = min(ways, a.conv.drain)
        *_, bank, what = _conflict(pixels, a.conv.drain, a.banks, *(row[n] for n in _GEOMETRY))
        if bank < 0:
            break
        if what and ways >= a.conv.drain:
            return None
    else:
        return None
    extra = int(dice(3)) == 0
    row["ways"] = min(31, row["ways"] + extra * int(dice(3)))
    row["drain_ways"] = min(31, row["drain_ways"] + extra * int(dice(3)))
    *_, bank, _what = _conflict(pixels, a.conv.drain, a.banks, *(row[n] for n in _GEOMETRY))
    return row if bank < 0 else None


def random_case(arch: Arch, seed: int, cycles: int, **fixed: int) -> Case:
    """Instructions for about that many cycles; most of them as close as they may be."""
    rng, case = np.random.default_rng(seed), Case(arch)
    while case.free < cycles:
        row = random_row(rng, case, **fixed)
        if row is None:
            continue
        busy, _ = conv_busy(machine(arch), *(row[n] for n in _BUSY))
        if busy > cycles:
            continue
        if any(word in case.parameters for words in case.parameter_words(row) for word in words):
            continue
        chain = [row]
        small = row["out_h"] * row["out_w"] <= arch.conv.pixels and row["out_c"] <= arch.conv.oc
        if (
            small and (row["out_h"] == 1 or row["packed"]) and rng.integers(2)
        ):  # a sum in several instructions
            between = [row | {"first": 0, "last": 0}] * int(rng.integers(3))
            chain = [row | {"last": 0}, *between, row | {"first": 0}]
        case.write_parameters(rng, row)
        for part in chain:
            case.add(part, int(rng.choice([0, 0, 0, 1, 5])))
    return case
