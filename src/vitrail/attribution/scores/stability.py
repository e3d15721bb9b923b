"""Stability: maps must change little with the picture, and much with the class and the weights.

An :data:`Explainer` is anything that maps ``(model, images (B, C, H, W), target (B,))`` to maps
``(B, H, W)``; the same arguments must give the same maps.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.attribution.scores.rank import spearman, ssim
from vitrail.errors import UserError

Explainer = Callable[[nn.Module, Tensor, Tensor], Tensor]


def max_sensitivity(
    explain: Explainer,
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    radius: float = 0.2,
    draws: int = 10,
    seed: int = 0,
) -> Tensor:
    """The largest relative change of the map over small changes of the picture, ``(B,)``.

    max over draws of ``|S(x + d) - S(x)| / |S(x)|``, every value of d even in ``+-radius``, in
    normalised space (Yeh et al. 2019, arXiv 1901.09392, definition 2). NaN for a map of zeros,
    which has no relative change.
    """
    draw = torch.Generator().manual_seed(seed)
    maps = explain(model, images, target).flatten(1)
    size = maps.norm(dim=1)
    size = size.where(size > 0, torch.nan)
    worst = torch.zeros_like(size)
    for _ in range(draws):
        noise = radius * (2 * torch.rand(images.shape, generator=draw) - 1)
        moved = explain(model, images + noise.to(images), target).flatten(1)
        worst = torch.maximum(worst, (moved - maps).norm(dim=1) / size)
    return worst


def class_contrast(explain: Explainer, model: nn.Module, images: Tensor) -> Tensor:
    """``1 - Spearman`` of the maps of the two likeliest classes, ``(B,)``; 0: one map for all."""
    with torch.no_grad():
        first, second = model(images).topk(2, dim=1).indices.unbind(1)
    return 1 - spearman(explain(model, images, first), explain(model, images, second))


@dataclass(frozen=True)
class RandomisationStep:
    """One step of the cascade: down to which module weights are random, and how alike maps are.

    ``share`` of all parameters is random; ``signed``, ``absolute`` (Spearman, of the maps and of
    their absolute values) and ``ssim`` are ``(B,)``; ``problem`` says why there was no map.
    """

    module: str
    share: float
    signed: Tensor
    absolute: Tensor
    ssim: Tensor
    problem: str = ""


def randomisation(
    explain: Explainer,
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    steps: int = 6,
    seed: int = 0,
) -> list[RandomisationStep]:
    """Cascading parameter randomisation: how alike is the map as layers turn random, top down?

    Adebayo et al. 2018 (arXiv 1810.03292), section 4. The first step is the head alone, the last
    one everything; those between split the modules evenly. The target stays what it was. Weights
    are drawn from a normal with their own tensor's mean and deviation, so that activations keep
    their size; running statistics stay. The model itself is not touched: a copy is.
    """
    before = explain(model, images, target)
    found = []
    for name, share, other in cascade(model, steps=steps, seed=seed):
        try:
            after = explain(other, images, target)
        except UserError as error:  # a dead layer may be refused, and that is an answer too
            none = torch.full((len(images),), float("nan"))
            found.append(RandomisationStep(name, share, none, none, none, str(error)))
            continue
        pair = spearman(before, after), spearman(before.abs(), after.abs())
        found.append(RandomisationStep(name, share, *pair, ssim(before, after)))
    return found


def cascade(model: nn.Module, *, steps: int, seed: int) -> Iterator[tuple[str, float, nn.Module]]:
    """The same copy of a model again and again, each time with more of it random.

    Yields the lowest random module's name and the share of all parameters that is random.
    """
    other = copy.deepcopy(model)
    owners = [(name, m) for name, m in other.named_modules() if own_parameters(m)][::-1]
    draw = torch.Generator().manual_seed(seed)
    whole, done, start = sum(p.numel() for p in other.parameters()), 0, 0
    for end in ends(len(owners), steps):
        for _, module in owners[start:end]:
            done += redraw(module, draw)
        start = end
        yield owners[end - 1][0] or "(root)", done / whole, other


def ends(count: int, steps: int) -> list[int]:
    """Where each step of the cascade ends: after one module, then evenly, at last after all."""
    steps = min(steps, count)
    if steps < 2:
        return [count] if count else []
    return [1 + round(i * (count - 1) / (steps - 1)) for i in range(steps)]


def own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that a module holds itself, not those of its children."""
    return list(module.parameters(recurse=False))


def redraw(module: nn.Module, draw: torch.Generator) -> int:
    """Replace a module's own parameters by noise of their own size; how many numbers that was."""
    for parameter in own_parameters(module):
        noise = torch.randn(parameter.shape, generator=draw).to(parameter)
        spread = parameter.detach().std(unbiased=False)
        parameter.data = parameter.detach().mean() + spread * noise
    return sum(parameter.numel() for parameter in own_parameters(module))
