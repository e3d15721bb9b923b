"""The same weights both ways, or a refusal."""

import pytest
import torch

from vitrail.cost import Agreement, Counterparts, Pair, Settings, pair
from vitrail.cost.same_weights import agreement, perturb_weights
from vitrail.errors import UserError

SMALL = Settings(image=64, classes=5, threads=1)
KNOWN = Counterparts(
    build="vitrail.hub:build",
    texts={
        "timm": {"mobilevit_xxs": "timm:mobilevit_xxs", "coat_lite_tiny": "timm:coat_lite_tiny"},
        "twin": {"cmt_s": "twin:cmt_s", "mobilevit_xxs": "twin:mobilevit_xxs"},
    },
)


@pytest.fixture(scope="module")
def mobile() -> Pair:
    return pair("mobilevit_xxs", "timm:mobilevit_xxs", SMALL, KNOWN)


def test_counterparts_agree(mobile: Pair) -> None:
    assert mobile.agreement is not None
    assert mobile.agreement.close
    assert "logits agree to" in str(mobile.agreement)
    assert not mobile.ours.training
    assert not mobile.theirs.training


def test_a_lost_weight_shows(mobile: Pair) -> None:
    with torch.no_grad():
        mobile.ours.head.bias[0] += 0.01
    found = agreement(mobile.ours, mobile.theirs, SMALL)
    with torch.no_grad():
        mobile.ours.head.bias[0] -= 0.01
    assert not found.close
    assert found.apart == pytest.approx(0.01, rel=0.01)


def test_what_differs_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    far = Agreement(apart=0.5, largest=2.0)
    monkeypatch.setattr("vitrail.cost.same_weights.agreement", lambda *_: far)
    with pytest.raises(UserError, match="differ by 5.0e-01 on the same weights .* not timed"):
        pair("mobilevit_xxs", "timm:mobilevit_xxs", SMALL, KNOWN)


def test_agreement_is_of_the_largest_logit() -> None:
    assert Agreement(apart=9e-5, largest=10.0).close
    assert not Agreement(apart=9e-5, largest=0.1).close
    assert not Agreement(apart=float("nan"), largest=1.0).close


def test_counterparts_by_word() -> None:
    assert KNOWN.find("coat_lite_tiny", "timm") == "timm:coat_lite_tiny"
    assert KNOWN.find("cmt_s", "twin") == "twin:cmt_s"
    assert KNOWN.find("cmt_s", "timm:resnet18") == "timm:resnet18"
    with pytest.raises(UserError, match="timm has no counterpart of 'cmt_s'.*--against twin"):
        KNOWN.find("cmt_s", "timm")
    with pytest.raises(UserError, match="twin has no counterpart of 'vit_tiny'; there are cmt_s"):
        KNOWN.find("vit_tiny", "twin")


def test_options_make_another_network() -> None:
    assert KNOWN.same_network("cmt_s", "twin:cmt_s")
    assert not KNOWN.same_network("cmt_s(mlp_ratio=4.0)", "twin:cmt_s")
    assert not KNOWN.same_network("timm:resnet18", "timm:resnet18")
    other = pair("vit_tiny(depth=1)", "vit_tiny(depth=1,pool='mean')", SMALL, KNOWN)
    assert other.agreement is None


def test_perturbing_is_always_the_same_and_moves_statistics() -> None:
    models = [torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)) for _ in "ab"]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        perturb_weights(model)
    for a, b in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert (models[0][1].running_mean != 0).all()
    assert (models[0][1].running_var != 1).all()
    assert models[0][1].num_batches_tracked == 0
