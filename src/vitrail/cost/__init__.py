"""What a model costs: parameters, multiply-adds, time, memory, and growth with resolution.

Everything here takes any ``nn.Module`` or callable; nothing is estimated from a table.
"""

from vitrail.cost.arms import Settings
from vitrail.cost.bylayer import Layer, Profile, by_layer
from vitrail.cost.counting import Count, Part, count, parameters
from vitrail.cost.host import machine
from vitrail.cost.peak import memory
from vitrail.cost.report import Report, cost
from vitrail.cost.resolution import Growth, draw, growth
from vitrail.cost.roofline import Ceilings, ceilings
from vitrail.cost.timing import Ratio, Timing, Window, pinned, ratio, time_side_by_side

__all__ = [
    "Ceilings",
    "Count",
    "Growth",
    "Layer",
    "Part",
    "Profile",
    "Ratio",
    "Report",
    "Settings",
    "Timing",
    "Window",
    "by_layer",
    "ceilings",
    "cost",
    "count",
    "draw",
    "growth",
    "machine",
    "memory",
    "parameters",
    "pinned",
    "ratio",
    "time_side_by_side",
]
