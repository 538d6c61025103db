"""The machine description: one frozen, validated value builds the compiler's view, the model and the hardware."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from pathlib import Path
from typing import Any, Self

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ArchError
from .requant import RoundingMode

__all__ = ["Arch", "Conv", "Dma", "Dwc", "Maps", "PRESETS", "Queues", "Vec", "Weights"]

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class Conv(BaseModel):
    """MAC array: `pixels` x `ic` x `oc` int8 products a cycle into int32 accumulators that stay put."""

    model_config = _FROZEN
    pixels: int = Field(8, ge=1, le=32, description="output pixels a cycle")
    ic: int = Field(
        16, ge=4, le=64, multiple_of=2, description="input channels a cycle; also the lanes of a map word"
    )
    oc: int = Field(16, ge=4, le=64, multiple_of=2, description="output channels a cycle")
    drain: int = Field(
        4, ge=1, le=32, description="output pixels requantised a cycle (each with all `oc` channels)"
    )


class Dwc(BaseModel):
    """Depthwise engine: `pixels` x `channels` x `taps` int8 products a cycle. `pixels` = 0: none."""

    model_config = _FROZEN
    pixels: int = Field(8, ge=0, le=32, description="output pixels a cycle; 0 leaves the engine out")
    channels: int = Field(16, ge=0, le=64, description="channels a cycle")
    taps: int = Field(3, ge=1, le=16, description="kernel taps a cycle")
    rows: int = Field(
        7, ge=1, le=15, description="kernel rows that the window registers hold: taller kernels re-read rows"
    )
    drain: int = Field(4, ge=1, le=32, description="output pixels requantised a cycle")


class Vec(BaseModel):
    """Elementwise engine: `pixels` map words a cycle; resize and tables on it run at one word a cycle."""

    model_config = _FROZEN
    pixels: int = Field(2, ge=1, le=32, description="map words a cycle for add, multiply and pooling taps")
    table_pixels: int = Field(1, ge=1, le=32, description="map words a cycle through the lookup table")
    sums: int = Field(
        256,
        ge=1,
        le=1024,
        description="channel blocks whose running sums global pooling keeps between strips",
    )


class Maps(BaseModel):
    """Feature-map memory: `groups` independent groups of `banks` banks, each one read and one write port."""

    model_config = _FROZEN
    kib: int = Field(512, ge=4, le=16384, description="KiB in all groups together")
    groups: int = Field(
        4, ge=2, le=8, description="groups; an instruction owns a group's read or write port while it runs"
    )


class Weights(BaseModel):
    """Weight memory of the array, and the small memories beside it."""

    model_config = _FROZEN
    kib: int = Field(512, ge=4, le=16384, description="KiB for convolution weights, biases and multipliers")
    depthwise_kib: int = Field(
        64, ge=1, le=1024, description="KiB for depthwise weights, biases and multipliers"
    )
    tables: int = Field(4, ge=2, le=16, description="256-byte lookup tables")
    vector_kib: int = Field(
        8, ge=1, le=256, description="KiB of per-channel constants and resize indices for the VEC engine"
    )


class Dma(BaseModel):
    """AXI4 masters: `ports` ports of `bits`, bursts dealt to them in turn."""

    model_config = _FROZEN
    bits: int = Field(128, description="data width of one port: 32, 64, 128, 256 or 512")
    ports: int = Field(2, ge=1, le=4, description="ports; bursts are dealt to them in turn")
    burst: int = Field(64, ge=1, le=256, description="most beats in a burst, a power of two (AXI3: 16)")
    outstanding: int = Field(8, ge=1, le=64, description="bursts in flight a port and direction")


class Queues(BaseModel):
    """Instruction queues between the fetch unit and the engines."""

    model_config = _FROZEN
    depth: int = Field(16, ge=2, le=64, description="instructions waiting a engine")
    prefetch: int = Field(32, ge=16, le=256, multiple_of=16, description="instructions fetched ahead")


class Arch(BaseModel):
    """A DPU core and its clock.

    Presets are named as users of vendor DPUs know them, by operations a cycle (2 a MAC): ``b512`` ... ``b4096``,
    each also as ``-nodw`` without the depthwise engine.

    >>> Arch.preset("b4096").macs_per_cycle
    2048
    >>> Arch.preset("b1024").override({"dwc.taps": 1}).dwc.taps
    1
    """

    model_config = _FROZEN
    name: str = Field("custom", pattern=r"^[A-Za-z0-9._+-]{1,64}$")
    clock_mhz: float = Field(300.0, ge=10, le=1000)
    cores: int = Field(1, ge=1, le=8)
    conv: Conv = Conv()
    dwc: Dwc = Dwc()
    vec: Vec = Vec()
    maps: Maps = Maps()
    weights: Weights = Weights()
    dma: Dma = Dma()
    queues: Queues = Queues()
    rounding: tuple[RoundingMode, ...] = Field(
        ("f32", "fix16", "shift"), min_length=1, description="modes its requantisers have"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.dma.bits not in {32, 64, 128, 256, 512}:
            problems.append(f"dma.bits is {self.dma.bits}; AXI data widths here are 32, 64, 128, 256 or 512")
        if self.dma.burst & (self.dma.burst - 1):
            problems.append(
                f"dma.burst is {self.dma.burst}; bursts are cut at multiples of their length, and must not cross 4096 bytes: "
                f"take a power of two, {1 << (self.dma.burst.bit_length() - 1)} or {1 << self.dma.burst.bit_length()}"
            )
        if self.dma.burst * self.dma.bits // 8 > 4096:
            problems.append(
                f"dma.burst x dma.bits is {self.dma.burst * self.dma.bits // 8} bytes a burst; AXI4 ends one at 4096: "
                f"set dma.burst <= {4096 * 8 // self.dma.bits}"
            )
        if bool(self.dwc.pixels) != bool(self.dwc.channels):
            problems.append("dwc.pixels and dwc.channels must both be zero (no engine) or both be positive")
        if self.conv.drain > self.conv.pixels:
            problems.append(f"conv.drain {self.conv.drain} is above conv.pixels {self.conv.pixels}")
        row = self.maps.groups * self.banks * self.lanes
        if self.maps.kib * 1024 % row:
            problems.append(
                f"maps.kib {self.maps.kib} does not divide into {self.maps.groups} groups x {self.banks} banks x "
                f"{self.lanes} bytes: {row} bytes a row; {_nearest(self.maps.kib, row)}"
            )
        word = self.lanes * self.conv.oc
        if self.weights.kib * 1024 % word:
            problems.append(
                f"weights.kib {self.weights.kib} does not divide into {self.conv.oc} banks x {self.lanes} bytes = "
                f"{word} bytes a word; {_nearest(self.weights.kib, word)}"
            )
        for what, words in (("maps", self.group_words), ("weights", self.weight_words)):
            if words > 1 << 18:
                problems.append(
                    f"{what}.kib gives {words} words, and instructions address {1 << 18}: use less or wider words"
                )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    # -- derived quantities ------------------------------------------------------------------------------------------
    @property
    def lanes(self) -> int:
        """Channels (bytes) in a map word."""
        return self.conv.ic

    @property
    def banks(self) -> int:
        """Banks of a map group: the power of two at or above twice the pixels of the widest engine, so that a run
        of pixels at stride 1 or 2 falls into different banks."""
        widest = max(self.conv.pixels, self.dwc.pixels, self.vec.pixels, self.vec.table_pixels)
        return 1 << (2 * widest - 1).bit_length()

    @property
    def group_words(self) -> int:
        """Map words in one group."""
        return self.maps.kib * 1024 // (self.maps.groups * self.lanes)

    @property
    def span(self) -> int:
        """Neighbouring map groups that one operand may lie in: any number where a word's address splits into group and word
        by its bits, else one."""
        if self.group_words & (self.group_words - 1):
            return 1
        return min(self.maps.groups, (1 << 18) // self.group_words)

    @property
    def map_words(self) -> int:
        """Map words in all groups."""
        return self.group_words * self.maps.groups

    @property
    def weight_words(self) -> int:
        """Words of the weight memory; a word is oc x ic bytes."""
        return self.weights.kib * 1024 // (self.lanes * self.conv.oc)

    @property
    def depthwise_words(self) -> int:
        """Words of the depthwise weight memory; a word is `dwc.taps` bytes for each lane."""
        return self.weights.depthwise_kib * 1024 // (self.dwc.taps * self.lanes)

    @property
    def vector_words(self) -> int:
        """32-bit words of the VEC constant memory."""
        return self.weights.vector_kib * 256

    @property
    def macs_per_cycle(self) -> int:
        """Products a cycle of the array (without the depthwise engine)."""
        return self.conv.pixels * self.conv.ic * self.conv.oc

    @property
    def depthwise_macs_per_cycle(self) -> int:
        """Products a cycle of the depthwise engine; 0 without one."""
        return self.dwc.pixels * min(self.dwc.channels, self.lanes) * self.dwc.taps

    @property
    def has_dwc(self) -> bool:
        return self.dwc.pixels > 0

    @property
    def beat_bytes(self) -> int:
        """Bytes a port moves in a cycle."""
        return self.dma.bits // 8

    @property
    def stream_bytes(self) -> int:
        """Bytes a cycle that all ports move together, one direction."""
        return self.beat_bytes * self.dma.ports

    @property
    def group_move(self) -> int:
        """Map words of a row that LOAD writes or SAVE reads in a cycle, at most."""
        return min(self.banks, -(-self.stream_bytes // self.lanes))

    @property
    def burst_bytes(self) -> int:
        """Longest burst, in bytes; no burst crosses a multiple of it."""
        return self.beat_bytes * self.dma.burst

    @property
    def design_hash(self) -> str:
        """First 16 hex digits of SHA-256 over everything but the name: what the hardware is built from."""
        text = json.dumps(self.model_dump(exclude={"name"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    # -- in and out --------------------------------------------------------------------------------------------------
    @classmethod
    def preset(cls, name: str) -> Arch:
        """The preset of this name; ArchError lists the names and the nearest one."""
        if name not in PRESETS:
            from difflib import get_close_matches

            near = get_close_matches(name, PRESETS, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ArchError(f"no preset {name!r}: {hint}presets are {', '.join(PRESETS)}", name=name)
        return PRESETS[name]

    @classmethod
    def parse(cls, text: str, *, where: str = "arch") -> Arch:
        """From TOML. A key ``base`` names a preset that the other keys change."""
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ArchError(f"{where}: not TOML: {error}") from None
        return cls.build(data, where=where)

    @classmethod
    def build(cls, settings: dict[str, Any], *, where: str = "arch") -> Arch:
        """From nested settings, as `parse` reads them from TOML."""
        changes = {key: value for key, value in settings.items() if key != "base"}
        base = settings.get("base")
        start = cls.preset(base).model_dump() if base is not None else {}
        return cls._validate(_merge(start, changes), where)

    @classmethod
    def load(cls, spec: str | Path) -> Arch:
        """A preset's name, or the path of a TOML file."""
        if str(spec) in PRESETS:
            return PRESETS[str(spec)]
        path = Path(spec)
        if path.suffix == ".toml" or path.exists():
            try:
                return cls.parse(path.read_text(encoding="utf-8"), where=str(path))
            except (OSError, UnicodeDecodeError) as error:
                raise ArchError(f"{path}: cannot be read as an arch file: {error}") from None
        return cls.preset(str(spec))

    def override(self, settings: dict[str, Any]) -> Arch:
        """A copy with fields set by path, as ``{"conv.pixels": 4}``; the name gains a ``+``."""
        data = self.model_dump()
        for path, value in settings.items():
            node: Any = data
            *parents, leaf = path.split(".")
            for key in parents:
                node = node.get(key) if isinstance(node, dict) else None
            if not isinstance(node, dict) or leaf not in node:
                from difflib import get_close_matches

                near = get_close_matches(path, list(self.fields()), 1)
                raise ArchError(
                    f"--set {path}: no such field{f'; did you mean {near[0]}?' if near else ''}; "
                    "`tilewright arch schema` lists them"
                )
            node[leaf] = value
        if settings and "name" not in settings and not self.name.endswith("+"):
            data["name"] = self.name + "+"
        return self._validate(data, "--set")

    @classmethod
    def fields(cls) -> dict[str, str]:
        """Field paths and what each means."""
        out: dict[str, str] = {}
        for name, info in cls.model_fields.items():
            inner = info.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                out |= {f"{name}.{k}": v.description or "" for k, v in inner.model_fields.items()}
            else:
                out[name] = info.description or ""
        return out

    @classmethod
    def _validate(cls, data: dict[str, Any], where: str) -> Arch:
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            lines = [
                f"{'.'.join(map(str, e['loc'])) or 'arch'}: {e['msg'].removeprefix('Value error, ')}"
                + (f" (got {e['input']!r})" if not isinstance(e["input"], dict) else "")
                for e in error.errors()
            ]
            raise ArchError(f"{where}: " + "; ".join(lines)) from None

    def toml(self) -> str:
        """TOML text that `parse` reads back to an equal value."""
        document = tomlkit.document()
        tables = {}
        for key, value in self.model_dump(mode="json").items():
            if isinstance(value, dict):
                tables[key] = value
            else:
                document.add(key, value)
        for key, value in tables.items():
            document.add(key, value)
        return tomlkit.dumps(document)

    def __str__(self) -> str:
        dw = (
            f"{self.dwc.pixels}x{self.dwc.channels}x{self.dwc.taps} depthwise PE"
            if self.has_dwc
            else "no depthwise PE"
        )
        return (
            f"{self.name}: {self.conv.pixels}x{self.conv.ic}x{self.conv.oc} MACs, {dw}, {self.maps.kib}+{self.weights.kib} KiB, "
            f"{self.dma.ports}x{self.dma.bits} bit, {self.clock_mhz:g} MHz"
        )


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in change.items():
        out[key] = (
            _merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
        )
    return out


