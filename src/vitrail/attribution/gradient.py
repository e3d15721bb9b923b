"""Gradients of the score with respect to the image.

Saliency (Simonyan et al. 2014), input times gradient, SmoothGrad (Smilkov et al. 2017),
integrated gradients (Sundararajan et al., ICML 2017). They need nothing but a differentiable
model, and see it as it is: also its noise.
"""

import torch
from torch import Tensor

from vitrail.attribution.base import Case, MethodResult, Need, method
from vitrail.attribution.preserve import ExplainError
from vitrail.attribution.targets import Goal

NEEDS = {Need.GRADIENT}
CHUNK = 16
"""Points of the way that integrated gradients sends through the model at once."""


def slopes(case: Case, images: Tensor, goal: Goal | None = None) -> tuple[Tensor, Tensor]:
    """Scores ``(B,)`` and their gradients at the images ``(B, C, H, W)``.

    Raises:
        ExplainError: a gradient that is zero everywhere.
    """
    images = images.detach().requires_grad_()
    score = (goal or case.goal)(case.model(images))
    (found,) = torch.autograd.grad(score.sum(), images, materialize_grads=True)
    if not found.flatten(1).any(1).all():
        raise ExplainError("the score's gradient at the image is zero everywhere")
    return score.detach(), found


@method("saliency", class_specific=True, needs=NEEDS)
def saliency(case: Case) -> MethodResult:
    """The largest magnitude of the gradient over channels."""
    return MethodResult(native=slopes(case, case.images)[1].abs().amax(1))


@method("input_x_gradient", class_specific=True, signed=True, needs=NEEDS)
def input_x_gradient(case: Case) -> MethodResult:
    """Pixels times their gradient, summed over channels."""
    return MethodResult(native=(case.images * slopes(case, case.images)[1]).sum(1))


@method("smoothgrad", class_specific=True, needs=NEEDS)
def smoothgrad(case: Case, *, samples: int = 25, noise: float = 0.15) -> MethodResult:
    """The mean gradient around the image, its largest magnitude over channels.

    ``noise`` is the deviation as a share of each image's range. All images get the same draws.
    """
    if samples < 1 or noise < 0:
        raise ExplainError(f"samples={samples}, noise={noise}: at least one sample, no less noise")
    generator, images = case.generator(), case.images
    span = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    total = torch.zeros_like(images)
    for _ in range(samples):
        drawn = torch.randn(
            images.shape[1:], generator=generator, device=images.device, dtype=images.dtype
        )
        total += slopes(case, images + noise * span * drawn)[1]
    return MethodResult(native=(total / samples).abs().amax(1))


@method("integrated_gradients", class_specific=True, signed=True, needs=NEEDS)
def integrated_gradients(
    case: Case,
    *,
    steps: int = 50,
    baseline: float | Tensor = 0.0,
    tolerance: float = 0.01,
    most: int = 400,
) -> MethodResult:
    """The gradient along the way from a baseline, times the way: sums to what the score gained.

    Gauss-Legendre points; doubled for an image until its sum is complete within ``tolerance`` of
    the gain, up to ``most``. A model that chooses tokens jumps along the way, and no number of
    points completes it: ``check`` tells ``sum``, ``gain`` and ``residual``. ``baseline`` is a
    value, or an image ``(C, H, W)``; 0 is the data's mean.
    """
    if steps < 1:
        raise ExplainError(f"steps={steps}: give at least one")
    start = torch.as_tensor(baseline).to(case.images).expand_as(case.images[0])
    found = [_integrate(case, i, start, steps, tolerance, most) for i in range(len(case.images))]
    maps, gains = (torch.stack(part) for part in zip(*found, strict=True))
    total = maps.sum((1, 2))
    return MethodResult(native=maps, check={"sum": total, "gain": gains, "residual": total - gains})


def _integrate(
    case: Case, i: int, start: Tensor, steps: int, tolerance: float, most: int
) -> tuple[Tensor, Tensor]:
    """One image's map ``(H, W)`` and the score's gain ``()``."""
    goal, way = case.goal.of(i), case.images[i] - start
    with torch.no_grad():
        ends = goal(case.model(torch.stack((start, case.images[i]))))
    gain = ends[1] - ends[0]
    while True:
        places, weights = (torch.tensor(t).to(way) for t in legendre(steps))
        mean = torch.zeros_like(start)
        for some, share in zip(places.split(CHUNK), weights.split(CHUNK), strict=True):
            points = start + some[:, None, None, None] * way
            mean += (share[:, None, None, None] * _slopes(case, goal, points)).sum(0)
        found = (way * mean).sum(0)
        if abs(found.sum() - gain) <= tolerance * abs(gain) or 2 * steps > most:
            return found, gain
        steps *= 2


def _slopes(case: Case, goal: Goal, images: Tensor) -> Tensor:
    """Gradients at points of the way; zero is no fault there."""
    images = images.detach().requires_grad_()
    score = goal(case.model(images))
    return torch.autograd.grad(score.sum(), images, materialize_grads=True)[0]


def legendre(points: int) -> tuple[list[float], list[float]]:
    """Places and weights of Gauss-Legendre quadrature on [0, 1] (Golub and Welsch 1969)."""
    k = torch.arange(1, points, dtype=torch.float64)
    beside = k / (4 * k**2 - 1).sqrt()
    places, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return ((places + 1) / 2).tolist(), (vectors[0] ** 2).tolist()
