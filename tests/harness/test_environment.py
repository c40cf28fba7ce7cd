"""What builds the environment: it refuses an old Python in plain words, and its lists name no address."""

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOOTSTRAP = ROOT / "scripts" / "bootstrap.py"
LISTS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.fixture
def bootstrap() -> ModuleType:
    """scripts/bootstrap.py as a module."""
    spec = importlib.util.spec_from_file_location("bootstrap", BOOTSTRAP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 6, 15), (3, 10, 13)])
def test_an_old_python_is_told_what_is_needed(
    version: tuple[int, int, int],
    bootstrap: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    assert bootstrap.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("Darkroom needs Python 3.11 or newer")
    assert ".".join(map(str, version)) in said


def test_a_python_without_venv_is_told_what_to_install(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert bootstrap.main() == 1
    assert "-venv`" in capsys.readouterr().err


def test_the_first_script_uses_no_syntax_that_an_old_python_lacks() -> None:
    tree = ast.parse(BOOTSTRAP.read_text(encoding="utf-8"), feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Match)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert not [function for function in functions if function.returns or function.args.kwonlyargs]


@pytest.mark.parametrize("listed", LISTS, ids=lambda path: path.name)
def test_requirement_lists_are_hashed_and_name_no_address(listed: Path) -> None:
    text = listed.read_text(encoding="utf-8")
    without_hashes = re.sub(r"\s--hash=sha256:\S+", "", text)
    assert not re.search(r"://|^\s*-|@ ", without_hashes, re.MULTILINE)
    pins = re.findall(r"^[A-Za-z0-9].*$", text, re.MULTILINE)
    assert pins
    assert all(re.search(r"==\S+ .*\\$", pin) for pin in pins)


def test_what_runs_and_what_is_tested_are_the_same_versions() -> None:
    pinned = {path.name: set(re.findall(r"^(\S+==\S+)", path.read_text(), re.MULTILINE)) for path in LISTS}
    assert pinned["runtime.txt"] <= pinned["dev.txt"]
    assert pinned["bootstrap.txt"] <= pinned["dev.txt"]
