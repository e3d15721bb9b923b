"""Four maps from a model of one scale, for detectors and segmenters.

ViTDet (Li et al. 2022) makes a pyramid of a ViT's last map by learned (de)convolutions. Here
nothing is learned: maps after each quarter of the depth are resampled, the heads learn the rest.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.grid import Grid, cells, to_map


def quarters(depth: int) -> list[int]:
    """The blocks that end each quarter of the depth; the first, twice, where there are few."""
    return [max((i + 1) * depth // 4, 1) - 1 for i in range(4)]


def grid_map(x: Tensor, grid: Grid) -> Tensor:
    """``(B, E + H*W, C)`` -> the grid's tokens as a map ``(B, C, H, W)``."""
    return to_map(x[:, x.shape[1] - grid[0] * grid[1] :], grid)


def resample(maps: Sequence[Tensor], image: Grid, strides: Sequence[int]) -> tuple[Tensor, ...]:
    """Each map at its stride of an image of that many pixels (bilinear, anti-aliased)."""
    return tuple(
        F.interpolate(m, cells(image, stride), mode="bilinear", antialias=True)
        for m, stride in zip(maps, strides, strict=True)
    )


def pyramid(
    after: Sequence[Tensor], grid: Grid, image: Grid, strides: Sequence[int]
) -> tuple[Tensor, ...]:
    """The tokens ``(B, E + N, C)`` after each quarter of the depth, as maps at ``strides``."""
    maps = [grid_map(after[i], grid) for i in quarters(len(after))]
    return resample(maps, image, strides)
