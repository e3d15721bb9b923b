"""Maps resized to the picture, and normalised for display.

native map (B, h, w) --resize--> (B, H, W), raw --normalise--> for display
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.attribution.preserve import ExplainError
from vitrail.layers.grid import Grid

Scale = Literal["minmax", "p99", "abs", "positive"]

ROUNDING = 1e-5
"""A map whose values differ by a smaller share of the largest has no shape: Grad-CAM on a layer of
one place, enlarged."""


def normalise(maps: Tensor, kind: Scale = "minmax") -> Tensor:
    """Raw maps ``(B, H, W)`` for display, each image by itself.

    ``minmax`` into [0, 1], a map that differs by rounding alone near 0; ``p99`` divided by the 99th
    percentile of magnitudes, clipped to [-1, 1]; ``abs`` magnitudes and ``positive`` positive
    parts, divided by their maximum.

    Raises:
        ExplainError: another kind.
    """
    if kind == "minmax":
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        flat = ROUNDING * torch.maximum(low.abs(), high.abs()).clamp(min=_tiny(maps) / ROUNDING)
        spread = torch.where(high - low > flat, high - low, flat / ROUNDING)
        return (maps - low) / spread
    if kind == "p99":
        top = maps.abs().flatten(1).float().quantile(0.99, 1)[:, None, None]
        return (maps / top.clamp(min=_tiny(maps))).clamp(-1, 1)
    if kind not in ("abs", "positive"):
        raise ExplainError(f"normalise({kind!r}): kinds are minmax, p99, abs, positive")
    maps = maps.abs() if kind == "abs" else maps.clamp(min=0)
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=_tiny(maps))


def _tiny(maps: Tensor) -> float:
    return torch.finfo(maps.dtype).tiny


def resize(maps: Tensor, size: Grid) -> Tensor:
    """``(B, h, w)`` -> ``(B, H, W)``, bilinear with half-pixel centres."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
