"""Which tokens belong together, by comparing all with all: pairs, and peaks of density.

Pure functions over ``(B, N, D)`` features that return an assignment ``(B, N)``, as those of
:mod:`vitrail.tokens.assignment`. Clusters are numbered in the order of the tokens that represent
them, so with as many clusters as tokens the assignment counts from 0. Both compare tokens of the
whole grid, so their cost is quadratic.

Sources: bipartite soft matching is ToMe's (Bolya et al., ICLR 2023, arXiv 2210.09461, section 3
and appendix D); density peaks with k nearest neighbours are TCFormer's (Zeng et al., CVPR 2022,
arXiv 2204.08680, section 3.2) after Du et al. 2016. Both are written from the papers' formulas.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.tokens.assignment import count_members
from vitrail.tokens.plans import means

MAX_SIMILARITIES = 2**24
"""How many similarities of an image are in memory at once: 64 MB, whatever its size."""


def assign_pairs(x: Tensor, merges: int) -> Tensor:
    """Join the ``merges`` best pairs, ``(B, N, D)`` -> ``(B, N)`` in ``[0, N - merges)``.

    Tokens go alternately into two sets. Each of the first finds the most similar (cosine) of
    the second; the best of these pairs become one. At most ``N // 2`` do, of two tokens or more.
    Ties go to the earlier.
    """
    images, tokens, _ = x.shape
    unit = F.normalize(x, dim=-1)
    likeness, match = most_similar(unit[:, ::2], unit[:, 1::2])
    merged = likeness.argsort(dim=1, descending=True, stable=True)[:, :merges]
    own = torch.arange(tokens, device=x.device).expand(images, -1)
    joined = own.scatter(1, 2 * merged, 2 * match.gather(1, merged) + 1)
    stays = torch.ones_like(own).scatter(1, 2 * merged, 0)
    return (stays.cumsum(1) - 1).gather(1, joined)


def most_similar(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For each of ``a`` ``(B, n, D)`` the largest product with one of ``b``, and which."""
    found = [(part @ b.mT).max(-1) for part in a.split(rows_at_once(b), 1)]
    return torch.cat([f.values for f in found], 1), torch.cat([f.indices for f in found], 1)


def halving_rounds(tokens: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Rounds of matching from ``tokens`` down to ``wanted``: (before, after) each."""
    while tokens > wanted:
        fewer = max(wanted, tokens - tokens // 2)
        yield tokens, fewer
        tokens = fewer


def assign_by_merging(x: Tensor, wanted: int) -> Tensor:
    """Match, merge, and match again until ``wanted`` are left; ``(B, N, D)`` -> ``(B, N)``.

    What was merged is the mean of *all* it stands for: sizes are carried from round to round.
    """
    images, tokens, _ = x.shape
    assignment = torch.arange(tokens, device=x.device).expand(images, -1)
    merged = x
    for before, after in halving_rounds(tokens, wanted):
        if before < tokens:
            merged = means(x, assignment, count_members(assignment, before))
        assignment = assign_pairs(merged, before - after).gather(1, assignment)
    return assignment


def assign_to_density_peaks(x: Tensor, clusters: int, neighbours: int) -> Tensor:
    """Tokens that are dense and far from any denser one are centres, ``(B, N, D)`` -> ``(B, N)``.

    Density ``rho`` is ``exp(-mean of the squared distances to the k nearest)``, itself among
    them; ``delta`` is the distance to the nearest denser token, or the largest distance where
    there is none. The ``clusters`` largest ``rho delta`` are centres; every other token joins the
    nearest. Compared are logarithms, since ``rho`` itself underflows. Ties go to the earlier.
    Distances are computed twice, so that they need not all be held at once.
    """
    sparse = sparsity(x, min(neighbours, x.shape[1]))
    score = 0.5 * distance_to_denser(x, sparse).log() - sparse
    centres = score.argsort(dim=1, descending=True, stable=True)[:, :clusters].sort(1).values
    anchors = x.gather(1, centres.unsqueeze(2).expand(-1, -1, x.shape[2]))
    assignment = torch.cat([distances(part, anchors).argmin(-1) for part in slices(x)], 1)
    return assignment.scatter(
        1, centres, torch.arange(clusters, device=x.device).expand_as(centres)
    )


def sparsity(x: Tensor, neighbours: int) -> Tensor:
    """Minus the logarithm of each token's density, ``(B, N, D)`` -> ``(B, N)``."""
    nearest = [distances(part, x).topk(neighbours, dim=-1, largest=False) for part in slices(x)]
    return torch.cat([found.values.mean(-1) for found in nearest], 1)


def distance_to_denser(x: Tensor, sparse: Tensor) -> Tensor:
    """Squared distance to the nearest denser token, or the largest there is, ``(B, N)``."""
    nearest, farthest = [], []
    for part, own in zip(slices(x), sparse.split(rows_at_once(x), 1), strict=True):
        far = distances(part, x)
        denser = sparse.unsqueeze(1) < own.unsqueeze(2)
        nearest.append(far.masked_fill(~denser, torch.inf).amin(-1))
        farthest.append(far.amax((1, 2)))
    delta, largest = torch.cat(nearest, 1), torch.stack(farthest, 1).amax(1, keepdim=True)
    return torch.where(delta.isinf(), largest, delta)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances over channels, ``(B, n, D)`` and ``(B, N, D)`` -> ``(B, n, N)``."""
    length = a.square().sum(-1).unsqueeze(2) + b.square().sum(-1).unsqueeze(1)
    return (length - 2 * (a @ b.mT)).clamp(min=0) / a.shape[2]


def rows_at_once(x: Tensor) -> int:
    """How many tokens are compared with all others at once."""
    return max(1, MAX_SIMILARITIES // x.shape[1])


def slices(x: Tensor) -> tuple[Tensor, ...]:
    """The tokens in slices of :func:`rows_at_once`."""
    return x.split(rows_at_once(x), 1)
