"""What a study leaves on disk for its analysis: one ``evaluation.json`` a job, costs an arm."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.digests import add_digest
from vitrail.errors import UserError
from vitrail.files import write_text
from vitrail.schema import convert, read_json


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A wrong answer given with confidence, with its small picture as base64 JPEG.

    ``map`` is where the answer lies over what the model saw, by ``method``; empty if none served.
    """

    key: str
    true: str
    predicted: str
    probability: float
    jpeg: str
    map: str = ""
    method: str = ""


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One finished job: its place in the plan, its answers on the test pictures, its price.

    ``labels``, ``predictions`` and ``confidences`` (probability of the prediction) are in the
    order of the study's test pictures, the same for every job. ``seconds`` is training alone.
    """

    digest: str
    arm: str
    share: float
    seed: int
    train_count: int
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    confidences: tuple[float, ...]
    loss: float
    accuracy: float
    balanced_accuracy: float
    ece: float
    seconds: float
    epochs: int
    images_seen: int
    curve: tuple[dict[str, int | float | None], ...] = ()
    mistakes: tuple[Mistake, ...] = ()

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``(pictures,)``: which test pictures were answered rightly."""
        return np.asarray(self.labels) == np.asarray(self.predictions)

    def save(self, path: Path) -> None:
        """Write as JSON, at once or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "JobRecord":
        """Read what :meth:`save` wrote."""
        found: JobRecord = read_json(path, cls)
        if not len(found.labels) == len(found.predictions) == len(found.confidences):
            raise UserError(f"{str(path)!r}: labels, predictions and confidences differ in number")
        counts = (found.train_count, found.epochs, found.images_seen)
        if min(*counts, *found.labels, *found.predictions) < 0:
            raise UserError(f"{str(path)!r}: counts, labels and predictions must be numbers from 0")
        if not 0 < found.share <= 1:
            raise UserError(f"{str(path)!r}: share must be above 0, at most 1, not {found.share}")
        if not (math.isfinite(found.seconds) and found.seconds >= 0):
            raise UserError(f"{str(path)!r}: seconds must be a number from 0, not {found.seconds}")
        return found


@dataclass(frozen=True, kw_only=True)
class JobEntry:
    """A job in ``study.json``: its folder inside the study, and the digest of what it is."""

    folder: str
    digest: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.folder).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in self.folder:
            raise UserError(f"a job's folder lies inside its study, not at {self.folder!r}")


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a report tells of a study's pictures."""

    name: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    tested_on: str
    tested: int
    manifest: str
    problems: tuple[str, ...]
    problem_count: int


@dataclass(frozen=True, kw_only=True)
class StartFacts:
    """What a report tells of the weights of an arm."""

    arm: str
    source: str
    sha256: str
    place: str = ""
    revision: str | None = None
    licence: str | None = None
    is_non_commercial: bool = False


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """The facts that the report shows; their values are for people where no type is named."""

    data: DataFacts
    preprocess: dict[str, Any]
    recipe: dict[str, Any]
    machine: dict[str, Any]
    command: str
    started: str
    jobs: int
    budget: str
    starts: tuple[StartFacts, ...] = ()
    fine_tuning: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """What the report reads of the plan."""

    arms: tuple[str, ...]
    data: str
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """``study.json``."""

    digest: str
    plan: dict[str, Any]
    facts: dict[str, Any]
    jobs: tuple[JobEntry, ...]
    ground: Any = None

    @classmethod
    def load(cls, path: Path) -> "StudyFile":
        """Read the facts of a study.

        Raises:
            UserError: they cannot be read, or are of another shape.
        """
        found: StudyFile = read_json(path, cls)
        where = repr(str(path))
        if not re.fullmatch("[0-9a-f]{1,64}", found.digest):
            raise UserError(f"{where}: digest must be hexadecimal, not {found.digest[:60]!r}")
        convert(PlanFacts, found.plan, f"{where}: plan", extra_keys=True)
        convert(StudyFacts, found.facts, f"{where}: facts", extra_keys=True)
        return found


@dataclass(frozen=True, kw_only=True)
class ArmCost:
    """What one arm costs at the study's image size; times are medians of interleaved windows.

    ``latency``: seconds a picture at batch 1; ``throughput``: pictures a second at ``batch``;
    spreads are interquartile ranges in the same units; ``memory``: peak bytes of a training step,
    ``None`` where it could not be measured; ``quiet``: no other program disturbed the clock.
    """

    params: int
    macs: int
    latency: float
    latency_spread: float
    throughput: float
    throughput_spread: float
    batch: int
    memory: int | None = None
    quiet: bool = True

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"the cost {name} must be a number from 0, not {value}")
        if not (self.batch and self.latency and self.throughput):
            raise UserError("the costs batch, latency and throughput must be above 0")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest, whole or not at all."""
    write_text(path, json.dumps(add_digest(content), ensure_ascii=False, indent=1))
