"""The benchmark itself, on pictures too small to measure anything."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import coat_lite, contract

TINY = coat_lite.Options(sizes=(32,), window_s=0.001, warmup_s=0.001, rounds=1, quick=True)


def setting(part: str) -> coat_lite.Setting:
    return coat_lite.Setting(part=part, model="coat_lite_tiny", image=32, batch=1, threads=1)


def test_every_combination_is_a_setting() -> None:
    options = coat_lite.Options(batches=(1, 8), threads=(1,), models=("coat_lite_tiny",))
    found = [(s.part, s.image, s.batch) for s in coat_lite.settings(options)]
    assert found == [
        (part, image, batch)
        for part, images in coat_lite.SIZES.items()
        for image in images
        for batch in (1, 8)
    ]


def test_other_weights_are_not_timed() -> None:
    theirs = coat_lite.timm_model(setting("peers"))
    ours = coat_lite.with_weights_of(theirs, setting("peers"))
    coat_lite.check_same(ours, theirs, setting("peers"))
    with torch.no_grad():
        ours.head.bias[0] += 0.01
    with pytest.raises(SystemExit, match="outputs differ from timm's"):
        coat_lite.check_same(ours, theirs, setting("peers"))


def test_a_quick_run_writes_all_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = replace(TINY, out=tmp_path)
    result = json.loads(coat_lite.main(options).read_text())
    assert contract.faults(result) == []
    arms = [(r["part"], r["arm"], [o["arm"] for o in r["against"]]) for r in result["rows"]]
    assert arms == [
        ("peers", "vitrail", ["timm"]),
        ("peers", "timm", []),
        ("clustering", "plain", ["pooled"]),
        ("clustering", "pooled", ["plain"]),
        ("clustering", "TB", ["plain", "pooled"]),
        ("clustering", "QF", ["plain", "pooled"]),
        ("clustering", "QS", ["plain", "pooled"]),
    ]
    macs = {r["arm"]: r["macs"] for r in result["rows"]}
    assert macs["vitrail"] == macs["timm"] == macs["plain"]
    assert macs["pooled"] < macs["TB"] < macs["plain"] < macs["QF"]
    out = capsys.readouterr().out
    assert "logits agree" in out
    assert all(f"  {arm}" in out for _, arm, _ in arms)
