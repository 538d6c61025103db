"""Constants in DRAM: the weights region, written chunk by chunk at first use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..ir.isa import Memory
from .memories import Chunk
from .operands import Kept, Task

__all__ = ["Constants"]

_ALIGN = 16
"""FILLs start at a 128-bit beat."""


class Constants:
    """The weights image under construction."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.uint8]] = []
        self._bytes = 0
        self._images: dict[tuple[object, ...], tuple[int, int]] = {}

    def image(self) -> NDArray[np.uint8]:
        """The DRAM weights region."""
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.uint8)

    def _store(self, key: tuple[object, ...], make: Callable[[], NDArray[np.uint8]]) -> tuple[int, int]:
        """Address and size of constants in the weights region, written at their first use."""
        if key not in self._images:
            data = make()
            pad = -len(data) % _ALIGN
            self._images[key] = (self._bytes, len(data))
            self._parts += [data, np.zeros(pad, np.uint8)] if pad else [data]
            self._bytes += len(data) + pad
        return self._images[key]

    def chunk(
        self,
        key: tuple[object, ...],
        make: Callable[[], NDArray[np.uint8]],
        kept: Kept | None,
        memory: Memory,
        layer: int,
        **shape: int,
    ) -> Chunk:
        """The chunk of this key; one object for all uses where it is resident (`kept`), else a new one a use."""
        if kept is not None and key in kept:
            return kept[key]
        address, size = self._store(key, make)
        chunk = Chunk(memory, address=address, size=size, layer=layer, **shape)
        if kept is not None:
            kept[key] = chunk
        return chunk

    def table(self, task: Task, values: tuple[int, ...]) -> Chunk:
        """A lookup table of a layer."""
        key = ("table", task.layer.name)
        return self.chunk(
            key,
            lambda: np.asarray(values, np.int8).view(np.uint8),
            task.tables,
            Memory.TABLES,
            task.index,
            words=1,
        )
