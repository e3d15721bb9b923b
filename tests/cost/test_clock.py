import subprocess
import sys
from pathlib import Path

import pytest

from vitrail.cost.clock import SystemClock, machine_busy, own_cpu


def test_busy_leaves_out_idling_and_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 9000 800 4 5 6 77 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    assert machine_busy(stat) == pytest.approx(1.65)
    assert machine_busy(tmp_path / "none") is None


def test_readings_go_forward() -> None:
    clock = SystemClock()
    before = clock.start()
    sum(range(100_000))
    after = clock.stop()
    assert after.wall > before.wall
    assert after.own > before.own


def test_finished_children_are_our_own_work() -> None:
    before = own_cpu()
    subprocess.run([sys.executable, "-c", "sum(range(6_000_000))"], check=True)
    assert own_cpu() - before > 0.03
