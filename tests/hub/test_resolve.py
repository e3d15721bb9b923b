"""``vitrail.create``: whatever a text names, and weights by word."""

import inspect
from pathlib import Path
from typing import get_type_hints

import pytest
import torch

import vitrail
from vitrail import hub
from vitrail.data import Preprocess
from vitrail.errors import UserError
from vitrail.hub import fetch, resolve, weights
from vitrail.models import Backbone
from vitrail.tasks import Card, save_weights

timm = pytest.importorskip("timm")
TINY = "vit_tiny(patch=16, depth=1)"
SMALL = "vit_tiny(patch=8, dim=24, heads=3, depth=1)"


def test_one_function_with_one_signature() -> None:
    """What type checkers, ``help`` and run time see."""
    assert vitrail.create is hub.create is hub.build
    given = inspect.signature(vitrail.create).parameters
    assert set(given) == set(get_type_hints(vitrail.create)) - {"return"}
    named = {"classes", "image", "in_chans", "mixer", "reducer", "drop_path", "weights"}
    assert all(given[name].kind is inspect.Parameter.KEYWORD_ONLY for name in named)


@pytest.mark.parametrize("text", [SMALL, "timm:resnet18"])
def test_ours_and_theirs_are_built_alike(text: str) -> None:
    model = vitrail.create(text, classes=3, image=64, in_chans=1, drop_path=0.1).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 3)


def test_timms_own_classes_and_size_unless_asked() -> None:
    assert vitrail.create("timm:resnet18").num_classes == 1000


