"""Short codes for vectors, and clusters of codes: what LSH and clustered attention choose by.

Everything here is without gradient, static in shape, and deterministic: planes are drawn once from
a fixed seed and kept as buffers, saved with the weights.
"""

import torch
from torch import Tensor, nn

from vitrail.tokens.assignment import count_members, sum_by_cluster

SEED = 2001_04451
"""Of the random planes: two passes over a picture find the same buckets and clusters."""


class AngularBuckets(nn.Module):
    """Reformer's hash: the direction, of ``buckets`` random ones, that a vector points along most.

    ``argmax([x R; -x R])`` (Andoni et al. 2015), ``rounds`` times. An odd number is rounded up.
    """

    planes: Tensor

    def __init__(self, features: int, rounds: int, buckets: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(SEED)
        directions = torch.randn(rounds, features, -(-buckets // 2), generator=draw)
        self.register_buffer("planes", directions)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., N, d)`` -> buckets ``(..., rounds, N)`` int."""
        along = x.unsqueeze(-3) @ self.planes.to(x.dtype)
        return torch.cat((along, -along), -1).argmax(-1)


class HammingClusters(nn.Module):
    """Clustered attention's: signs of random projections, then Lloyd's steps on the codes.

    ``bits`` hyperplanes with an offset each, so that the codes' Hamming distance follows the
    vectors' Euclidean. A cluster's centre is the majority of its members' codes; the first centres
    are codes of tokens spread evenly (the released code draws them). An empty cluster keeps its
    centre, and no query uses it.
    """

    planes: Tensor
    offsets: Tensor

    def __init__(self, features: int, bits: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        draw = torch.Generator().manual_seed(SEED)
        self.register_buffer("planes", torch.randn(features, bits, generator=draw))
        self.register_buffer("offsets", torch.randn(bits, generator=draw))

    def forward(self, x: Tensor, clusters: int) -> Tensor:
        """``(B, N, d)`` -> the cluster of each, ``(B, N)``; ``clusters`` is at most N."""
        tokens = x.shape[1]
        if clusters == tokens:  # the same law as a reducer's: K = N is the identity
            return torch.arange(tokens, device=x.device).expand(x.shape[0], -1)
        codes = signs(x @ self.planes.to(x.dtype) + self.offsets.to(x.dtype))
        anchors = torch.arange(clusters, device=x.device) * tokens // clusters
        centres = codes.index_select(1, anchors)
        for _ in range(self.steps):
            assignment = nearest(codes, centres)
            members = count_members(assignment, clusters).unsqueeze(2)
            centres = torch.where(
                members > 0, signs(sum_by_cluster(codes, assignment, clusters)), centres
            )
        return nearest(codes, centres)


def signs(x: Tensor) -> Tensor:
    """One where a number is not negative, minus one elsewhere."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def nearest(codes: Tensor, centres: Tensor) -> Tensor:
    """The centre that agrees in most bits: ``(B, N, L)``, ``(B, K, L)`` -> ``(B, N)``."""
    return (codes @ centres.mT).argmax(2)
