"""Which token belongs to which cluster: pure functions over ``(B, N, D)`` features.

Every function returns ``assignment`` ``(B, N)``: the cluster of each token. All but
:func:`assign_by_code` make a number of clusters that follows from the grid alone.

Sources: destination matching inside windows is this project's (reference page "CoaT, clustered
attention", C7); the hash is E2LSH (Datar et al. 2004) as used by ACT (Zheng et al., BMVC 2021),
with the defects of its released code mended; Lloyd's iteration is textbook k-means.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.grid import Grid, cells


def sum_by_cluster(x: Tensor, assignment: Tensor, clusters: int) -> Tensor:
    """Add up the members of each cluster, ``(B, N, E)`` -> ``(B, clusters, E)``."""
    # scatter_add, not index_add: inductor turns the latter into atomic additions on a CPU, eight
    # times slower than torch's own kernel; eagerly they are the same.
    images, _, channels = x.shape
    rows = flat_assignment(assignment, clusters).unsqueeze(1).expand(-1, channels)
    sums = x.new_zeros(images * clusters, channels).scatter_add(0, rows, x.flatten(0, 1))
    return sums.view(images, clusters, channels)


def scatter_to_tokens(z: Tensor, assignment: Tensor) -> Tensor:
    """Give each token its cluster's row, ``(B, clusters, E)`` -> ``(B, N, E)``."""
    images, clusters, channels = z.shape
    rows = z.flatten(0, 1).index_select(0, flat_assignment(assignment, clusters))
    return rows.view(images, assignment.shape[1], channels)


def flat_assignment(assignment: Tensor, clusters: int) -> Tensor:
    """Assignment numbered over the whole batch, ``(B, N)`` -> ``(B * N,)``."""
    first = torch.arange(assignment.shape[0], device=assignment.device).unsqueeze(1) * clusters
    return (assignment + first).flatten()


def count_members(assignment: Tensor, clusters: int) -> Tensor:
    """``(B, N)`` -> ``(B, clusters)`` float: how many tokens each cluster has."""
    ones = torch.ones(assignment.shape, device=assignment.device, dtype=torch.float32)
    return sum_by_cluster(ones.unsqueeze(2), assignment, clusters).squeeze(2)


def assign_to_cells(grid: Grid, cell: Grid, device: torch.device) -> Tensor:
    """The plainest clustering: ``(1, H*W)``, every cell is one cluster."""
    rows = torch.arange(grid[0], device=device) // cell[0]
    columns = torch.arange(grid[1], device=device) // cell[1]
    return (rows[:, None] * cells(grid, cell)[1] + columns).view(1, -1)


def assign_to_destinations(x: Tensor, grid: Grid, cell: Grid, window: Grid) -> Tensor:
    """Join the most similar destination of one's window, ``(B, N, D)`` -> ``(B, N)``.

    The top-left token of each cell is a destination, so there are as many clusters as cells and
    none is empty (a destination belongs to its own). Windows hold whole cells. Similarity is the
    cosine, so destinations are normalised; a token's length does not change which is nearest.
    """
    images, _, features = x.shape
    across, per = cells(grid, window), cells(window, cell)
    down, right = across[0] * window[0] - grid[0], across[1] * window[1] - grid[1]
    x = x.view(images, *grid, features)
    x = F.pad(x, (0, 0, 0, right, 0, down)) if down or right else x
    tiles = x.view(images, across[0], window[0], across[1], window[1], features).transpose(2, 3)
    anchors = tiles.unflatten(3, (per[0], cell[0])).unflatten(5, (per[1], cell[1]))
    anchors = anchors[:, :, :, :, 0, :, 0]
    likeness = tiles.flatten(3, 4) @ F.normalize(anchors.flatten(3, 4), dim=-1).mT
    number, outside = anchor_numbers(grid, cell, window, x.device)
    if down or right:
        likeness = likeness.masked_fill(outside, -torch.inf)
    local = likeness.argmax(-1)
    assignment = number.expand(images, -1, -1, -1).gather(3, local)
    assignment = assignment.unflatten(3, window).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return assign_anchors(assignment[:, : grid[0], : grid[1]].flatten(1), grid, cell)


