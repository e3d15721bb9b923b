"""Weights by word, from folders, files, runs and a hub that speaks the real one's protocol."""

import io
import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from tests.conftest import OpenHub
from tests.hub.endpoint import COMMIT
from torch import nn

import vitrail
from vitrail import hub
from vitrail.data import Preprocess
from vitrail.errors import UserError
from vitrail.hub import fetch
from vitrail.hub.fetch import NotAvailable
from vitrail.hub.origin import origin_of
from vitrail.hub.released import released_classes
from vitrail.hub.weights import find_weights, preprocess_in
from vitrail.tasks import Card, save_weights

timm = pytest.importorskip("timm")
OURS, THEIRS = "mobilevit_xxs", "timm:mobilevit_xxs"
TAGGED = "mobilevit_xxs.cvnets_in1k"
REPOSITORY = f"timm/{TAGGED}"


@pytest.fixture(scope="module")
def released() -> nn.Module:
    """Random weights under released names."""
    torch.manual_seed(1)
    return timm.create_model("mobilevit_xxs", num_classes=1000).eval()


@pytest.fixture(scope="module")
def safe(released: nn.Module) -> bytes:
    return save(released.state_dict())


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: t for n, t in model.state_dict().items() if "num_batches" not in n}


def stem_of(model: nn.Module) -> torch.Tensor:
    return next(t for t in model.state_dict().values() if t.dim() == 4)


@pytest.mark.parametrize("ending", ["safetensors", "pth", "folder"])
@pytest.mark.parametrize("text", [OURS, THEIRS])
def test_auto_finds_a_weights_folder(text, ending, safe, released, tmp_path, monkeypatch) -> None:
    """By option or by environment, without asking any net; what was loaded is recorded."""
    monkeypatch.setattr(fetch.socket, "create_connection", refuse_net)
    if ending == "pth":
        torch.save({"state_dict": released.state_dict()}, tmp_path / f"{TAGGED}.pth")
    else:
        name = f"{TAGGED}/model.safetensors" if ending == "folder" else f"{TAGGED}.safetensors"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(safe)
    monkeypatch.setenv("VITRAIL_WEIGHTS", str(tmp_path))
    model = vitrail.create(text, classes=3, image=64, weights="auto")
    assert torch.equal(stem_of(model), stem_of(released))
    origin = origin_of(model)
    assert (origin.source, origin.place) == (f"timm:{TAGGED}", "weights folder")
    assert origin.licence == "cvnets-license" and len(origin.sha256) == 64
    assert {name.rpartition(".")[2] for name in origin.new} == {"weight", "bias"}
    assert origin.loaded == len(state(model)) - len(origin.new) and len(origin.left_out) == 2
    assert origin.preprocess["mean"] == [0.0, 0.0, 0.0] and origin.preprocess["image"] == 256
    same = vitrail.create(text, weights="timm", weights_folder=tmp_path)
    assert origin_of(same).new == () and origin_of(same).left_out == ()


def refuse_net(*_: object, **__: object) -> None:
    raise OSError("Name or service not known")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (OURS, "starts from scratch: cannot download timm/mobilevit_xxs.*--weights-folder"),
        ("vit_tiny(depth=2)", "the released weights of vit_tiny do not fit vit_tiny.depth=2."),
        ("pooled_coat_lite_tiny", "timm has no weights for 'pooled_coat_lite_tiny'"),
    ],
)
def test_auto_without_weights_is_one_line(text, says, monkeypatch) -> None:
    monkeypatch.setattr(fetch.socket, "create_connection", refuse_net)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.warns(UserWarning, match=says) as caught:
        model = vitrail.create(text, classes=2, image=64, weights="auto")
    assert origin_of(model) is None and len(caught) == 1 and "\n" not in str(caught[0].message)


