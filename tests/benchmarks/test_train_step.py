import json
from pathlib import Path

import pytest

from benchmarks import contract, train_step
from vitrail.errors import UserError


def test_a_small_run_keeps_the_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = train_step.Options(
        models=("mobilevit_xxs",),
        sizes=(64,),
        batches=(2,),
        memory=False,
        threads=1,
        rounds=1,
        window_s=0.001,
        warmup_s=0.001,
        classes=5,
        out=tmp_path,
    )
    result = json.loads(train_step.main(options).read_text())
    assert contract.faults(result) == []
    ours, theirs = result["rows"]
    assert (ours["implementation"], theirs["implementation"]) == (
        "mobilevit_xxs",
        "timm:mobilevit_xxs",
    )
    assert [o["arm"] for o in ours["against"]] == ["peer"]
    assert set(ours["parts_ms"]) == {"forward", "backward", "optimiser"}
    assert result["bars"][0]["of"] == 1
    assert "logits agree" in capsys.readouterr().out


def test_only_hybrids(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no hybrid 'vit_small'"):
        train_step.main(train_step.Options(models=("vit_small",), out=tmp_path))
