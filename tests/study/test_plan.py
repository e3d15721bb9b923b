"""Plans: what can be said, what is refused, how it expands."""

from pathlib import Path

import pytest

from vitrail.errors import UserError
from vitrail.study.plan import Job, StudyPlan, digest, slug


def test_jobs_start_with_the_smallest_share_of_all_arms() -> None:
    plan = StudyPlan(data="photos", arms=("a", "b"), fractions=(1.0, 0.1), seeds=(0, 1))
    told = [(job.share, job.seed, job.arm) for job in plan.jobs]
    assert told[:4] == [(0.1, 0, "a"), (0.1, 0, "b"), (0.1, 1, "a"), (0.1, 1, "b")]
    assert len(told) == len(set(told)) == 8


def test_a_plan_survives_yaml_and_plain_values(tmp_path: Path) -> None:
    plan = StudyPlan.of(
        "photos", arms=("vit_tiny(patch=4)", "timm:resnet18"), recipe={"epochs": 3}, image=64
    )
    (tmp_path / "plan.yaml").write_text(plan.to_yaml(), encoding="utf-8")
    assert StudyPlan.from_yaml(tmp_path / "plan.yaml") == plan
    assert StudyPlan.from_dict(plan.to_dict()) == plan


def test_samples_bring_their_own_defaults_and_what_is_given_wins() -> None:
    assert StudyPlan.of("fashion").image == 32
    assert StudyPlan.of("fashion", image=48).image == 48
    assert StudyPlan.of("photos").image == StudyPlan(data="photos").image
    assert StudyPlan.of("fashion", seeds=None).seeds == (0,)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"arms": ()}, "needs arms"),
        ({"arms": ("a", "a")}, "a twice"),
        ({"fractions": (0.0,)}, "a fraction must be above 0"),
        ({"fractions": (float("nan"),)}, "a fraction must be above 0"),
        ({"fractions": (0.1, 0.1000000001)}, "fractions name 10 % twice"),
        ({"seeds": (-1,)}, "a seed must be a whole number from 0"),
        ({"seeds": (10**20,)}, "a seed must be a whole number from 0"),
        ({"val": -0.1}, "the validation share must be"),
        ({"budget": "seconds", "seconds": float("nan")}, "cannot be; give more than 0"),
        ({"image": 60_000}, "1 pictures of 60000 x 60000 pixels"),
        ({"fractions": (10,)}, "10 % is 0.1"),
        ({"seeds": (1, 1)}, "seeds name 1 twice"),
        ({"budget": "hours"}, "no budget 'hours'"),
        ({"budget": "seconds"}, "needs them"),
        ({"seconds": 10.0}, "go with the budget"),
        ({"budget": "seconds", "seconds": 0.0}, "cannot be; give more than 0"),
        ({"image": 0}, "the image size must be 1 or more, not 0"),
    ],
)
def test_what_cannot_be_is_refused_with_the_value(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        StudyPlan(data="photos", **wrong)  # type: ignore[arg-type]


def test_unknown_keys_and_files_that_are_no_plan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no 'colour'; it has data, arms"):
        StudyPlan.from_dict({"data": "x", "colour": 1})
    with pytest.raises(UserError, match="needs data"):
        StudyPlan.from_dict({"arms": ["a"]})
    (tmp_path / "no.yaml").write_text("- 1", encoding="utf-8")
    with pytest.raises(UserError, match="holds no plan"):
        StudyPlan.from_yaml(tmp_path / "no.yaml")
    with pytest.raises(UserError, match="cannot read"):
        StudyPlan.from_yaml(tmp_path / "absent.yaml")


def test_folders_are_stable_and_never_shared() -> None:
    assert Job(arm="vit_tiny", share=0.005, seed=2).folder == "runs/0.5pct/vit_tiny/seed-2"
    arms = [
        "timm:resnet18",
        "timm-resnet18",
        "timm/resnet18",
        "a(x='1')",
        "a(x=1)",
        "..",
        "a" * 300,
    ]
    slugs = [slug(arm) for arm in arms]
    assert len(set(slugs)) == len(arms)
    for text in slugs:
        assert "/" not in text and text not in (".", "..") and len(text) < 100


def test_digests_follow_content_not_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
