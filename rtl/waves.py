"""A GTKWave save file beside a wave file: the signals that one looks at first, in groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..ir.arch import Arch
from .axi import ADDRESS_BITS, USER_BITS

__all__ = ["save_file", "signals"]

_BIT, _HEX = "28", "22"
"""GTKWave's flags of a trace: one bit; hexadecimal (right-justified, in both)."""
_OPEN, _CLOSE = "800200", "1000200"
"""Flags that begin and end a group."""


def signals(arch: Arch) -> dict[str, tuple[tuple[str, int], ...]]:
    """Group to (port of ``dpu_top``, bits).

    >>> signals(Arch.preset("b512"))["engines"]
    (('trace_start', 5), ('trace_done', 5))
    """
    address = (("valid", 1), ("ready", 1), ("addr", ADDRESS_BITS), ("len", 8), ("user", USER_BITS))
    data = (("valid", 1), ("ready", 1), ("data", arch.dma.bits), ("last", 1), ("resp", 2))
    write = (*data[:3], ("strb", arch.beat_bytes), data[3])
    response = (("valid", 1), ("ready", 1), ("resp", 2))
    read = {"ar": address, "r": data}
    every = {"ar": address, "r": data, "aw": address, "w": write, "b": response}

    def flat(port: str, channels: Mapping[str, tuple[tuple[str, int], ...]]) -> tuple[tuple[str, int], ...]:
        return tuple((f"{port}_{c}{name}", bits) for c, members in channels.items() for name, bits in members)

    fetches = [""] if arch.cores == 1 else [str(core) for core in range(arch.cores)]
    return {
        "core": (("clk", 1), ("rst", 1), ("irq", arch.cores)),
        "engines": (("trace_start", 5 * arch.cores), ("trace_done", 5 * arch.cores)),
        **{f"fetch {name}".strip(): flat(f"m_axi_fetch{name}", read) for name in fetches},
        **{f"port {p}": flat(f"m_axi{p}", every) for p in range(arch.cores * arch.dma.ports)},
    }


def save_file(wave: Path, arch: Arch) -> Path:
    """Write ``NAME.gtkw`` beside a wave file; `gtkwave NAME.gtkw` opens both."""
    lines = [f'[dumpfile] "{wave.absolute()}"', "[timestart] 0"]
    for group, members in signals(arch).items():
        lines += [f"@{_OPEN}", f"-{group}"]
        for name, bits in members:
            flag, range_ = (_BIT, "") if bits == 1 else (_HEX, f"[{bits - 1}:0]")
            lines += [f"@{flag}", f"TOP.{name}{range_}"]
        lines += [f"@{_CLOSE}", f"-{group}"]
    path = wave.with_suffix(".gtkw")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