def anchor_numbers(
    grid: Grid, cell: Grid, window: Grid, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Clusters by window: numbers ``(1, a, b, S)`` and whether each lies in the padding
    ``(1, a, b, 1, S)``, for ``a x b`` windows of ``S`` destinations, one a cell.
    """
    across, per, real = cells(grid, window), cells(window, cell), cells(grid, cell)
    rows = torch.arange(across[0] * per[0], device=device)[:, None]
    columns = torch.arange(across[1] * per[1], device=device)

    def by_window(table: Tensor) -> Tensor:
        return table.view(across[0], per[0], across[1], per[1]).transpose(1, 2).flatten(2)[None]

    outside = (rows >= real[0]) | (columns >= real[1])
    return by_window(rows * real[1] + columns), by_window(outside).unsqueeze(3)


def assign_anchors(assignment: Tensor, grid: Grid, cell: Grid) -> Tensor:
    """Assign the top-left token of every cell to that cell, so that no cluster is empty."""
    real = cells(grid, cell)
    number = torch.arange(real[0] * real[1], device=assignment.device)
    anchor = number // real[1] * cell[0] * grid[1] + number % real[1] * cell[1]
    anchor, number = anchor.expand(assignment.shape[0], -1), number.expand(assignment.shape[0], -1)
    return assignment.scatter(1, anchor, number)


def assign_by_sorting(key: Tensor, clusters: int) -> Tensor:
    """Sort tokens by ``key`` ``(B, N)`` and cut the line into ``clusters`` equal runs."""
    tokens = key.shape[1]
    order = key.argsort(dim=1, stable=True)
    rank = torch.arange(tokens, device=key.device) * clusters // tokens
    return torch.empty_like(order).scatter_(1, order, rank.expand_as(order))


def assign_by_kmeans(x: Tensor, grid: Grid, cell: Grid, steps: int) -> Tensor:
    """Lloyd's iterations from the means of cells, ``(B, N, D)`` -> ``(B, N)``.

    The top-left token of each cell stays with its cell's centre, so no cluster is empty.
    """
    real = cells(grid, cell)
    clusters = real[0] * real[1]
    assignment = assign_to_cells(grid, cell, x.device).expand(x.shape[0], -1)
    for _ in range(steps):
        counts = count_members(assignment, clusters).unsqueeze(2).to(x.dtype)
        centres = sum_by_cluster(x, assignment, clusters) / counts
        far = centres.square().sum(-1).unsqueeze(1) - 2 * (x @ centres.mT)
        assignment = assign_anchors(far.argmin(-1), grid, cell)
    return assignment


def hash_digits(x: Tensor, planes: Tensor, offsets: Tensor, width: float) -> Tensor:
    """E2LSH, ``(B, N, D)`` -> ``(B, N, L)`` int: ``floor((x a_l + b_l) / width)``, b in [0, width).

    ``planes`` is ``(D, L)`` standard normal, ``offsets`` ``(L,)`` uniform in ``[0, 1)``: they are
    scaled by the width here, as E2LSH asks (ACT's code leaves them in ``[0, 1)``).
    """
    return ((x @ planes) / width + offsets).floor().long()


MIX = (-7046029254386353131, -4658895280553007687, -7723592293110705685)
"""Odd 64-bit constants of the splitmix64 finaliser (Steele et al. 2014), as signed integers."""


def mix_digits(digits: Tensor) -> Tensor:
    """``(B, N, L)`` -> ``(B, N)``: one 64-bit code for all digits of a token.

    Digits are mixed, not packed in base 4 as in ACT's code, where a digit above 3 spills into
    the next round's and merges unrelated buckets.
    """
    code = torch.zeros_like(digits[..., 0])
    for digit in digits.unbind(-1):
        code = (code + digit) * MIX[0]
        code = (code ^ (code >> 30)) * MIX[1]
        code = (code ^ (code >> 27)) * MIX[2]
    return code


def assign_by_code(code: Tensor) -> tuple[Tensor, Tensor]:
    """Number the distinct codes of each image: ``(B, N)`` -> ``(B, N)`` and counts ``(B,)``.

    How many clusters an image gets depends on its content: nothing here has a static shape.
    """
    line, order = code.sort(dim=1, stable=True)
    new = torch.ones_like(line)
    new[:, 1:] = (line[:, 1:] != line[:, :-1]).long()
    run = new.cumsum(1) - 1
    return torch.empty_like(order).scatter_(1, order, run), run[:, -1] + 1
