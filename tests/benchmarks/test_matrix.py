"""The matrix on pictures too small to measure anything."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import contract, matrix, matrix_table

TINY = matrix.Options(
    backbones=("vit_tiny", "cmt_ti"),
    mixers=("softmax", "relative"),
    reducers=("all", "pool", "cluster"),
    sizes=(32,),
    window_s=0.001,
    warmup_s=0.001,
    rounds=1,
    memory=False,
)


def test_each_model_once_and_every_refusal_in_words() -> None:
    found = dict(matrix.survey(matrix.cells(TINY)))
    names = [(c.backbone, c.mixer, c.reducer) for c in found]
    assert ("vit_tiny", "softmax", "native") not in names  # softmax is native there
    assert ("cmt_ti", "softmax", "native") in names
    refused = {(c.backbone, c.mixer, c.reducer): why for c, why in found.items() if why}
    assert set(refused) == {
        ("vit_tiny", "relative", "cluster"),
        *(("cmt_ti", mixer, "cluster") for mixer in ("native", "softmax", "relative")),
    }
    assert all("; " in matrix_table.reason(why) for why in refused.values())


def test_a_run_stops_in_time_goes_on_and_makes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = replace(TINY, backbones=("vit_tiny",), out=tmp_path)
    first = matrix.main(replace(options, reducers=("all", "pool")))
    assert contract.faults(json.loads(first.read_text())) == []
    page = tmp_path / "matrix.md"
    second = matrix.main(replace(options, resume=first, markdown=page))
    result = json.loads(second.read_text())
    arms = [(r["mixer"], r["reducer"]) for r in result["rows"] if r["against"]]
    assert arms == [("native", "pool"), ("relative", "native"), ("native", "cluster")]
    text = page.read_text()
    assert "| `relative` | x | x | 1 |" in text and "1. working tokens" in text
    assert text.count("| `native` | `native` |") == 1 and "At 32 px" in text
    assert "x plain" in capsys.readouterr().out
    late = json.loads(matrix.main(replace(options, minutes=-1.0)).read_text())
    assert late["rows"] == [] and len(late["settings"]["cells"]) == 6


def test_what_is_too_slow_is_named_and_not_tried_again(tmp_path: Path) -> None:
    page = tmp_path / "matrix.md"
    options = replace(TINY, backbones=("vit_tiny",), limit_s=0.0, out=tmp_path, markdown=page)
    first = matrix.main(options)
    left = json.loads(first.read_text())["settings"]["too_large"]
    assert {(cell["mixer"], cell["reducer"]) for cell in left} >= {("native", "pool")}
    assert "vit_tiny at 32 px, reducer `pool`: 0 s" in page.read_text()
    second = matrix.main(replace(options, resume=first, limit_s=9.0))
    again = json.loads(second.read_text())
    assert again["rows"] == [] and again["settings"]["too_large"] == left


def test_memory_is_told_in_words() -> None:
    assert matrix.gigabytes(3 * 2**29) == "1.5 GB"
    assert matrix.gigabytes(float("inf")) == "more memory than there is"
