"""The table of docs/accuracy.md: complete, and above what a regression would leave."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the script is a neighbour of this test

from accuracy import COLUMNS, PAGE, Row
from pages import read_rows
from tasks import TASKS

MOST_LOST = {
    # points of score that int8 may cost; 200 samples say no more than five
    "resnet8": 0.03,
    "vww": 0.02,
    "kws": 0.10,
    "mobilenet_v2_imagenet": 0.10,
    "ocr_det": 0.05,
    "ocr_cls": 0.0,
    "ocr_rec": 0.03,
    "centerface": 0.05,
    "yolov8n": 0.10,
}


def page() -> dict[str, dict[str, str]]:
    """Cells by network and column."""
    lines = read_rows(PAGE, COLUMNS)
    return {
        name: dict(zip(COLUMNS, (c.strip() for c in line.strip("|").split("|")), strict=True))
        for name, line in lines.items()
    }


def test_the_page_has_every_network_and_no_byte_that_the_emulator_computes_otherwise() -> None:
    rows = page()
    assert list(rows) == list(TASKS)
    for cells in rows.values():
        compared, differing = cells["emulated, differing"].replace(",", "").split()
        assert int(compared) > 50_000
        assert int(differing) == 0


@pytest.mark.parametrize("name", MOST_LOST)
def test_int8_costs_no_more_than_it_may(name: str) -> None:
    cells = page()[name]
    assert float(cells["int8"]) >= float(cells["float"]) - MOST_LOST[name]


def test_a_row_shows_a_dash_where_nothing_was_measured() -> None:
    row = Row("net", "top-1, n = 200", 20, {"float": 0.9, "f32": 0.85}, None, None, (100, 0), ())
    assert row.cells() == ["top-1 (20)", "0.900", "–", "0.850", "–", "–", "–", "100, 0", "none"]


def test_a_score_in_db_has_no_float_column() -> None:
    """The float network compared with itself has no noise."""
    row = Row("net", "SQNR in dB", 2, {"float": 99.0, "f32": 21.26}, 1.0, ("conv", 9.0), (100, 0), ("1 LRN",))
    assert row.cells()[1:4] == ["–", "–", "21.3"]
