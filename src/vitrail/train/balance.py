"""Unbalanced sets: what a class weighs in the loss, and how often its images come.

Two remedies, and both read the training images' labels only. *Weights* make the rare class count
more in the loss; *sampling* shows its images more often. Weights are taken from how often a class
comes under the sampling that was chosen, so that both together do not correct twice.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vitrail.data import stable_seed
from vitrail.errors import UserError

POWERS = {"shuffle": 1.0, "sqrt": 0.5, "balanced": 0.0}
"""A class of n images comes as often as n to this power says."""
BETA = 0.9999
"""Of the effective number of images (Cui et al. 2019, arXiv 1901.05555): theirs on ImageNet."""


def frequencies(counts: Sequence[int], sampling: str) -> list[float]:
    """How many images of each class an epoch shows on average; together as many as there are."""
    powers = [n ** POWERS[sampling] if n else 0.0 for n in counts]
    total, whole = sum(counts), sum(powers)
    return [total * power / whole for power in powers]


def class_weights(
    choice: str | Sequence[float], labels: Sequence[int], classes: int, sampling: str = "shuffle"
) -> Tensor | None:
    """What each class weighs in the loss, ``(K,)``; None where all weigh the same.

    Args:
        choice: ``"balanced"`` (1 / n), ``"sqrt"`` (1 / sqrt n), ``"effective"`` (Cui et al. 2019),
            all with mean 1 over the images of an epoch, so that the learning rate keeps its
            meaning; or one number a class, used as written; or ``"none"``.
        labels: of the training images.
        classes: how many there are; one without an image weighs 1.
        sampling: how often each class comes.

    Raises:
        UserError: another count of numbers than of classes.
    """
    check_weight_count(choice, classes)
    if not isinstance(choice, str):
        return torch.tensor(list(choice))
    if choice == "none":
        return None
    often = frequencies(class_counts(labels, classes), sampling)
    weights = [_weight(choice, n) if n else 0.0 for n in often]
    mean = sum(w * n for w, n in zip(weights, often, strict=True)) / sum(often)
    return torch.tensor([w / mean if w else 1.0 for w in weights])


def check_weight_count(choice: str | Sequence[float], classes: int) -> None:
    """Weights for each class are as many as there are classes.

    Raises:
        UserError: they are not.
    """
    if not isinstance(choice, str) and len(choice) != classes:
        raise UserError(
            f"class_weights has {len(choice)} numbers, the pictures have {classes} classes; "
            "give one for each class, in the order that 'vitrail check' shows"
        )


def _weight(choice: str, n: float) -> float:
    if choice == "effective":
        return (1 - BETA) / -math.expm1(n * math.log(BETA))
    return n ** (-1.0 if choice == "balanced" else -0.5)


def class_counts(labels: Sequence[int], classes: int) -> list[int]:
    """Images of each class."""
    return torch.tensor(labels, dtype=torch.long).bincount(minlength=classes).tolist()


def weighted_targets(targets: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Targets whose cross-entropy is the weighted, smoothed loss.

    ``loss = sum_c t_c w_c ((1 - s) CE(c) + s mean_k CE(k))``, divided by the count of images.
    (torch's own ``weight=`` weighs the smoothing by class too, which with 100 images to 1 makes
    the rare class the best answer for every image; and it divides labels by the weights of the
    batch, so that parts of a batch would not add up to the whole.)

    Args:
        targets: labels ``(B,)``, or shares of classes ``(B, K)`` from mixed images.
        weights: ``(K,)``.
        smoothing: label smoothing ``s``.
    """
    if targets.dim() == 1:
        shares = torch.nn.functional.one_hot(targets, len(weights)).to(weights)
    else:
        shares = targets.to(weights)
    shares = shares * weights
    even = shares.sum(1, keepdim=True) / len(weights)
    return (1 - smoothing) * shares + smoothing * even


def balanced_order(labels: Sequence[int], sampling: str, seed: int, epoch: int) -> list[int]:
    """The places of an epoch's images, as many as there are; a function of its arguments.

    A class's images all come before one comes again. Place ``i + r * len(labels)`` is image
    ``i`` for the ``r + 1``-th time, which :class:`vitrail.data.ImageTensors` augments anew.
    """
    generator = torch.Generator().manual_seed(stable_seed("balanced", seed, epoch))
    held = torch.tensor(labels, dtype=torch.long)
    counts = held.bincount().tolist()
    members = held.argsort(stable=True).split(counts)
    parts = []
    for mine, quota in zip(members, _quotas(counts, sampling, generator), strict=True):
        turns = -(-quota // max(len(mine), 1))
        draws = torch.rand(turns, len(mine), generator=generator, dtype=torch.float64)
        again = len(labels) * torch.arange(turns)[:, None]
        parts.append((mine[draws.argsort(dim=1, stable=True)] + again).flatten()[:quota])
    places = torch.cat(parts)
    return places[torch.randperm(len(places), generator=generator)].tolist()


def _quotas(counts: Sequence[int], sampling: str, generator: torch.Generator) -> list[int]:
    """Whole numbers nearest to :func:`frequencies`; chance says who gets what is left over."""
    wanted = frequencies(counts, sampling)
    quotas = [int(number) for number in wanted]
    left = sum(counts) - sum(quotas)
    order = torch.randperm(len(counts), generator=generator).tolist()
    order.sort(key=lambda c: quotas[c] - wanted[c])
    for label in order[:left]:
        quotas[label] += 1
    return quotas
