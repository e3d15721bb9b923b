"""The laws of mixers and reducers, for the tests of whoever writes one (needs pytest).

::

    from vitrail.testing import MixerLaws

    class TestSwirl(MixerLaws):
        specs = ["swirl", "swirl(turns=3)"]
"""

from vitrail.testing.mixer_laws import GRID, MixerLaws, pairs_plan
from vitrail.testing.reducer_laws import (
    DrawLaws,
    ReducerLaws,
    SelectionLaws,
    SoftLaws,
    same,
)

__all__ = [
    "GRID",
    "DrawLaws",
    "MixerLaws",
    "ReducerLaws",
    "SelectionLaws",
    "SoftLaws",
    "pairs_plan",
    "same",
]
