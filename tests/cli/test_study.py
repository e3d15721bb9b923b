"""``vitrail study``: from what was typed to a plan, and the plan run."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import TINY

from vitrail.cli.study import Study, plan_from_options
from vitrail.errors import UserError
from vitrail.study import StudyPlan
from vitrail.study.costs import Tell
from vitrail.study.record import ArmCost
from vitrail.study.setup import StudySetup


def counted_only(setup: StudySetup, tell: Tell) -> dict[str, ArmCost]:
    """No timing here: the cost room's own tests time."""
    return {
        arm: ArmCost(
            params=1, macs=2, latency=0.1, latency_spread=0.0, throughput=10.0,
            throughput_spread=0.0, batch=1, memory=None, quiet=True,
        )
        for arm in setup.plan.arms
    }  # fmt: skip


def test_what_is_not_typed_is_left_to_what_suits() -> None:
    assert plan_from_options(Study(data="fashion")) == StudyPlan.of("fashion")


def test_what_is_typed_goes_first(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("lr: 0.002\nbatch: 32\n")
    typed = Study(
        data="photos", models=("vit_tiny",), seeds=(1, 2), recipe=path, set=("lr=0.004",), epochs=3
    )
    plan = plan_from_options(typed)
    assert not plan.copies and plan_from_options(Study(data="photos", copies=True)).copies
    assert plan.arms == ("vit_tiny",)
    assert plan.seeds == (1, 2)
    assert plan.recipe == {"lr": 0.004, "batch": 32, "epochs": 3}
    with pytest.raises(UserError, match="--seeds"):
        plan_from_options(Study(data="photos", set=("seed=3",)))


def test_a_study_ends_in_a_table_and_a_report(give, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.study.costs.measure", counted_only)
    other = TINY.replace("depth=1", "depth=2")
    words = ("study", "fashion", "--models", TINY, other, "--fractions", "0.02", "--epochs", "1")
    said = give(*words, "--set", "workers=0", "--json", "--out", "mine")
    assert said.status == 0, said.err
    data = json.loads(said.out)
    assert {row["arm"] for row in data["rows"]} == {TINY, other}
    assert data["failures"] == []
    assert Path(data["report"]).is_file()
    again = give("study", "--resume", "mine")
    assert again.status == 0
    assert "report: " in again.out


@pytest.mark.parametrize("folder", ["nowhere"])
def test_no_study_to_go_on_with(folder: str, give) -> None:
    assert "holds no study" in give("study", "--resume", folder).line
