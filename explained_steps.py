"""Machines and memories that are one step larger in one resource: the next that can be built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .hwsim.dram import DramSpec
from .ir.arch import Arch
from .ir.board import Board
from .ir.errors import ArchError

__all__ = ["Step", "steps"]

_KIB = 64
"""Step of the memories."""
_FURTHER = 1024
"""KiB beyond a step in which the next legal size is looked for."""


@dataclass(frozen=True, slots=True)
class Step:
    """A machine one step larger.

    Parameters
    ----------
    resource : str
    change : str
        Fields, before and after.
    arch : Arch or None
        None where there is no such machine.
    memory : DramSpec
    note : str
        What else had to change, and what the step cannot help.
    """

    resource: str
    change: str
    arch: Arch | None
    memory: DramSpec
    note: str = ""


def steps(arch: Arch, memory: DramSpec, board: Board | None = None) -> Iterator[Step]:
    """Each resource by itself, the others as they are.

    Parameters
    ----------
    board : Board, optional
        A step beyond its ports is noted.
    """
    for resource, wanted in _wanted(arch):
        yield _step(arch, memory, board, resource, wanted)
    yield _memory(arch, memory)


def _wanted(arch: Arch) -> Iterator[tuple[str, dict[str, int]]]:
    """Resources, and the fields of a step."""
    dma, conv, dwc, vec = arch.dma, arch.conv, arch.dwc, arch.vec
    yield "one more DMA port", {"dma.ports": dma.ports + 1}
    yield "DMA ports twice as wide", {"dma.bits": 2 * dma.bits}
    yield f"+{_KIB} KiB of maps", {"maps.kib": arch.maps.kib + _KIB}
    words = 1 << arch.group_words.bit_length()  # an operand may lie in several map groups of such a size
    kib, rest = divmod(arch.maps.groups * arch.lanes * words, 1024)
    if not rest and kib != arch.maps.kib + _KIB:
        yield f"map groups of {words:,} words", {"maps.kib": kib}
    yield (
        "one more map group",
        {
            "maps.groups": arch.maps.groups + 1,
            "maps.kib": arch.maps.kib + -(-arch.maps.kib // arch.maps.groups),
        },
    )
    yield f"+{_KIB} KiB of weights", {"weights.kib": arch.weights.kib + _KIB}
    if arch.has_dwc:
        wide = min(32, 2 * dwc.pixels)
        yield (
            "depthwise PE twice as wide",
            {"dwc.pixels": 2 * dwc.pixels, "dwc.drain": min(wide, 2 * dwc.drain)},
        )
    else:
        drain = {"dwc.drain": conv.drain}
        yield "a depthwise PE", {"dwc.pixels": conv.pixels, "dwc.channels": conv.ic, **drain}
    yield (
        "MAC array of twice the pixels",
        {"conv.pixels": 2 * conv.pixels, "conv.drain": min(32, 2 * conv.drain)},
    )
    yield "elementwise engine twice as wide", {"vec.pixels": 2 * vec.pixels}


def _step(arch: Arch, memory: DramSpec, board: Board | None, resource: str, wanted: dict[str, int]) -> Step:
    changes, notes = dict(wanted), []
    if "dma.bits" in changes:  # a burst ends at 4096 bytes
        burst = min(arch.dma.burst, 4096 * 8 // changes["dma.bits"])
        if burst < arch.dma.burst:
            changes["dma.burst"] = burst
            notes.append(f"bursts of {burst} beats: none may be longer than 4096 bytes")
    tried = _legal(arch, changes)
    if isinstance(tried, str):
        return Step(resource, _told(arch, changes), None, memory, tried)
    larger, moved = tried
    notes += [
        f"{field} {wanted.get(field, _value(arch, field))} cannot be built, {kib} is the next size"
        for field, kib in moved.items()
    ]
    if larger.span < arch.span:
        notes.append(
            f"a map group has {larger.group_words} words, no power of two: an operand lies in one group, not in {arch.span}"
        )
    if board is not None and "dma.ports" in wanted and larger.dma.ports > board.ports:
        notes.append(f"{board.name} has {board.ports} ports")
    if board is not None and "dma.bits" in wanted and larger.dma.bits > board.port_bits:
        notes.append(f"ports of {board.name} have {board.port_bits} bits")
    rate = memory.peak_bytes_per_cycle
    if "dma" in next(iter(wanted)) and rate < arch.stream_bytes:
        notes.append(f"the memory moves {rate:.1f} bytes a cycle, the ports {arch.stream_bytes} already")
    return Step(resource, _told(arch, {**changes, **moved}), larger, memory, "; ".join(notes))


def _legal(arch: Arch, changes: dict[str, int]) -> tuple[Arch, dict[str, int]] | str:
    """The machine with these fields, or with the next sizes of memories that divide into its banks; else why not."""
    try:
        return arch.override(changes), {}
    except ArchError as error:
        why = str(error)
    for field in ("maps.kib", "weights.kib"):
        if field not in why:
            continue
        start = changes.get(field, _value(arch, field))
        for kib in range(start + 1, start + _FURTHER + 1):
            try:
                return arch.override({**changes, field: kib}), {field: kib}
            except ArchError:
                continue
    return why.removeprefix("--set: ")


def _memory(arch: Arch, memory: DramSpec) -> Step:
    """Twice the rate: of a part, two channels side by side, each open row twice as long."""
    rate = memory.peak_bytes_per_cycle
    note = ""
    if rate >= arch.stream_bytes:
        note = f"the ports move {arch.stream_bytes} bytes a cycle, the memory {rate:.1f} already"
    if memory.part is None:
        larger = replace(memory, bytes_per_cycle=2 * memory.bytes_per_cycle)
        change = f"{memory.bytes_per_cycle:g} -> {larger.bytes_per_cycle:g} bytes a cycle"
    else:
        part = memory.part
        larger = replace(memory, part=replace(part, bits=2 * part.bits, page_bytes=2 * part.page_bytes))
        change = f"{part.name}: {part.bits} -> {2 * part.bits} bits"
    return Step("twice the DRAM rate", change, arch, larger, note)


def _value(arch: Arch, field: str) -> int:
    part, _, name = field.partition(".")
    return int(getattr(getattr(arch, part), name))


def _told(arch: Arch, changes: dict[str, int]) -> str:
    return ", ".join(f"{field} {_value(arch, field)} -> {value}" for field, value in changes.items())
