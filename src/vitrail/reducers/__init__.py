"""Which tokens do the work: one contract, one file a family."""

from vitrail.reducers.base import All, Reducer, ReducerSpec
from vitrail.reducers.cluster import Cluster
from vitrail.reducers.pool import Pool
from vitrail.reducers.select import Filter, Random

__all__ = ["All", "Cluster", "Filter", "Pool", "Random", "Reducer", "ReducerSpec"]
