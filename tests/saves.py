"""Random SAVE instructions, what the emulator makes of them, and the timing rules in plain Python."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from map_words import flat, placed
from numpy.typing import NDArray
from tilewright.hwsim.emulate_dram import save
from tilewright.ir.arch import Arch
from tilewright.ir.latency import BURST_INTERVAL, SAVE_SEND, SAVE_START, SAVE_TAIL

Row = dict[str, int]
BASE = 0x12_3456_7803  # of the maps region: any byte, above 32 bits
DRAM_BYTES = 1 << 15
ACCEPT, RESPONSE = 7, 5  # cycles of the exact memory: address to stored, stored to response


def machine(
    ports: int, bits: int, lanes: int, burst: int, outstanding: int, pixels: int = 2, kib: int = 0
) -> Arch:
    row = 2 * lanes << (2 * pixels - 1).bit_length()
    return Arch.build(
        {
            "conv": {"pixels": pixels, "ic": lanes, "oc": 4, "drain": 1},
            "dwc": {"pixels": 0, "channels": 0},
            "vec": {"pixels": 1},
            "maps": {"kib": kib or row, "groups": 2},
            "weights": {"kib": 4 * lanes},
            "dma": {"ports": ports, "bits": bits, "burst": burst, "outstanding": outstanding},
        }
    )


def random_save(arch: Arch, rng: random.Random, address: int, most: int) -> tuple[Row, int]:
    """A legal SAVE of at most `most` bytes from `address` on, and the address behind it."""
    while True:
        take = rng.choice((arch.lanes, arch.lanes, arch.lanes, rng.randint(1, arch.lanes)))
        width, height, blocks = rng.randint(1, 40), rng.choice((1, 2, 3, 5)), rng.choice((1, 1, 2, 3))
        total = take * width * height * blocks
        if total <= most:
            break
    runs1 = rng.choice([n for n in range(1, 9) if total % n == 0])
    runs2 = rng.choice([n for n in range(1, 9) if total // runs1 % n == 0])
    if rng.random() < 0.15:  # runs of a few bytes
        runs1, runs2 = total, 1
    run = total // (runs1 * runs2)
    stride1 = run + rng.choice((0, 0, rng.randint(1, 40)))
    stride2 = (runs1 - 1) * stride1 + run + rng.choice((0, 0, rng.randint(1, 70)))
    rows, words = height + rng.randint(0, 3), arch.group_words
    pitch = width + rng.randint(0, 3)
    plane = rows * pitch + rng.randint(0, 5)
    span = (blocks - 1) * plane + (rows - 1) * pitch + width
    if span > words:
        return random_save(arch, rng, address, most)
    row = {
        **{"a_group": rng.randrange(2), "a_base": rng.randint(0, words - span), "a_pitch": pitch},
        **{"a_plane": plane, "a_rows": rows, "a_row0": rng.randrange(rows), "region": 2, "address": address},
        **{"run_bytes": run, "runs1": runs1, "stride1": stride1, "runs2": runs2, "stride2": stride2},
        **{"width": width, "height": height, "blocks": blocks, "take": take},
    }
    return row, address + (runs2 - 1) * stride2 + (runs1 - 1) * stride1 + run


def bursts_of(row: Row, arch: Arch) -> list[tuple[int, int]]:
    """Address and bytes of each burst, from a walk over single bytes."""
    n1, n2, n = row["runs1"], row["runs2"], row["run_bytes"]
    inner = n1 == 1 or row["stride1"] == n
    outer = inner and (n2 == 1 or row["stride2"] == n * n1)
    found: list[tuple[int, int]] = []
    for i2 in range(n2):
        for i1 in range(n1):
            first = BASE + row["address"] + i2 * row["stride2"] + i1 * row["stride1"]
            new = not ((inner and i1) or (outer and (i1 or i2)))
            for at in range(first, first + n):
                if new or at % arch.burst_bytes == 0:
                    found.append((at, 0))
                new = False
                found[-1] = (found[-1][0], found[-1][1] + 1)
    return found


def costs(row: Row, arch: Arch) -> list[int]:
    """Cycles to gather each burst."""
    take = row["take"]
    unit = arch.group_move if take == arch.lanes else 1
    groups = deque(  # first byte of each
        (r * row["width"] + x) * take
        for r in range(row["height"] * row["blocks"])
        for x in range(0, row["width"], unit)
    )
    out, at = [], 0
    for _, size in bursts_of(row, arch):
        cycles, end = 0, at + size
        while at < end:
            at = min(at + arch.stream_bytes, end)
            new = 0
            while groups and groups[0] < at:
                groups.popleft()
                new += 1
            cycles += max(1, new)
        out.append(max(BURST_INTERVAL, cycles))
    return out


def pads(row: Row, arch: Arch) -> int:
    """Cycles before a first burst that one group fills: it has to take `BURST_INTERVAL`."""
    group = row["take"] * (min(arch.group_move, row["width"]) if row["take"] == arch.lanes else 1)
    return int(bursts_of(row, arch)[0][1] <= min(group, arch.stream_bytes))


@dataclass
class Timing:
    """Cycles of what is seen on the pins."""

    start: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    addresses: list[list[int]] = field(default_factory=list)  # by port
    beats: list[list[int]] = field(default_factory=list)


def expected(rows: list[Row], arch: Arch, first: int) -> Timing:
    """The timing rules, for a memory that takes everything at once."""
    ports = arch.dma.ports
    out = Timing(addresses=[[] for _ in range(ports)], beats=[[] for _ in range(ports)])
    free, completed = [0] * ports, list[int]()
    start, gathered, before = first, 0, -1
    for row in rows:
        out.start.append(start)
        finish = 0
        for (at, size), cost in zip(bursts_of(row, arch), costs(row, arch), strict=True):
            k = len(completed)
            slot = k - arch.dma.outstanding * ports
            gathered = max(gathered, start + SAVE_START, completed[slot] if slot >= 0 else 0) + cost
            port, beats = k % ports, -(-(at % arch.beat_bytes + size) // arch.beat_bytes)
            out.addresses[port].append(gathered)
            begin = max(gathered + SAVE_SEND, free[port])
            free[port] = begin + beats
            out.beats[port] += range(begin, begin + beats)
            completed.append(max(gathered + ACCEPT, free[port]) + RESPONSE)
            finish = max(finish, completed[-1])
        out.last.append(gathered - 1)
        before = max(finish + SAVE_TAIL, before + 1)
        out.done.append(before)
        start = gathered
    return out


def program(arch: Arch, seed: int, count: int, most: int) -> list[Row]:
    """SAVEs of at most `most` bytes each, one behind the other in DRAM."""
    rng, rows, at = random.Random(seed), [], 100 + 13 * (seed % 50)
    for _ in range(count):
        row, at = random_save(arch, rng, at, most)
        rows.append(row)
        at += rng.choice((0, rng.randint(1, 300)))
    assert at <= DRAM_BYTES - 64
    return rows


def saved(maps: NDArray[np.int8], dram: NDArray[np.int8], rows: list[Row]) -> NDArray[np.int8]:
    """DRAM as the emulator leaves it."""
    names = [
        *("a_base", "a_pitch", "a_plane", "a_rows", "a_row0", "address", "run_bytes", "runs1"),
        *("stride1", "stride2", "width", "height", "blocks", "take"),
    ]
    dram = dram.copy()
    for row in rows:
        fields = placed(row, maps)
        save(flat(maps), dram, *(fields[n] for n in names))
    return dram
