"""Which memories of a core lie in UltraRAM: one rule for the hardware and for the count of it."""

from __future__ import annotations

from .arch import Arch

__all__ = ["in_ultraram", "uram_blocks", "wide_memories"]

_BITS, _WORDS = 72, 4096
"""An UltraRAM (UG573 chapter 2)."""


def uram_blocks(bits: int, words: int) -> int:
    """UltraRAMs of a memory that is written in whole words.

    >>> uram_blocks(2048, 2048), uram_blocks(144, 5000)
    (29, 4)
    """
    return -(-bits // _BITS) * -(-words // _WORDS)


def wide_memories(arch: Arch) -> dict[str, tuple[int, int]]:
    """Bits of a word, and words, of the memories that may lie there, in the order in which they are served.

    >>> wide_memories(Arch.preset("b512-nodw"))
    {'weights': (512, 2048)}
    """
    found = {"weights": (8 * arch.lanes * arch.conv.oc, arch.weight_words)}
    if arch.has_dwc:
        found["depthwise"] = (8 * arch.dwc.taps * arch.lanes, arch.depthwise_words)
    return found


def in_ultraram(arch: Arch, uram: int) -> tuple[str, ...]:
    """Names of `wide_memories` in UltraRAM, where a core may use `uram` of it: each that fits into what is left.

    >>> in_ultraram(Arch.preset("b4096"), 30)
    ('weights',)
    """
    found = []
    for name, shape in wide_memories(arch).items():
        need = uram_blocks(*shape)
        if need <= uram:
            found.append(name)
            uram -= need
    return tuple(found)
