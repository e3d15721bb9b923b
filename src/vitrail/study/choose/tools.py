"""What choosing works with: pictures, candidates with their weights, costs, fine-tuning.

The race trains as ``vitrail train`` does, for a fixed number of seconds: first the head, which
comes from the probe of frozen features, then everything (LP-FT: Kumar, Raghunathan, Jones, Ma,
Liang, ICLR 2022, arXiv 2202.10054).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vitrail.console import collect_warnings
from vitrail.cost import Settings, cost
from vitrail.data import (
    ImageDataset,
    ImageTensors,
    Item,
    Preprocess,
    batches,
    open_dataset,
    sequential_order,
)
from vitrail.errors import UserError
from vitrail.hub.names import build
from vitrail.hub.origin import Weights, origin_of
from vitrail.hub.runs import load
from vitrail.hub.weights import find_weights
from vitrail.study.choose.question import Note, Opened, Parts, Question, TrialPlan
from vitrail.study.choose.state import ChoiceEntry, MeasuredCost
from vitrail.tasks.classify import collect_logits
from vitrail.train.features import give_head
from vitrail.train.fit import fit_job
from vitrail.train.job import TrainingJob
from vitrail.train.probe import LinearProbe
from vitrail.train.recipe import Recipe
from vitrail.train.setup import suggest_image_size

STEP_COST = 3.0
"""Times that a step of training costs what a forward pass does."""
FULL_RATE_UPDATES = 60
"""A trial of so many updates, or more, takes the usual rate."""
COST_SHARE = 0.15
"""Of the minutes, for timing."""


class ChoiceTools:
    """The real ones; ``folder`` holds released weights, without a network."""

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def pictures(self, question: Question) -> ImageDataset:
        """The set, opened."""
        return open_dataset(question.data, val=question.val, seed=question.seed)

    def open(self, entry: ChoiceEntry, pictures: ImageDataset) -> Opened:
        """A candidate with its weights and without a head.

        Raises:
            UserError: no such model, or weights that were named and cannot be had.
        """
        with collect_warnings():
            weights = find_weights(entry.weights, entry.model, self.folder)
        preprocess = preprocess_for(weights, pictures)
        size = {"classes": 0, "image": preprocess.image, "in_chans": 3}
        model = build(entry.model, size, weights=weights)
        return Opened(
            model=model,
            preprocess=preprocess,
            start=describe_start(model),
            released=weights is not None,
        )

    def measure(
        self, entries: Sequence[ChoiceEntry], pictures: ImageDataset, question: Question, note: Note
    ) -> Mapping[str, MeasuredCost | str]:
        """What candidates cost here at their own size, those of one size side by side.

        A text says why a candidate cannot be measured.
        """
        found: dict[str, MeasuredCost | str] = {}
        sizes: dict[int, list[str]] = {}
        for entry in entries:
            with collect_warnings():
                try:
                    weights = find_weights(entry.weights, entry.model, self.folder)
                except UserError as error:
                    found[entry.model] = str(error)
                    continue
            sizes.setdefault(preprocess_for(weights, pictures).image, []).append(entry.model)
        seconds = COST_SHARE * 60 * question.minutes / max(1, len(entries))
        for image, models in sizes.items():
            note(f"timing {len(models)} candidates at {image} px")
            found |= time_each(models, image, question.batch, seconds)
        return found

    def tune(
        self,
        entry: ChoiceEntry,
        pictures: ImageDataset,
        parts: Parts,
        head: LinearProbe | None,
        trial: TrialPlan,
    ) -> tuple[int, np.ndarray]:
        """Fine-tune for so long, from ``head``: epochs, and predictions on ``parts.compare``."""
        with collect_warnings():
            weights = find_weights(entry.weights, entry.model, self.folder)
        preprocess = preprocess_for(weights, pictures)
        released = weights is not None
        recipe = trial_recipe(len(parts.train), trial.seconds, trial.seed, released=released)
        if released:
            recipe = fit_rate_to_updates(recipe, entry.forward_seconds)
        items = {"train": parts.train, "val": parts.compare}
        job = TrainingJob.create(entry.model, pictures, items, recipe, preprocess, weights=weights)
        if head is not None and not trial.at.exists():
            give_head(job.model, head)
        result = fit_job(job, trial.at, resume=True, progress=False)
        return result.epochs, self.answer(pictures, parts.compare, trial.at)

    def answer(self, pictures: ImageDataset, items: Sequence[Item], at: Path) -> np.ndarray:
        """The predictions of what was tuned in ``at``, ``(len(items),)``."""
        trained = load(at)
        tensors = ImageTensors(pictures, items, trained.preprocess.transform(), 0)
        order = sequential_order(len(items), batch=32)
        found = [
            logits for logits, _ in collect_logits(trained.model, batches(tensors, order=order))
        ]
        return torch.cat(found).argmax(1).numpy()


def preprocess_for(weights: Weights | None, pictures: ImageDataset) -> Preprocess:
    """As the weights were trained with; from scratch, a size that suits the pictures."""
    known = dict(weights.preprocess) if weights is not None else {}
    if "image" not in known:
        known["image"] = suggest_image_size(pictures, pictures.split("train"))
    return Preprocess.from_dict({**known, "in_chans": 3})


def describe_start(model: nn.Module) -> str:
    """Source and licence of the weights, or that there are none."""
    origin = origin_of(model)
    if origin is None:
        return "from scratch"
    forbidden = ", not for commercial use" if origin.is_non_commercial else ""
    return f"{origin.source} ({origin.licence or 'licence not stated'}{forbidden})"


def time_each(
    models: Sequence[str], image: int, batch: int, seconds: float
) -> dict[str, MeasuredCost | str]:
    """:func:`time_models`, ``seconds`` each; one that cannot be built does not end the others'."""
    try:
        return {**time_models(models, image, batch, seconds * len(models))}
    except UserError as error:
        if len(models) == 1:
            return {models[0]: str(error)}
    return {
        m: found for one in models for m, found in time_each([one], image, batch, seconds).items()
    }


