"""Random instructions of the VEC engine, what the emulator makes of them, and how long they take."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from math import gcd
from typing import Any

import numpy as np
from map_words import flat, placed
from numpy.typing import NDArray
from tilewright.hwsim import emulate_kernels as kernels
from tilewright.ir.arch import Arch
from tilewright.ir.isa import COLUMNS, Opcode, VecOp, instruction
from tilewright.ir.latency import VEC_RESIZE, VEC_START
from tilewright.ir.requant import MODES, encode_pair, encode_scale

__all__ = ["Drawn", "busy", "emulate", "small_arch"]

_KERNELS = {
    VecOp.ADD: kernels.add,
    VecOp.MUL: kernels.multiply,
    VecOp.MAX: kernels.maximum,
    VecOp.AVG: kernels.average,
    VecOp.TABLE: kernels.copy,
    VecOp.PRELU: kernels.prelu,
    VecOp.RESIZE: kernels.resize,
}


def small_arch(
    lanes: int, pixels: int, table_pixels: int = 1, *, conv_pixels: int = 1, **settings: Any
) -> Arch:
    """A machine with a VEC engine of this size and little else."""
    return Arch.model_validate(
        {
            "name": "vec",
            "conv": {"pixels": max(conv_pixels, table_pixels), "ic": lanes, "oc": 4, "drain": 1},
            "dwc": {"pixels": 0, "channels": 0},
            "vec": {"pixels": pixels, "table_pixels": table_pixels, "sums": 6},
            "maps": {"kib": 32 * lanes, "groups": 4},
            "weights": {"kib": 4 * lanes, "vector_kib": 4, "tables": 3},
            **settings,
        }
    )


def busy(arch: Arch, row: NDArray[np.int64]) -> int:
    """Busy cycles, by the rules of docs/machine.md."""
    f = {name: int(row[at]) for name, at in COLUMNS.items()}
    v, banks, func = arch.vec.pixels, arch.banks, f["func"]

    def ways(n: int, stride: int) -> int:
        return max(1, -(-n * gcd(stride, banks) // banks))

    def steps(n: int) -> int:
        return -(-f["out_w"] // n)

    rows = f["blocks"] * f["out_h"]
    if func in (VecOp.ADD, VecOp.MUL):
        shared = f["a_group"] == f["b_group"]
        if f["broadcast"]:
            return VEC_START + f["blocks"] * (int(shared) + f["out_h"] * steps(v))
        return VEC_START + rows * steps(v) * (2 if shared else 1)
    if func in (VecOp.MAX, VecOp.AVG):
        if f["out_w"] == 1:
            return VEC_START + rows * f["kh"] * -(-f["kw"] // v) * ways(v, f["dx"])
        return VEC_START + rows * steps(v) * f["kh"] * f["kw"] * ways(v, f["sx"])
    if func == VecOp.TABLE:
        n = arch.vec.table_pixels if f["table"] else v
        return VEC_START + rows * steps(n) * ways(n, f["sx"])
    if func == VecOp.PRELU:
        return VEC_START + f["blocks"] * (arch.lanes + f["out_h"] * steps(v))
    return VEC_START + VEC_RESIZE + rows * f["out_w"] * (4 if f["bilinear"] else 1)


def emulate(row: NDArray[np.int64], **memories: NDArray[Any]) -> None:
    """Run one instruction on `maps`, `vector`, `tables`, `sums`, in place."""
    kernel = _KERNELS[VecOp(int(row[COLUMNS["func"]]))]
    names = inspect.signature(kernel.py_func).parameters
    fields = placed({name: int(row[at]) for name, at in COLUMNS.items()}, memories["maps"])
    arrays = memories | {"maps": flat(memories["maps"])}
    kernel(*(arrays[n] if n in arrays else fields[n] for n in names))


@dataclass
class Drawn:
    """Draws instructions, and the vector words that they need.

    Sources lie in all groups but the last, targets in the last, so that any order of reads and writes is legal.

    Parameters
    ----------
    room : int
        Vector words that may still be given out; when they run short, only functions that need none are drawn.
    """

    arch: Arch
    seed: int
    modes: tuple[int, ...] = ()
    vector: NDArray[np.uint32] = field(init=False)
    used: int = 0
    _chain: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.vector = np.zeros(self.arch.vector_words, np.uint32)
        self.modes = self.modes or tuple(MODES.index(m) for m in self.arch.rounding)

    # -- parts ----------------------------------------------------------------------------------------------------------
    def _pick(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def _often(self, usual: int, *others: int) -> int:
        return usual if self.rng.random() < 0.5 else int(self.rng.choice(others))

    def _words(self, values: Any) -> int:
        """Room for `values` in the vector memory: the first word's number."""
        values = np.asarray(values, np.uint32)
        base = self.used
        self.used += len(values)
        assert self.used <= len(self.vector), "vector memory is full"
        self.vector[base : self.used] = values
        return base

    def _scale(self, mode: int, around: float) -> int:
        real = float(np.exp2(self.rng.uniform(-3, 2))) * around
        return int(encode_scale(real if mode != 2 else min(real, 1.0), MODES[mode]))

    def _operand(
        self, prefix: str, group: int, rows: int, width: int, blocks: int, *, target: bool
    ) -> dict[str, int]:
        """A ring that has room for `rows` rows, somewhere in the group."""
        words = self.arch.group_words
        ring = rows + self._pick(0, 2)
        pitch = width + self._often(0, 1, 2, 5)
        plane = ring * pitch + self._often(0, 1, 3)
        need = (blocks - 1) * plane + ring * pitch
        assert need <= words, (need, words)
        names = {
            "group": group,
            "base": self._pick(0, words - need),
            "pitch": pitch,
            "plane": plane,
            "rows": ring,
            "row0": self._pick(0, ring - 1),
        }
        return {f"{prefix}_{n}": v for n, v in names.items()}

    def _range(self) -> dict[str, int]:
        lo, hi = sorted(map(int, self.rng.integers(-128, 128, 2)))
        if self.rng.random() < 0.7:
            lo, hi = -128, 127
        return {"lo": lo, "hi": hi}

    def _zero(self) -> int:
        return self._often(0, -128, 127, self._pick(-128, 127))

    # -- instructions ---------------------------------------------------------------------------------------------------
    def instruction(self, func: VecOp | None = None) -> NDArray[np.int64]:
        """Any instruction that is legal here, of `func` if given."""
        chain = self._chain
        if chain is not None:
            self._chain = None
            return self._pooling(VecOp(int(chain[COLUMNS["func"]])), chain)
        func = VecOp(int(self.rng.integers(len(VecOp)))) if func is None else func
        if func in (VecOp.ADD, VecOp.MUL):
            return self._pair(func)
        if func in (VecOp.MAX, VecOp.AVG):
            return self._pooling(func, None)
        return {VecOp.TABLE: self._copy, VecOp.PRELU: self._prelu, VecOp.RESIZE: self._resize}[func]()

    def _output(self, widest: int = 9) -> dict[str, int]:
        return {
            "out_h": self._pick(1, 3),
            "out_w": self._often(1, *range(1, widest + 1)),
            "blocks": self._pick(1, 3),
        }

    def _target(self, out: dict[str, int]) -> dict[str, int]:
        group = self.arch.maps.groups - 1
        return self._operand("d", group, out["out_h"], out["out_w"], out["blocks"], target=True)

    def _source(self) -> int:
        return self._pick(0, self.arch.maps.groups - 2)

    def _row(self, func: VecOp, *parts: dict[str, int]) -> NDArray[np.int64]:
        fields: dict[str, int] = {}
        for part in parts:
            fields |= part
        return instruction(Opcode.VEC, func, **fields)

    def _rounded(self) -> dict[str, int]:
        mode = int(self.rng.choice(self.modes))
        return {"mode": mode, "za": self._zero(), "zd": self._zero()} | self._range()

    def _pair(self, func: VecOp) -> NDArray[np.int64]:
        out, how = self._output(), self._rounded()
        broadcast = int(self.rng.random() < 0.4)
        size = (out["out_h"], out["out_w"], out["blocks"])
        a = self._operand("a", self._source(), *size, target=False)
        b = self._operand("b", self._source(), *((1, 1) if broadcast else size[:2]), size[2], target=False)
        if func == VecOp.MUL:
            rest = {"scale": self._scale(how["mode"], 1 / 128)}
        elif self.rng.random() < 0.3:
            rest = {
                n: int(self.rng.choice([-(1 << 24), (1 << 24) - 1, self._pick(-99, 99)]))
                for n in ("ma", "mb")
            }
            rest["shift"] = self._pick(0, 63)
        else:
            ratios = self.rng.uniform(-1, 1, 2)
            rest = dict(zip(("ma", "mb", "shift"), encode_pair(*ratios, MODES[how["mode"]]), strict=True))
        return self._row(
            func, out, self._target(out), a, b, how, {"zb": self._zero(), "broadcast": broadcast}, rest
        )

    def _window(self, out: dict[str, int], taps: int, reach: int) -> tuple[dict[str, int], dict[str, int]]:
        """A window, and the source's size: padding on all sides may occur."""
        w = {
            "kh": self._pick(1, taps), "kw": self._often(3, *range(1, taps + 3)), "sy": self._pick(1, 3),
            "sx": self._often(1, 2, 3, 4, reach), "dy": self._often(1, 2), "dx": self._often(1, 2, 3),
            "pad_top": self._pick(0, 2), "pad_left": self._pick(0, 2),
        }  # fmt: skip
        high = (out["out_h"] - 1) * w["sy"] + (w["kh"] - 1) * w["dy"] + 1
        wide = (out["out_w"] - 1) * w["sx"] + (w["kw"] - 1) * w["dx"] + 1
        w["in_h"] = max(1, high - w["pad_top"] - self._pick(-1, 2))
        w["in_w"] = max(1, wide - w["pad_left"] - self._pick(-1, 2))
        return w, {"rows": w["in_h"], "width": w["in_w"]}

    def _pooling(self, func: VecOp, before: NDArray[np.int64] | None) -> NDArray[np.int64]:
        out, how = self._output(), self._rounded()
        first, last = int(before is None), 1
        if before is not None:
            out = {"out_h": 1, "out_w": 1, "blocks": int(before[COLUMNS["blocks"]])}
            how["za"] = int(before[COLUMNS["za"]])
            last = int(self.rng.random() < 0.6)
        elif self.rng.random() < 0.25:
            out, last = {"out_h": 1, "out_w": 1, "blocks": self._often(1, 2, 3)}, 0
        w, size = self._window(
            out, 1 if not (first and last) and self.rng.random() < 0.5 else 3, min(16, self.arch.banks)
        )
        counted = int(func == VecOp.AVG and first and last and self.rng.random() < 0.4)
        a = self._operand("a", self._source(), size["rows"], size["width"], out["blocks"], target=False)
        rest = {"first": first, "last": last, "counted": counted}
        if counted:
            rest["v_base"] = self._words(
                [self._scale(how["mode"], 1 / 8) for _ in range(w["kh"] * w["kw"] + 1)]
            )
        rest["scale"] = self._scale(how["mode"], 1 / 8)
        row = self._row(func, out, self._target(out), a, how, w, rest)
        if not last:
            self._chain = row
        return row

    def _copy(self) -> NDArray[np.int64]:
        out = self._output()
        sy, sx = self._often(1, 2, 3), self._often(1, 2, 4, 31, min(16, self.arch.banks))
        rows, width = (out["out_h"] - 1) * sy + 1, (out["out_w"] - 1) * sx + 1
        a = self._operand("a", self._source(), rows, width, out["blocks"], target=False)
        table = self._pick(0, self.arch.weights.tables)
        return self._row(VecOp.TABLE, out, self._target(out), a, {"sy": sy, "sx": sx, "table": table})

    def _prelu(self) -> NDArray[np.int64]:
        out, how = self._output(), self._rounded()
        a = self._operand("a", self._source(), out["out_h"], out["out_w"], out["blocks"], target=False)
        slopes = [
            self._scale(how["mode"], 1 / 4) | int(self.rng.integers(2)) << 31
            for _ in range(out["blocks"] * self.arch.lanes)
        ]
        rest = {"v_base": self._words(slopes), "scale": self._scale(how["mode"], 1 / 2)}
        return self._row(VecOp.PRELU, out, self._target(out), a, how, rest)

    def _resize(self) -> NDArray[np.int64]:
        out, how = self._output(6), self._rounded()
        rows, width = self._pick(1, 4), self._pick(1, 6)
        origin = self._pick(0, 3)
        beyond = self._pick(
            0, 1
        )  # the map goes on below the source, unless the last row is its own neighbour
        a = self._operand("a", self._source(), rows + beyond, width, out["blocks"], target=False)
        bilinear = self._pick(0, 1)

        def indices(n: int, low: int, high: int) -> list[int]:
            return [self._pick(low, high) | self._pick(0, 2047) << 16 for _ in range(n)]

        rest = {
            "in_h": origin + rows + beyond, "in_w": width, "origin": origin, "bilinear": bilinear,
            "v_base": self._words(indices(out["out_h"], origin, origin + rows - 1)),
            "v_cols": self._words(indices(out["out_w"], 0, width - 1)),
            "scale": self._scale(how["mode"], 2.0**-22),
        }  # fmt: skip
        return self._row(VecOp.RESIZE, out, self._target(out), a, how, rest)
