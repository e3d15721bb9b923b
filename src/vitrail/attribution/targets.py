"""Targets: one score for every sample, read off the model's output.

A class is a number, or a name where the model or its run knows its classes; other heads give a
callable from the output to ``(B,)``::

    explain(model, images, target=3)                         # the logit of class 3
    explain(open_run("runs/pets"), images, target="cat")     # the logit of the class "cat"
    explain(model, images, target=contrast(3, 5))            # what speaks for 3 rather than 5
    explain(segmenter, images, target=class_in_region(2, mask))
    explain(detector, images, target=box_score(0))
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from vitrail.attribution.preserve import ExplainError
from vitrail.errors import unknown

Class = int | str
"""A class by its number, or by its name."""
Target = None | Class | Sequence[Class] | Callable[[Any], Tensor]
"""None: the predicted class; a class for all; one each; or a callable output -> ``(B,)``."""


@dataclass(frozen=True)
class Goal:
    """A resolved target.

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
            return self._call(output)
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

    def _call(self, output: Any) -> Tensor:
        assert self.callable is not None
        score = self.callable(output)
        if not isinstance(score, Tensor) or score.dim() > 1:
            said = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise ExplainError(
                f"target {self.label!r} gave {said}; it must give one score a sample, (B,)"
            )
        return score.reshape(-1)


def resolve(target: Target, output: Any, count: int) -> Goal:
    """Resolve a target on the output of ``count`` clean images.

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
    each = [target] * count if is_one(target) else list(cast(Sequence[Class], target))
    classes = tuple(class_number(one) for one in each)
    if len(classes) != count:
        raise ExplainError(f"{len(classes)} targets for {count} images; give one for all, or each")
    for wanted in classes:
        if not 0 <= wanted < logits.shape[1]:
            raise ExplainError(
                f"target {wanted}: the model knows classes 0 to {logits.shape[1] - 1}"
            )
    return Goal(classes)


def is_one(target: Any) -> bool:
    """Whether a target is one class: a number of any library, or a name."""
    return isinstance(target, str) or (hasattr(target, "__index__") and _is_single(target))


def _is_single(target: Any) -> bool:
    return not isinstance(target, Tensor) or target.dim() == 0


def class_number(wanted: Any) -> int:
    """A class as a number.

    Raises:
        ExplainError: it is something else.
    """
    if isinstance(wanted, str) or not hasattr(wanted, "__index__"):
        raise ExplainError(
            f"target {wanted!r} is no number, and this model does not know its classes by name; "
            "give a number, the run that vitrail.hub.open_run opened, or set model.class_names"
        )
    return int(wanted.__index__())


def class_names(model: Any) -> tuple[str, ...]:
    """The classes that a run (``classes``) or a module (``class_names``) knows by name."""
    for holder in ("classes", "class_names"):
        names = getattr(model, holder, None)
        if isinstance(names, tuple | list) and names and all(isinstance(n, str) for n in names):
            return tuple(names)
    return ()


def names_to_numbers(target: Target, names: Sequence[str]) -> Target:
    """``target`` with names of classes as numbers; as it is where no names are known.

    Raises:
        UserError: no such class.
    """
    if not names or target is None or callable(target):
        return target
    if is_one(target):
        return find_class(target, names) if isinstance(target, str) else target
    each = cast(Sequence[Class], target)
    return [find_class(one, names) if isinstance(one, str) else one for one in each]


def find_class(text: str, names: Sequence[str]) -> int:
    """The number of a class: by its name, else by the number itself.

    Raises:
        UserError: no such class; with the close ones.
    """
    if text in names:
        return list(names).index(text)
    if text.isdecimal() and len(text) < 10 and int(text) < len(names):
        return int(text)
    raise unknown("class", text, names)


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
        "one score a sample off it (class_in_region, box_score of vitrail.attribution)"
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