def time_models(
    models: Sequence[str], image: int, batch: int, seconds: float
) -> dict[str, MeasuredCost]:
    """Milliseconds of a batch, parameters and megabytes, interleaved in one run."""
    settings = Settings(
        image=image, batch=batch, rounds=3, window_s=0.1, warmup_s=0.3, limit_s=max(1.0, seconds)
    )
    report = cost(list(models), settings, with_memory=False)
    return {
        row.model: MeasuredCost(
            params=row.count.params,
            megabytes=4 * row.count.params / 1e6,
            ms=1e3 * (row.latency if batch == 1 else row.throughput).median,
            batch=batch,
            quiet=row.latency.quiet and row.throughput.quiet,
        )
        for row in report.rows
    }


def trial_recipe(count: int, seconds: float, seed: int, *, released: bool) -> Recipe:
    """How a trial of so many seconds trains: as ``vitrail train`` would, from the probe's head."""
    suited = Recipe.suggest(count, released=released, seconds=seconds)
    return replace(
        suited, head_first=False, seed=seed, workers=0, validate_every=1000, precision="fp32"
    )


def fit_rate_to_updates(recipe: Recipe, forward_seconds: float) -> Recipe:
    """The recipe of a trial from trained weights, its rate smaller where its updates are few.

    Adam's first steps are as long as the rate whatever the gradient, and a few of them move good
    features without time to mend them. Some 9 updates took EfficientNet-Lite0 on ``clothing``
    from 82.1 % to 78.0 at 3e-4, and to 83.2 at 5e-5.

    Args:
        recipe: with a budget of seconds.
        forward_seconds: that the model takes for an image; a step takes some three times as long.
    """
    if not forward_seconds or recipe.seconds is None:
        return recipe
    updates = recipe.seconds / (STEP_COST * forward_seconds * recipe.batch)
    share = min(1.0, updates / FULL_RATE_UPDATES)
    return replace(recipe, lr=share * recipe.lr, min_lr=share * recipe.min_lr)
