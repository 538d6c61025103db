"""Resources: RAM shapes, monotone laws, and reasons of each misfit."""

from __future__ import annotations

import pytest
from tilewright.hwsim.resources import _bram, fits, flip_flops, resources
from tilewright.ir.arch import PRESETS, Arch
from tilewright.ir.board import Board


def used(arch: Arch, board: str | None = None) -> dict[str, float]:
    return {r.resource: r.used for r in resources(arch, Board.named(board) if board else None)}


@pytest.mark.parametrize(
    ("width", "depth", "blocks"),
    [(8, 512, 1), (16, 512, 2), (16, 513, 4), (4, 512, 0.5), (4, 1024, 1), (1, 2048, 0.5), (1, 4096, 1), (10, 512, 1.5), (12, 512, 1.5)],
)  # fmt: skip
def test_a_memory_takes_the_blocks_of_the_data_sheet(width: int, depth: int, blocks: float) -> None:
    """Simple dual port with a write enable a byte: 8 bytes x 512 in a BRAM36, half of it in a BRAM18."""
    assert _bram(width, depth) == blocks


def test_b4096_counts() -> None:
    """2048 products in 1024 DSP; 64 map banks of two BRAM36; weights and depthwise weights in UltraRAM."""
    plain, full = used(PRESETS["b4096-nodw"], "zcu104"), used(PRESETS["b4096"], "zcu104")
    # Array, 2 x 16 lanes x 2 products of an add, two a requantiser: 4 x 16 of CONV and 2 x 16 of VEC.
    assert plain["DSP"] == 1024 + 64 + 2 * (64 + 32)
    # 8 pixels x 16 channels x 3 taps in halves, and 4 x 16 requantisers.
    assert full["DSP"] - plain["DSP"] == 192 + 128
    assert plain["BRAM36"] == 4 * 16 * 2 + 2 + 2 * 2 * 2
    # 16 banks of 16 bytes x 2048 words in pairs; 1365 words of 16 lanes x 3 taps.
    assert (plain["URAM"], full["URAM"]) == (16 * 2, 16 * 2 + 16 * 3 // 8)


@pytest.mark.parametrize("name", PRESETS)
def test_an_array_uses_at_most_half_a_dsp_a_product(name: str) -> None:
    """Beside requantisers and the adder of VEC, which do not grow with input channels."""
    arch = PRESETS[name]
    wide = arch.override({"conv.ic": arch.conv.ic})
    assert used(wide)["DSP"] >= arch.macs_per_cycle / 2
    lanes = (
        arch.conv.drain * arch.conv.oc
        + arch.dwc.drain * arch.dwc.channels * arch.has_dwc
        + 2 * arch.vec.pixels * arch.lanes
    )
    assert used(wide)["DSP"] <= (arch.macs_per_cycle + arch.depthwise_macs_per_cycle) / 2 + 2 * lanes


def test_shift_rounding_needs_no_requantiser_dsp() -> None:
    """A power of two is a shifter."""
    arch = PRESETS["b1024"]
    assert used(arch)["DSP"] - used(arch.override({"rounding": ("shift",)}))["DSP"] == 2 * (
        2 * 2 + 0
    ) * 0 + 2 * (arch.conv.drain * 8 + arch.dwc.drain * 8 + arch.vec.pixels * 8)


def test_without_ultraram_weights_go_to_block_ram() -> None:
    """The same bytes in other blocks; nothing vanishes."""
    arch = PRESETS["b1024"]
    with_uram, without = used(arch, "kv260"), used(arch, "zcu102")
    assert with_uram["URAM"] > 0 == without["URAM"]
    assert without["BRAM36"] > with_uram["BRAM36"]


def test_luts_of_b512_and_b4096_follow_silicon_before_our_own_parts() -> None:
    """Flip-flops start from the vendor's line: 33,572 at 256 products and 99,791 at 2048, and ours have more."""
    for name, ff in (("b512-nodw", 33_572), ("b4096-nodw", 99_791)):
        assert ff <= flip_flops(PRESETS[name]) <= 1.4 * ff


def test_a_small_design_fits_and_a_large_one_says_why_not() -> None:
    """Each reason has both numbers and a lever."""
    assert fits(PRESETS["b1024"], Board.named("kv260")) == ()
    assert fits(PRESETS["b4096"], Board.named("zcu104")) == ()
    reasons = fits(PRESETS["b4096"].override({"clock_mhz": 400.0, "cores": 3}), Board.named("pynq-z2"))
    text = "\n".join(reasons)
    for part in (
        "needs 4,800 DSP, pynq-z2 has 220",
        "BRAM36, pynq-z2 has 140",
        "(estimated) LUT, pynq-z2 has 53,200",
        "400 MHz, RAM of xc7z020clg400-1 ends at 388.2 MHz",
        "3 x 2 ports, pynq-z2 offers 4",
        "set dma.bits = 64",
        "set dma.burst = 16",
    ):
        assert part in text


def test_cores_multiply() -> None:
    """Two cores use twice of everything."""
    one, two = used(PRESETS["b512"], "zcu104"), used(PRESETS["b512"].override({"cores": 2}), "zcu104")
    assert two == {name: 2 * n for name, n in one.items()}
