"""Folders that timm, transformers and Vitrail open with equal answers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import vitrail
from vitrail import hub
from vitrail.data import Preprocess
from vitrail.errors import UserError
from vitrail.tasks.card import Card, read_card, save_weights

timm = pytest.importorskip("timm")
LABELS = ("cat", "dog", "stone")
SMALL = {
    "vit_tiny": {"depth": 2, "patch": 8},
    "coat_lite_tiny": {"depths": (1, 1, 1, 1), "mixer": "softmax"},
    "clustering_coat_lite_tiny": {"depths": (1, 1, 1, 1)},
}


def small(name, **options):
    options = {"classes": 3, "image": 64, "in_chans": 1, **SMALL[name], **options}
    return vitrail.create(name, **options).eval()


@pytest.fixture
def pictures():
    return torch.randn(2, 1, 64, 64)


@pytest.mark.parametrize("name", SMALL)
def test_timm_and_vitrail_read_it(name, tmp_path, pictures):
    model = small(name)
    folder = hub.save_timm(model, tmp_path / "saved", labels=LABELS)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    ours = hub.from_pretrained(folder)
    with torch.no_grad():
        wanted = model(pictures)
        assert torch.equal(theirs(pictures), wanted)
        assert torch.equal(ours.model(pictures), wanted)
    assert ours.classes == LABELS and ours.preprocess == Preprocess(image=64, in_chans=1)
    assert theirs.pretrained_cfg["label_names"] == list(LABELS)
    assert timm.data.resolve_model_data_config(theirs)["mean"] == [0.449]
    assert "num_classes" not in json.loads((folder / "config.json").read_text())["model_args"]
    tuned = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5, in_chans=3)
    assert tuned(torch.randn(1, 3, 64, 64)).shape == (1, 5)


@pytest.mark.parametrize("name", ["vit_tiny", "coat_lite_tiny"])
def test_transformers_reads_it(name, tmp_path, pictures):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model = small(name)
    folder = hub.save_timm(model, tmp_path / "saved", labels=LABELS)
    classifier = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    bare = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(classifier(pixel_values=pictures).logits, model(pictures))
        seen = bare(pixel_values=pictures, output_hidden_states=True)
        assert torch.equal(seen.last_hidden_state, model.forward_features(pictures))
        assert [h.shape for h in seen.hidden_states] == [m.shape for m in model.features(pictures)]
    assert classifier.config.id2label == dict(enumerate(LABELS))


def test_the_head_of_the_moment_is_saved(tmp_path):
    model = small("vit_tiny")
    model.reset_classifier(2)
    x = torch.randn(1, 1, 64, 64)
    theirs = timm.create_model(f"local-dir:{hub.save_timm(model, tmp_path / 'a')}", pretrained=True)
    assert torch.equal(theirs.eval()(x), model(x))


@pytest.fixture
def run(tmp_path):
    """A run folder as training leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    model = small("coat_lite_tiny")
    card = Card(
        model="coat_lite_tiny(depths=(1, 1, 1, 1), mixer='softmax')",
        classes=LABELS,
        image=64,
        in_chans=1,
        preprocess=Preprocess(image=64, in_chans=1, crop=1.0).to_dict(),
    )
    save_weights(folder / "best.safetensors", model.state_dict(), card)
    facts = {
        "data": "/data/pets",
        "pictures": {"train": 80, "val": 20},
        "seed": 3,
        "manifest": "ab",
    }
    (folder / "run.json").write_text(json.dumps(facts))
    score = {"count": 20, "accuracy": 0.9, "balanced_accuracy": 0.85, "ece": 0.05}
    result = {"epochs": 4, "seconds": 120, "scores": {"val": score}}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_the_model_card_tells_the_run(run, tmp_path):
    import yaml

    text = (hub.save_timm(run, tmp_path / "out", licence="mit") / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "mit" and head["pipeline_tag"] == "image-classification"
    assert "import vitrail.timm" in text and "`dog`" in text
    assert "80 for train, 20 for val" in text and "seed 3" in text
    assert "| val | 20 | 0.900 | 0.699 to 0.972 | 0.850 | 0.050 |" in text  # Wilson by hand
    assert "chosen on `val`" in text and "4 epochs, 2 minutes" in text
    assert "million parameters" in text and "multiply-adds" in text
    bare = hub.save_timm(small("vit_tiny"), tmp_path / "bare") / "README.md"
    assert "## Data" not in bare.read_text() and "license" not in bare.read_text()


def test_nothing_is_overwritten_without_being_asked(tmp_path):
    model = small("vit_tiny")
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is there already"):
        hub.save_timm(model, tmp_path)
    hub.save_timm(model, tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    with pytest.raises(UserError, match="2 labels for a model of 3 classes"):
        hub.save_timm(model, tmp_path / "other", labels=("a", "b"))
    with pytest.raises(UserError, match="Linear is no Vitrail backbone"):
        hub.save_timm(torch.nn.Linear(1, 1), tmp_path / "other")


class LocalHub:
    """huggingface_hub's client, with a folder for the hub."""

    root: Path
    endpoint = "https://hub.local"

    def __init__(self, **_):
        pass

    def create_repo(self, repository, private, exist_ok):
        (self.root / repository).mkdir(parents=True, exist_ok=exist_ok)

    def file_exists(self, repository, file):
        return (self.root / repository / file).is_file()

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)


def test_to_the_hub_and_back(run, tmp_path, monkeypatch):
    monkeypatch.setattr(LocalHub, "root", tmp_path / "hub", raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi", LocalHub)
    monkeypatch.setattr(
        "vitrail.hub.resolve.from_hub", lambda name, *_: LocalHub.root / name / "model.safetensors"
    )
    assert hub.push_to_hub(run, "me/pets") == "https://hub.local/me/pets"
    with pytest.raises(UserError, match="has weights already; overwrite=True"):
        hub.push_to_hub(run, "me/pets")
    hub.push_to_hub(run, "me/pets", overwrite=True, licence="mit")
    back, before = hub.from_pretrained("me/pets"), hub.open_run(run)
    picture = Image.effect_noise((70, 90), 50)
    assert torch.equal(back.predict([picture]), before.predict([picture]))
    assert back.card == before.card == read_card(LocalHub.root / "me/pets/model.safetensors")


def test_a_hub_that_refuses_is_one_line(run, monkeypatch):
    def refuse(*_, **__):
        raise OSError("401 Unauthorized\nfor url")

    monkeypatch.setattr(LocalHub, "create_repo", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi", LocalHub)
    with pytest.raises(UserError, match="401 Unauthorized for url.*hf auth login"):
        hub.push_to_hub(run, "me/pets")


def test_baselines_from_timm_are_saved_as_timm_reads_them(tmp_path):
    model = hub.build("timm:resnet18", classes=3, image=64).eval()
    card = Card(
        model="timm:resnet18", classes=LABELS, image=64, preprocess=Preprocess(image=64).to_dict()
    )
    opened = hub.Classifier(model, card, LABELS, Preprocess(image=64))
    folder = hub.save_timm(opened, tmp_path / "saved")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(
            timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(x), model(x)
        )
        assert torch.equal(hub.from_pretrained(folder).model(x), model(x))
