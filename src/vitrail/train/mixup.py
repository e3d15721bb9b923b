"""Mixup and cutmix on a micro-batch, drawn from torch's generator as it stands."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vitrail.train.recipe import Recipe


def mix_transforms(recipe: Recipe, classes: int) -> list[Callable[..., Any]]:
    """torchvision's transforms that the recipe asks for; none if it asks for none."""
    from torchvision.transforms import v2

    kinds = ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
    return [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha > 0]


def apply_mix(
    images: Tensor, labels: Tensor, choices: list[Callable[..., Any]], share: float
) -> tuple[Tensor, Tensor]:
    """With probability ``share`` one of ``choices``: images ``(B, C, H, W)``, targets ``(B, K)``.

    Otherwise both as they came, labels ``(B,)``. The draws are made on the CPU.
    """
    if not choices or float(torch.rand(())) >= share:
        return images, labels
    chosen = choices[int(torch.randint(len(choices), ()))]
    return chosen(images, labels)
