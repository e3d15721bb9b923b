"""A detector's box as a classifier of the image, to explain the class of what is in the box."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.attribution.preserve import ExplainError, preserve_state


class BoxLogits(nn.Module):
    """The logits behind one box of a torchvision detector, ``(B, C, H, W)`` -> ``(B, classes)``.

    A detector's score stands behind a softmax and a choice among thousands of boxes, where the
    rules of relevance end. Behind a box it has found stands one proposal, which has logits, so
    every method explains it like a classifier::

        box = BoxLogits(detector, image, index=0)
        explain(box, image, "lrp", target=box.label)

    The proposal is held fixed: what is explained is what is in it, not where it lies. For Faster
    R-CNN and its like (``transform``, ``backbone``, ``rpn``, ``roi_heads``).

    Attributes:
        box: ``(4,)``, the box as found, in pixels ``(left, top, right, bottom)``.
        label: its class.
        score: what the detector gives it.
    """

    proposal: Tensor

    def __init__(self, detector: Any, image: Tensor, index: int = 0) -> None:
        super().__init__()
        self.detector = detector
        with preserve_state(detector), torch.no_grad():
            found = detector([image])[0]
            if index >= len(found["boxes"]):
                raise ExplainError(f"box {index}: the detector found {len(found['boxes'])} boxes")
            self.box, self.score = found["boxes"][index], float(found["scores"][index])
            self.label = int(found["labels"][index])
            proposal = self.behind(image)
        self.register_buffer("proposal", proposal, persistent=False)

    def behind(self, image: Tensor) -> Tensor:
        """The proposal that the box was made of, ``(1, 4)``, in pixels of the image."""
        heads, size = self.detector.roi_heads, image.shape[1:]
        batch, _ = self.detector.transform([image])
        maps = self.maps(batch.tensors)
        proposals, _ = self.detector.rpn(batch, maps)
        _, moves = self.read(maps, proposals, batch.image_sizes)
        inner = batch.image_sizes[0]
        scale = torch.tensor([size[i] / inner[i] for i in (1, 0, 1, 0)]).to(self.box)
        limit = torch.tensor([size[i] for i in (1, 0, 1, 0)]).to(self.box)
        moved = heads.box_coder.decode(moves, proposals)[:, self.label] * scale
        apart = (moved.clamp(min=0).minimum(limit) - self.box).abs().amax(1)
        return (proposals[0][apart.argmin()] * scale).reshape(1, 4)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The backbone's maps, by name."""
        maps: Tensor | dict[str, Tensor] = self.detector.backbone(x)
        return {"0": maps} if isinstance(maps, Tensor) else maps

    def read(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Any) -> tuple[Tensor, ...]:
        """Logits and moves of boxes."""
        heads = self.detector.roi_heads
        read: tuple[Tensor, ...] = heads.box_predictor(
            heads.box_head(heads.box_roi_pool(maps, boxes, sizes))
        )
        return read

    def forward(self, images: Tensor) -> Tensor:
        """The same proposal in every image."""
        label = torch.ones(1, dtype=torch.long, device=images.device)
        aims = [{"boxes": self.proposal, "labels": label} for _ in images]
        batch, aims = self.detector.transform(list(images), aims)
        boxes = [aim["boxes"] for aim in aims]
        return self.read(self.maps(batch.tensors), boxes, batch.image_sizes)[0]
