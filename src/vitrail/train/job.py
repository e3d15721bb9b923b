"""What one training is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from vitrail.data import Item, Pictures
from vitrail.tasks.card import Card
from vitrail.tasks.teacher import Teacher
from vitrail.train import balance
from vitrail.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained on what, and where it is kept."""

    model: nn.Module
    pictures: Pictures
    parts: Mapping[str, Sequence[Item]]
    recipe: Recipe
    card: Card
    out: Path
    teacher: Teacher | None = None

    @property
    def labels(self) -> list[int]:
        """Of the training pictures, in their order."""
        return [item.label for item in self.parts["train"]]

    def class_weights(self) -> Tensor | None:
        """What the recipe makes of these labels.

        Raises:
            UserError: another count of numbers than of classes.
        """
        recipe, classes = self.recipe, len(self.card.classes)
        return balance.class_weights(recipe.class_weights, self.labels, classes, recipe.sampling)
