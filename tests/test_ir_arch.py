"""The machine description: text in and out, refusals that say what would help, and what the presets promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphs import archs
from hypothesis import given, settings
from tilewright.ir.arch import PRESETS, Arch
from tilewright.ir.errors import ArchError

SHAPES = {
    "b512": (4, 8, 8), "b800": (4, 10, 10), "b1024": (8, 8, 8), "b1152": (4, 12, 12), "b1600": (8, 10, 10),
    "b2304": (8, 12, 12), "b3136": (8, 14, 14), "b4096": (8, 16, 16),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_preset_is_named_by_its_operations_a_cycle(name: str) -> None:
    """bN has about N operations a cycle, two a MAC, a depthwise engine as wide as the array; its twin has none."""
    arch, twin = PRESETS[name], PRESETS[f"{name}-nodw"]
    assert (arch.conv.pixels, arch.conv.ic, arch.conv.oc) == SHAPES[name]
    assert abs(2 * arch.macs_per_cycle - int(name[1:])) <= 0.02 * int(name[1:])
    assert (arch.dwc.pixels, arch.dwc.channels) == (arch.conv.pixels, arch.conv.ic)
    assert not twin.has_dwc
    assert twin.macs_per_cycle == arch.macs_per_cycle
    assert twin.design_hash != arch.design_hash
    assert (arch.cores, arch.clock_mhz) == (1, 300.0)


def test_the_largest_preset_has_half_a_mebibyte_for_maps_and_for_weights() -> None:
    assert (PRESETS["b4096"].maps.kib, PRESETS["b4096"].weights.kib) == (512, 512)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(archs())
def test_toml_reads_back_to_the_same_machine(arch: Arch) -> None:
    """Text and value are inverse, and the hash depends on nothing else."""
    again = Arch.parse(arch.toml())
    assert again == arch
    assert again.design_hash == arch.design_hash


def test_the_name_is_no_part_of_the_design() -> None:
    arch = PRESETS["b1024"]
    assert arch.override({"name": "mine"}).design_hash == arch.design_hash
    assert arch.override({"clock_mhz": 200.0}).design_hash != arch.design_hash


def test_a_file_may_start_from_a_preset(tmp_path: Path) -> None:
    """``base`` names it, the other keys change it; a preset's name needs no file."""
    path = tmp_path / "mine.toml"
    path.write_text('base = "b1024"\nname = "mine"\n[dwc]\ntaps = 9\n', encoding="utf-8")
    arch = Arch.load(path)
    assert (arch.name, arch.dwc.taps, arch.conv) == ("mine", 9, PRESETS["b1024"].conv)
    assert Arch.load("b512") == PRESETS["b512"]


def test_the_schema_names_every_field() -> None:
    """JSON Schema for editors, with what each field means."""
    text = json.dumps(Arch.model_json_schema())
    for field in Arch.fields():
        assert f'"{field.split(".")[-1]}"' in text
    assert "output pixels a cycle" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv =", "mine: not TOML"),
        ('base = "b4069"', "did you mean b4096"),
        ('base = "b512"\n[conv]\nic = 7', r"conv.ic: .*multiple of 2 \(got 7\)"),
        ('base = "b512"\n[conv]\npixels = 0\n[dwc]\ntaps = 99', r"conv.pixels: .*; dwc.taps"),
        ('base = "b512"\n[dma]\nbits = 48', "AXI data widths here are 32, 64, 128, 256 or 512"),
        (
            'base = "b512"\n[dma]\nbits = 512\nburst = 256',
            r"16384 bytes a burst; AXI4 ends one at 4096: set dma.burst <= 64",
        ),
        ('base = "b512"\n[dwc]\npixels = 0', "must both be zero"),
        ('base = "b512"\n[conv]\ndrain = 8', "conv.drain 8 is above conv.pixels 4"),
        (
            'base = "b1152"\n[maps]\nkib = 100',
            r"maps.kib 100 does not divide .* 384 bytes a row; take 99 or 102",
        ),
        ('base = "b512"\ncolour = "red"', "colour: Extra inputs"),
        ('base = "b512"\nname = "a b"', "name: "),
        (
            'base = "b512"\n[maps]\nkib = 16384',
            r"maps.kib gives 524288 words, and instructions address 262144",
        ),
    ],
)
def test_a_machine_that_cannot_be_is_refused_with_a_remedy(text: str, message: str) -> None:
    with pytest.raises(ArchError, match=message):
        Arch.parse(text, where="mine")


@pytest.mark.parametrize(
    ("path", "message"),
    [("conv.pixel", "did you mean conv.pixels"), ("conv", "no such field|conv"), ("a.b.c", "no such field")],
)
def test_a_field_that_is_not_there_gets_a_suggestion(path: str, message: str) -> None:
    with pytest.raises(ArchError, match=message):
        PRESETS["b512"].override({path: 4})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchError, match=r"gone\.toml: cannot be read as an arch file"):
        Arch.load(tmp_path / "gone.toml")
