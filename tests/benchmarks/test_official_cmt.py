"""The official wiring rebuilt: its names, its outputs, and equality with ours."""

import sys

import pytest
import torch
from benchmarks.peer_models import COUNTERPARTS

import vitrail
from benchmarks import official_cmt
from vitrail.cost import Settings, count, pair
from vitrail.errors import UserError


@pytest.mark.parametrize("name", ["cmt_ti", "cmt_s"])
def test_outputs_of_the_official_code(name, shared, monkeypatch):
    """The golden state dict is loaded strictly, so every name and shape is the original's."""
    monkeypatch.syspath_prepend(str(shared / "reference"))
    from golden_fill import golden_input, load_golden

    file = load_golden(str(shared / "reference" / "golden" / f"{name}.npz"))
    sys.modules.pop("golden_fill")
    model = official_cmt.build(f"official:{name}", classes=1000, image=file["size"]).eval()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in file["state"].items()})
    x = torch.from_numpy(golden_input(2, file["size"], file["size"]))
    wanted = torch.from_numpy(file["logits"])
    with torch.no_grad():
        assert (model(x) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("name", ["cmt_ti", "cmt_s"])
def test_ours_agrees_on_the_same_weights(name):
    found = pair(name, f"official:{name}", Settings(image=64, classes=7), COUNTERPARTS).agreement
    assert found.close, found
    assert found.largest > 0.05


def test_it_does_the_same_work():
    theirs = count(official_cmt.build("official:cmt_ti", classes=10, image=64), 64)
    ours = count(vitrail.create("cmt_ti", classes=10, image=64), 64)
    assert (theirs.params, theirs.macs) == (ours.params, ours.macs)


def test_odd_sizes_are_refused():
    with pytest.raises(UserError, match="multiples of 32, not 75"):
        official_cmt.build("official:cmt_ti", classes=2, image=75)


def test_other_texts_are_built_too():
    for text in ("vit_tiny(depth=1)", "timm:mobilevit_xxs"):
        assert official_cmt.build(text, classes=2, image=64) is not None
    with pytest.raises(UserError, match="no official layout of 'vit_tiny'; there are cmt_ti"):
        official_cmt.build("official:vit_tiny", classes=2, image=64)
