"""The same weights both ways, or a refusal."""

import pytest
import torch

import vitrail.bench
from vitrail.bench.twins import Agreement, Pair, agreement, counterparts, pair, rival, scatter
from vitrail.cost import Settings
from vitrail.errors import UserError

SMALL = Settings(image=64, classes=5, threads=1)


@pytest.fixture(scope="module")
def mobile() -> Pair:
    return pair("mobilevit_xxs", "timm:mobilevit_xxs", SMALL)


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
    monkeypatch.setattr("vitrail.bench.twins.agreement", lambda *_: far)
    with pytest.raises(UserError, match="differ by 5.0e-01 on the same weights .* not timed"):
        pair("cmt_ti", "official:cmt_ti", SMALL)


def test_agreement_is_of_the_largest_logit() -> None:
    assert Agreement(apart=9e-5, largest=10.0).close
    assert not Agreement(apart=9e-5, largest=0.1).close
    assert not Agreement(apart=float("nan"), largest=1.0).close


def test_rivals_by_word() -> None:
    assert rival("coat_lite_tiny", "timm") == "timm:coat_lite_tiny"
    assert rival("cmt_s", "official") == "official:cmt_s"
    assert rival("cmt_s", "timm:resnet18") == "timm:resnet18"
    with pytest.raises(UserError, match="timm has no counterpart of 'cmt_s'.*--against official"):
        rival("cmt_s", "timm")
    with pytest.raises(UserError, match="no official layout of 'vit_tiny'; there are cmt_ti"):
        rival("vit_tiny", "official")


def test_options_make_another_network() -> None:
    assert counterparts("cmt_ti", "official:cmt_ti")
    assert not counterparts("cmt_ti(mlp_ratio=4.0)", "official:cmt_ti")
    assert not counterparts("timm:resnet18", "timm:resnet18")
    other = pair("vit_tiny(depth=1)", "vit_tiny(depth=1,pool='mean')", SMALL)
    assert other.agreement is None


def test_scatter_is_always_the_same_and_moves_statistics() -> None:
    models = [torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)) for _ in "ab"]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        scatter(model)
    for a, b in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert (models[0][1].running_mean != 0).all()
    assert (models[0][1].running_var != 1).all()
    assert models[0][1].num_batches_tracked == 0


def test_build_knows_every_door() -> None:
    for arm in ("vit_tiny(depth=1)", "timm:mobilevit_xxs", "official:cmt_ti"):
        assert vitrail.bench.build(arm, classes=2, image=64) is not None
    with pytest.raises(UserError, match="no official layout of 'vit_tiny'"):
        vitrail.bench.build("official:vit_tiny", classes=2, image=64)
