"""Energy: linear in counts, every coefficient sourced, nodes in order, and the one measurement there is."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tilewright.hwsim.dram import DramCounts, parse
from tilewright.hwsim.energy import COMPONENTS, energy, tables
from tilewright.ir.arch import Arch
from tilewright.ir.board import Board
from tilewright.ir.errors import SimulationError

ARCH = Arch.preset("b4096")
DDR4 = parse("banked:DDR4-2400x64", ARCH.clock_mhz)
ACTIONS = {
    "map_bytes": 10_000_000,
    "weight_bytes": 30_000_000,
    "depthwise_bytes": 100_000,
    "product": 300_000_000,
    "depthwise_product": 20_000_000,
    "vector_op": 1_000_000,
    "requantised": 5_000_000,
    "lookup": 1_000_000,
    "instruction": 1000,
    "dram_bytes": 4_000_000,
}
COUNTS = DramCounts(700, 3_600_000, 400_000, 100, 60_000, 7_000)


@pytest.mark.parametrize("table", tables())
def test_energy_is_linear_in_counts_and_time(table: str) -> None:
    """Twice everything is twice the energy, in every component."""
    twice = DramCounts(*(2 * getattr(COUNTS, name) for name in COUNTS.__slots__))
    one, _ = energy(ACTIONS, COUNTS, 250_000, ARCH, DDR4, table=table)
    two, _ = energy({k: 2 * v for k, v in ACTIONS.items()}, twice, 500_000, ARCH, DDR4, table=table)
    assert tuple(one.components) == COMPONENTS
    for name, mj in one.components.items():
        assert mj > 0
        assert two.components[name] == pytest.approx(2 * mj)


@pytest.mark.parametrize("action", [a for a in ACTIONS if a != "dram_bytes"])
def test_every_action_costs_something(action: str) -> None:
    """Leaving out one kind of action lowers the energy."""
    full, _ = energy(ACTIONS, COUNTS, 250_000, ARCH, DDR4)
    less, _ = energy({**ACTIONS, action: 0}, COUNTS, 250_000, ARCH, DDR4)
    assert less.total_mj < full.total_mj


def test_every_coefficient_has_value_uncertainty_and_source() -> None:
    """A line a coefficient, and a spread of the total within what the parts say."""
    for table in tables():
        used, _ = energy(ACTIONS, COUNTS, 250_000, ARCH, DDR4, table=table)
        assert used.estimated
        assert len(used.sources) >= 10
        assert all("+-" in line and len(line.split(": ", 1)[1]) > 10 for line in used.sources)
        assert 0.02 < used.relative_uncertainty < 0.5


def test_smaller_nodes_spend_less() -> None:
    """On-chip energy falls from 65 nm to 7 nm, and DRAM stays."""
    nodes = ("asic65", "asic45", "asic32", "asic20", "asic16", "asic10", "asic7")
    found = [energy(ACTIONS, COUNTS, 250_000, ARCH, DDR4, table=t)[0].components for t in nodes]
    assert all(a["mac"] > b["mac"] for a, b in pairwise(found))
    assert len({c["dram"] for c in found}) == 1


def test_a_mac_at_45_nm_is_horowitz_multiply_and_add() -> None:
    """0.2 pJ + 0.1 pJ."""
    used, _ = energy({**dict.fromkeys(ACTIONS, 0), "product": 10**9}, COUNTS, 1, ARCH, DDR4, table="asic45")
    assert used.components["mac"] == pytest.approx(0.3)


def test_ddr4_at_full_load_costs_18_pj_a_bit() -> None:
    """A stream at 95 % of 19.2 GB/s for a millisecond, a row opened every 8 KB."""
    size = int(0.95 * 19.2e6)
    used, _ = energy(
        dict.fromkeys(ACTIONS, 0), DramCounts(size // 8192, size, 0, 128, 0, 0), 300_000, ARCH, DDR4
    )
    assert used.components["dram"] / (8e-9 * size) == pytest.approx(18, abs=1)


def test_a_b4096_at_silicons_load_spends_what_the_board_measured() -> None:
    """6.8 W dynamic for three cores at 190 ResNet-50 frames a second: 10 pJ a MAC with DRAM, +-30 % here.

    Counts of a frame: 3.49 G products, map words read once for 16 x 16 products a pixel, weight words once for 8
    pixels, 37 MB of DRAM traffic; a core makes 63 frames a second at 300 MHz.
    """
    macs = 3_490_000_000
    actions = {
        **dict.fromkeys(ACTIONS, 0),
        "product": macs,
        "map_bytes": macs // 16,
        "weight_bytes": macs // 8,
    }
    traffic = DramCounts(37_000_000 // 1024, 30_000_000, 7_000_000, 0, 0, 0)
    used, _ = energy(actions, traffic, 300_000_000 // 63, ARCH, DDR4, board=Board.named("zcu102"))
    background = 660 * 1 / 63  # mJ: the idle board has it too
    dynamic = used.total_mj - used.components["static"] - background
    assert dynamic / macs * 1e9 == pytest.approx(10, rel=0.3)


def test_the_board_chooses_the_table() -> None:
    """16 nm and 28 nm boards; without a board, ASIC."""
    names = [
        energy(ACTIONS, COUNTS, 1000, ARCH, DDR4, board=b and Board.named(b))[0].table
        for b in ("kv260", "pynq-z2", None)
    ]
    assert names == ["FPGA, 16 nm FinFET, 0.85 V", "FPGA, 28 nm, 1.0 V", "ASIC, 45 nm, 0.9 V"]


def test_an_unknown_table_is_refused() -> None:
    """The message lists what there is."""
    with pytest.raises(SimulationError, match="no energy table 'asic5'; there are asic45, fpga16"):
        energy(ACTIONS, COUNTS, 1000, ARCH, DDR4, table="asic5")
