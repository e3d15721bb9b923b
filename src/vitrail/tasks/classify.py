"""Classification: probabilities, and the scores a report shows.

images -> model -> logits (B, K) -> collect over a set -> torchmetrics -> Scores
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import UserError

_TOP = 5


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How well a model does on a labelled set of ``count`` images.

    ``loss`` is the mean cross-entropy, ``accuracy`` the share of right answers,
    ``balanced_accuracy`` the mean of the classes' own shares (classes without an image left
    out), ``top5`` the share with the right class among the best five (None with five classes or
    fewer), ``ece`` the expected calibration error over 15 bins of equal width (Guo et al. 2017),
    ``confusion[i][j]`` how many images of class i were taken for class j.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    top5: float | None
    ece: float
    confusion: list[list[int]]
    count: int
    labels: list[int]
    predictions: list[int]

    def numbers(self) -> dict[str, Any]:
        """The plain figures, ready for JSON: everything but the lists."""
        lists = ("confusion", "labels", "predictions")
        return {k: v for k, v in asdict(self).items() if k not in lists}


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    classes: int,
    device: torch.device | str | None = None,
) -> Scores:
    """Score ``model`` on ``batches`` of (images ``(B, C, H, W)``, labels ``(B,)``, ...).

    Raises:
        UserError: no batch at all.
    """
    collected = list(collect_logits(model, batches, device))
    if not collected:
        raise UserError("nothing to evaluate: the set is empty")
    logits, labels = (torch.cat(parts) for parts in zip(*collected, strict=True))
    return score_logits(logits, labels, classes)


def collect_logits(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    device: torch.device | str | None = None,
) -> Iterable[tuple[Tensor, Tensor]]:
    """Logits ``(B, K)`` in float32 and labels ``(B,)`` of every batch, on the CPU.

    The model is in evaluation mode meanwhile and returns to its own mode afterwards.
    """
    device = _device_of(model) if device is None else device
    training = model.training
    model.eval()
    try:
        for images, labels, *_ in batches:
            with torch.inference_mode():
                logits = model(images.to(device, non_blocking=True))
            yield logits.float().cpu(), labels.cpu()
    finally:
        model.train(training)


def score_logits(logits: Tensor, labels: Tensor, classes: int) -> Scores:
    """Scores of logits ``(N, K)`` against labels ``(N,)``."""
    from torchmetrics.functional import classification as metrics

    probabilities = logits.softmax(-1)
    predicted = logits.argmax(-1)
    confusion = metrics.multiclass_confusion_matrix(predicted, labels, classes)
    seen = confusion.sum(1) > 0
    recalls = confusion.diagonal()[seen].double() / confusion.sum(1)[seen]
    top5 = None
    if classes > _TOP:
        top5 = float(
            metrics.multiclass_accuracy(logits, labels, classes, average="micro", top_k=_TOP)
        )
    return Scores(
        loss=float(nn.functional.cross_entropy(logits, labels)),
        accuracy=int(confusion.diagonal().sum()) / len(labels),
        balanced_accuracy=float(recalls.mean()),
        top5=top5,
        ece=float(metrics.multiclass_calibration_error(probabilities, labels, classes, n_bins=15)),
        confusion=confusion.tolist(),
        count=len(labels),
        labels=labels.tolist(),
        predictions=predicted.tolist(),
    )


def probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """Class probabilities ``(B, K)`` of ``images`` ``(B, C, H, W)``, on the CPU."""
    labels = torch.zeros(len(images), dtype=torch.long)
    ((logits, _),) = collect_logits(model, [(images, labels)])
    return to_probabilities(logits)


def to_probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes.

    Raises:
        UserError: the model answered NaN or infinity.
    """
    if not bool(logits.isfinite().all()):
        raise UserError(
            "the model answers NaN or infinity, no probabilities; its weights are damaged or "
            "trained badly: take other weights"
        )
    return logits.softmax(-1)


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
