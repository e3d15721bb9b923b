"""Which tokens belong together, by comparing all with all: pairs, and peaks of density.

Pure functions over ``(B, N, D)`` features that return ``owner`` ``(B, N)``, as those of
:mod:`vitrail.layers.cluster`: owners are numbered in the order of their clusters' own tokens, so
with as many clusters as tokens every token owns itself. Both compare tokens of the whole grid, so
their cost is quadratic.

Sources: bipartite soft matching is ToMe's (Bolya et al., ICLR 2023, arXiv 2210.09461, section 3
and appendix D); density peaks with k nearest neighbours are TCFormer's (Zeng et al., CVPR 2022,
arXiv 2204.08680, section 3.2) after Du et al. 2016. Both are written from the papers' formulas.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.cluster import count_members
from vitrail.layers.plan import means

HELD = 2**24
"""How many similarities of an image are held at once: 64 MB of them, whatever the picture."""


def bipartite_owners(x: Tensor, merges: int) -> Tensor:
    """Join the ``merges`` best pairs, ``(B, N, D)`` -> ``(B, N)`` in ``[0, N - merges)``.

    Tokens are dealt by turns to two sets. Each of the first finds the most similar (cosine) of
    the second; the best of these pairs become one. At most ``N // 2`` do, of two tokens or more.
    Ties go to the earlier.
    """
    images, tokens, _ = x.shape
    unit = F.normalize(x, dim=-1)
    likeness, match = most_similar(unit[:, ::2], unit[:, 1::2])
    gone = likeness.argsort(dim=1, descending=True, stable=True)[:, :merges]
    own = torch.arange(tokens, device=x.device).expand(images, -1)
    joined = own.scatter(1, 2 * gone, 2 * match.gather(1, gone) + 1)
    stays = torch.ones_like(own).scatter(1, 2 * gone, 0)
    return (stays.cumsum(1) - 1).gather(1, joined)


def most_similar(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For each of ``a`` ``(B, n, D)`` the largest product with one of ``b``, and which."""
    rows = max(1, HELD // b.shape[1])
    found = [(part @ b.mT).max(-1) for part in a.split(rows, 1)]
    return torch.cat([f.values for f in found], 1), torch.cat([f.indices for f in found], 1)


def halvings(tokens: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Rounds of matching from ``tokens`` down to ``wanted``: (before, after) each."""
    while tokens > wanted:
        fewer = max(wanted, tokens - tokens // 2)
        yield tokens, fewer
        tokens = fewer


def merged_owners(x: Tensor, wanted: int) -> Tensor:
    """Match, merge, and match again until ``wanted`` are left; ``(B, N, D)`` -> ``(B, N)``.

    What was merged is the mean of *all* it stands for: sizes are carried from round to round.
    """
    images, tokens, _ = x.shape
    owner = torch.arange(tokens, device=x.device).expand(images, -1)
    merged = x
    for before, after in halvings(tokens, wanted):
        if before < tokens:
            merged = means(x, owner, count_members(owner, before))
        owner = bipartite_owners(merged, before - after).gather(1, owner)
    return owner


def density_owners(x: Tensor, clusters: int, neighbours: int) -> Tensor:
    """Tokens that are dense and far from any denser one are centres, ``(B, N, D)`` -> ``(B, N)``.

    Density ``rho`` is ``exp(-mean of the squared distances to the k nearest)``, itself among
    them; ``delta`` is the distance to the nearest denser token, or the largest distance where
    there is none. The ``clusters`` largest ``rho delta`` are centres; every other token joins the
    nearest. Compared are logarithms, since ``rho`` itself underflows. Ties go to the earlier.
    """
    far = squared_distances(x) / x.shape[2]
    k = min(neighbours, x.shape[1])
    near = far.topk(k, dim=-1, largest=False).values.mean(-1)
    denser = near.unsqueeze(1) < near.unsqueeze(2)
    delta = far.masked_fill(~denser, torch.inf).amin(-1)
    delta = torch.where(delta.isinf(), far.amax((1, 2)).unsqueeze(1), delta)
    score = 0.5 * delta.log() - near
    centres = score.argsort(dim=1, descending=True, stable=True)[:, :clusters].sort(1).values
    owner = far.gather(2, centres.unsqueeze(1).expand(-1, x.shape[1], -1)).argmin(-1)
    return owner.scatter(1, centres, torch.arange(clusters, device=x.device).expand_as(centres))


def squared_distances(x: Tensor) -> Tensor:
    """``(B, N, D)`` -> ``(B, N, N)``, not below zero."""
    length = x.square().sum(-1)
    return (length.unsqueeze(2) + length.unsqueeze(1) - 2 * (x @ x.mT)).clamp(min=0)
