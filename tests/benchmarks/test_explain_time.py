"""The benchmark itself, on pictures too small to measure anything."""

import json
from pathlib import Path

import pytest

from benchmarks import contract, explain_time


def test_a_quick_run_writes_every_method_against_the_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = explain_time.Options(
        models=("vit_tiny(depth=1)", "vit_large"),
        methods=("lrp", "no_such_method"),
        image=32,
        quick=True,
        out=tmp_path,
    )
    result = json.loads(explain_time.main(options).read_text())
    assert contract.faults(result) == []
    arms = [(r["arm"], [o["arm"] for o in r["against"]]) for r in result["rows"]]
    assert arms == [("pass", []), ("lrp", ["pass"])]
    assert list(result["settings"]["left_out"]) == ["vit_large"]
    assert "no method 'no_such_method'" in capsys.readouterr().out
    assert [bar["of"] for bar in result["bars"]] == [1]


def test_models_too_large_or_too_slow_are_named(tmp_path: Path) -> None:
    options = explain_time.Options(
        models=("vit_tiny(depth=1)",), image=32, quick=True, patience=0.0, out=tmp_path
    )
    assert explain_time.select_methods(options) == (["vit_tiny(depth=1)"], {})
    large = explain_time.Options(models=("vit_large",), image=32)
    assert explain_time.select_methods(large) == ([], {"vit_large": "304 M parameters"})
    result = explain_time.main(options)
    assert not result.exists()  # no rows, no file
