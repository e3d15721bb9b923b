"""A small study with everything real: data, models, training, costs, report."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.study.made import unmeasured

from vitrail import cost, study
from vitrail.data import Preprocess
from vitrail.errors import UserError
from vitrail.hub import build
from vitrail.study import StudyPlan, StudyResults, costs
from vitrail.study.job import check
from vitrail.study.setup import CachedStore, prepare
from vitrail.tasks import Card, save_weights
from vitrail.train import read_run

ARMS = (
    "vit_tiny(depth=1, dim=48, patch=8)",
    "coat_lite_tiny(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))",
)
QUICK = {
    "epochs": 2,
    "batch": 16,
    "mixup": 0.0,
    "cutmix": 0.0,
    "workers": 0,
    "augment": {"rand_augment": None},
}


@pytest.fixture
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan(**changes: object) -> StudyPlan:
    told = {"arms": ARMS, "fractions": (0.02, 0.04), "recipe": QUICK, "image": 32}
    return StudyPlan(data="fashion", **{**told, **changes})  # type: ignore[arg-type]


@pytest.fixture
def quick_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of milliseconds, and memory measured (in a fresh process) for the first arm alone."""
    settings, memory, known = cost.Settings, costs.training_memory, []

    def measured(arm: str, *options: Any) -> int | None:
        if not known:
            known.append(memory(arm, *options))
        return known[0]

    monkeypatch.setattr(
        cost, "Settings", lambda **o: settings(**{**o, "window_s": 0.005, "warmup_s": 0.005})
    )
    monkeypatch.setattr(costs, "training_memory", measured)


def test_a_real_study_ends_in_table_and_report(
    tmp_path: Path, one_thread: object, quick_costs: None
) -> None:
    done = study.run(plan(), tmp_path / "s", progress=False)
    assert done.status == 0 and [row["train_count"] for row in done.rows] == [30, 30, 60, 60]
    assert all(row["test_count"] == 500 and 0 <= row["accuracy"] <= 1 for row in done.rows)
    assert all(row["macs"] > 0 and row["latency_s"] > 0 for row in done.rows)
    found = StudyResults.load(tmp_path / "s")
    assert all(cost.memory for cost in found.costs.values())
    mistakes = [mistake for record in found.records for mistake in record.mistakes]
    assert mistakes and all(m.map and m.method in ("occlusion", "saliency") for m in mistakes)
    page = done.report.read_text(encoding="utf-8")
    assert "what spoke for the class it was taken for, by" in page
    assert "Training curves" in page and "data:image/jpeg;base64," in page and len(page) < 2_000_000
    assert "http" not in page
    again = study.run(plan(), tmp_path / "s", progress=False)
    assert again.rows == done.rows


def test_a_stopped_real_job_goes_on_to_the_same_answers(
    tmp_path: Path, one_thread: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitrail.study import job as jobs

    quick = plan(arms=ARMS[:1], fractions=(0.04,))
    whole = study.run(quick, tmp_path / "whole", progress=False, use=unmeasured())
    real = jobs._pass_on

    def stop(event: dict[str, object], tell: object) -> None:
        if event["kind"] == "epoch":
            raise KeyboardInterrupt
        real(event, tell)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "_pass_on", stop)
    with pytest.raises(KeyboardInterrupt, match="0 of 1 runs done"):
        study.run(quick, tmp_path / "cut", progress=False, use=unmeasured())
    monkeypatch.setattr(jobs, "_pass_on", real)
    mended = study.resume(tmp_path / "cut", progress=False, use=unmeasured())
    alike = ("accuracy", "loss", "ece", "epochs", "images_seen")
    assert [mended.rows[0][k] for k in alike] == [whole.rows[0][k] for k in alike]


@pytest.mark.parametrize("arm", ["coat_lite_tiny(depth=3)", "no_such_model", "timm:no_such_model"])
def test_a_bad_arm_is_refused_by_name(tmp_path: Path, arm: str) -> None:
    with pytest.raises(UserError):
        study.run(plan(arms=(ARMS[0], arm)), tmp_path / "s", progress=False)
    assert not (tmp_path / "s").exists()


def test_an_unknown_recipe_key_is_refused() -> None:
    with pytest.raises(UserError, match="epoch"):
        prepare(plan(recipe={"epoch": 3}))
    with pytest.raises(UserError, match="class_weights has 2 numbers, the pictures have 10"):
        prepare(plan(recipe={"class_weights": [1, 2]}))


def test_the_default_arms_of_the_sample_can_be_built() -> None:
    sample = prepare(StudyPlan.of("fashion"))
    for arm in sample.plan.arms:
        check(arm, sample)


def test_each_seed_draws_a_share_of_its_own() -> None:
    setup = prepare(plan(arms=ARMS[:1], fractions=(0.04, 0.02), seeds=(0, 1)))
    drawn = {(job.share, job.seed): set(setup.parts(job)["train"]) for job in setup.plan.jobs}
    for seed in (0, 1):
        assert drawn[0.02, seed] < drawn[0.04, seed]
    assert drawn[0.04, 0] != drawn[0.04, 1]
    assert len({setup.parts(job)["val"] for job in setup.plan.jobs}) == 1


def test_pictures_are_decoded_once_and_not_carried_to_other_processes() -> None:
    import pickle

    pictures = prepare(plan()).pictures
    store, item = pictures.store, pictures.items[0]
    assert isinstance(store, CachedStore)
    assert pictures.read(item) is pictures.read(item)
    assert not pickle.loads(pickle.dumps(store)).kept
    full = CachedStore(store.store, limit=0)
    assert full.image(item.key, None) is not full.image(item.key, None)


def test_a_recipes_teacher_teaches_every_arm(
    tmp_path: Path, one_thread: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened for each job, and part of what must be alike; without one, old digests stay."""
    from vitrail.study import job as jobs

    alone, run = prepare(plan()), tmp_path / "teacher"
    text, classes = "vit_tiny(depth=1, dim=24, heads=3, patch=8)", alone.pictures.classes
    model = build(text, classes=len(classes), image=32)
    card = Card(model=text, classes=classes, image=32, preprocess=Preprocess(image=32).to_dict())
    run.mkdir()
    save_weights(run / "best.safetensors", model.state_dict(), card)
    told = plan(arms=ARMS[:1], fractions=(0.02,), recipe={**QUICK, "teacher": str(run)})
    taught = prepare(told)
    assert taught.binding["distill"]["kind"] == "hard" and "distill" not in alone.binding
    assert not {"best", "sampling", "class_weights"} & set(alone.binding)  # older studies go on
    assert prepare(plan(recipe={**QUICK, "best": "loss"})).binding["best"] == "loss"
    job = told.jobs[0]
    assert taught.digest_of(job) != alone.digest_of(job)
    jobs.train(job, taught, tmp_path / "job", lambda **_: None)
    assert read_run(tmp_path / "job" / "run").facts["teacher"]["name"] == str(run)
