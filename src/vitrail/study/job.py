"""One job for real: build, train (or go on), then answer the study's test pictures.

arm -> model -> train.fit in ``run/`` -> best weights -> test pictures -> Record
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vitrail.study.maps import overlays
from vitrail.study.plan import Job, StudyPlan, split_start
from vitrail.study.record import JobRecord, Mistake
from vitrail.study.setup import StudySetup

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from vitrail.data import Preprocess
    from vitrail.hub.origin import Weights
    from vitrail.train import Result

THUMBNAIL, WORST = 112, 8


def check(arm: str, setup: StudySetup) -> None:
    """Build an arm and let it look at one blank picture, before anything is trained.

    Raises:
        UserError: no such model, or one that cannot take the study's pictures.
    """
    from vitrail.hub.teachers import open_teacher
    from vitrail.tasks.distill import check_maps
    from vitrail.train.job import build_model, create_card
    from vitrail.train.optim import create_optimizer
    from vitrail.train.small_batches import check_batch_norm

    size, in_chans = setup.plan.image, setup.preprocess.in_chans
    text, weights = find_start(arm, setup.plan.weights_folder)
    card = create_card(text, setup.pictures, preprocess_of(weights, setup))
    recipe = setup.recipe_from(arm)
    model = build_model(card, recipe, weights)
    create_optimizer(model, recipe)
    if setup.recipe.teacher:
        teacher = open_teacher(setup.recipe.teacher, card)
        if setup.recipe.distill.feature:
            check_maps(model, teacher, (in_chans, size, size))
    for job in {job.share: job for job in setup.plan.jobs}.values():
        count = len(setup.parts(job)["train"])
        check_batch_norm(model, arm, (in_chans, size, size), recipe=recipe, count=count)


def find_start(arm: str, folder: str | None = None) -> "tuple[str, Weights | None]":
    """The text of an arm's model and its first weights, released ones out of ``folder``.

    Raises:
        UserError: they cannot be had: an arm from scratch under another name would be no evidence.
    """
    from vitrail.hub.released import find_released, require_same_parts
    from vitrail.hub.weights import AUTO, find_weights

    text, word = split_start(arm)
    if word != AUTO:
        return text, find_weights(word, text, folder)
    require_same_parts(text)
    return text, find_released(text, folder=folder)


def starts_of(plan: StudyPlan) -> list[dict[str, Any]]:
    """Where each arm that starts from weights has them from: source, licence, digest."""
    from vitrail.hub.origin import is_non_commercial
    from vitrail.models.reader import choice
    from vitrail.tensors import file_digest

    found = {arm: find_start(arm, plan.weights_folder)[1] for arm in plan.arms}
    return [
        {
            "arm": arm,
            "source": weights.source,
            "place": weights.place,
            "revision": weights.revision,
            "licence": weights.licence,
            "is_non_commercial": is_non_commercial(weights.licence),
            "sha256": file_digest(choice(weights.file)[0]),
        }
        for arm, weights in found.items()
        if weights is not None
    ]


def preprocess_of(weights: "Weights | None", setup: StudySetup) -> "Preprocess":
    """The study's size for all arms; colours and resizing as an arm's weights were trained with."""
    from vitrail.train.start import follow_weights

    if weights is None:
        return setup.preprocess
    return follow_weights(weights, {"in_chans": setup.preprocess.in_chans}, setup.plan.image)


def train(job: Job, setup: StudySetup, at: Path, tell: Callable[..., None]) -> JobRecord:
    """Train a job in ``at/run``, going on from its checkpoint, and evaluate its best weights."""
    from vitrail.data import Preprocess
    from vitrail.tasks import load_weights
    from vitrail.train import read_run
    from vitrail.train.fit import fit_job
    from vitrail.train.job import TrainingJob
    from vitrail.train.setup import fit_recipe_to_head

    run, recipe = at / "run", setup.recipe_of(job)
    text, weights = find_start(job.arm, setup.plan.weights_folder)
    if weights is not None:
        recipe = replace(recipe, weights=weights.source)
    training = TrainingJob.create(
        text,
        setup.pictures,
        setup.parts(job),
        recipe,
        preprocess_of(weights, setup),
        weights=weights,
    )
    training = fit_recipe_to_head(training, setup.plan.recipe)
    result = fit_job(
        training,
        run,
        resume=True,
        progress=False,
        on_event=lambda event: _pass_on(event, tell),
    )
    training.model.load_state_dict(load_weights(run / "best.safetensors"))
    seen = replace(setup, preprocess=Preprocess.from_dict(training.card.preprocess))
    record = evaluate(job, seen, training.model, result, read_run(run).metrics)
    return replace(record, digest=setup.digest_of(job))


def _pass_on(event: Mapping[str, Any], tell: Callable[..., None]) -> None:
    """The trainer's events as the study's progress shows them."""
    if event["kind"] == "step":
        tell(done=event["done"], what=f"epoch {event['epoch'] + 1}, loss {event['loss']:.2f}")


def evaluate(
    job: Job,
    setup: StudySetup,
    model: "nn.Module",
    result: "Result",
    curve: Sequence[dict[str, Any]],
) -> JobRecord:
    """The record of a trained model: its answers to the study's test pictures."""
    from vitrail.tasks.classify import score_logits

    logits, labels = answers(model, setup)
    scores = score_logits(logits, labels, len(setup.pictures.classes))
    confidences = logits.softmax(-1).amax(-1).tolist()
    train_count = len(setup.parts(job)["train"])
    return JobRecord(
        digest=setup.digest_of(job),
        arm=job.arm,
        share=job.share,
        seed=job.seed,
        train_count=train_count,
        labels=tuple(scores.labels),
        predictions=tuple(scores.predictions),
        confidences=tuple(round(c, 5) for c in confidences),
        loss=scores.loss,
        accuracy=scores.accuracy,
        balanced_accuracy=scores.balanced_accuracy,
        ece=scores.ece,
        seconds=result.seconds,
        epochs=result.epochs,
        images_seen=result.step * min(setup.recipe.batch, train_count),
        curve=tuple(curve),
        mistakes=worst(setup, model, scores.labels, scores.predictions, confidences),
    )


