"""Features of a frozen backbone, computed once for each picture.

pictures -> the weights' own preparation -> backbone without head -> (N, D), kept by picture

A probe asks for more pictures from round to round; what was computed before is not computed again.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.data import ImageDataset, ImageTensors, Item, Preprocess, batches, sequential_order
from vitrail.errors import UserError
from vitrail.train.fastest import faster_format
from vitrail.train.heap import keep_freed_memory
from vitrail.train.job import TrainingJob
from vitrail.train.probe import Features, Labels, LinearProbe, fit_probe

BATCH = 32
HEAD_PICTURES, ALL_HEAD_PICTURES = 2000, 20_000
"""The head is fitted on at most so many pictures before training, and where nothing follows."""


@dataclass(kw_only=True)
class FeatureBank:
    """A backbone's features of the pictures it was asked about.

    Attributes:
        model: image ``(B, C, H, W)`` -> features ``(B, D)``; frozen, in evaluation mode.
        pictures: where they are read from.
        preprocess: how they become the model's input.
        rows: key of a picture -> its features ``(D,)``.
        seconds: spent computing, reading pictures included.
        fastest: try memory formats; the choice, by the clock, may change the last bits.
    """

    model: nn.Module
    pictures: ImageDataset
    preprocess: Preprocess
    rows: dict[str, Features] = field(default_factory=dict)
    seconds: float = 0.0
    fastest: bool = True

    def __post_init__(self) -> None:
        self.model = freeze(self.model)
        if self.fastest:
            self.model = faster_format(self.model, self.preprocess)

    def features(self, items: Sequence[Item]) -> Features:
        """``(len(items), D)``, in the order of ``items``."""
        missing = list({item.key: item for item in items if item.key not in self.rows}.values())
        started = time.perf_counter()
        with keep_freed_memory():
            for lot, found in self.compute(missing):
                self.rows.update(zip((item.key for item in lot), found.numpy(), strict=True))
        self.seconds += time.perf_counter() - started
        return np.stack([self.rows[item.key] for item in items])

    def compute(self, items: Sequence[Item]) -> Iterator[tuple[Sequence[Item], Tensor]]:
        """Some pictures at a time, and their features ``(B, D)``."""
        pictures = ImageTensors(self.pictures, items, self.preprocess.transform(), 0)
        device = next(self.model.parameters()).device
        for images, _, places in batches(pictures, order=sequential_order(len(items), batch=BATCH)):
            with torch.inference_mode():
                found = self.model(images.to(device)).float().cpu()
            yield [items[int(i)] for i in places], found

    @property
    def seconds_per_picture(self) -> float:
        """So far; 0 before the first picture."""
        return self.seconds / max(1, len(self.rows))


def labels_of(items: Sequence[Item]) -> Labels:
    """``(len(items),)``."""
    return np.array([item.label for item in items], np.int64)


def freeze(model: nn.Module) -> nn.Module:
    """In evaluation mode, without gradients."""
    return model.eval().requires_grad_(False)


def give_head(model: nn.Module, probe: LinearProbe) -> None:
    """Let a classifier begin with a probe's head, where its own is one linear layer of that size.

    What is left as it is learns its head from the start: slower, never wrong.
    """
    head = model.get_classifier()  # type: ignore[operator]
    if not isinstance(head, nn.Linear) or head.weight.shape != probe.weight.shape:
        return
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(probe.weight))
        head.bias.copy_(torch.from_numpy(probe.bias))


def fit_head_first(job: TrainingJob) -> dict[str, float]:
    """Give the model the linear head that its frozen features ask for (LP-FT), in place.

    Returns:
        How many ``pictures`` it was fitted on, and the ``strength`` of its regularisation.
    """
    backbone = copy.deepcopy(job.model)
    backbone.reset_classifier(0)  # type: ignore[operator]
    preprocess = Preprocess.from_dict(job.card.preprocess)
    bank = FeatureBank(model=backbone, pictures=job.dataset, preprocess=preprocess, fastest=False)
    items = job.parts["train"]
    most = ALL_HEAD_PICTURES if job.recipe.fits_head_only else HEAD_PICTURES
    chosen = items[:: -(-len(items) // most)]
    features, labels = bank.features(chosen), labels_of(chosen)
    probe = fit_probe(features, labels, len(job.card.classes), seed=job.recipe.seed)
    give_head(job.model, probe)
    return {"pictures": len(chosen), "strength": probe.strength}


def has_linear_head(model: nn.Module) -> bool:
    """Whether the head is one linear layer."""
    return isinstance(getattr(model, "get_classifier", nn.Identity)(), nn.Linear)


def check_linear_head(model: nn.Module) -> None:
    """Refuse ``head_first`` where the head is not one linear layer.

    Raises:
        UserError: it is not.
    """
    if not has_linear_head(model):
        raise UserError(
            "head_first needs a head of one linear layer; this model's is not: leave it out"
        )
