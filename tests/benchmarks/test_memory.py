import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import contract, memory
from vitrail.cost import Settings
from vitrail.errors import UserError

SMALL = Settings(image=64, classes=5, threads=1)


def test_the_peer_that_did_not_fit_counts_as_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(arm: str, *_: Any, **__: Any) -> int:
        if arm.startswith("official"):
            raise UserError("no room")
        return 50

    monkeypatch.setattr(memory, "memory", peak)
    options = memory.Options(repeats=2)
    ours, theirs = memory.both(memory.MODELS["cmt_ti"], SMALL, options, limit=200)
    assert ours["against"][0]["ratio"] == 4.0
    assert (theirs["memory_bytes"], theirs["note"]) == (None, "no room")
    assert ours["peaks"] == [50, 50]
    assert "did not fit" in memory.line(theirs)
    assert "the peer takes 4.00 x" in memory.line(ours)
    assert memory.BARS[0].judge([ours, theirs])["held"] == 1


def test_half_precision_is_looked_at() -> None:
    row = memory.half("coat_lite_tiny", "bfloat16", SMALL)
    assert row["finite"]
    assert 0 < row["apart"] < 0.2
    assert "finite" in memory.line(row)
    assert "NOT FINITE" in memory.line(row | {"finite": False})


def test_a_small_run_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter((40, 60))
    monkeypatch.setattr(memory, "memory", lambda *_, **__: next(peaks))
    options = memory.Options(
        models=("mobilevit_xxs",),
        sizes=(64,),
        half=("coat_lite_tiny",),
        precisions=("bfloat16",),
        threads=1,
        classes=5,
        out=tmp_path,
    )
    result = json.loads(memory.main(options).read_text())
    assert contract.faults(result) == []
    assert [row["arm"] for row in result["rows"]] == ["vitrail", "peer", "vitrail"]
    assert [row["memory_bytes"] for row in result["rows"]] == [40, 60, None]
    assert result["bars"][0]["of"] == 1


def test_free_memory(tmp_path: Path) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 9 kB\nMemAvailable:   12 kB\n")
    assert memory.free_memory(info) == 12 * 1024