@pytest.fixture(params=[SMALL, "timm:resnet10t"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run of a grey model, as training leaves it, in a study's job."""
    model = vitrail.create(request.param, classes=2, image=32, in_chans=1)
    seen = Preprocess(image=32, in_chans=1).to_dict()
    card = Card(model=request.param, classes=("cat", "dog"), image=32, in_chans=1, preprocess=seen)
    folder = tmp_path / "job" / "run"
    folder.mkdir(parents=True)
    save_weights(folder / "best.safetensors", model.state_dict(), card)
    hub.save_timm(folder, tmp_path / "saved")
    return tmp_path


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(t, b.state_dict()[n]) for n, t in a.state_dict().items())


WORDS = ("job", "job/run", "job/run/best.safetensors", "saved", "saved/model.safetensors")


def test_all_that_vitrail_saves_is_a_model_and_weights(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By path and from the hub; classes, size and channels are its own unless asked."""
    for room, name in ((resolve, "from_hub"), (weights, "from_cache")):
        monkeypatch.setattr(room, name, lambda *_: saved / "saved" / "model.safetensors")
    run = vitrail.load(saved / "job", device="cpu")
    for word in (*(saved / word for word in WORDS), "me/pets@v1"):
        made = vitrail.create(word)
        assert same(made, run.model) and made.class_names == ("cat", "dog")
        assert same(vitrail.load(word, device="cpu").model, run.model)
        size = {"classes": 2, "image": 32, "in_chans": 1}
        assert same(vitrail.create(run.card.model, weights=word, **size), run.model)
    assert not same(vitrail.create(saved / "job", weights="none"), run.model)
    with pytest.warns(UserWarning, match="the weights knows 2 classes, the model 5"):
        other = vitrail.create(saved / "job", classes=5, in_chans=3)
    assert other.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    assert not hasattr(other, "class_names")


def test_a_run_with_another_reducer(tmp_path: Path) -> None:
    model = vitrail.create(SMALL, classes=2, image=32, reducer="pool")
    card = Card(model=f"{SMALL[:-1]}, reducer='pool')", classes=("a", "b"), image=32)
    save_weights(tmp_path / "best.safetensors", model.state_dict(), card)
    made = vitrail.create(tmp_path, reducer=["cluster(ratio=2)"])
    assert isinstance(made, Backbone) and made.config.reducer == ("cluster(ratio=2)",)
    assert same(made, model)


def test_a_card_names_no_path_and_no_address(tmp_path: Path) -> None:
    model = vitrail.create(SMALL, classes=2, image=32)
    for name, text in (("a", SMALL), ("b", str(tmp_path / "a")), ("c", "owner/name")):
        card = Card(model=text, classes=("a", "b"), image=32)
        (tmp_path / name).mkdir()
        save_weights(tmp_path / name / "best.safetensors", model.state_dict(), card)
    for name in "bc":
        for opened in (vitrail.load, vitrail.create):
            with pytest.raises(UserError, match="is not of the form name or name"):
                opened(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("vit_tinny", {}, "no model 'vit_tinny'; did you mean vit_tiny"),
        ("timm:nothing_like_it", {}, "no timm model"),
        ("timm:resnet18", {"mixer": "softmax"}, "timm's own: mixer works with our models only"),
        ("timm:resnet18", {"depth": 3}, "timm's own: depth works with our models only"),
        ("timm:resnet18", {"classes": "x"}, "create: classes must be a whole number"),
        ("timm:resnet18", {"image": -3}, "image must be 1 or more, not -3"),
        ("timm:", {}, "its name behind"),
        ("", {}, "'' is not of the form"),
        ("x/" * 3000, {}, "no run 'x/x"),
        ("./gone", {}, "no run 'gone'"),
        ("gone.safetensors", {}, "no run 'gone.safetensors'"),
        ("no/such/run", {}, "no run 'no/such/run'"),
        (Path("gone"), {}, "no run 'gone'"),
        ("tests/gone", {}, "no run 'tests/gone'"),
    ],
)
def test_what_cannot_be_built(
    text: str, options: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(UserError, match=message):
        vitrail.create(text, **options)


def test_a_repository_that_cannot_be_had_may_have_been_a_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for opened in (vitrail.load, vitrail.create):
        with pytest.raises(UserError, match="no file or folder 'me/pets' here, and cannot down"):
            opened("me/pets")


@pytest.fixture
def released(tmp_path, monkeypatch):
    """timm's weights of ``coat_lite_tiny``, as if downloaded; the repositories asked for."""
    theirs = timm.create_model("coat_lite_tiny", num_classes=1000).eval()
    torch.save(theirs.state_dict(), tmp_path / "released.pth")
    asked = []

    def from_cache(repository, revision=None, files=(), cache_dir=None):
        asked.append((repository, revision))
        return tmp_path / "released.pth"

    monkeypatch.setattr(fetch, "from_cache", from_cache)
    monkeypatch.setattr(weights, "from_cache", from_cache)
    return theirs, asked


def test_timms_weights_by_word_for_other_sizes_classes_and_channels(released):
    theirs, asked = released
    same = vitrail.create("coat_lite_tiny", weights="timm").eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(same(x), theirs(x), rtol=1e-4, atol=1e-5)
    tuned = vitrail.create("coat_lite_tiny", weights="timm", classes=7, image=64, in_chans=1)
    assert tuned(torch.randn(1, 1, 64, 64)).shape == (1, 7)
    other = vitrail.create("clustering_coat_lite_tiny", weights="timm:coat_lite_tiny.in1k")
    assert torch.equal(other.head.weight, theirs.head.weight)
    by_name = vitrail.create("coat_lite_tiny", weights="timm/coat_lite_tiny.in1k@v1")
    assert torch.equal(by_name.head.weight, theirs.head.weight)
    assert asked[-2:] == [("timm/coat_lite_tiny.in1k", None), ("timm/coat_lite_tiny.in1k", "v1")]


def test_files_and_saved_folders(tmp_path):
    model = vitrail.create(TINY, classes=3, image=32)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    vitrail.hub.save_timm(model, tmp_path / "saved")
    for place in (tmp_path / "model.pth", str(tmp_path / "saved")):
        again = vitrail.create(TINY, classes=3, image=32, weights=place)
        assert torch.equal(again.head.weight, model.head.weight)


@pytest.mark.parametrize(
    ("model", "word", "message"),
    [
        ("pooled_coat_lite_tiny", "timm", "timm has no weights for 'pooled_coat_lite_tiny'"),
        ("vit_tiny", "timm:vit_tinny_patch16_224", "no timm model 'vit_tinny_patch16_224'; close:"),
        ("vit_tiny", "no/where.pth", "no weight file at 'no/where.pth'"),
        ("vit_tiny", "nowhere", "no weight file at 'nowhere'"),
        ("timm:resnet18", "timm:nothing", "no timm model 'nothing'"),
    ],
)
def test_what_cannot_be_had(model, word, message):
    with pytest.raises(UserError, match=message):
        vitrail.create(model, weights=word)