def answers(model: "nn.Module", setup: StudySetup) -> "tuple[Tensor, Tensor]":
    """Logits ``(N, K)`` and labels ``(N,)`` of the test pictures, in their order."""
    from vitrail.data import ImageTensors, batches, sequential_order
    from vitrail.tasks.classify import collect_logits

    pictures = ImageTensors(setup.pictures, setup.test_items, setup.preprocess.transform(), 0)
    order = sequential_order(len(setup.test_items), batch=max(1, setup.recipe.batch))
    collected = list(collect_logits(model, batches(pictures, order=order)))
    return torch.cat([logits for logits, _ in collected]), torch.cat([y for _, y in collected])


def worst(
    setup: StudySetup,
    model: "nn.Module",
    labels: Sequence[int],
    predictions: Sequence[int],
    confidences: Sequence[float],
) -> tuple[Mistake, ...]:
    """The most confident wrong answers, with small pictures, so that a report needs no data."""
    wrong = [i for i, (y, p) in enumerate(zip(labels, predictions, strict=True)) if y != p]
    wrong = sorted(wrong, key=lambda i: -confidences[i])[:WORST]

    def mistake(i: int) -> Mistake:
        picture = setup.pictures.read(setup.test_items[i])  # one at a time: they may be large
        ((jpeg, method),) = overlays(model, [picture], [predictions[i]], setup.preprocess)
        return Mistake(
            key=setup.test_items[i].key,
            true=setup.pictures.classes[labels[i]],
            predicted=setup.pictures.classes[predictions[i]],
            probability=confidences[i],
            jpeg=thumbnail(picture),
            map=jpeg,
            method=method,
        )

    return tuple(map(mistake, wrong))


def thumbnail(picture: "Image.Image") -> str:
    """A picture of at most ``THUMBNAIL`` px as base64 JPEG (a few kB)."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    held = io.BytesIO()
    small.save(held, "JPEG", quality=82)
    return base64.b64encode(held.getvalue()).decode("ascii")
