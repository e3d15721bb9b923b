"""Sources of maps to score: methods by name, and the baselines they must beat.

A maker is an :data:`~vitrail.attribution.scores.stability.Explainer` with a name: a method, or a
map that knows nothing of the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.attribution.base import Explanation, explain, find_method
from vitrail.attribution.baselines import BASELINES
from vitrail.attribution.preserve import ExplainError

GRADIENT = "saliency"
"""The input gradient, the fourth baseline, is a method too."""


@dataclass
class MapSource:
    """A method or a baseline.

    ``options`` are the method's; a map is asked for ``batch`` pictures at a time. ``refused``
    counts the pictures the method had no map for: they get an even map, which scores as chance.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch: int = 16
    refused: int = 0

    @property
    def kind(self) -> str:
        """``specific`` or ``agnostic`` of the class, or ``baseline``."""
        if self.name in BASELINES:
            return "baseline"
        return "specific" if find_method(self.name).class_specific else "agnostic"

    def __call__(self, model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
        """Maps ``(B, H, W)`` float32.

        Raises:
            UserError: the method cannot serve this model, or no picture of a batch.
        """
        if self.name in BASELINES:
            return BASELINES[self.name](images).float()
        parts = zip(images.split(self.batch), target.split(self.batch), strict=True)
        return torch.cat([self._maps(model, some, classes) for some, classes in parts])

    def explanation(self, model: nn.Module, images: Tensor, target: Tensor) -> Explanation:
        """The method's whole answer."""
        classes = target.tolist()
        return explain(model, images, self.name, classes, seed=self.seed, **self.options)

    def _maps(self, model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
        """Maps of one batch; where it is refused, picture by picture."""
        try:
            return self.explanation(model, images, target).map
        except ExplainError:
            if len(images) == 1:
                raise
        found, errors = [], []
        for image, label in zip(images.split(1), target.split(1), strict=True):
            try:
                found.append(self.explanation(model, image, label).map)
            except ExplainError as error:
                errors.append(error)
                found.append(image.new_zeros(1, *image.shape[2:], dtype=torch.float32))
        if len(errors) == len(images):
            raise errors[0]
        self.refused += len(errors)
        return torch.cat(found)


def baselines() -> list[MapSource]:
    """The four that are always beside: noise, the middle, edges, the input gradient."""
    return [*(MapSource(name) for name in BASELINES), MapSource(GRADIENT)]
