"""How a picture becomes patches.

Shifted patch tokenisation: Lee, Lee, Song, "Vision Transformer for Small-Size Datasets"
(arXiv 2112.13492), order of features as in the released code (aanna0701/SPT_LSA_ViT).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.grid import pad_to

DIAGONALS = ((0, 0), (0, 2), (2, 0), (2, 2))
"""Where each shifted copy starts in the padded picture, in half patches: down, right."""


class ShiftedPatches(nn.Module):
    """The picture and four copies shifted by half a patch diagonally, cut, normalised, projected.

    A token sees an area twice its patch wide: ``(B, C, H, W)`` -> ``(B, dim, H / P, W / P)``.
    """

    def __init__(self, in_chans: int, dim: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        features = 5 * in_chans * patch**2
        self.norm = nn.LayerNorm(features)
        self.proj = nn.Linear(features, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Features of a patch come in the order row, column, copy and channel."""
        x, side = pad_to(x, self.patch), self.patch
        height, width = x.shape[2:]
        shifted = shift_diagonally(x, side // 2).permute(0, 2, 3, 1)
        cut = shifted.unflatten(1, (height // side, side)).unflatten(3, (width // side, side))
        return self.proj(self.norm(cut.transpose(2, 3).flatten(3))).permute(0, 3, 1, 2)


def shift_diagonally(x: Tensor, by: int) -> Tensor:
    """The picture and its copies right-down, left-down, right-up, left-up: ``(B, 5 * C, H, W)``."""
    height, width = x.shape[2:]
    padded = F.pad(x, (by,) * 4)
    copies = [padded[:, :, i * by : i * by + height, j * by : j * by + width] for i, j in DIAGONALS]
    return torch.cat([x, *copies], 1)
