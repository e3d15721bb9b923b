"""The benchmark itself, on pictures too small to measure anything."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import coat_lite, contract

TINY = coat_lite.Options(sizes=(32,), window_s=0.001, warmup_s=0.001, rounds=1, quick=True)


def test_every_combination_is_a_setting() -> None:
    options = coat_lite.Options(batches=(1, 8), threads=(1,), models=("coat_lite_tiny",))
    found = [(s.image, s.batch) for s in coat_lite.settings(options)]
    assert found == [(512, 1), (512, 8), (1024, 1), (1024, 8)]


def test_a_quick_run_writes_all_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = replace(TINY, out=tmp_path)
    result = json.loads(coat_lite.main(options).read_text())
    assert contract.faults(result) == []
    arms = [(r["part"], r["arm"], [o["arm"] for o in r["against"]]) for r in result["rows"]]
    assert arms == [
        ("clustering", "plain", ["pooled"]),
        ("clustering", "pooled", ["plain"]),
        ("clustering", "TB", ["plain", "pooled"]),
        ("clustering", "QF", ["plain", "pooled"]),
        ("clustering", "QS", ["plain", "pooled"]),
    ]
    macs = {r["arm"]: r["macs"] for r in result["rows"]}
    assert macs["pooled"] < macs["TB"] < macs["plain"] < macs["QF"]
    out = capsys.readouterr().out
    assert all(f"  {arm}" in out for _, arm, _ in arms)
