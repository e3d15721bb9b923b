"""One picture at a time and batch norm."""

import pytest
import torch
from torch import nn

from vitrail.errors import UserError
from vitrail.train import Recipe
from vitrail.train.small_batches import check_batch_norm


def model(stride: int, norm: bool = True) -> nn.Module:
    layers = [nn.Conv2d(3, 4, stride, stride=stride), nn.BatchNorm2d(4) if norm else nn.Identity()]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("stride", "norm", "count", "batch", "accumulate", "world", "refused"),
    [
        (8, True, 100, 4, 4, 1, True),
        (8, True, 100, 4, 2, 2, True),
        (8, True, 1, 16, 1, 1, True),
        (8, True, 100, 4, 2, 1, False),
        (4, True, 100, 4, 4, 1, False),  # maps of 2 x 2: four values
        (8, False, 100, 4, 4, 1, False),
    ],
)
def test_only_what_would_end_at_once_is_refused(
    stride: int, norm: bool, count: int, batch: int, accumulate: int, world: int, refused: bool
) -> None:
    made = model(stride, norm)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    recipe = Recipe(batch=batch, accumulate=accumulate)
    said = None
    try:
        check_batch_norm(made, "mine", (3, 8, 8), recipe=recipe, count=count, world=world)
    except UserError as error:
        said = str(error)
    assert (said is not None) == refused
    assert said is None or "mine cannot be trained on one picture at a time" in said
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
