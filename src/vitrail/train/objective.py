"""What an update makes small: the label's loss, and with a teacher what the teacher says too."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.models.backbone import WithMaps
from vitrail.tasks.distill import ask, map_distance, maps_apart, weigh
from vitrail.tasks.teacher import Teacher
from vitrail.train.balance import weighted_shares
from vitrail.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of a micro-batch.

    The teacher sees what the student sees, augmented and mixed; it draws no chance and learns
    nothing, so a run with one resumes to the bit. ``student`` is the bare model, for its maps.
    ``weights`` ``(K,)`` weigh the classes of the labels; the teacher's word is not weighed.
    """

    recipe: Recipe
    student: nn.Module
    teacher: Teacher | None
    autocast: Callable[[], AbstractContextManager[Any]]
    weights: Tensor | None = None

    def __call__(
        self, heard: Tensor | tuple[Tensor, Tensor], images: Tensor, targets: Tensor
    ) -> Tensor:
        """From the student's logits (two of them from two heads), pictures and targets.

        A student that gives its maps too (see :func:`prepare`) is compared by these.
        """
        if isinstance(heard, WithMaps) and self.teacher is not None:
            return self.with_maps(heard, self.teacher, images, targets)
        if self.teacher is None:
            return self.label_loss(heard[0] if isinstance(heard, tuple) else heard, targets)
        how = self.recipe.distill
        with self.autocast():
            said = ask(self.teacher, images)
        total = weigh(heard, said.float(), targets, how=how, loss=self.label_loss)
        if how.feature:
            with self.autocast():
                total = total + how.feature * map_distance(self.student, self.teacher, images)
        return total

    def with_maps(
        self, heard: WithMaps, teacher: Teacher, images: Tensor, targets: Tensor
    ) -> Tensor:
        """As before, from one pass through each network."""
        how = self.recipe.distill
        with self.autocast():
            said, shown = ask(teacher, images, "both")
        total = weigh(heard.logits, said.float(), targets, how=how, loss=self.label_loss)
        return total + how.feature * maps_apart(heard.maps, shown)

    def label_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits ``(B, K)`` with labels ``(B,)`` or shares ``(B, K)``."""
        smoothing = self.recipe.smoothing
        if self.weights is None:
            return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        return F.cross_entropy(logits.float(), weighted_shares(targets, self.weights, smoothing))


def prepare(
    student: nn.Module, teacher: Teacher | None, device: torch.device, feature: float = 0.0
) -> None:
    """With a teacher: it moves to the student, whose second head (if any) is heard in training.

    A student with one head gives its maps with its logits, where ``feature`` weighs them.
    """
    if teacher is None:
        return
    teacher.to(device)
    both = getattr(student, "set_distilled_training", None)
    maps = getattr(student, "set_map_training", None)
    if both is not None:
        both()
    elif maps is not None and feature:
        maps()
