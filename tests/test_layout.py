"""The house keeps its rules: imports flow down, files and functions stay small, all is tested."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "vitrail"
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 420, 60

# Files without a test file of their own name, and the suite that holds them.
ELSEWHERE = {
    "__main__.py": "tests/cli/test_app.py",
}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    yield from (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def test_imports_flow_down() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_has_a_test(path: Path) -> None:
    name = name_of(path)
    if path.name == "__init__.py":
        return
    here = Path(name)
    own = ROOT / "tests" / here.parent / f"test_{here.stem}.py"
    suite = ELSEWHERE.get(name)
    assert own.is_file() or (suite and (ROOT / suite).exists()), (
        f"{name}: write {own.relative_to(ROOT)}, or name its suite in ELSEWHERE"
    )


def test_elsewhere_names_only_files_that_exist() -> None:
    gone = [name for name in ELSEWHERE if not (SOURCE / name).is_file()]
    assert not gone


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
    long = [f.name for f in functions(path) if f.end_lineno - f.lineno >= LONGEST_FUNCTION]
    assert not long, f"over {LONGEST_FUNCTION} lines: {long}"
