"""RISE: known where the masks hide nothing, right where one patch decides."""

import pytest
import torch
from torch import Tensor, nn

import vitrail
from vitrail.attribution.rise import enlarge_masks


class Patch(nn.Module):
    """Class 0 is likely as far as one patch is bright."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images[:, 0, 4:8, 8:12].mean((1, 2))
        return torch.stack((8 * bright - 4, torch.zeros_like(bright)), 1)


IMAGES = torch.ones(2, 3, 16, 20)


def test_masks_that_hide_nothing_give_the_probability() -> None:
    found = vitrail.explain(Patch(), IMAGES, "rise", 0, masks=5, keep=1.0, cells=4, batch=2)
    wanted = torch.tensor(4.0).sigmoid()
    assert torch.allclose(found.map, wanted.expand(2, 16, 20), atol=1e-5)


def test_a_model_that_sees_nothing_has_an_even_map_with_any_number_of_masks() -> None:
    found = vitrail.explain(lambda x: torch.zeros(len(x), 2), IMAGES, "rise", 0, masks=30, cells=4)
    assert torch.allclose(found.map, torch.tensor(0.5).expand(2, 16, 20), atol=1e-5)


def test_the_patch_that_decides_is_highest() -> None:
    found = vitrail.explain(Patch(), IMAGES[:1], "rise", 0, masks=400, cells=4)
    row, column = divmod(int(found.map[0].argmax()), 20)
    assert 4 <= row < 8 and 8 <= column < 12
    against = vitrail.explain(Patch(), IMAGES[:1], "rise", 1, masks=400, cells=4).map
    assert against[0, 4:8, 8:12].mean() < against[0, 12:].mean()


def test_seeded_and_alone_as_in_a_batch() -> None:
    how = {"masks": 40, "cells": 4}
    one = vitrail.explain(Patch(), IMAGES, "rise", 0, **how, batch=7)
    assert torch.allclose(one.map, vitrail.explain(Patch(), IMAGES, "rise", 0, **how).map)
    alone = vitrail.explain(Patch(), IMAGES[1], "rise", 0, **how).map
    assert torch.allclose(one.map[1:], alone, atol=1e-5)
    other = vitrail.explain(Patch(), IMAGES, "rise", 0, **how, seed=1).map
    assert not torch.allclose(one.map, other)


@pytest.mark.parametrize("size", [(16, 20), (17, 5)])
def test_masks_have_the_pictures_size_and_stay_between_0_and_1(size: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    grids = (torch.rand(64, 7, 7, generator=draw) < 0.5).float()
    masks = enlarge_masks(grids, torch.rand(64, 2, generator=draw), size)
    assert masks.shape == (64, *size)
    assert float(masks.min()) >= 0 and float(masks.max()) <= 1 + 1e-6
    assert float(masks.mean()) == pytest.approx(0.5, abs=0.05)
