"""What clusters lose, on a model too small to know anything."""

import torch
from benchmarks.placing import many

import vitrail
from benchmarks import lost
from vitrail.hub import give_reducer
from vitrail.models import Backbone


def given(plain: Backbone, reducer: str) -> Backbone:
    return give_reducer(plain, many(plain, reducer)).eval()


def test_all_lose_nothing_and_coarser_lose_more() -> None:
    torch.manual_seed(0)
    plain = vitrail.create("vit_tiny(depth=2, dim=24, heads=3, patch=4)", image=32, classes=2)
    pictures = torch.randn(3, 3, 32, 32)
    shares = {r: lost.lost(given(plain, r), pictures) for r in ("pool", "pool(size=4)")}
    assert all(len(found) == 2 for found in shares.values())
    assert all(0 < fine < coarse < 1 for fine, coarse in zip(*shares.values(), strict=True))
    assert max(lost.lost(given(plain, "cluster(ratio=1)"), pictures)) < 1e-10


def test_a_pyramids_last_stage_is_spared() -> None:
    plain = vitrail.create("coat_lite_tiny", image=64, classes=2)
    assert many(plain, "pool") == ("pool", "pool", "pool", "all")


def test_answers_are_held_to_the_plain_models() -> None:
    plain = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    labels = torch.tensor([0, 0, 0])
    same = lost.compare_logits(plain, plain, labels, [])
    assert (same.same, same.divergence) == (1.0, 0.0)
    assert round(same.accuracy, 3) == 0.667
    other = lost.compare_logits(plain.flip(1), plain, labels, [])
    wanted = (plain.softmax(1) * (plain.log_softmax(1) - plain.flip(1).log_softmax(1))).sum(1)
    assert other.same == 0.0
    assert abs(other.divergence - float(wanted.mean())) < 1e-6
