"""Insertion and deletion: does the answer follow the pixels that a map ranks first?

pixels by falling value -> changed step by step -> probability of the target -> area

Petsiuk et al. 2018 (RISE, arXiv 1806.07421), section 4: deletion replaces pixels by the mean
colour (0 in normalised space) and should be low; insertion puts them into a blurred picture and
should be high.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.attribution.scores.rank import gaussian_blur, places_in_order

BLUR_WINDOW, BLUR_SIGMA = 11, 5.0


@dataclass(frozen=True)
class Curve:
    """Probability of the target ``(B, steps + 1)``: before any change, then after each step."""

    values: Tensor

    @property
    def area(self) -> Tensor:
        """``(B,)``: the trapezoid area, 0..1: (sum - first / 2 - last / 2) / steps."""
        ends = (self.values[:, 0] + self.values[:, -1]) / 2
        return (self.values.sum(1) - ends) / (self.values.shape[1] - 1)


def deletion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    steps: int = 224,
    seed: int = 0,
) -> Curve:
    """Pixels go from the highest value of the map on; lower areas are better.

    ``images`` ``(B, C, H, W)`` normalised, ``maps`` ``(B, H, W)``, ``target`` ``(B,)`` classes.
    ``seed`` orders equal values.
    """
    return change(model, images, torch.zeros_like(images), maps, target, steps=steps, seed=seed)


def insertion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    steps: int = 224,
    seed: int = 0,
    window: int = BLUR_WINDOW,
    sigma: float = BLUR_SIGMA,
) -> Curve:
    """Pixels come back into a blurred picture, highest first; higher areas are better."""
    start = gaussian_blur(images, window, sigma)
    return change(model, start, images, maps, target, steps=steps, seed=seed)


def change(
    model: nn.Module,
    start: Tensor,
    end: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    steps: int,
    seed: int,
) -> Curve:
    """The probability of ``target`` while ``start`` turns into ``end`` in the order of ``maps``."""
    places = places_in_order(maps, seed).unsqueeze(1)
    pixels = maps[0].numel()
    steps = min(steps, pixels)
    values = []
    with torch.no_grad():
        for step in range(steps + 1):
            shown = torch.where(places < round(step * pixels / steps), end, start)
            chances = model(shown).float().softmax(1)
            values.append(chances.gather(1, target.view(-1, 1)))
    return Curve(torch.cat(values, 1))
