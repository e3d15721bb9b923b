"""What is explained: one score for every sample, read off the model's output.

A class is a number; other heads give a callable from the output to ``(B,)``::

    explain(model, images, target=3)                         # the logit of class 3
    explain(model, images, target=contrast(3, 5))            # what speaks for 3 rather than 5
    explain(segmenter, images, target=class_in_region(2, mask))
    explain(detector, images, target=box_score(0))
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vitrail.explain.guard import ExplainError

Target = None | int | Sequence[int] | Callable[[Any], Tensor]
"""None: the predicted class; a class for all; one each; or a callable output -> ``(B,)``."""


@dataclass(frozen=True)
class Goal:
    """A target that is settled.

    Attributes:
        classes: one class a sample.
        callable: or what reads the score off the output.
    """

    classes: tuple[int, ...] = ()
    callable: Callable[[Any], Tensor] | None = None

    def __call__(self, output: Any) -> Tensor:
        """The model's output -> scores ``(B,)``, in the output's precision.

        Raises:
            ExplainError: no target, or an output that the target cannot read.
        """
        if self.callable is not None:
            return self._called(output)
        if not self.classes:
            raise ExplainError("nothing to explain: the output holds no classes; give a target")
        logits = logits_of(output)
        picked = torch.tensor(self.classes, device=logits.device).expand(logits.shape[0])
        return logits.gather(1, picked[:, None])[:, 0]

    def of(self, sample: int) -> "Goal":
        """The goal of one sample, for outputs of any number of variants of it."""
        return replace(self, classes=self.classes[sample : sample + 1])

    @property
    def label(self) -> tuple[int, ...] | str | None:
        """What to write down: the classes, or the callable's name."""
        if self.callable is None:
            return self.classes or None
        return getattr(self.callable, "__name__", type(self.callable).__name__)

    def _called(self, output: Any) -> Tensor:
        assert self.callable is not None
        score = self.callable(output)
        if not isinstance(score, Tensor) or score.dim() > 1:
            said = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise ExplainError(
                f"target {self.label!r} gave {said}; it must give one score a sample, (B,)"
            )
        return score.reshape(-1)


def resolve(target: Target, output: Any, count: int) -> Goal:
    """Settle a target on the output of ``count`` clean images.

    Raises:
        ExplainError: an unknown class, not one a sample, or an output without classes.
    """
    if callable(target):
        goal = Goal(callable=target)
        if goal(output).shape[0] != count:
            raise ExplainError(
                f"target {goal.label!r} gave one score for {count} images; it must give one "
                "each, (B,), or be asked image by image"
            )
        return goal
    logits = logits_of(output)
    if target is None:
        return Goal(tuple(logits.argmax(1).tolist()))
    classes = tuple([target] * count if isinstance(target, int) else [int(t) for t in target])
    if len(classes) != count:
        raise ExplainError(f"{len(classes)} targets for {count} images; give one for all, or each")
    for wanted in classes:
        if not 0 <= wanted < logits.shape[1]:
            raise ExplainError(
                f"target {wanted}: the model knows classes 0 to {logits.shape[1] - 1}"
            )
    return Goal(classes)


def has_classes(output: Any) -> bool:
    """Whether the output is logits ``(B, K)``."""
    return isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 0


def logits_of(output: Any) -> Tensor:
    """The output as logits ``(B, K)``.

    Raises:
        ExplainError: it is something else, which only a callable target can read.
    """
    if has_classes(output):
        return output
    said = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise ExplainError(
        f"the model gives {said}, not logits (B, classes); give target= a callable that reads "
        "one score a sample off it (vitrail.explain.class_in_region, vitrail.explain.box_score)"
    )


def contrast(this: int, other: int) -> Callable[[Tensor], Tensor]:
    """What speaks for one class rather than another: the difference of their logits."""

    def difference(output: Tensor) -> Tensor:
        return output[:, this] - output[:, other]

    difference.__name__ = f"contrast({this}, {other})"
    return difference


def class_in_region(label: int, region: Tensor | None = None) -> Callable[[Any], Tensor]:
    """The mean logit of a class inside a region, for outputs ``(B, K, H, W)``.

    Args:
        label: the class.
        region: ``(H, W)`` or ``(B, H, W)``, true inside; at another size it is resized to the
            output's by its nearest pixels. None: wherever the output puts the class first.
    """

    def mean_logit(output: Any) -> Tensor:
        maps = output["out"] if isinstance(output, dict) else output  # torchvision's segmenters
        wanted = maps[:, label]
        inside = (maps.argmax(1) == label) if region is None else _fit(region, wanted)
        if not inside.flatten(1).any(1).all():
            raise ExplainError(
                f"class {label} has no pixel inside the region; choose another region or class"
            )
        inside = inside.to(wanted.dtype)
        return (wanted * inside).sum((1, 2)) / inside.sum((1, 2))

    mean_logit.__name__ = f"class_in_region({label})"
    return mean_logit


def _fit(region: Tensor, like: Tensor) -> Tensor:
    """A region at the size of ``like`` ``(B, H, W)``, on its device."""
    region = region[None] if region.dim() == 2 else region
    region = region.to(like.device, torch.float32)[:, None]
    resized = torch.nn.functional.interpolate(region, like.shape[1:], mode="nearest")
    return resized[:, 0].expand(like.shape) > 0.5


def box_score(index: int, label: int | None = None) -> Callable[[Any], Tensor]:
    """The score of one box, for detectors that give a dict (or instances) with ``scores`` an image.

    Args:
        index: the box, in the detector's order (torchvision: best first).
        label: count only boxes of this class.
    """

    def score(output: Any) -> Tensor:
        found = [output] if isinstance(output, dict) else output
        return torch.stack([_box(boxes, index, label) for boxes in found])

    score.__name__ = f"box_score({index})" if label is None else f"box_score({index}, {label})"
    return score


def _box(boxes: dict[str, Tensor], index: int, label: int | None) -> Tensor:
    scores = boxes["scores"]
    if label is not None:
        scores = scores[boxes["labels"] == label]
    if index >= len(scores):
        of = "" if label is None else f" of class {label}"
        raise ExplainError(f"box {index}: the detector found {len(scores)} boxes{of}")
    return scores[index]
