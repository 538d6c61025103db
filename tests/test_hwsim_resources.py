"""Resources: RAM shapes, the model against Yosys' counts, and reasons of each misfit."""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time

import pytest
from synthesis import HELD_OUT, MACHINES, RESOURCES, errors, total
from tilewright.hwsim.fabric import bram36, dsp_slices, logic
from tilewright.hwsim.resources import fits, flip_flops, resources
from tilewright.ir.arch import PRESETS, Arch
from tilewright.ir.board import Board

COUNTS = json.loads((Path(__file__).parent / "golden" / "synthesis.json").read_text(encoding="utf-8"))
COUNTED = [(family, name) for family in ("ultrascale+", "7series") for name in COUNTS[family]]


def used(arch: Arch, board: str | None = None) -> dict[str, float]:
    return {r.resource: r.used for r in resources(arch, Board.named(board) if board else None)}


@pytest.mark.parametrize(
    ("bits", "words", "blocks"),
    [(72, 512, 1), (128, 2048, 7.5), (80, 1365, 3.5), (320, 1365, 13.5), (128, 3000, 11.5), (20, 4096, 2.5), (8, 8192, 2), (192, 3000, 16.5)],
)  # fmt: skip
def test_a_memory_takes_the_blocks_that_yosys_gives_it(bits: int, words: int, blocks: float) -> None:
    """Shapes of one kind of block, and a narrower one for the bits that are left: as memory_libmap was seen to choose."""
    assert bram36(bits, words) == blocks


@pytest.mark.parametrize(
    ("bits", "words", "blocks"),
    [(64, 512, 1), (128, 512, 2), (128, 513, 4), (32, 512, 0.5), (32, 1024, 1), (80, 512, 1.5), (80, 640, 2.5), (80, 4096, 10)],
)  # fmt: skip
def test_byte_enables_leave_ninth_bits_unused(bits: int, words: int, blocks: float) -> None:
    """Map banks: 8 bytes x 512 in a BRAM36, half of it in a BRAM18."""
    assert bram36(bits, words, True) == blocks


@pytest.mark.parametrize(("family", "name"), COUNTED)
def test_the_model_counts_what_yosys_counted(family: str, name: str) -> None:
    """DSP, BRAM and URAM to the last one; LUT and FF within 10 %, also of machines that were not shown to the fit."""
    wrong = dict(zip(RESOURCES, errors(name, family, total(COUNTS[family][name])), strict=True))
    assert [wrong[r] for r in RESOURCES[:3]] == [0, 0, 0]
    assert abs(wrong["LUT"]) < 0.1
    assert abs(wrong["FF"]) < 0.1


def test_both_families_have_machines_that_were_held_out() -> None:
    """A fit that is only shown what it was fitted to proves nothing."""
    for family, names in HELD_OUT.items():
        assert any(name in COUNTS[family] for name in names)
        assert any(name not in names for name in COUNTS[family])
    assert set(MACHINES) >= {name for _, name in COUNTED}


@pytest.mark.parametrize("name", PRESETS)
def test_an_array_uses_half_a_dsp_a_product(name: str) -> None:
    """Two products a slice; requantisers and addresses beside it do not grow with input channels."""
    arch = PRESETS[name]
    slices = dsp_slices(arch)
    assert slices["array"] * 2 == arch.macs_per_cycle
    assert slices["depthwise"] * 2 == arch.depthwise_macs_per_cycle
    assert sum(slices.values()) == used(arch)["DSP"]


def test_shift_rounding_needs_no_requantiser_dsp() -> None:
    """A power of two is a shifter."""
    arch = PRESETS["b1024"]
    less = used(arch)["DSP"] - used(arch.override({"rounding": ("shift",)}))["DSP"]
    assert less == 2 * (arch.conv.drain * 8 + arch.dwc.drain * 8 + arch.vec.pixels * 8)


def test_without_ultraram_weights_go_to_block_ram() -> None:
    """The same words in other blocks; nothing vanishes."""
    arch = PRESETS["b1024"]
    with_uram, without = used(arch, "kv260"), used(arch, "zcu102")
    # 512 bits, and 192 of depthwise weights, in 72 each.
    assert (with_uram["URAM"], without["URAM"]) == (8 + 3, 0)
    assert without["BRAM36"] - with_uram["BRAM36"] == bram36(512, 2048) + bram36(192, 1365)


@pytest.mark.parametrize(
    "change", [{"conv.ic": 32}, {"conv.pixels": 16}, {"dwc.taps": 5}, {"vec.pixels": 8}, {"dma.ports": 4}]
)
def test_more_of_anything_takes_more(change: dict[str, int]) -> None:
    """Whatever grows, the whole does not shrink."""
    arch = PRESETS["b4096"]
    for family in ("ultrascale+", "7series"):
        few, many = logic(arch, family).values(), logic(arch.override(change), family).values()
        assert sum(lut for lut, _ in many) > sum(lut for lut, _ in few)
        assert sum(ff for _, ff in many) > sum(ff for _, ff in few)
    assert flip_flops(arch.override(change)) > flip_flops(arch)


def test_a_small_design_fits_and_a_large_one_says_why_not() -> None:
    """Each reason has both numbers and a lever."""
    assert fits(PRESETS["b800"], Board.named("kv260")) == ()
    assert fits(PRESETS["b4096"], Board.named("zcu102")) == ()
    arch = PRESETS["b4096"].override({"clock_mhz": 400.0, "cores": 3})
    reasons = fits(arch, Board.named("pynq-z2"))
    text = "\n".join(reasons)
    for part in (
        f"needs {used(arch, 'pynq-z2')['DSP']:,} DSP, pynq-z2 has 220",
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


def test_a_sweep_may_ask_for_every_point() -> None:
    """A fraction of a millisecond a machine, measured over many: slow processors included."""
    archs = [PRESETS[name] for name in PRESETS]
    board = Board.named("kv260")
    resources(archs[0], board)
    start = process_time()
    for _ in range(20):
        for arch in archs:
            resources(arch, board)
    assert (process_time() - start) / (20 * len(archs)) < 1e-3
