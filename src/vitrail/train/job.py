"""What one training is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vitrail.data import Item, Pictures
from vitrail.errors import UserError
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


def check_fit(model: nn.Module, text: str, *, classes: int, image: int, in_chans: int = 3) -> None:
    """Let a model look at one blank picture, before anything is trained.

    Raises:
        UserError: it cannot take such pictures, or does not answer with a logit a class.
    """
    was_training, blank = model.training, torch.zeros(1, in_chans, image, image)
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            logits = model.eval()(blank)
    except (RuntimeError, LookupError, ArithmeticError, TypeError, AssertionError) as error:
        raise UserError(f"{text} cannot take pictures of {image} px: {error}") from error
    finally:
        model.train(was_training)
    if logits.shape != (1, classes):
        raise UserError(
            f"{text} answers {tuple(logits.shape)}, not one logit for each of {classes} classes; "
            "leave 'classes' out of its text"
        )
