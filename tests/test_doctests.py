"""Every example in a docstring is run, on the package as installed."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import tilewright

MODULES = ["tilewright"] + [
    m.name
    for m in pkgutil.walk_packages(tilewright.__path__, "tilewright.")
    if not m.name.startswith(("tilewright.tests", "tilewright.docs", "tilewright.examples"))
    and not m.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_hold(name: str, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """A module without examples has at least to be importable."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, report=True)
    assert not found.failed
