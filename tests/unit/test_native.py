from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.native.choice import CHOICE, DIGEST_FILE, ROOT, VARIABLE, choose, digest
from tidegate.native.modules import MODULES, source_of


def _built(folder: Path, sources: str) -> Path:
    (folder / DIGEST_FILE).write_text(sources, encoding="ascii")
    return folder


def test_fresh_build_is_run(tmp_path: Path) -> None:
    """Whoever has compiled gets compiled modules, without another setting."""
    assert tmp_path == choose({}, built=_built(tmp_path, digest())).folder


def test_without_a_build_python_runs(tmp_path: Path) -> None:
    """Compiling is never needed."""
    assert "pure Python (not compiled)" == choose({}, built=tmp_path).words


def test_build_of_other_sources_is_not_run(tmp_path: Path) -> None:
    """Who edits a module runs what he wrote."""
    choice = choose({}, built=_built(tmp_path, "0" * 64))
    assert ("python", "pure Python (the compiled modules are of other sources)") == (choice.runtime, choice.words)


def test_fresh_build_can_be_switched_off(tmp_path: Path) -> None:
    """The way out, should a compiled module behave otherwise than its source."""
    assert choose({VARIABLE: "0"}, built=_built(tmp_path, digest())).folder is None


@pytest.mark.parametrize("sources", ["", "0" * 64])
def test_demand_for_compiled_modules_fails_without_them(tmp_path: Path, sources: str) -> None:
    """A test or an image that says it runs them does not run something else."""
    with pytest.raises(ImportError, match="run `make native`"):
        choose({VARIABLE: "1"}, built=_built(tmp_path, sources))


def test_digest_changes_with_every_source(tmp_path: Path) -> None:
    """Each file counts, and so does which of two files a line stands in."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(name)
    before = digest(tmp_path, ["a", "b"])
    (tmp_path / "a.py").write_text("ab")
    (tmp_path / "b.py").write_text("")
    assert before != digest(tmp_path, ["a", "b"])


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_found_as_chosen(module: str) -> None:
    """Every module of the list is a file, in a package that looks for compiled modules first."""
    file = Path(str(importlib.import_module(module).__file__))
    expected = ROOT if CHOICE.folder is None else CHOICE.folder
    assert (True, True) == ((ROOT / source_of(module)).exists(), file.is_relative_to(expected))
    assert (CHOICE.folder is None) == (file.suffix == ".py")


def test_packages_that_look_for_compiled_modules_have_some() -> None:
    """A module that falls off the list, in a merge perhaps, costs speed and breaks nothing: nobody would notice."""
    files = [path for name in ("gateway", "tidegate", "worker") for path in (ROOT / name).rglob("__init__.py")]
    looking = {path.parent for path in files if "search_path(__name__" in path.read_text(encoding="utf-8")}
    assert {(ROOT / source_of(module)).parent for module in MODULES} == looking


@pytest.mark.parametrize("module", MODULES)
def test_compiled_classes_with_a_length_say_when_they_are_true(module: str) -> None:
    """To mypyc, what may be None and is not is true, unless its class has ``__bool__``."""
    for one in _classes(ROOT / source_of(module)):
        methods = {method.name for method in one.body if isinstance(method, ast.FunctionDef)}
        assert one.bases or "__len__" not in methods or "__bool__" in methods, one.name


@pytest.mark.parametrize("package", ["bench", "gateway", "tests", "tidegate", "worker"])
def test_nothing_inherits_from_compiled_classes_without_being_compiled(package: str) -> None:
    """Python refuses to, once they are compiled, unless they allow for it."""
    compiled = {
        (module, one.name)
        for module in MODULES
        for one in _classes(ROOT / source_of(module))
        if not one.bases and not _allows_heirs(one)
    }
    sources = {ROOT / source_of(module) for module in MODULES}
    for path in sorted((ROOT / package).rglob("*.py")):
        if path not in sources:
            assert [] == [bases for bases in _imported_bases(path) if bases in compiled], path


def _classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]


def _allows_heirs(one: ast.ClassDef) -> bool:
    return "mypyc_attr(allow_interpreted_subclasses=True)" in map(ast.unparse, one.decorator_list)


def _imported_bases(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of each base of a class that is imported by its name."""
    source = path.read_text(encoding="utf-8")
    if "class " not in source:
        return
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    origins = {name.asname or name.name: (str(node.module), name.name) for node in imports for name in node.names}
    bases = [base for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    yield from (origins[base.id] for base in bases if isinstance(base, ast.Name) and base.id in origins)
