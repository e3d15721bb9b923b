"""Baselines: maps that do not depend on the model, compared with every method.

A method that does not beat the centre Gaussian has shown nothing. The fourth baseline, the input
gradient, is the method ``saliency``.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

CENTRE_SIGMA = 0.25
"""Of the centre Gaussian, as a share of each side."""


def random_map(images: Tensor, seed: int = 0) -> Tensor:
    """Even noise ``(B, H, W)``; the maps of one batch are independent."""
    draw = torch.Generator().manual_seed(seed)
    shape = (images.shape[0], *images.shape[2:])
    return torch.rand(shape, generator=draw).to(images.device)


def centre(images: Tensor) -> Tensor:
    """A Gaussian around the middle of the picture, ``(B, H, W)``."""
    height, width = images.shape[2:]
    down = _bell(height).to(images.device)
    right = _bell(width).to(images.device)
    return torch.outer(down, right).expand(images.shape[0], -1, -1).clone()


def edges(images: Tensor) -> Tensor:
    """Length of the Sobel gradient of the mean over channels, ``(B, H, W)``."""
    grey = F.pad(images.float().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    right = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack((right, right.T)).unsqueeze(1).to(grey.device)
    return F.conv2d(grey, kernels).square().sum(1).sqrt()


def _bell(side: int) -> Tensor:
    place = (torch.arange(side) + 0.5) / side - 0.5
    return torch.exp(-place.square() / (2 * CENTRE_SIGMA**2))


BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "random": random_map,
    "centre": centre,
    "edges": edges,
}
