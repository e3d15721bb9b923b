"""Trainings from weights by word: found, recorded, and images prepared as for them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import vitrail
from vitrail import hub
from vitrail.cli import main
from vitrail.errors import UserError
from vitrail.train.options import FitOptions, build_recipe
from vitrail.train.recipe import Recipe
from vitrail.train.start import choose_word

timm = pytest.importorskip("timm")
OURS, THEIRS = "mobilevit_xxs", "timm:mobilevit_xxs"
TAGGED = "mobilevit_xxs.cvnets_in1k"
QUICK = {"batch": 4, "workers": 0, "mixup": 0.0, "cutmix": 0.0, "ema": 0.0, "lr": 1e-9}
QUICK |= {"min_lr": 0.0, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, color in (("blue", (0, 0, 200)), ("red", (200, 0, 0))):
        (folder / name).mkdir()
        for i in range(6):
            shade = tuple(max(0, c - 9 * i) for c in color)
            Image.new("RGB", (70, 64 + i), shade).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights under a released name."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    torch.save(timm.create_model("mobilevit_xxs").state_dict(), folder / f"{TAGGED}.pth")
    return folder


def train(photos: Path, out: Path, **options: Any) -> dict[str, Any]:
    """One pass with a rate so low that weights stay what they were; what the run says."""
    given = {"image": 64, "epochs": 1, "changes": QUICK, "progress": False, **options}
    vitrail.fit(photos, out=out, **given)
    return json.loads((out / "run.json").read_text())


@pytest.mark.filterwarnings("ignore:the head is new")
@pytest.mark.parametrize("text", [OURS, THEIRS])
@pytest.mark.parametrize("word", ["auto", "timm", f"timm:{TAGGED}", "file", "run", "none"])
def test_every_word_for_ours_and_timms(word, text, photos, released, tmp_path) -> None:
    """Trained, moved, opened again and saved for timm: the same preparation everywhere."""
    given = {"file": released / f"{TAGGED}.pth", "run": tmp_path / "first"}.get(word, word)
    if word == "run":
        train(photos, tmp_path / "first", model=text, weights="timm", weights_folder=released)
    facts = train(photos, tmp_path / "run", model=text, weights=given, weights_folder=released)
    (tmp_path / "run").rename(tmp_path / "moved")
    classifier = vitrail.load(tmp_path / "moved", device="cpu")
    seen, origin = classifier.card.preprocess, classifier.card.extra.get("weights")
    assert facts["weights"] == origin and facts["preprocess"] == seen
    hub.save_timm(tmp_path / "moved", tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())["pretrained_cfg"]
    assert config["mean"] == seen["mean"] and config["crop_pct"] == seen["crop"]
    stem = next(t for t in classifier.model.state_dict().values() if t.dim() == 4)
    theirs = torch.load(released / f"{TAGGED}.pth")["stem.conv.weight"]
    assert torch.allclose(stem, theirs, atol=1e-4) == (word != "none")
    if word == "none":
        assert origin is None and seen["mean"] != [0.0, 0.0, 0.0]
        return
    assert seen["mean"] == [0.0, 0.0, 0.0] and seen["image"] == 64
    assert len(origin["sha256"]) == 64 and origin["loaded"] > 250
    new = [] if word == "run" else ["bias", "weight"]
    assert sorted(name.rpartition(".")[2] for name in origin["new"]) == new
    readme = (tmp_path / "saved" / "README.md").read_text()
    assert origin["source"] in readme and origin["sha256"][:12] in readme


def test_size_follows_the_weights_and_a_stopped_run_needs_none(photos, released, tmp_path) -> None:
    """``auto`` is what is usual; the size is the weights' unless given."""

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step":
            raise KeyboardInterrupt

    options = {"model": OURS, "weights_folder": released, "epochs": 1, "changes": QUICK}
    with pytest.raises(KeyboardInterrupt):
        vitrail.fit(photos, out=tmp_path / "run", on_event=stop, progress=False, **options)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["image"] == 256 and facts["weights"]["place"] == "weights folder"
    assert Recipe.from_yaml(tmp_path / "run" / "recipe.yaml").weights == "auto"
    vitrail.fit(resume_from=tmp_path / "run", progress=False)
    extra = vitrail.load(tmp_path / "run", device="cpu").card.extra
    assert extra["weights"] == facts["weights"]


