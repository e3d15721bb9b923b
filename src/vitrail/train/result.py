"""What came of a training: its figures, and the trained model."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from torch import Tensor, nn

from vitrail.errors import UserError
from vitrail.hub.runs import Classifier, Images, load
from vitrail.schema import convert
from vitrail.train.folder import EpochRow


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a run; the same as ``result.json``, and the trained model, opened when asked.

    ``best`` and ``last`` are rows of ``metrics.jsonl``; ``scores`` are those of the best weights
    by part (val, test): loss, accuracy, ..., confusion, labels and predictions in the order of
    the manifest. ``images_per_s`` is training as it was, ``model_images_per_s`` without waiting
    for images, ``loader_images_per_s`` the loader working alone.
    """

    folder: str
    epochs: int
    step: int
    seconds: float
    stopped_early: bool
    best: dict[str, Any]
    last: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    images_per_s: float
    model_images_per_s: float
    loader_images_per_s: float

    @property
    def run(self) -> Path:
        """The run folder; ``vitrail.load`` takes it."""
        return Path(self.folder)

    @cached_property
    def classifier(self) -> Classifier:
        """The best weights, ready to predict."""
        return load(self.run)

    @property
    def model(self) -> nn.Module:
        """The model with its best weights, in evaluation mode."""
        return self.classifier.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits."""
        return self.classifier.classes

    def predict(self, images: Images) -> Tensor:
        """Probabilities ``(B, classes)`` of PIL images, or of a tensor with values from 0 to 1."""
        return self.classifier.predict(images)


def read_result(values: Mapping[str, Any], out: str | Path) -> Result:
    """A finished run's ``result.json``, wherever its folder lies now."""
    where = repr(str(Path(out) / "result.json"))
    given = {**values, "folder": str(out)}
    lacking = [f.name for f in fields(Result) if f.name not in given]
    if lacking:
        raise UserError(f"{where} lacks {', '.join(lacking)}; take it from a copy, or train anew")
    kinds = {
        n: kind | None if kind is float else kind for n, kind in get_type_hints(Result).items()
    }
    kinds |= dict.fromkeys(("best", "last"), EpochRow)
    return Result(**{n: convert(kind, given[n], f"{where}: {n}") for n, kind in kinds.items()})
