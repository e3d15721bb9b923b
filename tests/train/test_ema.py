"""The average of the weights, against its formula."""

import pytest
import torch
from torch import nn

from vitrail.train.ema import create_ema


@pytest.mark.parametrize("decay", [0.15, 0.9])
def test_the_decay_grows_from_a_tenth_to_its_own(decay: float) -> None:
    """``min(decay, (1 + n) / (10 + n))``; the first update copies the weights."""
    model = nn.Linear(1, 1, bias=False)
    ema = create_ema(model, decay)
    wanted = None
    for update, value in enumerate((1.0, 2.0, 4.0, 3.0)):
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        keep = min(decay, (1 + update) / (10 + update))
        wanted = value if wanted is None else keep * wanted + (1 - keep) * value
        assert ema.module.weight.item() == pytest.approx(wanted)
    assert int(ema.n_averaged) == 4


def test_statistics_are_copied_and_nothing_is_learned() -> None:
    model = nn.BatchNorm1d(2)
    ema = create_ema(model, 0.9)
    model(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    ema.update_parameters(model)
    assert torch.equal(ema.module.running_mean, model.running_mean)
    assert not ema.training and not any(p.requires_grad for p in ema.parameters())
