"""Spaces as data, and the designs that choices stand for."""

from __future__ import annotations

import json

import pytest
from tilewright.explore_points import choices_at, make_point, numbered
from tilewright.explore_space import BESIDE, Range, Space, preset_spaces, schema
from tilewright.ir.arch import Arch
from tilewright.ir.board import board_names
from tilewright.ir.errors import ArchError

SPACE = """
[arch]
base = "b1024"
[space]                      # keys are Arch field paths, values are choices or ranges
"conv.pixels" = [4, 8]
"conv.ic" = [8, 12, 16]
"conv.oc" = [8, 12, 16]
"dwc.channels" = [0, 8, 16]  # 0: no depthwise PE
"clock_mhz" = [200, 300]
[constraints]
fits = "kv260"
"""


def test_a_space_is_read_and_written_back() -> None:
    space = Space.parse(SPACE)
    assert space.size == 2 * 3 * 3 * 3 * 2
    assert Space.parse(space.toml()) == space
    assert choices_at(space, 1)["clock_mhz"] == 300
    assert len({json.dumps(choices_at(space, i)) for i in range(space.size)}) == space.size


def test_every_board_has_a_space_with_designs_that_fit_and_some_that_do_not() -> None:
    assert set(preset_spaces()) >= set(board_names())
    for name in preset_spaces():
        space = Space.load(name)
        reasons = [p.reasons for p in numbered(space)]
        good = sum(not r for r in reasons)
        assert 100 < good < len(reasons), name
        assert space.title
        assert space.constraints.fits == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[space]\n"conv.pixel" = [1]', "conv.pixel: no such axis; did you mean conv.pixels"),
        ('[space]\n"conv.ic" = [7]', "conv.ic = 7: Input should be a multiple of 2"),
        ('[space]\n"conv.ic" = []', "conv.ic: no choices"),
        ('[space]\n"conv.ic" = [8, 8]', "stands there twice"),
        ('[space]\n"conv.ic" = 8', r"choices are a list, as \[8\], or a range"),
        ('[space]\n"clock_mhz" = { from = 300, to = 100, step = 50 }', "from 300 is above to 100"),
        ('[space]\n"clock_mhz" = { from = 300, to = 400 }', "needs either step or factor"),
        ('[space]\n"clock_mhz" = { from = 10, to = 1000, step = 0.001 }', "at most 10,000"),
        ('[space]\n"mode" = ["f16"]', "mode = 'f16'"),
        ('spaces = 1\n[space]\n"conv.ic" = [8]', "spaces: Extra inputs"),
        ('[space]\n"conv.ic" = [8]\n[follow]\n"conv.ic" = "8"', "is an axis as well"),
        ('[space]\n"conv.ic" = [8]\n[follow]\n"conv.icc" = "8"', "no field of an Arch file"),
        ('[space]\n"conv.ic" = [8]\n[constraints]\nfits = "kv261"', "no board 'kv261': did you mean kv260"),
        (
            '[space]\n"conv.ic" = [8]\n[constraints]\nrequire = ["dspp < 4"]',
            r"constraints.require\[0\].*did you mean dsp",
        ),
        ('[arch]\nbase = "b77"\n[space]\n"conv.ic" = [8]', "no preset 'b77'"),
        ('[space]\n"conv.ic" = [8]\n[weights]\na = 0', "weights, a: 0.0 is not above 0"),
        ("[space", "not TOML"),
    ],
)
def test_a_wrong_space_says_where_and_what(text: str, message: str) -> None:
    with pytest.raises(ArchError, match=message):
        Space.parse(text, where="S.toml")


def test_an_unknown_preset_names_the_others() -> None:
    with pytest.raises(ArchError, match="did you mean kv260"):
        Space.load("kv26")


def test_ranges_hold_both_ends() -> None:
    assert Range.model_validate({"from": 100, "to": 300, "step": 100}).values == (100, 200, 300)
    assert Range.model_validate({"from": 0.5, "to": 1.0, "step": 0.25}).values == (0.5, 0.75, 1.0)
    assert Range.model_validate({"from": 64, "to": 500, "factor": 2}).values == (64, 128, 256)


