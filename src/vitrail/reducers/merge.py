"""Merge the most similar tokens in pairs: ToMe (Bolya et al., ICLR 2023, arXiv 2210.09461).

What differs from the paper: tokens are compared by what the block's mixer would see (the paper
takes the mean of its keys over heads, which belong to one mixer); they are merged before the
block and set apart behind it, so that maps stay whole (the paper's stay merged); and more than
half of them go in several rounds.
"""

from dataclasses import dataclass

from vitrail.reducers.cluster import TokenClusters
from vitrail.reducers.select import Select
from vitrail.specs import Place
from vitrail.tokens.clusterers import PairClusterer
from vitrail.tokens.matching import halving_rounds


@dataclass(frozen=True, kw_only=True)
class Merge(Select, name="merge"):
    """The most similar tokens become one, in pairs (ToMe), until a share of them is left.

    One round of bipartite matching for ``keep=0.5`` and above, two down to a quarter. The share
    that is left fixes the cost; class tokens stay out. Compares all with all: quadratic.
    """

    keep: float = 0.5

    def build(self, place: Place) -> TokenClusters:
        """Serves every place."""
        self.check(place)
        return TokenClusters(PairClusterer(self.keep))

    def macs(self, place: Place) -> int:
        """Every other token with all the others, in each round."""
        tokens, wanted = place.grid[0] * place.grid[1], self.working(place) - place.extra
        pairs = sum((n - n // 2) * (n // 2) for n, _ in halving_rounds(tokens, wanted))
        return pairs * place.dim
