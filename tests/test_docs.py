"""The pages under docs/: tables equal what the code prints, examples run, commands exist, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:)(?P<file>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """`docs/tables.py`, which no package holds."""
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced blocks of a page in these languages."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [m["text"] for m in found if m["language"] in languages]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda p: p.stem)
def test_tables_say_what_the_code_says(
    page: Path, tables: ModuleType, request: pytest.FixtureRequest
) -> None:
    """``python docs/tables.py``, or pytest with --update-golden, writes them anew."""
    text = page.read_text(encoding="utf-8")
    want = tables.rendered(text)
    if request.config.getoption("--update-golden"):
        page.write_text(want, encoding="utf-8")
        return
    assert text == want, f"{page.name} is out of date: run `python docs/tables.py` and read the difference"


def test_every_table_stands_on_a_page(tables: ModuleType) -> None:
    """A table that no page shows is nobody's, and a page that names an unknown one would fail to render."""
    text = "".join(p.read_text(encoding="utf-8") for p in tables.PAGES)
    named = re.findall(r"<!-- table: ([\w .+-]+) -->", text)
    # MAX has the fields of AVG, and says so.
    assert set(named) == set(tables.TABLES) - {"VEC.MAX"}
    assert tables.TABLES["VEC.MAX"]() == tables.TABLES["VEC.AVG"]()
    assert text.count("<!-- end -->") == len(named)


@pytest.mark.parametrize(
    "page", [p for p in sorted(DOCS.glob("*.md")) if blocks(p, "python")], ids=lambda p: p.stem
)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks of a page, one after the other, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "example"}
    for i, text in enumerate(blocks(page, "python")):
        exec(compile(text, f"{page.name}, Python block {i + 1}", "exec"), space)


def commands() -> list[tuple[str, str]]:
    """Every command line of this tool that a page shows."""
    out = []
    for page in PAGES:
        for text in blocks(page, "console", "sh"):
            for line in text.splitlines():
                words = line.removeprefix("$ ").partition("#")[0].strip()
                if words.startswith("tilewright "):
                    out.append((page.name, words))
    return out


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda v: v.replace(" ", "_"))
def test_commands_are_understood(page: str, line: str) -> None:
    """Verbs and options exist and their values parse; nothing is executed."""
    from tilewright.cli import app

    del page
    words = shlex.split(line.partition(" > ")[0])[1:]
    function, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert callable(function)
    assert bound is not None


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub forms them."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Files exist, and so do the headings that anchors name."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.finditer(text):
        target = (page.parent / link["file"]).resolve() if link["file"] else page
        assert target.exists(), f"{page.name} links to {link['file']}"
        if link["anchor"]:
            assert link["anchor"] in _anchors(target), f"{page.name} links to {target.name}#{link['anchor']}"


def test_the_index_names_every_page() -> None:
    """docs/README.md links all pages beside it."""
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in text, (
            f"docs/README.md does not name {page.name}"
        )


def test_files_that_pages_name_exist() -> None:
    """``folder/file.py`` in backquotes is a file of the package."""
    for page in DOCS.glob("*.md"):
        for name in re.findall(r"`((?:\w+/)+\w+\.(?:py|toml))`", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_tiling_on_the_page_parses_and_prints_back() -> None:
    """The language of docs/tiling.md is the one that `TileProgram` reads."""
    from tilewright.ir.tile import TileProgram

    texts = blocks(DOCS / "tiling.md", "tiling")
    assert texts
    for text in texts:
        tiling = TileProgram.parse(text)
        assert len(tiling.groups) == text.count("group ")
        assert TileProgram.parse(str(tiling)) == tiling
