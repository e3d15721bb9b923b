"""Which tokens do the work: one contract, one file a family."""

from vitrail.reducers.base import All, Reducer, ReducerSpec
from vitrail.reducers.budget import Budget
from vitrail.reducers.cluster import Cluster
from vitrail.reducers.density import DensityPeaks
from vitrail.reducers.merge import Merge
from vitrail.reducers.pool import Pool
from vitrail.reducers.select import Filter, Random
from vitrail.reducers.soft import Paca

__all__ = [
    "All",
    "Budget",
    "Cluster",
    "DensityPeaks",
    "Filter",
    "Merge",
    "Paca",
    "Pool",
    "Random",
    "Reducer",
    "ReducerSpec",
]
