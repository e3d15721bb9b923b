"""Four maps from a model of one scale, for detectors and segmenters.

ViTDet (Li et al. 2022) makes a pyramid of a ViT's last map by learned (de)convolutions. Here
nothing is learned: maps after each quarter of the depth are resampled, the heads learn the rest.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.blocks import Blocks
from vitrail.layers.grid import Grid, cells, to_map
from vitrail.models.backbone import Backbone


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


class OneScale(Backbone):
    """A backbone that works on one grid: its maps are those after each quarter of the depth.

    Attributes:
        blocks: one after the other.
        ends: the blocks that end each quarter.
    """

    blocks: Blocks

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.ends = quarters(config.depth)

    def pyramid(self, after: Sequence[Tensor], grid: Grid, image: Grid) -> tuple[Tensor, ...]:
        """The tokens ``(B, E + N, C)`` after each block -> maps at ``strides`` of the image."""
        maps = [grid_map(after[i], grid) for i in self.ends if i < len(after)]
        return resample(maps, image, self.strides[: len(maps)])

    def prune_to(self, levels: int) -> None:
        """Drop later blocks."""
        del self.blocks[self.ends[levels - 1] + 1 :]
