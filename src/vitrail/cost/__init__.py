"""What a model costs: parameters, multiply-adds, time, memory, and growth with resolution.

Everything here takes any ``nn.Module`` or callable; nothing is estimated from a table.
"""

from vitrail.cost.counting import Count, Part, count, parameters
from vitrail.cost.host import machine
from vitrail.cost.timing import Ratio, Timing, Window, pinned, ratio, time_side_by_side

__all__ = [
    "Count",
    "Part",
    "Ratio",
    "Timing",
    "Window",
    "count",
    "machine",
    "parameters",
    "pinned",
    "ratio",
    "time_side_by_side",
]
