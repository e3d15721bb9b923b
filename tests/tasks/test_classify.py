"""Scores against hand-counted ones."""

import pytest
import torch
from torch import Tensor, nn

from vitrail.errors import UserError
from vitrail.tasks import evaluate, probabilities
from vitrail.tasks.classify import score_logits


class Given(nn.Module):
    """Logits that stand in the pictures' first pixels."""

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        return x[:, 0, 0]


def pictures(logits: Tensor) -> Tensor:
    return logits[:, None, None].expand(-1, 1, 1, -1)


def test_counted_by_hand() -> None:
    # labels 0 0 0 1 2, predictions 0 0 1 1 0; class 3 has no picture
    chosen, labels = torch.tensor([0, 0, 1, 1, 0]), torch.tensor([0, 0, 0, 1, 2])
    logits = 4.0 * nn.functional.one_hot(chosen, 4).float()
    model = Given().train()
    batches = [(pictures(logits[:3]), labels[:3]), (pictures(logits[3:]), labels[3:])]
    scores = evaluate(model, batches, 4)
    assert model.training
    assert scores.accuracy == 0.6
    assert scores.balanced_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores.top5 is None
    assert scores.confusion == [[2, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert (scores.labels, scores.predictions) == (labels.tolist(), chosen.tolist())
    assert scores.count == 5
    assert scores.loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)))
    sure = float(logits.softmax(-1).max())
    assert scores.ece == pytest.approx(abs(sure - 0.6), abs=1e-6)
    assert "confusion" not in scores.numbers()


def test_top5_with_more_than_five_classes() -> None:
    logits = torch.arange(7.0).flip(0).repeat(4, 1)  # best five: 0 to 4
    scores = score_logits(logits, torch.tensor([0, 4, 5, 6]), 7)
    assert scores.top5 == 0.5 and scores.accuracy == 0.25


def test_probabilities_sum_to_one() -> None:
    found = probabilities(Given(), pictures(torch.randn(3, 4)))
    assert found.shape == (3, 4)
    torch.testing.assert_close(found.sum(-1), torch.ones(3))


def test_nothing_to_evaluate() -> None:
    with pytest.raises(UserError, match="the set is empty"):
        evaluate(Given(), [], 3)
