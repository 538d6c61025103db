"""The emulator computes what the reference computes, one instruction at a time, in every legal order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tilewright.hwsim.emulate import Emulation, emulate
from tilewright.ir.arch import Arch
from tilewright.ir.depthwise import fits
from tilewright.ir.errors import SimulationError
from tilewright.ir.graph import Add, Conv, Mul, Op, Pool, PRelu, Quant, Resize, Table, Window
from tilewright.ir.hazards import assign_waits
from tilewright.ir.isa import COLUMNS, Engine, Memory, Opcode, Program, Region, VecOp, instruction
from tilewright.ir.reference import evaluate
from tilewright.ir.requant import MODES, RoundingMode, encode_pair, encode_scale

SETTINGS = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def machine(pixels: int = 4, ic: int = 8, oc: int = 8, **more: object) -> Arch:
    """A small core; memories hold any lane count used here."""
    return Arch.model_validate(
        {
            "name": f"t{pixels}x{ic}x{oc}",
            "conv": {"pixels": pixels, "ic": ic, "oc": oc, "drain": min(2, pixels)},
            "dwc": {"pixels": pixels, "channels": ic, "drain": 1},
            "vec": {"pixels": 1},
            "maps": {"kib": 4 * 15 * ic, "groups": 4},
            "weights": {"kib": ic * oc, "tables": 4},
            **more,
        }
    )


ARCHS = (machine(), machine(8, 4, 6), machine(4, 16, 8), machine(2, 6, 10), machine(4, 12, 12))


@dataclass
class Place:
    """A map operand, as the instruction fields name it."""

    group: int
    base: int
    pitch: int
    plane: int
    rows: int
    row0: int

    def fields(self, prefix: str) -> dict[str, int]:
        names = ("group", "base", "pitch", "plane", "rows", "row0")
        return {f"{prefix}_{n}": getattr(self, n) for n in names}

    @classmethod
    def of(
        cls,
        shape: tuple[int, int, int],
        lanes: int,
        group: int,
        base: int = 0,
        *,
        gap: int = 0,
        turn: int = 0,
    ) -> Place:
        """Rows `gap` words apart, in a ring of exactly the map's rows whose first row is row `turn`."""
        h, w, _ = shape
        pitch = w + gap
        return cls(group, base, pitch, pitch * h + gap, h, turn % h)


