"""The harness sees what it is there to see; and a short run of it finds nothing."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from benchmarks.faults import damage, trees
from benchmarks.faults.crew import Crew
from benchmarks.faults.kinds.victims import Victim
from benchmarks.faults.stage import Stage
from benchmarks.faults.tally import Tally
from benchmarks.faults.trial import Kind, Trial, chance_of
from benchmarks.faults.verdict import Fault, Said, judge

from benchmarks import contract

ROOT = Path(__file__).parents[2]
SHORT = (
    *("pictures", "picture-sets", "archives", "tables", "folders", "weights", "command-lines"),
    *("texts", "names", "kill-train", "kill-create", "stop-train", "race-train", "race-create"),
)
"""Kinds of the run in the suite, once each: the same trials on every machine."""


def tried(attempt: Callable[[Trial], None], tmp_path: Path, **limits: float) -> Tally:
    """How the harness judges one trial of ``attempt``."""
    stage = Stage(tmp_path)
    stage.trials.mkdir()
    kind = Kind(name="made-up", about="", attempt=attempt, **limits)  # type: ignore[arg-type]
    tally = Tally(seed=0, say=lambda line: None)
    Crew([kind], stage, seed=0, jobs=1, most=1).run(20, tally.add)
    return tally


def raises(trial: Trial) -> None:
    raise KeyError("classes")


def dies(trial: Trial) -> None:
    os.abort()


def hangs(trial: Trial) -> None:
    time.sleep(60)


def eats(trial: Trial) -> None:
    b"x" * (300 << 20)


def runs_code(trial: Trial) -> None:
    trial.stage.canary.touch()


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        (raises, "KeyError"),
        (dies, "the process died"),
        (hangs, "no end within"),
        (eats, "memory"),
        (runs_code, "code from an input was executed"),
    ],
)
def test_what_breaks_is_a_fault(attempt: Callable[[Trial], None], why: str, tmp_path: Path) -> None:
    limits = {"seconds": 0.2} if attempt is hangs else {"memory": 100 << 20}
    tally = tried(attempt, tmp_path, **limits)
    assert tally.faults == 1
    assert [found for _, found in tally.seen][0].startswith(why)


def test_what_holds_leaves_nothing(tmp_path: Path) -> None:
    tally = tried(lambda trial: None, tmp_path)
    assert (tally.faults, tally.counts["made-up"].inputs) == (0, 1)
    assert list((tmp_path / "trials").iterdir()) == []


@pytest.mark.parametrize(
    ("status", "out", "err", "fault"),
    [
        (0, "cat 90 %\n", "", ""),
        (2, "", "vitrail: no model 'x'\n", ""),
        (None, "", "KeyError: 'x'", "traceback"),
        (0, "", 'Traceback (most recent call last):\n  File "x.py", line 1\n', "traceback"),
        (-6, "", "", "exit status -6"),
        (2, "", "", "without a line"),
        (2, "", "a box\nof many lines\n", "without a line"),
        (2, "", "first\nvitrail: no\n", "more than one line"),
        (0, "\x1b[31mcat\n", "", "control character"),
        (0, "\u202egnp.cat\n", "", "control character"),
    ],
)
def test_how_a_command_may_end(status: int | None, out: str, err: str, fault: str) -> None:
    said = Said(("check", "photos"), status, out, err)
    if not fault:
        assert judge(said, alone=True) is said
        return
    with pytest.raises(Fault, match=fault):
        judge(said, alone=True)


def test_a_value_too_deep_to_be_written_becomes_a_text_as_deep():
    assert trees.json_text({"a": [1, None]}) == '{"a": [1, null]}'
    assert trees.json_text(trees.deep(5000)).count("[") == 5000


def test_a_trial_can_be_had_again() -> None:
    data, value = bytes(range(256)), {"classes": ["a", "b"], "image": 32}
    made = [damage.damaged(data, chance_of(3, "pictures", 7)) for _ in range(2)]
    assert made[0] == made[1] != damage.damaged(data, chance_of(3, "pictures", 8))
    one, other = (trees.changed(value, random.Random(5)) for _ in range(2))
    assert repr(one) == repr(other) != repr(value)
    assert value == {"classes": ["a", "b"], "image": 32}


def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.faults", "--minutes", "30", "--jobs", "1"]
    command += ["--most", "1", "--only", *SHORT]
    command += ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    [written] = tmp_path.glob("faults-*.json")
    result = json.loads(written.read_text())
    assert contract.faults(result) == []
    assert {row["arm"] for row in result["rows"]} == set(SHORT)


def test_two_jobs_find_out_once_how_long_a_command_takes(tmp_path: Path) -> None:
    found: list[Path] = []

    class Slow(Victim):
        def _found_out(self, stage: Stage, folder: Path) -> list[Any]:
            found.append(folder)
            time.sleep(0.05)
            return [1.5, len(found)]

    victim = Slow("slow", lambda stage, out: [], lambda stage, out: [], str)
    with ThreadPoolExecutor(3) as jobs:
        answers = list(jobs.map(victim.undisturbed, [Stage(tmp_path)] * 3))
    assert answers == [(1.5, 1)] * 3 and len(found) == 1
