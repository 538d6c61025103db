"""DRAM behind the ports: parts as data, and the state array that `kernel.dram_access` works on.

Two levels: ``fixed:BYTES_PER_CYCLE[,LATENCY]`` moves bytes at a rate after a latency; ``banked:PART`` has open rows,
bank groups, turnarounds and refresh. A fixed rate is not credible for a verdict (45 to 97 % of peak, depending on
burst length and read/write mix); it is there to separate causes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import SimulationError
from .kernel import DRAM_HEADER, TICKS, dram_access

__all__ = ["DRAM_RESPONSE", "DramPart", "DramSpec", "PARTS", "dram_access", "dram_counts", "parse"]


@dataclass(frozen=True, slots=True)
class DramPart:
    """A memory interface in the data sheet's own symbols.

    Times in ns; tCK is the clock, two transfers each. `latency_ns` is the way through interconnect and controller and
    back, without the DRAM's own tRCD and CL.
    """

    name: str
    bits: int
    """Data width of the interface."""
    tck: float
    cl: int
    """CAS latency, clocks."""
    cwl: int
    trcd: float
    trp: float
    tras: float
    trrd: float
    tfaw: float
    tccd_l: int
    """Clocks between column commands to one bank group; BL/2 where there are no groups."""
    twtr: float
    twr: float
    trtp: float
    trefi: float
    trfc: float
    bl: int
    """Transfers of a column burst."""
    page_bytes: int
    """Of a row, over all chips of the interface."""
    banks: int
    groups: int
    latency_ns: float
    source: str

    @property
    def column_bytes(self) -> int:
        return self.bl * self.bits // 8

    @property
    def peak_gb_s(self) -> float:
        """10^9 bytes a second."""
        return 2 / self.tck * self.bits / 8


_PS = 90.0
"""ns through the PS interconnect and controller, both ways together: 30-60 fabric cycles at 300 MHz from request to
first beat are seen on Zynq-class devices, of which tRCD + CL is about 30 ns. Assumed, +-40 ns."""
_SOFT = 120.0
"""The same for a soft controller with a 4:1 clock at 83 MHz: about 10 cycles. Assumed, +-40 ns."""

PARTS: dict[str, DramPart] = {
    part.name: part
    for part in (
        DramPart(
            *(
                "DDR4-2400x64",
                64,
                0.8333,
                17,
                12,
                14.16,
                14.16,
                32.0,
                5.3,
                30.0,
                6,
                7.5,
                15.0,
                7.5,
                7800.0,
                350.0,
            ),
            *(8, 8192, 8, 2, _PS, "JESD79-4 speed bin 2400R, 8 Gb x16 chips with a 2 KB page"),
        ),
        DramPart(
            *(
                "DDR4-2133x64",
                64,
                0.9375,
                15,
                11,
                14.06,
                14.06,
                33.0,
                5.3,
                30.0,
                6,
                7.5,
                15.0,
                7.5,
                7800.0,
                350.0,
            ),
            *(8, 8192, 8, 2, _PS, "JESD79-4 speed bin 2133P, 8 Gb x16 chips"),
        ),
        DramPart(
            *(
                "DDR4-2666x64",
                64,
                0.75,
                19,
                14,
                14.25,
                14.25,
                32.0,
                4.9,
                30.0,
                7,
                7.5,
                15.0,
                7.5,
                7800.0,
                350.0,
            ),
            *(8, 8192, 8, 2, _PS, "JESD79-4 speed bin 2666V, 8 Gb x16 chips"),
        ),
        DramPart(
            *(
                "DDR3-1066x32",
                32,
                1.875,
                7,
                6,
                13.125,
                13.125,
                37.5,
                10.0,
                50.0,
                4,
                7.5,
                15.0,
                7.5,
                7800.0,
                260.0,
            ),
            *(8, 4096, 8, 1, _PS, "JESD79-3 speed bin 1066F, 4 Gb x16 chips"),
        ),
        DramPart(
            *(
                "DDR3-1050x16",
                16,
                1.9048,
                7,
                6,
                13.34,
                13.34,
                37.5,
                10.0,
                50.0,
                4,
                7.62,
                15.0,
                7.62,
                7800.0,
                260.0,
            ),
            *(8, 2048, 8, 1, _PS, "JESD79-3 speed bin 1066F run at 525 MHz, one 4 Gb x16 chip"),
        ),
        DramPart(
            *(
                "DDR3L-667x16",
                16,
                3.0,
                5,
                5,
                15.0,
                15.0,
                37.5,
                12.0,
                50.0,
                4,
                12.0,
                15.0,
                12.0,
                7800.0,
                160.0,
            ),
            *(8, 2048, 8, 1, _SOFT, "JESD79-3-1 run at 333 MHz, one 2 Gb x16 chip"),
        ),
        DramPart(
            *(
                "LPDDR4-2133x32",
                32,
                0.9375,
                20,
                10,
                18.0,
                18.0,
                42.0,
                10.0,
                40.0,
                8,
                10.0,
                18.0,
                7.5,
                3904.0,
                180.0,
            ),
            *(16, 4096, 8, 1, _PS, "JESD209-4 2133 (RL 20, WL 10), two x16 channels in step, 4 Gb each"),
        ),
    )
}
"""Parts that boards name."""


@dataclass(frozen=True, slots=True)
class DramSpec:
    """A memory model, ready to be turned into state for a core clock.

    Parameters
    ----------
    text : str
        As given to `parse`.
    part : DramPart or None
        None: fixed.
    bytes_per_cycle : float
        Of a fixed memory.
    latency : int
        Cycles to the first byte of a fixed memory.
    clock_mhz : float
        Of the core, whose cycles the model counts in.
    """

    text: str
    part: DramPart | None = None
    bytes_per_cycle: float = 0.0
    latency: int = 0
    clock_mhz: float = 300.0

    @property
    def peak_bytes_per_cycle(self) -> float:
        """Bytes a core cycle that no traffic can exceed, with the rounding of the model's ticks."""
        state = self.state()
        if self.part is None:
            return TICKS * 65536 / float(_slot(state, "byte_ticks"))
        return float(_slot(state, "column_bytes")) * TICKS / float(_slot(state, "burst"))

    def state(self) -> NDArray[np.int64]:
        """A fresh state array for `dram_access`."""
        clock_mhz = self.clock_mhz
        values = dict.fromkeys(DRAM_HEADER, 0)
        part = self.part
        if part is None:
            values |= {
                "byte_ticks": math.ceil(TICKS * 65536 / self.bytes_per_cycle),
                "back": self.latency * TICKS,
                "response": self.latency,
            }
            return np.array(list(values.values()), np.int64)

        def ticks(ns: float) -> int:
            return round(ns * clock_mhz / 1e3 * TICKS)

        clock = part.tck
        values |= {
            "kind": 1,
            "front": ticks(part.latency_ns / 2),
            "back": ticks(part.latency_ns / 2),
            "response": math.ceil(part.latency_ns / 2 * clock_mhz / 1e3),
            "column_bytes": part.column_bytes,
            "burst": math.ceil(part.bl / 2 * clock * clock_mhz / 1e3 * TICKS),
            "ccd_l": ticks(part.tccd_l * clock),
            "cl": ticks(part.cl * clock),
            "cwl": ticks(part.cwl * clock),
            "rcd": ticks(part.trcd),
            "rp": ticks(part.trp),
            "ras": ticks(part.tras),
            "rrd": ticks(part.trrd),
            "faw": ticks(part.tfaw),
            "wtr": ticks(part.twtr),
            "rtw": ticks(2 * clock),  # bus turnaround: one clock of each preamble
            "wr": ticks(part.twr),
            "rtp": ticks(part.trtp),
            "refi": ticks(part.trefi),
            "rfc": ticks(part.trfc),
            "page_bytes": part.page_bytes,
            "banks": part.banks,
            "groups": part.groups,
            "group_bytes": _GROUP_BYTES if part.groups > 1 else part.page_bytes,
            "write_batch": _WRITE_BATCH,
            "next_refresh": ticks(part.trefi),
        }
        values["ccd_l"] = max(values["ccd_l"], values["burst"])
        for act in ("act0", "act1", "act2", "act3"):
            values[act] = -ticks(part.tfaw) - ticks(part.trrd)
        rows = [-1, 0] * part.banks + [0] * part.groups
        return np.array([*values.values(), *rows], np.int64)

    def __str__(self) -> str:
        if self.part is None:
            return f"fixed rate of {self.bytes_per_cycle:g} bytes a cycle after {self.latency} cycles"
        p = self.part
        return (
            f"{p.name}, {p.peak_gb_s:.4g} GB/s peak, {p.banks} banks, open rows, "
            f"{p.latency_ns:g} ns interconnect and controller"
        )


