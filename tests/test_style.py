"""Rules of the house that ruff does not know."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("datasets_scripts", "gallery", "metrics", "scripts", "space", "training")
FOLDERS = ("", *(f"{name}/**/" for name in PACKAGES))
SOURCES = sorted({path for folder in FOLDERS for path in ROOT.glob(f"{folder}*.py")})
TESTS = sorted((ROOT / "tests").glob("*.py"))
# Named like those below, but they stay in the repository.
SCRIPTS = {ROOT / "evaluate_clear.py", ROOT / "gallery_clear.py"}
REMOTE = sorted(set(ROOT.glob("*_clear.py")) - SCRIPTS)  # what travels with a checkpoint
LONGEST_FUNCTION, LONGEST_FILE = 60, 800
LOCAL_PLACES = re.compile(r"(?<![\w.])/(?:work|home|root|tmp|mnt|Users)/|\.\./shared")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=name_of)


def nodes(path: Path, *kinds: type) -> list:
    return [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, kinds)]


def test_the_rules_see_the_sources():
    names = {name_of(path) for path in SOURCES}
    assert {"modeling_clear.py", "train.py", "training/recognition.py"} <= names
    assert "metrics/person_retrieval/person_retrieval.py" in names
    assert not any(name.startswith((".", "tests/")) for name in names)


@each([*SOURCES, *TESTS])
def test_functions_and_files_can_be_taken_in(path):
    functions = nodes(path, ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}
    assert len(path.read_text("utf-8").splitlines()) <= LONGEST_FILE


@each(SOURCES)
def test_errors_are_raised_not_asserted(path):
    assert [node.lineno for node in nodes(path, ast.Assert)] == []


@each(SOURCES)
def test_no_place_of_one_machine_is_written_down(path):
    found = [line for line in path.read_text("utf-8").splitlines() if LOCAL_PLACES.search(line)]
    assert found == []


@pytest.mark.parametrize("place", ["/work/x", '"/home/me"', "at ../shared/data", "(/tmp/a)"])
def test_the_rule_against_places_finds_them(place):
    assert LOCAL_PLACES.search(place)
    assert not LOCAL_PLACES.search("https://x.org/home/me and datasets/work/a")


# ---- what transformers reads as text when it copies the code of a checkpoint ----------------


@each(REMOTE)
def test_remote_code_imports_its_neighbours_flat_and_by_name(path):
    """`from .x import y`: other forms are not copied, or not found when loaded."""
    names = {neighbour.stem for neighbour in REMOTE}
    for node in nodes(path, ast.ImportFrom):
        if node.level:
            assert node.level == 1, ast.unparse(node)
            assert node.module in names, ast.unparse(node)
    absolute = {
        alias.name.split(".")[0] for node in nodes(path, ast.Import) for alias in node.names
    }
    absolute |= {(n.module or "").split(".")[0] for n in nodes(path, ast.ImportFrom) if not n.level}
    assert not absolute & {*names, "clear_par"}


@each(REMOTE)
def test_no_text_of_remote_code_looks_like_an_import(path):
    """The search is by pattern, and finds imports inside documentation as well."""
    patterns = (r"^\s*import\s+\.(\S+)\s*$", r"^\s*from\s+\.(\S+)\s+import")
    text = path.read_text("utf-8")
    found = {name for pattern in patterns for name in re.findall(pattern, text, re.MULTILINE)}
    assert found == {node.module for node in nodes(path, ast.ImportFrom) if node.level}


# ---- documentation --------------------------------------------------------------------------


@pytest.fixture
def module(path):
    return importlib.import_module(f"clear_par.{path.stem}")


@each(REMOTE)
def test_every_public_name_is_documented(module):
    assert module.__doc__.strip()
    for name in module.__all__:
        thing = getattr(module, name)
        if callable(thing):
            own = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
            assert own, name
            assert own.strip(), name
            methods = vars(thing).items() if isinstance(thing, type) else ()
            for method, value in methods:
                if callable(value) and not method.startswith("_") and method != "forward":
                    assert value.__doc__, f"{name}.{method}"


@each(REMOTE)
def test_examples_in_the_documentation_run(module):
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted > 0
