"""The doors to the ecosystem: models by text, baselines from timm, trained runs opened again."""

from vitrail.hub.build import build, catalogue
from vitrail.hub.runs import Classifier, open_run

__all__ = ["Classifier", "build", "catalogue", "open_run"]
