"""AXI4 and AXI4-Lite, as signatures: exactly the signals that a DPU core drives or reads.

One master of a kind has at most one stream of transactions in order, so there are no identifiers; size is always the
port's width, the burst type always INCR. Both are members all the same, so that a port is whole. Every channel keeps
its payload while ``valid`` waits for ``ready``. Source: ARM IHI 0022, AXI4.
"""

from __future__ import annotations

from amaranth.lib.wiring import In, Out, Signature

__all__ = [
    "ADDRESS_BITS",
    "BOUNDARY",
    "CACHE",
    "INCR",
    "OKAY",
    "PROTECTION",
    "USER_BITS",
    "lite",
    "read_channels",
    "size_of",
    "write_channels",
]

ADDRESS_BITS = 64
BOUNDARY = 4096
"""Bytes; no burst crosses a multiple of it (AXI4 A3.4.1)."""
INCR = 1
"""Burst type: the address grows from beat to beat."""
OKAY = 0
"""Response: the transfer went well. 2 is SLVERR, 3 DECERR."""
CACHE = 0b0011
"""Normal memory, not cacheable, bufferable and modifiable (AXI4 table A4-5)."""
PROTECTION = 0b010
"""Unprivileged, non-secure, data (AXI4 table A4-6)."""
USER_BITS = 16
"""``user`` of an address: bytes of the burst that count, less one. The first and last beats may be wanted in part only,
which ``len`` cannot say; memory models count bytes, and interconnects carry the signal or drop it (AXI4 A8)."""


def size_of(bits: int) -> int:
    """``size`` of a port of `bits` data bits: log2 of a beat's bytes.

    >>> size_of(128)
    4
    """
    return (bits // 8 - 1).bit_length()


def _address() -> Signature:
    return Signature(
        {
            "valid": Out(1),
            "ready": In(1),
            "addr": Out(ADDRESS_BITS),
            "len": Out(8),
            "size": Out(3),
            "burst": Out(2),
            "cache": Out(4),
            "prot": Out(3),
            "user": Out(USER_BITS),
        }
    )


def read_channels(bits: int) -> Signature:
    """Read channels of a master: ``ar`` (address; ``len`` beats + 1) and ``r`` (beats of `bits` data bits)."""
    beat = Signature({"valid": In(1), "ready": Out(1), "data": In(bits), "resp": In(2), "last": In(1)})
    return Signature({"ar": Out(_address()), "r": Out(beat)})


def write_channels(bits: int) -> Signature:
    """Write channels of a master: ``aw`` (address), ``w`` (beats, ``strb`` a byte), ``b`` (response of a burst)."""
    beat = Signature(
        {"valid": Out(1), "ready": In(1), "data": Out(bits), "strb": Out(bits // 8), "last": Out(1)}
    )
    response = Signature({"valid": In(1), "ready": Out(1), "resp": In(2)})
    return Signature({"aw": Out(_address()), "w": Out(beat), "b": Out(response)})


def lite(address_bits: int) -> Signature:
    """AXI4-Lite of 32 data bits, from the master's side: ``aw``, ``w``, ``b``, ``ar``, ``r``."""
    address = {"valid": Out(1), "ready": In(1), "addr": Out(address_bits), "prot": Out(3)}
    return Signature(
        {
            "aw": Out(Signature(address)),
            "w": Out(Signature({"valid": Out(1), "ready": In(1), "data": Out(32), "strb": Out(4)})),
            "b": Out(Signature({"valid": In(1), "ready": Out(1), "resp": In(2)})),
            "ar": Out(Signature(address)),
            "r": Out(Signature({"valid": In(1), "ready": Out(1), "data": In(32), "resp": In(2)})),
        }
    )
