"""Several result files become one, with the newest row of every question."""

import json
from pathlib import Path
from typing import Any

from benchmarks import combine, contract


def result(date: str, *rows: tuple[str, float], instructions: str = "AVX2") -> dict[str, Any]:
    return {
        "format": 1,
        "benchmark": "try",
        "command": f"python -m benchmarks.try {date}",
        "date": date,
        "machine": {"instructions": instructions},
        "settings": {"data": f"/somewhere/{date}/flowers.zip", "seeds": [0]},
        "bars": [],
        "rows": [
            {"arm": arm, "image": 64, "threads": 1, "against": [], "memory_bytes": value}
            for arm, value in rows
        ],
    }


OLD = result("2026-01-01", ("a", 1), ("b", 1))
NEW = result("2026-01-02", ("b", 2), ("c", 2))


def test_the_newest_row_of_each_question_stays_and_names_its_run() -> None:
    whole = combine.combine([NEW, OLD])
    found = [(r["arm"], r["memory_bytes"], whole["runs"][r["run"]]["date"]) for r in whole["rows"]]
    assert found == [("a", 1, OLD["date"]), ("b", 2, NEW["date"]), ("c", 2, NEW["date"])]
    assert whole["date"] == NEW["date"]


def test_other_seeds_are_another_question() -> None:
    other = result("2026-01-03", ("a", 3)) | {"settings": {"data": "flowers.zip", "seeds": [1]}}
    assert [r["arm"] for r in combine.combine([OLD, other])["rows"]] == ["a", "b", "a"]


def test_a_combined_result_opens_as_its_runs_and_combines_again() -> None:
    whole = combine.combine([OLD, NEW])
    runs = list(combine.by_run(whole))
    assert [(run["command"], len(run["rows"])) for run in runs] == [
        (OLD["command"], 1),
        (NEW["command"], 2),
    ]
    assert runs[1]["rows"] == NEW["rows"]
    newest = result("2026-01-04", ("a", 4))
    again = combine.combine([whole, newest])
    assert [run["date"] for run in again["runs"]] == [NEW["date"], newest["date"]]
    assert list(combine.by_run(OLD)) == [OLD]


def test_one_file_for_each_kind_of_machine(tmp_path: Path) -> None:
    for name, one in {
        "try-1.json": OLD,
        "try-2.json": NEW,
        "try-3.json": result("2026-01-01", ("a", 9), instructions="AVX512"),
    }.items():
        contract.write(tmp_path / name, one)
    combine.main(combine.Options(folder=tmp_path, dry=True))
    assert len(list(tmp_path.iterdir())) == 3
    combine.main(combine.Options(folder=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["try-2.json", "try-3.json"]
    assert len(json.loads((tmp_path / "try-2.json").read_text())["rows"]) == 3


def test_a_set_that_a_row_names_is_not_asked_of_the_run() -> None:
    row, sets = {"arm": "head", "data": "flowers"}, {"data": ["a/flowers.zip", "b/clothing.zip"]}
    assert combine.question(row, sets) == combine.question(row, {"data": ["b/flowers.zip"]})
    assert combine.question(row, sets) != combine.question({**row, "data": "clothing"}, sets)
