"""The question whether clustering pays, on a model too small to measure anything."""

import json
from pathlib import Path

import pytest

from benchmarks import contract, fewer_tokens


def test_every_reducer_stands_beside_plain_in_one_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = fewer_tokens.Options(
        questions=("coat_lite_tiny(dims=(16, 16, 16, 16)):64", "vit_tiny(depth=1):64"),
        reducers=("cluster(ratio=4)", "pool(size=2)"),
        threads=(1,),
        rounds=1,
        window_s=0.001,
        warmup_s=0.001,
        out=tmp_path,
    )
    result = json.loads(fewer_tokens.main(options).read_text())
    assert contract.faults(result) == []
    assert [row["arm"] for row in result["rows"][:3]] == ["all", *options.reducers]
    plain, *reduced = result["rows"][:3]
    assert not plain["against"] and all(r["macs"] < plain["macs"] for r in reduced)
    assert "x plain" in capsys.readouterr().out


def test_the_last_stage_of_a_pyramid_keeps_its_tokens() -> None:
    made = fewer_tokens.build("coat_lite_tiny(dims=(16, 16, 16, 16))", 64, "cluster(ratio=9)")
    assert made.config.reducer == ("cluster(ratio=9)",) * 3 + ("all",)
    made = fewer_tokens.build("vit_tiny(depth=1)", 64, "pool(size=2)")
    assert made.config.reducer == ("pool(size=2)",)
