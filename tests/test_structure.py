"""The shape of the code, read from its source."""

from __future__ import annotations

import ast
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("frontend", "hwsim", "ir", "reports", "rtl", "scheduler")
MAY_IMPORT = {
    "ir": set(),
    "frontend": {"ir"},
    "hwsim": {"ir"},
    "rtl": {"ir", "hwsim"},
    "scheduler": {"ir", "hwsim"},
    "reports": {"ir", "hwsim"},
}
LONGEST = 460
"""Lines. A file is one idea; see `LONGER` for those with a reason."""
LONGER: dict[str, str] = {
    "ir/graph.py": "one operator after the other, each short",
    "hwsim/kernel.py": "numba's cache notices edits of a kernel's own file alone, so memory and events share one",
    "ir/isa.py": "one table of instruction formats, and its encoder beside it",
    "scheduler/quick_plan.py": "kernels that call each other share a file, as in hwsim/kernel.py",
    "scheduler/quick_place.py": "the same",
    "scheduler/quick_strips.py": "the same",
    "scheduler/quick_unroll.py": "the same",
}


def _sources() -> list[Path]:
    return [*sorted(ROOT.glob("*.py")), *(p for f in FOLDERS for p in sorted((ROOT / f).glob("*.py")))]


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Level and module of each import statement, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.module is None:
                yield from ((node.level, alias.name) for alias in node.names)
            else:
                yield node.level, node.module
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_one_way(folder: str) -> None:
    """A folder imports itself and those below it, never the root."""
    for path in sorted((ROOT / folder).glob("*.py")):
        for level, module in _imports(path):
            if level >= 2:
                target = module.split(".")[0]
                assert target in MAY_IMPORT[folder], f"{path.relative_to(ROOT)} imports {target}"
            assert level <= 2, f"{path.relative_to(ROOT)} leaves the package"


def test_the_package_names_itself_by_relative_imports_only() -> None:
    """An absolute import would make a second set of classes under the checkout's name."""
    own = {"tilewright", *FOLDERS}
    for path in _sources():
        for level, module in _imports(path):
            assert level > 0 or module.split(".")[0] not in own, f"{path.relative_to(ROOT)} imports {module}"


def test_folders_are_flat_and_tests_are_no_package() -> None:
    for folder in FOLDERS:
        inner = {p.name for p in (ROOT / folder).iterdir() if p.is_dir()} - {"__pycache__"}
        assert inner <= ({"driver"} if folder == "rtl" else set())  # runs on boards: data, no package
    assert not (ROOT / "tests" / "__init__.py").exists()


def test_a_file_is_one_idea() -> None:
    """Long files are named with their reason."""
    for path in _sources():
        name = path.relative_to(ROOT).as_posix()
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= LONGEST or name in LONGER, f"{name} has {lines} lines: look for the second idea in it"


def test_every_module_has_a_docstring_and_says_what_it_exports() -> None:
    for path in _sources():
        name = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{name} has no docstring"
        if path.name in {"__init__.py", "__main__.py"}:
            continue
        assigned = {
            t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
        }
        assert "__all__" in assigned, f"{name} has no __all__"


def test_exported_names_exist() -> None:
    """A fused pair in ``__all__`` (a missing comma) is no name."""
    for path in _sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
            ):
                exported = set(ast.literal_eval(node.value))
                text = path.read_text(encoding="utf-8")
                missing = {n for n in exported if text.count(n) < 2}
                assert not missing, f"{path.relative_to(ROOT)} exports {missing}"


def test_no_name_says_nothing() -> None:
    """`utils`, `helpers` and `manager` are left to others."""
    for path in _sources():
        assert not {"utils", "util", "helper", "helpers", "manager", "misc", "common"} & set(
            path.stem.split("_")
        )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel and a source archive, built without a network from what is under version control."""
    pytest.importorskip("setuptools")
    copy, out = tmp_path_factory.mktemp("copy") / "checkout", tmp_path_factory.mktemp("built")
    copy.mkdir()
    for path in [
        *_sources(),
        *(
            p
            for p in ROOT.iterdir()
            if p.suffix in {".toml", ".md"} or p.name in {"LICENSE", "py.typed", "MANIFEST.in"}
        ),
    ]:
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    for folder in (*FOLDERS, "spaces"):
        for path in [*(ROOT / folder).iterdir(), *(ROOT / folder / "driver").glob("*")]:
            if path.is_file() and (path.suffix != ".py" or path.parent.name == "driver"):
                target = copy / path.relative_to(ROOT)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(path.read_bytes())
    code = (
        "import sys; from setuptools import build_meta as b; out = sys.argv[1]; "  # a build changes sys.argv
        "b.build_wheel(out); b.build_sdist(out)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(out)],
        check=False,
        cwd=copy,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_the_wheel_puts_one_name_into_site_packages(built: tuple[Path, Path]) -> None:
    """Generic names as ``ir`` must never land there."""
    with zipfile.ZipFile(built[0]) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"tilewright"}


def test_the_wheel_and_the_source_archive_hold_every_source_and_data_file(built: tuple[Path, Path]) -> None:
    """Machine-readable tables, templates and scripts travel with the code; tests and docs stay in the checkout."""
    wanted = {p.relative_to(ROOT).as_posix() for p in _sources()} | {"py.typed"}
    wanted |= {
        f"{f}/{p.name}"
        for f in FOLDERS
        for p in (ROOT / f).iterdir()
        if p.suffix in {".toml", ".j2", ".js", ".css", ".cpp"}
    }
    wanted |= {f"spaces/{p.name}" for p in (ROOT / "spaces").iterdir()}
    wanted |= {f"rtl/driver/{p.name}" for p in (ROOT / "rtl" / "driver").iterdir() if p.is_file()}
    with zipfile.ZipFile(built[0]) as wheel:
        inside = {n.removeprefix("tilewright/") for n in wheel.namelist() if n.startswith("tilewright/")}
    assert inside == wanted
    with tarfile.open(built[1]) as archive:
        packed = {n.split("/", 1)[1] for n in archive.getnames() if "/" in n}
    assert wanted <= packed
