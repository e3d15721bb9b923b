"""Trainings from weights by word: found, recorded, and images prepared as for them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save
from tests.conftest import OpenHub
from tests.study.made import unmeasured

import vitrail
from vitrail import export, hub
from vitrail.cli import main
from vitrail.errors import UserError
from vitrail.study import StudyPlan
from vitrail.study.job import find_start
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


@dataclass(frozen=True)
class Places:
    """Where each kind of word finds its weights."""

    released: Path
    run: Path

    def word(self, kind: str) -> str | Path:
        """The word itself."""
        known = {"file": self.released / f"{TAGGED}.pth", "run": self.run, "repo": "me/pets@v1"}
        return known.get(kind, kind)


@pytest.fixture
def places(released: Path, hub_server: OpenHub, tmp_path: Path) -> Places:
    state = torch.load(released / f"{TAGGED}.pth")
    said = {"input_size": [3, 256, 256], "mean": [0.0] * 3, "std": [1.0] * 3}
    config = json.dumps({"pretrained_cfg": said}).encode()
    hub_server({"me/pets": {"model.safetensors": save(state), "config.json": config}})
    return Places(released, tmp_path / "first")


@pytest.mark.filterwarnings("ignore:the head is new")
@pytest.mark.parametrize("text", [OURS, THEIRS])
@pytest.mark.parametrize("kind", ["auto", "timm", f"timm:{TAGGED}", "repo", "file", "run", "none"])
def test_every_word_for_ours_and_timms(kind, text, photos, places, tmp_path) -> None:
    """Trained, studied, moved, opened again and saved: the same start, the same preparation."""
    word, folder = places.word(kind), places.released
    if kind == "run":
        train(photos, places.run, model=text, weights="timm", weights_folder=folder)
    facts = train(photos, tmp_path / "run", model=text, weights=word, weights_folder=folder)
    pictures = [Image.open(photos / "red" / "0.png"), Image.open(photos / "blue" / "3.png")]
    before = vitrail.load(tmp_path / "run", device="cpu").predict(pictures)
    (tmp_path / "run").rename(tmp_path / "moved")
    classifier = vitrail.load(tmp_path / "moved", device="cpu")
    seen, origin = classifier.card.preprocess, classifier.card.extra.get("weights")
    assert facts["weights"] == origin and facts["preprocess"] == seen
    assert torch.equal(classifier.predict(pictures), before)
    check_files(seen, tmp_path)
    check_study(text, str(word), photos, origin, folder)
    stem = next(t for t in classifier.model.state_dict().values() if t.dim() == 4)
    theirs = torch.load(folder / f"{TAGGED}.pth")["stem.conv.weight"]
    assert torch.allclose(stem, theirs, atol=1e-4) == (kind != "none")
    if kind == "none":
        assert origin is None and seen["mean"] != [0.0, 0.0, 0.0]
        return
    assert seen["mean"] == [0.0, 0.0, 0.0] and seen["image"] == 64
    assert len(origin["sha256"]) == 64 and origin["loaded"] > 250
    new = [] if kind == "run" else ["bias", "weight"]
    assert sorted(name.rpartition(".")[2] for name in origin["new"]) == new
    readme = (tmp_path / "saved" / "README.md").read_text()
    assert origin["source"] in readme and origin["sha256"][:12] in readme


def check_files(seen: dict[str, Any], folder: Path) -> None:
    """As a folder for timm: the run's preparation."""
    hub.save_timm(folder / "moved", folder / "saved")
    config = json.loads((folder / "saved" / "config.json").read_text())["pretrained_cfg"]
    assert config["mean"] == seen["mean"] and config["crop_pct"] == seen["crop"]


def check_study(text: str, word: str, photos: Path, origin: Any, folder: Path) -> None:
    """An arm of that start begins where the training did."""
    plan = StudyPlan.of(str(photos), arms=(text,), weights=(word,), weights_folder=str(folder))
    _, weights = find_start(plan.arms[0], str(folder))
    assert (weights and weights.source) == (origin and origin["source"])


