"""Kill -9 at random moments loses at most one interval and changes nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.train.same import assert_same_to_the_bit

KILLS = 8
ROOT = Path(__file__).parents[2]


def test_killed_runs_reach_the_same_bits(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.train.kill_launcher", str(tmp_path), "0", str(KILLS)]
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    killed = re.findall(r"kill \d+: (.*?) \[", done.stdout)
    assert len(killed) == KILLS, done.stdout
    # The kills were spread over the run: it went on again and again from another step.
    assert len(set(killed)) >= 5, done.stdout
    whole, runs = tmp_path / "whole", sorted(tmp_path.glob("killed-*"))
    scores = json.loads((whole / "result.json").read_text())["scores"]
    for run in runs:
        assert_same_to_the_bit(whole, run)
        assert not list(run.glob(".*tmp")), "drafts of killed processes were left"
        assert json.loads((run / "result.json").read_text())["scores"] == scores
