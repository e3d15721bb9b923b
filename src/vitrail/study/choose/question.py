"""What is asked, of which pictures, and with which tools."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import nn

from vitrail.data import ImageDataset, Item, Preprocess, take_fraction
from vitrail.data.fractions import choose_validation
from vitrail.errors import UserError
from vitrail.limits import check_seed, check_share
from vitrail.study.choose.state import ChoiceEntry, MeasuredCost
from vitrail.train.probe import LinearProbe

MOST_MINUTES = 10**5
LEAST_ASKED = 20
"""Fewer pictures than this in either half of the validation part tell nothing apart."""
WANTED_LAST, MOST_TAKEN = 500, 0.125
"""Pictures for the estimate, and the share of the training part that may be taken for it."""

Note = Callable[[str], None]
"""Takes a line for people."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        data: a folder of class folders, a table, a zip, torchvision:NAME, fashion or scenes.
        minutes: for everything, reading pictures included.
        pool: models, calls or patterns; empty for the curated pool.
        weights: word for where candidates start.
        weights_folder: where released weights lie, without a network.
        max_ms: the most milliseconds of a batch, on this machine.
        max_mb: the most megabytes of weights.
        max_params: the most parameters.
        batch: pictures in a batch whose time counts.
        val: share kept for comparing where the set has no validation part.
        seed: of split, rounds and trials.
    """

    data: str
    minutes: float = 10.0
    pool: tuple[str, ...] = ()
    weights: str = "auto"
    weights_folder: str | None = None
    max_ms: float | None = None
    max_mb: float | None = None
    max_params: float | None = None
    batch: int = 1
    val: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("say what to choose for: vitrail choose photos/ (or fashion, to try)")
        if not 0 < self.minutes <= MOST_MINUTES:
            raise UserError(
                f"minutes must be above 0 and at most {MOST_MINUTES}, not {self.minutes}"
            )
        for name in ("max_ms", "max_mb", "max_params"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{name} must be above 0, not {value}")
        if not 1 <= self.batch <= 4096:
            raise UserError(f"batch must be from 1 to 4096, not {self.batch}")
        check_share(self.val, "the validation share")
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which pictures serve what: ``train`` fits, ``compare`` compares, ``last`` is asked once."""

    train: tuple[Item, ...]
    compare: tuple[Item, ...]
    last: tuple[Item, ...]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A candidate, built.

    Attributes:
        model: image ``(B, C, H, W)`` -> features ``(B, D)``.
        preprocess: as its weights want pictures.
        start: where it starts, for people.
        released: whether that is released weights.
    """

    model: nn.Module
    preprocess: Preprocess
    start: str
    released: bool


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """How long a trial lasts, where it is kept, and its seed."""

    seconds: float
    at: Path
    seed: int


class Toolbox(Protocol):
    """What choosing works with; tests put stand-ins here."""

    def pictures(self, question: Question) -> ImageDataset:
        """The set, opened."""
        ...

    def open(self, entry: ChoiceEntry, pictures: ImageDataset) -> Opened:
        """A candidate with its weights and without a head."""
        ...

    def measure(
        self,
        entries: Sequence[ChoiceEntry],
        pictures: ImageDataset,
        question: Question,
        note: Note,
    ) -> Mapping[str, MeasuredCost | str]:
        """What every candidate costs here, by model; a text says why one cannot be measured."""
        ...

    def tune(
        self,
        entry: ChoiceEntry,
        pictures: ImageDataset,
        parts: Parts,
        head: LinearProbe | None,
        trial: TrialPlan,
    ) -> tuple[int, np.ndarray]:
        """Fine-tune for so long, from ``head``: epochs, and predictions on ``parts.compare``."""
        ...

    def answer(self, pictures: ImageDataset, items: Sequence[Item], at: Path) -> np.ndarray:
        """The predictions of what was tuned in ``at``, ``(len(items),)``."""
        ...


def split_parts(pictures: ImageDataset, seed: int) -> Parts:
    """The parts of a set; each class of the validation part is cut in two halves by chance.

    Where the half that is kept for the estimate is small, training pictures join it: 170 pictures
    leave an accuracy of 87 % open by five points on either side, 500 by three.

    Raises:
        UserError: too few pictures to compare by.
    """
    val = pictures.split("val")
    chosen = {item.key for item in take_fraction(val, 0.5, seed)} if val else set()
    compare = tuple(item for item in val if item.key in chosen)
    last = tuple(item for item in val if item.key not in chosen)
    if min(len(compare), len(last)) < LEAST_ASKED:
        raise UserError(
            f"choosing compares by the validation part, which has {len(val)} pictures here; "
            f"{2 * LEAST_ASKED} are the least: add pictures, or raise --val"
        )
    train = pictures.split("train")
    share = min(MOST_TAKEN, (WANTED_LAST - len(last)) / max(1, len(train)))
    kept = choose_validation(train, share, seed) if share > 0 else frozenset()
    return Parts(
        train=tuple(item for item in train if item.key not in kept),
        compare=compare,
        last=(*last, *(item for item in train if item.key in kept)),
    )
