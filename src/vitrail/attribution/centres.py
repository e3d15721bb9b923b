"""The exact centres of a grid's cells on the picture, and maps resized by them.

Resizing a grid to the picture takes cell i of stride s to be centred at ``s i + (s - 1) / 2``.
That is so for patches. A convolution of stride s and odd kernel centres cell i at ``s i`` when
padded by half a kernel, and further in when padded less: such a model says it by a method
``cell_centres``.
"""

import torch
from torch import Tensor, nn

from vitrail.layers.grid import Grid

Centres = tuple[Tensor, Tensor]
"""Of rows and of columns, in pixels, where a pixel's own centre is its number."""


def centres(model: nn.Module, grid: Grid, size: Grid) -> Centres:
    """Pixels at which the cells of one of a model's grids are centred, for pictures of a size."""
    rows, columns = (_axis(model, n, pixels) for n, pixels in zip(grid, size, strict=True))
    return rows, columns


def _axis(model: nn.Module, count: int, pixels: int) -> Tensor:
    own = getattr(model, "cell_centres", None)
    if callable(own):
        return own(count, pixels)
    return (torch.arange(count) + 0.5) * (pixels / count) - 0.5


def map_to_image(maps: Tensor, where: Centres, size: Grid, smooth: bool) -> Tensor:
    """Maps ``(B, h, w)`` on the picture ``(B, H, W)``: between centres linear, or the nearest."""
    rows, columns = (
        _weights(places.to(maps), pixels, smooth)
        for places, pixels in zip(where, size, strict=True)
    )
    return rows @ maps @ columns.mT


def _weights(places: Tensor, pixels: int, smooth: bool) -> Tensor:
    """``(pixels, cells)``: what each pixel takes of each cell; beyond the last centre, the last."""
    at = torch.arange(pixels, device=places.device, dtype=places.dtype)
    if len(places) == 1:
        return at.new_ones(pixels, 1)
    at = at.clamp(places[0], places[-1])
    right = torch.searchsorted(places.contiguous(), at).clamp(1, len(places) - 1)
    share = (at - places[right - 1]) / (places[right] - places[right - 1])
    share = share if smooth else (share >= 0.5).to(share)
    weights = at.new_zeros(pixels, len(places))
    weights.scatter_(1, right[:, None], share[:, None])
    return weights.scatter_(1, right[:, None] - 1, 1 - share[:, None])
