"""Clusters around peaks of density: TCFormer (Zeng et al., CVPR 2022, arXiv 2204.08680).

What differs from the paper: the clusters are set apart again behind the block (there they stay,
and the next stage clusters them further); a cluster is the plain mean of its members (there each
counts by a learned score); no noise breaks ties (the earlier token wins), so that two passes
over a picture find the same clusters.
"""

from dataclasses import dataclass

from vitrail.reducers.base import ReducerSpec
from vitrail.reducers.cluster import TokenClusters
from vitrail.specs import Place
from vitrail.tokens.clusterers import PeakClusterer, peaks


@dataclass(frozen=True, kw_only=True)
class DensityPeaks(ReducerSpec, name="dpc_knn"):
    """Tokens in crowded spots, far from any more crowded, gather the others (TCFormer's DPC-KNN).

    One cluster for ``ratio`` tokens, 2.5 say; class tokens stay out. Compares all with all, twice:
    quadratic, for grids of a few thousand tokens.
    """

    ratio: float = 4
    neighbours: int = 5

    @property
    def tokens_per_cluster(self) -> float:
        """One cluster for ``ratio`` tokens."""
        return self.ratio

    def build(self, place: Place) -> TokenClusters:
        """Serves every place."""
        if self.ratio < 1 or self.neighbours < 1:
            raise self.refuse(
                place, "ratio and neighbours are at least 1", "try dpc_knn(ratio=4, neighbours=5)"
            )
        return TokenClusters(PeakClusterer(self.ratio, self.neighbours))

    def working(self, place: Place) -> int:
        """Class tokens, and one cluster for ``ratio`` tokens, rounded up."""
        return place.extra + peaks(place.grid, self.ratio)

    def macs(self, place: Place) -> int:
        """The distances of all tokens from all, twice, and from the centres."""
        tokens, centres = place.grid[0] * place.grid[1], self.working(place) - place.extra
        return (2 * tokens**2 + tokens * centres) * place.dim
