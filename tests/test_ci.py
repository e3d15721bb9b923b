"""CI runs the README's own test command, and nothing else."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def blocks(text: str) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)


def test_ci_runs_exactly_the_readme_block() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = subprocess.run(
        ["bash", ROOT / ".ci" / "run", "--show"], capture_output=True, text=True, check=True
    ).stdout
    after = readme.split("<!-- tests -->")[1]
    assert shown == blocks(after)[0]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_test_command_sets_itself_up_and_ends_with_pytest() -> None:
    command = blocks((ROOT / "README.md").read_text().split("<!-- tests -->")[1])[0].strip()
    assert "python3 -m venv --clear" in command
    for step in ("pip install", "ruff check", "mypy", "lint-imports"):
        assert step in command
    assert "pytest" in command.splitlines()[-1]
    assert all(line.rstrip().endswith("&&") for line in command.splitlines()[:-1])
