"""The doors to the ecosystem: models by text, baselines from timm, trained runs opened again."""

from vitrail.hub.build import build, catalogue
from vitrail.hub.reduce import Reduced, give_reducer, reduce_run
from vitrail.hub.runs import Classifier, open_run
from vitrail.hub.save import from_pretrained, push_to_hub, save_timm

__all__ = [
    "Classifier",
    "Reduced",
    "build",
    "catalogue",
    "from_pretrained",
    "give_reducer",
    "open_run",
    "push_to_hub",
    "reduce_run",
    "save_timm",
]
