import pytest
import torch
from tests.cost import builders
from torch import nn

import vitrail
from vitrail import cost
from vitrail.cost.step import PARTS, TrainingStep
from vitrail.errors import UserError

SETTINGS = cost.Settings(image=8, batch=2, classes=3)


def test_it_trains() -> None:
    model = builders.build("narrow", classes=3, image=8)
    before = model[0].weight.clone()
    step = TrainingStep(model, SETTINGS)
    losses = [float(step()) for _ in range(30)]
    assert losses[-1] < losses[0]
    assert not torch.equal(before, model[0].weight)


def test_parts_are_those_of_the_last_calls() -> None:
    step = TrainingStep(builders.build("narrow", classes=3, image=8), SETTINGS)
    step()
    step.marks = [[0.0, 9.0, 9.0, 9.0], [0.0, 1.0, 3.0, 6.0], [0.0, 3.0, 5.0, 8.0]]
    assert step.parts(2) == {"forward": 2.0, "backward": 2.0, "optimiser": 3.0}
    assert tuple(step.parts(1)) == PARTS


def test_checkpointing_reaches_the_model_or_is_refused() -> None:
    settings = cost.Settings(image=32, batch=2, classes=3, checkpointing=True)
    model = vitrail.create("vit_tiny(depth=1)", classes=3, image=32)
    assert torch.isfinite(TrainingStep(model, settings)())
    assert model.grad_checkpointing
    with pytest.raises(UserError, match="Sequential has no gradient checkpointing"):
        TrainingStep(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3)), settings)