def test_the_hub_is_asked_once_and_the_cache_remembers(hub_server: OpenHub, safe: bytes) -> None:
    """Redirects, the older file name, and afterwards no question at all."""
    raw = io.BytesIO()
    readme = b"---\nlicense: cc-by-nc-4.0\n---\n# x"
    config = json.dumps({"pretrained_cfg": timm_config()}).encode()
    other = vitrail.create(OURS, classes=2, image=64)
    torch.save(other.state_dict(), raw)
    files = {"pytorch_model.bin": raw.getvalue(), "README.md": readme, "config.json": config}
    server = hub_server({REPOSITORY: {"model.safetensors": safe}, "me/pets": files})
    first = find_weights("auto", OURS)
    assert (first.place, first.revision) == ("net", COMMIT)
    pets = vitrail.create(OURS, classes=2, image=64, weights="me/pets@v1")
    origin = origin_of(pets)
    assert torch.equal(stem_of(pets), stem_of(other))
    assert (origin.source, origin.licence, origin.revision) == (
        "me/pets@v1",
        "cc-by-nc-4.0",
        COMMIT,
    )
    assert origin.preprocess["std"] == [0.25, 0.25, 0.25]
    assert any("may be used commercially" in line for line in origin.lines)
    server.asked.clear()
    server.fault = "down"
    again = [find_weights(w, OURS) for w in ("auto", "timm", f"timm:{TAGGED}", "me/pets@v1")]
    assert {w.place for w in again} == {"cache"} and again[-1].licence == "cc-by-nc-4.0"
    assert server.asked == []


def timm_config() -> dict[str, object]:
    return {"input_size": [3, 96, 96], "mean": [0.1] * 3, "std": [0.25] * 3, "crop_pct": 0.8}


@pytest.mark.parametrize(
    ("fault", "word", "says"),
    [
        ("silent", "auto", "starts from scratch: cannot download .*(within|timed out)"),
        ("silent", "me/pets", "cannot download me/pets .*(within|timed out)"),
        ("down", "me/pets", "cannot download me/pets .*503"),
        ("half", "me/pets", "cannot download me/pets .*size"),
        ("half", "auto", "starts from scratch: cannot download"),
        ("private", "me/pets", "asks for consent: accept its terms"),
        ("rotten", "me/pets", "is damaged .*delete it"),
        ("", "me/other", "no repository 'me/other' on the hub; look at the name"),
        ("", "me/pets@v9", "'me/pets' on the hub has no revision 'v9'"),
        ("", "me/empty", r"'me/empty' on the hub holds no model\.safetensors or pytorch_model"),
    ],
)
def test_a_hub_that_fails(fault, word, says, hub_server: OpenHub, safe: bytes, monkeypatch) -> None:
    """One line within ten seconds; ``auto`` begins from scratch, any other word is refused.

    A silent hub answers after half a minute, so who waited for it would have its weights.
    """
    assert fetch.WAIT + fetch.ANSWER < 10
    monkeypatch.setattr(fetch, "ANSWER", 1.0)
    files = {"model.safetensors": safe}
    hub_server({REPOSITORY: files, "me/pets": files, "me/empty": {}}, fault)
    if word == "auto":
        with pytest.warns(UserWarning, match=says):
            assert find_weights(word, OURS) is None
    else:
        with pytest.raises(UserError, match=says) as caught:
            find_weights(word, OURS)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, NotAvailable) == (fault != "rotten")


