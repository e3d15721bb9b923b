"""Models by text, baselines from timm, weights from the hub, trained runs opened again."""

from vitrail.hub.catalogue import catalogue
from vitrail.hub.reduce import ReducedRun, give_reducer, reduce_run
from vitrail.hub.resolve import create
from vitrail.hub.resolve import create as build
from vitrail.hub.runs import Classifier, load, open_run
from vitrail.hub.save import from_pretrained, push_to_hub, save_timm

__all__ = [
    "Classifier",
    "ReducedRun",
    "build",
    "catalogue",
    "create",
    "from_pretrained",
    "give_reducer",
    "load",
    "open_run",
    "push_to_hub",
    "reduce_run",
    "save_timm",
]