DRAM_RESPONSE = DRAM_HEADER.index("response")
"""Slot of the cycles from a write's acceptance to its response at the port."""
_GROUP_BYTES = 256
"""Bytes after which the next bank group takes over, as controllers map addresses so that a stream alternates groups."""
_WRITE_BATCH = 1024
"""Bytes of posted writes that share one turnaround: 16 column bursts of 64 bytes, a small write queue; the tests hold
the mixed streams that come of it to a cycle-level simulator's."""


def parse(text: str, clock_mhz: float = 300.0) -> DramSpec:
    """A memory from its text, for a core of this clock.

    >>> str(parse("fixed:16,40"))
    'fixed rate of 16 bytes a cycle after 40 cycles'

    Raises
    ------
    SimulationError
        Unknown level or part, a rate that is not positive, a latency below 0.
    """
    level, _, rest = text.partition(":")
    if level == "fixed":
        rate, _, latency = rest.partition(",")
        try:
            spec = DramSpec(text, None, float(rate), int(latency or _FIXED_LATENCY), clock_mhz)
        except ValueError:
            spec = DramSpec(text)
        if not (_RATE_LOW <= spec.bytes_per_cycle <= _RATE_HIGH and 0 <= spec.latency <= _LATENCY_HIGH):
            raise SimulationError(
                f"memory {text!r}: want fixed:BYTES_PER_CYCLE[,LATENCY] with a rate of {_RATE_LOW:g}..{_RATE_HIGH:g} "
                f"and a latency of 0..{_LATENCY_HIGH} cycles, for example fixed:32,40",
                memory=text,
            )
        return spec
    part = rest if level == "banked" else text
    if part in PARTS:
        return DramSpec(text, PARTS[part], clock_mhz=clock_mhz)
    from difflib import get_close_matches

    near = get_close_matches(part, PARTS, 1, 0.4)
    hint = f"did you mean banked:{near[0]}? " if near else ""
    raise SimulationError(
        f"memory {text!r} is unknown: {hint}want fixed:BYTES_PER_CYCLE[,LATENCY] or banked:PART with PART one of "
        f"{', '.join(PARTS)}",
        memory=text,
    )


_FIXED_LATENCY = 40
"""Cycles; the middle of what a 300 MHz master sees on Zynq-class devices (30-60)."""
_RATE_LOW, _RATE_HIGH, _LATENCY_HIGH = 1 / 64, 1024.0, 100_000


@dataclass(frozen=True, slots=True)
class DramCounts:
    """What the memory did, for its energy."""

    activates: int
    read_bytes: int
    write_bytes: int
    refreshes: int
    read_columns: int
    write_columns: int


def _slot(state: NDArray[np.int64], name: str) -> int:
    return int(state[DRAM_HEADER.index(name)])


def dram_counts(state: NDArray[np.int64]) -> DramCounts:
    """The counters of a state array."""
    return DramCounts(**{f.name: _slot(state, f.name) for f in fields(DramCounts)})
