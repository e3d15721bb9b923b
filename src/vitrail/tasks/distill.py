"""Distillation: a student learns from labels and from a teacher's logits for the same images.

images -> student -> logits for the label, logits for the teacher
       -> teacher -> logits                                       -> one loss

Soft and hard distillation by DeiT (Touvron et al. 2021, arXiv 2012.12877, section 4, equations 2
and 3); soft after Hinton et al. 2015. ``feature`` adds the distance between normalised maps of
student and teacher, by which a clustered network may learn from its unclustered self (the form is
this project's: ACT's MTKD, arXiv 2011.09315, publishes no formula).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import UserError

Loss = Callable[[Tensor, Tensor], Tensor]
KINDS = ("soft", "hard")


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The kind of distillation and its weights in the loss.

    ``kind="hard"``: ``(1 - alpha) CE(student, label) + alpha CE(student, teacher's best)``.
    ``kind="soft"``: ``(1 - alpha) CE + alpha tau^2 KL(teacher / tau || student / tau)``, the mean
    over images (DeiT's code divides by images times classes instead). DeiT's values: hard
    0.5; soft 0.1 with tau 3. ``feature`` weighs the squared distance of maps, a mean over numbers.
    """

    kind: str = "hard"
    alpha: float = 0.5
    tau: float = 1.0
    feature: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not 0 <= self.alpha <= 1 or self.tau <= 0 or self.feature < 0:
            raise UserError(
                f"kind={self.kind!r}, alpha={self.alpha}, tau={self.tau}, feature={self.feature}: "
                f"kind is {' or '.join(KINDS)}, alpha from 0 to 1, tau above 0, feature not below 0"
            )


def distill(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    how: Distillation,
    loss: Loss = F.cross_entropy,
) -> Tensor:
    """The loss of one batch, a scalar with gradient for the student only.

    Args:
        student: any model ``(B, C, H, W)`` -> ``(B, K)``; one with ``forward_both`` (DeiT's two
            heads) hears the label with one head and the teacher with the other.
        teacher: any model with the same classes; it is asked in evaluation mode and left in the
            mode it had. It sees the student's images, so give it the same normalisation.
        images: ``(B, C, H, W)``.
        targets: labels ``(B,)``, or shares of classes ``(B, K)`` from mixed images.
        how: what weighs how much.
        loss: from logits and targets to a scalar, for the label.

    Raises:
        UserError: teacher and student disagree about classes, or about maps with ``feature``.
    """
    both = getattr(student, "forward_both", student)
    total = distill_loss(
        both(images), teacher_forward(teacher, images), targets, how=how, loss=loss
    )
    if how.feature:
        total = total + how.feature * feature_loss(student, teacher, images)
    return total


def distill_loss(
    student_logits: Tensor | tuple[Tensor, Tensor],
    teacher_logits: Tensor,
    targets: Tensor,
    *,
    how: Distillation,
    loss: Loss = F.cross_entropy,
) -> Tensor:
    """The label's loss and the teacher's, together a scalar.

    Args:
        student_logits: ``(B, K)``, or those for the label and those for the teacher where the
            student has two heads.
        teacher_logits: the teacher's logits ``(B, K)``.
        targets: labels ``(B,)``, or shares of classes ``(B, K)`` from mixed images.
        how: what weighs how much.
        loss: from logits and targets to a scalar, for the label.

    Raises:
        UserError: teacher and student disagree about classes.
    """
    if isinstance(student_logits, tuple):
        label_logits, distill_logits = student_logits
    else:
        label_logits = distill_logits = student_logits
    if teacher_logits.shape != distill_logits.shape:
        classes = distill_logits.shape[-1]
        raise UserError(
            f"the teacher knows {teacher_logits.shape[-1]} classes, the student {classes}; "
            f"build the teacher with classes={classes} and train it on the same pictures"
        )
    term = distill_term(distill_logits, teacher_logits, how)
    return (1 - how.alpha) * loss(label_logits, targets) + how.alpha * term


HARD = Distillation()
SOFT = Distillation(kind="soft", alpha=0.1, tau=3.0)
"""DeiT's two settings (table 3 and appendix of the paper; ``HARD`` is the better one there)."""


@torch.no_grad()
def teacher_forward(teacher: nn.Module, images: Tensor, method: str = "__call__") -> Any:
    """Call a method of the teacher in evaluation mode, without gradient; its mode is restored."""
    training = teacher.training
    teacher.eval()
    try:
        return getattr(teacher, method)(images)
    finally:
        teacher.train(training)


def distill_term(student: Tensor, teacher: Tensor, how: Distillation) -> Tensor:
    """The distance of the student's logits ``(B, K)`` from the teacher's, a scalar."""
    if how.kind == "hard":
        return F.cross_entropy(student, teacher.argmax(-1))
    ours, theirs = (x.float() / how.tau for x in (student, teacher))
    distance = F.kl_div(
        ours.log_softmax(-1), theirs.log_softmax(-1), reduction="batchmean", log_target=True
    )
    return distance * how.tau**2


def feature_loss(student: nn.Module, teacher: nn.Module, images: Tensor) -> Tensor:
    """Mean squared distance of the four maps, each place normalised over channels, summed.

    It costs one more pass through each network.

    Raises:
        UserError: the two have no maps, or none of the same shapes.
    """
    if not all(hasattr(model, "features") for model in (student, teacher)):
        raise _no_maps_error()
    return maps_loss(student.features(images), teacher_forward(teacher, images, "features"))  # type: ignore[operator]


def maps_loss(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """:func:`feature_loss` of maps ``(B, C, H, W)`` that are there already.

    Raises:
        UserError: they are not of the same shapes.
    """
    check_same_shapes(ours, theirs)
    pairs = zip(ours, theirs, strict=True)
    distances = [F.mse_loss(normalise_channels(a), normalise_channels(b)) for a, b in pairs]
    return torch.stack(distances).sum()


def check_maps(student: nn.Module, teacher: nn.Module, image: tuple[int, int, int]) -> None:
    """Refuse, by one blank image, what :func:`feature_loss` cannot compare.

    Raises:
        UserError: as it does.
    """
    shown = []
    for model in (student, teacher):
        if not hasattr(model, "features"):
            raise _no_maps_error()
        device, training = next(model.parameters()).device, model.training
        try:
            with torch.no_grad():
                shown.append(model.eval().features(torch.zeros(1, *image, device=device)))  # type: ignore[operator]
        finally:
            model.train(training)
    check_same_shapes(*shown)


def check_same_shapes(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Maps are compared place by place.

    Raises:
        UserError: they are not of the same shapes.
    """
    if [m.shape for m in ours] != [m.shape for m in theirs]:
        shapes = [[tuple(m.shape[1:]) for m in maps] for maps in (ours, theirs)]
        raise UserError(
            f"maps of student and teacher differ, {shapes[0]} and {shapes[1]}; feature > 0 is for "
            "two of the same widths, such as a clustered model and its plain one; use feature=0"
        )


def _no_maps_error() -> UserError:
    return UserError("feature > 0 needs maps of both; give two Vitrail backbones, or feature=0")


def normalise_channels(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` with mean 0 and variance 1 over the channels of each place."""
    return F.layer_norm(x.permute(0, 2, 3, 1).float(), x.shape[1:2])
