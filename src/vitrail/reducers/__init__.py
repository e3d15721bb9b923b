"""Which tokens do the work: one contract, one file a family."""

from vitrail.reducers.base import All, Reducer, ReducerSpec
from vitrail.reducers.cluster import Cluster
from vitrail.reducers.pool import Pool

__all__ = ["All", "Cluster", "Pool", "Reducer", "ReducerSpec"]
