"""Pictures of any kind to batches of tensors: sources, checks, shares, transforms, loader.

source -> Pictures (what is there, what is wrong) -> fraction -> PictureSet -> batches
"""

from vitrail.data.fractions import fraction
from vitrail.data.history import History
from vitrail.data.items import Item, Problem, seed_of, write_problems
from vitrail.data.loader import (
    Loader,
    PictureSet,
    batches,
    epoch_order,
    measure_loader,
    plain_order,
)
from vitrail.data.manifest import Manifest, manifest_digest, read_manifest, write_manifest
from vitrail.data.pictures import Pictures
from vitrail.data.scenes import Scene, Scenes
from vitrail.data.sources import check, open_pictures
from vitrail.data.summary import Summary, imbalance
from vitrail.data.transforms import Augment, Preprocess
from vitrail.data.workers import WorkerError

__all__ = [
    "Augment",
    "History",
    "Item",
    "Loader",
    "Manifest",
    "PictureSet",
    "Pictures",
    "Preprocess",
    "Problem",
    "Scene",
    "Scenes",
    "Summary",
    "WorkerError",
    "batches",
    "check",
    "epoch_order",
    "fraction",
    "imbalance",
    "manifest_digest",
    "measure_loader",
    "open_pictures",
    "plain_order",
    "read_manifest",
    "seed_of",
    "write_manifest",
    "write_problems",
]