def test_the_schema_names_every_axis_with_its_meaning() -> None:
    """Every field of an Arch file can be an axis, and each thing beside it."""
    axes = schema()["properties"]["space"]["properties"]
    assert set(axes) >= (set(Arch.fields()) | set(BESIDE)) - {"name"}
    assert all(a["description"] for n, a in axes.items() if n not in {"clock_mhz", "cores"})
    json.dumps(schema())


def test_no_channels_means_no_engine_and_its_other_fields_stop_mattering() -> None:
    """Two taps of an engine that is not there are one design."""
    space = Space.build({"space": {"dwc.channels": [0, 8], "dwc.taps": [1, 3]}})
    points = list(numbered(space))
    assert [p.arch.has_dwc for p in points if p.arch] == [False, True, True]
    assert len({p.key for p in points}) == 3


def test_memories_take_the_nearest_size_that_divides_and_say_so() -> None:
    space = Space.build({"arch": {"base": "b1024"}, "space": {"conv.ic": [12]}})
    (point,) = numbered(space)
    assert point.arch is not None
    assert (point.arch.maps.kib, point.arch.weights.kib) == (255, 129)
    assert point.notes == (
        "maps.kib 256 -> 255, which divides into its banks",
        "weights.kib 128 -> 129, which divides into its banks",
    )
    strict = space.model_copy(update={"adapt": False})
    (point,) = numbered(strict)
    assert "maps.kib 256 does not divide" in point.reasons[0]


def test_fields_follow_others_and_whole_tables_can_be_choices() -> None:
    space = Space.build(
        {
            "arch": {"base": "b512"},
            "space": {"conv": [{"pixels": 2, "ic": 8, "oc": 8}, {"pixels": 4, "ic": 16, "oc": 16}]},
            "follow": {
                "dwc.pixels": "conv.pixels",
                "dwc.channels": "conv.ic",
                "weights.kib": "conv.ic * conv.oc",
            },
        }
    )
    archs = [p.arch for p in numbered(space) if p.arch]
    assert [(a.conv.ic, a.dwc.pixels, a.dwc.channels, a.weights.kib) for a in archs] == [
        (8, 2, 8, 64),
        (16, 4, 16, 256),
    ]


def test_every_reason_of_a_misfit_is_kept() -> None:
    space = Space.build(
        {
            "arch": {"base": "b4096"},
            "space": {"clock_mhz": [500]},
            "constraints": {"fits": "pynq-z2", "require": ["dsp <= 100", "latency_ms < 5"]},
        }
    )
    (point,) = numbered(space)
    told = "\n".join(point.reasons)
    for part in (
        "DSP, pynq-z2 has 220",
        "runs at 500 MHz",
        "ports of 128 bit",
        "misses `dsp <= 100`: dsp = ",
    ):
        assert part in told
    assert "latency_ms" not in told, "results are not known yet"


def test_the_hash_sees_everything_that_is_built_or_run() -> None:
    space = Space.build(
        {
            "space": {
                "cores": [1, 2],
                "board": ["kv260", "zcu104"],
                "dram": ["fixed:8", "fixed:16"],
                "objective": ["latency", "energy"],
                "mode": ["f32", "shift"],
                "model.width": [0.5, 1.0],
                "model.resolution": [32, 64],
                "model.variant": ["zoo:tiny", "zoo:mobilenet_v2"],
                "base": ["b512", "b1024"],
            }
        }
    )
    assert len({p.key for p in numbered(space)}) == space.size == 2**9
    first = make_point(space, choices_at(space, 0), 0)
    assert first.arch is not None
    assert first.arch.rounding == ("f32",), "hardware has the mode that the network needs, and no other"


def test_illegal_machines_and_memories_are_infeasible_not_fatal() -> None:
    space = Space.build({"space": {"dma.burst": [48, 64], "dram": ["fixed:16", "fast:3"]}})
    reasons = [p.reasons for p in numbered(space)]
    assert "illegal machine" in reasons[0][0]
    assert "take a power of two" in reasons[0][0]
    assert "illegal memory" in reasons[3][0]
    assert not reasons[2]
