"""A trained model that gets a student's images as it was trained to see them.

student's images (augmented, mixed, normalised) -> the teacher's normalisation -> its size
        -> the teacher -> logits of the student's classes, in the student's order
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import UserError


class Teacher(nn.Module):
    """A model that is evaluated and never trained.

    Args:
        model: ``(B, C, H, W)`` -> logits.
        name: what a person called it; kept in the run.
        own: the preprocessing it was trained with (a card's ``preprocess``: mean, std, image).
        student: the preprocessing of the student's images.
        order: for each of the student's classes, which of the teacher's logits it is; by default
            they are the same.

    Raises:
        UserError: it learned from images with another number of channels.
    """

    scale: Tensor
    shift: Tensor
    order: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        own: Mapping[str, Any],
        student: Mapping[str, Any],
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.name, self.image = model, name, int(own["image"])
        mean, std, other_mean, other_std = (
            torch.tensor(values).view(1, -1, 1, 1)
            for values in (own["mean"], own["std"], student["mean"], student["std"])
        )
        if mean.shape != other_mean.shape:
            raise UserError(
                f"the teacher {name} sees pictures of {mean.numel()} channels, these have "
                f"{other_mean.numel()}; train it on pictures like these"
            )
        self.register_buffer("scale", other_std / std, persistent=False)
        self.register_buffer("shift", (other_mean - mean) / std, persistent=False)
        index = None if order is None else torch.tensor(order)
        self.register_buffer("order", index, persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Teacher":
        """A teacher stays in evaluation mode."""
        return super().train(False)

    def preprocess(self, images: Tensor) -> Tensor:
        """The student's images ``(B, C, H, W)`` as the teacher knows images."""
        images = images * self.scale + self.shift
        if images.shape[-2:] == (self.image, self.image):
            return images
        size = (self.image, self.image)
        return F.interpolate(images, size, mode="bilinear", antialias=True)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> logits ``(B, K)`` of the student's classes."""
        logits: Tensor = self.model(self.preprocess(images))
        return logits if self.order is None else logits[:, self.order]

    def logits_and_maps(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """:meth:`forward` and :meth:`features`, from one pass where the model can do that."""
        once = getattr(self.model, "features_and_last", None)
        if once is None:
            return self(images), self.features(images)
        maps, last = once(self.preprocess(images))
        logits: Tensor = self.model.forward_head(last)  # type: ignore[operator]
        return logits if self.order is None else logits[:, self.order], maps

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps of a Vitrail backbone.

        Raises:
            UserError: the teacher has none.
        """
        maps = getattr(self.model, "features", None)
        if maps is None or isinstance(maps, nn.Module):
            raise UserError(f"the teacher {self.name} has no maps; use feature=0")
        found: tuple[Tensor, ...] = maps(self.preprocess(images))
        return found

    def facts(self) -> dict[str, Any]:
        """What a run keeps: the name, the size it looks at, and a SHA-256 of its weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            plain = tensor.detach().to("cpu").contiguous().reshape(-1)
            digest.update(plain.view(torch.uint8).numpy())
        return {"name": self.name, "image": self.image, "weights": digest.hexdigest()}
