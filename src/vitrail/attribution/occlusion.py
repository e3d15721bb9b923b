"""Occlusion: how much the score falls when a window of the picture is covered.

Zeiler and Fergus 2014 (arXiv 1311.2901), section 4.2. Needs outputs only, so compiled and exported
models serve as well.
"""

import torch
from torch import Tensor

from vitrail.attribution.base import Case, MethodResult, method

Window = tuple[slice, slice]


@method("occlusion", class_specific=True, signed=True)
def occlusion(
    case: Case, *, window: int = 0, stride: int = 0, fill: float = 0.0, batch: int = 64
) -> MethodResult:
    """What the score loses when a square around the place is covered.

    Each pixel gets the mean loss over the windows that cover it. ``window`` and ``stride`` are in
    pixels; 0 stands for three sixteenths of the shorter side, and for half the window: some hundred
    forward passes for a square picture of any size. ``fill`` is the value in normalised space (0:
    the mean colour), ``batch`` how many covered pictures run at once.
    """
    window = window or max(1, round(3 * min(case.size) / 16))
    places = windows(case.size, window, stride or max(1, window // 2))
    lost = torch.stack([_losses(case, i, places, fill, batch) for i in range(len(case.images))])
    return MethodResult(native=average_windows(lost, places, case.size))


def windows(size: tuple[int, int], window: int, stride: int) -> list[Window]:
    """All windows, row by row; the last of a row or column is moved inwards to end at the edge."""
    height, width = size
    return [
        (slice(top, top + window), slice(left, left + window))
        for top in window_starts(height, window, stride)
        for left in window_starts(width, window, stride)
    ]


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side, so that every pixel is covered (``stride <= window``)."""
    last = max(0, side - window)
    return [*range(0, last, max(1, min(stride, window))), last]


def average_windows(lost: Tensor, places: list[Window], size: tuple[int, int]) -> Tensor:
    """Losses ``(B, P)`` of windows -> their mean over each pixel, ``(B, H, W)``."""
    total, covered = lost.new_zeros(lost.shape[0], *size), lost.new_zeros(size)
    for loss, (rows, columns) in zip(lost.unbind(1), places, strict=True):
        total[:, rows, columns] += loss.view(-1, 1, 1)
        covered[rows, columns] += 1
    return total / covered


def _losses(case: Case, sample: int, places: list[Window], fill: float, batch: int) -> Tensor:
    """What each window costs one picture, ``(P,)``."""
    image, goal, scores = case.images[sample], case.goal.of(sample), []
    with torch.no_grad():
        whole = goal(case.model(image.unsqueeze(0)))
        for start in range(0, len(places), batch):
            some = places[start : start + batch]
            covered = image.repeat(len(some), 1, 1, 1)
            for one, (rows, columns) in zip(covered, some, strict=True):
                one[:, rows, columns] = fill
            scores.append(goal(case.model(covered)))
    return whole - torch.cat(scores)