@dataclass
class Bench:
    """Builds a program around one instruction: constants and maps in, result out."""

    arch: Arch
    rows: list[np.ndarray] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)
    maps: bytearray = field(default_factory=bytearray)

    def add(self, opcode: Opcode, func: int = 0, **values: int) -> None:
        self.rows.append(instruction(opcode, func, **values))

    def blocks(self, channels: int) -> int:
        return -(-channels // self.arch.lanes)

    def fill(self, memory: Memory, data: bytes, **values: int) -> None:
        self.add(
            Opcode.FILL,
            memory,
            region=Region.WEIGHTS,
            address=len(self.weights),
            run_bytes=len(data),
            **values,
        )
        self.weights += data

    def _walk(
        self, shape: tuple[int, int, int], place: Place, opcode: Opcode, prefix: str, address: int
    ) -> None:
        """LOAD or SAVE of a map in DRAM order [block][row][column][lane], the last block dense."""
        h, w, c = shape
        lanes = self.arch.lanes
        full = c // lanes
        for first, blocks, take in ((0, full, lanes), (full, 1, c % lanes)):
            if blocks and take:
                where = {**place.fields(prefix), f"{prefix}_base": place.base + first * place.plane}
                walk = {"step": take, "fold": 1, "row_bytes": w * take} if opcode == Opcode.LOAD else {}
                run = h * w * take
                self.add(
                    opcode, **where, **walk, region=Region.MAPS, address=address, run_bytes=run, runs1=blocks, stride1=run,
                    runs2=1, width=w, height=h, blocks=blocks, take=take,
                )  # fmt: skip
                address += blocks * run

    def load(self, x: np.ndarray, place: Place) -> None:
        self._walk(x.shape, place, Opcode.LOAD, "d", len(self.maps))
        self.maps += blocked(x, self.arch.lanes)

    def run(self, shape: tuple[int, int, int], place: Place, **how: object) -> tuple[np.ndarray, Emulation]:
        """Save the result, run, and hand it back as (H, W, C)."""
        address = len(self.maps)
        self._walk(shape, place, Opcode.SAVE, "a", address)
        self.maps += bytes(int(np.prod(shape)))
        self.add(Opcode.END)
        result = emulate(self.program(), self.arch, np.frombuffer(bytes(self.maps), np.int8), **how)
        return unblocked(result.maps[address:], shape, self.arch.lanes), result

    def program(self) -> Program:
        weights = np.frombuffer(bytes(self.weights), np.uint8)
        fields = assign_waits(np.array(self.rows), self.arch, weights)
        traffic = np.select(
            [np.isin(fields[:, 0], (Opcode.LOAD,)), fields[:, 0] == Opcode.FILL, fields[:, 0] == Opcode.SAVE],
            [1, 2, 3],
        )
        return Program(
            fields,
            weights,
            len(self.maps),
            self.arch.design_hash,
            np.zeros(len(fields), np.int32),
            traffic.astype(np.int8),
        )


def blocked(x: np.ndarray, lanes: int) -> bytes:
    return b"".join(x[:, :, c : c + lanes].tobytes() for c in range(0, x.shape[2], lanes))


def unblocked(data: np.ndarray, shape: tuple[int, int, int], lanes: int) -> np.ndarray:
    h, w, c = shape
    parts, at = [], 0
    for first in range(0, c, lanes):
        take = min(lanes, c - first)
        parts.append(data[at : at + h * w * take].reshape(h, w, take))
        at += h * w * take
    return np.concatenate(parts, axis=2)


def parameters(bias: np.ndarray, words: np.ndarray, count: int) -> np.ndarray:
    """Eight bytes a channel, zero beyond the real ones."""
    out = np.zeros((count, 8), np.uint8)
    out[: len(bias), :4] = bias.astype("<i4").view(np.uint8).reshape(-1, 4)
    out[: len(words), 4:] = words.astype("<u4").view(np.uint8).reshape(-1, 4)
    return out


def weight_records(
    op: Conv, bias: np.ndarray, arch: Arch, *, diagonal: bool = False
) -> tuple[bytes, dict[str, int]]:
    """The FILL stream of a convolution's weights, and its record fields."""
    lanes, oc = arch.lanes, arch.conv.oc
    o, kh, kw, i = op.weight.shape
    blocks, head = -(-i // lanes), -(-8 // lanes)
    tail = i - lanes * (blocks - 1)
    out = bytearray()
    for first in range(0, o, oc):
        n = min(oc, o - first)
        head_bytes = parameters(bias[first : first + n], op.scale_word[first : first + n], oc)
        for word in range(head):
            out += head_bytes[:, word * lanes : min(8, (word + 1) * lanes)].T.tobytes()
        if diagonal:
            taps = np.zeros((oc, -(-kh * kw // lanes) * lanes), np.int8)
            taps[:n, : kh * kw] = op.weight[first : first + n].reshape(n, -1)
            rows = taps.shape[1] // lanes
            tail = kh * kw - lanes * (rows - 1)
            for word in range(rows):
                out += taps[:, word * lanes : (word + 1) * lanes][
                    :, : tail if word == rows - 1 else lanes
                ].T.tobytes()
            continue
        rows = kh * kw * blocks
        padded = np.zeros((oc, kh, kw, blocks * lanes), np.int8)
        padded[:n, :, :, :i] = op.weight[first : first + n]
        padded = padded.reshape(oc, rows, lanes)
        for word in range(rows):
            out += padded[:, word, : tail if word == rows - 1 else lanes].T.tobytes()
    return bytes(out), {"records": -(-o // oc), "record_rows": head + rows, "tail_take": tail}


def depthwise_records(op: Conv, bias: np.ndarray, arch: Arch) -> tuple[bytes, dict[str, int]]:
    """The FILL stream of a depthwise convolution's weights: a word for each step of up to `dwc.taps` taps."""
    lanes, slots = arch.lanes, arch.dwc.taps
    c, kh, kw, _ = op.weight.shape
    rows = min(slots // kw, max(1, slots // 3))  # kernel rows a step
    if rows:
        steps = [
            [(ky, kx) for ky in range(y, min(y + rows, kh)) for kx in range(kw)] for y in range(0, kh, rows)
        ]
    else:
        steps = [
            [(ky, kx) for kx in range(x, min(x + slots, kw))] for ky in range(kh) for x in range(0, kw, slots)
        ]
    out, head = bytearray(), -(-8 // slots)
    for first in range(0, c, lanes):
        n = min(lanes, c - first)
        params = parameters(bias[first : first + n], op.scale_word[first : first + n], lanes)
        for word in range(head):
            out += params[:, word * slots : min(8, (word + 1) * slots)].T.tobytes()
        for i, step in enumerate(steps):
            word_ = np.zeros((len(step) if i == len(steps) - 1 else slots, lanes), np.int8)
            for j, (ky, kx) in enumerate(step):
                word_[j, :n] = op.weight[first : first + n, ky, kx, 0]
            out += word_.tobytes()
    return bytes(out), {
        "records": -(-c // lanes),
        "record_rows": head + len(steps),
        "tail_take": len(steps[-1]),
    }


def reference(op: Op, xs: tuple[np.ndarray, ...], zeros: tuple[int, ...], zd: int) -> np.ndarray:
    return evaluate(op, xs, tuple(Quant(1.0, z) for z in zeros), Quant(1.0, zd))


# -- strategies --------------------------------------------------------------------------------------------------------

zero_points = st.sampled_from((0, -128, 127, 5, -17))
seeds = st.integers(0, 2**32 - 1)


@st.composite
def windows(draw: st.DrawFn, most: int = 4) -> tuple[Window, int, int]:
    """A window and a map it fits."""
    kernel = draw(st.tuples(*[st.integers(1, most)] * 2))
    stride = draw(st.tuples(*[st.integers(1, 3)] * 2))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * 2))
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    pad = tuple(draw(st.integers(0, min(span[a % 2] - 1, 3))) for a in range(4))
    h = draw(st.integers(max(1, span[0] - pad[0] - pad[2]), 9))
    w = draw(st.integers(max(1, span[1] - pad[1] - pad[3]), 11))
    return Window(kernel, stride, dilation, pad), h, w  # type: ignore[arg-type]


def window_fields(window: Window, h: int, w: int) -> dict[str, int]:
    (sy, sx), (dy, dx), (kh, kw) = window.stride, window.dilation, window.kernel
    oh, ow = window.output(h, w)
    return {
        "out_h": oh, "out_w": ow, "in_h": h, "in_w": w, "sy": sy, "sx": sx, "dy": dy, "dx": dx, "kh": kh, "kw": kw,
        "pad_top": window.pad[0], "pad_left": window.pad[1],
    }  # fmt: skip


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, int]:
    low = draw(st.sampled_from((-128, -128, -20, 0)))
    return {"low": low, "high": draw(st.sampled_from((127, 127, 20, low)))}


def scale_words(rng: np.random.Generator, mode: str, count: int, typical: float) -> np.ndarray:
    """Multipliers around `typical`, half of them powers of two, where ties are common."""
    m = typical * rng.uniform(0.5, 2.0, count)
    m = np.where(rng.random(count) < 0.5, 2.0 ** np.floor(np.log2(m)), m)
    return encode_scale(np.minimum(m, 1.0), mode)  # type: ignore[arg-type]


def int8(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


def random_conv(
    rng: np.random.Generator,
    window: Window,
    channels: tuple[int, int],
    *,
    mode: RoundingMode,
    groups: int = 1,
    **limits: int,
) -> Conv:
    i, o = channels
    weight = int8(rng, o, *window.kernel, i // groups)
    bias = rng.integers(-(1 << 14), 1 << 14, o).astype(np.int32)
    words = scale_words(rng, mode, o, 1.0 / (64 * np.sqrt(weight[0].size)))
    return Conv(
        "conv",
        ("x",),
        "y",
        weight=weight,
        bias=bias,
        scale_word=words,
        window=window,
        groups=groups,
        mode=mode,
        **limits,
    )


# -- one instruction each ----------------------------------------------------------------------------------------------


@SETTINGS
@given(st.data())
def test_a_convolution_equals_the_reference(data: st.DataObject) -> None:
    """Any window, channel counts, ring, first lane, destination step, clamp, mode and table."""
    arch = data.draw(st.sampled_from(ARCHS))
    window, h, w = data.draw(windows())
    i, o = data.draw(st.integers(1, 2 * arch.lanes + 1)), data.draw(st.integers(1, 2 * arch.conv.oc + 1))
    mode, limits = data.draw(st.sampled_from(MODES)), data.draw(ranges())
    za, zd, rng = data.draw(zero_points), data.draw(zero_points), np.random.default_rng(data.draw(seeds))
    lane0, table = data.draw(st.integers(0, arch.lanes - 1)), data.draw(st.booleans())
    step_y, step_x = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    op = random_conv(rng, window, (i, o), mode=mode, **limits)
    x = int8(rng, h, w, i)
    want = reference(op, (x,), (za,), zd)
    oh, ow, _ = want.shape

    bench = Bench(arch)
    stream, record = weight_records(op, op.bias - za * op.weight.astype(np.int64).sum(axis=(1, 2, 3)), arch)
    bench.fill(Memory.WEIGHTS, stream, m_base=3, **record)
    source = Place.of(
        x.shape, arch.lanes, 0, 5, gap=data.draw(st.integers(0, 2)), turn=data.draw(st.integers(0, 8))
    )
    bench.load(x, source)
    # What stands around the result must stay.
    whole = int8(rng, oh * step_y, ow * step_x, -(-(lane0 + o) // arch.lanes) * arch.lanes)
    target = Place.of(whole.shape, arch.lanes, 1, 1, gap=1, turn=data.draw(st.integers(0, 8)))
    bench.load(whole, target)
    if table:
        values = int8(rng, 256)
        want = values[want.astype(int) + 128]
        bench.fill(Memory.TABLES, values.tobytes(), m_base=2, records=1)
    bench.add(
        Opcode.CONV, **target.fields("d"), **source.fields("a"), **window_fields(window, h, w), za=za, zd=zd,
        lo=op.low, hi=op.high, mode=MODES.index(mode), w_base=3, table=3 * table, blocks=bench.blocks(i), out_c=o,
        lane0=lane0, ways=arch.conv.pixels, drain_ways=arch.conv.drain, packed=data.draw(st.integers(0, 1)),
        first=1, last=1, step_y=step_y, step_x=step_x,
    )  # fmt: skip
    got, _ = bench.run(whole.shape, target, order=data.draw(st.sampled_from(("stream", "random"))))
    whole[::step_y, ::step_x, lane0 : lane0 + o] = want
    np.testing.assert_array_equal(got, whole)


@SETTINGS
@given(st.data())
def test_a_diagonal_convolution_equals_a_depthwise_reference(data: st.DataObject) -> None:
    """The array computes a depthwise layer channel by channel."""
    arch = data.draw(st.sampled_from(ARCHS))
    window, h, w = data.draw(windows())
    c, mode = data.draw(st.integers(2, 3 * arch.lanes)), data.draw(st.sampled_from(MODES))
    za, zd, rng = data.draw(zero_points), data.draw(zero_points), np.random.default_rng(data.draw(seeds))
    op = random_conv(rng, window, (c, c), mode=mode, groups=c, **data.draw(ranges()))
    x = int8(rng, h, w, c)
    want = reference(op, (x,), (za,), zd)
    bench = Bench(arch)
    folded = op.bias - za * op.weight.astype(np.int64).sum(axis=(1, 2, 3))
    stream, record = weight_records(op, folded, arch, diagonal=True)
    bench.fill(Memory.WEIGHTS, stream, m_base=0, **record)
    source, target = Place.of(x.shape, arch.lanes, 0, turn=2), Place.of(want.shape, arch.lanes, 3, 7, turn=1)
    bench.load(x, source)
    bench.add(
        Opcode.CONV, **target.fields("d"), **source.fields("a"), **window_fields(window, h, w), za=za, zd=zd,
        lo=op.low, hi=op.high, mode=MODES.index(mode), blocks=bench.blocks(c), out_c=c, ways=arch.conv.pixels,
        drain_ways=arch.conv.drain, first=1, last=1, diagonal=1, step_y=1, step_x=1,
    )  # fmt: skip
    np.testing.assert_array_equal(bench.run(want.shape, target)[0], want)


@SETTINGS
@given(st.data())
def test_a_convolution_split_over_input_channels_equals_the_reference(data: st.DataObject) -> None:
    """Accumulators carry from one instruction to the next; the later records' bias counts for nothing."""
    arch = data.draw(st.sampled_from(ARCHS))
    window = Window((data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))))
    w = window.kernel[1] + data.draw(st.integers(0, arch.conv.pixels - 1))
    h, parts = window.kernel[0], data.draw(st.integers(2, 3))
    i, o = parts * arch.lanes, data.draw(st.integers(1, arch.conv.oc))
    mode, rng = data.draw(st.sampled_from(MODES)), np.random.default_rng(data.draw(seeds))
    op = random_conv(rng, window, (i, o), mode=mode)
    x = int8(rng, h, w, i)
    za, zd = data.draw(zero_points), 3
    want = reference(op, (x,), (za,), zd)
    bench = Bench(arch)
    source, target = Place.of(x.shape, arch.lanes, 0), Place.of(want.shape, arch.lanes, 1)
    bench.load(x, source)
    folded = op.bias - za * op.weight.astype(np.int64).sum(axis=(1, 2, 3))
    base = 0
    for part in range(parts):
        some = Conv(
            "part", ("x",), "y", weight=op.weight[..., part * arch.lanes : (part + 1) * arch.lanes], bias=op.bias,
            scale_word=op.scale_word, window=window,
        )  # fmt: skip
        stream, record = weight_records(some, folded if part == 0 else int8(rng, o), arch)
        bench.fill(Memory.WEIGHTS, stream, m_base=base, **record)
        bench.add(
            Opcode.CONV, **target.fields("d"), **{**source.fields("a"), "a_base": part * source.plane},
            **window_fields(window, h, w), za=za, zd=zd, lo=-128, hi=127, mode=MODES.index(mode), w_base=base,
            blocks=1, out_c=o, ways=arch.conv.pixels, drain_ways=arch.conv.drain, packed=1, first=int(part == 0),
            last=int(part == parts - 1), step_y=1, step_x=1,
        )  # fmt: skip
        base += record["record_rows"]
    np.testing.assert_array_equal(bench.run(want.shape, target)[0], want)


@SETTINGS
@given(st.data())
def test_the_depthwise_engine_equals_the_reference(data: st.DataObject) -> None:
    """Any window and channel count; the table comes after requantisation."""
    arch = data.draw(st.sampled_from(ARCHS))
    window, h, w = data.draw(windows(5))
    assume(fits(arch, window.kernel, window.stride, window.dilation))
    c, mode = data.draw(st.integers(2, 3 * arch.lanes)), data.draw(st.sampled_from(MODES))
    za, zd, rng = data.draw(zero_points), data.draw(zero_points), np.random.default_rng(data.draw(seeds))
    op = random_conv(rng, window, (c, c), mode=mode, groups=c, **data.draw(ranges()))
    x, values, table = int8(rng, h, w, c), int8(rng, 256), data.draw(st.booleans())
    want = reference(op, (x,), (za,), zd)
    bench = Bench(arch)
    stream, record = depthwise_records(
        op, op.bias - za * op.weight.astype(np.int64).sum(axis=(1, 2, 3)), arch
    )
    bench.fill(Memory.DEPTHWISE, stream, m_base=2, **record)
    bench.fill(Memory.TABLES, values.tobytes(), m_base=0, records=1)
    source, target = (
        Place.of(x.shape, arch.lanes, 2, 1, gap=1, turn=3),
        Place.of(want.shape, arch.lanes, 0, turn=2),
    )
    bench.load(x, source)
    bench.add(
        Opcode.DWC, **target.fields("d"), **source.fields("a"), **window_fields(window, h, w), za=za, zd=zd, lo=op.low,
        hi=op.high, mode=MODES.index(mode), w_base=2, table=int(table), blocks=bench.blocks(c),
    )  # fmt: skip
    if table:
        want = values[want.astype(int) + 128]
    np.testing.assert_array_equal(bench.run(want.shape, target, order="random", seed=1)[0], want)


@SETTINGS
@given(st.data())
def test_sums_and_products_equal_the_reference(data: st.DataObject) -> None:
    """Elementwise, with the second source as large or one pixel, in place or not."""
    arch, func = data.draw(st.sampled_from(ARCHS)), data.draw(st.sampled_from((VecOp.ADD, VecOp.MUL)))
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 2 * arch.lanes)))
    mode, limits, broadcast = data.draw(st.sampled_from(MODES)), data.draw(ranges()), data.draw(st.booleans())
    za, zb, zd = (data.draw(zero_points) for _ in range(3))
    rng = np.random.default_rng(data.draw(seeds))
    a, b = int8(rng, *shape), int8(rng, *((1, 1, shape[2]) if broadcast else shape))
    numbers: dict[str, int]
    op: Op
    if func == VecOp.ADD:
        ratio = st.sampled_from((1.0, 0.5, -0.5, 0.25, 0.3, 1.7, -0.01))
        ma, mb, shift = encode_pair(data.draw(ratio), data.draw(ratio), mode)
        op = Add("add", ("a", "b"), "y", (ma, mb), shift, mode=mode, **limits)
        numbers = {"ma": ma, "mb": mb, "shift": shift}
    else:
        word = int(scale_words(rng, mode, 1, 1 / 128)[0])
        op = Mul("mul", ("a", "b"), "y", word, mode=mode, **limits)
        numbers = {"scale": word}
    want = reference(op, (a, b), (za, zb), zd)
    bench = Bench(arch)
    first, second = Place.of(a.shape, arch.lanes, 0, 2, gap=1, turn=1), Place.of(b.shape, arch.lanes, 0, 600)
    target = first if data.draw(st.booleans()) else Place.of(shape, arch.lanes, 1, turn=2)
    bench.load(a, first)
    bench.load(b, second)
    bench.add(
        Opcode.VEC, func, **target.fields("d"), **first.fields("a"), **second.fields("b"), out_h=shape[0], out_w=shape[1],
        blocks=bench.blocks(shape[2]), za=za, zb=zb, zd=zd, lo=op.low, hi=op.high, mode=MODES.index(mode),
        broadcast=int(broadcast), **numbers,
    )  # fmt: skip
    np.testing.assert_array_equal(bench.run(shape, target)[0], want)


@SETTINGS
@given(st.data())
def test_pooling_equals_the_reference(data: st.DataObject) -> None:
    """Padding never wins a maximum; an average divides by the valid taps, or by all, as its scale words say."""
    arch, kind = data.draw(st.sampled_from(ARCHS)), data.draw(st.sampled_from(("max", "avg")))
    window, h, w = data.draw(windows())
    c, mode, limits = (
        data.draw(st.integers(1, 2 * arch.lanes)),
        data.draw(st.sampled_from(MODES)),
        data.draw(ranges()),
    )
    za, zd, counted = data.draw(zero_points), data.draw(zero_points), data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(seeds))
    x = int8(rng, h, w, c)
    counts = np.arange(1, window.taps + 1)
    words = encode_scale(0.9 / (counts if counted else np.full(window.taps, window.taps)), mode)
    op = Pool(
        "pool", ("x",), "y", kind, window, (0, *map(int, words)) if kind == "avg" else (), mode=mode, **limits
    )
    want = reference(op, (x,), (za,), zd)
    bench = Bench(arch)
    source, target = Place.of(x.shape, arch.lanes, 3, 4, gap=1, turn=2), Place.of(want.shape, arch.lanes, 1)
    bench.load(x, source)
    bench.fill(Memory.VECTOR, np.array([0, *words], "<u4").tobytes(), m_base=1)
    average = {
        "za": za,
        "zd": zd,
        "mode": MODES.index(mode),
        "scale": int(words[-1]),
        "counted": int(counted),
        "v_base": 1,
    }
    bench.add(
        Opcode.VEC, VecOp.AVG if kind == "avg" else VecOp.MAX, **target.fields("d"), **source.fields("a"),
        **window_fields(window, h, w), blocks=bench.blocks(c), lo=op.low, hi=op.high, first=1, last=1, **(average if kind == "avg" else {}),
    )  # fmt: skip
    np.testing.assert_array_equal(bench.run(want.shape, target)[0], want)


@SETTINGS
@given(st.data())
def test_global_pooling_strip_by_strip_equals_the_reference(data: st.DataObject) -> None:
    """Running sums carry from strip to strip, for each channel block, whatever VEC does in between."""
    arch, kind = data.draw(st.sampled_from(ARCHS)), data.draw(st.sampled_from(("max", "avg")))
    heights = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=4))
    h, w, c = sum(heights), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 2 * arch.lanes))
    mode, limits = data.draw(st.sampled_from(MODES)), data.draw(ranges())
    za, zd, rng = data.draw(zero_points), data.draw(zero_points), np.random.default_rng(data.draw(seeds))
    x, window = int8(rng, h, w, c), Window((h, w))
    word = int(encode_scale(1 / (h * w), mode))
    op = Pool(
        "pool", ("x",), "y", kind, window, (word,) * (h * w + 1) if kind == "avg" else (), mode=mode, **limits
    )
    want = reference(op, (x,), (za,), zd)
    bench = Bench(arch)
    source, target = Place.of(x.shape, arch.lanes, 0), Place.of(want.shape, arch.lanes, 1)
    bench.load(x, source)
    average = {"za": za, "zd": zd, "mode": MODES.index(mode), "scale": word}
    at = 0
    for height in heights:
        bench.add(
            Opcode.VEC, VecOp.AVG if kind == "avg" else VecOp.MAX, **target.fields("d"), **{**source.fields("a"), "a_row0": at},
            **window_fields(Window((height, w)), height, w), blocks=bench.blocks(c), lo=op.low, hi=op.high,
            first=int(at == 0), last=int(at + height == h), **(average if kind == "avg" else {}),
        )  # fmt: skip
        at += height
        bench.add(
            Opcode.VEC, VecOp.MAX, **Place.of((1, 1, 1), arch.lanes, 2).fields("d"), **source.fields("a"), out_h=1, out_w=1,
            blocks=1, in_h=1, in_w=1, sy=1, sx=1, dy=1, dx=1, kh=1, kw=1, lo=-128, hi=127, first=1, last=1,
        )  # fmt: skip
    np.testing.assert_array_equal(bench.run(want.shape, target)[0], want)


@SETTINGS
@given(st.data())
def test_a_table_or_a_strided_copy_equals_indexing(data: st.DataObject) -> None:
    """Without a table the instruction is a strided copy."""
    arch, table = data.draw(st.sampled_from(ARCHS)), data.draw(st.integers(0, 4))
    oh, ow, c = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 2 * arch.lanes)))
    sy, sx = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(seeds))
    x, values = int8(rng, (oh - 1) * sy + 1, (ow - 1) * sx + 1, c), int8(rng, 4, 256)
    want = x[::sy, ::sx]
    if table:
        want = reference(Table("t", ("x",), "y", tuple(map(int, values[table - 1]))), (want,), (0,), 0)
    bench = Bench(arch)
    source, target = Place.of(x.shape, arch.lanes, 0, turn=4), Place.of(want.shape, arch.lanes, 1, turn=1)
    bench.load(x, source)
    bench.fill(Memory.TABLES, values.tobytes(), m_base=0, records=4)
    bench.add(
        Opcode.VEC, VecOp.TABLE, **target.fields("d"), **source.fields("a"), out_h=oh, out_w=ow, blocks=bench.blocks(c),
        sy=sy, sx=sx, table=table,
    )  # fmt: skip
    np.testing.assert_array_equal(bench.run(want.shape, target)[0], want)


