"""The laws of mixers, reducers and layers, for the tests of whoever writes one (needs pytest).

::

    from vitrail.testing import MixerLaws

    class TestSwirl(MixerLaws):
        specs = ["swirl", "swirl(turns=3)"]
"""

from vitrail.testing.cases import case
from vitrail.testing.layer_laws import LayerLaws
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
    "LayerLaws",
    "MixerLaws",
    "ReducerLaws",
    "SelectionLaws",
    "SoftLaws",
    "case",
    "pairs_plan",
    "same",
]
