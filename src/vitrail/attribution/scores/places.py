"""Does a map lie on the object? Scores of maps ``(B, H, W)`` against masks ``(B, H, W)`` bool.

All give ``(B,)``. Chance is the object's share of the area for pointing, energy and rank accuracy,
one half for the ROC area, the area's share for average precision.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.attribution.scores.rank import minmax, places_in_order, ranks


def area_share(masks: Tensor) -> Tensor:
    """How much of the picture the object covers."""
    return masks.flatten(1).float().mean(1)


def pointing(maps: Tensor, masks: Tensor, tolerance: int = 0) -> Tensor:
    """Whether the highest pixel lies on the object, or within ``tolerance`` pixels of it.

    Zhang et al. 2016 (arXiv 1608.00507). Where several pixels are highest, the share of them that
    hits: what a fair draw would give.
    """
    near = masks.float()
    if tolerance:
        near = F.max_pool2d(near.unsqueeze(1), 2 * tolerance + 1, 1, tolerance).squeeze(1)
    highest = maps == maps.amax((1, 2), keepdim=True)
    return (highest * near).sum((1, 2)) / highest.sum((1, 2))


def energy(maps: Tensor, masks: Tensor) -> Tensor:
    """The object's share of all positive values (Wang et al. 2020, Score-CAM, section 4.3).

    A map without a positive value says nothing and gets what an even map would: the area's share.
    """
    positive = maps.clamp_min(0).double()
    whole = positive.sum((1, 2))
    inside = (positive * masks).sum((1, 2))
    tiny = torch.finfo(torch.float64).tiny
    return torch.where(
        whole > 0, inside / whole.clamp_min(tiny), area_share(masks).double()
    ).float()


def rank_accuracy(maps: Tensor, masks: Tensor, seed: int = 0) -> Tensor:
    """With m pixels of object: the share of the m highest pixels on it (Arras et al. 2020)."""
    size = masks.sum((1, 2)).view(-1, 1, 1)
    among = places_in_order(maps, seed) < size
    return (among & masks).sum((1, 2)) / size.view(-1).clamp_min(1)


def segmentation(maps: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """The map above its own mean, taken as a segmentation (the ImageNet-Segmentation protocol).

    ``accuracy`` of pixels, ``iou`` the mean of the object's and the ground's, ``f1`` of the object;
    of the map itself ``ap`` (average precision) and ``auc`` (area under the ROC curve).
    """
    scaled = minmax(maps.double())
    found = scaled > scaled.mean((1, 2), keepdim=True)
    both, either = _count(found & masks), _count(found | masks)
    neither, ground = _count(~(found | masks)), _count(~(found & masks))
    return {
        "accuracy": (both + neither) / masks[0].numel(),
        "iou": (both / either.clamp_min(1) + neither / ground.clamp_min(1)) / 2,
        "f1": 2 * both / (_count(found) + _count(masks)).clamp_min(1),
        "ap": average_precision(maps, masks),
        "auc": roc_area(maps, masks),
    }


def average_precision(maps: Tensor, masks: Tensor) -> Tensor:
    """Mean over the object's pixels of the precision at their value; ties fall together."""
    falling, where = (-maps.flatten(1)).contiguous().sort(dim=1)
    object_ = masks.flatten(1).gather(1, where).double()
    end = torch.searchsorted(falling, falling, right=True)
    hits = object_.cumsum(1).gather(1, end - 1)
    return ((object_ * hits / end).sum(1) / object_.sum(1).clamp_min(1)).float()


def roc_area(maps: Tensor, masks: Tensor) -> Tensor:
    """Chance that a pixel of the object is higher than one of the ground; ties count half."""
    inside = masks.flatten(1).double()
    many, others = inside.sum(1), (1 - inside).sum(1)
    beaten = (ranks(maps.flatten(1)) * inside).sum(1) - many * (many - 1) / 2
    return (beaten / (many * others).clamp_min(1)).float()


def _count(pixels: Tensor) -> Tensor:
    return pixels.sum((1, 2)).float()
