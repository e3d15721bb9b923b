"""How far an explanation can be trusted: faithfulness, place, stability, randomisation.

maps (B, H, W) of any method -> scores by picture -> a table beside four baselines
"""

from vitrail.attribution.scores.curves import Curve, deletion, insertion
from vitrail.attribution.scores.places import energy, pointing, rank_accuracy, segmentation
from vitrail.attribution.scores.sources import MapSource, baselines
from vitrail.attribution.scores.stability import (
    Explainer,
    class_contrast,
    max_sensitivity,
    randomisation,
)
from vitrail.attribution.scores.table import SCORES, MethodScores, ScoreSettings, score, versus

__all__ = [
    "SCORES",
    "Curve",
    "Explainer",
    "MapSource",
    "MethodScores",
    "ScoreSettings",
    "baselines",
    "class_contrast",
    "deletion",
    "energy",
    "insertion",
    "max_sensitivity",
    "pointing",
    "randomisation",
    "rank_accuracy",
    "score",
    "segmentation",
    "versus",
]
