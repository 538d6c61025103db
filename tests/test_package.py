"""The public door: its names, and how little it costs to open it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tilewright

PUBLIC = [
    "load",
    "check",
    "quantize",
    "compile",
    "simulate",
    "predict",
    "report",
    "explore",
    "zoo",
    "Arch",
    "Board",
    "Calibration",
    "Model",
    "Compiled",
    "Result",
    "Study",
    "TilewrightError",
]


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.strip()


def test_the_public_names_are_these() -> None:
    """A name added or lost here is a decision, with a line in the changelog."""
    assert tilewright.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_loads_and_says_what_it_is(name: str) -> None:
    """Each is found, and has a docstring."""
    assert getattr(tilewright, name).__doc__


def test_the_wrong_name_is_answered_with_the_right_ones() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'quantise'; it has load, check, quantize"):
        _ = tilewright.quantise  # type: ignore[attr-defined]


def test_main_values_show_themselves_in_a_notebook() -> None:
    """Compiled networks and results have an HTML form."""
    for kind in (tilewright.Compiled, tilewright.Result, tilewright.Study):
        assert callable(getattr(kind, "_repr_html_", None))


def test_importing_the_package_loads_none_of_the_heavy_ones() -> None:
    """Nor any module of ours but the root."""
    loaded = _python(
        "import sys; before = set(sys.modules); import tilewright; "
        "print(sorted(m for m in set(sys.modules) - before if m.split('.')[0] not in sys.stdlib_module_names and not m.startswith('_')))"
    )
    assert loaded == "['tilewright']"


def test_help_answers_in_a_third_of_a_second() -> None:
    """CPU time, the best of several: the machine may be busy. The bar of 0.3 s is for a quiet machine."""
    times = []
    for _ in range(5):
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "tilewright", "--help"], capture_output=True, check=True, cwd="/"
        )
        after = os.times()
        times.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert min(times) < 0.3


def test_help_loads_no_numbers() -> None:
    """numpy, numba and onnx wait until a verb needs them."""
    heavy = _python(
        "import sys, io, contextlib; from tilewright.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['--help'])\n"
        "print([m for m in ('numpy', 'numba', 'onnx', 'pydantic', 'matplotlib') if m in sys.modules])"
    )
    assert heavy == "[]"


def test_the_version_is_told_once() -> None:
    """The installed metadata and the package agree."""
    from importlib.metadata import version

    assert version("tilewright") == tilewright.__version__


def test_the_readme_has_the_two_commands() -> None:
    """One that shows the tool, one that tests it; CI runs the second."""
    root = Path(tilewright.__file__).parent
    readme = root / "README.md"
    if not readme.exists():
        pytest.skip("README.md: the package is installed without its checkout")
    text = readme.read_text(encoding="utf-8")
    assert "tilewright demo" in text
    assert "pytest" in text