@pytest.mark.filterwarnings("ignore:the head is new")
def test_an_export_prepares_and_answers_as_the_run(photos, released, tmp_path) -> None:
    """Whatever its start was: an export is made of the run's model and card alone."""
    train(photos, tmp_path / "run", model=THEIRS, weights="auto", weights_folder=released)
    words = ["--format", "torch", "--out", str(tmp_path / "x")]
    assert main(["export", str(tmp_path / "run"), *words]) == 0
    run, served = vitrail.load(tmp_path / "run", device="cpu"), export.open_folder(tmp_path / "x")
    seen = run.card.preprocess
    assert served.preprocess.to_dict() == seen and seen["mean"] == [0.0] * 3
    pictures = [Image.open(photos / "red" / "0.png"), Image.open(photos / "blue" / "3.png")]
    assert torch.allclose(served.predict(pictures), run.predict(pictures), atol=1e-5)


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
        (["--weights", ""], "weights '' name nothing; give none, auto"),
        (["--weights", "timm:"], "weights 'timm:' name nothing"),
        (["--weights", "timm:resnet18"], "cannot download timm/resnet18"),
        (["--weights", "me/gone@no such"], "no weight file at 'me/gone@no such'"),
        (["--weights", "../broken.safetensors"], "cannot read .*broken.safetensors"),
        (["--weights", "../empty.pth"], "cannot read .*empty.pth'.* runs no code from files"),
        (["--weights", "../words.txt"], "cannot read .*words.txt"),
        (["--weights", "../alien.safetensors"], "do not fit CoaT: 150 tensors missing"),
        (["--weights", "none", "auto"], "not understood: auto"),
        (["--weights", "timm", "--weights-folder", "../words.txt"], "words.txt' is no folder"),
        (["--set", "weights=auto"], "weights is said twice: --weights none and --set weights=auto"),
        (["--alpha", "1", "--set", "distill.alpha=0"], "--alpha 1.0 and --set distill.alpha=0"),
        (["--teacher", "../words.txt"], "cannot read .*words.txt"),
        (["--tune", "tail"], r"tune must be all, head or last:N .*, not 'tail'"),
        (["--tune", "last:0"], "not 'last:0'"),
        (["--tune", "last:99"], "asks for more layers than the 9 of this model"),
        (["--from", "."], "the run's own model and weights|holds no best.safetensors"),
    ],
)
def test_a_word_that_cannot_be_had(words, message, photos, tmp_path, monkeypatch, capsys) -> None:
    """One line, exit status 2, and nothing is made."""
    import re

    (tmp_path / "broken.safetensors").write_bytes(b"\x08" + bytes(7) + b'{"a":1')
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "words.txt").write_text("no weights")
    (tmp_path / "alien.safetensors").write_bytes(save({"alien": torch.zeros(3)}))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    quick = ("--image", "64", "--epochs", "1", "--weights", "none")
    assert main(["train", str(photos), *quick, *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, said[-1]), said
    assert not list((tmp_path / "here").iterdir())


def test_random_layers_that_stay_are_said(photos, tmp_path, capsys) -> None:
    fixed = {"tune": "head", "weights": "none", "epochs": 1, "out": tmp_path / "run"}
    vitrail.fit(photos, model=OURS, image=64, changes=QUICK, **fixed)
    assert "tune is head and the layers that stay as they are are random" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_refused(photos, released, tmp_path) -> None:
    with pytest.raises(UserError, match="do not fit"):
        train(photos, tmp_path / "run", model="mobilevit_xs", weights=released / f"{TAGGED}.pth")
    assert not list(tmp_path.iterdir())


def test_a_study_takes_starts_as_a_factor(photos, released, tmp_path, monkeypatch) -> None:
    """Named, trained on images prepared as for the weights, and never ranked unsaid."""
    from vitrail.study.job import check, preprocess_of
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
    done = study.run(plan, tmp_path / "study", use=unmeasured())
    facts = study.StudyResults.load(done.out).facts
    (start,) = facts["starts"]
    assert (start["source"], start["place"]) == (f"timm:{TAGGED}", "weights folder")
    assert facts["fine_tuning"]["head_first"] and "lr" not in facts["fine_tuning"]
    page = done.report.read_text()
    assert start["sha256"][:16] in page and "Of arms from trained weights" in page
    run = next(done.out.rglob("recipe.yaml")).read_text()
    assert "head_first: true" in run and "freeze_norms: true" in run and "lr: 0.001" in run
