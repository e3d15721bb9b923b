"""Claims of speed, checked: the same weights both ways, in one interleaved run.

model, rival -> the same weights in both -> logits agree? -> timed by turns -> ratios with spread

``vitrail.cost`` measures any module and knows nobody's models; here they come from the doors: our
zoo, timm, and the official layout of papers that timm does not carry.
"""

from vitrail.bench.rivals import Versus, versus
from vitrail.bench.twins import Agreement, Pair, build, pair, rival

__all__ = ["Agreement", "Pair", "Versus", "build", "pair", "rival", "versus"]