@SETTINGS
@given(st.data())
def test_a_parametric_relu_equals_the_reference(data: st.DataObject) -> None:
    """Slopes of either sign, a word a channel."""
    arch, mode = data.draw(st.sampled_from(ARCHS)), data.draw(st.sampled_from(MODES))
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 2 * arch.lanes)))
    za, zd, limits = data.draw(zero_points), data.draw(zero_points), data.draw(ranges())
    rng = np.random.default_rng(data.draw(seeds))
    x, slope, negative = int8(rng, *shape), scale_words(rng, mode, shape[2], 0.3), rng.random(shape[2]) < 0.4
    positive = int(scale_words(rng, mode, 1, 0.9)[0])
    op = PRelu("p", ("x",), "y", positive=positive, slope=slope, negative=negative, mode=mode, **limits)
    want = reference(op, (x,), (za,), zd)
    bench = Bench(arch)
    source, target = Place.of(shape, arch.lanes, 0), Place.of(shape, arch.lanes, 1)
    bench.load(x, source)
    words = np.zeros(bench.blocks(shape[2]) * arch.lanes, np.uint32)
    words[: shape[2]] = slope | negative.astype(np.uint32) << 31
    bench.fill(Memory.VECTOR, words.astype("<u4").tobytes(), m_base=3)
    bench.add(
        Opcode.VEC, VecOp.PRELU, **target.fields("d"), **source.fields("a"), out_h=shape[0], out_w=shape[1],
        blocks=bench.blocks(shape[2]), za=za, zd=zd, lo=op.low, hi=op.high, mode=MODES.index(mode), scale=positive, v_base=3,
    )  # fmt: skip
    np.testing.assert_array_equal(bench.run(shape, target)[0], want)