@pytest.mark.parametrize(
    ("data", "said", "word"),
    [
        ("photos", {}, "auto"),
        ("fashion", {}, "none"),
        ("scenes(size=96)", {}, "none"),
        ("fashion", {"weights": "timm"}, "timm"),
        ("photos", {"weights": None}, "none"),
    ],
)
def test_the_usual_word(data: str, said: dict[str, Any], word: str) -> None:
    assert choose_word(data, said) == word
    recipe = build_recipe(FitOptions(data=data, recipe=said), 100)
    assert recipe.weights == word


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "timm"], "cannot download timm/coat_lite_tiny.in1k .*--weights-folder"),
        (["--weights", "timm:coat_tinny"], "no timm model 'coat_tinny'"),
        (["--weights", "gone.pth"], "no weight file at"),
        (["--weights", "me/gone"], "cannot download me/gone"),
        (["--weights", "auto", "--weights-folder", "gone"], "weights folder 'gone' is no folder"),
        (["--model", "filtervit_v2_s", "--weights", "timm"], "timm has no weights for"),
        (["--weights", "."], "holds no model.safetensors"),
        (["--teacher", "timm:resnet18"], "knows 1000 classes"),
        (["--teacher", "me/gone"], "cannot download me/gone"),
    ],
)
def test_a_word_that_cannot_be_had(words, message, photos, tmp_path, monkeypatch, capsys) -> None:
    """One line, exit status 2, and nothing is made."""
    import re

    monkeypatch.chdir(tmp_path)
    quick = ("--image", "64", "--epochs", "1", "--weights", "none")
    assert main(["train", str(photos), *quick, *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, said[-1]), said
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_are_refused(photos, released, tmp_path) -> None:
    with pytest.raises(UserError, match="do not fit"):
        train(photos, tmp_path / "run", model="mobilevit_xs", weights=released / f"{TAGGED}.pth")
    assert not list(tmp_path.iterdir())


def test_a_study_takes_starts_as_a_factor(photos, released, tmp_path, monkeypatch) -> None:
    """Named, trained on images prepared as for the weights, and never ranked unsaid."""
    from vitrail.study import StudyPlan
    from vitrail.study.job import check, find_start, preprocess_of
    from vitrail.study.job import train as train_job
    from vitrail.study.setup import prepare

    monkeypatch.setenv("VITRAIL_WEIGHTS", str(released))
    words = {"weights": ("none", "auto"), "arms": (OURS, THEIRS), "image": 64}
    words |= {"recipe": {"epochs": 1, **QUICK}, "fractions": (1.0,)}
    plan = StudyPlan.of(str(photos), **words)
    assert plan.arms == (OURS, f"{OURS} from auto", THEIRS, f"{THEIRS} from auto")
    setup = prepare(plan)
    for arm in plan.arms:
        text, weights = find_start(arm)
        assert text in (OURS, THEIRS) and (weights is not None) == arm.endswith("auto")
        seen = preprocess_of(weights, setup)
        assert (seen.mean == (0.0, 0.0, 0.0)) == arm.endswith("auto") and seen.image == 64
    check(f"{OURS} from auto", setup)
    job = next(job for job in plan.jobs if job.arm == f"{OURS} from auto")
    record = train_job(job, setup, tmp_path, lambda **_: None)
    assert record.digest == setup.digest_of(job) and record.arm == job.arm
    assert vitrail.load(tmp_path / "run", device="cpu").card.preprocess["mean"] == [0.0, 0.0, 0.0]
    with pytest.raises(UserError, match="timm has no weights for"):
        find_start("filtervit_v2_s from auto")


def test_a_study_trains_from_scratch_once_where_auto_finds_nothing(photos, released) -> None:
    from vitrail.study import StudyPlan

    words = {"weights": ("none", "auto"), "arms": (OURS, "filtervit_v2_s")}
    with pytest.warns(UserWarning, match="filtervit_v2_s starts from scratch"):
        plan = StudyPlan.of(str(photos), weights_folder=str(released), **words)
    assert plan.arms == (OURS, f"{OURS} from auto", "filtervit_v2_s")
    assert StudyPlan.from_dict(plan.to_dict()) == plan


def test_a_study_says_where_its_arms_start_and_by_which_recipe(photos, released, tmp_path) -> None:
    from vitrail import study

    words = {"weights": ("auto",), "arms": (THEIRS,), "image": 64, "fractions": (1.0,)}
    recipe = {"epochs": 1, **QUICK, "lr": 1e-3}
    plan = study.StudyPlan.of(str(photos), weights_folder=str(released), recipe=recipe, **words)
    done = study.run(plan, tmp_path / "study")
    facts = study.StudyResults.load(done.out).facts
    (start,) = facts["starts"]
    assert (start["source"], start["place"]) == (f"timm:{TAGGED}", "weights folder")
    assert facts["fine_tuning"]["head_first"] and "lr" not in facts["fine_tuning"]
    page = done.report.read_text()
    assert start["sha256"][:16] in page and "Of arms from trained weights" in page
    run = next(done.out.rglob("recipe.yaml")).read_text()
    assert "head_first: true" in run and "freeze_norms: true" in run and "lr: 0.001" in run
