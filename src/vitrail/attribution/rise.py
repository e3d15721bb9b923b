"""RISE: which random masks let the answer through? (Petsiuk et al. 2018, arXiv 1806.07421)

    S = sum over masks of y(image * mask) * mask, over the sum of the masks

y is the probability of the class, as in the authors' code (eclique/RISE), or what a callable target
reads. A mask is a random grid of ``cells`` x ``cells``, each on with chance ``keep``, enlarged
bilinearly by one cell more than the picture needs and cut out at a random shift. Needs outputs
only. Deviations: grids and shifts come from the seed and are the same for every picture; the sum is
divided by what the masks let through at each pixel, not by N p, which it only nears with very many
masks. So S is the mean answer where the pixel is seen, the paper's equation 3, for any N.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.attribution.base import Case, MethodResult, method
from vitrail.attribution.targets import Goal


@method("rise", class_specific=True, signed=False)
def rise(
    case: Case, *, masks: int = 4000, cells: int = 8, keep: float = 0.5, batch: int = 64
) -> MethodResult:
    """How likely the class stays when the place is seen through a random mask.

    ``masks`` is their number (the paper takes 4,000 to 8,000), ``batch`` how many masked pictures
    run at once.
    """
    grids, shifts = draw_masks(case, masks, cells, keep)
    total = case.images.new_zeros(len(case.images), *case.size)
    through = case.images.new_zeros(case.size)
    with torch.no_grad():
        for start in range(0, masks, batch):
            part = slice(start, start + batch)
            seen = enlarge_masks(grids[part], shifts[part], case.size)
            through += seen.sum(0)
            for i, image in enumerate(case.images):
                chances = target_probability(case.goal.of(i), case.model(image * seen.unsqueeze(1)))
                total[i] += torch.einsum("m,mhw->hw", chances.to(seen.dtype), seen)
    return MethodResult(native=total / through.clamp_min(1e-6))


def draw_masks(case: Case, masks: int, cells: int, keep: float) -> tuple[Tensor, Tensor]:
    """Grids ``(M, cells, cells)`` of ones and zeros, and shifts ``(M, 2)`` in shares of a cell."""
    random = case.generator()
    device = case.images.device
    on = torch.rand(masks, cells, cells, generator=random, device=device) < keep
    shifts = torch.rand(masks, 2, generator=random, device=device)
    return on.to(case.images.dtype), shifts


def enlarge_masks(grids: Tensor, shifts: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks ``(M, H, W)``: grids enlarged to a cell more than the picture, cut at their shift."""
    steps = [-(-side // grids.shape[1]) for side in size]
    larger = [(grids.shape[1] + 1) * step for step in steps]
    wide = F.interpolate(grids.unsqueeze(1), larger, mode="bilinear", align_corners=False)[:, 0]
    starts = (shifts * torch.tensor(steps, device=shifts.device)).long()
    rows, columns = (
        starts[:, axis, None] + torch.arange(side, device=starts.device)
        for axis, side in enumerate(size)
    )
    each = torch.arange(len(wide), device=wide.device).view(-1, 1, 1)
    return wide[each, rows.unsqueeze(2), columns.unsqueeze(1)]


def target_probability(goal: Goal, output: Tensor) -> Tensor:
    """The probability of the goal's class, or what its callable reads, one a masked picture."""
    return goal(output.softmax(1)) if goal.callable is None else goal(output)
