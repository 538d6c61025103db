"""The memory model: shares of the peak that silicon and cycle-level simulators show, laws, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from tilewright.hwsim.dram import PARTS, dram_access, dram_counts, parse
from tilewright.ir.board import Board, board_names
from tilewright.ir.errors import SimulationError

BURST = 256
IN_FLIGHT = 16
DDR4, DDR3, LPDDR4 = "banked:DDR4-2400x64", "banked:DDR3-1066x32", "banked:LPDDR4-2133x32"


def share(text: str, pattern: str, count: int = 3000, clock_mhz: float = 300.0) -> float:
    """Share of the peak that bursts of 256 bytes reach, 16 in flight.

    Patterns: read or write in sequence, read within one bank group, random, or two reads and a write that take turns
    every so many bytes: averaged over where the three streams lie (mix), or with all rows in one bank (clash).
    """
    spec = parse(text, clock_mhz)
    rng = np.random.default_rng(7)
    shares = []
    for _ in range(8 if pattern.startswith("mix") else 1):
        state, done, now, end = spec.state(), [0] * IN_FLIGHT, 0, 0
        base = [
            (i << 26) + (int(rng.integers(1 << 14)) * BURST if pattern.startswith("mix") else 0)
            for i in range(3)
        ]
        at = [0, 0, 0]
        for k in range(count):
            write = pattern == "write"
            if pattern in {"read", "write"}:
                address = k * BURST
            elif pattern == "group":
                address = 2 * k * BURST
            elif pattern == "random":
                address = int(rng.integers(1 << 22)) * BURST
            else:
                stream = k * BURST // int(pattern.removeprefix("mix").removeprefix("clash")) % 3
                address, write = base[stream] + at[stream], stream == 2
                at[stream] += BURST
            now = max(now, done[k % IN_FLIGHT])
            _, last = dram_access(state, now, address, BURST, write)
            done[k % IN_FLIGHT] = last
            end = max(end, last)
        shares.append(count * BURST / end / spec.peak_bytes_per_cycle)
    return float(np.mean(shares))


@pytest.mark.parametrize("text", [DDR4, DDR3, LPDDR4])
@pytest.mark.parametrize("pattern", ["read", "write"])
def test_a_stream_reaches_92_to_98_percent(text: str, pattern: str) -> None:
    """A cycle-level simulator shows 92 to 97 %; what is missing is refresh."""
    assert 0.92 <= share(text, pattern) <= 0.98


def test_one_bank_group_gives_two_thirds_on_ddr4_and_all_on_ddr3() -> None:
    """tCCD_L / tCCD_S is 6 / 4: 66 % was measured where 256 bytes come from one group; DDR3 has no groups: 96 %."""
    assert share(DDR4, "group") == pytest.approx(0.66 * 0.955, abs=0.04)
    assert share(DDR3, "group") == pytest.approx(0.96, abs=0.02)


@pytest.mark.parametrize(
    ("text", "pattern", "simulated", "tolerance"),
    [
        (DDR4, "mix256", 0.66, 0.10),
        (DDR4, "mix4096", 0.73, 0.18),
        (LPDDR4, "mix256", 0.85, 0.12),
        (LPDDR4, "mix4096", 0.90, 0.05),
        (DDR3, "clash256", 0.62, 0.06),
        (DDR3, "clash4096", 0.93, 0.03),
    ],
)
def test_two_reads_and_a_write_lose_what_they_lose_elsewhere(
    text: str, pattern: str, simulated: float, tolerance: float
) -> None:
    """Turns of 256 bytes and of 4 KB against a cycle-level simulator's shares.

    That one reorders, ours does not; its DDR3 numbers are those of three streams whose rows share a bank.
    """
    assert share(text, pattern) == pytest.approx(simulated, abs=tolerance)


@pytest.mark.parametrize("text", [DDR4, DDR3, LPDDR4])
def test_longer_turns_and_other_banks_are_better(text: str) -> None:
    """Turnarounds are shared by more bytes; rows of other banks stay open."""
    assert share(text, "clash256") < share(text, "mix256") < share(text, "mix4096") < share(text, "read")


def test_random_bursts_open_a_row_each() -> None:
    """A random 256-byte burst finds its row closed or another one open; a stream opens a row a page."""
    spec = parse(DDR4)
    rng = np.random.default_rng(1)
    counts = []
    for addresses in (rng.integers(1 << 22, size=1000) * BURST, np.arange(1000) * BURST):
        state = spec.state()
        for i, address in enumerate(addresses):
            dram_access(state, 20 * i, int(address), BURST, 0)
        counts.append(dram_counts(state))
    assert counts[0].activates > 950
    assert counts[1].activates < 60
    assert counts[0].read_bytes == counts[1].read_bytes == 256_000
    assert counts[0].read_columns == 4000


def test_a_lone_read_takes_the_latencies_of_the_data_sheet() -> None:
    """Interconnect, tRCD and CL; then an open row saves tRCD, and another row of the bank costs tRP more."""
    part = PARTS["DDR3-1066x32"]
    state = parse(DDR3, 1000.0).state()  # a cycle is 1 ns
    closed = part.latency_ns + part.trcd + part.cl * part.tck
    expected = [closed, closed - part.trcd, closed + part.trp]
    addresses = (0, 64, part.page_bytes * part.banks)
    for i, (address, ns) in enumerate(zip(addresses, expected, strict=True)):
        now = 1000 * i
        first, last = dram_access(state, now, address, 32, 0)
        assert first - now == pytest.approx(ns, abs=1.5)
        assert last - now == pytest.approx(ns + 4 * part.tck, abs=1.5)


def test_refresh_comes_every_trefi() -> None:
    """Refreshes are counted while requests come, and a long silence does not skip any."""
    spec = parse(DDR4, 300.0)
    state = spec.state()
    for k in range(2000):
        dram_access(state, 100 * k, k * BURST, BURST, 0)
    ns = 200_000 / 0.3
    assert dram_counts(state).refreshes == pytest.approx(ns / 7800, abs=1.5)


@pytest.mark.parametrize("rate", [1.0, 3.7, 16.0])
def test_a_fixed_memory_moves_its_rate_and_no_more(rate: float) -> None:
    """1000 bursts of 64 bytes end when the rate says so, after the latency."""
    spec = parse(f"fixed:{rate},25")
    state = spec.state()
    for k in range(1000):
        first, last = dram_access(state, 0, k * 64, 64, 0)
        if k == 0:
            assert first == 25
    assert last == pytest.approx(64_000 / rate + 25, rel=1e-3)
    assert last >= 64_000 / spec.peak_bytes_per_cycle


@pytest.mark.parametrize("text", [DDR4, DDR3, LPDDR4, "fixed:7.7,3"])
def test_no_traffic_exceeds_the_peak(text: str) -> None:
    """Random sizes, reads and writes at random times stay below peak_bytes_per_cycle."""
    rng = np.random.default_rng(3)
    spec = parse(text)
    state, now, end, moved = spec.state(), 0, 0, 0
    for _ in range(2000):
        now += int(rng.integers(3))
        size = int(rng.integers(1, 2000))
        first, last = dram_access(state, now, int(rng.integers(1 << 20)), size, int(rng.integers(2)))
        assert now <= first <= last
        end, moved = max(end, last), moved + size
    pending = 4096  # accepted writes that are still on their way
    assert moved - pending <= end * spec.peak_bytes_per_cycle


def test_every_board_names_a_part_with_its_peak() -> None:
    """boards.toml and PARTS agree on the peak."""
    for name in board_names():
        board = Board.named(name)
        assert PARTS[board.dram].peak_gb_s == pytest.approx(board.dram_gb_s, rel=2e-3)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("fixed:0", "rate of"),
        ("fixed:abc", "fixed:BYTES_PER_CYCLE"),
        ("fixed:8,-1", "latency of 0"),
        ("fixed:nan", "rate of"),
        ("banked:DDR4-2400", "did you mean banked:DDR4-2400x64"),
        ("hbm", "PART one of DDR4-2400x64"),
    ],
)
def test_an_unknown_memory_is_refused_with_what_would_help(text: str, match: str) -> None:
    """The message quotes the text and shows the forms."""
    with pytest.raises(SimulationError, match=match):
        parse(text)
