"""Occlusion of models whose losses are known."""

import torch
from torch import nn

import vitrail
from vitrail.attribution.occlusion import window_starts, windows


class Sum(nn.Module):
    """Class 0: the weighted sum of the pixels; class 1: nothing."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 8, 12, generator=draw))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        total = (images * self.weight).sum((1, 2, 3))
        return torch.stack((total, torch.zeros_like(total)), 1)


IMAGES = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))


def test_a_linear_model_loses_what_the_window_holds() -> None:
    model = Sum()
    found = vitrail.explain(model, IMAGES, "occlusion", 0, window=4, stride=4, batch=2)
    held = (IMAGES * model.weight.detach()).sum(1)
    blocks = held.unfold(1, 4, 4).unfold(2, 4, 4).sum((3, 4))
    wanted = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert torch.allclose(found.map, wanted, atol=1e-4)
    assert found.signed and found.class_specific


def test_every_pixel_is_covered_at_any_size() -> None:
    assert window_starts(10, 4, 3) == [0, 3, 6]
    assert window_starts(11, 4, 3) == [0, 3, 6, 7]
    assert window_starts(3, 4, 3) == [0]
    assert window_starts(20, 2, 9) == [*range(0, 18, 2), 18]
    assert len(windows((8, 12), 4, 4)) == 6
    found = vitrail.explain(Sum(), IMAGES, "occlusion", 0, window=5, stride=3)
    assert found.map.shape == (2, 8, 12) and torch.isfinite(found.map).all()


def test_a_sample_alone_is_the_sample_in_a_batch() -> None:
    together = vitrail.explain(Sum(), IMAGES, "occlusion", [0, 0], window=4, stride=2).map
    alone = vitrail.explain(Sum(), IMAGES[1], "occlusion", 0, window=4, stride=2).map
    assert torch.allclose(together[1:], alone, atol=1e-5)


def test_any_callable_will_do() -> None:
    model = Sum()
    found = vitrail.explain(
        lambda x: model(x).detach(), IMAGES, "occlusion", lambda y: y[:, 0], window=4, stride=4
    )
    assert torch.allclose(
        found.map, vitrail.explain(model, IMAGES, "occlusion", 0, window=4, stride=4).map
    )