def _nearest(kib: int, unit: int) -> str:
    """The next sizes in whole KiB that divide into units, as advice."""
    step = unit // math.gcd(unit, 1024)
    below, above = kib // step * step, -(-kib // step) * step
    return f"take {below} or {above}" if below else f"take {above}"


def _presets() -> dict[str, Arch]:
    """Array shapes as PG338 table 1 gives them (pixels x input channels x output channels); memories are 4 groups of
    512-deep map banks and depthwise weights (one BRAM36 depth at 72 bits) and 2048-deep weight banks (PG338: bank depth 2048)."""
    shapes = {
        "b512": (4, 8, 8),
        "b800": (4, 10, 10),
        "b1024": (8, 8, 8),
        "b1152": (4, 12, 12),
        "b1600": (8, 10, 10),
        "b2304": (8, 12, 12),
        "b3136": (8, 14, 14),
        "b4096": (8, 16, 16),
    }
    out = {}
    for name, (pixels, ic, oc) in shapes.items():
        with_dwc = {
            "conv": {"pixels": pixels, "ic": ic, "oc": oc, "drain": pixels // 2},
            "dwc": {"pixels": pixels, "channels": ic, "drain": pixels // 2},
            "vec": {"pixels": max(1, pixels // 4)},
            "maps": {"kib": 4 * 512 * 2 * pixels * ic // 1024},
            "weights": {"kib": 2048 * ic * oc // 1024, "depthwise_kib": 512 * 8 * ic // 1024},
        }
        out[name] = Arch.model_validate({"name": name, **with_dwc})
        out[f"{name}-nodw"] = Arch.model_validate(
            {"name": f"{name}-nodw", **with_dwc, "dwc": {"pixels": 0, "channels": 0}}
        )
    return out


PRESETS: dict[str, Arch] = _presets()
