"""Stochastic depth."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drop a residual branch for whole images in training (stochastic depth, Huang et al. 2016)."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``(B, ...)`` -> the same shape; survivors are scaled by ``1 / (1 - rate)``."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        survives = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) < keep
        return x * (survives.to(x.dtype) / keep)

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f"rate={self.rate:g}"
