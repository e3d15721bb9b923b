"""Choosing: the pool, the rounds, the features."""

import numpy as np
import pytest
import torch
from torch import nn

from vitrail.data import Preprocess, open_dataset
from vitrail.errors import UserError
from vitrail.study.choose.halving import alike, rank, rank_correlation, survivors
from vitrail.study.choose.pool import CURATED, OURS, Candidate, check_pool, default_pool, pool_of
from vitrail.train.features import FeatureBank, labels_of

FREE = {"apache-2.0", "mit", "bsd-3-clause"}


def test_curated_models_have_weights_that_may_be_sold() -> None:
    import timm

    from vitrail.models.zoo import list_models

    for name in CURATED:
        config = timm.get_pretrained_cfg(name)
        assert config is not None and timm.is_model_pretrained(name), name
        assert config.license in FREE, (name, config.license)
    assert set(OURS) <= set(list_models())
    assert all(candidate.reason for candidate in default_pool())


def test_words_and_patterns_name_candidates() -> None:
    names = [c.model for c in pool_of(["coat_lite_*", "timm:resnet18", "timm:convnext_a*"])]
    assert "coat_lite_tiny" in names and "timm:resnet18" in names
    assert "timm:convnext_atto" in names and len(names) == len(set(names))
    assert next(c for c in pool_of(["timm:resnet18"])).reason == CURATED["resnet18"]
    assert pool_of([]) == default_pool()
    with pytest.raises(UserError, match="model that fits"):
        pool_of(["coat_heavy_*"])
    with pytest.raises(UserError, match="nothing to choose: candidates are vit_tiny"):
        check_pool([Candidate(model="vit_tiny")])


def right(share: float, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(count) < share


def test_a_candidate_goes_when_its_interval_lies_below_the_leaders() -> None:
    answers = {"bad": right(0.3, 400, 0), "good": right(0.9, 400, 1), "close": right(0.88, 400, 2)}
    standings = rank(answers)
    assert [s.name for s in standings][-1] == "bad" and standings[0].behind.value == 0
    assert set(survivors(standings)) == {"good", "close"} == set(alike(standings))
    assert survivors(standings, most=1) == [standings[0].name]
    assert len(survivors(standings, least=3)) == 3
    few = {name: answer[:12] for name, answer in answers.items()}
    few["bad"] = few["good"] & (np.arange(12) > 0)
    assert "bad" in survivors(rank(few))  # twelve pictures tell nothing apart


def test_rank_correlation_is_spearmans() -> None:
    a = {"x": 1.0, "y": 2.0, "z": 3.0, "alone": 9.0}
    assert rank_correlation(a, {"x": 10.0, "y": 11.0, "z": 50.0}) == pytest.approx(1)
    assert rank_correlation(a, {"x": 3.0, "y": 2.0, "z": 1.0}) == pytest.approx(-1)
    assert np.isnan(rank_correlation(a, {"x": 1.0}))


class Means(nn.Module):
    """Mean of each channel, and how many pictures were seen."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return x.mean((2, 3)) * self.scale


def test_features_are_computed_once_for_each_picture() -> None:
    pictures = open_dataset("scenes(count=40, size=32)")
    items, model = pictures.split("train"), Means()
    preprocess = Preprocess(image=32)
    bank = FeatureBank(model=model, pictures=pictures, preprocess=preprocess)
    few = bank.features(items[:5])
    more = bank.features(items[:20][::-1])
    assert model.seen == len({item.key for item in items[:20]}) and bank.seconds > 0
    assert (more[-5:][::-1] == few).all()
    one = preprocess.transform()(pictures.read(items[3])).mean((1, 2)).numpy()
    assert np.allclose(few[3], one, atol=1e-6)
    assert labels_of(items[:3]).tolist() == [item.label for item in items[:3]]
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
