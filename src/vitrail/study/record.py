"""What a study leaves on disk for its analysis: one ``evaluation.json`` a job, costs an arm."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.files import write_text


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
class Record:
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
    curve: tuple[dict[str, float], ...] = ()
    mistakes: tuple[Mistake, ...] = ()

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``(pictures,)``: which test pictures were answered rightly."""
        return np.asarray(self.labels) == np.asarray(self.predictions)

    def save(self, path: Path) -> None:
        """Write as JSON, at once or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Read what :meth:`save` wrote."""
        told = json.loads(path.read_text(encoding="utf-8"))
        told["mistakes"] = tuple(Mistake(**m) for m in told["mistakes"])
        for name in ("labels", "predictions", "confidences", "curve"):
            told[name] = tuple(told[name])
        return cls(**told)


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


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1))
