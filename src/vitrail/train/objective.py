"""The training loss: cross-entropy with the labels, and distillation where there is a teacher."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.models.backbone import WithMaps
from vitrail.tasks.distill import distill_loss, feature_loss, maps_loss, teacher_forward
from vitrail.tasks.teacher import Teacher
from vitrail.train.balance import weighted_targets
from vitrail.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of a micro-batch.

    The teacher gets the student's images, augmented and mixed. It uses no random numbers and does
    not learn, so a run with a teacher resumes to the bit. ``student`` is the unwrapped model, for
    its maps.
    ``weights`` ``(K,)`` weigh the classes of the labels, not the distillation term.
    """

    recipe: Recipe
    student: nn.Module
    teacher: Teacher | None
    autocast: Callable[[], AbstractContextManager[Any]]
    weights: Tensor | None = None

    def __call__(
        self, student_logits: Tensor | tuple[Tensor, Tensor], images: Tensor, targets: Tensor
    ) -> Tensor:
        """From the student's logits (two of them from two heads), images and targets.

        A student that gives its maps too (see :func:`configure_student`) is compared by these.
        """
        if isinstance(student_logits, WithMaps) and self.teacher is not None:
            return self.with_maps(student_logits, self.teacher, images, targets)
        if self.teacher is None:
            return self.label_loss(
                student_logits[0] if isinstance(student_logits, tuple) else student_logits, targets
            )
        how = self.recipe.distill
        with self.autocast():
            teacher_logits = teacher_forward(self.teacher, images)
        total = distill_loss(
            student_logits, teacher_logits.float(), targets, how=how, loss=self.label_loss
        )
        if how.feature:
            with self.autocast():
                total = total + how.feature * feature_loss(self.student, self.teacher, images)
        return total

    def with_maps(
        self, student_logits: WithMaps, teacher: Teacher, images: Tensor, targets: Tensor
    ) -> Tensor:
        """As before, from one pass through each network."""
        how = self.recipe.distill
        with self.autocast():
            teacher_logits, teacher_maps = teacher_forward(teacher, images, "logits_and_maps")
        total = distill_loss(
            student_logits.logits, teacher_logits.float(), targets, how=how, loss=self.label_loss
        )
        return total + how.feature * maps_loss(student_logits.maps, teacher_maps)

    def label_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits ``(B, K)`` with labels ``(B,)`` or shares ``(B, K)``."""
        smoothing = self.recipe.smoothing
        if self.weights is None:
            return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        return F.cross_entropy(logits.float(), weighted_targets(targets, self.weights, smoothing))


def configure_student(
    student: nn.Module, teacher: Teacher | None, device: torch.device, feature: float = 0.0
) -> str:
    """The student's method that training calls; with a teacher, which moves to the device.

    A student with two heads gives both heads' logits; one with one head gives its maps with its
    logits, where ``feature`` weighs them. timm's own two-headed models have a switch for that.
    """
    if teacher is None:
        return "forward"
    teacher.to(device)
    if hasattr(student, "forward_both"):
        return "forward_both"
    if hasattr(student, "set_distilled_training"):
        student.set_distilled_training()  # type: ignore[operator]
        return "forward"
    return "forward_with_maps" if feature and hasattr(student, "forward_with_maps") else "forward"


@dataclass(frozen=True)
class StudentCall:
    """Calls a method of the student as the processes want it: through the model they wrapped.

    A wrapper hears nothing but ``forward``, so for the length of a call the method stands in its
    place on the student inside.

    Attributes:
        model: the student, or what the processes wrapped it in.
        student: itself.
        method: the method's name.
        autocast: the precision of the pass.
    """

    model: nn.Module
    student: nn.Module
    method: str
    autocast: Callable[[], AbstractContextManager[Any]]

    def __call__(self, images: Tensor) -> Any:
        """What the method gives for ``(B, C, H, W)``."""
        if self.method == "forward":
            return self.model(images)
        own = self.student.__dict__.get("forward")
        self.student.forward = self.run
        try:
            return self.model(images)
        finally:
            del self.student.forward
            if own is not None:
                self.student.forward = own

    def run(self, images: Tensor) -> tuple[Any, ...]:
        """The method, in the precision of the pass; logits come in single precision."""
        with self.autocast():
            found = getattr(self.student, self.method)(images)
        if isinstance(found, WithMaps):
            return WithMaps(found.logits.float(), found.maps)
        return tuple(logits.float() for logits in found)
