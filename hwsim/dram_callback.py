"""The DRAM model as a C function, for memories that are not Python's: the same code stands behind the RTL.

    void answer(int64_t* state, int64_t slots, int64_t now, int64_t address, int64_t size, int64_t write,
                int64_t* first_and_last)

`kernel.dram_access` says what the numbers mean. The wrapper is compiled anew in each process (half a second): a cached
one would not notice a change of the kernel's file.
"""

# mypy: disable-error-code="untyped-decorator, no-any-return"

from __future__ import annotations

from functools import cache
from typing import Any

from numba import carray, cfunc, types

from .kernel import dram_access

__all__ = ["answers_callback", "dram_callback"]


@cache
def _compiled() -> Any:
    numbers, number = types.CPointer(types.int64), types.int64

    @cfunc(types.void(numbers, number, number, number, number, number, numbers))
    def answer(state, slots, now, address, size, write, out):  # type: ignore[no-untyped-def]
        told = carray(out, (2,))
        told[0], told[1] = dram_access(carray(state, (slots,)), now, address, size, write)

    return answer


@cache
def _compiled_answers() -> Any:
    numbers, number = types.CPointer(types.int64), types.int64

    @cfunc(types.void(numbers, number, number, number, number, number, numbers))
    def answer(state, slots, now, address, size, write, out):  # type: ignore[no-untyped-def]
        s, told = carray(state, (slots,)), carray(out, (2,))
        k = s[0]
        s[0] += 1
        if k >= s[1]:  # not known: as quick as can be
            s[2] = k if s[2] < 0 else s[2]
            told[0], told[1] = now + 1, now + 1
            return
        row = 3 + 6 * k
        same = s[row + 1] == now and s[row + 2] == address and s[row + 3] == size
        if s[2] < 0 and not (same and (s[row] == 2) == (write != 0)):
            s[2] = k
        told[0], told[1] = s[row + 4] - s[row + 1] + now, s[row + 5] - s[row + 1] + now

    return answer


def dram_callback() -> int:
    """Address of the C function; it lives as long as the process."""
    return int(_compiled().address)


def answers_callback() -> int:
    """The same for a state of `answers.Answers`: every burst is answered as it once was, so many cycles later."""
    return int(_compiled_answers().address)
