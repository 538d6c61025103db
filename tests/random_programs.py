"""Instructions in random order on small machines: order of time alone, no values."""

from __future__ import annotations

import numpy as np
from tilewright.ir.arch import Arch
from tilewright.ir.isa import ENGINE_OF, Engine, Memory, Opcode, Program, Region, VecOp, instruction

__all__ = ["ARCHES", "MEMORIES", "WAITS", "random_program"]

WAITS = {e: f"wait_{e.name.lower()}" for e in Engine}

ARCHES = {
    "b512": Arch.preset("b512"),
    "b4096": Arch.preset("b4096"),
    "one narrow port, short queues": Arch.preset("b512").override(
        {
            "dma.bits": 32,
            "dma.ports": 1,
            "dma.burst": 16,
            "dma.outstanding": 1,
            "queues.depth": 2,
            "queues.prefetch": 16,
        }
    ),
    "odd shape": Arch.preset("b1152").override(
        {
            "conv.oc": 10,
            "dwc.channels": 5,
            "dwc.taps": 4,
            "weights.kib": 240,
            "maps.groups": 2,
            "dma.ports": 3,
            "dma.burst": 8,
        }
    ),
}
MEMORIES = ("fixed:16,40", "fixed:3.7,7", "banked:DDR4-2400x64", "banked:DDR3L-667x16")


def _fill(arch: Arch, rng: np.random.Generator) -> dict[str, int]:
    """Fields of a FILL of any memory."""
    memory = Memory(int(rng.integers(4)))
    if memory == Memory.TABLES:
        return {"func": memory, "records": 2, "run_bytes": 512}
    if memory == Memory.VECTOR:
        return {"func": memory, "run_bytes": 4 * int(rng.choice((1, 16, 175)))}
    plane, depth = (arch.conv.oc, arch.lanes) if memory == Memory.WEIGHTS else (arch.lanes, arch.dwc.taps)
    head, words, tail = -(-8 // depth), int(rng.choice((1, 2, 9))), int(rng.integers(1, depth + 1))
    records = int(rng.choice((1, 3)))
    return {
        "func": memory, "records": records, "record_rows": head + words, "tail_take": tail,
        "run_bytes": records * plane * (8 + (words - 1) * depth + tail),
    }  # fmt: skip


def _stream(arch: Arch, opcode: Opcode, rng: np.random.Generator) -> dict[str, int]:
    """Fields of a LOAD or SAVE: rows of a map, straight, narrow or folded, as one run, a run a row or a run a block."""

    def pick(*choices: int) -> int:
        return int(rng.choice(choices))

    width, height, blocks, take = (
        pick(1, 3, 7, 32),
        pick(1, 2, 5),
        pick(1, 2),
        pick(1, 3, arch.lanes, arch.lanes),
    )
    more = {}
    row_bytes = width * take
    if opcode == Opcode.LOAD:
        step, fold, pad = take, 1, 0
        if take < arch.lanes and rng.random() < 0.5:
            step, fold, pad = pick(1, 2, 7), pick(1, 2, 3), pick(0, 1, 5)
            row_bytes = max(1, (width - 1) * step + fold * take - pad - pick(0, 2))
        more = {"step": step, "fold": fold, "fold_pad": pad, "row_bytes": row_bytes}
    runs = ((1, 1), (height, blocks), (1, blocks))[int(rng.integers(3))]
    run = blocks * height * row_bytes // (runs[0] * runs[1])
    return {
        **more, "region": Region.MAPS, "address": pick(0, 16, 4000, 9999), "run_bytes": run, "runs1": runs[0],
        "stride1": run + pick(0, 0, 16), "runs2": runs[1], "stride2": runs[0] * (run + 16) + pick(0, 100),
        "width": width, "height": height, "blocks": blocks, "take": take,
    }  # fmt: skip


def _place(operand: str, groups: int, rng: np.random.Generator) -> dict[str, int]:
    """One map group, or sometimes several."""
    first = int(rng.integers(groups))
    last = first if rng.random() < 0.7 else int(rng.integers(first, groups))
    return {f"{operand}_group": first, f"{operand}_span": last - first}


def random_program(arch: Arch, seed: int, count: int = 60) -> Program:
    """Small instructions in random order with random waits on earlier ones; order of time alone, not of values."""
    rng = np.random.default_rng(seed)

    def pick(*choices: int) -> int:
        return int(rng.choice(choices))

    given = dict.fromkeys(Engine, 0)
    rows, traffic = [], []
    groups = arch.maps.groups
    while len(rows) < count:
        opcode = Opcode(
            pick(*(int(o) for o in Opcode if o != Opcode.END and (o != Opcode.DWC or arch.has_dwc)))
        )
        engine = ENGINE_OF[opcode]
        waits = {
            WAITS[e]: int(rng.integers(max(0, n - 3), n + 1)) % 65536
            for e, n in given.items()
            if n and rng.random() < 0.5
        }
        d, a, b = (_place(p, groups, rng) for p in "dab")
        extent = {"out_h": pick(1, 2, 5), "out_w": pick(1, 3, 9, 16), "blocks": pick(1, 2, 3)}
        window = {"sy": pick(1, 2, 3), "sx": pick(1, 2, 4), "dy": pick(1, 2), "dx": pick(1, 2)}
        kernel = {"kh": pick(1, 2, 3, 8), "kw": pick(1, 2, 3, 5)}
        if opcode == Opcode.CONV:
            row = instruction(
                opcode, **d, **a, **extent, **window, **kernel, **waits, out_c=pick(1, 7, 16, 33), lane0=pick(0, 1, 3),
                ways=pick(1, 2), drain_ways=pick(1, 2), packed=pick(0, 1), first=1, last=pick(0, 1, 1), diagonal=pick(0, 0, 1),
            )  # fmt: skip
        elif opcode == Opcode.DWC:
            row = instruction(opcode, **d, **a, **extent, **window, **kernel, **waits)
        elif opcode == Opcode.VEC:
            func = VecOp(pick(*(int(v) for v in VecOp)))
            extra: dict[str, int] = {}
            if func in {VecOp.ADD, VecOp.MUL}:
                extra = {**b, "broadcast": pick(0, 1)}
            elif func in {VecOp.MAX, VecOp.AVG}:
                extra = {**window, **kernel}
            elif func == VecOp.TABLE:
                extra = {"sy": window["sy"], "sx": window["sx"], "table": pick(0, 1)}
            elif func == VecOp.RESIZE:
                extra = {"bilinear": pick(0, 1)}
            row = instruction(opcode, func, **d, **a, **extent, **extra, **waits)
        elif opcode == Opcode.FILL:
            row = instruction(
                opcode, **waits, **_fill(arch, rng), region=Region.WEIGHTS, address=pick(0, 5, 4090)
            )  # fmt: skip
        else:
            row = instruction(
                opcode, **(d if opcode == Opcode.LOAD else a), **waits, **_stream(arch, opcode, rng)
            )
        rows.append(row)
        traffic.append({Opcode.LOAD: 1, Opcode.FILL: 2, Opcode.SAVE: 3}.get(opcode, 0))
        given[engine] += 1
    rows.append(instruction(Opcode.END))
    n = len(rows)
    layer = np.arange(n, dtype=np.int32) // 7
    return Program(
        np.array(rows),
        np.zeros(9000, np.uint8),
        1 << 16,
        arch.design_hash,
        layer,
        np.array([*traffic, 0], np.int8),
    )
