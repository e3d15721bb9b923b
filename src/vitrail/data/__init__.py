"""Images of any kind to batches of tensors: sources, checks, shares, transforms, loader.

source -> ImageDataset (items, problems) -> take_fraction -> ImageTensors -> batches
"""

from vitrail.data.dataset import ImageDataset
from vitrail.data.fractions import take_fraction
from vitrail.data.history import History
from vitrail.data.items import Item, Problem, stable_seed, write_problems
from vitrail.data.loader import (
    ImageTensors,
    Loader,
    batches,
    epoch_order,
    measure_loader,
    sequential_order,
)
from vitrail.data.manifest import Manifest, manifest_digest, read_manifest, write_manifest
from vitrail.data.scenes import Scene, Scenes
from vitrail.data.sources import check, open_dataset
from vitrail.data.summary import Summary, describe_imbalance
from vitrail.data.transforms import Augment, Preprocess
from vitrail.data.workers import WorkerError

__all__ = [
    "Augment",
    "History",
    "Item",
    "Loader",
    "Manifest",
    "ImageTensors",
    "ImageDataset",
    "Preprocess",
    "Problem",
    "Scene",
    "Scenes",
    "Summary",
    "WorkerError",
    "batches",
    "check",
    "epoch_order",
    "take_fraction",
    "describe_imbalance",
    "manifest_digest",
    "measure_loader",
    "open_dataset",
    "sequential_order",
    "read_manifest",
    "stable_seed",
    "write_manifest",
    "write_problems",
]