@SETTINGS
@given(st.data())
def test_a_resize_equals_the_reference(data: st.DataObject) -> None:
    """Nearest and bilinear, whole or as a band of rows of a larger map."""
    arch, mode, bilinear = (
        data.draw(st.sampled_from(ARCHS)),
        data.draw(st.sampled_from(MODES)),
        data.draw(st.booleans()),
    )
    h, w, c = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 2 * arch.lanes)))
    oh, ow = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    rng = np.random.default_rng(data.draw(seeds))
    origin = data.draw(st.integers(0, h - 1))  # the tile's first row
    rows, cols = (
        np.stack([rng.integers(first, extent, n), rng.integers(0, 2048, n) * bilinear], axis=1).astype(
            np.int32
        )
        for first, extent, n in ((origin, h, oh), (0, w, ow))
    )
    za, zd, word = data.draw(zero_points), data.draw(zero_points), int(encode_scale(0.9 / 2**22, mode))
    x = int8(rng, h, w, c)
    want = reference(Resize("r", ("x",), "y", rows, cols, word, mode), (x,), (za,), zd)
    bench = Bench(arch)
    band = np.ascontiguousarray(x[origin:])
    source, target = Place.of(band.shape, arch.lanes, 0, turn=1), Place.of(want.shape, arch.lanes, 1)
    bench.load(band, source)
    index = np.concatenate([rows[:, 0] | rows[:, 1] << 16, cols[:, 0] | cols[:, 1] << 16])
    bench.fill(Memory.VECTOR, index.astype("<u4").tobytes(), m_base=4)
    bench.add(
        Opcode.VEC, VecOp.RESIZE, **target.fields("d"), **source.fields("a"), out_h=oh, out_w=ow, blocks=bench.blocks(c),
        za=za, zd=zd, lo=-128, hi=127, mode=MODES.index(mode), in_h=h, in_w=w, origin=origin, scale=word, v_base=4,
        v_cols=4 + oh, bilinear=int(bool(rows[:, 1].any() or cols[:, 1].any())),
    )  # fmt: skip
    np.testing.assert_array_equal(bench.run(want.shape, target)[0], want)


