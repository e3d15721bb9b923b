"""Teachers by word: a run of one's own, or a model of timm's with its released weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitrail.errors import UserError
from vitrail.hub.baselines import TIMM
from vitrail.hub.names import build
from vitrail.hub.released import find_released, timm_config
from vitrail.hub.runs import load
from vitrail.hub.weights import is_repository

if TYPE_CHECKING:
    from vitrail.tasks.card import Card
    from vitrail.tasks.teacher import Teacher


def open_teacher(word: str, card: "Card") -> "Teacher":
    """The teacher that ``word`` names, for a student with this card.

    ``"timm:resnet50.a1_in1k"`` is timm's model with its weights (from a weights folder, the cache
    or the net); anything else is a run folder, one file of weights in it, or what was trained and
    put on the hub as ``owner/name``.

    Raises:
        UserError: no such teacher, weights that cannot be had, or one that does not know all of
            the student's classes.
    """
    return teacher_from_timm(word, card) if word.startswith(TIMM) else teacher_from_run(word, card)


def teacher_from_run(word: str, card: "Card") -> "Teacher":
    """The best weights of a run, here or on the hub; it may know more classes than its student."""
    from vitrail.tasks.teacher import Teacher

    if not Path(word).exists() and not is_repository(word):
        raise UserError(
            f"no teacher at {word!r}; give a run folder ('vitrail train' makes one), or timm:NAME, "
            "or OWNER/NAME on the hub"
        )
    run = load(word, device="cpu")
    return Teacher(
        run.model,
        name=word,
        own=run.card.preprocess,
        student=card.preprocess,
        order=class_indices(card.classes, run.classes, word),
    )


def class_indices(wanted: Sequence[str], known: Sequence[str], word: str) -> list[int]:
    """Where each wanted class stands among the known ones.

    Raises:
        UserError: some are not known.
    """
    place = {name: i for i, name in enumerate(known)}
    missing = [name for name in wanted if name not in place]
    if missing:
        raise UserError(
            f"the teacher {word!r} does not know {len(missing)} of the {len(wanted)} classes, such "
            f"as {missing[0]!r}; train it on the same pictures"
        )
    return [place[name] for name in wanted]


def teacher_from_timm(word: str, card: "Card") -> "Teacher":
    """timm's weights; nothing is downloaded for a teacher of another number of classes."""
    from vitrail.tasks.teacher import Teacher

    count = timm_config(word)["num_classes"]
    if count != len(card.classes):
        raise UserError(
            f"{word} knows {count} classes, these pictures have {len(card.classes)}; train it on "
            f"them (vitrail train DATA --model {word}) and give that run's folder as the teacher"
        )
    weights = find_released(word)
    model = build(word, {"classes": count, "image": weights.image}, weights=weights)
    return Teacher(model, name=word, own=weights.preprocess, student=card.preprocess)
