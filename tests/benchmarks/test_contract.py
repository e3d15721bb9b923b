"""Result files keep the contract, those of a run and those that are committed."""

import json
from datetime import datetime, tzinfo
from pathlib import Path

import pytest

from benchmarks import combine, contract
from vitrail.cost.timing import Timing, TimingWindow, WarmUp, ratio

COMMITTED = sorted(contract.RESULTS.glob("*.json"))


def timing(*seconds: float, foreign: float = 0.0) -> Timing:
    windows = tuple(
        TimingWindow(round=i, calls=1, seconds=s, own=1.0, foreign=foreign)
        for i, s in enumerate(seconds)
    )
    return Timing(
        name="x", threads=1, windows=windows, warmup=WarmUp(calls=1, seconds=2.0, settled=True)
    )


def rows_of(ours: Timing, theirs: Timing) -> list[dict[str, object]]:
    return [contract.row("ours", ours, {"theirs": ratio(ours, theirs)}, graph="eager", image=64)]


BAR = contract.Bar(arm="ours", against="theirs", at_least=1.5)


def test_record_is_written_row_by_row_and_keeps_the_contract(tmp_path: Path) -> None:
    record = contract.Record("try", {"out": tmp_path}, tmp_path / "new", [BAR])
    for count in (1, 2):
        record.add(rows_of(timing(1.0, 1.0), timing(2.0, 2.0)))
        written = json.loads(record.path.read_text())
        assert contract.faults(written) == []
        assert len(written["rows"]) == count
    assert written["bars"] == [
        {
            "bar": "ours >= 1.5 x theirs, eager",
            "held": 2,
            "of": 2,
            "lowest": 2.0,
            "quiet": True,
        }
    ]
    assert [path.name for path in record.path.parent.iterdir()] == [record.path.name]


def test_two_runs_of_one_moment_do_not_overwrite_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Still(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Still":
            return cls(2026, 11, 29, tzinfo=tz)

    monkeypatch.setattr("benchmarks.contract.datetime", Still)
    assert contract.Record("a", {}, tmp_path).path != contract.Record("a", {}, tmp_path).path


def test_a_loss_is_printed_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = contract.Record("try", {}, tmp_path, [BAR])
    record.add(rows_of(timing(1.0), timing(2.0)))
    record.add(rows_of(timing(1.0, foreign=1.0), timing(1.2)))
    record.close()
    out = capsys.readouterr().out
    assert "bar MISSED" in out
    assert "in 1 of 2 settings, lowest 1.20" in out
    assert "do not publish" in out


def test_faults_are_named(tmp_path: Path) -> None:
    record = contract.Record("try", {}, tmp_path)
    assert contract.faults(record.to_dict()) == ["no rows"]
    record.add(rows_of(timing(1.0), timing(2.0)))
    broken = json.loads(record.path.read_text())
    del broken["machine"]["cpu"], broken["rows"][0]["time"]["quiet"]
    assert contract.faults(broken) == ["machine lacks cpu", "row 0: time lacks quiet"]
    del broken["rows"][0]["time"]
    assert contract.faults(broken)[-1] == "row 0: holds none of time, memory_bytes"
    broken["rows"][0] |= {"time": [], "memory_bytes": "much"}
    assert contract.faults(broken)[-2:] == [
        "row 0: time is not dict",
        "row 0: memory_bytes is not int | None",
    ]
    assert contract.faults({}) == [f"{k} is not {t.__name__}" for k, t in contract.TOP.items()]


def test_a_bar_speaks_to_the_rows_it_names() -> None:
    bar = contract.Bar(arm="ours", against="theirs", at_least=1.5, where={"image": (64, 96)})
    (row,) = rows_of(timing(1.0), timing(2.0))
    assert str(bar) == "ours >= 1.5 x theirs, eager; 64, 96"
    assert bar.judge([row, row | {"image": 32}, row | {"graph": "compiled"}])["of"] == 1
    assert bar.of(row) == row["against"][0]


def test_committed_results_keep_the_contract() -> None:
    results = {path.name: json.loads(path.read_text()) for path in COMMITTED}
    assert not {name: wrong for name, r in results.items() if (wrong := contract.faults(r))}
    kinds = [(r["benchmark"], r["machine"].get("instructions")) for r in results.values()]
    assert len(set(kinds)) == len(kinds), "several files of one kind: python -m benchmarks.combine"


def test_rows_of_a_combined_file_name_their_run(tmp_path: Path) -> None:
    record = contract.Record("try", {}, tmp_path)
    record.add(rows_of(timing(1.0), timing(2.0)))
    whole = combine.combine([record.to_dict()])
    assert contract.faults(whole) == []
    del whole["runs"][0]["command"]
    whole["rows"][0]["run"] = 1
    assert contract.faults(whole) == ["run 0 lacks command", "rows name runs that are not there"]