def test_what_lies_beside_weights_and_cannot_be_had_is_said(
    hub_server: OpenHub, safe: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights alone are no secret loss of their preparation and licence; nothing there is none."""
    monkeypatch.setattr(fetch, "ANSWER", 0.5)
    files = {"model.safetensors": safe}
    server = hub_server({"me/pets": {**files, "config.json": b"{}"}, "me/bare": files}, "alone")
    for place in ("net", "cache"):
        with pytest.warns(UserWarning) as caught:
            found = find_weights("me/pets", OURS)
        assert (found.place, found.preprocess["mean"]) == (place, [0.0, 0.0, 0.0])
        said = [str(warning.message).split(" cannot")[0] for warning in caught]
        assert said == ["config.json of me/pets", "README.md of me/pets"]
    server.fault = ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bare = [find_weights("me/bare", OURS) for _ in range(2)]
    assert [w.place for w in bare] == ["net", "cache"] and bare[0].preprocess == found.preprocess


def test_a_run_hands_on_preparation_and_licence(tmp_path: Path) -> None:
    model = vitrail.create(OURS, classes=2, image=64)
    seen = Preprocess(image=64, mean=(0.1, 0.2, 0.3), crop=0.8).to_dict()
    first = {"source": "timm:x", "place": "net", "sha256": "0" * 64, "loaded": 9}
    first["licence"] = "cc-by-nc-4.0"
    card = Card(model=OURS, classes=("a", "b"), image=64, preprocess=seen, extra={"weights": first})
    save_weights(tmp_path / "best.safetensors", model.state_dict(), card)
    for word in (tmp_path, tmp_path / "best.safetensors"):
        found = find_weights(word, OURS)
        assert found.preprocess == seen and found.licence == "cc-by-nc-4.0"
    hub.save_timm(tmp_path, tmp_path / "saved")
    assert find_weights(tmp_path / "saved", OURS).preprocess == seen


def test_a_bare_file_is_prepared_as_released_weights_are(tmp_path: Path) -> None:
    torch.save(vitrail.create(OURS).state_dict(), tmp_path / "x.pth")
    found = find_weights(tmp_path / "x.pth", OURS)
    assert found.preprocess["image"] == 256 and found.licence == ""
    assert find_weights(tmp_path / "x.pth", "filtervit_s").preprocess == {}


def test_weights_of_a_larger_model_are_refused(tmp_path: Path) -> None:
    """Also where every tensor of the smaller one is among them."""
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "x.pth")
    small = timm.create_model("resnet10t", num_classes=2).state_dict()
    torch.save({**small, "layer1.7.conv1.weight": torch.zeros(3)}, tmp_path / "y.pth")
    with pytest.raises(UserError, match="do not fit timm:resnet10t"):
        vitrail.create("timm:resnet10t", classes=2, weights=tmp_path / "x.pth")
    with pytest.raises(UserError, match="1 tensors belong to another model, such as layer1.7"):
        vitrail.create("timm:resnet10t", classes=3, weights=tmp_path / "y.pth")


@pytest.mark.parametrize("text", [THEIRS, f"timm:{TAGGED}"])
def test_released_weights_are_loaded_with_their_head_and_classes(
    text: str, released: nn.Module, safe: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{TAGGED}.safetensors").write_bytes(safe)
    monkeypatch.setenv("VITRAIL_WEIGHTS", str(tmp_path))
    opened = vitrail.load(text, device="cpu")
    images = torch.rand(2, 3, 256, 256)
    wanted = released(opened.prepare(images)).softmax(1)
    torch.testing.assert_close(opened.predict(images), wanted, atol=1e-6, rtol=1e-4)
    assert opened.preprocess.image == 256 and opened.classes[281] == "tabby"
    assert len(set(opened.classes)) == len(opened.classes) == 1000
    monkeypatch.setenv("VITRAIL_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nowhere"):
        vitrail.load(text)


def test_classes_of_another_set_are_numbers() -> None:
    assert released_classes(3) == ("0", "1", "2")


@pytest.mark.parametrize(
    "odd", [{"input_size": []}, {"input_size": ["x"]}, {"mean": [{}, 1, 2]}, {"crop_pct": "much"},
            {"crop_pct": [1]}, {"std": [0, 0, 0]}, {"input_size": [3, 10**6, 10**6]}],
)  # fmt: skip
def test_a_config_of_odd_values_is_one_line(odd: dict[str, object]) -> None:
    plain = {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3}
    assert preprocess_in({"pretrained_cfg": plain})["image"] == 224
    with pytest.raises(UserError, match="config.json prepares no pictures"):
        preprocess_in({"pretrained_cfg": plain | odd})
