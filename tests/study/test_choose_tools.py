"""Choosing for real: small candidates from scratch, on the built-in pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import vitrail
from vitrail.data import open_dataset
from vitrail.errors import UserError
from vitrail.study.choose.question import Parts, TrialPlan
from vitrail.study.choose.state import ChoiceEntry
from vitrail.study.choose.tools import ChoiceTools, fit_rate_to_updates, trial_recipe
from vitrail.train.features import FeatureBank, give_head, labels_of
from vitrail.train.probe import fit_probe

SMALL = (
    "vit_tiny(patch=16, depth=1, dim=24, heads=2)",
    "vit_tiny(patch=8, depth=1, dim=24, heads=2)",
)
NONE = ChoiceEntry(model=SMALL[0], weights="none")


def test_a_choice_from_python_leaves_a_page_and_a_command(tmp_path: Path) -> None:
    said = tmp_path / "choice"
    options = {"minutes": 0.02, "pool": SMALL, "weights": "none", "out": said, "progress": False}
    choice = vitrail.choose("fashion", **options)
    assert choice.winner in SMALL and choice.estimate is not None
    assert choice.winner in choice.page.read_text("utf-8").replace("&#39;", "'")
    assert choice.command.startswith("vitrail train fashion --model") and "none" in choice.command
    assert json.loads((said / "choose.json").read_text())["winner"] == choice.winner
    assert choice.winner in str(choice) and choice.to_dict()["winner"] == choice.winner
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is no choice"):
        vitrail.choose("fashion", **{**options, "out": tmp_path / "mine"})


def test_a_trial_begins_with_the_probes_head_and_trains(tmp_path: Path) -> None:
    tools, pictures = ChoiceTools(), open_dataset("fashion")
    train, val = pictures.split("train")[:60], pictures.split("val")[:40]
    opened = tools.open(NONE, pictures)
    assert opened.start == "from scratch" and not opened.released
    bank = FeatureBank(model=opened.model, pictures=pictures, preprocess=opened.preprocess)
    features = bank.features(train)
    probe = fit_probe(features, labels_of(train), 10)
    model = vitrail.create(SMALL[0], classes=10, image=opened.preprocess.image).eval()
    whole = model.state_dict()
    whole.update({k: v for k, v in opened.model.state_dict().items() if k in whole})
    model.load_state_dict(whole)
    give_head(model, probe)
    image = opened.preprocess.transform()(pictures.read(train[0]))[None]
    with torch.inference_mode():
        assert np.allclose(model(image).numpy(), probe.logits(features[:1]), atol=1e-3)
    parts = Parts(train=train, compare=val, last=val)
    epochs, found = tools.tune(
        NONE, pictures, parts, probe, TrialPlan(seconds=0.5, at=tmp_path / "trial", seed=0)
    )
    assert epochs >= 1 and found.shape == (40,)
    assert (tools.answer(pictures, val, tmp_path / "trial") == found).all()


def test_costs_are_measured_at_each_candidates_size() -> None:
    from vitrail.study.choose.question import Question

    question = Question(data="fashion", minutes=0.1, weights="none")
    entries = [ChoiceEntry(model=name, weights="none") for name in SMALL]
    found = ChoiceTools().measure(entries, open_dataset("fashion"), question, lambda line: None)
    assert set(found) == set(SMALL) and all(cost.ms > 0 for cost in found.values())
    own = sum(p.numel() for p in vitrail.create(SMALL[0], image=64).parameters())
    assert found[SMALL[0]].params == own and found[SMALL[0]].megabytes == 4 * own / 1e6


def test_a_trial_from_released_weights_is_gentle() -> None:
    gentle, scratch = (trial_recipe(3000, 9.0, 1, released=r) for r in (True, False))
    assert gentle.lr < scratch.lr and gentle.layer_decay < 1 and not gentle.mixup
    assert gentle.seconds == scratch.seconds == 9.0 and gentle.seed == 1


def test_a_trial_of_few_updates_takes_small_steps() -> None:
    usual = trial_recipe(3000, 40.0, 0, released=True)
    few, many = (fit_rate_to_updates(usual, seconds) for seconds in (0.04, 0.002))
    assert few.lr == pytest.approx(usual.lr * 40 / (3 * 0.04 * 32) / 60)  # 10.4 updates
    assert few.min_lr == pytest.approx(usual.min_lr * few.lr / usual.lr)
    assert many == usual == fit_rate_to_updates(usual, 0.0)
