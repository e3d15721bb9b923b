"""``vitrail.create(weights=...)``: files, folders, timm's words and repositories."""

import pytest
import torch

import vitrail
from vitrail.errors import UserError
from vitrail.hub import fetch, weights

timm = pytest.importorskip("timm")
TINY = "vit_tiny(patch=16, depth=1)"


@pytest.fixture
def released(tmp_path, monkeypatch):
    """timm's weights of ``coat_lite_tiny``, as if downloaded; the repositories asked for."""
    theirs = timm.create_model("coat_lite_tiny", num_classes=1000).eval()
    torch.save(theirs.state_dict(), tmp_path / "released.pth")
    asked = []

    def from_hub(repository, revision=None, files=(), cache_dir=None):
        asked.append((repository, revision))
        return tmp_path / "released.pth"

    monkeypatch.setattr(fetch, "from_hub", from_hub)
    monkeypatch.setattr(weights, "from_hub", from_hub)
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
    ],
)
def test_what_cannot_be_had(model, word, message):
    with pytest.raises(UserError, match=message):
        vitrail.create(model, weights=word)
