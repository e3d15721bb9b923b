"""What a model costs: parameters, multiply-adds, time, memory, growth, and beside others.

Everything here takes any ``nn.Module`` or callable; nothing is estimated from a table.
"""

from vitrail.cost.bylayer import LayerCost, Profile, by_layer
from vitrail.cost.candidates import Settings
from vitrail.cost.counting import Count, Part, count, follows_content, parameters
from vitrail.cost.host import machine
from vitrail.cost.peak import memory
from vitrail.cost.report import CostReport, cost
from vitrail.cost.resolution import Growth, draw, growth
from vitrail.cost.roofline import Ceilings, ceilings
from vitrail.cost.same_weights import Agreement, Counterparts, Pair, pair
from vitrail.cost.timing import Ratio, Timing, TimingWindow, ratio, time_side_by_side, use_threads
from vitrail.cost.versus import Versus, versus

__all__ = [
    "Agreement",
    "Ceilings",
    "CostReport",
    "Count",
    "Counterparts",
    "Growth",
    "LayerCost",
    "Pair",
    "Part",
    "Profile",
    "Ratio",
    "Settings",
    "Timing",
    "TimingWindow",
    "Versus",
    "by_layer",
    "ceilings",
    "cost",
    "count",
    "follows_content",
    "draw",
    "growth",
    "machine",
    "memory",
    "pair",
    "parameters",
    "use_threads",
    "ratio",
    "time_side_by_side",
    "versus",
]
