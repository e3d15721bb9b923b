"""Order, ranks and similarity of maps: pure functions over ``(B, H, W)``, ties treated fairly."""

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_STABLE = (0.01**2, 0.03**2)


def order(maps: Tensor, seed: int = 0) -> Tensor:
    """Pixel numbers from the highest value to the lowest, ``(B, H, W)`` -> ``(B, H * W)``.

    Equal values stand in an order drawn by ``seed``, not from top left to bottom right.
    """
    flat = maps.flatten(1)
    draw = torch.Generator().manual_seed(seed)
    shuffle = torch.randperm(flat.shape[1], generator=draw).to(flat.device)
    return shuffle[flat[:, shuffle].argsort(dim=1, descending=True, stable=True)]


def places_in_order(maps: Tensor, seed: int = 0) -> Tensor:
    """When each pixel's turn comes, ``(B, H, W)`` int: 0 where the map is highest."""
    turns = order(maps, seed)
    numbers = torch.arange(turns.shape[1], device=turns.device).expand_as(turns)
    return torch.empty_like(turns).scatter_(1, turns, numbers).view(maps.shape)


def ranks(values: Tensor) -> Tensor:
    """Rank of each value in its row, ``(B, N)`` -> ``(B, N)`` float64; ties share their mean."""
    rising, where = values.contiguous().sort(dim=1)
    first = torch.searchsorted(rising, rising, right=False)
    after = torch.searchsorted(rising, rising, right=True)
    shared = (first + after - 1).double() / 2
    return torch.empty_like(shared).scatter_(1, where, shared)


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """Rank correlation of each pair of maps, ``(B,)``; a constant map agrees with nothing: 0."""
    a, b = (ranks(maps.flatten(1)) for maps in (one, other))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    size = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(size > 0, (a * b).sum(1) / size.clamp_min(1e-300), 0.0).float()


def minmax(maps: Tensor) -> Tensor:
    """Each map from 0 to 1; a constant one is 0 everywhere."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


def gaussian_blur(images: Tensor, window: int, sigma: float) -> Tensor:
    """Gaussian blur of ``(B, C, H, W)``; borders are repeated outwards."""
    reach = torch.arange(window, device=images.device, dtype=images.dtype) - (window - 1) / 2
    weights = torch.exp(-reach.square() / (2 * sigma**2))
    weights = weights / weights.sum()
    channels, before = images.shape[1], (window - 1) // 2
    padded = F.pad(images, (before, window - 1 - before) * 2, mode="replicate")
    rows = weights.view(1, 1, 1, -1).expand(channels, -1, -1, -1)
    once = F.conv2d(padded, rows, groups=channels)
    return F.conv2d(once, rows.transpose(2, 3), groups=channels)


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity of each pair after min-max, ``(B,)`` (Wang et al. 2004, eq. 13)."""
    a, b = (minmax(maps.float()).unsqueeze(1) for maps in (one, other))
    window = min(SSIM_WINDOW, *one.shape[1:])

    def mean(maps: Tensor) -> Tensor:
        return gaussian_blur(maps, window, SSIM_SIGMA)

    small, large = SSIM_STABLE
    ma, mb = mean(a), mean(b)
    va, vb, vab = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    alike = (2 * ma * mb + small) * (2 * vab + large)
    return (alike / ((ma * ma + mb * mb + small) * (va + vb + large))).mean((1, 2, 3))