@SETTINGS
@given(st.data())
def test_a_folded_load_places_bytes_as_its_fields_say(data: st.DataObject) -> None:
    """Word j of column x holds the bytes from ``x*step + j*take - fold_pad`` on; outside the row it is za."""
    arch = data.draw(st.sampled_from(ARCHS))
    take, fold, step = (
        data.draw(st.integers(1, arch.lanes)),
        data.draw(st.integers(1, 3)),
        data.draw(st.integers(1, 9)),
    )
    pad, width, row_bytes = (
        data.draw(st.integers(0, 7)),
        data.draw(st.integers(1, 6)),
        data.draw(st.integers(1, 40)),
    )
    height, blocks, za = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 2)), data.draw(zero_points)
    run_rows = data.draw(st.sampled_from([n for n in (1, 2, 3, 4) if height % n == 0]))  # rows in a DRAM run
    gap = data.draw(st.integers(0, 5))
    rng = np.random.default_rng(data.draw(seeds))
    image = int8(rng, blocks, height // run_rows, run_rows * row_bytes + gap)
    want = np.full((height, width, blocks * fold, arch.lanes), 0, np.int8)
    stream = image[:, :, : run_rows * row_bytes].reshape(blocks, height, row_bytes)
    for b in range(blocks):
        for x in range(width):
            for j in range(fold):
                for t in range(take):
                    at = x * step + j * take - pad + t
                    want[:, x, b * fold + j, t] = stream[b, :, at] if 0 <= at < row_bytes else za
    bench = Bench(arch)
    shape = (height, width, blocks * fold * arch.lanes)
    target = Place.of(shape, arch.lanes, 2, 3, gap=1, turn=2)
    bench.maps += image.tobytes()
    line = run_rows * row_bytes + gap
    bench.add(
        Opcode.LOAD, **target.fields("d"), region=Region.MAPS, address=0, run_bytes=run_rows * row_bytes,
        runs1=height // run_rows, stride1=line, runs2=blocks, stride2=line * (height // run_rows), width=width,
        height=height, blocks=blocks, take=take, step=step, fold=fold, fold_pad=pad, row_bytes=row_bytes, za=za,
    )  # fmt: skip
    got, result = bench.run(shape, target)
    np.testing.assert_array_equal(got, want.reshape(shape))
    assert result.read["ifmap"] == blocks * height * row_bytes
    assert result.written["ofmap"] == got.size


# -- the whole ---------------------------------------------------------------------------------------------------------


def chain(arch: Arch, steps: int = 12) -> tuple[Bench, np.ndarray, Place]:
    """Tiles of one map, double-buffered through LOAD, VEC and SAVE with a table: waits of every kind."""
    rng = np.random.default_rng(3)
    bench = Bench(arch)
    values = int8(rng, 256)
    bench.fill(Memory.TABLES, values.tobytes(), m_base=0, records=1)
    shape = (2, 3, arch.lanes)
    tiles = [int8(rng, *shape) for _ in range(steps)]
    begin = len(bench.maps)
    for x in tiles:
        bench.maps += blocked(x, arch.lanes)
    out = len(bench.maps)
    bench.maps += bytes(steps * tiles[0].size)
    for t in range(steps):
        source, target = (
            Place.of(shape, arch.lanes, 0, 50 * (t % 2)),
            Place.of(shape, arch.lanes, 1, 50 * (t % 2)),
        )
        bench._walk(shape, source, Opcode.LOAD, "d", begin + t * tiles[0].size)
        bench.add(
            Opcode.VEC, VecOp.TABLE, **target.fields("d"), **source.fields("a"), out_h=2, out_w=3, blocks=1, sy=1, sx=1,
            table=1,
        )  # fmt: skip
        bench._walk(shape, target, Opcode.SAVE, "a", out + t * tiles[0].size)
    bench.add(Opcode.END)
    want = np.concatenate([values[x.astype(int) + 128].ravel() for x in tiles])
    return bench, want, target


@pytest.mark.parametrize("seed", range(20))
def test_every_legal_order_leaves_the_same_bytes(seed: int) -> None:
    """Each instruction runs once, in whatever order; the result is the same."""
    bench, want, _ = chain(ARCHS[0])
    program, seen = bench.program(), []
    maps = np.frombuffer(bytes(bench.maps), np.int8)
    result = emulate(
        program, ARCHS[0], maps, order="random", seed=seed, observe=lambda i, memories: seen.append(i)
    )
    np.testing.assert_array_equal(result.maps[-want.size :], want)
    assert sorted(seen) == list(range(len(program) - 1))


def test_random_orders_differ() -> None:
    """Seeds lead to many orders, so that agreement over them says something."""
    bench, _, _ = chain(ARCHS[0])
    program, maps = bench.program(), np.frombuffer(bytes(bench.maps), np.int8)
    orders = set()
    for seed in range(20):
        seen: list[int] = []
        emulate(
            program,
            ARCHS[0],
            maps,
            order="random",
            seed=seed,
            observe=lambda i, memories, seen=seen: seen.append(i),
        )
        orders.add(tuple(seen))
    assert len(orders) >= 10


def test_without_its_waits_a_program_comes_out_wrong_in_some_order() -> None:
    """The random order is able to show a race: the test above could fail."""
    bench, want, _ = chain(ARCHS[0])
    program = bench.program()
    program.fields[:, [COLUMNS[f"wait_{e.name.lower()}"] for e in Engine]] = 0
    maps = np.frombuffer(bytes(bench.maps), np.int8)
    results = [emulate(program, ARCHS[0], maps, order="random", seed=s, checked=True).maps for s in range(20)]
    assert any(not np.array_equal(r[-want.size :], want) for r in results)


def test_bytes_are_counted_as_they_move() -> None:
    """Reads and writes by traffic class, and the instruction words."""
    bench, want, _ = chain(ARCHS[0], 5)
    result = emulate(bench.program(), ARCHS[0], np.frombuffer(bytes(bench.maps), np.int8))
    assert result.read == {"none": 0, "ifmap": want.size, "weights": 256, "ofmap": 0}
    assert result.written == {"none": 0, "ifmap": 0, "weights": 0, "ofmap": want.size}
    assert result.fetched == -(-64 * len(bench.rows) // 1024) * 1024  # whole fetch groups
    assert result.dram_bytes == 2 * want.size + 256 + result.fetched


def test_the_maps_given_stay_as_they_are() -> None:
    bench, _, _ = chain(ARCHS[0])
    maps = np.frombuffer(bytes(bench.maps), np.int8).copy()
    before = maps.copy()
    emulate(bench.program(), ARCHS[0], maps)
    np.testing.assert_array_equal(maps, before)


def test_an_illegal_program_is_refused_with_its_instruction() -> None:
    bench, _, _ = chain(ARCHS[0])
    program = bench.program()
    program.fields[3, COLUMNS["wait_vec"]] = 9
    with pytest.raises(
        SimulationError, match=r"t4x8x8.*instruction 3 \(save .*token 9 of VEC, 1 instructions"
    ):
        emulate(program, ARCHS[0], np.frombuffer(bytes(bench.maps), np.int8))


def test_a_maps_image_of_another_size_is_refused() -> None:
    bench, _, _ = chain(ARCHS[0])
    with pytest.raises(SimulationError, match=r"int8\[10\], the program's DRAM maps region is int8\[1152\]"):
        emulate(bench.program(), ARCHS[0], np.zeros(10, np.int8))
