"""What one training is made of, whoever asks for it: the command line, a study, a benchmark.

text, images, recipe -> card -> model, teacher -> TrainingJob -> vitrail.train.fit_job
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.data import ImageDataset, Item, Preprocess
from vitrail.errors import UserError
from vitrail.hub.origin import Weights, origin_of
from vitrail.hub.plugin_records import card_extra
from vitrail.hub.resolve import create_from_card
from vitrail.hub.sizes import check_fits
from vitrail.hub.teachers import open_teacher
from vitrail.limits import refuse_large_batch
from vitrail.tasks.card import Card
from vitrail.tasks.teacher import Teacher
from vitrail.tensors import read_header
from vitrail.train import balance
from vitrail.train.folder import Run, check_checkpoint
from vitrail.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What is trained on what, and where it is kept once it has begun."""

    model: nn.Module
    dataset: ImageDataset
    parts: Mapping[str, Sequence[Item]]
    recipe: Recipe
    card: Card
    teacher: Teacher | None = None
    notes: tuple[str, ...] = ()
    """Lines about what was found on the way: said when training begins, not beside an error."""
    out: Path = Path()

    @classmethod
    def create(
        cls,
        text: str,
        dataset: ImageDataset,
        parts: Mapping[str, Sequence[Item]],
        recipe: Recipe,
        preprocess: Preprocess,
        *,
        model: nn.Module | None = None,
        weights: Weights | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> "TrainingJob":
        """A training from scratch or from weights, with the recipe's teacher.

        Args:
            text: of the model, for the card.
            images: with the classes in order.
            parts: ``train``, and ``val`` and ``test`` where they are.
            recipe: its seed decides what is random in the first weights.
            preprocess: image size and channels.
            model: instead of the one that ``text`` builds.
            weights: to start from: what the recipe's word means, as ``find_weights`` finds it.
            facts: for the card's ``extra``.

        Raises:
            UserError: no such model or teacher, one that this machine cannot hold, or one that
                cannot take these images.
        """
        card = create_card(text, dataset, preprocess, facts)
        model = build_model(card, recipe, weights) if model is None else model
        origin = origin_of(model)
        if origin is not None:
            card = replace(card, extra={**card.extra, "weights": origin.to_dict()})
        return cls(
            model=model,
            dataset=dataset,
            parts=parts,
            recipe=recipe,
            card=card,
            teacher=open_teacher(recipe.teacher, card) if recipe.teacher else None,
            notes=tuple(origin.lines) if origin is not None else (),
        )

    @property
    def labels(self) -> list[int]:
        """Of the training images, in their order."""
        return [item.label for item in self.parts["train"]]

    def class_weights(self) -> Tensor | None:
        """The recipe's class weights for these labels, ``(K,)``; None where all weigh the same.

        Raises:
            UserError: another count of numbers than of classes.
        """
        recipe, classes = self.recipe, len(self.card.classes)
        return balance.class_weights(recipe.class_weights, self.labels, classes, recipe.sampling)


def create_card(
    text: str,
    dataset: ImageDataset,
    preprocess: Preprocess,
    facts: Mapping[str, Any] | None = None,
) -> Card:
    """The card that will be saved with the weights of a training."""
    return Card(
        model=text,
        classes=dataset.classes,
        image=preprocess.image,
        in_chans=preprocess.in_chans,
        preprocess=preprocess.to_dict(),
        extra={**card_extra(text), **(facts or {})},
    )


def build_model(card: Card, recipe: Recipe, weights: Weights | None = None) -> nn.Module:
    """The model of a card; what is random in its first weights follows from the recipe's seed.

    ``weights`` are to start from: what the recipe's word means, found before.

    Raises:
        UserError: no such model, one too large for this machine, or for other images.
    """
    refuse_large_batch(recipe.batch // recipe.accumulate, card.image, card.in_chans)
    torch.manual_seed(recipe.seed)
    model = create_from_card(card, drop_path=recipe.drop_path, weights=weights)
    check_input(model, card)
    return model


def rebuild_model(run: Run) -> nn.Module:
    """The model of a stopped run, whose weights are in the checkpoint: none are read here.

    Raises:
        UserError: a model that does not fit the checkpoint.
    """
    path = check_checkpoint(run.folder)
    shapes = {n: s for n, s in read_header(path).shapes.items() if n.startswith("model/")}
    check_fits(run.card, shapes, repr(str(path)), exact=False)
    return create_from_card(run.card, drop_path=run.recipe.drop_path)


def check_input(model: nn.Module, card: Card) -> None:
    """Run a model on one blank image, before anything is trained.

    Raises:
        UserError: it cannot take such images, or does not answer with a logit a class.
    """
    was_training, blank = model.training, torch.zeros(1, card.in_chans, card.image, card.image)
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            logits = model.eval()(blank)
    except (RuntimeError, LookupError, ArithmeticError, TypeError, AssertionError) as error:
        raise UserError(f"{card.model} cannot take pictures of {card.image} px: {error}") from error
    finally:
        model.train(was_training)
    if logits.shape != (1, len(card.classes)):
        raise UserError(
            f"{card.model} answers {tuple(logits.shape)}, not one logit for each of "
            f"{len(card.classes)} classes; leave 'classes' out of its text"
        )
